"""Waiting in tests of real processes: until it is so, or the deadline says it never will be."""

from collections.abc import Callable
from typing import TypeVar

from mlld_sdk.testing import eventually as until

T = TypeVar("T")

__all__ = ["eventually"]


def eventually(check: Callable[[], T], within: float = 60.0) -> T:
    """Return the first true value of `check`; patient, since a busy machine may take seconds to start a process."""
    return until(check, within)
