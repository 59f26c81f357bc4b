"""Task streams: a function applied to many items by a bounded number of tasks, lazily.

A `TaskStream` does nothing until it is iterated, with `for` or `async for`; then it belongs to the code that iterates.
Leaving the loop, by whatever way, kills the tasks that still run. No more than `max_concurrency` run at once, and an
item is taken from the input only when one may start.
"""

import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, get_args

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.ref import Monitor
from mlld_sdk.actors.core.services import kill
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.actors.tasks.errors import TaskTimeout
from mlld_sdk.actors.tasks.stream_slots import Slots
from mlld_sdk.actors.tasks.tasks import TOO_SLOW, Exited, Ok, ShutdownTime, Task, check_shutdown
from mlld_sdk.base.durations import FOREVER
from mlld_sdk.base.options import number, one_of, whole

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - the input
OnSlow = Literal["exit", "kill_task"]
Outcome: TypeAlias = Ok[T] | Exited
_Entry: TypeAlias = tuple[Task[T], I, Timer | None]


class StreamOptions(TypedDict, total=False):
    """How a stream runs.

    Attributes:
        max_concurrency: Tasks that may run at once; the number of processors when left out.
        ordered: Give results in the order of the input, which is the default, or as they come.
        timeout: Seconds for each task, from its start, 5 when left out; `None` for no limit.
        on_timeout: What a slow task does: end the iteration (`exit`, the default), or only itself (`kill_task`).
        zip_input_on_exit: Say in `Exited.input` what a failed task was working on.
        max_waiting: Finished results kept at most behind a slow one, then nothing more is started; 1,000 when left out.
        shutdown: Seconds a task gets to end when its supervisor ends, 5 when left out, or `BRUTAL_KILL`.
    """

    max_concurrency: int
    ordered: bool
    timeout: float | None
    on_timeout: OnSlow
    zip_input_on_exit: bool
    max_waiting: int
    shutdown: ShutdownTime


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """The options of a stream, complete and checked; when it is `linked`, a task that fails ends the iteration too."""

    linked: bool
    max_concurrency: int = os.cpu_count() or 1
    ordered: bool = True
    timeout: float | None = 5.0
    on_timeout: OnSlow = "exit"
    zip_input_on_exit: bool = False
    max_waiting: int = 1_000
    shutdown: ShutdownTime = 5.0

    def __post_init__(self) -> None:
        for name in ("max_concurrency", "max_waiting"):
            whole(name, getattr(self, name), least=1)
        if self.timeout is not None:
            number("timeout", self.timeout, 0, FOREVER)
        one_of("on_timeout", self.on_timeout, *get_args(OnSlow))
        check_shutdown(self.shutdown)


@dataclass(frozen=True, eq=False, repr=False)
class TaskStream(Generic[I, T]):
    """Results of tasks, as they are asked for: `Ok(value)` or `Exited(reason)` for each item.

    Every iteration runs the tasks anew; the input decides whether it can be iterated twice.
    """

    system: ActorSystem
    source: Iterable[I]
    spawn: Callable[[I], Task[T]]
    plan: StreamPlan

    def __iter__(self) -> "_Run[I, T]":
        return _Run(self, iter(self.source))

    def __aiter__(self) -> "_Run[I, T]":
        return iter(self)


