"""What orchestrators and Prometheus ask a web application: does it live, does it take work, what has it done."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mlld_sdk.base.errors import ConfigurationError, ExtraMissing, MlldError
from mlld_sdk.runtime.end import moment
from mlld_sdk.runtime.runtime import Runtime
from mlld_sdk.web.framework import JSONResponse, Request, Response, Route, move_on_after
from mlld_sdk.web.metrics import metrics_text
from mlld_sdk.web.serving import looks_of, runtime_of, scrapes_of

if TYPE_CHECKING:
    from fastapi import APIRouter

T = TypeVar("T")

UNREADY: Final = ("gave_up", "wedged")
"""Verdicts with which an application should get no more requests. With the others it takes work: what is broken is
being mended, waits behind a breaker, or was paused on purpose."""

PATIENCE: Final = 1.0
"""Seconds a look at the runtime may take, since probes are impatient; it waits for a disk at most."""

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


def health() -> "APIRouter":
    """Make a router with `/healthz`, `/readyz` and `/metrics`.

    ```python no-run
    app.include_router(health())
    ```

    - `/healthz`, for a liveness probe: 200 while the runtime runs. 503 when its tree has ended, with when, why and the
      verdict: only a new process helps.
    - `/readyz`, for a readiness probe: 200 while it takes work. 503 when it does not, with the reasons: it has ended, a
      place was given up or is wedged, or the journal takes no writes.
    - `/metrics`, for Prometheus (extra `prometheus`): of every process of the runtime when all have `control=True`.

    None of them sends a message to an actor. Prefixes and dependencies are those of any router.

    Raises:
        ConfigurationError: FastAPI is not installed.
    """
    try:
        from fastapi import APIRouter
    except ImportError as error:
        raise ConfigurationError(
            "health() makes a router of FastAPI, which is not installed", hint="for Starlette there is health_routes()"
        ) from error
    router = APIRouter()
    for path, answer in _answers().items():
        router.add_api_route(path, answer, methods=["GET", "HEAD"], response_model=None, include_in_schema=False)
    return router


def health_routes() -> list[Route]:
    """Make the same as `health` as routes of Starlette: `Starlette(routes=[*health_routes()])`."""
    return [Route(path, answer) for path, answer in _answers().items()]


def _answers() -> dict[str, Callable[[Request], Awaitable[Response]]]:
    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


NOT_STARTED: Final = {"status": "not started", "why": "this application has no lifespan of mlld_sdk.web"}


async def healthz(request: Request) -> Response:
    """Answer whether the runtime runs."""
    runtime = runtime_of(request)
    if runtime is None:
        return JSONResponse(NOT_STARTED, 503)
    end = runtime.wait(0)
    if end is None:
        return JSONResponse({"status": "running"})
    said = {"status": end.how.replace("_", " "), "at": moment(end.at), "why": end.why}
    with move_on_after(PATIENCE):
        said["verdict"] = str(await _looked(request, runtime.verdict))
    return JSONResponse(said, 503)


async def readyz(request: Request) -> Response:
    """Answer whether the runtime takes work."""
    runtime = runtime_of(request)
    if runtime is None:
        return JSONResponse(NOT_STARTED, 503)
    with move_on_after(PATIENCE):
        found = await _looked(request, lambda: readiness(runtime))
        return JSONResponse(found, 503 if found["reasons"] else 200)
    why = f"the journal has not answered within {PATIENCE:g} s"
    return JSONResponse({"status": "not ready", "reasons": [{"path": "journal", "why": why}]}, 503)


async def metrics(request: Request) -> Response:
    """Answer with what is measured."""
    runtime = runtime_of(request)
    if runtime is None:
        return JSONResponse(NOT_STARTED, 503)
    try:
        return Response(await metrics_text(runtime, scrapes_of(request)), media_type=TEXT)
    except ExtraMissing as error:
        return JSONResponse({"code": error.code, "message": error.message, "hint": error.hint}, 501)


def readiness(runtime: Runtime) -> dict[str, Any]:
    """Say whether a runtime takes work, and if not, why; one write is tried when the last one has failed."""
    end, verdict = runtime.wait(0), runtime.verdict()
    reasons = [{"path": one.path, "why": one.why} for one in verdict.concerns if one.word in UNREADY]
    if end is not None:
        reasons = [{"path": end.runtime, "why": str(end)}]
    elif runtime.journal.store_status().degraded is not None:
        try:
            runtime.journal.append_event("ready")  # nothing else may be written before requests come again
            verdict = runtime.verdict()
        except MlldError as error:
            reasons.append({"path": "journal", "code": error.code, "why": error.message})
    return {"status": "not ready" if reasons else "ready", "verdict": verdict.word, "reasons": reasons}


async def _looked(request: Request, look: Callable[[], T]) -> T:
    """Look in one of few threads; one that hangs is left behind when the time is over, and stays taken."""
    return await asyncio.get_running_loop().run_in_executor(looks_of(request), look)
