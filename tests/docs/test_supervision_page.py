"""The examples of the supervision page run, and print what their comments say."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "supervision.md"


def test_the_examples_run_and_print_what_their_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    code = "\n".join(blocks)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out
    for promised in re.findall(r"print\(.*\)\s+# (.+)", code):
        assert promised in printed, promised
