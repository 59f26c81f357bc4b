"""Agents: whatever dies, finished steps stay finished, callers get answers and nobody works twice."""

import asyncio
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import mlld_sdk
from mlld_sdk import (
    Agent,
    AgentHandle,
    AsyncJob,
    Job,
    Pool,
    Runtime,
    child,
    circuit_breaker,
    dynamic,
    one_for_all,
    one_for_one,
    wedge,
)
from mlld_sdk.actors.core.errors import AskTimeout, StartFailed
from mlld_sdk.actors.pubsub.groups import Groups
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError
from mlld_sdk.base.events import name_of
from mlld_sdk.errors import AgentUnavailable, JobCancelled, RunCancelled, RunFailed, RuntimeNotRunning, StepFailed
from mlld_sdk.journal.errors import IdempotencyConflict, RunNotParked, RunParked, ValueNotStorable, WaitTimeout
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.testing import Chaos
from mlld_sdk.transport.errors import EngineDied
from tests.support.agents import ENGINES, THINK, AgentFails, Thinker, calls, engine_options, engine_pid, running
from tests.support.eventually import eventually
from tests.support.trees import attempt


def tree(agent: type[Agent], engine: str, directory: Path, **options: Any) -> Any:
    options = {**engine_options(engine), "working_dir": directory, **options}
    return one_for_one(child(agent, name="agent", **options), max_restarts=10, within=10)


def gone(pid: int) -> bool:
    """Whether a process has ended, buried or not."""
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_is_the_sum_of_its_steps(engine: str, tmp_path: Path) -> None:
    with running(tree(Thinker, engine, tmp_path), tmp_path) as (runtime, _):
        run = runtime["agent"].run({"thoughts": 3})
        assert run.result(60) == ["thought 0", "thought 1", "thought 2"]
        assert [step.state for step in run.steps()] == ["finished"] * 3
        assert run.state == "finished"
    assert calls(tmp_path) == ["0", "1", "2"]


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_cut_in_silence(engine: str, tmp_path: Path) -> None:
    (tmp_path / "long.mld").write_text("show @payload.text\n")

    class Long(Agent):
        def run(self, job: Job, payload: str) -> list[Any]:
            result = job.execute("long.mld", {"text": payload})
            try:
                job.execute("long.mld", {"text": payload}, strict=True)
            except StepFailed as failed:
                return [len(result.output), result.truncated, failed.code]
            return [len(result.output), result.truncated, "whole"]

    with running(tree(Long, engine, tmp_path), tmp_path) as (runtime, seen):
        length, truncated, strict = runtime["agent"].run("x" * 9000).result(60)
    cut = (False, True, "TRUNCATED")
    assert (length == 9001, truncated, strict) == (cut if engine == "live" else (True, False, "whole"))
    assert "child.exited" not in [name_of(event) for event in seen]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_engine_costs_the_step_in_flight_and_nothing_else(engine: str, tmp_path: Path) -> None:
    options = {"checkpoint": True, "environ": {"PAUSE": "0.3"}}
    with running(tree(Thinker, engine, tmp_path, **options), tmp_path) as (runtime, seen):
        run = runtime["agent"].run({"thoughts": 4})
        eventually(lambda: len(calls(tmp_path)) == 3, within=60)
        os.kill(engine_pid(tmp_path), signal.SIGKILL)
        assert run.result(60) == [f"thought {n}" for n in range(4)]
        assert run.record().attempt == 2
    assert calls(tmp_path) == ["0", "1", "2", "2", "3"]
    assert [name_of(event) for event in seen].count("child.exited") == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_agent_takes_its_engine_with_it_and_its_successor_goes_on(engine: str, tmp_path: Path) -> None:
    options = {"checkpoint": True, "environ": {"PAUSE": "0.3"}}
    with running(tree(Thinker, engine, tmp_path, **options), tmp_path) as (runtime, _):
        run = runtime["agent"].run({"thoughts": 4})
        eventually(lambda: len(calls(tmp_path)) == 2, within=60)
        first = engine_pid(tmp_path)
        runtime["agent"].ref.kill("on purpose")
        eventually(lambda: gone(first))
        assert run.result(60) == [f"thought {n}" for n in range(4)]
    assert calls(tmp_path) == ["0", "1", "1", "2", "3"]


