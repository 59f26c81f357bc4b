"""What the pages show runs: every Python block, in a directory of its own, on the embedded engine.

A block marked `python no-run` only has to compile: it shows a part of something.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mlld_sdk.demo import DEMOS
from tests.support.command_line import command_line

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


def commands() -> list[str]:
    """List the commands of the README that need no other machine: those of `make` are what a fresh clone is for."""
    shown = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line.partition("#")[0].strip() for block in shown for line in block.splitlines()]


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_is_one_of_ours(command: str, tmp_path: Path) -> None:
    program, *words = shlex.split(command)
    assert program == ".venv/bin/mlld-otp"
    if words[0] == "demo" and words[1:] != ["--help"]:
        assert len(words) == 2
        assert words[1] in DEMOS  # each of which `tests/process/demo/test_demos.py` plays
    else:
        assert command_line(tmp_path, *words).status == 0


def test_every_target_the_pages_name_is_in_the_makefile() -> None:
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    word = re.compile(r"(?:`|^)make ([a-z-]+)(?:`|  )", re.MULTILINE)
    named = {target for page in pages for target in word.findall(page.read_text())}
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"
