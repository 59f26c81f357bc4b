"""What the runtime itself has an actor do, between its messages or in turn with them.

System messages travel in the system lane, before any waiting message; the others wait their turn in the mailbox.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from mlld_sdk.actors.core.errors import ActorDead
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.mailbox import SystemMessage
from mlld_sdk.actors.core.protocols import AnyCell


class IdleNow(msgspec.Struct, eq=False):
    """Posted by the idle timer; counts only if nothing was handled since the timer was set."""

    handled: int


class EndInTurn(msgspec.Struct, eq=False):
    """A request to end that waits its turn behind the messages before it."""

    reason: Reason


class EndNow(msgspec.Struct, SystemMessage, eq=False):
    """End with this reason before any other message."""

    reason: Reason

    def handle(self, cell: AnyCell) -> None:
        """Begin the end of the actor, unless it takes care of that by itself."""
        if cell.actor is None or not cell.actor.on_end_request(self.reason):
            cell.end(self.reason)


class Notice(msgspec.Struct, SystemMessage, eq=False):
    """An exit or down notice for a class that wants it before its waiting messages."""

    notice: object

    def handle(self, cell: AnyCell) -> None:
        """Carry the message out on the actor."""
        cell.runner.handle((self.notice, None))


class SystemRequest(msgspec.Struct, SystemMessage, eq=False):
    """Something to do with the actor between two messages, with an answer: suspend, look, replace."""

    action: Callable[[AnyCell], Any]
    reply: Future[Any]

    def handle(self, cell: AnyCell) -> None:
        """Do it and answer; a failure is the asker's, not the actor's."""
        try:
            self.reply.try_set(self.action(cell))
        except Exception as error:  # noqa: BLE001 - passed on
            self.reply.try_set_exception(error)

    def refuse(self, why: ActorDead) -> None:
        """Answer that the actor is dead."""
        self.reply.try_set_exception(why)