def test_a_run_goes_on_in_the_next_runtime_on_the_same_store(tmp_path: Path) -> None:
    class Patient(Thinker):
        def run(self, job: Job, payload: dict[str, Any]) -> list[str]:
            first = job.execute("think.mld", {"n": "first"}).output.strip()
            if not (tmp_path / "go").exists():
                job.execute("think.mld", {"n": "stuck"}, timeout=30)
            return [first, job.execute("think.mld", {"n": "last"}).output.strip()]

    options = {"environ": {"PAUSE": "0.2"}}
    with running(tree(Thinker, "embedded", tmp_path, checkpoint=True, **options), tmp_path) as (runtime, _):
        run_id = runtime["agent"].run({"thoughts": 8}).id
        eventually(lambda: len(calls(tmp_path)) == 3)
        runtime.stop(drain=False)
    with running(tree(Thinker, "embedded", tmp_path, checkpoint=True, **options), tmp_path) as (runtime, _):
        assert runtime.run(run_id).result(60) == [f"thought {n}" for n in range(8)]
    made = calls(tmp_path)
    assert sorted(set(made)) == [str(n) for n in range(8)]
    assert len(made) <= 9


def test_an_interrupted_step_that_nobody_declared_harmless_parks_the_run_by_name(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path, environ={"PAUSE": "0.3"}), tmp_path) as (runtime, _):
        run = runtime["agent"].run({"thoughts": 3})
        eventually(lambda: len(calls(tmp_path)) == 2)
        os.kill(engine_pid(tmp_path), signal.SIGKILL)
        with pytest.raises(RunParked, match=r"think\.mld"):
            run.result(60)
        letters = runtime.journal.dead_letters()
        assert [letter.run.id for letter in letters] == [run.id]
        run.retry(rerun_interrupted=True)
        runtime["agent"].run({"thoughts": 1, "prefix": "next "})
        assert run.result(60) == ["thought 0", "thought 1", "thought 2"]
    assert calls(tmp_path)[:3] == ["0", "1", "1"]


def test_a_run_that_keeps_killing_its_agent_is_parked_and_others_go_on(tmp_path: Path) -> None:
    class Deadly(Agent):
        def run(self, job: Job, payload: str) -> str:
            if payload == "poison":
                raise AgentFails("boom")
            return payload

    spec = one_for_one(child(Deadly, name="agent", engine="embedded"), max_restarts=50, within=10)
    with running(spec, tmp_path) as (runtime, _):
        poison, food = runtime["agent"].run("poison"), runtime["agent"].run("food")
        assert food.result(60) == "food"
        with pytest.raises(RunParked, match="boom"):
            poison.result(60)


def test_the_same_key_is_the_same_run(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path), tmp_path) as (runtime, _):
        agent = runtime["agent"]
        first, second = agent.run({"thoughts": 1}, key="k"), agent.run({"thoughts": 1}, key="k")
        assert first.id == second.id
        assert first.result(60) == second.result(60) == ["thought 0"]
        with pytest.raises(IdempotencyConflict):
            agent.run({"thoughts": 2}, key="k")
    assert calls(tmp_path) == ["0"]


def test_a_failing_script_is_an_answer_and_the_agent_lives_on(tmp_path: Path) -> None:
    (tmp_path / "bad.mld").write_text("show @nobody_defined_this\n")

    class Careful(Agent):
        def run(self, job: Job, payload: str) -> str:
            try:
                job.execute("bad.mld")
            except StepFailed as failed:
                return f"{payload}: {failed.code}"
            return "?"

    class Careless(Agent):
        def run(self, job: Job, payload: str) -> str:
            return job.execute("bad.mld").output

    spec = one_for_one(
        child(Careful, name="careful", engine="embedded", working_dir=tmp_path),
        child(Careless, name="careless", engine="embedded", working_dir=tmp_path),
    )
    with running(spec, tmp_path) as (runtime, seen):
        assert runtime["careful"].run("answered").result(60).startswith("answered: ")
        with pytest.raises(RunFailed, match="nobody_defined_this"):
            runtime["careless"].run(None).result(60)
    assert "child.exited" not in [name_of(event) for event in seen]


