"""One engine for many requests at once, leased from a pool.

Agents hold it for as long as there are requests and give it back a moment after the last, so that the runtime's quota
has it back; clients keep it. One in which a script may go on unseen, because it was cancelled or ran late, gets no new
requests and ends with its last; the next request finds another.
"""

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from mlld_sdk.base.errors import InfrastructureError, MlldError, TaskError
from mlld_sdk.engines import background
from mlld_sdk.engines.pool import A_YEAR, Acquire, EngineLease, EnginePool
from mlld_sdk.engines.quota import CancelScope, overloaded
from mlld_sdk.engines.sources import EngineHealth, LeasedEngines, StillWaiting, WaitingCall, cancelled_in_queue
from mlld_sdk.transport.call import Call, CallHost, OnEvents
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineClosed, EngineDied, EngineDiedAtStart
from mlld_sdk.transport.reactor import ReactorTimer, shared_reactor
from mlld_sdk.transport.wire import EngineReply, freeze

LINGER: Final = 0.1
"""Seconds between two looks whether the engine is still used; taking and giving back costs more than a request."""

LAST_WORDS: Final = 1.0
"""Seconds a caller waits to be told how an engine ended that died before it could take the request."""


class SharedEngine:
    """An engine that takes many requests at once.

    Attributes:
        lease: How it is held.
        engine: The engine.
        asked: Requests sent to it, so that a look can tell whether there were more since the last.
        inside: As many items as threads are about to send a request. They enter, and then look whether it is closed;
            the thread that closes it looks then whether any is inside. So no thread waits for a lock to send.
        closed: It takes no more requests.
    """

    __slots__ = ("asked", "closed", "engine", "inside", "lease")

    def __init__(self, lease: EngineLease) -> None:
        """Make the engine of a lease shared; the caller has entered it, and leaves it."""
        self.lease = lease
        self.engine = lease.engine
        self.asked = 0
        self.inside: list[None] = [None]
        self.closed = False
        self.engine.be_shared(True)

    def enter(self) -> bool:
        """Keep it from being given back until `leave`; false if it takes no more requests."""
        self.inside.append(None)
        if self.closed or not self.engine.alive:
            self.inside.pop()
            return False
        return True

    def leave(self) -> None:
        """Allow it to be given back again."""
        self.inside.pop()

    def close(self) -> bool:
        """Take no more requests, unless it is used."""
        if self._is_used:  # else a request that comes in between would find it closed, and start another
            return False
        self.closed = True
        self.closed = not self._is_used
        return self.closed

    @property
    def in_flight(self) -> int:
        """How many requests it has, or is about to get."""
        return len(self.inside) or self.engine.stats.in_flight

    @property
    def _is_used(self) -> bool:
        return bool(self.inside) or self.engine.is_busy


