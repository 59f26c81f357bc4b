"""The page of parity rows and the citations in the tests say the same."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([A-Z]{2}\d+) \| (.*) \| (.*)\|$", re.MULTILINE)
FAMILIES = "RC|RU|RD|TS|TK|SM|PG|PU"


def cited(modules: set[str]) -> dict[str, set[str]]:
    """Find which tests cite which row, in the comment at the end of their signature or right below it."""
    found: dict[str, set[str]] = {}
    for source in (ROOT / "tests" / "unit" / "actors" / f"test_{module}.py" for module in modules):
        text = source.read_text()
        for test, comments in re.findall(
            r"^def test_(\w+)\([^#]*?\) -> None:((?:  #.*)?\n(?:    #.*\n)*)", text, re.MULTILINE
        ):
            for family, first, last in re.findall(rf"\b({FAMILIES})(\d+)(?:-(?:{FAMILIES})(\d+))?", comments):
                for number in range(int(first), int(last or first) + 1):
                    found.setdefault(f"{family}{number}", set()).add(f"{source.stem[5:]}: {test}")
    return found


def test_every_row_names_exactly_the_tests_that_cite_it() -> None:
    rows = ROW.findall((ROOT / "docs" / "parity-actors.md").read_text())
    tests = cited({module for _, _, named in rows for module in re.findall(r"`(\w+)`: ", named)})
    assert len(rows) == 152
    for row, what, named in rows:
        listed = {
            f"{module}: {test}"
            for module, names in re.findall(r"`(\w+)`: ((?:`\w+`(?:, )?)+)", named)
            for test in re.findall(r"`(\w+)`", names)
        }
        assert listed == tests.get(row, set()), row
        assert bool(listed) != what.startswith("does not apply"), row
