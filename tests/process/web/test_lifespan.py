"""A runtime in an application: started and stopped with it without blocking the loop, and found by its handlers."""

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.errors import StartFailed
from mlld_sdk.runtime.options import RuntimeOptions
from mlld_sdk.web import current, health_routes, lifespan
from mlld_sdk.web.serving import KEY
from tests.support.applications import application, served

ROOT = Path(__file__).parents[3]

Desk = Annotated[Runtime, Depends(current)]


class Echo(Agent):
    engine = "embedded"

    def run(self, job: Any, payload: Any) -> Any:
        return payload


class Gate:
    """Where a child of a test waits until the test lets it on."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(60)


class Slow(Actor):
    """Takes as long to start as its gate is shut."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def on_start(self) -> None:
        self.gate.wait()


class Broken(Actor):
    def on_start(self) -> None:
        raise RuntimeError("no such model")


class Slowly(Agent):
    """Works as long as its gate is shut."""

    engine = "embedded"
    gate = Gate()

    def run(self, job: Any, payload: Any) -> Any:
        self.gate.wait()
        return payload


def test_a_handler_finds_the_runtime_and_gives_it_work() -> None:
    app = application(lifespan(one_for_one(child(Echo, name="echo"))))

    @app.post("/echo")
    async def echo(runtime: Desk) -> Any:
        return await (await runtime.agent("echo").aio.run({"a": 1}))

    @app.get("/tree")
    def tree(runtime: Desk) -> str:
        return runtime.verdict().word

    async def visit(client: httpx.AsyncClient) -> None:
        assert (await client.post("/echo")).json() == {"a": 1}
        assert (await client.get("/tree")).json() == "healthy"

    served(app, visit)


def test_a_websocket_and_a_mounted_application_find_it_too() -> None:
    async def word(request: Request) -> Response:
        return JSONResponse((await current(request)).verdict().word)

    inner = FastAPI()

    @inner.get("/tree")
    def tree(runtime: Desk) -> str:
        return runtime.verdict().word

    outer = Starlette(
        routes=[Route("/tree", word), Mount("/inner", inner), *health_routes()],
        lifespan=lifespan(one_for_one(child(Echo, name="echo"))),
    )

    async def visit(client: httpx.AsyncClient) -> None:
        assert (await client.get("/tree")).json() == "healthy"
        assert (await client.get("/inner/tree")).json() == "healthy"
        assert (await client.get("/healthz")).json() == {"status": "running"}

    served(outer, visit)

    app = application(lifespan(one_for_one(child(Echo, name="echo"))))
    said: list[dict[str, Any]] = []

    @app.websocket("/ws")
    async def ws(socket: WebSocket, runtime: Desk) -> None:
        await socket.accept()
        await socket.send_text(runtime.verdict().word)

    async def connect(state: dict[str, Any]) -> None:
        scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": [], **state}
        asked = iter([{"type": "websocket.connect"}])

        async def receive() -> Any:
            return next(asked)

        async def send(message: Any) -> None:
            said.append(message)

        await app(scope, receive, send)

    served(app, connect, client=False)
    assert {"type": "websocket.send", "text": "healthy"} in said


def test_the_loop_turns_while_the_tree_starts() -> None:
    gate, turned = Gate(), []
    app = application(lifespan(one_for_one(child(Slow, gate, name="slow"))))

    async def turn() -> None:
        await asyncio.to_thread(gate.reached.wait, 60)
        turned.append("while it starts")
        gate.opened.set()

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(turn())
            async with app.router.lifespan_context(app):
                turned.append("started")

    asyncio.run(both())
    assert turned == ["while it starts", "started"]


def test_a_tree_that_does_not_start_fails_the_start_of_the_application() -> None:
    app = application(lifespan(one_for_one(child(Broken, name="broken"))))

    async def visit(client: httpx.AsyncClient) -> None:
        pytest.fail("it must not serve")

    with pytest.raises(StartFailed, match="no such model"):
        served(app, visit)


