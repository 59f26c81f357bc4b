"""An engine pool: leases engines one at a time to whoever works, keeps some warm, and replaces what breaks.

Every agent has a pool, and a pool is a pool that many share. A pool belongs to the *name* in the tree, not to the
incarnation that happens to work under it: when an agent crashes and its engine with it, the warm spare is still there
for its successor.
"""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError
from mlld_sdk.engines import background
from mlld_sdk.engines.orders import Errand, NoEngineFree, Order, Stage, wait_for
from mlld_sdk.engines.quota import CancelScope, EngineQuota, EngineSlot

__all__ = [
    "EngineLease",
    "EnginePool",
    "EnginePoolClosed",
    "EnginePoolStatus",
    "Leasable",
    "NoEngineFree",
    "PooledEngine",
    "Recycle",
]

STOP_TIMEOUT = 5.0
"""Seconds an engine that is retired gets to leave before its process group is killed."""

SPARE_PAUSE = 0.02
"""Seconds until a spare that was taken is replaced."""


class Leasable(Protocol):
    """What a pool needs to know of an engine."""

    @property
    def alive(self) -> bool:
        """Whether the process runs and answers."""
        ...

    def add_exit_callback(self, function: Callable[[Self], None]) -> None:
        """Call `function` once when the process is gone; at once if it is already."""
        ...

    def close(self, timeout: float) -> object:
        """End it, politely and then by force, and wait until it is gone."""
        ...

    def kill(self) -> None:
        """End it and all its children now, without waiting."""
        ...

    def rss(self) -> int:
        """Tell its resident memory in bytes."""
        ...


E = TypeVar("E", bound=Leasable)


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
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} must be at least 1 or None, got {value}")


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


class PooledEngine(Generic[E]):
    """One engine and what the pool remembers about it."""

    __slots__ = ("engine", "gone", "idle_since", "leases", "permit", "watcher")

    def __init__(self, engine: E, permit: EngineSlot) -> None:
        self.engine = engine
        self.permit = permit
        self.leases = 0
        self.idle_since = 0.0
        self.gone = False
        self.watcher: Callable[[], object] | None = None


class EngineLease(Generic[E]):
    """The exclusive use of one engine until it is given back. Usable in a `with` block.

    An exception that leaves the block gives the engine back as broken, since nobody knows what it was doing.
    """

    def __init__(self, pool: "EnginePool[E]", pooled: PooledEngine[E]) -> None:
        self._pool = pool
        self._pooled: PooledEngine[E] | None = pooled
        self.engine = pooled.engine

    def give_back(self, *, broken: bool = False) -> None:
        """Return the engine; a second time does nothing.

        Args:
            broken: Its state is unknown; it is killed and replaced rather than handed on.
        """
        with self._pool._lock:
            pooled, self._pooled = self._pooled, None
        if pooled is not None:
            pooled.watcher = None
            self._pool._returned(pooled, broken)

    def when_gone(self, function: Callable[[], object]) -> None:
        """Call the function if the engine's process ends while it is held, at once if it has; it must not block."""
        pooled = self._pooled
        if pooled is not None:
            pooled.watcher = function
            if pooled.gone:
                function()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.give_back(broken=kind is not None)


