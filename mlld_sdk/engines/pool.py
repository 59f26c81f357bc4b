"""A pool of engines: leases them one at a time, keeps some warm, and replaces what breaks.

Every agent has a pool of engines, and a `Pool` of the supervision tree is one that many share. A pool belongs to the
*name* in the tree, not to the incarnation that happens to work under it: when an agent crashes and its engine with it,
the warm spare is still there for its successor.

From wanting an engine to holding it there are three stops: a turn in the pool's queue, a slot of the quota, a start. An
`Acquire` is that way. A thread that waits drives it by itself (`result`). Else each change drives it, on the thread
of the change or on one of the background, and a thousand acquires cost no thread.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Self

import msgspec

from mlld_sdk.base.durations import FOREVER, LONGEST_WAIT, Deadline, now
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InfrastructureError, InvalidOption, MlldError
from mlld_sdk.base.options import whole
from mlld_sdk.engines import background
from mlld_sdk.engines.quota import MEMORY_LOOK, CancelScope, EngineQuota, EngineSlot
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import CallTimeout, ForkedProcess
from mlld_sdk.transport.reactor import ReactorTimer, shared_reactor

Stage = Literal["new", "queued", "served", "over"]

A_YEAR: Final = 3e7
"""Seconds that are as good as for ever, and a number the system takes."""

_here = threading.local()
"""Whether this thread takes a step for an acquire already."""

STOP_TIMEOUT = 5.0
"""Seconds an engine that is retired gets to leave before its process group is killed."""

SPARE_PAUSE = 0.02
"""Seconds until a spare that was taken is replaced."""


class NoEngineFree(CallTimeout):
    """Every engine of the pool stayed busy until the deadline."""


class EnginePoolClosed(InfrastructureError):
    """The pool is closed or draining; it leases no more engines."""

    code = "ENGINE_POOL_CLOSED"


class Recycle(msgspec.Struct, frozen=True, kw_only=True):
    """When an engine is replaced although it works.

    Attributes:
        max_leases: After this many leases; `None` for never.
        max_rss: When it is larger than this many bytes after a lease; `None` for never.
    """

    max_leases: int | None = None
    max_rss: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_leases", "max_rss"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidOption(name, value, "a whole number of at least 1, or None")


class EnginePoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool looks like at one moment.

    Attributes:
        size: Engines it may lease at once without overflow.
        busy: Leased engines.
        idle: Engines that are warm and free.
        waiting: Callers in the queue.
        started: Engines started since the beginning.
        retired: Engines ended since the beginning, crashes included.
    """

    size: int
    busy: int
    idle: int
    waiting: int
    started: int
    retired: int


@dataclass(eq=False, slots=True)
class PooledEngine:
    """One engine and what the pool remembers about it."""

    engine: Engine
    slot: EngineSlot
    leases: int = 0
    gone: bool = False
    watcher: Callable[[], object] | None = None


class EngineLease:
    """The exclusive use of one engine until it is given back. Usable in a `with` block.

    An exception that leaves the block gives the engine back as broken, since what it was doing is unknown.
    """

    def __init__(self, pool: "EnginePool", pooled: PooledEngine) -> None:
        self._pool = pool
        self._pooled: PooledEngine | None = pooled
        self.engine = pooled.engine

    def give_back(self, *, broken: bool = False) -> None:
        """Return the engine; a second time does nothing.

        Args:
            broken: Its state is unknown; it is killed and replaced rather than handed on.
        """
        with self._pool.lock:
            pooled, self._pooled = self._pooled, None
        if pooled is not None:
            pooled.watcher = None
            self._pool.returned(pooled, broken)

    def when_gone(self, function: Callable[[], object]) -> None:
        """Call the function if the engine's process ends while it is held, at once if it has; it must not block."""
        pooled = self._pooled
        if pooled is not None:
            pooled.watcher = function
            if pooled.gone:
                function()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.give_back(broken=kind is not None)


