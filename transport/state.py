"""What the parts of one engine know about it together."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mlld_sdk.base.errors import MlldError
from mlld_sdk.transport.exits import EngineExit
from mlld_sdk.transport.pipes import Tail

__all__ = ["EngineState"]


class EngineState:
    """Facts about one engine, written by the part that learns them and read by all.

    Attributes:
        label: Name for reports.
        extended: The engine speaks the extended protocol, so its error codes can be believed.
        now: The clock.
        stderr: The end of what the process wrote to stderr.
        lock: Guards the decisions that only the first may take: why the engine ends, why a call was given up.
        heard: It has sent something in the protocol.
        retired: It takes no more requests and ends when those in flight are over.
        ending: Why it ends: `closed`, `killed`, `cancelled`, `timeout`, `died`, `forked`; `None` while it does not.
        because: Makes the error calls end with, where the caller of `kill` has given one.
        fatal: What it wrote that made this side kill it.
        finish_wanted: Its process has ended; what is left in its pipes is still to be read.
        finished: All it wrote has been read, and `exit` is known.
        exit: How it ended.
    """

    def __init__(self, label: str, now: Callable[[], float], stderr: Tail, *, extended: bool = False) -> None:
        self.label = label
        self.extended = extended
        self.now = now
        self.stderr = stderr
        self.lock = threading.Lock()
        self.heard = False
        self.retired = False
        self.ending: str | None = None
        self.because: Callable[[], MlldError] | None = None
        self.fatal: str | None = None
        self.finish_wanted = False
        self.finished = False
        self.exit: EngineExit | None = None
        self._born = now()
        self._lived: float | None = None

    @property
    def lived(self) -> float:
        """Seconds from its start to its end, or until now."""
        return self.now() - self._born if self._lived is None else self._lived

    def end(self, exit_: EngineExit) -> None:
        """Note how it ended, and that it lives no longer."""
        self._lived = self.lived
        self.exit = exit_
        self.finished = True

    def abandon(self) -> None:
        """In a forked child: the engine belongs to the parent alone."""
        self.lock = threading.Lock()
        self.ending = "forked"
        self.finished = True
