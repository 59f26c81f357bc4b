"""Tasks: one function run as an actor of its own, and a handle on its result.

Started through `Tasks` (see `task_supervisor`). The handle belongs to the actor that started the task; a task started
by code outside actors belongs to the code outside actors. Waiting from a coroutine never blocks its loop, and
cancelling the wait ends the task.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.errors import AskTimeout, NotOwner
from mlld_sdk.actors.core.exits import KILLED, NOPROC, Killed, Other, Reason, Shutdown
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.services import Ref, kill
from mlld_sdk.actors.tasks.errors import TaskExited, TaskTimeout
from mlld_sdk.base.durations import seconds
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.options import one_of, whole

T = TypeVar("T")
OnTimeout = Literal["nothing", "ignore", "kill_task"]

BRUTAL_KILL: Final = "brutal_kill"
"""Given for a shutdown time: do not ask, kill."""

ShutdownTime: TypeAlias = float | Literal["brutal_kill"]

KILL_TIME: Final = 5.0
"""Seconds after which a kill is taken to have failed. It never should: killing does not wait."""

TOO_SLOW: Final = Other("timeout")
"""Why a task was killed that took too long."""


@dataclass(frozen=True, slots=True)
class Ok(Generic[T]):
    """The task gave this value."""

    value: T


@dataclass(frozen=True, slots=True)
class Exited:
    """The task ended without a value.

    Attributes:
        reason: Why.
        input: What it was working on; only in streams that were asked to say so.
    """

    reason: Reason
    input: Any = None


class Task(Generic[T]):
    """The handle on one running function.

    Attributes:
        ref: The task's actor; `None` for one that was made finished.
        owner: Who may wait for it: the actor that started it, or `None` for code outside actors.
    """

    def __init__(self, ref: Ref | None, owner: Ref | None, answer: Future[T]) -> None:
        self.ref = ref
        self.owner = owner
        self._answer = answer
        self._shut_down = False
        self._ignored = False
        self._lock = threading.Lock()
        self._watchers: dict[Callable[[Task[T]], object], None] = {}
        answer.on_done(self._answered)

    def __repr__(self) -> str:
        return f"<task {self.ref.path}>" if self.ref is not None else "<finished task>"

    @property
    def done(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self._answer.done

    @property
    def outcome(self) -> Ok[T] | Exited | None:
        """How it ended, or `None` while it runs."""
        if not self._answer.done:
            return None
        error = self._answer.exception()
        if error is None:
            return Ok(self._answer.get(timeout=0))
        return Exited(error.reason if isinstance(error, TaskExited) else KILLED)

    def result(self, *, timeout: float | None = 5.0) -> T:
        """Wait for the value.

        Raises:
            TaskExited: It ended without one; `reason` says why, and what it raised is the cause.
            TaskTimeout: Not in time. The task goes on, and may be waited for again.
            NotOwner: The task belongs to another actor, or to code outside actors.
        """
        self.require_owner()
        self._wait(seconds(timeout))
        if not self._answer.done:
            raise TaskTimeout(f"{self} has not finished within {timeout} s", hint="wait again, or shut it down")
        return self._answer.get(timeout=0)  # type: ignore[no-any-return]  # the answer is a T

    def poll(self, *, timeout: float | None = 5.0) -> Ok[T] | Exited | None:
        """Wait, without raising: how it ended, or `None` when it has not within `timeout`. May be repeated."""
        self.require_owner()
        self._wait(seconds(timeout))
        return self.outcome

    def shutdown(self, timeout: ShutdownTime = 5.0) -> Ok[T] | Exited | None:
        """End the task: ask it to, wait up to `timeout` seconds, kill it then (at once with `BRUTAL_KILL`).

        Returns:
            Its value, if that was there first; how it ended, if not because of this; otherwise `None`. Once more:
            `Exited(NOPROC)`.
        """
        self.require_owner()
        check_shutdown(timeout)
        if self._shut_down:
            return Exited(NOPROC)
        self._shut_down = True
        if not self._answer.done and self.ref is not None:
            if timeout == BRUTAL_KILL:
                self.ref.kill("shut down")
            else:
                self.ref.shutdown(float(timeout))
            self._wait(longest(timeout))
        found = self.outcome
        return None if isinstance(found, Exited) and isinstance(found.reason, Shutdown | Killed) else found

    def ignore(self) -> Ok[T] | Exited | None:
        """Stop waiting for good: return how it ended, if it has; otherwise it goes on unwatched."""
        self.require_owner()
        self._ignored = not self._answer.done
        return self.outcome

    def __await__(self) -> Generator[Any, None, T]:
        """Await the value, as `result` without a time limit; cancelling the await kills the task."""
        self.require_owner()
        return self._answer.__await__()

    def require_owner(self) -> None:
        """Refuse all but the owner, and the owner too once it has ignored the task, with `NotOwner`."""
        if self._ignored:
            raise NotOwner(f"{self} was ignored", hint="an ignored task cannot be waited for")
        me = current_actor()
        if me is not self.owner:
            raise NotOwner(
                f"{self} cannot be waited for by {me or 'code outside actors'}",
                hint=f"it belongs to {self.owner or 'code outside actors'}, who started it",
            )

    def watch(self, callback: "Callable[[Task[T]], object]") -> None:
        """Call back once it has ended, in the thread that noticed; at once when it has. Must not block."""
        with self._lock:
            self._watchers[callback] = None
        if self._answer.done:
            self._answered(self._answer)

    def unwatch(self, callback: "Callable[[Task[T]], object]") -> None:
        """Take a callback back."""
        with self._lock:
            self._watchers.pop(callback, None)

    def _answered(self, answer: Future[T]) -> None:
        with self._lock:
            watchers, self._watchers = self._watchers, {}
        for callback in watchers:
            callback(self)
        if answer.cancelled and self.ref is not None:
            kill(self.ref, "it is not waited for any more")

    def _wait(self, timeout: float | None) -> None:
        try:
            self._answer.get(timeout=timeout)
        except Exception as error:
            if not self._answer.done and not isinstance(error, AskTimeout):
                raise


def completed(value: T) -> Task[T]:
    """Make a task of the caller's that has finished with `value`."""
    answer: Future[T] = Future()
    answer.set(value)
    return Task(None, current_actor(), answer)


