"""Starting and stopping a runtime with the application that it lives in, and finding it in a handler."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Final, Literal, Unpack

from mlld_sdk.base.options import one_of
from mlld_sdk.runtime.options import RuntimeOptions
from mlld_sdk.runtime.runtime import Root, Runtime
from mlld_sdk.telemetry.json_lines import log_json, logging_as_json
from mlld_sdk.telemetry.log import log_events, stderr_logger
from mlld_sdk.telemetry.prometheus import measure
from mlld_sdk.web.framework import CapacityLimiter, HTTPConnection, HTTPException

Log = Literal["plain", "json", "off"]

Lifespan = Callable[[object], contextlib.AbstractAsyncContextManager[Mapping[str, object]]]

KEY: Final = "mlld_runtime"
"""Under which the runtime is in the state of every request."""

LOOKS: Final = "mlld_looks"
"""Under which the state has the threads that look at the runtime."""

SCRAPES: Final = "mlld_scrapes"
"""Under which the state has the limit of questions to the processes of the runtime."""

LOOKS_AT_ONCE: Final = 2
"""Threads that look: handlers that keep all other threads busy keep no probe waiting."""

SCRAPES_AT_ONCE: Final = 16
"""Processes that are asked for their metrics at once, each from a thread."""

UNAVAILABLE: Final = "the agents behind this service do not run"
"""What a client is told; why is told to those who look at `/healthz` and the log."""


def lifespan(
    tree: Root, *, log: Log = "off", exit_on_give_up: bool = False, **options: Unpack[RuntimeOptions]
) -> Lifespan:
    """Make the lifespan of an application that carries a runtime.

    ```python no-run
    app = FastAPI(lifespan=lifespan(tree, store="state.db"))
    ```

    The runtime is made and started when a worker starts, which is after any fork, and takes no request before the whole
    tree has started; a start that fails ends the server with the reason. At shutdown it is stopped as `Runtime.stop`
    does, with draining. Neither blocks the loop. `current` finds the runtime.

    Args:
        tree: What to supervise.
        log: `json` or `plain` writes the events to stderr; `json` also makes JSON of what `logging` and the server say.
        exit_on_give_up: End the process as SIGTERM does when the tree has ended by itself, so that whoever watches over
            processes starts another: what `--workers` needs, where no probe reaches each worker. By default it stays,
            `current` and `/healthz` answer 503, and an orchestrator that probes restarts it.
        **options: What `Runtime` takes: `store`, `name`, `control`, and so on.
    """
    one_of("log", log, "plain", "json", "off")
    Runtime(tree, **options)  # refuses a wrong option here, where it is written
    if log == "json":  # now, so that it holds for the first line of the server already
        logging_as_json()

    @contextlib.asynccontextmanager
    async def serve(_: object) -> AsyncIterator[Mapping[str, object]]:
        runtime = Runtime(tree, **options)
        if log == "json":
            log_json(runtime.bus)
        elif log == "plain":
            log_events(runtime.bus, stderr_logger(), debug=False)
        if find_spec("prometheus_client") is not None:
            measure(runtime)
        async with runtime:
            watch = asyncio.create_task(_exit_after(runtime)) if exit_on_give_up else None
            looks = ThreadPoolExecutor(LOOKS_AT_ONCE, f"{runtime.name}-looks")
            try:
                yield {KEY: runtime, LOOKS: looks, SCRAPES: CapacityLimiter(SCRAPES_AT_ONCE)}
            finally:
                looks.shutdown(wait=False, cancel_futures=True)
                if watch is not None:
                    watch.cancel()

    return serve


async def _exit_after(runtime: Runtime) -> None:
    end = await runtime.aio.wait(None)
    if end is not None and end.how != "stopped":
        os.kill(os.getpid(), signal.SIGTERM)


def runtime_of(connection: HTTPConnection) -> Runtime | None:
    """Return the runtime of the application that serves a request, whichever way it is."""
    found = getattr(connection.state, KEY, None)
    return found if isinstance(found, Runtime) else None


def looks_of(connection: HTTPConnection) -> ThreadPoolExecutor:
    """Return the threads of the application that look at its runtime; only where there is one."""
    found: ThreadPoolExecutor = getattr(connection.state, LOOKS)
    return found


def scrapes_of(connection: HTTPConnection) -> CapacityLimiter:
    """Return the limit of the application for questions to other processes; only where there is a runtime."""
    found: CapacityLimiter = getattr(connection.state, SCRAPES)
    return found


async def current(connection: HTTPConnection) -> Runtime:
    """Find the runtime of the application that serves this request.

    In FastAPI `Depends(current)`, elsewhere `await current(request)`. It never waits; it is a coroutine because FastAPI
    would take a thread for a function, and handlers may have taken all of them.

    Raises:
        HTTPException: With status 503: it has ended, or the application has no `lifespan` of ours.
    """
    runtime = runtime_of(connection)
    if runtime is None:
        raise HTTPException(503, "this application was started without mlld_sdk.web.lifespan")
    if (end := runtime.wait(0)) is not None:
        raise HTTPException(503, UNAVAILABLE) from end.error()
    return runtime
