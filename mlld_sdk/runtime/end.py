"""The end of a runtime: what is said about it, what those get who still ask it for work, and how they are told."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from mlld_sdk.base.durations import LONGEST_WAIT, Duration, seconds
from mlld_sdk.base.errors import InfrastructureError


class RuntimeNotRunning(InfrastructureError):
    """The runtime has not been started, has been stopped, or has ended by itself."""

    code = "RUNTIME_NOT_RUNNING"
    hint = "use it in a `with` block"


@dataclass(eq=False, repr=False)
class RuntimeGaveUp(RuntimeNotRunning):
    """The root supervisor gave up: nothing in this runtime runs, and nothing will be restarted.

    Attributes:
        runtime: Its name.
        at: When, in wall-clock seconds.
        why: The root's last words: on which child it gave up, and for which reason.
        when: When, in words.
    """

    code = "RUNTIME_GAVE_UP"
    message = "runtime `{runtime}` {said}"
    hint = "mend the cause, stop this runtime and start another one; on the same store it goes on with the runs"
    runtime: str
    at: float
    why: str

    def __post_init__(self) -> None:
        self.when: str = moment(self.at)
        self.said: str = _said("gave up", self.when, self.why)
        super().__post_init__()


class RuntimeEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a runtime ended.

    Attributes:
        runtime: Its name.
        how: `gave_up`: its root supervisor did, or was killed. `ended`: the tree had come to its own end in order
            (`auto_shutdown`). `stopped`: it was told to stop.
        at: When, in wall-clock seconds.
        why: In one line.
    """

    runtime: str
    how: Literal["gave_up", "ended", "stopped"]
    at: float
    why: str

    @property
    def gave_up(self) -> bool:
        """Whether the root gave up, so that somebody has to act."""
        return self.how == "gave_up"

    def error(self) -> RuntimeNotRunning:
        """Make the error of somebody who asks for what is not there any more."""
        if self.how == "gave_up":
            return RuntimeGaveUp(self.runtime, self.at, self.why)
        said = "has been stopped" if self.how == "stopped" else f"has ended: {self.why}"
        return RuntimeNotRunning(f"runtime {self.runtime!r} {said}", hint="make another one")

    def __str__(self) -> str:
        return _said(self.how.replace("_", " "), moment(self.at), self.why)


def moment(at: float) -> str:
    """Write a wall-clock moment down."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _said(what: str, when: str, why: str) -> str:
    return f"{what} at {when}: {why.removeprefix(f'{what} ')}"


Listener = Callable[[RuntimeEnd], object]


class EndNotice:
    """The one end of a runtime: noted once, waited for by any number of threads, told to listeners.

    Attributes:
        end: How it ended, when it has.
    """

    def __init__(self) -> None:
        self.end: RuntimeEnd | None = None
        self._changed = threading.Condition()
        self._listeners: dict[int, Listener] = {}
        self._next = 0

    def note(self, end: RuntimeEnd) -> bool:
        """Take note of the end and tell everybody; only the first counts. Returns whether this was it."""
        with self._changed:
            if self.end is not None:
                return False
            self.end = end
            listeners = list(self._listeners.values())
            self._listeners.clear()
            self._changed.notify_all()
        for listener in listeners:
            listener(end)
        return True

    def wait(self, timeout: Duration | None) -> RuntimeEnd | None:
        """Wait for the end and return how it was, or `None` when the time is over first."""
        limit = seconds(timeout)
        with self._changed:
            self._changed.wait_for(
                lambda: self.end is not None, min(LONGEST_WAIT if limit is None else limit, LONGEST_WAIT)
            )
            return self.end

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(end)` once, at once if it has ended; it must be quick. Returns what withdraws it."""
        with self._changed:
            end, number = self.end, self._next
            self._next += 1
            if end is None:
                self._listeners[number] = listener

        def withdraw() -> None:
            with self._changed:
                self._listeners.pop(number, None)

        if end is not None:
            listener(end)
        return withdraw
