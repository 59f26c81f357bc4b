"""How an engine process ended: its exit status, decoded."""

import signal
from collections.abc import Callable
from dataclasses import dataclass

_HEAP_SIGNS = ("JavaScript heap out of memory", "Allocation failed", "Cannot allocate memory")
_SHELL_SIGNAL_BASE = 128


@dataclass(frozen=True, slots=True)
class EngineExit:
    """How an engine process ended.

    Attributes:
        code: Exit status, or `None` when a signal ended it.
        signal: Number of the signal that ended it, or `None`.
        expected: This side asked for the end: `close`, `kill`, a cancel or a deadline.
        out_of_memory: There is evidence that memory ran out: a SIGKILL or status 137 not sent here, while the kernel
            counted a process it killed for memory; or node said that its heap was full.
        doubtful: The status is that of a wrapper, which says 0 even when the engine behind it was killed.
    """

    code: int | None
    signal: int | None = None
    expected: bool = False
    out_of_memory: bool = False
    doubtful: bool = False

    @property
    def returncode(self) -> int | None:
        """The status as `subprocess` counts it: negative for a signal."""
        return self.code if self.signal is None else -self.signal

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                text = f"was ended by {signal.Signals(self.signal).name}"
            except ValueError:
                text = f"was ended by signal {self.signal}"
        elif self.code is not None:
            text = f"exited with status {self.code}"
        else:
            text = "ended, its status is lost"
        return text + (" (out of memory?)" if self.out_of_memory else "")


def decode_exit(
    status: int | None, *, expected: bool, wrapped: bool, stderr_tail: str, kernel_killed: Callable[[], bool]
) -> EngineExit:
    """Decode a status, as `subprocess` counts it, with the help of the last lines on stderr.

    `kernel_killed` is asked when a SIGKILL came from elsewhere: has the kernel killed a process for memory just now?
    """
    number = -status if status is not None and status < 0 else None
    heap = any(sign in stderr_tail for sign in _HEAP_SIGNS)
    killed = number == signal.SIGKILL or status == _SHELL_SIGNAL_BASE + signal.SIGKILL
    aborted = number == signal.SIGABRT or status == _SHELL_SIGNAL_BASE + signal.SIGABRT
    return EngineExit(
        code=status if number is None else None,
        signal=number,
        expected=expected,
        out_of_memory=(killed and not expected and kernel_killed()) or (aborted and heap),
        doubtful=wrapped and status == 0 and not expected,
    )
