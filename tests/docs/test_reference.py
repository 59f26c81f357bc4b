"""The reference page, what the package exports, and what type checkers see of it agree."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlld_sdk
from mlld_sdk import Actor, MlldError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_would_be_written_today(maker: Any) -> None:
    assert (ROOT / "docs" / "reference.md").read_text() == maker.page(), "run: python docs/make_reference.py"


def test_everything_public_is_on_the_page_once_and_described(maker: Any) -> None:
    entries = re.split(r"^### |^## .*", maker.page(), flags=re.MULTILINE)
    described = {}
    for entry in entries:
        if found := re.match(r"`(\w+)`\n", entry):
            words = re.sub(r"```.*?```", "", entry.split("\n", 1)[1], flags=re.DOTALL)
            assert len(words.split()) >= 3, entry
            assert described.setdefault(found[1], entry) is entry, f"{found[1]} is two things"
    assert set(described) == public(maker)


def public(maker: Any) -> set[str]:
    return {name for module in maker.modules() for name in importlib.import_module(module).__all__}


def test_every_name_can_be_imported_and_is_listed_by_dir(maker: Any) -> None:
    for title in maker.modules():
        module = importlib.import_module(title)
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(getattr(module, name) is not None for name in module.__all__)
        assert set(module.__all__) <= set(dir(module))


def test_what_upstream_exports_can_be_imported_from_the_package_without_being_listed() -> None:
    adapter = ast.parse((ROOT / "tests" / "upstream" / "mlld.py").read_text())
    [names] = [node.value for node in adapter.body if isinstance(node, ast.Assign)]
    for name in ast.literal_eval(names):
        assert getattr(mlld_sdk, name) is not None
    assert not {"execute", "process", "StateWrite"} & set(mlld_sdk.__all__)
    assert not hasattr(mlld_sdk, "StepFailed")


@pytest.mark.parametrize("page", ["agents.md", "operations.md", "tutorial.md", "index.md"])
def test_classes_that_users_read_of_are_public(page: str, maker: Any) -> None:
    modules = ("agents.agent", "agents.handles", "agents.owner", "agents.pool", "engines.pool", "journal.errors")
    modules = (
        *modules,
        "runs.errors",
        "runs.handles",
        "runs.job",
        "runs.retry",
        "runtime.runtime",
        "supervision",
        "transport.errors",
    )
    ours = {
        name
        for module in modules
        for name, thing in vars(importlib.import_module(f"mlld_sdk.{module}")).items()
        if isinstance(thing, type) and issubclass(thing, MlldError | Actor)
    }
    named = set(re.findall(r"`([A-Z]\w+)[`(]", (ROOT / "docs" / page).read_text()))
    assert named & ours <= public(maker)


def test_importing_the_package_imports_the_three_dependencies_at_most() -> None:
    code = (
        "import sys, time; before = set(sys.modules); began = time.perf_counter(); import mlld_sdk\n"
        "took = time.perf_counter() - began\n"
        "for name in mlld_sdk.__all__: getattr(mlld_sdk, name)\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(f'import mlld_sdk: {took * 1000:.1f} ms', file=sys.stderr)\n"
        "print(*sorted(tops - set(sys.stdlib_module_names) - {'mlld_sdk'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    print(done.stderr)
    foreign = {name for name in done.stdout.split() if not name.startswith(("_", "sitecustomize", "usercustomize"))}
    by_structlog = {"rich", "pygments"}  # taken by itself when they happen to be there
    assert foreign - by_structlog <= {"pykka", "msgspec", "structlog", "typing_extensions"}, foreign