def test_a_failed_run_says_what_was_raised_and_where_to_whoever_waits_for_it(tmp_path: Path) -> None:
    class Careless(Agent):
        def run(self, job: Job, payload: str) -> None:
            if payload:
                raise LookupError(f"no {payload}")

    with running(one_for_one(child(Careless, name="careless", engine="embedded")), tmp_path) as (runtime, _):
        with pytest.raises(RunFailed, match="failed: LookupError: no topic") as failed:
            runtime["careless"].run("topic").result(60)
        assert 'raise LookupError(f"no {payload}")' in failed.value.__notes__[0]
        finished = runtime["careless"].run("")
        assert finished.result(60) is None
        with pytest.raises(RunNotParked, match="read its result"):
            finished.retry()


def test_a_step_in_plain_python_is_durable_too(tmp_path: Path) -> None:
    acted: list[str] = []

    class Mixed(Agent):
        def run(self, job: Job, payload: str) -> list[str]:
            first = job.step("first", lambda word: acted.append(word) or f"{word}!", payload)
            if job.attempt == 1:
                job.step("second", self.die)
            return [first, job.step("second", lambda: "done")]

        def die(self) -> None:
            raise AgentFails("the disk is gone")

    spec = one_for_one(child(Mixed, name="agent", engine="embedded"), max_restarts=5, within=10)
    with running(spec, tmp_path) as (runtime, _):
        run = runtime["agent"].run("once")
        with pytest.raises(RunParked, match="second"):  # it was begun as a step that may not be repeated
            run.result(60)
        run.retry(rerun_interrupted=True)
        runtime["agent"].run("another")
        assert run.result(60) == ["once!", "done"]
    assert acted.count("once") == 1


def test_branches_are_durable_whatever_their_order(tmp_path: Path) -> None:
    class Fan(Agent):
        engines = 3

        def run(self, job: Job, payload: int) -> list[str]:
            outputs = job.map(
                lambda n, branch: branch.execute("think.mld", {"n": str(n)}).output.strip(),
                range(payload),
                concurrency=3,
            )
            return [*outputs, job.execute("think.mld", {"n": "sum"}).output.strip()]

    options = {"checkpoint": True, "environ": {"PAUSE": "0.2"}}
    with running(tree(Fan, "embedded", tmp_path, **options), tmp_path) as (runtime, _):
        run = runtime["agent"].run(7)
        eventually(lambda: len(calls(tmp_path)) >= 4)
        os.kill(engine_pid(tmp_path), signal.SIGKILL)
        assert run.result(60) == [*(f"thought {n}" for n in range(7)), "thought sum"]
    made = calls(tmp_path)
    assert set(made) == {*map(str, range(7)), "sum"}
    assert len(made) <= 8 + 3


def test_async_code_awaits_its_steps_and_is_as_durable(tmp_path: Path) -> None:
    class Async(Agent):
        engines = 2

        async def run(self, job: AsyncJob, payload: int) -> list[str]:
            async def think(n: int, branch: AsyncJob) -> str:
                return (await branch.execute("think.mld", {"n": str(n)})).output.strip()

            async def add(a: int, b: int) -> int:
                await asyncio.sleep(0)
                return a + b

            thoughts = await job.map(think, range(payload), concurrency=2)
            return [*thoughts, str(await job.step("add", add, 2, 3))]

    with running(tree(Async, "embedded", tmp_path), tmp_path) as (runtime, _):
        run = runtime["agent"].run(3)
        assert run.result(60) == ["thought 0", "thought 1", "thought 2", "5"]

        async def wait() -> Any:
            return await runtime["agent"].run(1)

        assert asyncio.run(wait()) == ["thought 0", "5"]


def test_cancelling_a_run_kills_what_it_has_under_way(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path, environ={"PAUSE": "300"}), tmp_path) as (runtime, _):
        run = runtime["agent"].run({"thoughts": 2})
        eventually(lambda: calls(tmp_path))
        pid = engine_pid(tmp_path)
        run.cancel("changed my mind")
        with pytest.raises(RunCancelled, match="changed my mind"):
            run.result(60)
        eventually(lambda: not Path(f"/proc/{pid}").exists())
        eventually(lambda: runtime["agent"].status().state == "idle")
    assert calls(tmp_path) == ["0"]


