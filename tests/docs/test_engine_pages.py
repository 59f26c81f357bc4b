"""What the engines' pages claim is held by tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = {f"{path.parent.name}/{path.name}": path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def test_every_test_the_engines_page_names_exists() -> None:
    page = (ROOT / "docs" / "engines.md").read_text()
    named = re.findall(r"`(?:(\w+/test_\w+\.py)(?:::TestReal)?::)?(test_\w+)`", page)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in TESTS[file or "engines/test_carry.py"], f"{file}::{test}"


@pytest.mark.parametrize("number", [number for number in range(1, 32) if number != 4])
def test_every_clause_of_the_extended_protocol_is_cited_by_a_test(number: int) -> None:
    # XP-4 says what is not promised.
    assert f"**XP-{number}**" in (ROOT / "docs" / "extended-protocol.md").read_text()
    assert any(re.search(rf"# .*\bXP-{number}\b", source) for source in TESTS.values())
