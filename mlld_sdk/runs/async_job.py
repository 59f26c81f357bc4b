"""A job for `async def run`: its steps wait on threads of their own, and the loop goes on meanwhile."""

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Executor, Future
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, overload

from mlld_sdk.base.loops import from_any_thread
from mlld_sdk.base.options import check_callable
from mlld_sdk.runs.breakers import StepBreaker
from mlld_sdk.runs.functions import is_async, is_awaitable
from mlld_sdk.runs.job import Job
from mlld_sdk.runs.retry import Retry

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class LoopBridge:
    """From the loop of async code to the threads its steps wait on, and back for steps that are coroutines.

    The threads are the job's own, so the code cannot take them away with the loop's.
    """

    def __init__(self, threads: Executor, loop: asyncio.AbstractEventLoop) -> None:
        self._threads = threads
        self._loop = loop
        self._lock = threading.Lock()
        self._open = True
        self._calls: set[Future[Any]] = set()

    async def aside(self, step: Callable[[], T]) -> T:
        """Await a step on a thread."""
        return await self._loop.run_in_executor(self._threads, contextvars.copy_context().run, step)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        """Call a function on this thread of a step, and await on the loop what it returns if that is to be awaited."""
        value = function(*args)
        return self.back(lambda: value) if is_awaitable(value) else value

    def back(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call a function on the loop and await what it returns, from a thread of a step."""

        async def begun() -> T:
            return await function(*args)

        with self._lock:
            if not self._open:
                raise RuntimeError("the code of the run has ended")
            call = asyncio.run_coroutine_threadsafe(begun(), self._loop)
            self._calls.add(call)
        try:
            return call.result()
        finally:
            with self._lock:
                self._calls.discard(call)

    async def close(self) -> None:
        """End what the code has left under way, so that no thread waits for a loop that is over."""
        with self._lock:
            self._open = False
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.sleep(0)  # those just handed over must be tasks, for the loop to end them


def _awaited(step: Callable[Concatenate[Job, P], T]) -> Callable[Concatenate["AsyncJob", P], Coroutine[Any, Any, T]]:
    """Make the asynchronous twin of a step: it takes, returns and raises the same, and is awaited."""

    @functools.wraps(step)
    async def twin(self: "AsyncJob", /, *args: P.args, **options: P.kwargs) -> T:
        return await self._bridge.aside(lambda: step(self._job, *args, **options))

    return twin


class AsyncJob:
    """The same job for `async def run`: every step is awaited and none blocks the loop."""

    def __init__(self, job: Job, bridge: "LoopBridge") -> None:
        """Async jobs are made by the agent that works on a run."""
        self._job = job
        self._bridge = bridge
        self.run_id: str = job.run_id
        self.attempt: int = job.attempt

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Report how far the run is; see `Job.progress`."""
        self._job.progress(message, fraction)

    def note(self, name: str, data: object = None) -> None:
        """Write a receipt into the run's own record; see `Job.note`."""
        self._job.note(name, data)

    def check(self) -> None:
        """Raise what ended this job, if anything did."""
        self._job.check()

    @property
    def cancelled(self) -> bool:
        """Whether the run takes no more steps."""
        return self._job.cancelled

    execute = _awaited(Job.execute)
    process = _awaited(Job.process)

    @overload
    async def step(
        self,
        name: str,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        idempotent: bool = False,
        retry: Retry | None = None,
        accept: Callable[[T], object] | None = None,
        breaker: StepBreaker = None,
    ) -> T: ...

    @overload
    async def step(
        self,
        name: str,
        function: Callable[..., T],
        *args: Any,
        idempotent: bool = False,
        retry: Retry | None = None,
        accept: Callable[[T], object] | None = None,
        breaker: StepBreaker = None,
    ) -> T: ...

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        idempotent: bool = False,
        retry: Retry | None = None,
        accept: Callable[[Any], object] | None = None,
        breaker: StepBreaker = None,
    ) -> Any:
        """Take a function of any kind as a step; see `Job.step`.

        A coroutine function is called and awaited on the loop. Any other is called on a thread, never on the loop; if
        what it returns is to be awaited, that is done on the loop. `accept` is called on a thread, too.
        """
        check_callable("function", function)
        act = partial(self._bridge.back if is_async(function) else self._bridge.call, function)
        return await self._bridge.aside(
            lambda: self._job.call_step(name, act, args, idempotent, retry, accept, breaker)
        )

    async def sleep(self, seconds: float | timedelta) -> None:
        """Sleep as a step, without a thread; see `Job.sleep`."""
        await self._sleep(*await self._bridge.aside(lambda: self._job.asleep_for(seconds)))

    async def sleep_until(self, moment: float | datetime) -> None:
        """Sleep until a moment as a step, without a thread; see `Job.sleep_until`."""
        await self._sleep(*await self._bridge.aside(lambda: self._job.asleep_until(moment)))

    async def _sleep(self, until: float, most: float) -> None:
        bell = asyncio.Event()
        with contextlib.closing(self._job.shared.naps(until, most, from_any_thread(bell.set))) as naps:
            for seconds in naps:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), seconds)
                bell.clear()
        self._job.check()

    async def map(
        self, function: Callable[[S, "AsyncJob"], Awaitable[T]], items: Iterable[S], *, concurrency: int = 4
    ) -> list[T]:
        """Await `function(item, job)` for every item, some at a time, and return the results in order."""
        check_callable("function", function)
        work = list(items)
        with self._job.branches(len(work), concurrency) as jobs:
            turns = asyncio.Semaphore(concurrency)

            async def branch(item: S, job: Job) -> T:
                async with turns:
                    job.check()  # no branch begins once the job is sealed
                    return await function(item, AsyncJob(job, self._bridge))

            results = await asyncio.gather(*map(branch, work, jobs), return_exceptions=True)
        self._job.check()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return cast("list[T]", results)
