"""What the parts of one engine share."""

import threading
from collections.abc import Callable
from typing import Protocol

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Sink
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.child import Child
from mlld_sdk.transport.events import EngineCallbackFailed
from mlld_sdk.transport.exits import EngineExit
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.pipes import Tail
from mlld_sdk.transport.reactor import Reactor


class EngineEnder(Protocol):
    """How the other parts end an engine, or learn that it has ended."""

    def kill(self) -> None:
        """End it by SIGKILL, now."""

    def on_broken(self) -> None:
        """See to an engine that has closed one of its pipes; on the I/O thread."""

    def finish(self) -> None:
        """Read what is left and settle every call; on the I/O thread, when the process has ended."""

    def settle_led(self, call: Call) -> None:
        """Settle the call of a caller that reads, if the process has ended; with the reader's lock."""


class EngineCore:
    """The process of one engine, its surroundings, and the facts about it that all its parts go by.

    Attributes:
        child: The process.
        label: Name for reports.
        limits: Bounds and graces.
        reactor: The I/O thread.
        env: The clocks.
        now: Its monotonic one.
        sink: Takes the events.
        end: Ends the engine; set by `Ending`.
        stderr: The end of what the process wrote to stderr.
        lock: Guards the decisions that only the first may take: why the engine ends, why a call was given up.
        exclusive: A cancelled or expired script takes the process with it.
        heard: It has sent something in the protocol.
        retired: It takes no more requests and ends when those in flight are over.
        ending: Why it ends: `closed`, `killed`, `cancelled`, `timeout`, `died`, `forked`; `None` while it does not.
        because: Makes the error calls end with, where the caller of `kill` has given one.
        fatal: What it wrote that made this side kill it.
        finish_wanted: Its process has ended; what is left in its pipes is still to be read.
        exit: How it ended, when all it wrote has been read.
        finished: That is known, or the engine belongs to the process this one was forked from.
    """

    end: EngineEnder

    def __init__(
        self, child: Child, label: str, limits: EngineLimits, reactor: Reactor, env: Env, sink: Sink, *, exclusive: bool
    ) -> None:
        self.child = child
        self.label = label
        self.limits = limits
        self.reactor = reactor
        self.env = env
        self.now = env.now
        self.sink = sink
        self.exclusive = exclusive
        self.stderr = Tail(limits.stderr_bytes)
        self.lock = threading.Lock()
        self.heard = False
        self.retired = False
        self.ending: str | None = None
        self.because: Callable[[], MlldError] | None = None
        self.fatal: str | None = None
        self.finish_wanted = False
        self.finished = False
        self.exit: EngineExit | None = None
        self._born = env.now()
        self._lived: float | None = None

    @property
    def lived(self) -> float:
        """Seconds from its start to its end, or until now."""
        return self.now() - self._born if self._lived is None else self._lived

    def note_exit(self, exit_: EngineExit) -> None:
        """Note how it ended, and that it lives no longer."""
        self._lived = self.lived
        self.exit = exit_
        self.finished = True

    def report(self, where: str, error: BaseException) -> None:
        """Emit that a callback has raised."""
        what = f"{type(error).__name__}: {error}"
        self.sink(EngineCallbackFailed(at=self.env.wall(), engine=self.label, where=where, error=what))

    def abandon(self) -> None:
        """In a forked child: the engine belongs to the parent alone."""
        self.lock = threading.Lock()
        self.ending = "forked"
        self.finished = True
