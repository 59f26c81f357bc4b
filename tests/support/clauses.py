"""The numbered clauses of a page, and the comments of tests that cite them."""

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check_clauses(page: str, letter: str, tests: Iterable[str]) -> None:
    """Assert that each clause of a page stands there once and is cited by a test, and that every citation exists."""
    written = re.findall(rf"^- \*\*({letter}-\d+)\*\*", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    assert len(written) == len(set(written))
    comments = [
        comment
        for pattern in tests
        for file in (ROOT / "tests").glob(pattern)
        for comment in re.findall(r"#(.*)", file.read_text())
    ]
    assert set(written) == {clause for text in comments for clause in re.findall(rf"\b{letter}-\d+\b", text)}