class EnginePool:
    """Leases engines exclusively, first come first served.

    Args:
        start: Starts an engine and returns without waiting for it to be ready.
        size: Engines that may be leased at once.
        overflow: How many more may be started while all are busy; these are retired when they come back.
        spares: Idle engines kept warm beyond those in use.
        quota: Admits engines; shared by all pools of a runtime.
        recycle: When a working engine is replaced.
        idle_after: Seconds after which `EngineQuota.sleep_idle` may put an idle engine to sleep; `None` for never.
        env: Clocks.
        label: Names the pool in errors.
    """

    def __init__(
        self,
        start: Callable[[], Engine],
        *,
        size: int = 1,
        overflow: int = 0,
        spares: int = 0,
        quota: EngineQuota | None = None,
        recycle: Recycle | None = None,
        idle_after: float | None = None,
        env: Env | None = None,
        label: str = "pool",
    ) -> None:
        for name, value, least in (("size", size, 1), ("overflow", overflow, 0), ("spares", spares, 0)):
            whole(name, value, least=least)
        self.label = label
        self.idle_after = idle_after
        self.start_engine = start
        self._size = size
        self._overflow = overflow
        self._spares = spares
        env = env or Env()
        self.now = env.now
        self.quota = quota or EngineQuota(env=env)
        self._recycle = recycle or Recycle()
        self._wears = self._recycle != Recycle()
        self.made_of: object = None  # what its owner knows its engines by
        self.lock = threading.Lock()
        self._left = threading.Condition(self.lock)  # told of engines that have gone or were given back
        self._onlookers = 0
        self._idle: list[PooledEngine] = []
        self._busy: set[PooledEngine] = set()
        self._waiters: deque[Acquire] = deque()
        self._turns = 0  # leases that are out or promised; what `size` and `overflow` limit
        self._starting = 0  # spares on their way
        self._started = 0
        self._retired = 0
        self.open = True  # whether it leases engines

    def lease(self, timeout: float, scope: CancelScope | None = None) -> EngineLease:
        """Wait for an engine, start one if there is room, and hold it exclusively.

        Raises:
            NoEngineFree: If all stayed busy for `timeout` seconds, or until `scope` ended.
            EngineQuotaExhausted: If the quota had no room in that time.
            EngineOverloaded: If too many of the scope wait already.
            EnginePoolClosed: If the pool is closed, also while waiting.
        """
        return Acquire(self, timeout, scope or CancelScope()).result()

    def lease_now(self) -> EngineLease | None:
        """Hold an engine that is idle, if there is one and none waits; starts none and waits for nothing."""
        with self.lock:
            if self._waiters or not self.open or self._turns >= self._size + self._overflow:
                return None
            idle = self._idle
            if not idle or not idle[-1].engine.alive:  # else `claim` does it the long way
                return None
            pooled = idle.pop()
            pooled.slot.idle_since = FOREVER
            self._busy.add(pooled)
            self._turns += 1
        if self._spares:
            return self.hand_out(pooled)
        pooled.leases += 1
        return EngineLease(self, pooled)

    def acquire(self, then: "Then", timeout: float, scope: CancelScope) -> "Acquire":
        """Do what `lease` does without a thread that waits; `then` is called with the lease or the error."""
        return Acquire(self, timeout, scope, then)

    def warm(self) -> None:
        """Start engines ahead of need: the spares, and one to work with. Starts nothing the quota has no room for."""
        self._top_up(self._spares + (0 if self._busy else 1))

    def resize(self, size: int, overflow: int | None = None) -> None:
        """Change how many may be leased at once; engines in use are let finish."""
        whole("size", size, least=1)
        surplus: list[PooledEngine] = []
        with self.lock:
            self._size = size
            self._overflow = self._overflow if overflow is None else overflow
            served = self._serve()
            while self._idle and len(self._idle) + len(self._busy) > self._size + self._spares:
                surplus.append(self._idle.pop(0))
        for acquire in served:
            acquire.set()
        for pooled in surplus:
            self._retire(pooled, politely=True)

    def sleep_idle(self, idle_for: float) -> int:
        """Retire the engines that have been idle for that many seconds, spares too, and return how many."""
        before = self.now() - idle_for
        with self.lock:
            sleepy = [pooled for pooled in self._idle if pooled.slot.idle_since <= before]
            self._idle = [pooled for pooled in self._idle if pooled not in sleepy]  # the quota may change it meanwhile
        for pooled in sleepy:
            self._retire(pooled, politely=True)
        return len(sleepy)

    def status(self) -> EnginePoolStatus:
        """Return what is busy, idle and waiting."""
        with self.lock:
            return EnginePoolStatus(
                size=self._size,
                busy=len(self._busy),
                idle=len(self._idle),
                waiting=len(self._waiters),
                started=self._started,
                retired=self._retired,
            )

    def see_off(self, timeout: float, *, leased: bool) -> bool:
        """Wait until it is known here which engines have died or are about to; returns whether there was any.

        Args:
            timeout: Seconds to wait.
            leased: Wait for those that are leased until they are given back, too.
        """

        def is_there(pooled: PooledEngine) -> bool:
            return pooled in self._idle or (pooled in self._busy and (leased or not pooled.gone))

        deadline = Deadline(timeout)
        with self.lock:
            engines = [*self._idle, *filter(is_there, self._busy)]
        dying = [pooled for pooled in engines if pooled.engine.is_dying]
        with self.lock:
            self._onlookers += 1
            try:
                while any(map(is_there, dying)) and deadline.left > 0:
                    self._left.wait(deadline.left)
            finally:
                self._onlookers -= 1
        return bool(dying)

    @property
    def in_use(self) -> int:
        """Engines that are leased or promised, and wishes that wait for one."""
        with self.lock:
            return self._turns + len(self._waiters)

    def kill_busy(self) -> int:
        """Kill the engines that are leased now, and return how many; their users see them die."""
        with self.lock:
            busy = list(self._busy)
        for pooled in busy:
            pooled.engine.kill()
        return len(busy)

    def close(self) -> None:
        """Lease no more, refuse all that wait, end what is idle; what is leased ends when it is given back."""
        with self.lock:
            self.open = False
            idle, self._idle = self._idle, []
            waiters = list(self._waiters)
            self._waiters.clear()
        for waiter in waiters:
            waiter.set()
        for pooled in idle:
            self._retire(pooled, politely=True)

    def _serve(self) -> "list[Acquire]":
        """Give those that wait their turn, with an engine if one is idle, else with leave to start one.

        Called with the lock held; what is returned is to be `set` without it.
        """
        served: list[Acquire] = []
        while self._waiters and self._turns < self._size + self._overflow:
            self._turns += 1
            served.append(self._waiters.popleft())
            served[-1].stage, served[-1].pooled = "served", self._take_idle()
        return served

    def _take_idle(self) -> PooledEngine | None:
        """Take the engine used last, which is the warmest. Called with the lock held."""
        while self._idle:
            pooled = self._idle.pop()
            pooled.slot.idle_since = FOREVER
            if pooled.engine.alive:
                self._busy.add(pooled)
                return pooled
            # Its exit notice is on the way and does the bookkeeping.
        return None

    # What an acquire asks of its pool.

    def claim(self, acquire: "Acquire") -> bool:
        """Put an acquire into the queue, if it is not there, and return whether it was served."""
        with self.lock:
            if acquire.stage == "new" and self.open:
                acquire.stage, acquire.since = "queued", self.now()
                self._waiters.append(acquire)
                self._serve()
            if acquire.stage != "served" and not self.open:
                raise EnginePoolClosed(f"{self.label} is closed", hint="it is stopping, or the runtime is")
            return acquire.stage == "served"

    def hand_out(self, pooled: PooledEngine) -> EngineLease:
        """Make the lease of an engine that was given or started."""
        pooled.leases += 1
        if self.open and len(self._idle) + self._starting < self._spares:
            background.run_later(SPARE_PAUSE, self._top_up)  # later: the request that took one comes first
        return EngineLease(self, pooled)

    def withdraw(self, acquire: "Acquire") -> None:
        """Take an acquire out of the queue, and pass on what it was given and cannot use."""
        with self.lock:
            stage, acquire.stage = acquire.stage, "over"
            if acquire in self._waiters:
                self._waiters.remove(acquire)
        if stage == "served":
            if acquire.pooled is None:
                self._end_turn()
            else:
                self.returned(acquire.pooled, broken=False)

    def busy_for(self, waited: float) -> NoEngineFree:
        """Make the error of an acquire that did not get its turn."""
        return NoEngineFree(
            f"{self.label}: all {self._turns} engines stayed busy for {waited:g} s",
            hint="raise the size, the overflow or the timeout",
        )

    def start(self, slot: EngineSlot, *, leased: bool = False) -> PooledEngine:
        """Start an engine, whose slot is released with its end."""
        try:
            engine = self.start_engine()
        except BaseException:
            slot.release()
            raise
        pooled = PooledEngine(engine, slot)
        slot.reclaim = partial(self._reclaim, pooled)
        with self.lock:
            self._started += 1
            if leased:
                self._busy.add(pooled)
        engine.add_exit_callback(lambda _: self._gone(pooled))
        return pooled

    def _top_up(self, wanted: int | None = None) -> None:
        """Start spares that are missing, as far as the quota has room; a spare makes none wait."""
        wanted = self._spares if wanted is None else wanted
        more = True
        while more:
            with self.lock:
                if not self.open or len(self._idle) + self._starting >= wanted:
                    return
                self._starting += 1
            try:
                more = self._start_spare()
            finally:
                with self.lock:
                    self._starting -= 1

    def _start_spare(self) -> bool:
        """Start an engine that is idle at first; returns whether it stays so, neither gone nor wanted elsewhere."""
        slot = self.quota.try_acquire()
        if slot is None:
            return False
        try:
            pooled = self.start(slot)
        except MlldError:
            return False  # a spare that will not start is no failure of the lease at hand; the next start reports it
        with self.lock:
            stays = self.open and not pooled.gone
            if stays:
                pooled.slot.idle_since = self.now()
                self._idle.append(pooled)
        if not stays:
            self._retire(pooled, politely=True)
        elif self.quota.waiters:
            self.quota.serve()
        return stays

    def returned(self, pooled: PooledEngine, broken: bool) -> None:
        """Take an engine back: for the next in the queue, for later, or to end it."""
        ends = broken or not pooled.engine.alive or (self._wears and self._is_worn(pooled))
        stays, served = False, None
        with self.lock:
            self._busy.discard(pooled)
            if self._onlookers:
                self._left.notify_all()
            if self._waiters and not ends:
                ends = self.quota.owes(self._waiters[0].since)  # one elsewhere has waited longer; ours queue up behind
            if not ends:
                self._turns -= 1
                wanted = self._waiters and self._turns < self._size + self._overflow
                if wanted or len(self._idle) + len(self._busy) < self._size + self._spares:
                    stays = self.open and not pooled.gone
                if stays:  # with the turn, or the next to come would find neither and start another
                    pooled.slot.idle_since = self.now()
                    self._idle.append(pooled)
                if wanted:
                    served = self._serve()
        if ends:
            self._retire(pooled, politely=not broken)
            self._end_turn()
            self._top_up()
        elif not stays:
            self._retire(pooled, politely=True)
        elif not served and self.quota.waiters:
            self.quota.serve()
        for acquire in served or ():
            acquire.set()

    def _is_worn(self, pooled: PooledEngine) -> bool:
        limits = self._recycle
        if limits.max_leases is not None and pooled.leases >= limits.max_leases:
            return True
        return limits.max_rss is not None and pooled.engine.rss() > limits.max_rss

    def _end_turn(self) -> None:
        """Pass the turn to the one that waits longest, with leave to start an engine."""
        with self.lock:
            self._turns -= 1
            served = self._serve()
        for acquire in served:
            acquire.set()

    def _reclaim(self, pooled: PooledEngine, only_due: bool = False) -> bool:
        """Put an engine to sleep if it is idle, or only if it has been so for long enough; returns whether it was."""
        with self.lock:
            long = FOREVER if self.idle_after is None else self.idle_after
            if pooled not in self._idle or (only_due and pooled.slot.idle_since + long > self.now()):
                return False
            self._idle.remove(pooled)
        self._retire(pooled, politely=True)
        return True

    def _retire(self, pooled: PooledEngine, *, politely: bool) -> None:
        """End an engine. Its exit notice does the bookkeeping, so a slot is free only when the process is gone."""
        if politely:
            pooled.engine.close(STOP_TIMEOUT)
        else:
            pooled.engine.kill()

    def _gone(self, pooled: PooledEngine) -> None:
        """Forget an engine whose process has ended."""
        with self.lock:
            if pooled in self._idle:
                self._idle.remove(pooled)
            self._retired += 1
            pooled.gone = True
            self._left.notify_all()
            watcher, pooled.watcher = pooled.watcher, None
        pooled.slot.release()
        if watcher is not None:
            watcher()


