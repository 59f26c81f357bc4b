"""The page of clauses about actors: each is cited by a test, and the tests it names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEMANTICS = (ROOT / "docs" / "semantics-actors.md").read_text()
TESTS = [
    *sorted((ROOT / "tests" / "unit" / "actors").glob("test_*.py")),
    *sorted((ROOT / "tests" / "process" / "actors").glob("test_*.py")),
]
ELSEWHERE = {"T-2"}
"""Clauses whose tests are the supervisors'."""


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