def test_code_that_ignores_its_cancellation_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.agents.workload.CANCEL_GRACE", 0.1)
    gate = threading.Event()

    class Stubborn(Agent):
        def run(self, job: Job, payload: str) -> str:
            if payload == "stubborn":
                gate.wait(60)
                with pytest.raises(JobCancelled):
                    job.check()
            return payload

    spec = one_for_one(child(Stubborn, name="agent", engine="embedded"))
    with running(spec, tmp_path) as (runtime, _):
        stubborn = runtime["agent"].run("stubborn")
        eventually(lambda: stubborn.state == "running")
        stubborn.cancel()
        assert runtime["agent"].run("next").result(60) == "next"
        gate.set()


def test_a_run_that_misses_its_deadline_fails_by_that_name(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path, environ={"PAUSE": "300"}), tmp_path) as (runtime, _):
        run = runtime["agent"].run({"thoughts": 1}, deadline=0.5)
        with pytest.raises(RunFailed) as failed:
            run.result(60)
        assert failed.value.code == "RUN_DEADLINE_EXCEEDED"


def test_a_step_that_misses_its_deadline_is_answered_so_now_and_on_replay(tmp_path: Path) -> None:
    class Impatient(Agent):
        def run(self, job: Job, payload: None) -> str:
            try:
                job.execute("think.mld", {"n": "slow"}, timeout=2)
            except StepFailed as failed:
                if job.attempt == 1:
                    raise AgentFails("die after the answer") from failed
                return str(failed.code)
            return "?"

    with running(tree(Impatient, "embedded", tmp_path, environ={"PAUSE": "300"}), tmp_path) as (runtime, _):
        runtime["agent"].process('show "up"')  # the deadline is not for the start of an engine
        assert runtime["agent"].run(None).result(60) == "TIMEOUT"
    assert calls(tmp_path) == ["slow"]


def test_requests_beside_runs_are_answered_while_a_script_runs(tmp_path: Path) -> None:
    options = {"engines": 2, "environ": {"PAUSE": "1"}}
    with running(tree(Thinker, "embedded", tmp_path, **options), tmp_path) as (runtime, _):
        agent = runtime["agent"]
        run = agent.run({"thoughts": 1})
        eventually(lambda: calls(tmp_path))
        assert agent.status().state == "working"
        assert agent.status().runs == (run.id,)
        assert agent.process('show "beside"') == "beside\n"
        assert run.state == "running"
        assert run.result(60) == ["thought 0"]
        assert agent.analyze("think.mld").executables[0].name in ("think", "@think")


def test_an_engine_that_dies_under_a_request_crashes_the_agent_and_answers_the_caller(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path, environ={"PAUSE": "300"}), tmp_path) as (runtime, seen):
        agent = runtime["agent"]
        answers: list[Any] = []

        def ask() -> None:
            try:
                answers.append(agent.execute("think.mld", {"n": "x"}))
            except InfrastructureError as error:
                answers.append(error)

        asker = threading.Thread(target=ask)
        asker.start()
        eventually(lambda: calls(tmp_path))
        os.kill(engine_pid(tmp_path), signal.SIGKILL)
        asker.join(60)
        assert isinstance(answers[0], InfrastructureError)
        eventually(lambda: [name_of(event) for event in seen].count("child.started") == 2)
        assert agent.process('show "back"') == "back\n"


def test_options_change_while_the_agent_works(tmp_path: Path) -> None:
    (tmp_path / "one.mld").write_text('show "one"\n')
    (tmp_path / "two.mld").write_text('show "two"\n')
    spec = one_for_one(child(Agent, name="agent", engine="embedded", working_dir=tmp_path, script="one.mld"))
    with running(spec, tmp_path) as (runtime, seen):
        agent = runtime["agent"]
        assert agent.run().result(60) == "one\n"
        agent.configure(script="two.mld")
        assert agent.run().result(60) == "two\n"
        with pytest.raises(ConfigurationError, match="engine"):
            agent.configure(engine="live")
        assert agent.process('show "still there"') == "still there\n"
    assert [name_of(event) for event in seen].count("engine.started") == 1


