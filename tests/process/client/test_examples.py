"""The examples in the client's docstrings run as they stand, on the embedded engine."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["aio", "client", "labels"])
def test_the_examples_of_a_module_are_true(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"mlld_sdk.{name}"), raise_on_error=False)
    assert outcome.attempted > 0
    assert outcome.failed == 0
