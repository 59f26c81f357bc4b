"""Waiting in tests of real processes: until it is so, or the deadline says it never will be."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], within: float = 10.0) -> T:
    """Return the first true value of `check`, asked every few milliseconds, or fail after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"not so within {within} s"
        time.sleep(0.005)