def test_what_is_under_way_at_shutdown_is_finished_first(tmp_path: Path) -> None:
    tree, store = one_for_one(child(Slowly, name="slowly")), tmp_path / "s.db"
    app = application(lifespan(tree, store=store, drain_timeout=60.0))
    gate = Slowly.gate = Gate()

    async def turn_off() -> str:
        async with app.router.lifespan_context(app) as state:
            assert state is not None
            runtime: Runtime = state[KEY]
            run = await runtime.agent("slowly").aio.run("done")
            assert await asyncio.to_thread(gate.reached.wait, 60)
            asyncio.get_running_loop().call_later(0, gate.opened.set)  # only a loop that turns gets to it
        return run.id

    run_id = asyncio.run(turn_off())
    with Runtime(tree, store=store) as runtime:
        assert runtime.journal.run(run_id).attempt == 1
        assert runtime.run(run_id).result(timeout=60) == "done"


def test_an_application_can_have_a_lifespan_of_its_own_around_it() -> None:
    tree = one_for_one(child(Echo, name="echo"))

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with lifespan(tree)(app) as state:
            yield {**state, "mine": "too"}

    app = application(mine)

    @app.get("/both")
    def both(request: Request, runtime: Desk) -> list[str]:
        return [request.state.mine, runtime.verdict().word]

    async def visit(client: httpx.AsyncClient) -> None:
        assert (await client.get("/both")).json() == ["too", "healthy"]

    served(app, visit)


def test_a_tree_that_has_ended_is_a_503_for_handlers_that_ask_for_it() -> None:
    app = application(lifespan(one_for_one(child(Echo, name="echo"), max_restarts=0)))
    runtimes: list[Runtime] = []

    @app.get("/tree")
    def tree(runtime: Desk) -> str:
        runtimes.append(runtime)
        return runtime.verdict().word

    async def visit(client: httpx.AsyncClient) -> None:
        assert (await client.get("/tree")).status_code == 200
        [runtime] = runtimes
        runtime["echo"].ref.kill("for the test")
        assert await runtime.aio.wait(60) is not None
        refused = await client.get("/tree")
        assert refused.status_code == 503
        assert "for the test" not in refused.text

    served(app, visit)


def test_an_application_without_a_lifespan_of_ours_says_so() -> None:
    app = application(None)

    @app.get("/tree")
    def tree(runtime: Desk) -> str:
        return runtime.verdict().word

    async def visit(client: httpx.AsyncClient) -> None:
        refused = await client.get("/tree")
        assert refused.status_code == 503
        assert "mlld_sdk.web.lifespan" in refused.text
        for probe in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(probe)).status_code == 503

    served(app, visit)


def test_a_wrong_option_is_refused_where_it_is_written() -> None:
    tree = one_for_one(child(Echo, name="echo"))
    with pytest.raises(InvalidOption, match="log must be"):
        lifespan(tree, log="xml")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="name must be"):
        lifespan(tree, name="a/b")
    with pytest.raises(TypeError, match="stroe"):
        lifespan(tree, stroe="s.db")  # type: ignore[call-arg]


def test_the_options_are_those_of_a_runtime() -> None:
    options = inspect.signature(Runtime.__init__).parameters.keys() - {"self", "tree"}
    assert get_type_hints(RuntimeOptions).keys() == options


def test_without_the_extra_the_error_says_how_to_get_it() -> None:
    program = """
import sys
sys.modules["starlette"] = None
import mlld_sdk.web
from mlld_sdk.errors import ExtraMissing
try:
    from mlld_sdk.web import lifespan
except ExtraMissing as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "mlld_sdk.web needs starlette, which is not installed (pip install 'mlld-otp[web]')\n"


def test_the_core_imports_nothing_of_it() -> None:
    program = (
        "import sys, mlld_sdk.cli.main, mlld_sdk.errors, mlld_sdk.runtime.runtime; print('starlette' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "False\n"


def test_the_tree_is_started_anew_each_time_the_application_is() -> None:
    app = application(lifespan(one_for_one(child(Echo, name="echo"))))

    async def visit(client: httpx.AsyncClient) -> None:
        assert (await client.get("/readyz")).status_code == 200

    served(app, visit)
    served(app, visit)
