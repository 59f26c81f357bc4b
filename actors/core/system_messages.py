"""What the runtime itself has an actor do, between its messages or in turn with them.

System messages travel in the system lane, before any waiting message; the others wait their turn in the mailbox.
"""

from collections.abc import Callable
from typing import Any

from mlld_sdk.actors.core.errors import ActorDead
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.mailbox import SystemMessage
from mlld_sdk.actors.core.protocols import AnyCell


class IdleNow:
    """Posted by the idle timer; counts only if nothing was handled since the timer was set."""

    __slots__ = ("handled",)

    def __init__(self, handled: int) -> None:
        self.handled = handled


class EndInTurn:
    """A request to end that waits its turn behind the messages before it."""

    __slots__ = ("reason",)

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class EndNow(SystemMessage):
    """End with this reason before any other message."""

    __slots__ = ("_reason",)

    def __init__(self, reason: Reason) -> None:
        self._reason = reason

    def handle(self, cell: AnyCell) -> None:
        """Begin the end of the actor, unless it takes care of that by itself."""
        if cell.actor is None or not cell.actor.on_end_request(self._reason):
            cell.end(self._reason)


class Notice(SystemMessage):
    """An exit or down notice for a class that wants it before its waiting messages."""

    __slots__ = ("_notice",)

    def __init__(self, notice: object) -> None:
        self._notice = notice

    def handle(self, cell: AnyCell) -> None:
        """Carry the message out on the actor."""
        cell.runner.handle((self._notice, None))


class SystemRequest(SystemMessage):
    """Something to do with the actor between two messages, with an answer: suspend, look, replace."""

    __slots__ = ("_action", "_reply")

    def __init__(self, action: Callable[[AnyCell], Any], reply: Future[Any]) -> None:
        self._action = action
        self._reply = reply

    def handle(self, cell: AnyCell) -> None:
        """Do it and answer; a failure is the asker's, not the actor's."""
        try:
            self._reply.try_set(self._action(cell))
        except Exception as error:  # noqa: BLE001 - passed on
            self._reply.try_set_exception(error)

    def refuse(self, why: ActorDead) -> None:
        """Answer that the actor is dead."""
        self._reply.try_set_exception(why)
