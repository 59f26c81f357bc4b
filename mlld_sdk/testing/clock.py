"""A clock that stands still until a test moves it."""

from random import Random

from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.durations import now
from mlld_sdk.base.env import Env


class FakeClock:
    """Time that moves only when a test moves it.

    It is for what supervision decides by time: backoff, intensity, breakers, stuck detection, timers of actors.
    Engines are real processes and keep real time.

    Attributes:
        env: Give it to a `Runtime`, an `ActorSystem` or a `Breaker`.
    """

    def __init__(self, start: float | None = None, *, seed: int = 0) -> None:
        """Begin at `start`; by default at the true monotonic time, so that real things can be given deadlines."""
        self._now = now() if start is None else start
        self._begin = self._now
        self._began_at = 1_700_000_000.0
        self._systems: list[ActorSystem] = []
        self.env: Env = Env(now=self.now, wall=self.wall, random=Random(seed))  # noqa: S311 - the same on every run

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch; moves along."""
        return self._began_at + self._now - self._begin

    def drive(self, system: ActorSystem) -> None:
        """Wake the timers of this system whenever time is moved."""
        self._systems.append(system)

    def advance(self, seconds: float) -> None:
        """Move time on; timers that come due fire at once, on their own thread."""
        self._now += seconds
        for system in self._systems:
            system.timers.wake()
