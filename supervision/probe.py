"""What can be seen of a running actor from outside, without a message."""

from typing import Any

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.supervision.snapshot import NodeInfo

Ref = ActorRef[Any]


def idle_of(ref: Ref) -> float:
    """Say for how long an actor has had something to do and has finished nothing.

    By default that is the age of the message it is handling. A class that works beside its mailbox says it itself, in
    a method `stuck_for()` that only looks at its own fields: it is called from a timer's thread.
    """
    actor = ref.cell.actor
    stuck_for = getattr(actor, "stuck_for", None)
    if stuck_for is not None:
        return float(stuck_for())
    return ref.info().current_for or 0.0


def off_duty_of(ref: Ref) -> str:
    """Say in a word what keeps an actor from work because somebody asked for that; mostly nothing.

    A class that can be told to take no work says it itself, in a method `off_duty()`, called as `stuck_for` is.
    """
    off_duty = getattr(ref.cell.actor, "off_duty", None)
    return "" if off_duty is None else str(off_duty())


def info(ref: Ref) -> NodeInfo | None:
    """See what can be seen of an actor without a message."""
    if ref.reason is not None:
        return None
    info = ref.info()
    return NodeInfo(queued=info.queued, idle=idle_of(ref), doing=info.current or "", off_duty=off_duty_of(ref))
