"""The pages about operating and deploying a service: each clause is cited by a test, and every citation exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ("process/runtime/test_*.py", "process/telemetry/test_metrics.py")


@pytest.mark.parametrize(("page", "letter"), [("operations", "R"), ("deploying", "D")])
def test_every_clause_is_cited_by_a_test_and_every_citation_exists(page: str, letter: str) -> None:
    written = re.findall(rf"^- \*\*({letter}-\d+)\*\*", (ROOT / "docs" / f"{page}.md").read_text(), re.MULTILINE)
    assert len(written) == len(set(written))
    comments = [
        comment
        for pattern in TESTS
        for file in (ROOT / "tests").glob(pattern)
        for comment in re.findall(r"#(.*)", file.read_text())
    ]
    assert set(written) == {clause for text in comments for clause in re.findall(rf"\b{letter}-\d+\b", text)}
