"""What reaches a supervisor beside calls and exit notices, and what it is given when it is started.

All of it travels in the system lane, before any waiting message.
"""

from contextvars import ContextVar
from typing import Any, Protocol

from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.mailbox import SystemMessage
from mlld_sdk.actors.core.protocols import AnyCell
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.supervision.decisions.inputs import Input
from mlld_sdk.supervision.execution.tree_context import TreeContext

Ref = ActorRef[Any]


class Boot:
    """What a supervisor is given when it is started.

    Attributes:
        context: What all supervisors of the tree share.
        path: Where it stands.
        ready: Answered with its reference when all its children have started.
    """

    __slots__ = ("context", "path", "ready")

    def __init__(self, context: TreeContext, path: str) -> None:
        self.context = context
        self.path = path
        self.ready: Future[Ref] = Future()


booting: ContextVar[Boot | None] = ContextVar("booting", default=None)
"""Set while a supervisor's constructor runs, so that classes users write need not pass it on."""


class Supervising(Protocol):
    """What system messages need to know of a supervisor's cell."""

    actor: Any


class Happened(SystemMessage):
    """Something happened that a supervisor decides about."""

    __slots__ = ("what",)

    def __init__(self, what: Input) -> None:
        self.what = what

    def handle(self, cell: Supervising) -> None:
        """Hand it to the executor."""
        cell.actor.executor.take(self.what)


class StopLimitDue(SystemMessage):
    """The timer of a supervisor's stop limits has rung."""

    __slots__ = ()

    def handle(self, cell: Supervising) -> None:
        """Kill the children that have had their time to stop."""
        cell.actor.executor.stop_limit_due()


class KilledBelow(SystemMessage):
    """A supervisor among the children reports, right before it ends, what below it had to be killed."""

    __slots__ = ("killed", "ref")

    def __init__(self, ref: Ref, killed: tuple[str, ...]) -> None:
        self.ref = ref
        self.killed = killed

    def handle(self, cell: Supervising) -> None:
        """Keep it until the exit notice comes."""
        cell.actor.executor.reports[self.ref] = self.killed


class StartOutcome(SystemMessage):
    """The outcome of a start that takes its time: the child fills it in, and then it goes to the supervisor.

    A supervisor among the children is up later than its own start, when its children are; `Boot.ready` reports that.
    """

    __slots__ = ("_error", "_fails_only", "_incarnation", "_key", "_ref", "_supervisor")

    def __init__(self, supervisor: AnyCell, key: int, incarnation: int, fails_only: bool) -> None:
        self._supervisor = supervisor
        self._key = key
        self._incarnation = incarnation
        self._fails_only = fails_only
        self._ref: Ref | None = None
        self._error: BaseException | None = None

    def try_set(self, ref: Ref) -> None:
        """Report that the child is up."""
        if not self._fails_only:
            self._ref = ref
            self._supervisor.post_system(self)

    def try_set_exception(self, error: BaseException) -> None:
        """Report that its start has failed."""
        self._error = error
        self._supervisor.post_system(self)

    def handle(self, cell: Supervising) -> None:
        """Hand it to the executor."""
        cell.actor.executor.start_ended(self._key, self._incarnation, self._ref, self._error)


def is_supervisor(start: Any) -> bool:
    """Return whether this is a class of supervisors."""
    return isinstance(start, type) and getattr(start, "supervises", False)