def await_many(tasks: Iterable[Task[Any]], *, timeout: float | None = 5.0) -> list[Any]:
    """Wait for all values and list them in the order given; the first failure is raised at once.

    Raises:
        TaskExited: One of them ended without a value.
        TaskTimeout: Not all in time. They all go on.
    """
    listed = list(tasks)
    failed = _wait_for_many(listed, len(listed), timeout, until_failure=True)
    return [task.result(timeout=0) for task in (listed if failed is None else [failed])]


def yield_many(
    tasks: Iterable[Task[Any]],
    *,
    timeout: float | None = 5.0,
    limit: int | None = None,
    on_timeout: OnTimeout = "nothing",
) -> list[tuple[Task[Any], Ok[Any] | Exited | None]]:
    """Wait for several tasks without raising; list each with how it ended, in the order given.

    Args:
        tasks: The tasks.
        timeout: Seconds to wait at most.
        limit: Stop waiting as soon as so many have ended.
        on_timeout: What becomes of those that have not: `nothing`, `ignore` (lose interest) or `kill_task`.
    """
    one_of("on_timeout", on_timeout, *get_args(OnTimeout))
    listed = list(tasks)
    enough = len(listed) if limit is None else min(whole("limit", limit, least=1), len(listed))
    _wait_for_many(listed, enough, timeout)
    late: Callable[[Task[Any]], Ok[Any] | Exited | None] = {
        "nothing": lambda task: task.outcome,
        "ignore": Task.ignore,
        "kill_task": lambda task: task.outcome or task.shutdown(BRUTAL_KILL),
    }[on_timeout]
    return [(task, late(task)) for task in listed]


def _wait_for_many(
    tasks: Sequence[Task[Any]], count: int, timeout: float | None, *, until_failure: bool = False
) -> Task[Any] | None:
    """Wait until `count` have ended, or one has failed if that is enough; return which failed."""
    for task in tasks:
        task.require_owner()
    if count == 0:
        return None
    enough: Future[Task[Any] | None] = Future()
    ended: list[Task[Any]] = []

    def note(task: Task[Any]) -> None:
        ended.append(task)
        if until_failure and isinstance(task.outcome, Exited):
            enough.try_set(task)
        elif len(ended) >= count:
            enough.try_set()

    for task in tasks:
        task.watch(note)
    try:
        return enough.get(timeout=seconds(timeout))  # type: ignore[no-any-return]  # a task or None
    except AskTimeout:
        return None
    finally:
        for task in tasks:
            task.unwatch(note)


def longest(timeout: ShutdownTime) -> float:
    """Return for how long to wait for a task that is being shut down: a kill needs an instant, and no more."""
    return KILL_TIME if timeout == BRUTAL_KILL else float(timeout) + KILL_TIME


def check_shutdown(timeout: object) -> None:
    """Refuse a shutdown time that is neither a number of seconds from 0 nor `BRUTAL_KILL`."""
    if timeout != BRUTAL_KILL and not (isinstance(timeout, int | float) and 0 <= timeout < float("inf")):
        raise InvalidOption("shutdown", timeout, f"seconds from 0, or {BRUTAL_KILL!r}")