class SharedEngines:
    """A source whose requests are all made on one engine at once.

    Args:
        pool: Where the engine is leased.
        keeps: Start the engine on the thread that asks, and keep it until the end, as clients do.
        retires_failed: Give an engine no more requests after a script has failed on it: the live one may go on with
            branches of it.
        reaps: Whether engines leave processes behind that are to be ended when they are given back.
    """

    def __init__(
        self,
        pool: EnginePool,
        *,
        scope: CancelScope | None = None,
        health: EngineHealth | None = None,
        keeps: bool = False,
        retires_failed: bool = False,
        reaps: bool = True,
    ) -> None:
        self.scope = scope or CancelScope()
        self.health = health or EngineHealth()
        self._pool = pool
        self._keeps = keeps
        # Who ends with the engine is to know of its death before anybody is told that another may be had.
        self._calls_directly = keeps and not self.health.ends_owner
        self._retires_failed = retires_failed
        self._reaps = reaps
        self._lock = threading.Lock()
        self._current: SharedEngine | None = None  # takes new requests
        self._held: set[SharedEngine] = set()
        self._waiting: dict[WaitingCall, ReactorTimer] = {}  # in the order they came, each with its deadline
        self._acquire: Acquire | None = None  # while any waits

    @property
    def engine(self) -> Engine | None:
        """The engine that new requests would go to, if there is one."""
        at = self._current
        return at.engine if at is not None and at.engine.alive else None

    @property
    def begins_at_once(self) -> bool:
        """Whether `submit` waits for nothing at this moment."""
        return not self._keeps or self.engine is not None

    @property
    def in_flight(self) -> int:
        """How many requests wait for an engine or are in flight on one."""
        with self._lock:
            return len(self._waiting) + sum(at.in_flight for at in self._held)

    @property
    def is_at_rest(self) -> bool:
        """Whether there is none."""
        return not self.in_flight

    def call(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> EngineReply:
        """Send a request and wait for its answer; on an engine that is kept this is the fast way."""
        at, call = self._current, None
        engine: CallHost | None = None
        try:
            if self._calls_directly and at is not None and at.engine.alive and "mcpServers" not in params:
                engine = at.engine
                return at.engine.call(method, params, timeout=timeout, on_events=on_events)
            call = self.submit(method, params, timeout, on_events)
            engine = call.engine if isinstance(call, Call) else None
            return call.result()
        except EngineDiedAtStart as error:
            if isinstance(engine, Engine):
                if call is None:
                    self._blame(engine, error)
                _wait_for_last_words(engine, error, method, params)
            raise
        except BaseException as error:  # perhaps the thread is interrupted, and nothing else waits for the call
            if call is not None:
                call.cancel()
            elif engine is not None:
                self._blame(engine, error)
                if isinstance(error, InfrastructureError):
                    self.scope.check()
            raise

    def submit(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> Call | WaitingCall:
        """Send a request to the engine, or let it wait for one."""
        self.scope.check()
        call = self._submit(method, params, timeout, on_events)
        if call is not None:
            return call
        waiting = WaitingCall(
            partial(self._send, method, freeze(params), on_events, "mcpServers" in params),
            partial(self.health.refusal, self.scope),
            timeout=timeout,
        )
        try:
            return waiting.wait_for(self._stand_in)
        except InfrastructureError:
            self.scope.check()
            raise

    def stop(self, why: MlldError) -> None:
        """Refuse further requests with `why`, and kill the engines of those under way; returns at once."""
        for at in self._end(why):
            at.engine.kill(partial(copy.copy, why))

    def close(self, why: MlldError) -> None:
        """Refuse further requests with `why` and end the engines in good order."""
        for at in self._end(why):
            at.engine.close()

    def _end(self, why: MlldError) -> list[SharedEngine]:
        self.scope.end(why)
        with self._lock:
            self._current = None
            return list(self._held)

    # Sending.

    def _submit(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> Call | None:
        """Send a request to the engine; `None`, and nothing was sent, if there is none."""
        while True:
            at, fresh = self._current, False
            if at is None or not at.enter():
                if not self._keeps:
                    return None
                at, fresh = self._start(at)
            try:
                at.asked += 1
                call = at.engine.submit(method, params, timeout=timeout, on_events=on_events)
            except (EngineClosed, EngineDied) as error:  # it went in this moment: take the next, unless it is new
                if fresh:
                    self._blame(at.engine, error)
                    _wait_for_last_words(at.engine, error, method, params)
                    raise
                continue
            finally:
                at.leave()
            call.when_failed(self._failed)
            if "mcpServers" in params:
                call.add_done_callback(_stop_servers)
            return call

    def _send(
        self,
        method: str,
        params: Any,
        on_events: OnEvents | None,
        has_servers: bool,
        at: SharedEngine,
        timeout: float | None,
    ) -> Call:
        engine = at.engine
        try:
            call = engine.submit(method, params, timeout=timeout, on_events=on_events)
        except EngineClosed:  # it was retired or ended in this moment, and not for anything that was asked
            self.scope.check()
            raise StillWaiting from None
        except EngineDied as error:
            self._blame(engine, error)
            raise
        call.when_failed(self._failed)
        if has_servers:
            call.add_done_callback(_stop_servers)
        if self.scope.over is not None:  # stopped in this moment, perhaps before the engine was known
            engine.kill(partial(copy.copy, self.scope.over))
        return call

    def _failed(self, call: Call) -> None:
        self._blame(call.engine, call.exception())

    def _blame(self, engine: CallHost, error: BaseException | None) -> None:
        if isinstance(error, TaskError):
            if self._retires_failed:
                engine.retire()
        elif error is not None and self.scope.over is None:
            self.health.failed(error)

    def _start(self, gone: SharedEngine | None) -> tuple[SharedEngine, bool]:
        """Enter the engine that has come meanwhile, or lease one here; returns whether it is new."""
        with self._lock:
            self.scope.check()  # `close` looks at what is held after it has ended the scope
            at = self._current
            if at is not None and at is not gone and at.enter():
                return at, False
            at = self._current = SharedEngine(self._pool.lease(0.0))
            self._held.add(at)
        at.lease.when_gone(partial(self._look, at, 0))
        return at, True

    # Waiting.

    def _stand_in(self, call: WaitingCall) -> Callable[[], bool]:
        """Have a call told of the engine, which is kept meanwhile, or of the error; on any thread, this one too."""
        with self._lock:
            at = self._current
            if at is None or not at.enter():
                at = None
                if len(self._waiting) >= self.scope.max_waiting:
                    raise overloaded(len(self._waiting))
                self._stand(call)
        if at is not None:  # it has come in this moment
            self._serve([call], at)
        return partial(self._take, call)

    def _arrived(self, outcome: EngineLease | BaseException) -> None:
        if isinstance(outcome, BaseException):
            for call in self._take_all():
                call.arrived(copy.copy(outcome))
            return
        at = SharedEngine(outcome)
        calls = self._take_all(at)
        if not calls:  # they have given up, or have another
            background.run(_put_back, outcome)
            return
        outcome.when_gone(partial(self._look, at, 0))
        try:
            self._serve(calls, at)
        finally:
            self._look_again(at)

    def _serve(self, calls: list[WaitingCall], at: SharedEngine) -> None:
        """Pass an engine that was entered to those that waited; one may retire it, and then it takes no others."""
        try:
            left = [call for call in calls if not call.arrived(at)]
        finally:
            at.leave()
        if left:
            self._stand_again(left)

    def _stand(self, call: WaitingCall) -> None:
        """Put a call last, and acquire an engine if it is the first. Called with the lock held."""
        if self._acquire is None:
            self._acquire = self._pool.acquire(self._arrived, A_YEAR, self.scope)
        late = shared_reactor().now() + min(A_YEAR if call.left is None else call.left, A_YEAR)
        self._waiting[call] = shared_reactor().call_at(late, partial(self._late, call))

    def _stand_again(self, calls: list[WaitingCall]) -> None:
        """Put those that were not served back into the queue, before all others."""
        refused: dict[WaitingCall, MlldError] = {}
        with self._lock:
            later, self._waiting = self._waiting, {}
            for call in calls:
                try:
                    if call.cancel_wanted:
                        raise cancelled_in_queue()
                    self._stand(call)
                except MlldError as error:
                    refused[call] = error
            self._waiting.update(later)
        for call, why in refused.items():
            call.arrived(why)

    def _take_all(self, at: SharedEngine | None = None) -> list[WaitingCall]:
        """Take all that wait, for an engine that has come or for none."""
        with self._lock:
            waiting, self._waiting, self._acquire = self._waiting, {}, None
            if at is not None and waiting:
                self._current = at
                self._held.add(at)
        for timer in waiting.values():
            timer.cancel()
        return list(waiting)

    def _late(self, call: WaitingCall) -> None:
        with self._lock:
            acquire = self._acquire
        if acquire is None:  # it was served in this moment
            return
        # What it waited for is known to the acquire; it is asked before the call is taken, which may end it.
        why = acquire.refusal(call.limit)
        if self._take(call):
            background.run(call.arrived, why)

    def _take(self, call: WaitingCall) -> bool:
        """Take a call out of the queue; the last one calls the acquire off. False if it has been served or refused."""
        acquire = None
        with self._lock:
            timer = self._waiting.pop(call, None)
            if timer is not None and not self._waiting:
                acquire, self._acquire = self._acquire, None
        if acquire is not None:
            acquire.cancel()
        if timer is not None:
            timer.cancel()
        return timer is not None

    # Giving back.

    def _look_again(self, at: SharedEngine) -> None:
        asked = at.asked
        shared_reactor().call_at(shared_reactor().now() + LINGER, lambda: self._look(at, asked))

    def _look(self, at: SharedEngine, asked: int) -> None:
        """Return the engine to the pool if it has ended, or is unused and was not asked since the last look."""
        gone = at.engine.exit is not None
        if not gone and (at.asked != asked or not at.close()):
            if self._pool.quota.owes(self._pool.now()):
                with self._lock:  # others have waited long enough: requests from now on wait behind them
                    self._current = None if self._current is at else self._current
            self._look_again(at)
            return
        with self._lock:
            self._held.discard(at)
            self._current = None if self._current is at else self._current
        if self._keeps:
            at.lease.give_back(broken=True)
        elif not self._reaps and not gone:  # at once, or a request that comes meanwhile would start another engine
            at.engine.be_shared(False)
            at.lease.give_back()
        else:
            background.run(_put_back, at.lease)


EngineSource = LeasedEngines | SharedEngines
"""Gives requests their engines."""


def _put_back(lease: EngineLease) -> None:
    engine = lease.engine
    if engine.alive:
        engine.reap_descendants()
        engine.be_shared(False)
    lease.give_back(broken=not engine.alive)


def _wait_for_last_words(engine: Engine, error: MlldError, method: str, params: Any) -> None:
    """Raise again what an engine refused a request with that died at its start, now with how it ended."""
    if isinstance(error, EngineDiedAtStart) and error.exit is None and engine.wait(LAST_WORDS):
        engine.submit(method, params, timeout=None)


def _stop_servers(call: Call) -> None:
    """End the MCP servers of a run, which a shared engine would keep; only when no other run may be using its own."""
    if call.engine.stats.in_flight == 0:
        call.engine.reap_descendants()
