"""The page about agents, runs and pools: each clause is cited by a test, and every citation exists."""

import pytest

from tests.support.clauses import check_clauses

TESTS = (
    "process/agents/test_*.py",
    "process/runs/test_*.py",
    "unit/agents/test_*.py",
    "process/runtime/test_*.py",
    "process/engines/test_parity.py",
    "process/engines/test_unanswered.py",
    "unit/engines/test_*.py",
    "unit/runs/test_*.py",
)


@pytest.mark.parametrize("letter", ["A", "P"])
def test_every_clause_is_cited_by_a_test_and_every_citation_exists(letter: str) -> None:
    check_clauses("agents.md", letter, TESTS)
