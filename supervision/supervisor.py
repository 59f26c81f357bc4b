"""The supervisor actor.

Most trees are data and never name this class. Write a subclass when the children depend on arguments, or to give a
supervisor a name of its own:

```python
class Shard(Supervisor):
    def init(self, number):
        return rest_for_one(child(Reader, number), child(Writer, number), max_restarts=5, within=30)

tree = one_for_one(child(Shard, 0, name="shard_0"), child(Shard, 1, name="shard_1"))
```
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import msgspec

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import IGNORE, NO_REPLY, Ignore
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.ref import ActorRef, Exit
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.decisions.inputs import Begin, Due
from mlld_sdk.supervision.decisions.requests import ManagementRequest
from mlld_sdk.supervision.execution.executor import Executor
from mlld_sdk.supervision.execution.messages import Boot, OptionsGiven, booting
from mlld_sdk.supervision.execution.tree_context import TreeContext
from mlld_sdk.supervision.spec import DynamicSpec, SupervisorSpec


class ManagementCall(msgspec.Struct, frozen=True):
    """A management call on its way, with the actors on whose behalf it is made, nearest first."""

    request: ManagementRequest
    callers: tuple[ActorRef[Any], ...] = ()


class ManagementBatch(msgspec.Struct, frozen=True):
    """Several management calls in one message; answered with a list of what each was answered, errors included."""

    requests: tuple[ManagementRequest, ...]
    callers: tuple[ActorRef[Any], ...] = ()


class Supervisor(Actor):
    """Starts, watches, restarts and stops children as its spec says.

    It never blocks: not while a child starts, not while one stops, not while a restart is delayed.
    """

    child_options: ClassVar[dict[str, Any]] = {"kind": "supervisor"}

    trap_exit = True
    urgent_exits = True
    caller_runs = True

    executor: Executor

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Take what its starter passes on, so that the constructor of a subclass need not."""
        self = super().__new__(cls)
        self._boot = booting.get()
        return self

    _boot: Boot | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self._arguments = (args, kwargs)

    def init(self, *args: Any, **kwargs: Any) -> SupervisorSpec | DynamicSpec | Ignore:
        """Return what to supervise; called at every start of the supervisor, with the arguments of its child spec.

        Returns:
            A supervisor spec, or `IGNORE` when there is nothing to supervise.
        """
        if len(args) != 1 or kwargs or not isinstance(args[0], SupervisorSpec | DynamicSpec):
            raise InvalidOption("init", args, "one supervisor spec, or a subclass with an init of its own")
        return args[0]

    def on_start(self) -> Any:
        """Begin to start the children; the starter waits until that is done, but no thread does."""
        boot = self._boot
        if boot is None:
            boot = Boot(TreeContext(self.system), self._cell.label)
        args, kwargs = self._arguments
        spec = self.init(*args, **kwargs)
        if spec is IGNORE:
            return IGNORE
        if not isinstance(spec, SupervisorSpec | DynamicSpec):
            raise InvalidOption("init", spec, "a supervisor spec or IGNORE as its answer")
        self.executor = Executor(self, Supervisor, spec, boot)
        self.own(self.executor, close=self.executor.reap)
        self.executor.happened(Begin())
        return None

    def on_receive(self, message: Any) -> Any:
        """Take exit notices and management calls; anything else is reported and dropped (SUP-27)."""
        kind = message.__class__
        if kind is Exit:
            self.executor.exited(message.ref, message.reason)
            return None
        if kind is ManagementCall:
            self.executor.asked(message.request, self.reply_to(often_at_once=True), message.callers)
            return NO_REPLY
        if kind is ManagementBatch:
            self.executor.asked_many(message.requests, self.reply_to(often_at_once=True), message.callers)
            return NO_REPLY
        if kind is Due:
            self.executor.take(message)
            return None
        return super().on_receive(message)

    def on_end_request(self, reason: Reason) -> bool:
        """Stop the children first."""
        return hasattr(self, "executor") and self.executor.stop(reason)


def keep_options(child: ActorRef[Any], options: Mapping[str, Any]) -> None:
    """Have the supervisor of a child keep options for its next incarnations (SUP-76); called from the child's turn.

    What the child does next, a crash too, reaches the supervisor after this. Without a supervisor nothing happens.
    """
    executor = _executor_above(child)
    if executor is not None:
        executor.cell.post_system(OptionsGiven(child, options))


def kept_options(child: ActorRef[Any]) -> Mapping[str, Any]:
    """Return the options that the supervisor of a child keeps for it; called from the child's turn."""
    executor = _executor_above(child)
    return {} if executor is None else executor.options_of(child)


def _executor_above(child: ActorRef[Any]) -> Executor | None:
    parent = child.parent
    return None if parent is None else getattr(parent.cell.actor, "executor", None)
