"""What a user's type checker sees: checked with `mypy --strict`, and with pyright by whoever has it. Never run."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, assert_type

from fastapi import Depends, FastAPI
from starlette.applications import Starlette

from mlld_sdk import (
    Agent,
    AgentHandle,
    AsyncClient,
    AsyncJob,
    Backoff,
    Client,
    ExecuteResult,
    Job,
    MlldError,
    Pool,
    PoolHandle,
    Recycle,
    RunHandle,
    Runtime,
    budget,
    child,
    circuit_breaker,
    dynamic,
    one_for_all,
    one_for_one,
    rest_for_one,
    wedge,
)
from mlld_sdk.agents import Checkout, ClientHandle
from mlld_sdk.client import ExecuteHandle, ProcessHandle, close, labeled, process
from mlld_sdk.errors import ClientGaveUp, RuntimeGaveUp, StepFailed
from mlld_sdk.journal import Backlog, Journal, Retention
from mlld_sdk.runtime import RuntimeEnd, default_runtime
from mlld_sdk.supervision import ChildSpec, RestartLimit, ShutdownReport, SupervisorSpec
from mlld_sdk.types import AnalyzeResult
from mlld_sdk.web import current, health, health_routes, lifespan


def add(a: int, b: int) -> int:
    return a + b


class Reviewer(Agent):
    engine = "embedded"
    checkpoint = True
    spares = 1
    recycle = Recycle(max_leases=100)

    def run(self, job: Job, payload: dict[str, Any]) -> str:
        assert_type(job.execute("collect.mld", payload), ExecuteResult)
        assert_type(job.process("show 1"), str)
        assert_type(job.step("add", add, 1, 2), int)
        assert_type(job.map(lambda item, branch: f"{item}", [1, 2]), list[str])
        try:
            job.execute("review.mld", timeout=60.0, idempotent=True, accept=bool, on_command_failure="fail")
            assert_type(job.step("add", add, 1, 2, accept=lambda total: total > 2), int)
        except StepFailed as failed:
            assert_type(failed.code, str)
        job.execute("review.mld", breaker=circuit_breaker("model", when_open="fail"))
        assert_type(job.step("write", add, 1, 2, breaker=False), int)
        job.progress("half-way", 0.5)
        return "done"


async def fetch(url: str) -> bytes:
    return url.encode()


class AsyncReviewer(Agent):
    async def run(self, job: AsyncJob, payload: Any) -> list[str]:
        assert_type(await job.execute("collect.mld", payload), ExecuteResult)
        assert_type(await job.step("add", add, 1, 2), int)
        assert_type(await job.step("fetch", fetch, "url", breaker=circuit_breaker("web")), bytes)
        assert_type(await job.step("fetch", fetch, "url", accept=len), bytes)
        return [await job.process("show 1")]


def trees() -> SupervisorSpec:
    worker = child(
        Reviewer,
        name="reviewer",
        backoff=Backoff.of(0.1, most=30.0),
        budget=budget(3, 60.0),
        breaker=circuit_breaker(failures=3, open_for=10.0),
        groups=("reviewers",),
        wedge=wedge(120.0, times=2, ladder=[{"environ": {"MODEL": "large"}}]),
        inherit_env="minimal",
    )
    assert_type(worker, ChildSpec)
    group = one_for_all(child(AsyncReviewer), rest_for_one(child(Pool, name="pool", size=2)), name="group")
    return one_for_one(worker, group, dynamic(name="crowd"), limit=RestartLimit(3, 5.0))


def agents() -> None:
    with Runtime(trees(), store="state.db", retention=Retention(), max_engines=4) as runtime:
        agent = runtime.agent("reviewer")
        assert_type(agent, AgentHandle)
        run = agent.run({"topic": "safety"}, key="once", deadline=60.0)
        assert_type(run, RunHandle)
        assert_type(agent.find("once"), RunHandle)
        assert_type(runtime.runs.find(key="once", agent="reviewer"), RunHandle)
        print(run.result(timeout=60), run.state, run.steps())
        assert_type(agent.execute("review.mld"), ExecuteResult)
        assert_type(agent.analyze("review.mld"), AnalyzeResult)
        pool = runtime.pool("pool")
        assert_type(pool, PoolHandle)
        assert_type(pool.map("x.mld", [1, 2]), Iterator[ExecuteResult | Exception])
        with pool.checkout() as engine:
            assert_type(engine, Checkout)
            assert_type(engine.process("show 1"), str)
        assert_type(runtime.journal, Journal)
        assert_type(runtime.journal.backlogs(), dict[str, Backlog])
        assert_type(runtime.tree(), str)
        assert_type(runtime.wait(1.0), RuntimeEnd | None)


def clients() -> None:
    with Client(engine="embedded", timeout=30.0) as client:
        assert_type(client.process("show @payload.x", payload={"x": labeled(1, "secret")}), str)
        assert_type(client.process_async("show 1"), ProcessHandle)
        assert_type(client.execute_async("x.mld"), ExecuteHandle)
        assert_type(client.process_async("show 1").result(1.0), str)
        try:
            assert_type(client.execute("x.mld", timeout=None), ExecuteResult)
        except MlldError as error:
            assert_type(error.hint, str | None)
        assert_type(client.close(timeout=5.0), int)
    assert_type(child(Client, name="scripts", engine="embedded"), ChildSpec)
    with Runtime(one_for_one(child(Client, name="scripts"))) as runtime:
        scripts: ClientHandle = runtime["scripts"]
        assert_type(scripts.process("show 1"), str)
        assert_type(scripts.close(), int)
        assert_type(scripts.wait_until_up(1.0), bool)
        assert_type(runtime.stop().cut_off, dict[str, int])
    try:
        assert_type(process("show 1"), str)
    except ClientGaveUp as error:
        assert_type((error.client, error.why), tuple[str, str])
        assert_type(close(), int)
    assert_type(default_runtime(), Runtime)


def web() -> None:
    tree = one_for_one(child(Reviewer, name="reviewer"))
    app = FastAPI(lifespan=lifespan(tree, store="state.db", log="json", exit_on_give_up=True, drain_timeout=5.0))
    app.include_router(health())

    @app.get("/word")
    def word(runtime: Annotated[Runtime, Depends(current)]) -> str:
        return runtime.verdict().word

    Starlette(lifespan=lifespan(tree), routes=[*health_routes()])


async def service() -> None:
    async with Runtime(trees(), on_end=lambda end: print(end.why if end.gave_up else end.how)) as runtime:
        assert_type(runtime, Runtime)
        assert_type(await runtime.aio.wait(None), RuntimeEnd | None)
        assert_type(await runtime.aio.stop(drain=False), ShutdownReport)
        try:
            await runtime.agent("reviewer").aio.run(1)
        except RuntimeGaveUp as error:
            assert_type((error.runtime, error.at, error.why), tuple[str, float, str])
    async with AsyncClient(engine="embedded") as client:
        assert_type(await client.process("show 1"), str)
        assert_type(await client.execute("x.mld"), ExecuteResult)
        assert_type(await client.close(timeout=5.0), int)


if __name__ == "__main__":
    agents()
    clients()
    web()
    asyncio.run(service())
