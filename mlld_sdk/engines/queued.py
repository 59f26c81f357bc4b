"""Requests that wait for an engine: futures from the first moment, calls once there is one."""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from mlld_sdk.base.durations import LONGEST_WAIT
from mlld_sdk.transport.errors import CallCancelled, ForkedProcess
from mlld_sdk.transport.wire import EngineReply

if TYPE_CHECKING:
    from mlld_sdk.transport.call import Call


class Placed(Protocol):
    """An order for an engine that can be given up."""

    def cancel(self) -> bool:
        """Give it up; false if it has come to its end."""
        ...


class StillWaiting(Exception):
    """The engine took no more requests when this one came to it, so it is to wait for another."""


_waiting: set[QueuedCall] = set()
"""Those that wait, in the whole process."""


class QueuedCall(concurrent.futures.Future[EngineReply]):
    """A request that waits for an engine, and then is a call like any other.

    Args:
        send: Makes the call on what was leased.
        refused: Says what a refused order means to whoever asks.

    Attributes:
        call: The call on the engine, once there is one.
        begun: Set when it waits no longer, however that came.
    """

    def __init__(self, send: Callable[[Any], Call], refused: Callable[[BaseException], BaseException]) -> None:
        super().__init__()
        self._send: Callable[[Any], Call] | None = send
        self._refused = refused
        self._order: Placed | None = None
        self._cancel_wanted = False
        self.call: Call | None = None
        self.begun = threading.Event()
        self.set_running_or_notify_cancel()

    def wait_for(self, place: Callable[[Callable[[Any], bool]], Placed]) -> None:
        """Place the order that this request waits for; `place` is given what is to be called with its outcome."""
        _waiting.add(self)
        try:
            order = place(self._arrived)
        except BaseException:
            _waiting.discard(self)
            raise
        self._order = order
        if self.begun.is_set():
            self._order = None

    def cancel(self) -> bool:
        """Withdraw the request, or cancel it if it runs."""
        self._cancel_wanted = True  # first: it may be on its way from the queue to an engine at this moment
        order = self._order
        if order is not None and order.cancel():
            self._fail(CallCancelled("the run was cancelled before an engine was free"))
            return True
        return not self.done() if self.call is None else self.call.cancel()

    def when_over(self, function: Callable[[Any], object]) -> None:
        """Call the function with this future once it has its outcome; the twin of `Call.when_over`."""
        self.add_done_callback(function)

    def when_failed(self, function: Callable[[Any], object]) -> None:
        """Call the function with this future if it fails; the twin of `Call.when_failed`."""
        self.add_done_callback(lambda _: None if self.exception() is None else function(self))

    def _arrived(self, outcome: Any) -> bool:
        """Take the outcome of the order; false if it is still to wait."""
        send = self._send
        if isinstance(outcome, BaseException):
            self._fail(self._refused(outcome))
        elif send is not None:
            try:
                self._follow(send(outcome))
            except StillWaiting:
                return False
            except Exception as error:  # noqa: BLE001 - whoever waits must learn of it, whatever it is
                self._fail(error)
        return True

    def _follow(self, call: Call) -> None:
        self.call = call
        self._let_go()
        call.add_done_callback(self._copy)
        if self._cancel_wanted:
            call.cancel()

    def _fail(self, error: BaseException) -> None:
        self._let_go()
        self.set_exception(error)

    def _let_go(self) -> None:
        """Wait no longer, and keep nothing that was only for the time of waiting."""
        self._send = self._order = None
        _waiting.discard(self)
        self.begun.set()

    def _copy(self, call: concurrent.futures.Future[EngineReply]) -> None:
        error = call.exception()
        if error is None:
            self.set_result(call.result())
        else:
            self.set_exception(error)


def queue(
    place: Callable[[Callable[[Any], bool], float], Placed],
    send: Callable[[Any, float | None], Call],
    refused: Callable[[BaseException], BaseException],
    *,
    timeout: float | None,
    now: Callable[[], float],
) -> QueuedCall:
    """Place an order for an engine, and send when it is there with what is left of the time.

    Args:
        place: Is given what is to be called with the outcome, and the seconds it may take.
        send: Is given what was leased, and the seconds that are left.
        refused: See `QueuedCall`.
        timeout: Seconds for waiting and running together.
        now: The clock.
    """
    deadline = None if timeout is None else now() + timeout

    def arrived(outcome: Any) -> Call:
        return send(outcome, None if deadline is None else max(0.0, deadline - now()))

    call = QueuedCall(arrived, refused)
    limit = LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT)
    call.wait_for(lambda then: place(then, limit))
    return call


def _after_fork() -> None:
    """End in a forked child what waits in the parent, which alone will be served."""
    for call in list(_waiting):
        call._condition = threading.Condition()  # somebody who is not here may have held it
        call.begun = threading.Event()
        call._fail(ForkedProcess("the request waits in the process this one was forked from", hint="ask here anew"))


os.register_at_fork(after_in_child=_after_fork)
