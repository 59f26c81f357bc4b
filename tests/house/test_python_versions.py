"""What newer versions of Python warn of, found by reading, since the tests may run on an older one."""

import re
from pathlib import Path

import mlld_sdk

PACKAGE = Path(mlld_sdk.__file__).parent


def test_no_statement_numbers_its_placeholders_and_is_given_a_sequence() -> None:
    numbered = re.compile(r"[ (,=]\?\d")
    found = [
        f"{file.relative_to(PACKAGE)}: {line.strip()}"
        for file in PACKAGE.rglob("*.py")
        for line in file.read_text().splitlines()
        if numbered.search(line)
    ]
    assert not found
