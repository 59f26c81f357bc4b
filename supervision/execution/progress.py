"""What can be seen of a running actor from outside and without a message, and the watch for progress."""

from collections.abc import Callable
from typing import Any

import msgspec

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.supervision.decisions.inputs import NoProgress

Ref = ActorRef[Any]


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What can be seen of a running actor from outside.

    Attributes:
        queued: Messages waiting.
        idle: Seconds with work and nothing finished; 0 when it has nothing to do.
        doing: What it is handling.
        off_duty: In a word, what keeps it from work on purpose: `draining`, `drained`.
        step_breakers: Breakers that steps of its runs have gone through, and how many steps wait for each.
    """

    queued: int = 0
    idle: float = 0.0
    doing: str = ""
    off_duty: str = ""
    step_breakers: dict[str, int] = {}


def idle_of(ref: Ref) -> float:
    """Return for how many seconds an actor has had something to do and has finished nothing.

    By default that is the age of the message it is handling. A class that works beside its mailbox defines a method
    `stuck_for()` that only looks at its own fields: it is called from a timer's thread.
    """
    stuck_for = getattr(ref.cell.actor, "stuck_for", None)
    return float(stuck_for()) if stuck_for is not None else ref.info().current_for or 0.0


def info_of(ref: Ref) -> NodeInfo | None:
    """Return what can be seen of an actor without a message, or `None` when it has ended.

    A class that can be told to take no work defines a method `off_duty()`, one whose work goes through breakers
    `step_breakers()`; they are called as `stuck_for` is.
    """
    if ref.reason is not None:
        return None
    info, off_duty = ref.info(), getattr(ref.cell.actor, "off_duty", None)
    said = "" if off_duty is None else str(off_duty())
    breakers: dict[str, int] = getattr(ref.cell.actor, "step_breakers", dict)()
    return NodeInfo(
        queued=info.queued, idle=idle_of(ref), doing=info.current or "", off_duty=said, step_breakers=breakers
    )


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
