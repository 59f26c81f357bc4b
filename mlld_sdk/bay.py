"""An engine bay: leases engines one at a time to whoever works, keeps some warm, and replaces what breaks.

Every agent has a bay, and a pool is a bay that many share. A bay belongs to the *name* in the tree, not to the
incarnation that happens to work under it: when an agent crashes and its engine with it, the warm spare is still there
for its successor.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from mlld_sdk.engine_budget import EngineBudget, Patience, Permit
from mlld_sdk.env import Env
from mlld_sdk.errors import ConfigurationError, InfrastructureError, MlldError

STOP_TIMEOUT = 5.0
"""Seconds an engine that is retired gets to leave before its process group is killed."""


class Leasable(Protocol):
    """What a bay needs to know of an engine."""

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


class NoEngineFree(InfrastructureError):
    """Every engine of the bay stayed busy until the deadline."""

    default_code = "NO_ENGINE_FREE"


class BayClosed(InfrastructureError):
    """The bay is closed or draining; it leases no more engines."""

    default_code = "BAY_CLOSED"


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


class BayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a bay looks like at one moment.

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


class _Berth(Generic[E]):
    """One engine and what the bay remembers about it."""

    __slots__ = ("engine", "gone", "idle_since", "leases", "permit")

    def __init__(self, engine: E, permit: Permit) -> None:
        self.engine = engine
        self.permit = permit
        self.leases = 0
        self.idle_since = 0.0
        self.gone = False


class _Waiter(Generic[E]):
    """A caller in the queue. It is handed an engine, or leave to start one."""

    __slots__ = ("berth", "served", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.served = threading.Event()
        self.berth: _Berth[E] | None = None


class Lease(Generic[E]):
    """The exclusive use of one engine until it is given back. Usable in a `with` block.

    An exception that leaves the block gives the engine back as broken, since nobody knows what it was doing.
    """

    def __init__(self, bay: "EngineBay[E]", berth: _Berth[E]) -> None:
        self._bay = bay
        self._berth: _Berth[E] | None = berth
        self.engine = berth.engine

    def give_back(self, *, broken: bool = False) -> None:
        """Return the engine; a second time does nothing.

        Args:
            broken: Its state is unknown; it is killed and replaced rather than handed on.
        """
        with self._bay._lock:
            berth, self._berth = self._berth, None
        if berth is not None:
            self._bay._returned(berth, broken)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.give_back(broken=kind is not None)


class EngineBay(Generic[E]):
    """Leases engines exclusively, first come first served.

    Args:
        start: Starts an engine and returns without waiting for it to be ready.
        size: Engines that may be leased at once.
        overflow: How many more may be started while all are busy; these are retired when they come back.
        spares: Idle engines kept warm beyond those in use.
        budget: Admits engines; shared by all bays of a runtime.
        recycle: When a working engine is replaced.
        idle_after: Seconds after which `EngineBudget.sleep_idle` may put an idle engine to sleep; `None` for never.
        env: Clocks.
        label: Names the bay in errors.
    """

    def __init__(
        self,
        start: Callable[[], E],
        *,
        size: int = 1,
        overflow: int = 0,
        spares: int = 0,
        budget: EngineBudget | None = None,
        recycle: Recycle | None = None,
        idle_after: float | None = None,
        env: Env | None = None,
        label: str = "bay",
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
        self._budget = budget or EngineBudget(env=self._env)
        self._recycle = recycle or Recycle()
        self._lock = threading.Lock()
        self._idle: list[_Berth[E]] = []
        self._busy: set[_Berth[E]] = set()
        self._waiters: deque[_Waiter[E]] = deque()
        self._turns = 0  # leases that are out or promised; what `size` and `overflow` limit
        self._starting = 0  # spares on their way
        self._started = 0
        self._retired = 0
        self._open = True

    def lease(self, timeout: float, patience: Patience | None = None) -> Lease[E]:
        """Wait for an engine, start one if there is room, and hold it exclusively.

        Raises:
            NoEngineFree: If all stayed busy for `timeout` seconds, or for as long as `patience` lasted.
            EngineBudgetExhausted: If the runtime's budget had no room in that time.
            BayClosed: If the bay is closed, also while waiting.
        """
        patience = patience or Patience()
        deadline = self._env.now() + timeout
        waiter: _Waiter[E] | None = None
        with self._lock:
            self._refuse_if_closed()
            if self._waiters or self._turns >= self._size + self._overflow:
                waiter = _Waiter(self._env.now())
                self._waiters.append(waiter)
                berth = None
            else:
                self._turns += 1
                berth = self._take_idle()
        if waiter is not None:
            berth = self._wait(waiter, timeout, patience)
        if berth is None:
            berth = self._start_for_a_turn(deadline, patience)
        berth.leases += 1
        if self._open and len(self._idle) + self._starting < self._spares:
            # Whoever leases does not wait for the spare that replaces the one taken, nor for want of a thread for it.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._top_up, name=f"{self.label}-spares", daemon=True).start()
        return Lease(self, berth)

    def warm(self) -> None:
        """Start engines ahead of need: the spares, and one to work with. Starts nothing the budget has no room for."""
        self._top_up(self._spares + (0 if self._busy else 1))

    def resize(self, size: int, overflow: int | None = None) -> None:
        """Change how many may be leased at once; engines in use are let finish."""
        if size < 1:
            raise ConfigurationError(f"size must be at least 1, got {size}")
        surplus: list[_Berth[E]] = []
        with self._lock:
            self._size = size
            self._overflow = self._overflow if overflow is None else overflow
            while self._waiters and self._turns < self._size + self._overflow:
                self._turns += 1
                self._serve(self._waiters.popleft(), self._take_idle())
            while self._idle and len(self._idle) + len(self._busy) > self._size + self._spares:
                surplus.append(self._idle.pop(0))
        for berth in surplus:
            self._retire(berth, politely=True)

    def sleep_idle(self, idle_for: float) -> int:
        """Retire the engines that have been idle for that many seconds, spares too, and say how many."""
        before = self._env.now() - idle_for
        with self._lock:
            sleepy = [berth for berth in self._idle if berth.idle_since <= before]
            self._idle = [berth for berth in self._idle if berth.idle_since > before]
        for berth in sleepy:
            self._retire(berth, politely=True)
        return len(sleepy)

    def status(self) -> BayStatus:
        """Tell what is busy, idle and waiting."""
        with self._lock:
            return BayStatus(
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
            berths = list(self._busy)
        for berth in berths:
            berth.engine.kill()
        return len(berths)

    def close(self) -> None:
        """Lease no more, refuse those who wait, end what is idle; what is leased ends when it is given back."""
        with self._lock:
            self._open = False
            idle, self._idle = self._idle, []
            waiters = list(self._waiters)
            self._waiters.clear()
            for waiter in waiters:
                waiter.served.set()
        for berth in idle:
            self._retire(berth, politely=True)

    def _refuse_if_closed(self) -> None:
        if not self._open:
            raise BayClosed(f"{self.label} is closed", hint="it is stopping, or the runtime is")

    def _take_idle(self) -> _Berth[E] | None:
        """Take the engine used last, which is the warmest. Called with the lock held."""
        while self._idle:
            berth = self._idle.pop()
            if berth.engine.alive:
                self._budget.wake(berth.permit)
                self._busy.add(berth)
                return berth
            # Its exit notice is on the way and does the bookkeeping.
        return None

    def _serve(self, waiter: _Waiter[E], berth: _Berth[E] | None) -> None:
        waiter.berth = berth
        waiter.served.set()

    def _wait(self, waiter: _Waiter[E], timeout: float, patience: Patience) -> _Berth[E] | None:
        try:
            patience.wait(waiter.served, timeout)
        except BaseException:
            if not self._leave(waiter):
                self._decline(waiter)
            raise
        if self._leave(waiter):
            raise NoEngineFree(
                f"{self.label}: all {self._turns} engines stayed busy for {timeout:g} s",
                hint="raise the size, the overflow or the timeout",
            )
        # Served, if only in the last moment: the turn is ours, so use it.
        if not self._open and waiter.berth is None:
            self._refuse_if_closed()
        return waiter.berth

    def _leave(self, waiter: _Waiter[E]) -> bool:
        """Leave the queue; says whether the waiter still stood in it."""
        with self._lock:
            stood = waiter in self._waiters
            if stood:
                self._waiters.remove(waiter)
            return stood

    def _decline(self, waiter: _Waiter[E]) -> None:
        """Pass on what a waiter was given and cannot use."""
        if waiter.berth is None:
            self._end_turn()
        else:
            self._returned(waiter.berth, broken=False)

    def _start_for_a_turn(self, deadline: float, patience: Patience) -> _Berth[E]:
        try:
            berth = self._start_one(self._budget.acquire(max(0.0, deadline - self._env.now()), patience))
        except BaseException:
            self._end_turn()
            raise
        with self._lock:
            self._busy.add(berth)
        return berth

    def _start_one(self, permit: Permit) -> _Berth[E]:
        try:
            engine = self._start()
        except BaseException:
            permit.release()
            raise
        with self._lock:
            self._started += 1
        berth = _Berth(engine, permit)
        engine.add_exit_callback(lambda _: self._gone(berth))
        return berth

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
            berth = self._start_one(permit)
        except MlldError:
            return False  # a spare that will not start is no failure of the lease at hand; the next start reports it
        return self._lay_idle(berth)

    def _lay_idle(self, berth: _Berth[E]) -> bool:
        """Put an engine among the idle ones, or retire it when it is gone or wanted elsewhere."""
        berth.idle_since = self._env.now()
        with self._lock:
            stays = self._open and not berth.gone
            if stays:
                self._idle.append(berth)
        if not stays:
            self._retire(berth, politely=True)
            return False
        sleep_at = None if self.idle_after is None else berth.idle_since + self.idle_after
        return self._budget.rest(berth.permit, lambda: self._reclaim(berth), sleep_at) or not self._reclaim(berth)

    def _returned(self, berth: _Berth[E], broken: bool) -> None:
        if broken or not berth.engine.alive or self._is_worn(berth):
            with self._lock:
                self._busy.discard(berth)
            self._retire(berth, politely=not broken)
            self._end_turn()
            self._top_up()
            return
        with self._lock:
            self._busy.discard(berth)
            owed = False
            if self._open and self._waiters and self._turns <= self._size + self._overflow:
                owed = self._budget.owes(self._waiters[0].since)
                if not owed:
                    self._busy.add(berth)
                    self._serve(self._waiters.popleft(), berth)
                    return
        if owed:  # somebody elsewhere has waited longer; ours queues up behind
            self._retire(berth, politely=True)
            self._end_turn()
            return
        with self._lock:
            surplus = len(self._idle) + len(self._busy) >= self._size + self._spares
            self._turns -= 1
        if surplus or not self._open:
            self._retire(berth, politely=True)
        else:
            self._lay_idle(berth)

    def _is_worn(self, berth: _Berth[E]) -> bool:
        limits = self._recycle
        if limits.max_leases is not None and berth.leases >= limits.max_leases:
            return True
        return limits.max_rss is not None and berth.engine.rss() > limits.max_rss

    def _end_turn(self) -> None:
        """Pass the turn to whoever waits longest, with leave to start an engine."""
        with self._lock:
            if self._waiters and self._turns <= self._size + self._overflow:
                self._serve(self._waiters.popleft(), self._take_idle())
            else:
                self._turns -= 1

    def _reclaim(self, berth: _Berth[E]) -> bool:
        with self._lock:
            if berth not in self._idle:
                return False
            self._idle.remove(berth)
        self._retire(berth, politely=True)
        return True

    def _retire(self, berth: _Berth[E], *, politely: bool) -> None:
        """End an engine. Its exit notice does the bookkeeping, so a permit is free only when the process is gone."""
        if politely:
            berth.engine.close(STOP_TIMEOUT)
        else:
            berth.engine.kill()

    def _gone(self, berth: _Berth[E]) -> None:
        """Forget an engine whose process has ended."""
        with self._lock:
            if berth in self._idle:
                self._idle.remove(berth)
            self._retired += 1
            berth.gone = True
        berth.permit.release()
