"""The pages about actors: their examples work, their clauses are cited by tests, the tests they name exist."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mlld_sdk.actors
from mlld_sdk.actors import Actor, ActorSystem

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "actors.md").read_text()
SEMANTICS = (ROOT / "docs" / "semantics-actors.md").read_text()
TESTS = [
    *sorted((ROOT / "tests" / "unit" / "actors").glob("test_*.py")),
    *sorted((ROOT / "tests" / "process").glob("test_actor_*.py")),
    ROOT / "tests" / "process" / "test_pykka_conformance.py",
]
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
ELSEWHERE = {"T-2"}
"""Clauses whose tests are the supervisors'."""


@pytest.mark.parametrize("code", EXAMPLES, ids=[code.strip().split("\n")[0] for code in EXAMPLES])
def test_the_example_is_valid(code: str) -> None:
    compiled = compile(code, "docs/actors.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if "await ref" not in code:
        names: dict[str, Any] = {name: getattr(mlld_sdk.actors, name) for name in mlld_sdk.actors.__all__}
        names |= {"socket": SimpleNamespace(recv=len), "Worker": Actor}
        names["socket"].recv = lambda _: b""
        exec(compiled, names)


def test_the_examples_of_answering_later_work() -> None:
    """Run the hook of the guide in an actor."""
    [code] = [code for code in EXAMPLES if "reply_to" in code]

    class Fetch:
        __match_args__ = ("url",)

        def __init__(self, url: str) -> None:
            self.url = url

    names: dict[str, Any] = {name: getattr(mlld_sdk.actors, name) for name in mlld_sdk.actors.__all__}
    names |= {"Fetch": Fetch, "fetch": lambda url, done: done(f"page of {url}")}
    exec(code, names)
    pool = SimpleNamespace(submit=lambda function, *args: function(*args))
    guide = type("Guide", (Actor,), {"on_receive": names["on_receive"], "pool": pool, "status": "fine"})
    with ActorSystem("docs") as system:
        ref = system.start(guide)
        assert ref.call(Fetch("x")) == "page of x"
        assert ref.call("status") == "fine"
        assert ref.call("remind me") is None


def test_every_clause_is_cited_by_a_test_and_every_citation_exists() -> None:
    written = set(re.findall(r"\*\*((?:LNK|GEN|BOX|PYK|T)-\d+)\*\*", SEMANTICS))
    cited = {
        clause
        for file in TESTS
        for comment in re.findall(r"#(.*)$", file.read_text(), re.MULTILINE)
        for clause in re.findall(r"\b(?:LNK|GEN|BOX|PYK|T)-\d+\b", comment)
    }
    assert cited <= written
    assert written - cited <= ELSEWHERE


def test_every_test_the_page_names_exists() -> None:
    known = {name for file in TESTS for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    files = {file.stem for file in TESTS}
    for name in re.findall(r"`(test_\w+)(\*?)`", SEMANTICS):
        if name[1]:
            assert any(test.startswith(name[0]) for test in known), name
        else:
            assert name[0] in known | files, name
