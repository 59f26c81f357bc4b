"""What one actor learns of another's end: exit notices, down notices and the handles of monitors.

Ordering: an actor's notices arrive in the order things happened, and after everything the dead actor itself sent. A
class with `urgent_exits = True` (a supervisor) gets them in its system lane instead, before any waiting message.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from mlld_sdk.actors.exits import Reason

if TYPE_CHECKING:
    from mlld_sdk.actors.ref import ActorRef


class Monitor:
    """The handle of one monitor; `cancel()` guarantees that no `Down` of it is seen afterwards."""

    __slots__ = ("_source", "_watcher", "ref")

    ref: "ActorRef[Any]"
    """Who is watched."""

    def cancel(self) -> bool:
        """Stop watching, and drop a notice that has arrived and was not handled yet.

        Returns:
            Whether the monitor was still in place or its notice still unhandled.
        """
        raise NotImplementedError


class Exit(msgspec.Struct, frozen=True, gc=False):
    """A linked actor ended, or somebody sent an exit signal, and the receiver traps exits.

    Attributes:
        ref: Who ended or sent it.
        reason: Why.
    """

    ref: "ActorRef[Any]"
    reason: Reason


class Down(msgspec.Struct, frozen=True, gc=False):
    """A monitored actor ended, or was not there (`NoProc`). Sent exactly once for each monitor.

    Attributes:
        monitor: The handle that `monitor()` returned.
        ref: Who ended.
        reason: Why.
    """

    monitor: Monitor
    ref: "ActorRef[Any]"
    reason: Reason
