"""Which engine a client's next request goes to, when one is replaced, and when none may be started yet.

Two answers. *Shared*: one engine takes everything, as in mlld's own clients; one in which a cancelled script may still
run gets no new requests and is ended when its last request is over. *Exclusive*: each running script has an engine to
itself, leased from a bay that keeps some warm; runs beyond its size wait in order.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from mlld_sdk.bay import EngineBay, Lease, NoEngineFree
from mlld_sdk.env import Env
from mlld_sdk.errors import InfrastructureError, MlldError
from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import (
    CallCancelled,
    CallTimeout,
    EngineClosed,
    EngineDied,
    EngineDiedAtStart,
    EngineOverloaded,
)
from mlld_sdk.transport.reactor import Timer, shared_reactor
from mlld_sdk.transport.wire import Reply

FIRST_DELAY = 0.1
"""Seconds until the next start after two engines in a row died before they had answered anything; then it doubles."""

LONGEST_DELAY = 30.0
"""Seconds the delay grows to."""

IDLE_SECONDS = 60.0
"""Seconds after which exclusive engines that nobody uses are ended, the spares too."""

LAST_WORDS = 1.0
"""Seconds a caller waits to be told how an engine ended that died before it could take the request."""

StartEngine = Callable[[bool], Engine]
"""Starts an engine, exclusive or not, and returns at once."""


class EngineCoolingDown(InfrastructureError):
    """The engine keeps dying before it answers, so the next one is not started yet.

    Attributes:
        retry_after: Seconds until it may be.
    """

    default_code = "ENGINE_COOLING_DOWN"

    def __init__(self, retry_after: float, deaths: int, last_words: str) -> None:
        said = f"; the last one said: {last_words}" if last_words else ""
        super().__init__(
            f"the engine died {deaths} times in a row before it answered anything{said}",
            hint=f"check the command; the next start is possible in {retry_after:.1f} s",
        )
        self.retry_after = retry_after
        self.deaths = deaths


class StartGate:
    """Keeps a broken command from being started over and over. Thread-safe."""

    def __init__(self, start: StartEngine, env: Env) -> None:
        self._start = start
        self._env = env
        self._deaths = 0
        self._not_before = 0.0
        self._last_words = ""

    def start(self, exclusive: bool) -> Engine:
        """Start an engine, unless the last ones died at once and the delay is not over.

        Raises:
            EngineCoolingDown: It is too early.
        """
        left = self._not_before - self._env.now()
        if left > 0:
            raise EngineCoolingDown(left, self._deaths, self._last_words)
        engine = self._start(exclusive)
        engine.add_exit_callback(self._ended)
        return engine

    def _ended(self, engine: Engine) -> None:
        if engine.has_spoken:
            self._deaths, self._not_before = 0, 0.0
            return
        ended = engine.exit
        if ended is not None and ended.expected and not ended.code:  # by us: closed, or killed for a call
            return
        lines = engine.stderr_tail.strip().splitlines()
        self._last_words = lines[-1][:200] if lines else ""
        if self._deaths:  # once may be a script that ended the engine before it had said a word
            self._not_before = self._env.now() + min(LONGEST_DELAY, FIRST_DELAY * 2 ** (self._deaths - 1))
        self._deaths = min(self._deaths + 1, 32)


class SharedEngine:
    """One engine for all requests of a client, started when first needed and again after it died or retired."""

    def __init__(self, gate: StartGate) -> None:
        self._gate = gate
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a forked child: the engines are the parent's, and its lock may have been held."""
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._started: set[Engine] = set()

    @property
    def pid(self) -> int | None:
        """Process id of the engine that new requests would go to, if there is one."""
        engine = self._engine
        return engine.pid if engine is not None and engine.alive else None

    def submit(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> Call:
        """Send a request to the engine, starting one if need be."""
        engine = self._engine
        while True:
            fresh = engine is None or not engine.alive
            if engine is None or fresh:
                engine = self._another_than(engine)
            try:
                return engine.submit(method, params, timeout=timeout, on_events=on_events)
            except (EngineClosed, EngineDied):
                # It went between the look and the call, and nothing was sent: take the next. Not so if it is new.
                if fresh:
                    raise

    def call(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> Reply:
        """Send a request and wait for its answer; the fast way."""
        engine = self._engine
        if engine is None or not engine.alive:
            engine = self._another_than(engine)
        try:
            return engine.call(method, params, timeout=timeout, on_events=on_events)
        except EngineDiedAtStart as error:
            if error.exit is None and engine.wait(LAST_WORDS):
                engine.submit(method, params, timeout=timeout)  # refused once more, now saying how it ended
            raise

    def close(self) -> None:
        """End the engine and those that are retiring; their requests end as `EngineClosed`."""
        with self._lock:
            engines, self._engine = list(self._started), None
        for engine in engines:
            engine.close()

    def _another_than(self, gone: Engine | None) -> Engine:
        with self._lock:
            engine = self._engine
            if engine is None or engine is gone or not engine.alive:
                engine = self._engine = self._gate.start(False)
                self._started.add(engine)
                engine.add_exit_callback(self._started.discard)
            return engine


class QueuedCall(concurrent.futures.Future[Reply]):
    """A request that waits for an engine, and then is a call like any other.

    Attributes:
        call: The call on the engine, once there is one.
    """

    def __init__(self, method: str, params: Any, deadline: float | None, on_events: OnEvents | None) -> None:
        super().__init__()
        self.method = method
        self.params = params
        self.deadline = deadline
        self.on_events = on_events
        self.call: Call | None = None
        self.cancel_wanted = False
        self.begun = threading.Event()
        self.timer: Timer | None = None
        self.withdraw: Callable[[], bool] = _is_not_waiting
        self.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        """Withdraw the request, or cancel it if it runs."""
        self.cancel_wanted = True  # first: it may be on its way from the queue to an engine at this moment
        if self.withdraw():
            self.let_go()
            self.set_exception(CallCancelled("the run was cancelled before an engine was free"))
            return True
        return not self.done() if self.call is None else self.call.cancel()

    def follow(self, call: Call) -> None:
        """Run as this call from now on."""
        self.call = call
        self.let_go()
        call.add_done_callback(self._copy)
        if self.cancel_wanted:
            call.cancel()

    def let_go(self) -> None:
        """Wait no longer, and keep nothing that was only for the time of waiting."""
        self.params = self.on_events = None
        self.withdraw = _is_not_waiting
        self.begun.set()

    def _copy(self, call: concurrent.futures.Future[Reply]) -> None:
        error = call.exception()
        if error is None:
            self.set_result(call.result())
        else:
            self.set_exception(error)


@functools.lru_cache(maxsize=1)
def _janitor() -> concurrent.futures.ThreadPoolExecutor:
    """Give the one thread that cleans up after runs; started when first needed."""
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mlld-shared-janitor")


class ExclusiveEngines:
    """An engine for each running script, from a bay; more runs than engines wait, first come first served."""

    def __init__(self, gate: StartGate, *, size: int, warm: int, max_waiting: int, env: Env) -> None:
        self._gate = gate
        self._size = size
        self._warm = warm
        self._max_waiting = max_waiting
        self._env = env
        self._pid = os.getpid()
        self.forget()

    def forget(self) -> None:
        """Begin anew, with no engine: after `close`, and in a forked child, which has no threads either."""
        if self._pid != os.getpid():
            _janitor.cache_clear()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: deque[QueuedCall] = deque()
        self._bay: EngineBay[Engine] = EngineBay(
            lambda: self._gate.start(True), size=self._size, spares=self._warm, env=self._env, label="client"
        )

    @property
    def bay(self) -> EngineBay[Engine]:
        """The engines."""
        return self._bay

    def submit(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> Call | QueuedCall:
        """Send a request to an engine of its own, or let it wait for one. Never waits itself.

        Raises:
            EngineOverloaded: Too many runs wait already.
        """
        with self._lock:
            waiting = len(self._queue)
            lease = None if waiting else self._lease()
            if lease is None:
                if waiting >= self._max_waiting:
                    raise EngineOverloaded(
                        f"{waiting} runs wait for an engine already", hint="raise max_engines, or submit less at once"
                    )
                return self._enqueue(method, params, timeout, on_events)
        return self._send(lease, method, params, timeout, on_events)

    def close(self) -> None:
        """End all engines; runs end as `EngineClosed`, those that wait too."""
        with self._lock:
            queued, bay = list(self._queue), self._bay
            self._queue.clear()
        bay.close()
        bay.kill_busy()
        for call in queued:
            _fail(call, EngineClosed("the client was closed while the run waited for an engine"))
        self.forget()

    def _lease(self) -> Lease[Engine] | None:
        try:
            return self._bay.lease(0.0)
        except NoEngineFree:
            return None

    def _send(
        self, lease: Lease[Engine], method: str, params: Any, timeout: float | None, on_events: OnEvents | None
    ) -> Call:
        try:
            call = lease.engine.submit(method, params, timeout=timeout, on_events=on_events)
        except BaseException:
            self._give_back(lease)
            raise
        call.add_done_callback(lambda _: self._give_back(lease))
        return call

    def _give_back(self, lease: Lease[Engine]) -> None:
        """Clean an engine up and let the next run have it, on a thread that may look at every process there is."""
        try:
            _janitor().submit(self._clean_up, lease)
        except RuntimeError:  # the interpreter is ending and takes no more work
            self._clean_up(lease)

    def _clean_up(self, lease: Lease[Engine]) -> None:
        if lease.engine.alive:
            lease.engine.reap_descendants()  # what the script started and left behind, MCP servers included
        lease.give_back()
        self._bay.sleep_idle(IDLE_SECONDS)
        self._serve_queue()

    def _enqueue(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> QueuedCall:
        deadline = None if timeout is None else self._env.now() + timeout
        call = QueuedCall(method, params, deadline, on_events)
        call.withdraw = lambda: self._withdraw(call)
        if deadline is not None:
            late = CallTimeout(f"request timeout after {timeout:g}s, while it waited for an engine")
            held = weakref.ref(call)  # a timer that was cancelled may be kept for as long as it would have run
            call.timer = shared_reactor().call_at(deadline, lambda: self._expire(held(), late))
        self._queue.append(call)
        return call

    def _expire(self, call: QueuedCall | None, late: CallTimeout) -> None:
        if call is not None and self._withdraw(call):
            _fail(call, late)

    def _withdraw(self, call: QueuedCall) -> bool:
        with self._lock:
            if call not in self._queue:
                return False
            self._queue.remove(call)
        if call.timer is not None:
            call.timer.cancel()
        return True

    def _serve_queue(self) -> None:
        while True:
            lease: Lease[Engine] | MlldError | None
            with self._lock:
                if not self._queue:
                    return
                try:
                    lease = self._lease()
                except MlldError as error:  # no engine can be started now: that is the answer for whoever is first
                    lease = error
                if lease is None:
                    return
                call = self._queue.popleft()
            if call.timer is not None:
                call.timer.cancel()
            if isinstance(lease, MlldError):
                _fail(call, lease)
                continue
            left = None if call.deadline is None else max(0.0, call.deadline - self._env.now())
            try:
                call.follow(self._send(lease, call.method, call.params, left, call.on_events))
            except MlldError as error:
                _fail(call, error)


def _is_not_waiting() -> bool:
    return False


def _fail(call: QueuedCall, error: BaseException) -> None:
    call.let_go()
    call.set_exception(error)