class EnginePool(Generic[E]):
    """Leases engines exclusively, first come first served.

    Args:
        start: Starts an engine and returns without waiting for it to be ready.
        size: Engines that may be leased at once.
        overflow: How many more may be started while all are busy; these are retired when they come back.
        spares: Idle engines kept warm beyond those in use.
        budget: Admits engines; shared by all pools of a runtime.
        recycle: When a working engine is replaced.
        idle_after: Seconds after which `EngineQuota.sleep_idle` may put an idle engine to sleep; `None` for never.
        env: Clocks.
        label: Names the pool in errors.
    """

    def __init__(
        self,
        start: Callable[[], E],
        *,
        size: int = 1,
        overflow: int = 0,
        spares: int = 0,
        budget: EngineQuota | None = None,
        recycle: Recycle | None = None,
        idle_after: float | None = None,
        env: Env | None = None,
        label: str = "pool",
    ) -> None:
        for name, value, least in (("size", size, 1), ("overflow", overflow, 0), ("spares", spares, 0)):
            if value < least:
                raise ConfigurationError(f"{name} must be at least {least}, got {value}")
        self.label = label
        self.idle_after = idle_after
        self._start = start
        self._size = size
        self._overflow = overflow
        self._spares = spares
        self._env = env or Env()
        self._budget = budget or EngineQuota(env=self._env)
        self._recycle = recycle or Recycle()
        self._lock = threading.Lock()
        self._idle: list[PooledEngine[E]] = []
        self._busy: set[PooledEngine[E]] = set()
        self._waiters: deque[Order[E]] = deque()
        self._turns = 0  # leases that are out or promised; what `size` and `overflow` limit
        self._starting = 0  # spares on their way
        self._started = 0
        self._retired = 0
        self._open = True

    def lease(self, timeout: float, patience: CancelScope | None = None) -> EngineLease[E]:
        """Wait for an engine, start one if there is room, and hold it exclusively.

        Raises:
            NoEngineFree: If all stayed busy for `timeout` seconds, or for as long as `patience` lasted.
            EngineQuotaExhausted: If the runtime's budget had no room in that time.
            EnginePoolClosed: If the pool is closed, also while waiting.
        """
        return wait_for(Order(self), timeout, patience or CancelScope(), self._env.now)

    def lease_now(self) -> EngineLease[E] | None:
        """Hold an engine that is idle, if there is one and nobody waits; starts none and waits for nothing."""
        with self._lock:
            if self._waiters or not self._open or self._turns >= self._size + self._overflow:
                return None
            pooled = self._take_idle()
            if pooled is None:
                return None
            self._turns += 1
        return self._handed_out(pooled)

    def order(
        self, then: Callable[[EngineLease[E] | BaseException], object], timeout: float, patience: CancelScope
    ) -> Errand[E]:
        """Do what `lease` does without a thread that waits; `then` is called with the lease or the error."""
        return Errand(self, then, timeout, patience)

    def warm(self) -> None:
        """Start engines ahead of need: the spares, and one to work with. Starts nothing the budget has no room for."""
        self._top_up(self._spares + (0 if self._busy else 1))

    def resize(self, size: int, overflow: int | None = None) -> None:
        """Change how many may be leased at once; engines in use are let finish."""
        if size < 1:
            raise ConfigurationError(f"size must be at least 1, got {size}")
        surplus: list[PooledEngine[E]] = []
        served: list[Order[E]] = []
        with self._lock:
            self._size = size
            self._overflow = self._overflow if overflow is None else overflow
            while self._waiters and self._turns < self._size + self._overflow:
                self._turns += 1
                served.append(self._waiters.popleft())
                served[-1].serve(self._take_idle())
            while self._idle and len(self._idle) + len(self._busy) > self._size + self._spares:
                surplus.append(self._idle.pop(0))
        for order in served:
            order.tell()
        for pooled in surplus:
            self._retire(pooled, politely=True)

    def owes(self) -> bool:
        """Whether somebody waits for one of the engines that live to end, here or in another pool of the budget."""
        return self._budget.owes(self._env.now())

    def sleep_idle(self, idle_for: float) -> int:
        """Retire the engines that have been idle for that many seconds, spares too, and say how many."""
        before = self._env.now() - idle_for
        with self._lock:
            sleepy = [pooled for pooled in self._idle if pooled.idle_since <= before]
            self._idle = [pooled for pooled in self._idle if pooled.idle_since > before]
        for pooled in sleepy:
            self._retire(pooled, politely=True)
        return len(sleepy)

    def status(self) -> EnginePoolStatus:
        """Tell what is busy, idle and waiting."""
        with self._lock:
            return EnginePoolStatus(
                size=self._size,
                busy=len(self._busy),
                idle=len(self._idle),
                waiting=len(self._waiters),
                started=self._started,
                retired=self._retired,
            )

    @property
    def open(self) -> bool:
        """Whether it leases engines."""
        return self._open

    def kill_busy(self) -> int:
        """Kill the engines that are leased now, and say how many; their users see them die."""
        with self._lock:
            busy = list(self._busy)
        for pooled in busy:
            pooled.engine.kill()
        return len(busy)

    def close(self) -> None:
        """EngineLease no more, refuse those who wait, end what is idle; what is leased ends when it is given back."""
        with self._lock:
            self._open = False
            idle, self._idle = self._idle, []
            waiters = list(self._waiters)
            self._waiters.clear()
        for waiter in waiters:
            waiter.tell()
        for pooled in idle:
            self._retire(pooled, politely=True)

    def _refuse_if_closed(self) -> None:
        if not self._open:
            raise EnginePoolClosed(f"{self.label} is closed", hint="it is stopping, or the runtime is")

    def _take_idle(self) -> PooledEngine[E] | None:
        """Take the engine used last, which is the warmest. Called with the lock held."""
        while self._idle:
            pooled = self._idle.pop()
            if pooled.engine.alive:
                self._budget.wake(pooled.permit)
                self._busy.add(pooled)
                return pooled
            # Its exit notice is on the way and does the bookkeeping.
        return None

    def _claim(self, order: Order[E]) -> bool:
        """Give an order its turn, with an engine if one is idle, or a place in the queue; says which."""
        with self._lock:
            if order.stage == "served":  # in this moment
                return True
            self._refuse_if_closed()
            if order.stage == "queued":
                return False
            if self._waiters or self._turns >= self._size + self._overflow:
                order.stand(self._env.now())
                self._waiters.append(order)
                return False
            self._turns += 1
            order.serve(self._take_idle())
            return True

    def _handed_out(self, pooled: PooledEngine[E]) -> EngineLease[E]:
        pooled.leases += 1
        if self._open and len(self._idle) + self._starting < self._spares:
            background.run_later(SPARE_PAUSE, self._top_up)  # later: the request that took one comes first
        return EngineLease(self, pooled)

    def _left(self, order: Order[E]) -> Stage:
        """Take an order out of the queue; says how far it had come."""
        with self._lock:
            if order.stage == "queued" and order in self._waiters:
                self._waiters.remove(order)
            return order.stage

    def _declined(self, pooled: PooledEngine[E] | None) -> None:
        """Pass on what an order was given and cannot use."""
        if pooled is None:
            self._end_turn()
        else:
            self._returned(pooled, broken=False)

    def _start_one(self, permit: EngineSlot, *, leased: bool = False) -> PooledEngine[E]:
        try:
            engine = self._start()
        except BaseException:
            permit.release()
            raise
        pooled = PooledEngine(engine, permit)
        with self._lock:
            self._started += 1
            if leased:
                self._busy.add(pooled)
        engine.add_exit_callback(lambda _: self._gone(pooled))
        return pooled

    def _top_up(self, wanted: int | None = None) -> None:
        """Start spares that are missing, as far as the budget has room; a spare never makes anybody wait."""
        wanted = self._spares if wanted is None else wanted
        more = True
        while more:
            with self._lock:
                if not self._open or len(self._idle) + self._starting >= wanted:
                    return
                self._starting += 1
            try:
                more = self._start_spare()
            finally:
                with self._lock:
                    self._starting -= 1

    def _start_spare(self) -> bool:
        permit = self._budget.try_acquire()
        if permit is None:
            return False
        try:
            pooled = self._start_one(permit)
        except MlldError:
            return False  # a spare that will not start is no failure of the lease at hand; the next start reports it
        return self._lay_idle(pooled)

    def _lay_idle(self, pooled: PooledEngine[E]) -> bool:
        """Put an engine among the idle ones, or retire it when it is gone or wanted elsewhere."""
        with self._lock:
            stays = self._open and not pooled.gone
            if stays:
                self._lay_down(pooled)
        if not stays:
            self._retire(pooled, politely=True)
            return False
        return self._rests(pooled)

    def _lay_down(self, pooled: PooledEngine[E]) -> None:
        """Put an engine among the idle ones. Called with the lock held, and then `_rests` without it."""
        pooled.idle_since = self._env.now()
        self._idle.append(pooled)

    def _rests(self, pooled: PooledEngine[E]) -> bool:
        """Tell the budget of an idle engine, which may be wanted elsewhere; says whether it stays."""
        sleep_at = None if self.idle_after is None else pooled.idle_since + self.idle_after
        return self._budget.rest(pooled.permit, lambda: self._reclaim(pooled), sleep_at) or not self._reclaim(pooled)

    def _returned(self, pooled: PooledEngine[E], broken: bool) -> None:
        if broken or not pooled.engine.alive or self._is_worn(pooled):
            with self._lock:
                self._busy.discard(pooled)
            self._retire(pooled, politely=not broken)
            self._end_turn()
            self._top_up()
            return
        next_one: Order[E] | None = None
        owed = surplus = False
        with self._lock:
            self._busy.discard(pooled)
            if self._open and self._waiters and self._turns <= self._size + self._overflow:
                owed = self._budget.owes(self._waiters[0].since)
                if not owed:
                    self._busy.add(pooled)
                    next_one = self._waiters.popleft()
                    next_one.serve(pooled)
            else:
                full = len(self._idle) + len(self._busy) >= self._size + self._spares
                surplus = full or not self._open or pooled.gone
                self._turns -= 1
                if not surplus:  # with the turn, or the next to come would find neither and start another
                    self._lay_down(pooled)
        if next_one is not None:
            next_one.tell()
        elif owed:  # somebody elsewhere has waited longer; ours queues up behind
            self._retire(pooled, politely=True)
            self._end_turn()
        elif surplus:
            self._retire(pooled, politely=True)
        else:
            self._rests(pooled)

    def _is_worn(self, pooled: PooledEngine[E]) -> bool:
        limits = self._recycle
        if limits.max_leases is not None and pooled.leases >= limits.max_leases:
            return True
        return limits.max_rss is not None and pooled.engine.rss() > limits.max_rss

    def _end_turn(self) -> None:
        """Pass the turn to whoever waits longest, with leave to start an engine."""
        with self._lock:
            if not self._waiters or self._turns > self._size + self._overflow:
                self._turns -= 1
                return
            next_one = self._waiters.popleft()
            next_one.serve(self._take_idle())
        next_one.tell()

    def _reclaim(self, pooled: PooledEngine[E]) -> bool:
        with self._lock:
            if pooled not in self._idle:
                return False
            self._idle.remove(pooled)
        self._retire(pooled, politely=True)
        return True

    def _retire(self, pooled: PooledEngine[E], *, politely: bool) -> None:
        """End an engine. Its exit notice does the bookkeeping, so a permit is free only when the process is gone."""
        if politely:
            pooled.engine.close(STOP_TIMEOUT)
        else:
            pooled.engine.kill()

    def _gone(self, pooled: PooledEngine[E]) -> None:
        """Forget an engine whose process has ended."""
        with self._lock:
            if pooled in self._idle:
                self._idle.remove(pooled)
            self._retired += 1
            pooled.gone = True
            watcher, pooled.watcher = pooled.watcher, None
        pooled.permit.release()
        if watcher is not None:
            watcher()
