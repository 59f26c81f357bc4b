"""What the parts of one engine share."""

import threading
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Sink
from mlld_sdk.base.texts import text_of_error
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.child import Child
from mlld_sdk.transport.events import EngineCallbackFailed
from mlld_sdk.transport.exits import EngineExit
from mlld_sdk.transport.limits import EngineLimits, EngineStats
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


@dataclass(eq=False)
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
        stats: What its parts have counted; see `Engine.stats`.
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

    child: Child
    label: str
    limits: EngineLimits
    reactor: Reactor
    env: Env
    sink: Sink
    _: KW_ONLY
    exclusive: bool
    heard: bool = False
    retired: bool = False
    ending: str | None = None
    because: Callable[[], MlldError] | None = None
    fatal: str | None = None
    finish_wanted: bool = False
    finished: bool = False
    exit: EngineExit | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    end: EngineEnder = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.env.now
        self.stats = EngineStats()
        self.stderr = Tail(self.limits.stderr_bytes)
        self._born = self.now()
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
        what = text_of_error(error)
        self.sink(EngineCallbackFailed(at=self.env.wall(), engine=self.label, where=where, error=what))

    def abandon(self) -> None:
        """In a forked child: the engine belongs to the parent alone."""
        self.lock = threading.Lock()
        self.ending = "forked"
        self.finished = True
