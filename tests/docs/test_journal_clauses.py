"""The pages about the journal and the checkpoints: their clauses are cited by tests, their error codes exist."""

import re
from pathlib import Path

import pytest

from mlld_sdk.journal import errors

ROOT = Path(__file__).parents[2]
JOURNAL = (ROOT / "docs" / "journal.md").read_text()
CHECKPOINTS = (ROOT / "docs" / "checkpoints.md").read_text()


def clauses(page: str, letter: str) -> set[str]:
    return set(re.findall(rf"^\* \*\*({letter}-\d+)\*\*", page, re.MULTILINE))


def cited(patterns: tuple[str, ...], letter: str) -> set[str]:
    texts = [file.read_text() for pattern in patterns for file in (ROOT / "tests").rglob(pattern)]
    return {clause for text in texts for clause in re.findall(rf"\b{letter}-\d+\b", text)}


@pytest.mark.parametrize(
    ("page", "letter", "tests"),
    [
        (JOURNAL, "J", ("journal/test_*.py",)),
        (
            CHECKPOINTS,
            "C",
            ("engines/test_checkpoints.py", "engines/test_unanswered.py", "agents/test_isolated_caches.py"),
        ),
    ],
)
def test_every_clause_is_cited_by_a_test_and_every_citation_exists(
    page: str, letter: str, tests: tuple[str, ...]
) -> None:
    assert clauses(page, letter) == cited(tests, letter)


def test_the_error_codes_on_the_page_exist() -> None:
    known = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    written = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", JOURNAL)) - {"RUN_DEADLINE_EXCEEDED", "CRASH_POINTS"}
    assert written <= known
