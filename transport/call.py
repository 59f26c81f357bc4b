"""One request in flight, as a future."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlld_sdk.transport.wire import EngineEvent, Reply

if TYPE_CHECKING:
    from mlld_sdk.transport.engine import Engine

__all__ = ["Call", "OnEvents"]

OnEvents = Callable[[Sequence[EngineEvent]], None]
"""Takes the events of one request, in order, as many at a time as came together. Must not block. If it raises it is
detached and the request goes on."""


class Call(concurrent.futures.Future[Reply]):
    """One request in flight; a real `concurrent.futures.Future`, without the cost of one until somebody needs it.

    `concurrent.futures.wait`, `as_completed` and `asyncio.wrap_future` work on it. Done-callbacks run on the I/O thread
    (or on the thread that made the outcome) and must not block.
    """

    engine: Engine
    id: int
    method: str

    def result(self, timeout: float | timedelta | None = None) -> Reply:
        """Wait for the answer.

        `timeout` limits the waiting only and raises `TimeoutError`; the deadline of the call is the one given at
        submission. Raises the call's error: `ScriptError`, `EngineDied`, `CallTimeout`, `CallCancelled`, ...
        """
        raise NotImplementedError

    def exception(self, timeout: float | timedelta | None = None) -> BaseException | None:
        """Wait for the outcome and return its error, or `None` if there is an answer."""
        raise NotImplementedError

    def cancel(self) -> bool:
        """Cancel the request; false if it already has its outcome.

        Returns at once. The call then ends as `CallCancelled`: on an exclusive engine when the process, its group and
        its descendants are dead, on a shared one when the engine confirms or a grace is over. A request of which no
        byte was written is withdrawn without a trace.
        """
        raise NotImplementedError

    def update_state(
        self, path: str, value: Any, *, labels: Sequence[str] | None = None, timeout: float | timedelta | None = None
    ) -> Call:
        """Change `@state` of the running script; the returned call ends when the engine has taken it."""
        raise NotImplementedError

    def write_file(self, path: str, content: str, *, timeout: float | timedelta | None = None) -> Call:
        """Write a signed file as the running script (`execute` only); the returned call carries the verification."""
        raise NotImplementedError

    @property
    def has_started(self) -> bool:
        """Whether the engine has sent anything for this request yet."""
        raise NotImplementedError
