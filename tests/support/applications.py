"""Web applications in tests: visited in this process while their lifespan is open, or served by a real uvicorn."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.applications import Starlette

from mlld_sdk.web import health
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]


def application(lifespan: Any) -> FastAPI:
    """Make an application with `/healthz`, `/readyz` and `/metrics`."""
    app = FastAPI(lifespan=lifespan)
    app.include_router(health())
    return app


def served(app: Starlette, visit: Callable[[Any], Awaitable[None]], *, client: bool = True) -> None:
    """Open the lifespan, visit, and close it, in a loop of its own.

    Args:
        app: The application.
        visit: Called with a client; or, if `client` is false, with what a server adds to the scope of a request.
        client: Whether to make a client.
    """

    async def serve() -> None:
        async with app.router.lifespan_context(app) as found:
            state = {} if found is None else {"state": dict(found)}

            async def with_state(scope: Any, receive: Any, send: Any) -> None:
                await app({**scope, **{key: dict(value) for key, value in state.items()}}, receive, send)

            if not client:
                await visit(state)
                return
            transport = httpx.ASGITransport(app=with_state)
            async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60.0) as visitor:
                await visit(visitor)

    asyncio.run(serve())


class Uvicorn:
    """A server in processes of its own.

    Attributes:
        process: The one that was started.
        url: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = eventually(self._address)

    def said(self) -> str:
        """Return everything it has written."""
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """Return everything it has written, as the objects that all lines of it are."""
        return [json.loads(line) for line in self.said().splitlines()]

    def get(self, path: str) -> httpx.Response:
        """Ask over a connection of its own, so that any worker may answer."""
        return httpx.get(f"{self.url}{path}", timeout=60.0)

    def _address(self) -> str:
        assert self.process.poll() is None, self.said()
        found = re.search(r"running on (http://[\d.:]+)", self.said())
        return found[1] if found else ""


@contextmanager
def uvicorn(folder: Path, *words: str, workers: int = 1) -> Iterator[Uvicorn]:
    """Serve `app:app` of a folder, and stop in order; all workers have started when the block begins."""
    log = folder / "server.log"
    # A worker that is slow on a busy machine is not to be killed; but uvicorn waits as long for one that is dead.
    patience = ("--timeout-worker-healthcheck", "15")
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0", "--workers", str(workers), *patience, *words]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = Uvicorn(process, log)
        eventually(lambda: server.said().count("Application startup complete") == workers)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
