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
from collections.abc import Callable, Coroutine, Generator
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack

from mlld_sdk.base.durations import DEFAULT, Timeout
from mlld_sdk.client.client import Client
from mlld_sdk.client.handles import ExecuteHandle, Handle, ProcessHandle
from mlld_sdk.client.options import ClientOptions
from mlld_sdk.client.requests import HandleRequests
from mlld_sdk.engines.requests import AnyPath
from mlld_sdk.scripts.params import RunOptions
from mlld_sdk.scripts.stream import ScriptEvents
from mlld_sdk.scripts.types import ExecuteResult, HandleEvent

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Handle[Any])
S = TypeVar("S", bound=HandleRequests)


def in_thread(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return a method that calls this one of `sync` in a thread."""

    @wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: ANN401
        bound: Callable[P, R] = getattr(self.sync, method.__name__)
        return await asyncio.to_thread(bound, *args, **kwargs)

    return call


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

    update_state = in_thread(Handle.update_state)


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

    write_file = in_thread(ExecuteHandle.write_file)


class AsyncRequests(Generic[S]):
    """The calls of `HandleRequests` as coroutines. A task that is cancelled cancels its run, also while that begins.

    Calls that only write to an engine that is up are made at once; what may start a process or wait for the disk
    is left to a thread.

    Args:
        requests: Who makes them.

    Attributes:
        sync: The same for threads.
    """

    def __init__(self, requests: S) -> None:
        self.sync: S = requests

    async def process(
        self, script: str, *, file_path: AnyPath | None = None, payload: object = None, **options: Unpack[RunOptions]
    ) -> str:
        """Run script text and return its output."""
        requests = self.sync.reach()
        if requests.begins_at_once(options):
            return await requests.process_awaited(script, file_path, payload, options)
        return await (await self.process_async(script, file_path=file_path, payload=payload, **options))

    async def process_result(
        self, script: str, *, file_path: AnyPath | None = None, payload: object = None, **options: Unpack[RunOptions]
    ) -> ExecuteResult:
        """Run script text and return everything it produced."""
        requests = self.sync.reach()
        if requests.begins_at_once(options):
            return await requests.result_awaited(*requests.text(script, file_path, payload, options))
        handle = await self.process_async(script, file_path=file_path, payload=payload, **options)
        return await handle.full_result()

    async def process_async(
        self, script: str, *, file_path: AnyPath | None = None, payload: object = None, **options: Unpack[RunOptions]
    ) -> AsyncProcessHandle:
        """Start a run of script text and return its handle."""
        begin = partial(self.sync.process_async, script, file_path=file_path, payload=payload, **options)
        return AsyncProcessHandle(await self._begun(begin, options))

    async def execute(self, filepath: AnyPath, payload: object = None, **options: Unpack[RunOptions]) -> ExecuteResult:
        """Run a script file and return everything it produced."""
        requests = self.sync.reach()
        if requests.begins_at_once(options):
            return await requests.result_awaited(*requests.file(filepath, payload, options))
        return await (await self.execute_async(filepath, payload, **options))

    async def execute_async(
        self, filepath: AnyPath, payload: object = None, **options: Unpack[RunOptions]
    ) -> AsyncExecuteHandle:
        """Start a run of a script file and return its handle."""
        begin = partial(self.sync.execute_async, filepath, payload, **options)
        return AsyncExecuteHandle(await self._begun(begin, options))

    analyze = in_thread(HandleRequests.analyze)

    async def _begun(self, begin: Callable[[], H], options: RunOptions) -> H:
        if self.sync.reach().begins_at_once(options):
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


class AsyncClient(AsyncRequests[Client]):
    """A `Client` for coroutines.

    Args:
        client: A client to share, instead of one of its own.
        **options: Those of `Client`.

    Attributes:
        sync: The client it uses.
    """

    def __init__(self, *, client: Client | None = None, **options: Unpack[ClientOptions]) -> None:
        if client is not None and options:
            raise TypeError("give either a client or the options for a new one")
        super().__init__(client or Client(**options))

    fs_status = in_thread(Client.fs_status)
    sign = in_thread(Client.sign)
    verify = in_thread(Client.verify)
    sign_content = in_thread(Client.sign_content)
    close = in_thread(Client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
