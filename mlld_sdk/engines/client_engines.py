"""Which engine a client's next request goes to, when one is replaced, and when none may be started yet.

Two answers. *Shared*: one engine takes everything, as in mlld's own clients; one in which a cancelled script may still
run gets no new requests and is ended when its last request is over. *Exclusive*: each running script has an engine to
itself, leased from a pool that keeps some warm; runs beyond its size wait in order.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.engines import background
from mlld_sdk.engines.pool import EngineLease, EnginePool, NoEngineFree
from mlld_sdk.engines.queued import QueuedCall, queue
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import (
    CallTimeout,
    EngineClosed,
    EngineDied,
    EngineDiedAtStart,
    EngineOverloaded,
)
from mlld_sdk.transport.wire import EngineReply, freeze

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

    code = "ENGINE_COOLING_DOWN"

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
        if engine.has_worked:
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

    def call(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> EngineReply:
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


class ExclusiveEngines:
    """An engine for each running script, from a pool; more runs than engines wait, first come first served."""

    def __init__(self, gate: StartGate, *, size: int, warm: int, max_waiting: int, env: Env) -> None:
        self._gate = gate
        self._size = size
        self._warm = warm
        self._max_waiting = max_waiting
        self._env = env
        self.forget()

    def forget(self) -> None:
        """Begin anew, with no engine: after `close`, and in a forked child."""
        self._lock = threading.Lock()
        self._queued: set[QueuedCall] = set()
        self._patience = CancelScope()
        self._pool: EnginePool[Engine] = EnginePool(
            lambda: self._gate.start(True), size=self._size, spares=self._warm, env=self._env, label="client"
        )

    @property
    def pool(self) -> EnginePool[Engine]:
        """The engines."""
        return self._pool

    def submit(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> Call | QueuedCall:
        """Send a request to an engine of its own, or let it wait for one. Never waits itself.

        Raises:
            EngineOverloaded: Too many runs wait already.
        """
        lease = None if self._queued else self._lease()
        if lease is not None:
            return self._send(lease, method, params, timeout, on_events)
        if len(self._queued) >= self._max_waiting:
            raise EngineOverloaded(
                f"{len(self._queued)} runs wait for an engine already", hint="raise max_engines, or submit less at once"
            )
        return self._enqueue(method, params, timeout, on_events)

    def close(self) -> None:
        """End all engines; runs end as `EngineClosed`, those that wait too."""
        pool, patience = self._pool, self._patience
        self.forget()
        patience.end(EngineClosed("the client was closed while the run waited for an engine"))
        pool.close()
        pool.kill_busy()

    def _lease(self) -> EngineLease[Engine] | None:
        try:
            return self._pool.lease(0.0)
        except NoEngineFree:
            return None

    def _send(
        self, lease: EngineLease[Engine], method: str, params: Any, timeout: float | None, on_events: OnEvents | None
    ) -> Call:
        try:
            call = lease.engine.submit(method, params, timeout=timeout, on_events=on_events)
        except BaseException:
            self._give_back(lease)
            raise
        call.when_over(lambda _: self._give_back(lease))
        return call

    def _give_back(self, lease: EngineLease[Engine]) -> None:
        """Clean an engine up and let the next run have it, on a thread that may look at every process there is."""
        background.run(self._clean_up, lease)

    def _clean_up(self, lease: EngineLease[Engine]) -> None:
        if lease.engine.alive:
            lease.engine.reap_descendants()  # what the script started and left behind, MCP servers included
        lease.give_back()
        self._pool.sleep_idle(IDLE_SECONDS)

    def _enqueue(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> QueuedCall:
        pool, patience, queued, said = self._pool, self._patience, self._queued, freeze(params)

        def refused(error: BaseException) -> BaseException:
            if patience.over is not None:
                return copy.copy(patience.over)
            if isinstance(error, NoEngineFree):
                return CallTimeout(f"request timeout after {timeout:g}s, while it waited for an engine")
            return error

        call = queue(
            lambda then, limit: pool.order(then, limit, patience),
            lambda lease, left: self._send(lease, method, said, left, on_events),
            refused,
            timeout=timeout,
            now=self._env.now,
        )
        queued.add(call)
        call.add_done_callback(queued.discard)
        return call
