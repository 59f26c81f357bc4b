"""What can be seen of a running actor from outside, without a message."""

from typing import Any

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.supervision.snapshot import NodeInfo

Ref = ActorRef[Any]


def idle_of(ref: Ref) -> float:
    """Return for how many seconds an actor has had something to do and has finished nothing.

    By default that is the age of the message it is handling. A class that works beside its mailbox defines a method
    `stuck_for()` that only looks at its own fields: it is called from a timer's thread.
    """
    stuck_for = getattr(ref.cell.actor, "stuck_for", None)
    return float(stuck_for()) if stuck_for is not None else ref.info().current_for or 0.0


def off_duty_of(ref: Ref) -> str:
    """Return in a word what keeps an actor from work on purpose; mostly nothing.

    A class that can be told to take no work defines a method `off_duty()`, called as `stuck_for` is.
    """
    off_duty = getattr(ref.cell.actor, "off_duty", None)
    return "" if off_duty is None else str(off_duty())


def info_of(ref: Ref) -> NodeInfo | None:
    """Return what can be seen of an actor without a message, or `None` when it has ended."""
    if ref.reason is not None:
        return None
    info = ref.info()
    return NodeInfo(queued=info.queued, idle=idle_of(ref), doing=info.current or "", off_duty=off_duty_of(ref))
