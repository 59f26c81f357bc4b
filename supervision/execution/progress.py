"""Watching running children for progress, from outside and without a message."""

from collections.abc import Callable

from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.supervision.decisions.inputs import NoProgress
from mlld_sdk.supervision.execution.info import Ref, idle_of


class ProgressWatches:
    """The children of one supervisor that are watched; used by that supervisor only."""

    __slots__ = ("_found", "_system", "_timers")

    def __init__(self, system: ActorSystem, found: Callable[[NoProgress], object]) -> None:
        self._system = system
        self._found = found
        self._timers: dict[int, Timer] = {}

    def watch(self, key: int, incarnation: int, ref: Ref, limit: float, delay: float) -> None:
        """Look at a child's progress after `delay`, when it could have been stuck for `limit` at the earliest."""

        def look() -> None:
            try:
                idle = idle_of(ref)
            except Exception as error:  # noqa: BLE001 - a class that cannot say it is looked at again
                self._system.callback_failed(error)
                idle = 0.0
            if idle >= limit:
                self._found(NoProgress(key, incarnation, idle))
            elif ref.reason is None:
                self.watch(key, incarnation, ref, limit, limit - idle)

        self._timers[key] = self._system.timers.after(delay, look)

    def unwatch(self, key: int) -> None:
        """Stop watching a child."""
        timer = self._timers.pop(key, None) if self._timers else None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Stop watching all children."""
        for timer in list(self._timers.values()):
            timer.cancel()