class _Run(Iterator[Outcome[T]], AsyncIterator[Outcome[T]], Generic[I, T]):
    """One iteration of a stream."""

    def __init__(self, stream: TaskStream[I, T], source: Iterator[I]) -> None:
        # Tasks and timers know `_news` and `_running` only, never the run itself: so a loop that is left drops the
        # last reference to the run, and that is what ends it.
        self._running: dict[int, _Entry[T, I]] = {}
        self._closed = False
        self._watch: Monitor | None = None
        self._stream = stream
        self._plan = plan = stream.plan
        self._source = source
        self._slots: Slots[Outcome[T]] = Slots(plan.max_concurrency, ordered=plan.ordered, waiting=plan.max_waiting)
        self._exhausted = False
        self._news: _News[T] = _News()
        self._owner = current_actor()
        running = self._running
        if self._owner is not None:  # which may have been killed: this raises then, and `close` is called all the same
            self._watch = self._owner.monitor(lambda _: _kill_all(running))

    def __next__(self) -> Outcome[T]:
        try:
            while (waiting := self._advance()) is not None:
                waiting.get(timeout=None)
            return self._slots.leave()
        except BaseException:
            self.close()
            raise

    async def __anext__(self) -> Outcome[T]:
        try:
            while (waiting := self._advance()) is not None:
                await waiting
            return self._slots.leave()
        except StopIteration:
            self.close()
            raise StopAsyncIteration from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kill what runs. Done by itself when the loop is left."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        _kill_all(self._running)
        finish = getattr(self._source, "close", None)
        if finish is not None:
            finish()

    def __del__(self) -> None:
        self.close()

    def _advance(self) -> Future[None] | None:
        """Take in news and start what may start; return what to wait for, or `None` when a result may leave.

        Raises:
            StopIteration: Everything has left.
        """
        self._absorb()
        if self._slots.ready:
            return None
        while not self._exhausted and self._slots.free:
            try:
                item = next(self._source)
            except StopIteration:
                self._exhausted = True
            else:
                self._start(item)
        if self._slots.empty:
            raise StopIteration
        return self._news.next_arrival()

    def _start(self, item: I) -> None:
        task, number, news = self._stream.spawn(item), self._slots.enter(), self._news
        limit, timers = self._plan.timeout, self._stream.system.timers
        timer = None if limit is None else timers.after(limit, lambda: news.note(number, None))
        self._running[number] = (task, item, timer)
        task.watch(lambda done: news.note(number, done.outcome))

    def _absorb(self) -> None:
        while self._news.reports:
            number, outcome = self._news.reports.popleft()
            entry = self._running.pop(number, None)
            if entry is not None:
                self._slots.finish(number, self._result_of(entry, outcome))

    def _result_of(self, entry: "_Entry[T, I]", outcome: Outcome[T] | None) -> Outcome[T]:
        """Return what a task that is over contributes to the stream, or raise what ends the iteration."""
        task, item, timer = entry
        if timer is not None:
            timer.cancel()
        if outcome is None:
            _kill(task)
            if self._plan.on_timeout == "exit":
                raise TaskTimeout(
                    f"an item took longer than {self._plan.timeout} s",
                    hint='give it more time, or go on without it: on_timeout="kill_task"',
                )
            failed: Exited = Exited(TOO_SLOW)
        elif isinstance(outcome, Ok):
            return outcome
        else:
            failed = outcome
            if self._plan.linked and not self._traps_exits():
                task.result(timeout=0)
        return replace(failed, input=item) if self._plan.zip_input_on_exit else failed

    def _traps_exits(self) -> bool:
        return self._owner is not None and self._owner.info().traps_exits


class _News(Generic[T]):
    """What tasks and timers report, on their threads, until the run looks."""

    def __init__(self) -> None:
        self.reports: deque[tuple[int, Outcome[T] | None]] = deque()
        self._arrival: Future[None] = Future()

    def note(self, number: int, outcome: Outcome[T] | None) -> None:
        """Report how a task ended, or, with `None`, that its time is over."""
        self.reports.append((number, outcome))
        self._arrival.try_set()

    def next_arrival(self) -> Future[None]:
        """Return a future that is answered when there are reports. Only the run asks."""
        if self._arrival.done:
            self._arrival = Future()
        if self.reports:  # perhaps noted with the future before
            self._arrival.try_set()
        return self._arrival


def _kill_all(running: "dict[int, _Entry[Any, Any]]") -> None:
    for task, _, timer in list(running.values()):
        if timer is not None:
            timer.cancel()
        _kill(task)


def _kill(task: Task[Any]) -> None:
    if task.ref is not None and not task.done:
        kill(task.ref, "its stream does not need it any more")
