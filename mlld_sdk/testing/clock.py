"""A clock that stands still until a test moves it."""

import math
import threading
from collections.abc import Callable
from random import Random
from typing import Final

from mlld_sdk.base.durations import Duration, now, seconds
from mlld_sdk.base.env import Env

_TICK: Final = 2.0**-20
"""The grain of a clock that is moved, about a microsecond. Sums of such times are exact, and are compared for less."""

Watcher = tuple[Callable[[], object], Callable[[float], object] | None]


class FakeClock:
    """Time that moves only when a test moves it.

    Everything that waits for a moment of its `env` is woken by the move that reaches the moment, and by nothing else:
    sleeping runs, pauses between attempts, deadlines of runs, backoff, timers of actors. Engines are real processes and
    keep real time (`docs/testing.md`).

    Attributes:
        env: Give it to a `Runtime`, an `ActorSystem`, a `Journal` or a `Breaker`.
    """

    def __init__(self, start: float | None = None, *, seed: int = 0) -> None:
        """Begin at `start` on a day in 2023; by default with both clocks at the true time."""
        self._now = _ticks(now() if start is None else start)
        self._offset = _ticks(Env().wall() if start is None else 1_700_000_000.0) - self._now
        self._moving = threading.RLock()
        self._watchers: dict[object, Watcher] = {}
        self.env: Env = Env(now=self.now, wall=self.wall, random=Random(seed), moves=self)  # noqa: S311 - the same each run

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch; moves along."""
        return self._now + self._offset

    def advance(self, duration: Duration) -> None:
        """Move time on, and wake all that waits for a moment up to then; returns when they are woken, not when done.

        It is one jump: what would have happened several times on the way happens once. A wait that begins later, even
        a moment later, waits for the next move.

        Args:
            duration: Seconds or a `timedelta`, at least 0.
        """
        step = seconds(duration, "duration", infinite=False)
        with self._moving:
            to = _ticks(self._now + step)
            watchers = list(self._watchers.values())
            for _, keep in watchers:
                if keep is not None:
                    keep(to)
            self._now = to
            for moved, _ in list(self._watchers.values()):
                moved()

    def watch(self, moved: Callable[[], object], keep: Callable[[float], object] | None = None) -> Callable[[], object]:
        """Call these when time is moved, as `Env.watch` says."""
        key = object()
        self._watchers[key] = (moved, keep)
        return lambda: self._watchers.pop(key, None)


def _ticks(time: float) -> float:
    """Return the first tick that is not before a time, so that what is due then is due."""
    return math.ceil(time / _TICK) * _TICK
