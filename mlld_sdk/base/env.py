"""The outside world as one value: clocks and randomness.

Nothing in the library reads a clock or rolls a die by itself; it asks the `Env` it was given. Tests hand in an `Env`
whose clock stands still until they move it. What waits for a moment of the clock does three things: it has itself told
when a test moves the clock (`watch`), waits for no longer than `real` says, and then looks at the clock again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Protocol

from mlld_sdk.base.durations import LONGEST_WAIT


class Moves(Protocol):
    """Tells those who wait for a clock that a test has moved it."""

    def watch(self, moved: Callable[[], object], keep: Callable[[float], object] | None = None) -> Callable[[], object]:
        """Do what `Env.watch` promises."""


@dataclass(frozen=True, slots=True)
class Env:
    """Where time and chance come from.

    Attributes:
        now: Monotonic seconds. Every deadline and window is measured with it.
        wall: Seconds since the epoch, for records and reports. Never for arithmetic that decides something.
        random: Source of jitter and ids that need not be secret.
        moves: Tells when the clocks are moved; `None` for clocks that go by themselves.
    """

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    random: Random = field(default_factory=Random)
    moves: Moves | None = None

    def real(self, seconds: float) -> float:
        """Return how long a thread may really wait that waits for so many seconds of this clock.

        That is as long as can be if the clock stands still: no time that passes brings the moment nearer.
        """
        return seconds if self.moves is None else LONGEST_WAIT

    def going(self) -> "Env":
        """Return the same with a clock that goes by itself, for what keeps real time in any case, as processes do."""
        return self if self.moves is None else replace(self, now=time.monotonic, moves=None)

    def watch(self, moved: Callable[[], object], keep: Callable[[float], object] | None = None) -> Callable[[], object]:
        """Have `moved()` called each time when a test has moved the clock; returns what ends that.

        Both functions are called on the thread that moves the clock; they should wake others and not wait for them.

        Args:
            moved: Called when the clock shows the new time.
            keep: Called before, with the moment it will be: for what would run out on the way, though in truth somebody
                would have kept it.
        """
        return _nothing if self.moves is None else self.moves.watch(moved, keep)


def _nothing() -> None:
    """End what was never begun."""
