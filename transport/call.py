"""One request in flight, as a future."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from mlld_sdk.base.durations import Duration
from mlld_sdk.base.future import LazyFuture
from mlld_sdk.transport.limits import EngineStats
from mlld_sdk.transport.pipes import Seat
from mlld_sdk.transport.wire import EngineEvent, EngineReply

OnEvents = Callable[[Sequence[EngineEvent]], None]
"""Takes the events of one request, in order, as many at a time as came together. Must not block. If it raises it is
detached and the request goes on."""

_CONTROL_PATIENCE = 2.0


class CallHost(Protocol):
    """What a call and its owner need of the engine it was sent to; `Engine` is the one there is."""

    wait_inline: Callable[[Call, Duration | None], bool]
    attend: Callable[[], None]
    report: Callable[[str, BaseException], None]

    def give_up(self, call: Call, why: Literal["cancelled", "timeout"]) -> bool:
        """Begin the end of a call; false if it has its outcome."""

    def control(self, target: Call, method: str, params: Any, timeout: Duration | None) -> Call:
        """Send a request about another one."""

    def retire(self) -> None:
        """Take no more requests."""

    def reap_descendants(self) -> int:
        """Kill what the engine has started and left running."""

    @property
    def stats(self) -> EngineStats:
        """Counters."""


class Call(LazyFuture[EngineReply]):
    """One request in flight; a real `concurrent.futures.Future`, without the cost of one until it is needed.

    `concurrent.futures.wait`, `as_completed` and `asyncio.wrap_future` work on it. Done-callbacks run on the I/O thread
    (or on the thread that made the outcome) and must not block.

    Attributes:
        engine: Where it runs.
        id: Its number in the protocol, random.
        method: `process`, `execute`, ...
        deadline: When it ends as `CallTimeout`, in the clock of the engine's `Env`; `FOREVER` if never.
        line: The request as it is written.
        submitted: When it was made.
        on_events: Takes its events, if anything does.
        has_started: The engine has sent an event of it.
        given_up: Why this side gave it up.
        target: The call that this one is about; it is repeated until that one has started.
        params: What it says about its target.
        has_engine_timeout: The engine was given a time limit of its own.
        is_probe: Any answer is a good one.
        seat: Where its caller reads the engine's pipe and waits for it.
    """

    has_started = False
    given_up: Literal["cancelled", "timeout"] | None = None
    target: Call | None = None
    params: Any = None
    has_engine_timeout = False
    is_probe = False
    seat: Seat | None = None

    def __init__(
        self,
        engine: CallHost,
        request_id: int,
        method: str,
        line: bytes,
        submitted: float,
        deadline: float,
        on_events: OnEvents | None,
    ) -> None:
        self.engine = engine
        self.id = request_id
        self.method = method
        self.deadline = deadline
        self.line = line
        self.submitted = submitted
        self.on_events = on_events

    @property
    def is_run(self) -> bool:
        """Whether it runs a script, which goes on by itself when its caller has left."""
        return self.method in ("process", "execute")

    def cancel(self) -> bool:
        """Cancel the request; false if it already has its outcome.

        Returns at once. The call then ends as `CallCancelled`: on an exclusive engine when the process, its group and
        its descendants are dead, on a shared one when the engine confirms or a grace is over. A request of which no
        byte was written is withdrawn without a trace. An answer that comes within the grace wins.
        """
        return self.engine.give_up(self, "cancelled")

    def update_state(
        self,
        path: str,
        value: Any,
        *,
        labels: Sequence[str] | None = None,
        timeout: Duration | None = _CONTROL_PATIENCE,
    ) -> Call:
        """Change `@state` of the running script; the returned call ends when the engine has taken it.

        Sent again while the script has not started. When it has ended the returned call fails at once, as a
        `ScriptError` with code `REQUEST_NOT_FOUND`.
        """
        params = {"requestId": self.id, "path": path, "value": value}
        if labels is not None:
            params["labels"] = list(labels)
        return self.engine.control(self, "state:update", params, timeout)

    def write_file(self, path: str, content: str, *, timeout: Duration | None = _CONTROL_PATIENCE) -> Call:
        """Write a signed file as the running script (`execute` only); the returned call carries the verification."""
        params = {"requestId": self.id, "path": path, "content": content}
        return self.engine.control(self, "file:write", params, timeout)

    def _wait(self, timeout: Duration | None) -> None:
        if not self.engine.wait_inline(self, timeout):
            super()._wait(timeout)

    def _listened_to(self) -> None:
        self.engine.attend()

    def _callback_failed(self, error: BaseException) -> None:
        self.engine.report("done-callback", error)


_BATCH = 256
_ids: list[int] = []


def new_request_id() -> int:
    """Make a number no script can guess: 52 random bits, within what the engine's numbers can hold."""
    try:
        return _ids.pop()
    except IndexError:
        numbers: tuple[int, ...] = struct.unpack(f"{_BATCH}Q", os.urandom(8 * _BATCH))
        first, *others = [(number >> 12) | 1 << 52 for number in numbers]
        _ids.extend(others)
        return first


os.register_at_fork(after_in_child=_ids.clear)
