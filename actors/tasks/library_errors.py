"""What can go wrong in the libraries on top of the actor core.

```
ActorError
├── NotAnActor             this needs an actor: call it inside one, or say which with `ref=`
├── NameTaken              a live actor holds the key
├── NotRegistered          the caller holds no such key
├── UnknownName            no registry, group scope, topic space or table of that name in this system
├── LockTimeout            the key was locked for longer than the caller would wait
├── NotJoined              none of the actors was a member
├── Unsubscribed           the listener was closed
├── NotOwner               only the owner of the table, the task or the entry may do this
├── TableClosed            the table is gone: its owner ended and nobody inherited it
├── TableFull              the table is at its limit and its policy is to refuse
├── TaskExited             the task ended without a value; also carries why
├── TaskTimeout            the task has not finished in time; also a `TimeoutError`
├── TooManyTasks           the task supervisor is at `max_children`
├── DemandExceeded         a producer emitted more than was asked for
├── UnhandledEvent         a state has no rule for this event
└── UndeclaredTransition   a handler went where its declaration does not lead
```
"""

from typing import TYPE_CHECKING, Any

from mlld_sdk.actors.core.errors import ActorError
from mlld_sdk.actors.core.exits import Other, Reason

if TYPE_CHECKING:
    from mlld_sdk.actors.core.ref import ActorRef


class NotAnActor(ActorError):
    """This is done for an actor, and no actor is running on this thread."""

    code = "NOT_AN_ACTOR"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is for an actor", hint="call it inside one, or say which with ref=")


class NameTaken(ActorError):
    """A live actor holds the key of a unique registry.

    Attributes:
        key: The key.
        holder: Who holds it.
    """

    code = "NAME_TAKEN"

    def __init__(self, key: object, holder: "ActorRef[Any]") -> None:
        super().__init__(f"{key!r} is held by {holder}", hint="use the holder, or another key")
        self.key = key
        self.holder = holder


class NotRegistered(ActorError):
    """The caller does not hold this key."""

    code = "NOT_REGISTERED"


class UnknownName(ActorError):
    """Nothing of that name and kind was made in this system."""

    code = "UNKNOWN_NAME"


class LockTimeout(ActorError, TimeoutError):
    """The lock did not come free in time; the caller has left the queue."""

    code = "LOCK_TIMEOUT"


class NotJoined(ActorError):
    """None of the actors was a member of the group."""

    code = "NOT_JOINED"


class Unsubscribed(ActorError):
    """The listener was closed; there is nothing more to take."""

    code = "UNSUBSCRIBED"


class NotOwner(ActorError):
    """Only the owner may do this."""

    code = "NOT_OWNER"


class TableClosed(ActorError):
    """The table is gone: its owner ended and there was no heir, or it was dropped."""

    code = "TABLE_CLOSED"


class TableFull(ActorError):
    """The table holds as many entries as it may; raise `limit`, delete some, or choose an evicting policy."""

    code = "TABLE_FULL"


class TaskExited(ActorError):
    """The task ended and gave no value. The exception it raised, when it raised one, is the cause.

    Attributes:
        reason: Why it ended, as data.
    """

    code = "TASK_EXITED"

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def exit_reason(self) -> Reason:
        """Why an actor ends that does not catch this: for what ended the task, but never as if all were well."""
        return Other(f"a task gave no value: {self.reason}") if self.reason.is_normal_family else self.reason


class TaskTimeout(ActorError, TimeoutError):
    """The task has not finished in time. It was not told, and its late result is dropped."""

    code = "TASK_TIMEOUT"


class TooManyTasks(ActorError):
    """The task supervisor already runs as many tasks as it may."""

    code = "TOO_MANY_TASKS"


class DemandExceeded(ActorError):
    """A producer emitted more events than its consumers asked for; nothing is kept, so nothing was taken."""

    code = "DEMAND_EXCEEDED"


class UnhandledEvent(ActorError):
    """A state got an event for which it declares no handler."""

    code = "UNHANDLED_EVENT"


class UndeclaredTransition(ActorError):
    """A handler led to a state that its declaration does not name."""

    code = "UNDECLARED_TRANSITION"
