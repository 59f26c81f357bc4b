"""When children that were told to stop have had their time: one timer for all of them.

Nearly every limit is called off long before it is due, so a timer for each would be made only to be cancelled. Here the
one timer stays where it is; when it rings it is aimed at whatever limit is the next one by then.
"""

from collections.abc import Callable

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
        self._limits: dict[int, tuple[float, Overdue]] = {}
        self._timer: Timer | None = None
        self._rings_at = 0.0

    def set(self, delay: float, what: Overdue) -> None:
        """Limit what a child may still take; replaces an earlier limit of that child."""
        due = self._now() + delay
        self._limits[what.key] = (due, what)
        if self._timer is None or due < self._rings_at:
            self._aim(due, delay)

    def lift(self, key: int) -> None:
        """Forget the limit of a child."""
        self._limits.pop(key, None)

    def take_due(self) -> list[Overdue]:
        """After the bell: take the limits that are due, and aim at the next one."""
        self._timer = None
        now = self._now()
        taken = [what for due, what in self._limits.values() if due <= now + SLACK]
        for what in taken:
            del self._limits[what.key]
        if self._limits:
            due = min(due for due, _ in self._limits.values())
            self._aim(due, due - now)
        return taken

    def close(self) -> None:
        """Forget all of it."""
        self._limits.clear()
        timer = self._timer  # after a kill another thread cleans up
        if timer is not None:
            timer.cancel()

    def _aim(self, due: float, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = due
        self._timer = self._timers.after(delay, self._bell)