def scripted(folder: Path, engine: str = "embedded", **options: Any) -> Any:
    """An agent that runs `one.mld`, which says so, and may be told to run `two.mld`."""
    for name in ("one", "two", "three"):
        (folder / f"{name}.mld").write_text(f'show "{name}"\n')
    options = {"script": "one.mld", **engine_options(engine), **options}
    return child(Agent, name="agent", working_dir=folder, **options)


@pytest.mark.parametrize("engine", ENGINES)
def test_options_given_to_a_working_agent_last_through_the_death_of_its_engine(
    engine: str, tmp_path: Path
) -> None:  # A-36, SUP-76
    with running(one_for_one(scripted(tmp_path, engine)), tmp_path) as (runtime, _):
        agent = runtime["agent"]
        agent.configure(script="two.mld")
        asyncio.run(agent.aio.configure(timeout=33.0))
        (tmp_path / "slow.mld").write_text(THINK.replace("${PAUSE:-0}", "60"))
        for _ in range(2):
            first = agent.ref
            (tmp_path / "calls.log").unlink(missing_ok=True)
            asker = threading.Thread(target=attempt, args=(lambda: agent.execute("slow.mld", {"n": 1}),))
            asker.start()
            eventually(lambda: calls(tmp_path))
            os.kill(engine_pid(tmp_path), signal.SIGKILL)
            asker.join(60)
            eventually(lambda first=first: agent.ref not in (None, first))
            assert agent.wait_until_up(60)
            assert agent.run().result(60) == "two\n"
        assert runtime.services.requests["root/agent"].timeout == 33.0
        assert "configured script='two.mld', timeout=33.0" in runtime.tree()


def test_an_agent_is_as_declared_after_it_was_stopped_or_restarted_on_purpose(tmp_path: Path) -> None:  # A-36, SUP-76
    with running(one_for_one(scripted(tmp_path)), tmp_path) as (runtime, _):
        agent = runtime["agent"]
        for again in (
            lambda: runtime.restart("agent", "to see"),
            lambda: (runtime.pause("agent", "to see"), runtime.resume("agent")),
        ):
            agent.configure(script="two.mld")
            assert agent.run().result(60) == "two\n"
            again()
            assert agent.run().result(60) == "one\n"
            assert "configured" not in runtime.tree()
        agent.configure(script="two.mld")
        agent.drain(60)
        runtime.resume("agent")  # takes runs again, and was not restarted
        assert agent.run().result(60) == "two\n"


def test_options_given_last_when_a_sibling_takes_the_agent_along(tmp_path: Path) -> None:  # A-36, SUP-76
    tree = one_for_all(scripted(tmp_path), child(Thinker, name="sibling", engine="embedded", working_dir=tmp_path))
    with running(tree, tmp_path) as (runtime, _):
        agent = runtime["agent"]
        agent.configure(script="two.mld")
        first = agent.ref
        Chaos(runtime).kill_actor("sibling")
        eventually(lambda: agent.ref not in (None, first))
        assert agent.run().result(60) == "two\n"


def test_an_agent_is_in_its_groups_again_after_the_death_of_its_engine(tmp_path: Path) -> None:  # A-9, SUP-77
    with running(tree(Thinker, "embedded", tmp_path, groups=["thinkers"], environ={"PAUSE": "60"}), tmp_path) as (
        runtime,
        _,
    ):
        agent, groups = runtime["agent"], Groups.of(runtime.system)
        first = agent.ref
        assert groups.members("thinkers") == [first]
        run = agent.run({"thoughts": 1})
        eventually(lambda: calls(tmp_path))
        os.kill(engine_pid(tmp_path), signal.SIGKILL)
        assert first.join(60) is not None
        assert first not in groups.members("thinkers")
        assert agent.wait_until_up(60)
        assert groups.members("thinkers") == [agent.ref]
        run.cancel()
        runtime.pause("agent", "to see")
        assert groups.members("thinkers") == []


