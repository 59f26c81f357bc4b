"""Waiting in tests without guessing how long."""

from collections.abc import Callable
from typing import Final, TypeVar

from mlld_sdk.base.durations import Deadline, pause

T = TypeVar("T")

PATIENCE: Final = 10.0
"""Seconds that waiting in tests lasts unless something else is said."""


def eventually(check: Callable[[], T], within: float = PATIENCE) -> T:
    """Return the first true value of `check`, asked every few milliseconds.

    Raises:
        AssertionError: It was not true within that many seconds.
    """
    deadline = Deadline(within)
    while True:
        value = check()
        if value:
            return value
        assert not deadline.is_over, f"not so within {within:g} s"
        pause(0.005)
