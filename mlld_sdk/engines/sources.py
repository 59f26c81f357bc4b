"""Where requests get their engines: waiting for one, and the source that leases an engine for each request.

A source sends what it is given. What is sent, and what the outcome means, is up to `EngineRequests`.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mlld_sdk.base.durations import LONGEST_WAIT, now
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError, TaskError
from mlld_sdk.base.future import LazyFuture
from mlld_sdk.base.loops import from_any_thread, settle
from mlld_sdk.engines import background
from mlld_sdk.engines.pool import EngineLease, EnginePool, NoEngineFree
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.errors import (
    CallCancelled,
    EngineAborted,
    EngineBabbling,
    EngineDied,
    EngineSilent,
    ForkedProcess,
    SpawnRefused,
)
from mlld_sdk.transport.wire import EngineReply, freeze

if TYPE_CHECKING:
    import asyncio

ENGINE_FAILURES: Final = (EngineDied, EngineSilent, EngineBabbling, EngineAborted, SpawnRefused)
"""Errors that are the engine's fault, and not the deadline's, the queue's or the caller's."""


class EngineHealth:
    """How the engines of one owner fare.

    Attributes:
        in_a_row: How many engines have failed in a row, with no request answered in between.
        ends_owner: Whether a failed engine ends the owner.
        condemned: Whether one has failed, and the owner ends because of that, though it may not know yet.
        on_failure: Called with each failure, on any thread; must not block.
    """

    def __init__(self, *, ends_owner: bool = False) -> None:
        self.in_a_row = 0
        self.ends_owner = ends_owner
        self.condemned = False
        self.on_failure: Callable[[InfrastructureError], object] | None = None
        self._lock = threading.Lock()

    def failed(self, error: BaseException) -> None:
        """Take note of an error, if it is an engine's fault."""
        if isinstance(error, ENGINE_FAILURES):
            with self._lock:
                self.in_a_row += 1
            self.condemned = self.ends_owner  # first: requests from now on are to meet the successor
            if self.on_failure is not None:
                self.on_failure(error)

    def refusal(self, scope: CancelScope, error: BaseException) -> BaseException:
        """Return the error of a request that got no engine: why its scope is over, if it is, else this one, noted."""
        if scope.over is not None:
            return copy.copy(scope.over)
        self.failed(error)
        return error


class StillWaiting(Exception):
    """The engine took no more requests when this one came to it, so it is to wait for another."""


_waiting: set[WaitingCall] = set()
"""Those that wait, in the whole process."""


