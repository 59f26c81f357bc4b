"""When children that were told to stop have had their time: one timer for all of them.

Nearly every limit is called off long before it is due, so a timer for each would be made only to be cancelled. Here the
one timer stays where it is; when it rings it is aimed at whatever limit is the next one by then.
"""

from collections.abc import Callable
from math import inf

from mlld_sdk.actors.core.timers import Timer, Timers
from mlld_sdk.supervision.decisions.inputs import Overdue

SLACK = 1e-6
"""Seconds by which a limit may be taken for due too early: sums of floats need not be exact."""


class StopLimits:
    """The limits of one supervisor; used by itself only, but for the bell, which rings in the timer's thread."""

    __slots__ = ("_bell", "_limits", "_now", "_rings_at", "_timer", "_timers")

    def __init__(self, timers: Timers, now: Callable[[], float], bell: Callable[[], object]) -> None:
        self._timers = timers
        self._now = now
        self._bell = bell
        self._limits: dict[int, tuple[float, int]] = {}
        self._timer: Timer | None = None
        self._rings_at = inf

    def set(self, key: int, incarnation: int, due: float) -> None:
        """Limit what a child may still take; replaces an earlier limit of that child."""
        self._limits[key] = (due, incarnation)
        if due < self._rings_at:
            self._aim(due)

    def shorten(self, due: float) -> None:
        """Set the instant `due` until which a child may take to stop."""
        for key, (later, incarnation) in self._limits.items():
            if due < later:
                self._limits[key] = (due, incarnation)
        if self._limits and due < self._rings_at:
            self._aim(due)

    def lift(self, key: int) -> None:
        """Forget the limit of a child."""
        self._limits.pop(key, None)

    def take_due(self) -> list[Overdue]:
        """After the bell: take the limits that are due, and aim at the next one."""
        self._timer, self._rings_at = None, inf
        latest = self._now() + SLACK
        taken = [Overdue(key, incarnation) for key, (due, incarnation) in self._limits.items() if due <= latest]
        for overdue in taken:
            del self._limits[overdue.key]
        following = min((due for due, _ in self._limits.values()), default=inf)
        if following < inf:
            self._aim(following)
        return taken

    def close(self) -> None:
        """Forget all of it."""
        self._limits.clear()
        timer = self._timer  # after a kill another thread cleans up
        if timer is not None:
            timer.cancel()

    def _aim(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = due
        self._timer = self._timers.after(max(due - self._now(), 0.0), self._bell)
