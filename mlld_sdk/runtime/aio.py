"""The runtime for asyncio: starting, stopping and waiting for its end as coroutines that never block the loop."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from typing import Protocol, TypeVar

from mlld_sdk.base.durations import LONGEST_WAIT, Duration, seconds
from mlld_sdk.base.loops import from_any_thread, settle
from mlld_sdk.runtime.end import EndNotice, RuntimeEnd, RuntimeNotRunning
from mlld_sdk.supervision.tree import ShutdownReport

T = TypeVar("T")


class Startable(Protocol):
    """A runtime, as far as it is started, stopped and waited for."""

    name: str

    def start(self) -> object:
        """Start the tree."""

    def stop(self, timeout: float | timedelta | None = None, *, drain: bool = True) -> ShutdownReport:
        """Stop it."""

    def wait(self, timeout: Duration | None) -> RuntimeEnd | None:
        """Wait for its end."""


class AsyncRuntime:
    """A runtime for coroutines: `runtime.aio`. `async with runtime:` does the first two of these.

    Attributes:
        sync: The same for threads.
    """

    def __init__(self, runtime: Startable, notice: EndNotice) -> None:
        self.sync = runtime
        self._notice = notice

    async def start(self) -> None:
        """Start the tree, as `Runtime.start` does, in a thread of its own.

        A task that is cancelled meanwhile leaves nothing running: what had begun is stopped as soon as it has started.
        """
        first = threading.Lock()  # whoever takes it, start or cancellation, was there first

        def start() -> None:
            self.sync.start()
            if not first.acquire(blocking=False):
                self.sync.stop(drain=False)

        try:
            await self._apart(start, "start")
        except asyncio.CancelledError:
            if not first.acquire(blocking=False):
                with contextlib.suppress(RuntimeNotRunning):
                    await self.stop(drain=False)
            raise

    async def stop(self, timeout: float | timedelta | None = None, *, drain: bool = True) -> ShutdownReport:
        """Stop, as `Runtime.stop` does, in a thread of its own; a task that is cancelled does not call the stop off."""
        return await self._apart(lambda: self.sync.stop(timeout, drain=drain), "stop")

    async def wait(self, timeout: Duration | None) -> RuntimeEnd | None:
        """Wait for the end, as `Runtime.wait` does, without a thread."""
        end = self.sync.wait(0)
        if end is not None:
            return end
        over: asyncio.Future[RuntimeEnd] = asyncio.get_running_loop().create_future()
        withdraw = self._notice.listen(from_any_thread(partial(settle, over)))
        try:
            limit = seconds(timeout)
            await asyncio.wait([over], timeout=None if limit is None else min(limit, LONGEST_WAIT))
            return over.result() if over.done() else None
        finally:
            withdraw()
            over.cancel()

    async def _apart(self, work: Callable[[], T], what: str) -> T:
        """Do something in a thread of its own: those of the loop may all be taken by waits that only this ends."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # whoever awaits it may go, but cannot call it off

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where this is awaited
                done.set_exception(error)

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), name=f"{self.sync.name}-{what}").start()
        return await asyncio.wrap_future(done)
