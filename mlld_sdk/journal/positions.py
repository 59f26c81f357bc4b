"""Positions of steps: the same for the same code, however its branches are interleaved.

A run counts its steps: 1, 2, 3. Work that runs side by side takes one position and splits it *before* the branches
start, and each branch counts within its own part: 3.1.1, 3.1.2 in the first, 3.2.1 in the second. So a position depends
on the code and never on which branch was faster.
"""

import re
import threading

from mlld_sdk.base.errors import ConfigurationError

_POSITION = re.compile(r"[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){0,31}")


class Positions:
    """Counts the steps of a run or of one branch of it. Threads that share one race for numbers: split it instead."""

    def __init__(self, within: str = "") -> None:
        """Start counting at 1, within the position of a branch or at the top of the run."""
        self._prefix = f"{checked(within)}." if within else ""
        self._count = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        """Take the position of the next step."""
        with self._lock:
            self._count += 1
            return f"{self._prefix}{self._count}"

    def branches(self, number: int) -> "list[Positions]":
        """Take one position and split it into `number` branches that count for themselves."""
        fork = self.next()
        return [Positions(f"{fork}.{n}") for n in range(1, number + 1)]


def checked(position: str) -> str:
    """Return a well-formed position, or refuse it."""
    if not _POSITION.fullmatch(position):
        raise ConfigurationError(f"{position!r} is not a position", hint="numbers from 1, with dots: '3' or '3.1.2'")
    return position


def order(position: str) -> tuple[int, ...]:
    """Return the key that sorts positions as the code runs: 2 before 10, 3 before 3.1."""
    return tuple(map(int, position.split(".")))
