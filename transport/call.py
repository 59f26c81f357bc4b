"""One request in flight, as a future."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlld_sdk.base.future import LazyFuture
from mlld_sdk.transport.wire import EngineEvent, EngineReply

if TYPE_CHECKING:
    from mlld_sdk.transport.engine import Engine

__all__ = ["Call", "OnEvents", "Probe", "new_request_id"]

OnEvents = Callable[[Sequence[EngineEvent]], None]
"""Takes the events of one request, in order, as many at a time as came together. Must not block. If it raises it is
detached and the request goes on."""

_CONTROL_PATIENCE = 2.0


class Call(LazyFuture[EngineReply]):
    """One request in flight; a real `concurrent.futures.Future`, without the cost of one until somebody needs it.

    `concurrent.futures.wait`, `as_completed` and `asyncio.wrap_future` work on it. Done-callbacks run on the I/O thread
    (or on the thread that made the outcome) and must not block.

    Attributes:
        engine: Where it runs.
        id: Its number in the protocol, random.
        method: `process`, `execute`, ...
        deadline: When it ends as `CallTimeout`, in the clock of the engine's `Env`; infinity if never.
        has_started: The engine has sent an event of it.
    """

    has_started = False
    # Why this side gave it up: `cancelled` or `timeout`.
    _given_up: str | None = None
    # A request that is about another one is repeated while that one has not started.
    _target: Call | None = None
    _params: Any = None
    # The engine was given a time limit of its own.
    _has_engine_timeout = False

    def __init__(
        self,
        engine: Engine,
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
        self._line = line
        self._submitted = submitted
        self._on_events = on_events

    @property
    def is_run(self) -> bool:
        """Whether it runs a script, which goes on by itself when nobody waits any more."""
        return self.method in ("process", "execute")

    def cancel(self) -> bool:
        """Cancel the request; false if it already has its outcome.

        Returns at once. The call then ends as `CallCancelled`: on an exclusive engine when the process, its group and
        its descendants are dead, on a shared one when the engine confirms or a grace is over. A request of which no
        byte was written is withdrawn without a trace. An answer that comes within the grace wins.
        """
        return self.engine._give_up(self, "cancelled")

    def update_state(
        self,
        path: str,
        value: Any,
        *,
        labels: Sequence[str] | None = None,
        timeout: float | timedelta | None = _CONTROL_PATIENCE,
    ) -> Call:
        """Change `@state` of the running script; the returned call ends when the engine has taken it.

        Sent again while the script has not started. When it has ended the returned call fails at once, as a
        `ScriptError` with code `REQUEST_NOT_FOUND`.
        """
        params = {"requestId": self.id, "path": path, "value": value}
        if labels is not None:
            params["labels"] = list(labels)
        return self.engine._control(self, "state:update", params, timeout)

    def write_file(self, path: str, content: str, *, timeout: float | timedelta | None = _CONTROL_PATIENCE) -> Call:
        """Write a signed file as the running script (`execute` only); the returned call carries the verification."""
        params = {"requestId": self.id, "path": path, "content": content}
        return self.engine._control(self, "file:write", params, timeout)

    def _wait(self, timeout: float | timedelta | None) -> None:
        if not self.engine._wait_as_reader(self, timeout):
            super()._wait(timeout)

    def _listened_to(self) -> None:
        self.engine._attend()

    def _callback_failed(self, error: BaseException) -> None:
        self.engine._report("done-callback", error)


class Probe(Call):
    """A sign of life that was asked for.

    Attributes:
        seconds: How long it took; `None` until it is there.
    """

    seconds: float | None = None

    def _finish(self, result: EngineReply | None, error: BaseException | None) -> None:
        self.seconds = self.engine._now() - self._submitted
        super()._finish(result, error)


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
