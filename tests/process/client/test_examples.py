"""The examples in docstrings run as they stand, on the embedded engine."""

import doctest
import importlib
from pathlib import Path

import pytest

import mlld_sdk

PACKAGE = Path(mlld_sdk.__file__).parent
SHOWING = sorted(
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if ">>> " in file.read_text()
)


def test_the_client_shows_how_it_is_used() -> None:
    assert {"mlld_sdk.client.client", "mlld_sdk.client.aio"} <= set(SHOWING)


@pytest.mark.parametrize("name", SHOWING)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert outcome.attempted > 0
    assert outcome.failed == 0
