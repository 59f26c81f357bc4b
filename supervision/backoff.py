"""How long to wait before the next start attempt.

The delay grows by `factor` with every attempt in a row, up to `most`, and is spread by jitter so that children that
died together do not come back together. The row ends when the child has lived for the stable period: one good start is
not enough, or a child that dies two seconds after each start would never back off.
"""

import random
from math import log
from typing import Self

import msgspec

from mlld_sdk.base.durations import Duration, seconds
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.options import number


class Backoff(msgspec.Struct, frozen=True):
    """Delays between start attempts of one child.

    Attributes:
        first: Delay before the first attempt in a row, in seconds.
        factor: Growth from attempt to attempt.
        most: Upper bound of the delay before jitter is subtracted; no delay is ever longer.
        jitter: Part of the delay that is random: a delay `d` becomes something in `[d * (1 - jitter), d]`.
        stable: Duration a child must live for its next delay to be `first` again.
    """

    first: float = 0.1
    factor: float = 2.0
    most: float = 30.0
    jitter: float = 0.5
    stable: float = 15.0

    def __post_init__(self) -> None:
        for name in ("first", "most", "stable"):
            seconds(getattr(self, name), name, infinite=False)
        number("factor", self.factor, 1, 1000)
        number("jitter", self.jitter, 0, 1)

    @classmethod
    def of(
        cls,
        first: Duration = 0.1,
        *,
        factor: float = 2.0,
        most: Duration = 30.0,
        jitter: float = 0.5,
        min_uptime: Duration = 0.0,
    ) -> Self:
        """Check the options and derive the stable period.

        The stable period is the longer of `min_uptime` and the midpoint of `first` and `most`.

        Raises:
            InvalidOption: A value is out of range, or `most` is shorter than `first`.
        """
        low = seconds(first, "first", above=0, infinite=False)
        high = seconds(most, "most", above=0, infinite=False)
        if high < low:
            raise InvalidOption("most", high, f"seconds >= first ({low:g})")
        stable = max(seconds(min_uptime, "min_uptime", infinite=False), (low + high) / 2)
        return cls(low, number("factor", factor, 1, 1000), high, number("jitter", jitter, 0, 1), stable)

    def delay(self, streak: int, chance: random.Random) -> float:
        """Return how long to wait when `streak` attempts in a row have failed before this one."""
        # Past this many steps the cap rules; computing the power could overflow.
        steps = streak if self.factor == 1 else min(streak, int(log(self.most / self.first, self.factor)) + 1)
        raw = min(self.first * self.factor**steps, self.most)
        return raw * (1 - self.jitter * chance.random())