class WaitingCall(LazyFuture[EngineReply]):
    """A request that waits for an engine, and then is a call like any other.

    Args:
        send: Makes the call on what was acquired, with the seconds that are left.
        refused: Turns the error of an acquire into that of the request.
        timeout: Seconds for waiting and running together.
        among: Holds it while it waits.

    Attributes:
        call: The call on the engine, once there is one.
        begun: Set when it waits no longer, however that came.
        cancel_wanted: It was cancelled, and may just now be on its way from the queue to an engine.
    """

    def __init__(
        self,
        send: Callable[[Any, float | None], Call],
        refused: Callable[[BaseException], BaseException],
        *,
        timeout: float | None,
        among: set[object] | None = None,
    ) -> None:
        self._among = among
        self._send: Callable[[Any, float | None], Call] | None = send
        self._refused = refused
        self._deadline = None if timeout is None else now() + timeout
        self._withdraw: Callable[[], bool] | None = None
        self.limit = LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT)
        self.cancel_wanted = False
        self.call: Call | None = None
        self.begun = threading.Event()

    def wait_for(self, begin: Callable[[WaitingCall], Callable[[], bool]]) -> WaitingCall:
        """Begin to wait: `begin` has `arrived` called with the outcome, and returns what withdraws the wish."""
        _waiting.add(self)
        if self._among is not None:
            self._among.add(self)
        try:
            self._withdraw = begin(self)
        except BaseException:
            self._wait_no_longer()
            raise
        if self.begun.is_set():
            self._withdraw = None
        return self

    @property
    def left(self) -> float | None:
        """Seconds it may still take; `None` for no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - now())

    def cancel(self) -> bool:
        """Withdraw the request, or cancel it if it runs."""
        self.cancel_wanted = True
        withdraw = self._withdraw
        if withdraw is not None and withdraw():
            self._fail(cancelled_in_queue())
            return True
        return not self.done() if self.call is None else self.call.cancel()

    def arrived(self, outcome: Any) -> bool:
        """Take what was waited for, or the error; false if it was of no use and the request is still to wait."""
        send = self._send
        if isinstance(outcome, BaseException):
            self._fail(self._refused(outcome))
        elif send is not None:
            try:
                self.call = call = send(outcome, self.left)
                self._let_go()
                call.add_done_callback(self._copy)
                if self.cancel_wanted:
                    call.cancel()
            except StillWaiting:
                return False
            except Exception as error:  # noqa: BLE001 - any error is the outcome
                self._fail(error)
        return True

    def forget_parent(self) -> None:
        """End in a forked child, since it waits in the parent, which alone will be served."""
        self.begun = threading.Event()
        self._fail(ForkedProcess("the request waits in the process this one was forked from", hint="ask here anew"))

    def _copy(self, call: Call) -> None:
        error = call.exception()
        self.finish(None if error is not None else call.result(), error)

    def _fail(self, error: BaseException) -> None:
        self._let_go()
        self.finish(None, error)

    def _let_go(self) -> None:
        """Wait no longer, and keep nothing that was only for the time of waiting."""
        self._send = self._withdraw = None
        self._wait_no_longer()
        self.begun.set()

    def _wait_no_longer(self) -> None:
        _waiting.discard(self)
        if self._among is not None:
            self._among.discard(self)

    def _callback_failed(self, error: BaseException) -> None:
        logging.getLogger("concurrent.futures").error("exception calling callback for %r", self, exc_info=error)


def end_in_loop(call: Call | WaitingCall) -> asyncio.Future[None]:
    """Make a future of the running event loop that is set when the call is over."""
    import asyncio

    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    wake = from_any_thread(partial(settle, over, None))
    call.add_done_callback(lambda _: wake())
    return over


def cancelled_in_queue() -> CallCancelled:
    """Make the error of a request that was cancelled while it waited."""
    return CallCancelled("the run was cancelled before an engine was free")


def _after_fork() -> None:
    for call in list(_waiting):
        call.forget_parent()


os.register_at_fork(after_in_child=_after_fork)


class OneEngine:
    """Lends one engine to one request at a time. It is given back for good by its holder only."""

    def __init__(self, held: EngineLease) -> None:
        self.engine = held.engine
        self._held = held
        self._turn = threading.Lock()

    def lease_now(self) -> OneEngine | None:
        """Take the turn if it is free."""
        return self if self._turn.acquire(blocking=False) else None

    def lease(self, timeout: float, scope: CancelScope) -> OneEngine:  # noqa: ARG002 - its engine is killed first
        """Wait for the turn."""
        if not self._turn.acquire(timeout=timeout):
            raise NoEngineFree(f"the engine was busy for {timeout:g} s", hint="ask it one thing at a time")
        return self

    def give_back(self, *, broken: bool = False) -> None:
        """End the turn; a broken engine is of no use to its holder either."""
        if broken:
            self._held.give_back(broken=True)
        self._turn.release()


Held = EngineLease | OneEngine
"""The use of an engine."""


class LeasedEngines:
    """A source that gives each request an engine to itself.

    Args:
        lessor: Where the engines are leased: a pool, or the one engine of a checkout, which is only used by `call`.
        starts_here: Start engines on the thread that asks, also in `submit`; else in the background, so that no event
            loop waits for a process to be started.
        reaps: Whether engines leave processes behind that are to be ended after each request.
        after: Called whenever an engine was given back.
    """

    def __init__(
        self,
        lessor: EnginePool | OneEngine,
        *,
        kind: str,
        scope: CancelScope | None = None,
        health: EngineHealth | None = None,
        starts_here: bool = False,
        reaps: bool = True,
        after: Callable[[], object] | None = None,
    ) -> None:
        self.scope = scope or CancelScope()
        self.health = health or EngineHealth()
        self.begins_at_once = not starts_here
        self._lessor = lessor
        self._reaps = reaps
        self._after = after
        # The live engine may still run branches of the script that failed; the others end them.
        self._harmless: tuple[type[MlldError], ...] = (
            (ConfigurationError,) if kind == "live" else (ConfigurationError, TaskError)  # the former: nothing was sent
        )
        self.leases: set[Held] = set()
        self._waits: set[object] = set()  # requests that wait for an engine, each until its lease is noted

    @property
    def in_flight(self) -> int:
        """How many requests wait for an engine or run on one."""
        return len(self._waits) + sum(lease.engine.is_busy for lease in list(self.leases))

    @property
    def is_at_rest(self) -> bool:
        """Whether there is none, and no engine is leased, whoever has leased it."""
        pool = self._lessor  # its count goes last, since all others are in it, too
        return not (self._waits or self.leases or (isinstance(pool, EnginePool) and pool.in_use))

    def call(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> EngineReply:
        """Send a request and wait for its answer. Leasing and cleaning up are done on this thread."""
        lease = self._lessor.lease_now()
        if lease is None:
            began, token = now(), object()
            self._waits.add(token)
            try:
                lease = self._lease(LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT))
                self.leases.add(lease)
            finally:
                self._waits.discard(token)
            timeout = None if timeout is None else max(0.0, timeout - (now() - began))
        else:
            self.leases.add(lease)
        if self.scope.over is not None:  # looked at after the lease was noted, as `stop` looks at leases after this
            self._give_back(lease, broken=False)
            self.scope.check()
        try:
            reply = lease.engine.call(method, params, timeout=timeout, on_events=on_events)
        except BaseException as error:
            stopped = self.scope.over is not None
            self._over(lease, error)
            if stopped and isinstance(error, InfrastructureError):
                self.scope.check()
            raise
        self.health.in_a_row = 0
        if self._reaps or self._after is not None:
            self._give_back(lease, broken=False)
        else:
            self.leases.discard(lease)
            lease.give_back()
        return reply

    def submit(
        self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None, lease: Held | None = None
    ) -> Call | WaitingCall:
        """Send a request on a lease, to an engine that is free, or let it wait for one."""
        if lease is None:
            lease = self._lessor.lease_now() or (None if self.begins_at_once else self._start())
            if lease is None:
                return self._wait(method, params, timeout, on_events)
        self.leases.add(lease)
        if self.scope.over is not None:
            background.run(self._give_back, lease, False)
            self.scope.check()
        try:
            call = lease.engine.submit(method, params, timeout=timeout, on_events=on_events)
        except BaseException as error:
            background.run(self._over, lease, error)
            raise
        begins = True

        def ended(call: Call) -> None:
            error = call.exception()
            if error is None and not self._reaps and not begins:
                self.health.in_a_row = 0
                self.leases.discard(lease)
                lease.give_back()
            elif not isinstance(error, ForkedProcess):  # here the engine is not ours to give back
                background.run(self._over, lease, error)  # it takes a moment, and this may be an event loop's thread

        call.when_over(ended)
        begins = False
        return call

    def stop(self, why: MlldError) -> None:
        """Refuse further requests with `why` and kill the engines of those under way; returns at once."""
        self.scope.end(why)
        for lease in list(self.leases):
            lease.engine.kill(partial(copy.copy, why))

    close = stop

    def _lease(self, timeout: float) -> Held:
        self.scope.check()
        try:
            return self._lessor.lease(timeout, self.scope)
        except InfrastructureError as error:
            self.scope.check()
            self.health.failed(error)
            raise

    def _start(self) -> Held | None:
        """Start an engine here, if there is room for one."""
        try:
            return self._lessor.lease(0.0, CancelScope())
        except NoEngineFree:
            return None
        except InfrastructureError:
            self.scope.check()
            raise

    def _wait(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> WaitingCall:
        self.scope.check()
        said = freeze(params)

        def send(lease: Held, left: float | None) -> Call:
            call = self.submit(method, said, left, on_events, lease)
            assert isinstance(call, Call)  # it has its engine
            return call

        pool, scope = self._lessor, self.scope
        assert isinstance(pool, EnginePool)  # a checkout only calls
        refused = partial(self.health.refusal, scope)
        call = WaitingCall(send, refused, timeout=timeout, among=self._waits)
        try:
            return call.wait_for(lambda call: pool.acquire(call.arrived, call.limit, scope).cancel)
        except InfrastructureError:
            self.scope.check()
            raise

    def _over(self, lease: Held, error: BaseException | None) -> None:
        """Return an engine after a request: usable, if it answered or a script failed on a well-behaved one."""
        if error is None or isinstance(error, TaskError):
            self.health.in_a_row = 0
        elif self.scope.over is None:
            self.health.failed(error)
        self._give_back(lease, error is not None and not isinstance(error, self._harmless))

    def _give_back(self, lease: Held, broken: bool) -> None:
        self.leases.discard(lease)
        try:
            if self._reaps and not broken:
                lease.engine.reap_descendants()  # shells and tool servers that the script has left behind
        finally:
            lease.give_back(broken=broken)
        if self._after is not None:
            self._after()
