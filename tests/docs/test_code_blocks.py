"""What the pages show runs: every Python block, in a directory of its own, on the embedded engine.

A block marked `python no-run` only has to compile: it shows a part of something.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python(?P<marks>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[object]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text()), start=1):
            runs = "no-run" not in match["marks"]
            found.append(pytest.param(match["code"], runs, id=f"{page.stem}-{number}"))
    return found


@pytest.mark.parametrize(("code", "runs"), blocks())
def test_a_code_block_runs(code: str, runs: bool, tmp_path: Path) -> None:
    program = compile(code, "block", "exec")
    assert program is not None
    if runs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MLLD_ENGINE": "embedded"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"
