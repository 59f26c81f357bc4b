"""The client for asyncio: the same calls, as coroutines that never block the event loop.

>>> import asyncio
>>> async def main():
...     async with AsyncClient(engine="embedded") as client:
...         return await client.process('show "Hello"')
>>> asyncio.run(main()).strip()
'Hello'
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

from mlld_sdk.base.durations import DEFAULT, Timeout
from mlld_sdk.client.client import Client
from mlld_sdk.client.handles import ExecuteHandle, Handle, ProcessHandle
from mlld_sdk.scripts.params import CHECKPOINT_OPTIONS, RunOptions
from mlld_sdk.scripts.stream import ScriptEvents
from mlld_sdk.scripts.types import (
    AnalyzeResult,
    ContentSignature,
    ExecuteResult,
    FilesystemStatus,
    FileVerifyResult,
    HandleEvent,
)

R = TypeVar("R")
H = TypeVar("H", bound=Handle[Any])


class AsyncHandle(Generic[R]):
    """A run in flight, for coroutines: `await handle`, `async for event in handle.events()`.

    Attributes:
        sync: The handle for threads. Reading `sync.done()` and the like never blocks.
    """

    def __init__(self, handle: Handle[R]) -> None:
        self.sync = handle

    def __repr__(self) -> str:
        return f"<Async{repr(self.sync)[1:]}"

    def __await__(self) -> Generator[Any, None, R]:
        return self.sync.__await__()

    @property
    def request_id(self) -> int | None:
        """The id of the run on the wire; `None` while it waits for an engine."""
        return self.sync.request_id

    async def result(self) -> R:
        """Wait for the run and return what it produced. Cancelling the waiting task cancels the run."""
        return await self.sync

    def events(self) -> ScriptEvents:
        """Read the run's events, in an `async for`."""
        return self.sync.events()

    async def next_event(self, timeout: Timeout = DEFAULT) -> HandleEvent | None:
        """Do what `Handle.next_event` does."""
        return await self.sync.next_event_async(timeout)

    def cancel(self) -> bool:
        """Cancel the run; false if it is over already."""
        return self.sync.cancel()

    async def update_state(
        self, path: str, value: Any, *, labels: Sequence[str] | None = None, timeout: Timeout = DEFAULT
    ) -> None:  # fmt: skip
        """Change `@state` of the running script."""
        await asyncio.to_thread(self.sync.update_state, path, value, labels=labels, timeout=timeout)


class AsyncProcessHandle(AsyncHandle[str]):
    """A run of script text."""

    sync: ProcessHandle

    async def full_result(self) -> ExecuteResult:
        """Wait for the run and return everything it produced."""
        await self.sync
        return self.sync.full_result(0)


class AsyncExecuteHandle(AsyncHandle[ExecuteResult]):
    """A run of a script file."""

    sync: ExecuteHandle

    async def write_file(self, path: str, content: str, *, timeout: Timeout = DEFAULT) -> FileVerifyResult:
        """Write a signed file as the running script."""
        return await asyncio.to_thread(self.sync.write_file, path, content, timeout=timeout)


class AsyncRequests:
    """Scripts run as coroutines. A task that is cancelled cancels its run, also while that is being begun."""

    _begins: Any
    """Who begins runs: it has `process_async` and `execute_async` for threads."""

    async def process(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: Any = None,
        **options: Unpack[RunOptions],
    ) -> str:
        """Run script text and return its output."""
        return await (await self.process_async(script, file_path=file_path, payload=payload, **options))

    async def process_async(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: Any = None,
        **options: Unpack[RunOptions],
    ) -> AsyncProcessHandle:
        """Start a run of script text and return its handle."""
        begin = partial(self._begins.process_async, script, file_path=file_path, payload=payload, **options)
        return AsyncProcessHandle(await self._begun(begin, options))

    async def execute(
        self, filepath: str | os.PathLike[str], payload: Any = None, **options: Unpack[RunOptions]
    ) -> ExecuteResult:
        """Run a script file and return everything it produced."""
        return await (await self.execute_async(filepath, payload, **options))

    async def execute_async(
        self, filepath: str | os.PathLike[str], payload: Any = None, **options: Unpack[RunOptions]
    ) -> AsyncExecuteHandle:
        """Start a run of a script file and return its handle."""
        begin = partial(self._begins.execute_async, filepath, payload, **options)
        return AsyncExecuteHandle(await self._begun(begin, options))

    def _at_once(self, options: RunOptions) -> bool:
        """Whether beginning a run with these options waits for nothing, neither a process nor a file."""
        raise NotImplementedError

    async def _begun(self, begin: Callable[[], H], options: RunOptions) -> H:
        if self._at_once(options):
            return begin()
        loop = asyncio.get_running_loop()
        beginning = loop.run_in_executor(None, partial(contextvars.copy_context().run, begin))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_cancel_begun)  # it is begun by now, or will be
            raise


def _cancel_begun(beginning: asyncio.Future[Any]) -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().cancel()


class AsyncClient(AsyncRequests):
    """A `Client` for coroutines. Takes the same options, or a client to share.

    Calls that only write to an engine that is up are made at once; whatever may start a process is left to a thread.
    A cancelled task cancels its run.

    Attributes:
        sync: The client it uses.
    """

    def __init__(self, *args: Any, client: Client | None = None, **options: Any) -> None:
        if client is not None and (args or options):
            raise TypeError("give either a client or the options for a new one")
        self.sync = self._begins = client or Client(*args, **options)

    async def process_result(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: Any = None,
        **options: Unpack[RunOptions],
    ) -> ExecuteResult:
        """Run script text and return everything it produced."""
        handle = await self.process_async(script, file_path=file_path, payload=payload, **options)
        return await handle.full_result()

    def _at_once(self, options: RunOptions) -> bool:
        """Whether submitting a run only writes to a pipe: no process is started, and no file looked at."""
        return self.sync.starts_nothing and CHECKPOINT_OPTIONS.isdisjoint(options)

    async def analyze(self, filepath: str | os.PathLike[str], **options: Any) -> AnalyzeResult:
        """Say what a module defines, without running it."""
        return await asyncio.to_thread(self.sync.analyze, filepath, **options)

    async def fs_status(self, glob: str | None = None, **options: Any) -> list[FilesystemStatus]:
        """List signed files and how they stand."""
        return await asyncio.to_thread(self.sync.fs_status, glob, **options)

    async def sign(self, path: str, **options: Any) -> FileVerifyResult:
        """Sign a file."""
        return await asyncio.to_thread(self.sync.sign, path, **options)

    async def verify(self, path: str, **options: Any) -> FileVerifyResult:
        """Say whether a file is signed and unchanged."""
        return await asyncio.to_thread(self.sync.verify, path, **options)

    async def sign_content(self, content: str, identity: str, **options: Any) -> ContentSignature:
        """Sign a piece of content."""
        return await asyncio.to_thread(self.sync.sign_content, content, identity, **options)

    async def close(self) -> None:
        """End the engines; runs in flight end at once as `EngineClosed`."""
        await asyncio.to_thread(self.sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
