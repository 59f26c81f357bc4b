"""The map of the house agrees with the house."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design.md").read_text()
WAYS = PAGE.partition("## Five ways through the house")[2].partition("\n## ")[0]


def test_the_picture_and_the_table_are_drawn_from_the_imports() -> None:
    check = [sys.executable, ROOT / "docs" / "draw_house.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


STEPS = " ".join(re.findall(r"^\d+\. .*", WAYS, re.MULTILINE))


@pytest.mark.parametrize("call", sorted(set(re.findall(r"`((?:\w+\.){2,}\w+)`", STEPS))))
def test_every_call_on_the_ways_exists(call: str) -> None:
    words = f"mlld_sdk.{call}".split(".")
    for at in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:at]))
        except ModuleNotFoundError:
            continue
        for word in words[at:]:
            found = getattr(found, word)
        assert callable(found)
        return
    pytest.fail(f"no module leads to {call}")


def test_the_room_of_every_module_is_on_the_map() -> None:
    rooms = {path.parent.name for path in (ROOT / "mlld_sdk").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
