"""How many engines may live at once in a runtime, and which acquire gets the next one.

An engine of the real mlld weighs well over a hundred megabytes before it has done anything, so engines are admitted:
up to a number, while memory lasts, first come first served. When nothing is left, the engine that has been idle the
longest is put to sleep for the one that waits. Ten thousand agents can be declared on a machine that runs twenty
engines.
"""

import threading
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Protocol

from mlld_sdk.base.durations import FOREVER, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.options import whole
from mlld_sdk.transport.errors import CallTimeout, EngineOverloaded

MEMORY_LOOK = 0.5
"""Seconds between two looks at the free memory, while an acquire waits for memory."""


MAX_WAITING = 1024
"""Requests of one owner that may wait for an engine at once, unless it says otherwise."""


_idle_since = attrgetter("idle_since")


class EngineQuotaExhausted(CallTimeout):
    """No engine could be admitted before the deadline: those that live are all busy, or memory is short."""


class Waiter(Protocol):
    """An acquire, as far as scope and quota know it."""

    slot: "EngineSlot | None"
    """What the quota has granted it."""
    since: float
    """When it began to wait in the quota's queue."""

    def set(self) -> None:
        """Look again. Must not block."""


class CancelScope:
    """The acquires that wait for engines of one owner: how many may, and what ends the waiting of all of them.

    Attributes:
        over: Why the waiting was ended, once it was; then it stays so.
    """

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self.over: MlldError | None = None
        self.max_waiting = max_waiting
        self._lock = threading.Lock()
        self._waiters: set[Waiter] = set()

    def end(self, why: MlldError) -> None:
        """End the waiting of all, now and in future."""
        with self._lock:
            self.over = self.over or why
            waiters = list(self._waiters)
        for waiter in waiters:  # without the lock: a waiter may go on right here
            waiter.set()

    def enter(self, waiter: Waiter) -> None:
        """Call the waiter's `set` when the scope ends, at once if it has.

        Raises:
            EngineOverloaded: Too many wait already.
        """
        with self._lock:
            if len(self._waiters) >= self.max_waiting:
                raise overloaded(len(self._waiters))
            self._waiters.add(waiter)
        if self.over is not None:
            waiter.set()

    def leave(self, waiter: Waiter) -> None:
        """Forget a waiter."""
        with self._lock:
            self._waiters.discard(waiter)

    def check(self) -> None:
        """Raise why the scope was ended, if it was."""
        if self.over is not None:
            raise self.over.with_traceback(None) from None


def overloaded(waiting: int) -> EngineOverloaded:
    """Make the refusal of a request that would have to wait behind too many others."""
    return EngineOverloaded(
        f"{waiting} requests wait for an engine already", hint="allow more engines, or submit less at once"
    )


class EngineSlot:
    """The right to have one live engine. Releasing it twice is harmless.

    Attributes:
        idle_since: Since when the engine has been idle; `FOREVER` while it is not. Set by the pool.
        reclaim: Puts the engine to sleep if it is idle, with `True` only if none has wanted it for long enough; returns
            whether it was. Set by the pool.
    """

    __slots__ = ("_quota", "idle_since", "reclaim")

    def __init__(self, quota: "EngineQuota") -> None:
        self._quota = quota
        self.idle_since = FOREVER
        self.reclaim: Callable[..., bool] = bool

    def release(self) -> None:
        """Return the right to the quota; the acquire that has waited longest gets it."""
        self._quota.released(self)


class EngineQuota:
    """Admits engines, first come first served, up to a number and while memory lasts.

    Args:
        max_live: Engines that may live at once; `None` for no limit of number.
        min_free_memory: Bytes that must be free before another engine is admitted. The first engine always is.
        stagger: Seconds between two admissions, so that many cold starts do not compete.
        free_memory: Tells how many bytes are free; `None` when it cannot be known, which counts as enough.
        env: Clocks.

    Attributes:
        waiters: The acquires that wait for admission.
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
        whole("max_live", 1 if max_live is None else max_live, least=1)
        whole("min_free_memory", min_free_memory)
        seconds(stagger, "stagger", infinite=False)
        self.max_live = max_live
        self.min_free_memory = min_free_memory
        self.stagger = stagger
        self._free_memory = free_memory or available_memory
        self._env = env or Env()
        self._lock = threading.Lock()
        self._live: set[EngineSlot] = set()
        self.waiters: deque[Waiter] = deque()
        self._next_start = 0.0

    @property
    def is_limited(self) -> bool:
        """Whether an engine may have to wait for the end of another."""
        return self.max_live is not None or bool(self.min_free_memory or self.stagger)

    @property
    def live(self) -> int:
        """How many engines are admitted now."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """How many starts wait for admission."""
        return len(self.waiters)

    def try_acquire(self) -> EngineSlot | None:
        """Admit an engine now, unless others wait or there is no room; never puts another engine to sleep."""
        with self._lock:
            return None if self.waiters or not self._has_room() else self._admit()

    def enqueue(self, waiter: Waiter) -> None:
        """Put an acquire into the queue; its `set` is called when the slot is there."""
        waiter.since = self._env.now()
        with self._lock:
            self.waiters.append(waiter)

    def serve(self) -> None:
        """Grant what can be granted, and put an idle engine to sleep for it, which may wait for that engine's end.

        Worth calling when something has changed, and every `MEMORY_LOOK` seconds: nothing tells when memory is free.
        """
        slept = False
        while not slept:
            with self._lock:
                idle = min(self._live, key=_idle_since, default=None)
                if idle is None or idle.idle_since == FOREVER or not self.waiters or not self._is_full():
                    break
                idle.idle_since = FOREVER
            slept = idle.reclaim()
        self._grant()

    def dequeue(self, waiter: Waiter) -> None:
        """Take an acquire out of the queue; what was granted in the last moment goes to the next."""
        with self._lock:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
            slot, waiter.slot = waiter.slot, None
        if slot is not None:
            slot.release()

    def refusal(self, waited: float) -> EngineQuotaExhausted:
        """Make the error of an acquire that was granted nothing in time."""
        return EngineQuotaExhausted(
            f"no engine could be started within {waited:g} s: {self._why()}",
            hint="raise max_live or the timeout, or add memory",
        )

    def owes(self, since: float) -> bool:
        """Whether an engine has to end for an acquire that has waited since then, or longer."""
        with self._lock:
            return bool(self.waiters) and self.waiters[0].since <= since and self._is_full()

    def sleep_idle(self) -> None:
        """Put the engines to sleep whose time has come; costs as much as there are engines, and no more."""
        with self._lock:
            idle = [slot for slot in self._live if slot.idle_since < FOREVER]
        for slot in idle:
            slot.reclaim(True)

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
        slot = EngineSlot(self)
        self._live.add(slot)
        if self.stagger:
            self._next_start = self._env.now() + self.stagger
        return slot

    def _grant(self) -> None:
        with self._lock:
            while self.waiters and self._has_room():
                waiter = self.waiters.popleft()
                waiter.slot = self._admit()
                waiter.set()

    def released(self, slot: EngineSlot) -> None:
        """Take a slot back; the one that has waited longest gets it."""
        with self._lock:
            self._live.discard(slot)
        self._grant()

    def _why(self) -> str:
        if self.max_live is not None and len(self._live) >= self.max_live:
            return f"all {self.max_live} engines of the quota are busy"
        if self._memory_is_short():
            return f"less than {self.min_free_memory >> 20} MiB of memory are free"
        return "starts are staggered"


def available_memory() -> int | None:
    """Return how many bytes the system could still hand out, or `None` where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
