"""Task streams: a function applied to many items by a bounded number of tasks, lazily.

A `TaskStream` does nothing until it is iterated, with `for` or `async for`; then it belongs to whoever iterates.
Leaving the loop, by whatever way, kills the tasks that still run. No more than `max_concurrency` run at once, and an
item is taken from the input only when one may start.
"""

import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from mlld_sdk.actors.actor import current_actor
from mlld_sdk.actors.future import Future
from mlld_sdk.actors.library_errors import TaskTimeout
from mlld_sdk.actors.links import Down
from mlld_sdk.actors.ref import ActorRef
from mlld_sdk.actors.stream_slots import Slots
from mlld_sdk.actors.system import ActorSystem
from mlld_sdk.actors.tasks import TOO_SLOW, Exited, Ok, Task
from mlld_sdk.actors.timers import Timer
from mlld_sdk.errors import ConfigurationError

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - the input
Ref = ActorRef[Any]
OnSlow = Literal["exit", "kill_task"]
Outcome: TypeAlias = Ok[T] | Exited


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a stream runs; checked when it is built.

    Attributes:
        max_concurrency: Tasks that may run at once; the number of processors when left out.
        ordered: Give results in the order of the input, not as they come.
        timeout: Seconds for each task, from its start; `None` for no limit.
        on_timeout: What a slow task does: end the iteration (`exit`), or only itself (`kill_task`).
        zip_input_on_exit: Say in `Exited.input` what a failed task was working on.
        linked: A task that fails ends the iteration too, unless the iterating actor traps exits.
        max_waiting: Finished results kept at most behind a slow one; then nothing more is started.
    """

    max_concurrency: int = os.cpu_count() or 1
    ordered: bool = True
    timeout: float | None = 5.0
    on_timeout: OnSlow = "exit"
    zip_input_on_exit: bool = False
    linked: bool = True
    max_waiting: int = 1_000

    def __post_init__(self) -> None:
        for name in ("max_concurrency", "max_waiting"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r}", hint="it is a whole number from 1")
        if self.timeout is not None and not self.timeout >= 0:
            raise ConfigurationError(f"timeout={self.timeout!r}", hint="it is seconds from 0, or None for no limit")
        if self.on_timeout not in {"exit", "kill_task"}:
            raise ConfigurationError(f"on_timeout={self.on_timeout!r}", hint='it is "exit" or "kill_task"')


class TaskStream(Generic[I, T]):
    """Results of tasks, as they are asked for: `Ok(value)` or `Exited(reason)` for each item.

    Every iteration runs the tasks anew; the input decides whether it can be iterated twice.
    """

    def __init__(
        self, system: ActorSystem, source: Iterable[I], spawn: Callable[[I], Task[T]], options: StreamOptions
    ) -> None:
        self._system = system
        self._source = source
        self._spawn = spawn
        self._options = options

    def __iter__(self) -> "_Run[I, T]":
        return _Run(self._system, iter(self._source), self._spawn, self._options)

    def __aiter__(self) -> "_Run[I, T]":
        return iter(self)


class _Run(Iterator[Outcome[T]], AsyncIterator[Outcome[T]], Generic[I, T]):
    """One iteration of a stream."""

    def __init__(
        self, system: ActorSystem, source: Iterator[I], spawn: Callable[[I], Task[T]], options: StreamOptions
    ) -> None:
        self._running: dict[int, tuple[Task[T], I, Timer | None]] = {}
        self._closed = False
        self._timers = system.timers
        self._source = source
        self._spawn = spawn
        self._options = options
        self._slots: Slots[Outcome[T]] = Slots(
            options.max_concurrency, ordered=options.ordered, waiting=options.max_waiting
        )
        self._exhausted = False
        self._lock = threading.Lock()
        self._news: deque[tuple[int, Outcome[T] | None]] = deque()
        self._arrival: Future[None] = Future()
        self._owner = current_actor()
        self._watch = self._owner.monitor(self._owner_died) if self._owner is not None else None

    def __iter__(self) -> "_Run[I, T]":
        return self

    def __aiter__(self) -> "_Run[I, T]":
        return self

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
        self._kill_all()
        finish = getattr(self._source, "close", None)
        if finish is not None:
            finish()

    def __del__(self) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------------------

    def _advance(self) -> Future[None] | None:
        """Take in news and start what may start; say what to wait for, or `None` when a result may leave.

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
        with self._lock:
            if self._arrival.done:
                self._arrival = Future()
            if self._news:
                self._arrival.try_set()
            return self._arrival

    def _start(self, item: I) -> None:
        task = self._spawn(item)
        number = self._slots.enter()
        limit = self._options.timeout
        timer = None if limit is None else self._timers.after(limit, lambda: self._note(number, None))
        self._running[number] = (task, item, timer)
        task.watch(lambda done: self._note(number, done.outcome))

    def _note(self, number: int, outcome: Outcome[T] | None) -> None:
        """Take in, on any thread, how a task ended, or that its time is over."""
        with self._lock:
            self._news.append((number, outcome))
            self._arrival.try_set()

    def _absorb(self) -> None:
        while self._news:
            number, outcome = self._news.popleft()
            if number not in self._running:
                continue
            task, item, timer = self._running.pop(number)
            if timer is not None:
                timer.cancel()
            if outcome is None:
                _kill(task)
                if self._options.on_timeout == "exit":
                    raise TaskTimeout(
                        f"an item took longer than {self._options.timeout} s",
                        hint='give it more time, or go on without it: on_timeout="kill_task"',
                    )
                outcome = Exited(TOO_SLOW)
            elif isinstance(outcome, Exited) and self._options.linked and not self._traps_exits():
                task.result(timeout=0)
            if isinstance(outcome, Exited) and self._options.zip_input_on_exit:
                outcome = replace(outcome, input=item)
            self._slots.finish(number, outcome)

    def _traps_exits(self) -> bool:
        return self._owner is not None and self._owner.info().traps_exits

    def _owner_died(self, _: Down) -> None:
        self._kill_all()

    def _kill_all(self) -> None:
        for task, _, timer in list(self._running.values()):
            if timer is not None:
                timer.cancel()
            _kill(task)


def _kill(task: Task[Any]) -> None:
    if task.ref is not None and not task.done:
        task.ref.kill("its stream does not need it any more")
