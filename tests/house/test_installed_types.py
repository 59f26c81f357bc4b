"""What a user's type checkers see after the README's own `pip install -e .`: everything, typed."""

import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import mlld_sdk

pytestmark = [pytest.mark.types, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PATIENCE = 250.0  # seconds for one command: checkers compute, and a busy machine computes slowly
PROGRAM = """
from typing import assert_type

from mlld_sdk import Agent, Client, Job, Runtime, child, execute, one_for_one
from mlld_sdk.errors import StepFailed
from mlld_sdk.supervision import ChildSpec
from mlld_sdk.types import ExecuteResult


class Reviewer(Agent):
    engine = "embedded"

    def run(self, job: Job, payload: dict[str, str]) -> str:
        try:
            assert_type(job.execute("review.mld", payload), ExecuteResult)
        except StepFailed as failed:
            return failed.code
        return job.process("show 1")


assert_type(child(Reviewer, name="reviewer"), ChildSpec)
assert_type(execute("x.mld"), ExecuteResult)
with Runtime(one_for_one(child(Reviewer)), store="state.db") as runtime, Client(engine="embedded") as client:
    assert_type(client.process("show 1"), str)
    assert_type(runtime.agent("reviewer").process("show 1"), str)
"""


def run(*command: object, cwd: Path, **environ: str) -> tuple[int, str]:
    words = [str(word) for word in command]
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")} | environ
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with an editable install; what this one has beside it is lent by a path file."""
    place = tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE", "mlld_sdk", "actors", "supervision", "transport", "src"):
        if name == "src":
            (place / name).mkdir()
            (place / name / "mlld_sdk").symlink_to("../mlld_sdk")
        else:
            (place / name).symlink_to(ROOT / name)
    venv.create(place / "venv", with_pip=False, symlinks=True)
    python = place / "venv" / "bin" / "python"
    [site] = (place / "venv" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    code, said = run(*install, "--no-build-isolation", "-e", place, cwd=place)
    assert code == 0, said
    return python


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def test_only_the_package_becomes_importable(python: Path, tmp_path: Path) -> None:
    code, said = run(python, "-c", "import mlld_sdk.actors; print(mlld_sdk.Agent)", cwd=tmp_path)
    assert code == 0, said
    for name in ("actors", "supervision", "transport", "tests"):
        assert "ModuleNotFoundError" in run(python, "-c", f"import {name}", cwd=tmp_path)[1]


def test_mypy_strict_finds_the_types(python: Path, program: Path) -> None:
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    code, said = run(*mypy, "program.py", cwd=program)
    assert code == 0, said
    (program / "wrong.py").write_text("from mlld_sdk import Agnet\n")
    assert 'has no attribute "Agnet"' in run(*mypy, "wrong.py", cwd=program)[1]


def test_pyright_finds_the_types(python: Path, program: Path) -> None:
    (program / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    code, said = run(sys.executable, "-m", "basedpyright", "--pythonpath", python, "program.py", cwd=program)
    assert code == 0, said


def test_every_public_type_is_known(python: Path, tmp_path: Path) -> None:
    """What a name is made of must be written down, or checkers may differ about it."""
    verify = [sys.executable, "-m", "basedpyright", "--verifytypes", "mlld_sdk", "--ignoreexternal", "--outputjson"]
    _, said = run(*verify, cwd=tmp_path, PATH=f"{python.parent}:{os.environ['PATH']}")
    found = json.loads(said)["typeCompleteness"]
    assert found["exportedSymbolCounts"]["withUnknownType"] == 0
    public = {
        f"{thing.__module__}.{name}": thing
        for module in ["mlld_sdk", *re.findall(r"`(mlld_sdk\.\w+)`", mlld_sdk.__doc__ or "")]
        for name, thing in vars_of(module).items()
        if isinstance(thing, type)
    }
    open_to_guesses = sorted(
        symbol["name"]
        for symbol in found["symbols"]
        if symbol["isTypeAmbiguous"]
        and (owner := public.get(symbol["name"].rpartition(".")[0]))
        and not hasattr(getattr(owner, symbol["name"].rpartition(".")[2], None), "__wrapped__")  # typed as its original
        if any("Type is missing" in told["message"] for told in symbol["diagnostics"])
    )
    assert len(open_to_guesses) <= GUESSES_LEFT, open_to_guesses


GUESSES_LEFT = 0


def vars_of(module: str) -> dict[str, object]:
    found = importlib.import_module(module)
    return {name: getattr(found, name) for name in found.__all__}