Then = Callable[[EngineLease | BaseException], object]
"""Takes the outcome of an acquire."""


class Acquire:
    """One wish for an engine. Made with `then`, it raises at once if too many wait already or the pool is closed.

    Args:
        pool: Where the engine is to come from.
        timeout: Seconds it may take.
        scope: What ends the waiting, and bounds how many wait.
        then: Called once with the lease or the error, on any thread; not after `cancel`. `None` if a thread waits with
            `result`.

    Attributes:
        stage: How far it has come in the pool; changed by the pool, under its lock.
        since: When it began to wait in the queue it is in.
        pooled: The engine it was given; `None` while it has leave to start one.
        slot: What the quota granted it.
    """

    def __init__(self, pool: EnginePool, timeout: float, scope: CancelScope, then: Then | None = None) -> None:
        self.stage: Stage = "new"
        self.since = 0.0
        self.pooled: PooledEngine | None = None
        self.slot: EngineSlot | None = None
        self.timeout = timeout
        self._pool = pool
        self._scope = scope
        self._in_quota = False
        self._now = now if then is None else shared_reactor().now
        self._deadline = self._now() + timeout
        self._then = then
        self._news = threading.Event() if then is None else None
        self._timer: ReactorTimer | None = None
        if then is None:
            return
        self._process = os.getpid()
        self._stepping = threading.Lock()
        self._ending = threading.Lock()
        with self._stepping:
            if self._pool.claim(self):
                self.set()
            else:  # in its place in the queue from this moment
                self._look_again(timeout)
            try:
                scope.enter(self)  # before a step may end it, and have it forgotten
            except BaseException:
                self._then = None
                self._leave()
                self._look_again(None)
                raise

    def result(self) -> EngineLease:
        """Wait for the lease on this thread, which also starts the engine if there is none. Raises as `lease` does."""
        news = self._news
        assert news is not None, "it tells its outcome to a function"
        try:
            lease = self._advance()
            if lease is None:
                self._scope.enter(self)
                try:
                    while lease is None:
                        left = self._deadline - self._now()
                        if left <= 0 or self._scope.over is not None:
                            raise self.refusal()
                        news.wait(min(left, MEMORY_LOOK if self._in_quota else LONGEST_WAIT))
                        news.clear()
                        lease = self._advance()
                finally:
                    self._scope.leave(self)
        except BaseException:
            self._leave()
            raise
        return lease

    def set(self) -> None:
        """Take the next step: here if an engine has come, else on a thread that may wait for one."""
        if self._news is not None:
            self._news.set()
        elif self.pooled is None or self._stepping.locked() or getattr(_here, "stepping", False):
            self._step_elsewhere()
        else:
            _here.stepping = True  # what takes the engine may return it at once, to the next and so on: not in here
            try:
                self._step()
            finally:
                _here.stepping = False

    def cancel(self) -> bool:
        """Withdraw the wish; returns false if it has come to its end, and `then` has been or is being called."""
        if self._take_then() is None:
            return False
        self._scope.leave(self)
        self._step_elsewhere()  # the canceller's thread does not pass on what it was given
        return True

    def refusal(self, waited: float | None = None) -> CallTimeout:
        """Make the error that names what was waited for in vain, by default for `timeout` seconds."""
        refuse = self._pool.quota.refusal if self._in_quota else self._pool.busy_for
        return refuse(self.timeout if waited is None else waited)

    def _advance(self) -> EngineLease | None:
        """Go as far as can be gone now, which may include starting an engine; returns the lease at the end."""
        if self.stage != "served" and not self._pool.claim(self):
            return None
        if self.pooled is None:
            quota = self._pool.quota
            if not self._in_quota:
                self.slot = quota.try_acquire()
                if self.slot is None:
                    self._in_quota = True
                    quota.enqueue(self)
                    if self._news is None:
                        self._step_elsewhere()  # serving may wait for the end of an engine, which is for another thread
                        return None
            if self._in_quota:
                quota.serve()
            slot = self.slot
            if slot is None:
                return None
            self._in_quota, self.slot = False, None
            self.pooled = self._pool.start(slot, leased=True)
        self.stage = "over"
        return self._pool.hand_out(self.pooled)

    def _leave(self) -> None:
        """Leave the queue it is in; what it was given goes to the next."""
        if self._in_quota:
            self._pool.quota.dequeue(self)
        self._pool.withdraw(self)

    def _step_elsewhere(self) -> None:
        (background.run_slow if self._in_quota else background.run)(self._step)

    def _take_then(self) -> Then | None:
        with self._ending:
            then, self._then = self._then, None
            return then

    def _step(self) -> None:
        with self._stepping:
            if self.stage == "over":
                return
            outcome = self._outcome()
            if outcome is None:
                return
            self._scope.leave(self)
            self._look_again(None)
        then = self._take_then()
        if then is not None:
            then(outcome)
        elif not isinstance(outcome, BaseException):
            outcome.give_back()

    def _outcome(self) -> EngineLease | BaseException | None:
        if os.getpid() != self._process:  # it is the parent that waits, and will be served
            return ForkedProcess("the request waits in the process this one was forked from")
        try:
            lease = None if self._then is None else self._advance()
            if lease is None:
                left = self._deadline - self._now()
                if self._then is None or left <= 0 or self._scope.over is not None:
                    raise self.refusal()
                self._look_again(min(left, MEMORY_LOOK) if self._in_quota else left)
        except BaseException as error:  # noqa: BLE001 - it is the outcome
            self._leave()
            return error
        return lease

    def _look_again(self, delay: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay is None else shared_reactor().call_at(self._now() + min(delay, A_YEAR), self.set)
