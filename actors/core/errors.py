"""What can go wrong between actors, each with a stable code.

```
ActorError                 (an InfrastructureError: nothing is known about the task)
├── ActorDead              the actor ended before it answered; also a `pykka.ActorDeadError`
│   └── NoSuchActor        no live actor has that name
├── ActorCrashed           the actor you called crashed while it served you
├── AskTimeout            no answer in time; also a `pykka.Timeout` and a `TimeoutError`
├── AskCancelled          the waiter gave the call up
├── CallingSelf            an actor waits for itself
├── DeadlockDetected       actors wait for each other in a ring
├── MailboxFull            the mailbox is at its limit and its policy is to refuse
├── StartFailed            the actor did not come up
│   ├── StartTimeout       ... in time; also a `TimeoutError`
│   └── AlreadyStarted     ... because its name is taken
├── StartIgnored           the actor declined to run
├── SystemStopped          the actor system is not running (any more, or not in this forked process)
├── NotAnActor             this needs an actor: call it inside one, or say which with `ref=`
├── NotOwner               only the owner of the table, the task or the entry may do this
└── UnknownName            no registry, group scope, topic space or table of that name in this system
ActorKilled                (a BaseException) raised inside an actor that was killed while it ran
```
"""

from dataclasses import dataclass
from typing import Any

import pykka

from mlld_sdk.actors.core.exits import Other, Reason
from mlld_sdk.base.errors import InfrastructureError


class ActorError(InfrastructureError):
    """An actor, its mailbox or its system failed.

    Attributes:
        reason: Why the actor ended, when that is known.
    """

    code = "ACTOR_ERROR"

    def __init__(self, message: str, *, reason: Reason | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class ActorDead(ActorError, pykka.ActorDeadError):
    """The actor is gone: it ended before the message, or before it answered it."""

    code = "ACTOR_DEAD"


class NoSuchActor(ActorDead):
    """No live actor is registered under that name; start it first, or check the spelling."""

    code = "NO_SUCH_ACTOR"


class ActorCrashed(ActorError):
    """The actor crashed while it served this call; the original exception is the cause."""

    code = "ACTOR_CRASHED"
    hint = "its supervisor decides about a restart; ask again later"
    reason: Reason


class AskTimeout(ActorError, pykka.Timeout, TimeoutError):
    """No answer came in time. The actor was not told; should it still answer, that answer is dropped and counted."""

    code = "ASK_TIMEOUT"
    hint = "the actor may be busy or its queue long; look at ref.info()"

    def __init__(self, message: str, *, timeout: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.timeout = timeout


class AskCancelled(ActorError):
    """The call was given up before it was answered."""

    code = "ASK_CANCELLED"


class CallingSelf(ActorError):
    """An actor asked itself and would wait for ever; tell itself, or call the method directly."""

    code = "CALLING_SELF"
    hint = "call the method directly, or tell instead of ask"


class DeadlockDetected(ActorError):
    """Waiting for this answer would close a ring of actors that wait for each other.

    Attributes:
        ring: The paths of the actors in the ring, the asker first.
    """

    code = "DEADLOCK_DETECTED"
    hint = "let one of them tell instead of ask, or answer later"

    def __init__(self, ring: list[str]) -> None:
        super().__init__(f"waiting would close a ring: {' -> '.join([*ring, ring[0]])}")
        self.ring = ring


class MailboxFull(ActorError):
    """The mailbox is at its limit; slow down, raise `mailbox_limit`, or choose another `overflow` policy."""

    code = "MAILBOX_FULL"
    hint = "send slower, or change `mailbox_limit` or `overflow` of the actor class"

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class StartFailed(ActorError):
    """The actor did not start; its name is free again. The exception that stopped it, if any, is the cause."""

    code = "START_FAILED"
    reason: Reason


class StartTimeout(StartFailed, TimeoutError):
    """`on_start` did not return in time; the incarnation was killed."""

    code = "START_TIMEOUT"


@dataclass(eq=False, repr=False)
class AlreadyStarted(StartFailed):
    """The name is taken by a live actor.

    Attributes:
        name: The name.
        holder: The reference of the actor that has it.
    """

    code = "ALREADY_STARTED"
    message = "the name {name!r} is taken by {holder.path}"
    hint = "use the running one, or another name"
    reason = Other("already started")
    name: str
    holder: Any


class StartIgnored(ActorError):
    """The actor's `on_start` answered `IGNORE`: it has nothing to do and ended normally. Not a failure."""

    code = "START_IGNORED"


class SystemStopped(ActorError):
    """The actor system is not running: not started, already stopped, or this is a forked copy of the process."""

    code = "SYSTEM_STOPPED"


@dataclass(eq=False, repr=False)
class NotAnActor(ActorError):
    """This is done for an actor, and no actor is running on this thread."""

    code = "NOT_AN_ACTOR"
    message = "{what} is for an actor"
    hint = "call it inside one, or say which with ref="
    what: str


class NotOwner(ActorError):
    """Only the owner of the table, the task or the entry may do this."""

    code = "NOT_OWNER"


class UnknownName(ActorError):
    """Nothing of that name and kind was made in this system."""

    code = "UNKNOWN_NAME"


class ActorKilled(BaseException):
    """Raised in a killed actor's thread at its next use of the library, so that what still runs of it unwinds.

    It is not an `Exception`, so that ordinary handlers let it pass. Only the runtime should catch it.
    """
