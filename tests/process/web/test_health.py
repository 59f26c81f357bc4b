"""Probes tell what is so: dead when the tree has ended, not ready when no work is taken, and never late."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException

from mlld_sdk import Agent, Runtime, budget, child, one_for_one
from mlld_sdk.errors import JournalFull
from mlld_sdk.supervision.verdict import Concern, Verdict
from mlld_sdk.web import current, health, lifespan
from mlld_sdk.web.serving import LOOKS_AT_ONCE
from tests.support.applications import application, served
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

Desk = Annotated[Runtime, Depends(current)]


class Echo(Agent):
    engine = "embedded"

    def run(self, job: Any, payload: Any) -> Any:
        return payload


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False)
    if not place.is_mount():
        pytest.skip("may not mount a file system here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """Leave no room."""
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return filler


def probed(tree: Any, visit: Callable[[httpx.AsyncClient, Runtime], Any], **options: Any) -> None:
    """Serve an application with this tree, and visit it with a client and its runtime."""
    app = application(lifespan(tree, **options))
    found: list[Runtime] = []

    @app.get("/find")
    async def find(runtime: Desk) -> None:
        found.append(runtime)

    @app.get("/hold")
    def hold() -> None:
        assert HELD.wait(60)

    async def with_runtime(client: httpx.AsyncClient) -> None:
        await client.get("/find")
        await visit(client, found[0])

    served(app, with_runtime)


HELD = threading.Event()


def test_a_healthy_tree_lives_and_is_ready() -> None:
    async def visit(client: httpx.AsyncClient, runtime: Runtime) -> None:
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
        assert (alive.status_code, alive.json()) == (200, {"status": "running"})
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "verdict": "healthy", "reasons": []})
        runtime.pause("echo", "new model tonight")
        paused = await client.get("/readyz")
        assert (paused.status_code, paused.json()["verdict"]) == (200, "maintenance")

    probed(one_for_one(child(Echo, name="echo")), visit)


def test_a_root_that_gave_up_is_dead_and_says_when_and_why() -> None:
    async def visit(client: httpx.AsyncClient, runtime: Runtime) -> None:
        runtime["echo"].ref.kill("for the test")
        assert await runtime.aio.wait(60) is not None
        dead = await client.get("/healthz")
        assert dead.status_code == 503
        assert dead.json()["status"] == "gave up"
        assert dead.json()["at"].endswith("UTC")
        assert "for the test" in dead.json()["why"]
        assert dead.json()["verdict"].startswith("GAVE UP")
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        assert unready.json()["reasons"][0]["path"] == "root"
        assert "for the test" in unready.json()["reasons"][0]["why"]

    probed(one_for_one(child(Echo, name="echo"), max_restarts=0), visit)


def test_a_place_that_is_down_for_good_makes_it_unready_but_not_dead() -> None:
    async def visit(client: httpx.AsyncClient, runtime: Runtime) -> None:
        runtime["spent"].ref.kill("for the test")
        await asyncio.to_thread(eventually, lambda: runtime.verdict().word == "gave_up")
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        assert [reason["path"] for reason in unready.json()["reasons"]] == ["root/spent"]
        assert (await client.get("/healthz")).status_code == 200

    probed(one_for_one(child(Echo, name="echo"), child(Echo, name="spent", budget=budget(0, within=60))), visit)


def test_a_wedged_place_makes_it_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    async def visit(client: httpx.AsyncClient, runtime: Runtime) -> None:
        for word, status in (("wedged", 503), ("flapping", 200), ("degraded", 200), ("recovering", 200)):
            judged = Verdict(word, {word: 1}, (Concern("root/echo", word, "so it is"),))  # type: ignore[arg-type]
            monkeypatch.setattr(runtime, "verdict", lambda judged=judged: judged)
            assert (await client.get("/readyz")).status_code == status

    probed(one_for_one(child(Echo, name="echo")), visit)


def test_a_journal_that_takes_no_writes_makes_it_unready_until_it_does(disk: Path) -> None:
    async def visit(client: httpx.AsyncClient, runtime: Runtime) -> None:
        filler = fill(disk)
        with pytest.raises(JournalFull):
            await runtime.agent("echo").aio.run("y" * 500_000)
        for _ in range(2):
            unready = await client.get("/readyz")
            assert unready.status_code == 503
            assert unready.json()["reasons"][0]["code"] == "JOURNAL_FULL"
        assert (await client.get("/healthz")).status_code == 200
        filler.unlink()  # and nobody writes anything, since no request comes while it is not ready
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["verdict"]) == (200, "healthy")

    probed(one_for_one(child(Echo, name="echo")), visit, store=disk / "s.db")


def test_a_look_that_hangs_is_an_answer_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    over, looks = threading.Event(), []

    def hangs() -> Verdict:
        looks.append(threading.current_thread())
        assert over.wait(60)
        return Verdict("healthy", {}, ())

    async def visit(client: httpx.AsyncClient, runtime: Runtime) -> None:
        monkeypatch.setattr("mlld_sdk.web.probes.PATIENCE", 0.05)
        monkeypatch.setattr(runtime, "verdict", hangs)
        for _ in range(LOOKS_AT_ONCE + 3):
            unready = await client.get("/readyz")
            assert unready.status_code == 503
            assert "has not answered" in unready.json()["reasons"][0]["why"]
        assert (await client.get("/healthz")).status_code == 200
        assert len(looks) == LOOKS_AT_ONCE
        over.set()

    try:
        probed(one_for_one(child(Echo, name="echo")), visit)
    finally:
        over.set()


def test_without_the_extra_for_metrics_the_answer_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    async def visit(client: httpx.AsyncClient, runtime: Runtime) -> None:
        told = await client.get("/metrics")
        assert told.status_code == 501
        assert told.json()["hint"] == "pip install 'mlld-otp[prometheus]'"

    probed(one_for_one(child(Echo, name="echo")), visit)


def test_what_is_said_of_a_router_of_fastapi_holds_for_the_probes() -> None:
    def refuse() -> None:
        raise HTTPException(401)

    app = FastAPI(lifespan=lifespan(one_for_one(child(Echo, name="echo"))))
    app.include_router(health(), prefix="/internal", dependencies=[Depends(refuse)])
    app.include_router(health(), prefix="/open")

    async def visit(client: httpx.AsyncClient) -> None:
        for probe in ("healthz", "readyz", "metrics"):
            assert (await client.get(f"/internal/{probe}")).status_code == 401
            assert (await client.get(f"/open/{probe}")).status_code == 200
            assert (await client.head(f"/open/{probe}")).status_code == 200
        assert (await client.get("/openapi.json")).json()["paths"] == {}

    served(app, visit)


def test_without_fastapi_the_probes_are_routes_of_starlette() -> None:
    program = """
import sys
sys.modules["fastapi"] = None
from starlette.applications import Starlette
from mlld_sdk.errors import ConfigurationError
from mlld_sdk.web import health, health_routes
app = Starlette(routes=[*health_routes()])
print([route.path for route in app.routes])
try:
    health()
except ConfigurationError as error:
    print(error.hint)
"""
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "['/healthz', '/readyz', '/metrics']\nfor Starlette there is health_routes()\n"


def test_handlers_that_hold_all_threads_hold_up_no_probe() -> None:
    HELD.clear()

    async def visit(client: httpx.AsyncClient, runtime: Runtime) -> None:
        threads = anyio.to_thread.current_default_thread_limiter()
        async with anyio.create_task_group() as handlers:
            for _ in range(int(threads.total_tokens)):
                handlers.start_soon(client.get, "/hold")
            await asyncio.to_thread(eventually, lambda: not threads.available_tokens)
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/find")).status_code == 200  # a handler that needs no thread finds the runtime
            HELD.set()

    try:
        probed(one_for_one(child(Echo, name="echo")), visit)
    finally:
        HELD.set()
