"""The event loop on which `async def` hooks run: one thread for a whole system, started when first needed."""

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mlld_sdk.actors.core.context import async_cell, context
from mlld_sdk.actors.core.hook_runner import HookRunner, leave_copy

if TYPE_CHECKING:
    import asyncio

HEEDS_WITHIN: Final = 0.1
"""Seconds a coroutine of a killed actor gets to end before it is listed as a zombie."""


class LoopThread:
    """Runs coroutines of actors; each actor has at most one at a time."""

    def __init__(self, thread_name: str) -> None:
        self._name = thread_name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, runner: HookRunner) -> None:
        """Run the coroutine an actor is parked on; its outcome brings the actor back to the run queue."""
        try:
            loop = self._started()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            assert runner.parked is not None
            (coroutine, then), runner.parked = runner.parked, None
            coroutine.close()
            runner.resumed = (then, None, error)
            runner.cell.mailbox.schedule(runner)
        else:
            loop.call_soon_threadsafe(self._begin, runner)

    def cancel(self, runner: HookRunner) -> None:
        """Cancel what an actor is parked on."""
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._cancel, runner)

    def close(self, timeout: float) -> bool:
        """Cancel everything and end the thread; return whether it ended."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return True
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout)
        return not thread.is_alive()

    def _started(self) -> "asyncio.AbstractEventLoop":
        import asyncio

        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._work, args=(loop,), name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
            return self._loop

    def _work(self, loop: "asyncio.AbstractEventLoop") -> None:
        import asyncio

        context.on_loop = context.own_only = True
        asyncio.set_event_loop(loop)
        try:
            self._outlive_exits(loop, loop.run_forever)
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            for ending in (asyncio.gather(*left, return_exceptions=True), loop.shutdown_asyncgens()):
                self._outlive_exits(loop, partial(loop.run_until_complete, asyncio.ensure_future(ending, loop=loop)))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _outlive_exits(self, loop: "asyncio.AbstractEventLoop", run: Callable[[], object]) -> None:
        """Run the loop on when a hook raises `SystemExit` or `KeyboardInterrupt`: asyncio lets these two end a loop.

        The task has its exception by then, so its actor crashes of it like of any other.
        """
        while True:
            try:
                run()
            except (SystemExit, KeyboardInterrupt):
                if self._loop is loop or run != loop.run_forever:  # else it was told to stop in the same instant
                    continue
            return

    def _begin(self, runner: HookRunner) -> None:
        parked, runner.parked = runner.parked, None
        assert parked is not None
        assert self._loop is not None
        coroutine, then = parked
        variables = runner.context
        assert variables is not None
        variables.run(async_cell.set, runner.cell)
        runner.task = task = self._loop.create_task(coroutine, context=variables)
        if runner.cell.reason is not None:
            task.cancel()

        def done(finished: "asyncio.Task[Any]") -> None:
            import asyncio

            try:
                error = finished.exception()
            except asyncio.CancelledError as cancelled:
                error = cancelled
            leave_copy(runner.cell.reason)
            runner.resumed = (then, finished.result() if error is None else None, error)
            if runner.cell.condemned:
                runner.cell.system.zombies.ended(runner.cell)
            runner.cell.mailbox.schedule(runner)

        task.add_done_callback(done)

    def _cancel(self, runner: HookRunner) -> None:
        task, loop = runner.task, self._loop
        if task is None or loop is None:
            return
        task.cancel()
        if runner.cell.condemned:
            loop.call_later(HEEDS_WITHIN, self._list_if_running, runner, task)

    @staticmethod
    def _list_if_running(runner: HookRunner, task: "asyncio.Task[Any]") -> None:
        if not task.done():
            runner.cell.system.zombies.add_coroutine(runner.cell)
