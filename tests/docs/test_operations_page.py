"""The pages about operating and deploying a service: each clause is cited by a test, and every citation exists."""

import pytest

from tests.support.clauses import check_clauses

TESTS = ("process/runtime/test_*.py", "process/telemetry/test_metrics.py")


@pytest.mark.parametrize(("page", "letter"), [("operations", "R"), ("deploying", "D")])
def test_every_clause_is_cited_by_a_test_and_every_citation_exists(page: str, letter: str) -> None:
    check_clauses(f"{page}.md", letter, TESTS)
