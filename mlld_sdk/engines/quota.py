"""How many engines may live at once in a runtime, and who gets the next one.

An engine of the real mlld weighs well over a hundred megabytes before it has done anything, so engines are admitted:
up to a number, while memory lasts, first come first served. When nothing is left, the engine that has been idle the
longest is put to sleep for whoever waits. Ten thousand agents can be declared on a machine that runs twenty engines.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError

MEMORY_LOOK = 0.5
"""Seconds between two looks at the free memory, while somebody waits for memory."""


class EngineQuotaExhausted(InfrastructureError):
    """No engine could be admitted before the deadline; those that live are all busy, or memory is short."""

    code = "ENGINE_QUOTA_EXHAUSTED"


class Signal(Protocol):
    """Something to set when it is worth looking again: a `threading.Event`, or what takes the next step by itself."""

    def set(self) -> None:
        """Say so. Must not block."""
        ...


class CancelScope:
    """Lets whoever waits for an engine be told to stop waiting. Told once is told for good.

    Attributes:
        over: Why there is nothing to wait for any more, if so.
    """

    def __init__(self) -> None:
        self.over: MlldError | None = None
        self._lock = threading.Lock()
        self._signals: set[Signal] = set()

    def end(self, why: MlldError) -> None:
        """Wake all who wait."""
        with self._lock:
            self.over = self.over or why
            signals = list(self._signals)
        for signal in signals:  # without the lock: what is set may go on right here
            signal.set()

    def tell(self, signal: Signal) -> None:
        """Set the signal when there is nothing to wait for; at once if that is so already."""
        with self._lock:
            self._signals.add(signal)
        if self.over is not None:
            signal.set()

    def forget(self, signal: Signal) -> None:
        """Set it no more."""
        with self._lock:
            self._signals.discard(signal)


class EngineSlot:
    """The right to have one live engine. Releasing it twice is harmless."""

    __slots__ = ("_budget",)

    def __init__(self, budget: "EngineQuota") -> None:
        self._budget: EngineQuota | None = budget

    def release(self) -> None:
        """Give the right back; whoever waits longest gets it."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget._released(self)


class Admission:
    """A place in the queue for leave to start an engine.

    Attributes:
        since: When it was taken.
    """

    __slots__ = ("_budget", "changed", "permit", "since")

    def __init__(self, budget: "EngineQuota", changed: Signal, since: float) -> None:
        self._budget = budget
        self.changed = changed
        self.since = since
        self.permit: EngineSlot | None = None

    def advance(self) -> EngineSlot | None:
        """Give the permit if it is there; puts an idle engine to sleep for it, and may wait for that engine's end.

        Worth calling when `changed` was set, and every `MEMORY_LOOK` seconds: nobody tells when memory is free.
        """
        self._budget._put_one_to_sleep()
        self._budget._grant()
        return self.permit

    def leave(self) -> None:
        """Leave the queue; what was granted in the last moment goes to the next."""
        permit = self._budget._left(self)
        if permit is not None:
            permit.release()

    def refusal(self, waited: float) -> EngineQuotaExhausted:
        """Say why nothing came of it."""
        return EngineQuotaExhausted(
            f"no engine could be started within {waited:g} s: {self._budget._why()}",
            hint="raise max_live or the timeout, or add memory",
        )


