"""The actor of one task: the call, the context it runs in, and where its value goes."""

import contextvars
from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any

from mlld_sdk.actors.core.actor import Actor, current_actor
from mlld_sdk.actors.core.context import async_cell
from mlld_sdk.actors.core.directives import Continue, Stop
from mlld_sdk.actors.core.exits import NORMAL, Reason
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.ref import ActorRef, Down
from mlld_sdk.actors.tasks.errors import TaskExited
from mlld_sdk.actors.tasks.tasks import Ok

Ref = ActorRef[Any]

_callers: contextvars.ContextVar[tuple[Ref, ...]] = contextvars.ContextVar("callers", default=())


def callers() -> tuple[Ref, ...]:
    """Return on whose behalf this task runs: who started it, who started that one, and so on, nearest first."""
    return _callers.get()


def ancestors() -> tuple[Ref, ...]:
    """Return who is responsible for the running actor: its parent, the parent of that, and so on, nearest first."""
    found, here = [], current_actor()
    while here is not None and (here := here.parent) is not None:
        found.append(here)
    return tuple(found)


class TaskCall:
    """What a task does: the call, in the context of its caller, and where the value goes."""

    def __init__(self, what: str, function: Callable[[], Any], link: Ref | None) -> None:
        self.what = what
        self.function = function
        self.link = link
        self.answer: Future[Any] = Future()
        self.value: Ok[Any] | None = None
        self.error: BaseException | None = None
        self.caller = caller = current_actor()
        self.context = contextvars.copy_context()
        if caller is not None:
            self.context.run(_callers.set, (caller, *callers()))

    def run(self) -> Any:
        """Call the function; hand back what has to be awaited, if it was a coroutine function."""
        try:
            value = self.context.run(self.function)
        except BaseException as error:
            self.error = error
            raise
        if iscoroutine(value):
            return self._await(value)
        self.value = Ok(value)
        return Stop(NORMAL)

    async def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Stop:
        for variable, value in self.context.items():
            if variable is not async_cell:
                variable.set(value)
        try:
            self.value = Ok(await coroutine)
        except BaseException as error:
            self.error = error
            raise
        return Stop(NORMAL)

    def ended(self, down: Down) -> None:
        """Answer, now that the task is over: with its value, or with why there is none."""
        if self.value is not None:
            self.answer.try_set(self.value.value)
            return
        reason = reason_of(down)
        error = TaskExited(f"task {down.ref.path} ended: {reason}", reason=reason)
        error.__cause__ = self.error
        self.answer.try_set_exception(error)


class TaskActor(Actor):
    """The actor whose whole life is one function."""

    def __init__(self, call: TaskCall) -> None:
        super().__init__()
        self._call = call

    def on_start(self) -> Any:
        """Link to the caller, if so wanted; then run."""
        if self._call.link is not None:
            self.link(self._call.link)
        return Continue()

    def on_continue(self, _: Any) -> Any:
        """Run the function and end."""
        return self._call.run()

    def format_state(self) -> str:
        """Return what it ran and for whom."""
        return f"function: {self._call.what}, started by: {self._call.caller or 'code outside actors'}"


def name_of(function: Callable[..., object]) -> str:
    """Name a function, for paths and reports."""
    return getattr(function, "__name__", type(function).__name__).strip("<>")


def reason_of(down: Down) -> Reason:
    """Return why it ended, also when it had ended before it was watched."""
    return down.ref.reason or down.reason