def test_options_given_last_under_a_dynamic_supervisor_as_long_as_the_child_is_there(tmp_path: Path) -> None:
    with running(one_for_one(dynamic(name="crowd")), tmp_path) as (runtime, _):
        crowd = runtime.place("crowd").supervisor()
        spec = child(scripted(tmp_path), restart="permanent")
        first = crowd.start_child(spec)
        agent = runtime["agent"]
        agent.configure(script="two.mld")
        Chaos(runtime).kill_actor("agent")
        eventually(lambda: agent.ref not in (None, first))
        assert agent.run().result(60) == "two\n"
        crowd.terminate_child(agent.ref)
        crowd.start_child(spec)
        assert agent.run().result(60) == "one\n"


def test_another_declaration_replaces_what_was_given(tmp_path: Path) -> None:  # A-36, SUP-76
    with running(one_for_one(scripted(tmp_path)), tmp_path) as (runtime, _):
        agent = runtime["agent"]
        agent.configure(script="two.mld")
        runtime.supervisor.update(one_for_one(scripted(tmp_path)))  # the same: nothing has changed
        assert "configured" in runtime.tree()
        runtime.supervisor.update(one_for_one(scripted(tmp_path, script="three.mld")))
        assert "configured" not in runtime.tree()
        first = agent.ref
        Chaos(runtime).kill_actor("agent")
        eventually(lambda: agent.ref not in (None, first))
        assert agent.run().result(60) == "three\n"


def test_idle_engines_hibernate_and_wake_with_the_next_request(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path, hibernate_after=0.05), tmp_path) as (runtime, _):
        agent = runtime["agent"]
        agent.process('show "awake"')
        eventually(lambda: agent.status().engines.idle == 0)
        assert agent.process('show "again"') == "again\n"


def test_a_missing_program_fails_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    spec = one_for_one(child(Thinker, name="agent", command="no-such-mlld", engine="live"))
    with pytest.raises(StartFailed, match="no-such-mlld"), running(spec, tmp_path):
        pass


def test_nobody_is_there_is_said_at_once(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path), tmp_path) as (runtime, _):
        agent = runtime["agent"]
        runtime.supervisor.terminate_child("agent")
        with pytest.raises(AgentUnavailable, match="agent"):
            agent.process('show "hello"')
        waiting = agent.run({"thoughts": 1})
        with pytest.raises(WaitTimeout):
            waiting.result(0.05)
        runtime.supervisor.restart_child("agent")
        assert waiting.result(60) == ["thought 0"]


def test_a_payload_that_cannot_be_kept_is_refused_before_anything_happens(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path), tmp_path) as (runtime, _):
        with pytest.raises(ValueNotStorable):
            runtime["agent"].run({"thoughts": object()})
        assert runtime.journal.runs() == []


def test_a_result_that_cannot_be_kept_fails_the_run_by_name(tmp_path: Path) -> None:
    class Odd(Agent):
        def run(self, job: Job, payload: None) -> Any:
            return {1, 2, 3}

    with running(one_for_one(child(Odd, name="agent", engine="embedded")), tmp_path) as (runtime, _):
        with pytest.raises(RunFailed) as failed:
            runtime["agent"].run().result(60)
        assert failed.value.code == "VALUE_NOT_STORABLE"


def test_an_agent_without_anything_to_run_says_so(tmp_path: Path) -> None:
    with (
        running(one_for_one(child(Agent, name="agent", engine="embedded")), tmp_path) as (runtime, _),
        pytest.raises(RunFailed, match="nothing to run"),
    ):
        runtime["agent"].run().result(60)


def test_draining_waits_for_the_run_and_leaves_the_next_for_later(tmp_path: Path) -> None:
    with running(tree(Thinker, "embedded", tmp_path, environ={"PAUSE": "0.2"}), tmp_path) as (runtime, _):
        first = runtime["agent"].run({"thoughts": 2})
        eventually(lambda: calls(tmp_path))
        second = runtime["agent"].run({"thoughts": 1})
        runtime["agent"].drain(20)
        assert (first.state, second.state) == ("finished", "pending")