class EngineQuota:
    """Admits engines, first come first served, up to a number and while memory lasts.

    Args:
        max_live: Engines that may live at once; `None` for no limit of number.
        min_free_memory: Bytes that must be free before another engine is admitted. The first engine always is.
        stagger: Seconds between two admissions, so that many cold starts do not compete.
        free_memory: Tells how many bytes are free; `None` when it cannot be known, which counts as enough.
        env: Clocks.
    """

    def __init__(
        self,
        max_live: int | None = None,
        *,
        min_free_memory: int = 0,
        stagger: float = 0.0,
        free_memory: Callable[[], int | None] | None = None,
        env: Env | None = None,
    ) -> None:
        for name, value, least in (
            ("max_live", 1 if max_live is None else max_live, 1),
            ("min_free_memory", min_free_memory, 0),
            ("stagger", stagger, 0),
        ):
            if value < least:
                raise ConfigurationError(f"{name} must be at least {least}, got {value}")
        self.max_live = max_live
        self.min_free_memory = min_free_memory
        self.stagger = stagger
        self._free_memory = free_memory or available_memory
        self._env = env or Env()
        self._lock = threading.Lock()
        self._live: set[EngineSlot] = set()
        self._idle: OrderedDict[EngineSlot, tuple[Callable[[], bool], float | None]] = OrderedDict()
        self._waiters: deque[Admission] = deque()
        self._next_start = 0.0

    @property
    def live(self) -> int:
        """How many engines are admitted now."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """How many starts wait for admission."""
        return len(self._waiters)

    def try_acquire(self) -> EngineSlot | None:
        """Admit an engine now, unless somebody waits or there is no room; never puts another engine to sleep."""
        with self._lock:
            return None if self._waiters or not self._has_room() else self._admit()

    def queue(self, changed: Signal) -> Admission:
        """Stand in line for a permit; `changed` is set when it is there."""
        admission = Admission(self, changed, self._env.now())
        with self._lock:
            self._waiters.append(admission)
        return admission

    def owes(self, since: float) -> bool:
        """Whether an engine has to end for somebody who has waited for one since then, or longer."""
        with self._lock:
            return bool(self._waiters) and self._waiters[0].since <= since and self._is_full()

    def rest(self, permit: EngineSlot, reclaim: Callable[[], bool], sleep_at: float | None = None) -> bool:
        """Say that an engine is idle now, and learn whether it may stay.

        Args:
            permit: The engine's.
            reclaim: Puts the engine to sleep, releasing its permit, and says whether it still could.
            sleep_at: When `sleep_idle` may do that although nobody waits; `None` for never.

        Returns:
            `False` when somebody waits for an engine to end: put this one to sleep at once.
        """
        with self._lock:
            if self._waiters and self._is_full():
                return False
            self._idle[permit] = (reclaim, sleep_at)
            self._idle.move_to_end(permit)
            return True

    def wake(self, permit: EngineSlot) -> None:
        """Say that an idle engine has work again."""
        with self._lock:
            self._idle.pop(permit, None)

    def sleep_idle(self) -> None:
        """Put the engines to sleep whose time has come; costs as much as there are idle engines, and no more."""
        now = self._env.now()
        with self._lock:
            due = [permit for permit, (_, at) in self._idle.items() if at is not None and at <= now]
            sleepy = [self._idle.pop(permit)[0] for permit in due]
        for reclaim in sleepy:
            reclaim()

    def _has_room(self) -> bool:
        return self._env.now() >= self._next_start and not self._is_full()

    def _is_full(self) -> bool:
        """Whether an engine has to end before another may start."""
        if self.max_live is not None and len(self._live) >= self.max_live:
            return True
        return bool(self._live) and self._memory_is_short()

    def _memory_is_short(self) -> bool:
        free = self._free_memory() if self.min_free_memory else None
        return free is not None and free < self.min_free_memory

    def _admit(self) -> EngineSlot:
        permit = EngineSlot(self)
        self._live.add(permit)
        if self.stagger:
            self._next_start = self._env.now() + self.stagger
        return permit

    def _grant(self) -> None:
        with self._lock:
            while self._waiters and self._has_room():
                waiter = self._waiters.popleft()
                waiter.permit = self._admit()
                waiter.changed.set()

    def _left(self, waiter: Admission) -> EngineSlot | None:
        """Take somebody out of the queue, and give what was granted in the last moment."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return waiter.permit

    def _put_one_to_sleep(self) -> None:
        while True:
            with self._lock:
                if not self._idle or not self._waiters or not self._is_full():
                    return
                _, (reclaim, _) = self._idle.popitem(last=False)
            if reclaim():
                return

    def _released(self, permit: EngineSlot) -> None:
        with self._lock:
            self._live.discard(permit)
            self._idle.pop(permit, None)
        self._grant()

    def _why(self) -> str:
        if self.max_live is not None and len(self._live) >= self.max_live:
            return f"all {self.max_live} engines of the budget are busy"
        if self._memory_is_short():
            return f"less than {self.min_free_memory >> 20} MiB of memory are free"
        return "starts are staggered"


def available_memory() -> int | None:
    """Tell how many bytes the system could still hand out, or `None` where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
