"""What reaches a supervisor beside calls and exit notices, and what it is given when it is started.

All of it travels in the system lane, before any waiting message.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from mlld_sdk.actors.future import Future
from mlld_sdk.actors.mailbox import SystemMessage
from mlld_sdk.actors.ref import ActorRef
from mlld_sdk.supervision.steps import Input

if TYPE_CHECKING:
    from mlld_sdk.supervision.grove import Grove

Ref = ActorRef[Any]


class Boot:
    """What a supervisor is given by whoever starts it.

    Attributes:
        grove: What all supervisors of the tree share.
        path: Where it stands.
        ready: Answered with its reference when all its children have started.
    """

    __slots__ = ("grove", "path", "ready")

    def __init__(self, grove: "Grove", path: str) -> None:
        self.grove = grove
        self.path = path
        self.ready: Future[Ref] = Future()


booting: ContextVar[Boot | None] = ContextVar("booting", default=None)
"""Set while a supervisor's constructor runs, so that classes users write need not pass it on."""


class Has(Protocol):
    """What system messages need to know of a cell."""

    actor: Any


class Happened(SystemMessage):
    """Something happened that a supervisor's decisions want to know."""

    __slots__ = ("what",)

    def __init__(self, what: Input) -> None:
        self.what = what

    def handle(self, cell: Has) -> None:
        """Hand it over."""
        cell.actor.shell.happened(self.what)


class LimitDue(SystemMessage):
    """The bell of a supervisor's limits has rung."""

    __slots__ = ()

    def handle(self, cell: Has) -> None:
        """Tell it which of its children have had their time to stop."""
        shell = cell.actor.shell
        for overdue in shell.limits.take_due():
            if shell.end is None:
                shell.happened(overdue)


class Told(SystemMessage):
    """A supervisor among the children says, right before it ends, who below it had to be killed."""

    __slots__ = ("killed", "ref")

    def __init__(self, ref: Ref, killed: tuple[str, ...]) -> None:
        self.ref = ref
        self.killed = killed

    def handle(self, cell: Has) -> None:
        """Keep it until the exit notice comes."""
        cell.actor.shell.reports[self.ref] = self.killed


class Outcome(SystemMessage):
    """A start that took its time is over."""

    __slots__ = ("future", "incarnation", "key")

    def __init__(self, key: int, incarnation: int, future: Future[Any]) -> None:
        self.key = key
        self.incarnation = incarnation
        self.future = future

    def handle(self, cell: Has) -> None:
        """Hand it over."""
        shell = cell.actor.shell
        shell.happened(shell.outcome(self.key, self.incarnation, self.future))


def is_supervisor(start: Any) -> bool:
    """Say whether this class is a supervisor of ours."""
    return isinstance(start, type) and getattr(start, "supervises", False)
