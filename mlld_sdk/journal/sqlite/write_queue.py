"""One write of one caller, and how the callers of one commit are woken."""

from _thread import allocate_lock
from collections.abc import Callable
from typing import Any, Final

from mlld_sdk.journal.rows import Tx

PATIENCE_S: Final = 0.005
"""How long the callers of a commit are left to wake each other before the writer wakes them, having nothing to do."""

QUEUED, TAKEN, DONE, WITHDRAWN, GONE = range(5)


class QueuedWrite:
    """One write: what to do, and what became of it.

    Attributes:
        work: What to do.
        state: `WITHDRAWN` if its caller's time was up before it was taken, `GONE` if after.
        result: What the work gave.
        error: Why it was refused, or failed.
        batch: The callers that are to be woken after it, once it is durable.
    """

    __slots__ = ("_gate", "batch", "error", "result", "state", "work")

    def __init__(self, work: Callable[[Tx], Any]) -> None:
        self.work = work
        self.state = QUEUED
        self.result: Any = None
        self.error: BaseException | None = None
        self.batch: WriteBatch | None = None
        self._gate = allocate_lock()
        self._gate.acquire()

    def wait(self, timeout: float) -> bool:
        """Wait until it is done, and wake the next in the batch; returns whether it was done in time."""
        try:
            return self._gate.acquire(timeout=timeout)
        finally:
            if self.batch is not None:
                self.batch.wake_one()

    def end(self) -> None:
        """Mark it done and wake its caller."""
        self.state = DONE
        self._gate.release()


class WriteBatch:
    """The callers of one commit, each of which wakes the next.

    Woken all at once they would only queue up for the interpreter, at several system calls each. Those that are left,
    because one before them was slow, are woken with the next commit, or after `PATIENCE_S` without one.

    Attributes:
        left: Those that are still to be woken, the next one last.
    """

    def __init__(self, writes: list[QueuedWrite]) -> None:
        self.left = writes[::-1]
        for write in writes:
            write.batch = self
        self.wake_one()

    def wake_one(self) -> None:
        """Wake the next caller that still waits."""
        while self.left:
            try:
                write = self.left.pop()  # atomic: no caller is woken twice
            except IndexError:
                return
            gone = write.state == GONE
            write.end()
            if not gone:
                return

    def wake_all(self) -> None:
        """Wake all callers that are left."""
        while self.left:
            self.wake_one()
