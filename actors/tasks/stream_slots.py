"""The bookkeeping of a task stream, as plain data: what runs, what is finished but must wait, what leaves next.

Ordered streams give results out in the order of the input, so finished items may have to wait behind a slow one. Two
limits hold: at most `width` items run at once, and at most `waiting` finished ones are kept; when either is reached no
further item may enter.
"""

from typing import Generic, TypeVar

R = TypeVar("R")


class Slots(Generic[R]):
    """Which items are inside a stream, and in which order they leave."""

    def __init__(self, width: int, *, ordered: bool, waiting: int) -> None:
        self._width = width
        self._waiting = waiting
        self._ordered = ordered
        self._running: set[int] = set()
        self._finished: dict[int, R] = {}
        self._entered = 0
        self._left = 0

    @property
    def free(self) -> bool:
        """Return whether one more item may enter."""
        return len(self._running) < self._width and len(self._finished) < self._waiting

    @property
    def empty(self) -> bool:
        """Return whether nothing is inside."""
        return not self._running and not self._finished

    def enter(self) -> int:
        """Take an item in; it is known by this number from now on."""
        number, self._entered = self._entered, self._entered + 1
        self._running.add(number)
        return number

    def finish(self, number: int, result: R) -> bool:
        """Note the result of an item; `False` when it has one already."""
        if number not in self._running:
            return False
        self._running.remove(number)
        self._finished[number] = result
        return True

    @property
    def ready(self) -> bool:
        """Return whether a result may leave."""
        return self._left in self._finished if self._ordered else bool(self._finished)

    def leave(self) -> R:
        """Take the result that leaves next; only when `ready`."""
        number = self._left if self._ordered else next(iter(self._finished))
        self._left += 1
        return self._finished.pop(number)
