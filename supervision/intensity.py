"""How many restarts are too many: limits, windows, and what a limit means in sustained restarts.

A `RestartLimit` allows `restarts` attempts within any span of `within` seconds. A `RestartWindow` holds the attempts
that still count. Time is monotonic float seconds and the span is inclusive: an attempt made exactly `within` seconds
ago still counts. (OTP counts whole seconds, which makes its span one second longer or not, depending on the phase of
the clock.)
"""

from typing import Self

import msgspec

from mlld_sdk.base.durations import Duration, seconds
from mlld_sdk.base.options import whole
from mlld_sdk.supervision.events import BudgetView


class RestartLimit(msgspec.Struct, frozen=True):
    """At most `restarts` restart attempts within any `within` seconds; the next one is not made.

    Attributes:
        restarts: Attempts allowed in the window. 0 means that the first failure is one too many.
        within: Length of the window in seconds.
    """

    restarts: int = 3
    within: float = 5.0

    def __post_init__(self) -> None:
        whole("restarts", self.restarts)
        seconds(self.within, "within", above=0, infinite=False)

    @classmethod
    def of(cls, restarts: int, within: Duration) -> Self:
        """Check the two numbers and build the limit.

        Raises:
            InvalidOption: `restarts` is negative or not whole, or `within` is not a positive duration.
        """
        return cls(whole("max_restarts", restarts), seconds(within, "within", above=0, infinite=False))

    @classmethod
    def default(cls) -> Self:
        """3 in 5 s: tells a crash loop from bad luck for children that start in milliseconds."""
        return cls(3, 5.0)

    @classmethod
    def none(cls) -> Self:
        """No restart at all: the first failure goes up."""
        return cls(0, 5.0)

    @classmethod
    def burst(cls) -> Self:
        """20 in 5 s: many children behind one flaky dependency may die together."""
        return cls(20, 5.0)

    @classmethod
    def patient(cls) -> Self:
        """5 in 60 s: for children that take seconds to fail, like engines behind a slow network."""
        return cls(5, 60.0)

    @classmethod
    def stubborn(cls) -> Self:
        """60 in an hour: with backoff, keeps trying through an outage and goes up when it lasts."""
        return cls(60, 3600.0)

    @property
    def sustained(self) -> float:
        """Restarts per hour that go on for ever without ever exceeding the limit: its worst case."""
        return self.restarts / self.within * 3600

    def __repr__(self) -> str:
        return f"<RestartLimit {self}>"

    def __str__(self) -> str:
        return f"{self.restarts} in {self.within:g} s (sustains {self.sustained:g} restarts an hour)"


class RestartWindow(msgspec.Struct, frozen=True):
    """The restart attempts that still count, oldest first. Never longer than the limit plus one."""

    attempts: tuple[float, ...] = ()

    def charge(self, now: float, limit: RestartLimit) -> tuple["RestartWindow", bool]:
        """Record one attempt and say whether the limit still holds.

        Returns:
            The window with the attempt in it, and whether the attempt may be made.
        """
        attempts = (*self.current(now, limit), now)
        return RestartWindow(attempts), len(attempts) <= limit.restarts

    def current(self, now: float, limit: RestartLimit) -> tuple[float, ...]:
        """List the attempts that count at `now`."""
        attempts, within = self.attempts, limit.within
        past = 0
        for at in attempts:  # oldest first, and few of them: no search is faster
            if now - at <= within:
                break
            past += 1
        return attempts[past:] if past else attempts

    def view(self, now: float, limit: RestartLimit) -> BudgetView:
        """Say how much of a limit is used up at `now`."""
        return BudgetView(len(self.current(now, limit)), limit.restarts, limit.within)
