"""Agents under code that misbehaves and under ends at the worst moment."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, AsyncJob, Job, child, one_for_one
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError
from mlld_sdk.base.events import name_of
from mlld_sdk.errors import RunFailed, StepFailed
from mlld_sdk.journal.errors import RunParked
from tests.support.agents import AgentFails, calls, running
from tests.support.eventually import eventually


def only(agent: type[Agent], **options: Any) -> Any:
    return one_for_one(child(agent, name="agent", engine="embedded", **options), max_restarts=10, within=10)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
def test_code_that_ends_with_more_than_an_exception_fails_its_run_and_no_agent(
    error: BaseException, tmp_path: Path
) -> None:
    class Odd(Agent):
        def run(self, job: Job, payload: str) -> str:
            if payload == "odd":
                raise error
            return payload

    with running(only(Odd), tmp_path) as (runtime, seen):
        odd, plain = runtime["agent"].run("odd"), runtime["agent"].run("plain")
        with pytest.raises(RunFailed) as failed:
            odd.result(60)
        assert failed.value.record.type == type(error).__name__
        assert plain.result(60) == "plain"
    assert "child.exited" not in [name_of(event) for event in seen]


def test_a_step_that_exits_is_an_answer_now_and_on_replay(tmp_path: Path) -> None:
    acted: list[int] = []

    class Exits(Agent):
        def run(self, job: Job, payload: None) -> str:
            try:
                job.step("leave", self.leave)
            except StepFailed as failed:
                if job.attempt == 1:
                    raise AgentFails("once more") from failed
                return str(failed.type)
            return "?"

        def leave(self) -> None:
            acted.append(1)
            sys.exit(1)

    with running(only(Exits), tmp_path) as (runtime, _):
        assert runtime["agent"].run().result(60) == "SystemExit"
    assert acted == [1]


def test_a_step_inside_a_step_is_refused_by_name(tmp_path: Path) -> None:
    class Nested(Agent):
        def run(self, job: Job, payload: None) -> str:
            job.step("outer", lambda: job.step("inner", lambda: 1))
            return "?"

    with running(only(Nested), tmp_path) as (runtime, _), pytest.raises(RunFailed, match="under way"):
        runtime["agent"].run().result(60)


def test_two_threads_on_one_job_are_refused_by_name(tmp_path: Path) -> None:
    class Shared(Agent):
        def run(self, job: Job, payload: None) -> list[str]:
            inside, leave = threading.Event(), threading.Event()

            def slow() -> None:
                inside.set()
                leave.wait(60)

            first = threading.Thread(target=lambda: job.step("first", slow))
            first.start()
            inside.wait(60)
            said = []
            for ask in (lambda: job.step("second", int), lambda: job.map(lambda n, _: n, [1])):
                try:
                    ask()
                except ConfigurationError as error:
                    said.append(error.code)
            leave.set()
            first.join()
            return said

    with running(only(Shared), tmp_path) as (runtime, _):
        assert runtime["agent"].run().result(60) == ["STEPS_OVERLAP"] * 2


def test_steps_of_one_async_job_are_refused_side_by_side(tmp_path: Path) -> None:
    class Gathers(Agent):
        async def run(self, job: AsyncJob, payload: None) -> None:
            async def wait() -> None:
                await asyncio.sleep(3600)

            await asyncio.gather(job.step("a", wait), job.step("b", wait))

    with running(only(Gathers), tmp_path) as (runtime, _), pytest.raises(RunFailed, match="under way"):
        runtime["agent"].run().result(60)


def test_async_branches_may_nest_as_wide_as_they_like(tmp_path: Path) -> None:
    class Wide(Agent):
        async def run(self, job: AsyncJob, payload: int) -> int:
            async def leaf(n: int, branch: AsyncJob) -> int:
                async def work() -> int:
                    return await asyncio.to_thread(lambda: n)

                return await branch.step("leaf", work)

            async def row(n: int, branch: AsyncJob) -> int:
                return sum(await branch.map(leaf, [n, n], concurrency=2))

            return sum(await job.map(row, range(payload), concurrency=payload))

    with running(only(Wide), tmp_path) as (runtime, _):
        assert runtime["agent"].run(80).result(60) == 2 * sum(range(80))


def test_a_step_whose_time_passes_while_it_waits_for_an_engine_is_answered_so(tmp_path: Path) -> None:
    class Crowd(Agent):
        def run(self, job: Job, payload: None) -> list[str]:
            def think(n: int, branch: Job) -> str:
                if n == 0:
                    return branch.execute("think.mld", {"n": "long"}).output.strip()
                eventually(lambda: calls(tmp_path), within=60)
                with pytest.raises(StepFailed) as late:
                    branch.execute("think.mld", {"n": "late"}, timeout=0.05)
                return str(late.value.code)

            return job.map(think, range(2), concurrency=2)

    with running(only(Crowd, working_dir=tmp_path, environ={"PAUSE": "2"}), tmp_path) as (runtime, seen):
        assert runtime["agent"].run().result(60) == ["thought long", "TIMEOUT"]
    assert calls(tmp_path) == ["long"]
    assert "child.exited" not in [name_of(event) for event in seen]


def test_code_that_goes_on_after_its_deadline_loses_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.agents.workload.CANCEL_GRACE", 0.05)
    gate = threading.Event()

    class Deaf(Agent):
        def run(self, job: Job, payload: str) -> str:
            if payload == "deaf":
                gate.wait(60)
            return payload

    with running(only(Deaf), tmp_path) as (runtime, _):
        try:
            deaf = runtime["agent"].run("deaf", deadline=0.1)
            with pytest.raises(RunFailed):
                deaf.result(60)
            assert runtime["agent"].run("next").result(60) == "next"
        finally:
            gate.set()


def test_a_deadline_that_passes_in_the_queue_is_said_without_waiting_for_a_turn(tmp_path: Path) -> None:
    gate = threading.Event()

    class Busy(Agent):
        def run(self, job: Job, payload: str) -> str:
            gate.wait(60)
            return payload

    with running(only(Busy), tmp_path) as (runtime, _):
        try:
            first = runtime["agent"].run("first")
            eventually(lambda: first.state == "running")
            with pytest.raises(RunFailed, match="deadline"):
                runtime["agent"].run("second", deadline=0.05).result(60)
        finally:
            gate.set()
        assert first.result(60) == "first"


def test_cancelling_a_run_that_waits_for_an_engine_ends_the_wait_and_costs_no_engine(tmp_path: Path) -> None:
    class Asks(Agent):
        concurrency = 2

        def run(self, job: Job, payload: str) -> str:
            return job.process('show "asked"')

    with running(one_for_one(child(Asks, name="agent", engine="embedded")), tmp_path) as (runtime, seen):
        agent = runtime["agent"]
        pool = runtime.services.engine_pools()["root/agent"]
        with pool.lease(10):
            run = agent.run("waits")
            eventually(lambda: pool.status().waiting == 1)
            run.cancel()
            eventually(lambda: pool.status().waiting == 0 and agent.status().runs == ())
        assert agent.process('show "fine"') == "fine\n"
    assert [name_of(event) for event in seen].count("engine.started") == 1


def test_an_agent_killed_between_claim_and_work_lets_go_of_the_run(tmp_path: Path) -> None:
    class Plain(Agent):
        concurrency = 3

        def run(self, job: Job, payload: int) -> int:
            return payload

    with running(only(Plain), tmp_path) as (runtime, _):
        journal, killed = runtime.journal, threading.Event()
        claim = journal.claim_unfinished

        def claim_and_die(*args: Any, **options: Any) -> Any:
            leases = claim(*args, **options)
            if leases and not killed.is_set():
                killed.set()
                killer = threading.Thread(target=lambda: runtime["agent"].ref.kill("at the worst moment"))
                killer.start()
                killer.join()
            return leases

        journal.claim_unfinished = claim_and_die  # type: ignore[method-assign]
        runs = [runtime["agent"].run(n) for n in range(3)]
        assert [run.result(60) for run in runs] == [0, 1, 2]
        assert killed.is_set()


def test_a_run_that_waits_for_its_own_agent_is_told_so(tmp_path: Path) -> None:
    class Parent(Agent):
        def run(self, job: Job, payload: int) -> Any:
            if payload == 0:
                return "child"
            if payload == 1:
                return job.step("child", lambda: handle().run(0).result(60))
            return job.map(lambda _, branch: handle().run(0).result(60), [1])

    class Awaits(Agent):
        async def run(self, job: AsyncJob, payload: int) -> Any:
            return await handle().run(0)

    with running(only(Parent), tmp_path) as (runtime, _):

        def handle() -> Any:
            return runtime["agent"]

        for payload in (1, 2):
            with pytest.raises(RunFailed, match="waits for"):
                handle().run(payload).result(60)
    with running(only(Awaits), tmp_path) as (runtime, _), pytest.raises(RunFailed, match="waits for"):
        handle().run(1).result(60)
    with running(only(Parent, concurrency=2), tmp_path) as (runtime, _):
        assert handle().run(1).result(60) == "child"


def test_code_that_swallows_every_refusal_does_not_pile_up_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlld_sdk.agents.workload.CANCEL_GRACE", 0.05)
    depth: list[int] = []
    gate = threading.Event()

    class Stubborn(Agent):
        def run(self, job: Job, payload: None) -> None:
            gate.wait(60)
            for _ in range(200):
                try:
                    job.step("again", int)
                except BaseException as error:
                    at, length = error.__traceback__, 0
                    while at is not None:
                        at, length = at.tb_next, length + 1
                    depth.append(length)

    with running(only(Stubborn), tmp_path) as (runtime, _):
        run = runtime["agent"].run()
        eventually(lambda: run.state == "running")
        run.cancel()
        gate.set()
        eventually(lambda: len(depth) == 200)
    assert max(depth) <= 5


def test_a_swallowed_interruption_parks_the_run_all_the_same(tmp_path: Path) -> None:
    class Swallows(Agent):
        def run(self, job: Job, payload: None) -> str:
            try:
                job.step("once", self.die, job.attempt)
            except Exception:
                if job.attempt == 1:
                    raise
            return "as if nothing had happened"

        def die(self, attempt: int) -> None:
            raise AgentFails("gone")

    class Same(Swallows):
        def run(self, job: Job, payload: None) -> str:
            try:
                job.step("once", self.fall)
            except Exception:
                if job.attempt == 1:
                    raise
            return "as if nothing had happened"

        def fall(self) -> None:
            raise AgentFails("gone")

    with running(only(Same), tmp_path) as (runtime, _), pytest.raises(RunParked, match="once"):
        runtime["agent"].run().result(60)


def test_a_warm_spare_outlives_the_crash_of_its_agent(tmp_path: Path) -> None:
    with running(only(Agent, spares=1), tmp_path) as (runtime, _):
        agent, pool = runtime["agent"], runtime.services.engine_pools()["root/agent"]
        agent.process('show "up"')
        eventually(lambda: pool.status().idle == 2)
        started = pool.status().started
        crashed = agent.ref
        with pytest.raises(InfrastructureError):
            agent.process("run sh { kill -KILL $PPID; }")
        eventually(lambda: agent.ref not in (None, crashed))
        assert agent.process("run sh { echo warm; }").strip() == "warm"
        assert runtime.services.engine_pools()["root/agent"] is pool
        assert pool.status().started <= started + 2


def test_async_code_of_a_cancelled_run_is_ended_where_it_waits(tmp_path: Path) -> None:
    ended = threading.Event()

    class Sleeps(Agent):
        async def run(self, job: AsyncJob, payload: str) -> str:
            if payload == "sleep":
                try:
                    await asyncio.sleep(3600)
                finally:
                    ended.set()
            return payload

    with running(only(Sleeps), tmp_path) as (runtime, seen):
        asleep = runtime["agent"].run("sleep")
        eventually(lambda: asleep.state == "running")
        asleep.cancel()
        assert ended.wait(60)
        assert runtime["agent"].run("next").result(60) == "next"
    assert "child.exited" not in [name_of(event) for event in seen]


def test_endless_is_a_deadline_too(tmp_path: Path) -> None:
    class Asks(Agent):
        def run(self, job: Job, payload: None) -> str:
            return job.process('show "x"', timeout=float("inf"))

    with running(only(Asks), tmp_path) as (runtime, _):
        pool = runtime.services.engine_pools()["root/agent"]
        with pool.lease(10):
            run = runtime["agent"].run(deadline=float("inf"))
            eventually(lambda: pool.status().waiting == 1)
        assert run.result(float("inf")) == "x\n"
