"""What reaches a supervisor beside calls and exit notices, and what it is given when it is started.

All of it travels in the system lane, before any waiting message.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

from mlld_sdk.actors.core.directives import UNSET
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.mailbox import SystemMessage
from mlld_sdk.actors.core.protocols import AnyCell
from mlld_sdk.actors.core.ref import ReplyTo
from mlld_sdk.supervision.decisions.inputs import Input
from mlld_sdk.supervision.execution.tree_context import Ref, TreeContext


class Boot:
    """What a supervisor is given when it is started.

    Attributes:
        context: What all supervisors of the tree share.
        path: Where it stands.
        ready: Answered with its reference when all its children have started.
        killed: Paths below it that had to be killed in its stop; set right before it ends.
    """

    __slots__ = ("context", "killed", "path", "ready")

    def __init__(self, context: TreeContext, path: str) -> None:
        self.context = context
        self.path = path
        self.ready: Future[Ref] = Future()
        self.killed: tuple[str, ...] = ()


booting: ContextVar[Boot | None] = ContextVar("booting", default=None)
"""Set while a supervisor's constructor runs, so that classes users write need not pass it on."""


class Happened(SystemMessage):
    """Something happened that a supervisor decides about."""

    __slots__ = ("what",)

    def __init__(self, what: Input) -> None:
        self.what = what

    def handle(self, cell: AnyCell) -> None:
        """Hand it to the executor."""
        cell.actor.executor.take(self.what)


class OptionsGiven(SystemMessage):
    """A child was given other options while it runs."""

    __slots__ = ("_child", "_options")

    def __init__(self, child: Ref, options: Mapping[str, Any]) -> None:
        self._child = child
        self._options = options

    def handle(self, cell: AnyCell) -> None:
        """Hand it to the executor."""
        cell.actor.executor.configured(self._child, self._options)


class StopLimitDue(SystemMessage):
    """The timer of a supervisor's stop limits has rung."""

    __slots__ = ()

    def handle(self, cell: AnyCell) -> None:
        """Kill the children that have had their time to stop."""
        cell.actor.executor.stop_limit_due()


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

    def handle(self, cell: AnyCell) -> None:
        """Hand it to the executor."""
        cell.actor.executor.start_ended(self._key, self._incarnation, self._ref, self._error)


class BatchAnswers:
    """The answers to one message's calls so far; used by its supervisor only."""

    __slots__ = ("call", "missing", "values")

    def __init__(self, call: ReplyTo, count: int) -> None:
        self.call = call
        self.values: list[Any] = [UNSET] * count
        self.missing = count


class BatchCall(msgspec.Struct, frozen=True):
    """One of several calls in one message: answered for itself, and the message when all of them are."""

    answers: BatchAnswers
    index: int

    def reply(self, value: Any) -> None:
        """Answer with a value, or with an error as a value; a second answer is ignored."""
        answers, index = self.answers, self.index
        if answers.values[index] is UNSET:
            answers.values[index] = value
            answers.missing -= 1
            if not answers.missing:
                answers.call.reply(answers.values)

    fail = reply


def batched(call: ReplyTo, count: int) -> list[BatchCall]:
    """Divide the call that a message is into as many as there are in it."""
    answers = BatchAnswers(call, count)
    return [BatchCall(answers, index) for index in range(count)]
