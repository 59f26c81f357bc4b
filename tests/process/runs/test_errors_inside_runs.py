"""What others say inside a run is an answer; only what is about the agent itself ends the agent (A-40, A-41)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, AsyncJob, Job, Pool, Retry, Runtime, child, circuit_breaker, one_for_one
from mlld_sdk.actors import Actor
from mlld_sdk.journal import Journal
from mlld_sdk.runs.errors import RunFailed
from mlld_sdk.runs.failures import what_ends
from mlld_sdk.supervision.events import ChildExited
from tests.support.agents import running
from tests.support.eventually import eventually


class Gateway(Actor):
    """Answers, keeps silent, or crashes."""

    def on_receive(self, message: Any) -> Any:
        if message == "silence":
            return self.sleep(300)
        if message == "crash":
            raise RuntimeError("no more")
        return message


class Fails(Agent):
    engine = "embedded"

    def run(self, job: Job, payload: Any) -> Any:
        if payload == "sleep":
            job.sleep(3600)
        raise ValueError("wrong")


def paused(runtime: Runtime, name: str) -> Any:
    if runtime.place(name)._tree.snapshot().children and name not in _stopped(runtime):
        runtime.pause(name, "for the test")
    return runtime[name]


def _stopped(runtime: Runtime) -> list[str]:
    return [node.name for node in runtime.snapshot().children if node.state == "stopped"]


def tripped(runtime: Runtime) -> Any:
    guard = runtime.place("gateway").breaker()
    assert guard is not None
    guard.trip()
    return runtime.place("gateway").call("hello")


def dead(runtime: Runtime) -> Any:
    ref = runtime.system.start(Gateway)
    ref.stop()
    return ref.call("hello", timeout=5)


REAL: dict[str, Callable[[Runtime], Any]] = {
    "BREAKER_OPEN": tripped,
    "ASK_TIMEOUT": lambda runtime: runtime.place("gateway").call("silence", timeout=0.05),
    "ACTOR_CRASHED": lambda runtime: runtime.place("gateway").ref().call("crash", timeout=30),
    "ACTOR_DEAD": dead,
    "CHILD_UNAVAILABLE": lambda runtime: paused(runtime, "gateway").call("hello"),
    "TRANSPORT_ERROR": lambda runtime: runtime["other"].process("run sh { kill -9 $PPID }"),
    "AGENT_UNAVAILABLE": lambda runtime: paused(runtime, "other").process("show `hello`"),
    "TIMEOUT": lambda runtime: runtime["pool"].process("run sh { sleep 30 }", timeout=0.2),
    "BACKPRESSURE": lambda runtime: [runtime["full"].process_async("run sh { sleep 30 }") for _ in range(2)],
    "EXCEPTION": lambda runtime: runtime["fails"].run().result(30),
    "TIMEOUT of a run": lambda runtime: runtime["fails"].run("sleep").result(0.05),
}


class Caller(Agent):
    """Calls what it is given by name."""

    engine = "embedded"
    runtime: Runtime
    what: str

    def call(self) -> Any:
        if self.what == "TRANSPORT_ERROR":
            self.runtime["other"].wait_until_up(30)
        return REAL[self.what](self.runtime)


class InStep(Caller):
    def run(self, job: Job, payload: Any) -> Any:
        return job.step("call", self.call, retry=Retry(attempts=2, delay=0))


class InAsyncStep(Caller):
    async def run(self, job: AsyncJob, payload: Any) -> Any:
        async def call() -> Any:
            return self.call()

        return await job.step("call", call, retry=Retry(attempts=2, delay=0))


class BetweenSteps(Caller):
    def run(self, job: Job, payload: Any) -> Any:
        job.step("first", lambda: None)
        return self.call()


class BetweenAsyncSteps(Caller):
    async def run(self, job: AsyncJob, payload: Any) -> Any:
        await job.step("first", lambda: None)
        return self.call()


def tree(kind: type[Agent]) -> Any:
    breaker = circuit_breaker(failures=100)
    return one_for_one(
        child(Gateway, breaker=breaker),
        child(Agent, name="other", engine="embedded"),
        child(Pool, name="pool", engine="embedded", size=1),
        child(Pool, name="full", engine="embedded", size=1, max_waiting=0),
        child(Fails, concurrency=3),
        child(kind, name="it"),
        max_restarts=20,
        within=60,
    )


@pytest.mark.parametrize("kind", [InStep, InAsyncStep, BetweenSteps, BetweenAsyncSteps])
@pytest.mark.parametrize("what", REAL)
def test_what_others_say_is_an_answer(kind: type[Caller], what: str, tmp_path: Path) -> None:
    with running(tree(kind), tmp_path, drain_timeout=0) as (runtime, seen):
        kind.runtime, kind.what = runtime, what
        agent = runtime["it"]
        before = agent.ref
        run = agent.run()
        with pytest.raises(RunFailed) as failed:
            run.result(60)
        assert failed.value.code == what.split()[0]
        assert agent.ref == before
        assert run.record().attempt == 1
        assert run.record().deaths == ()
        if kind in (InStep, InAsyncStep):
            assert [(step.state, step.attempts) for step in run.steps()] == [("failed", 2)]
        assert not [event for event in seen if isinstance(event, ChildExited) and event.path == "root/it"]


@pytest.mark.parametrize("where", ["in a step", "between steps"])
def test_an_engine_of_the_agent_itself_that_dies_under_a_request_of_its_run_ends_the_agent(
    where: str, tmp_path: Path
) -> None:
    class Selfish(Agent):
        engine = "embedded"
        engines = 2
        runtime: Runtime

        def ask(self) -> str:
            return str(self.runtime["it"].process("run sh { [ -e fine ] || { touch fine; kill -9 $PPID; }; echo ok }"))

        def run(self, job: Job, payload: Any) -> Any:
            return job.step("ask", self.ask, idempotent=True) if where == "in a step" else self.ask()

    with running(one_for_one(child(Selfish, name="it", working_dir=tmp_path), max_restarts=5), tmp_path) as (
        runtime,
        _,
    ):
        Selfish.runtime = runtime
        run = runtime["it"].run()
        assert run.result(60) == "ok\n"
        assert run.record().attempt == 2


def test_an_engine_under_a_step_that_dies_still_ends_the_agent(tmp_path: Path) -> None:
    class Asks(Agent):
        engine = "embedded"

        def run(self, job: Job, payload: Any) -> Any:
            script = "run sh { [ -e fine ] || { touch fine; kill -9 $PPID; }; echo ok }"
            return job.process(script, idempotent=True, retry=Retry(attempts=1))

    with running(one_for_one(child(Asks, name="it", working_dir=tmp_path), max_restarts=5), tmp_path) as (
        runtime,
        seen,
    ):
        assert runtime["it"].run().result(60) == "ok\n"
    assert [event for event in seen if isinstance(event, ChildExited) and event.path == "root/it"]


@pytest.mark.parametrize("where", ["in a step", "between steps"])
def test_a_run_is_handed_back_when_what_it_relies_on_is_stopped_before_its_agent(
    where: str, tmp_path: Path
) -> None:
    class Relies(Agent):
        engine = "embedded"
        runtime: Runtime

        def rely(self) -> None:
            while True:
                self.runtime.place("gateway").call("hello")

        def run(self, job: Job, payload: Any) -> Any:
            job.note("at work")
            return job.step("rely", self.rely, idempotent=True) if where == "in a step" else self.rely()

    class Lingers(Gateway):
        """Ends late, so that the error is there long before the agent is told to stop."""

        def on_stop(self) -> None:
            eventually(lambda: self.system.env.now() > told[0] + 0.3)

    told = [0.0]
    spec = one_for_one(child(Relies, name="it"), child(Lingers, name="lingers"), child(Gateway))
    with running(spec, tmp_path) as (runtime, seen):
        Relies.runtime = runtime
        run = runtime["it"].run(run_id="relies")
        eventually(run.notes)
        told[0] = runtime.env.now()
        runtime.stop(drain=False)
    assert not [event for event in seen if isinstance(event, ChildExited) and event.path == "root/it"]
    with Journal.open(tmp_path / "state.db") as journal:
        record = journal.run("relies")
        assert (record.state, record.deaths, record.parked) == ("pending", (), None)


def test_every_error_of_the_library_has_a_decision() -> None:
    import mlld_sdk.errors as errors
    from mlld_sdk.base.errors import InfrastructureError

    class Agent:
        def stops(self) -> bool:
            return False

        def crashes(self) -> bool:
            return False

    known = [getattr(errors, name) for name in errors.__all__]
    kinds = {kind for kind in known if isinstance(kind, type) and issubclass(kind, InfrastructureError)}

    def ending(*, on_own_engine: bool) -> set[str]:
        made = {kind: kind.__new__(kind) for kind in kinds}
        return {kind.__name__ for kind, one in made.items() if what_ends(one, Agent(), on_own_engine=on_own_engine)}

    journal = {name for name in ending(on_own_engine=False) if name.startswith(("Journal", "Record"))}
    assert ending(on_own_engine=False) - journal == {"StopAgent", "EscalateFailure"}
    assert {kind.__name__ for kind in kinds} - ending(on_own_engine=True) == {
        "CallTimeout", "NoEngineFree", "EngineQuotaExhausted", "TruncatedResult", "EngineOverloaded",
        "WaitTimeout", "LeaseHeld", "LeaseLost", "RunInQuarantine",
    }  # fmt: skip