def test_draining_that_takes_too_long_raises_what_its_documentation_names(tmp_path: Path) -> None:
    names = re.findall(r"^ +(\w+Timeout): ", AgentHandle.drain.__doc__ or "", re.MULTILINE)
    assert names
    assert all(getattr(mlld_sdk, name, AskTimeout) is AskTimeout for name in names)  # no other class of that name
    with running(tree(Thinker, "embedded", tmp_path, environ={"PAUSE": "0.5"}), tmp_path) as (runtime, _):
        runtime["agent"].run({"thoughts": 1})
        eventually(lambda: calls(tmp_path))
        with pytest.raises(AskTimeout) as late:
            runtime["agent"].drain(0.01)
        assert type(late.value).__name__ in names


def test_a_wedged_run_is_killed_and_climbs_the_ladder(tmp_path: Path) -> None:
    class Model(Agent):
        def __init__(self, model: str = "small", **options: Any) -> None:
            super().__init__(**options)
            self.model = model

        def run(self, job: Job, payload: None) -> str:
            pause = "300" if self.model == "small" else "0"
            return job.process(f'run sh {{ sleep {pause} }}\nshow "{self.model}"', idempotent=True).strip()

    spec = one_for_one(
        child(Model, name="agent", engine="embedded", wedge=wedge(3, times=1, ladder=[{"model": "large"}])),
        max_restarts=10,
        within=10,
    )
    with running(spec, tmp_path) as (runtime, seen):
        assert runtime["agent"].run().result(60) == "large"
    assert [name_of(event) for event in seen].count("child.wedged") == 1


@pytest.mark.parametrize("kind", [Agent, Pool])
def test_requests_go_through_the_breaker_in_front(kind: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    ask = "exe @ask() = sh { [ ! -e broken ] || kill -KILL $PPID; echo fine; }\nshow @ask()"
    policy = circuit_breaker(failures=2, open_for=2)
    spec = one_for_one(child(kind, name="it", engine="embedded", working_dir=tmp_path, breaker=policy), max_restarts=9)
    with running(spec, tmp_path) as (runtime, seen):
        guard = runtime.place("root/it").breaker()
        assert guard is not None
        with pytest.raises(InfrastructureError):
            runtime["it"].process(ask)
        eventually(lambda: guard.view().failures == 1 and runtime["it"].ref)
        with pytest.raises(InfrastructureError):
            runtime["it"].process(ask)
        eventually(lambda: guard.view().status == "open")
        with pytest.raises(BreakerOpen) as refused:
            runtime["it"].process('show "not even this"')
        assert 0 < refused.value.retry_after <= 2
        broken.unlink()
        eventually(lambda: guard.view().status == "half_open")
        assert runtime["it"].process(ask) == "fine\n"
        assert guard.view().status == "closed"
    assert [name_of(event) for event in seen if name_of(event).startswith("breaker")] == [
        "breaker.opened",
        "breaker.half_opened",
        "breaker.closed",
    ]


def test_a_rung_may_bring_other_engines(tmp_path: Path) -> None:
    ask = "run sh { if [ $MODEL = small ]; then sleep 300; fi; echo $MODEL }"

    class Model(Agent):
        def run(self, job: Job, payload: None) -> str:
            return job.process(ask, idempotent=True).strip()

    ladder = [{"environ": {"MODEL": "large"}}]
    given = {"engine": "embedded", "environ": {"MODEL": "small"}, "wedge": wedge(3, times=1, ladder=ladder)}
    with running(one_for_one(child(Model, name="agent", **given), max_restarts=10, within=10), tmp_path) as (
        runtime,
        _,
    ):
        assert runtime["agent"].run().result(60) == "large"


def test_who_waits_for_an_agent_to_be_back_meets_the_next_incarnation() -> None:
    tree = one_for_one(child(Agent, name="a", engine="embedded"), max_restarts=100, within=60.0)
    with Runtime(tree) as runtime:
        agent = runtime.agent("a")
        for _ in range(10):
            assert agent.wait_until_up(60)
            before = agent.ref
            with pytest.raises(EngineDied):
                agent.process("run sh { kill -9 $PPID }")
            assert agent.wait_until_up(60)
            assert agent.ref not in (None, before)
            assert agent.process('show "back"').strip() == "back"
    with pytest.raises(RuntimeNotRunning):
        agent.wait_until_up(0.01)
