"""Every example of the guide runs as it stands."""

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "actor-libraries.md"
SECTIONS = [part.split("\n", 1) for part in GUIDE.read_text().split("\n## ")[1:]]
EXAMPLES = [(title, code) for title, text in SECTIONS for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_the_example_runs(title: str, code: str) -> None:
    exec(compile(code, title, "exec"), {"__name__": "example"})
