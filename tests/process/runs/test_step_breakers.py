"""Steps go through circuit breakers: what they report, what they wait for, and what ends the waiting (A-42 to A-46)."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, AsyncJob, Job, Retry, Runtime, child, circuit_breaker, one_for_one, wedge
from mlld_sdk.actors import Actor
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.events import Event
from mlld_sdk.journal import Journal
from mlld_sdk.runs.errors import RunCancelled, RunFailed, StepFailed
from mlld_sdk.runs.events import StepHeld
from mlld_sdk.supervision.breaker import Breaker
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.supervision.events import BreakerOpened, ChildExited
from mlld_sdk.telemetry.prometheus import export_metrics
from mlld_sdk.testing import FakeClock
from tests.support.agents import AgentFails, running
from tests.support.eventually import eventually

LONG = 600.0


class Provider:
    """What steps call: it fails, answers, or keeps its callers until it is let go."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.error: BaseException | None = OSError("503")
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self, what: Any = None) -> Any:
        self.calls.append(what)
        assert self.goes_on.wait(60)
        if self.error is not None:
            raise self.error
        return what


class Asks(Agent):
    """Asks the provider in one step."""

    engine = "embedded"
    provider: Provider
    retry: Retry | None = None

    def run(self, job: Job, payload: Any) -> Any:
        return job.step("ask", type(self).provider, payload, idempotent=True, retry=type(self).retry)


class AsksAsync(Asks):
    async def run(self, job: AsyncJob, payload: Any) -> Any:
        async def ask(what: Any) -> Any:
            return type(self).provider(what)

        return await job.step("ask", ask, payload, idempotent=True, retry=type(self).retry)


@contextmanager
def asking(
    tmp_path: Path, kind: type[Asks] = Asks, *, retry: Retry | None = None, policy: Any = None, **options: Any
) -> Iterator[tuple[Runtime, Provider, Breaker, list[Event]]]:
    """Run an agent whose steps go through the breaker `model`."""
    policy = policy or circuit_breaker("model", failures=3, within=LONG, open_for=LONG, longest=LONG)
    provider = Provider()
    made: Any = type("It", (kind,), {"provider": provider, "retry": retry})
    tree = one_for_one(child(made, name="it", breaker=policy, **{"concurrency": 8, **options}), max_restarts=20)
    with running(tree, tmp_path, drain_timeout=0) as (runtime, seen):
        yield runtime, provider, runtime.breakers["model"], seen


def failed(runtime: Runtime, payload: Any = None) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        runtime["it"].run(payload).result(60)
    return caught.value


def waiting(runtime: Runtime, many: int = 1) -> list[Any]:
    return eventually(lambda: (found := runtime["it"].status().waiting) and len(found) == many and list(found))


# -- what is reported --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Asks, AsksAsync])
def test_failing_steps_open_the_breaker_their_agent_was_declared_with(kind: type[Asks], tmp_path: Path) -> None:
    with asking(tmp_path, kind) as (runtime, provider, guard, seen):
        assert runtime.snapshot().children[0].breaker is not None
        assert "breaker closed" in runtime.tree()
        for number in range(1, 4):
            assert guard.view().status == "closed"
            assert guard.view().failures == number - 1
            failed(runtime)
        assert guard.view().status == "open"
        assert guard.view().cause == "OSError: 503"
        assert "breaker open" in runtime.tree()
        assert runtime.verdict().word == "degraded"
        assert [event.breaker for event in seen if isinstance(event, BreakerOpened)] == ["model"]
        assert not [event for event in seen if isinstance(event, ChildExited)]
        assert len(provider.calls) == 3


def test_each_attempt_is_one_result(tmp_path: Path) -> None:
    with asking(tmp_path, retry=Retry(attempts=2, delay=0)) as (runtime, provider, guard, _):
        failed(runtime)
        assert guard.view().failures == 2
        provider.error = None
        assert runtime["it"].run("fine").result(60) == "fine"
        assert guard.view().failures == 0


def test_a_success_between_failures_begins_the_count_anew_and_a_retry_may_open_it(tmp_path: Path) -> None:
    with asking(tmp_path, retry=Retry(attempts=9, delay=0)) as (runtime, provider, guard, _):
        run = runtime["it"].run("patient")
        (wait,) = waiting(runtime)
        assert (wait.run_id, wait.step, wait.breaker) == (run.id, "ask", "model")
        assert 0 < wait.retry_after <= LONG
        assert len(provider.calls) == 3
        assert [(step.state, step.attempts) for step in run.steps()] == [("failed", 3)]
        provider.error = None
        guard.reset()
        assert run.result(60) == "patient"
        assert [(step.state, step.attempts) for step in run.steps()] == [("finished", 4)]


@pytest.mark.parametrize("method", ["execute", "process"])
def test_scripts_that_fail_count_as_steps_that_fail(method: str, tmp_path: Path) -> None:
    (tmp_path / "ask.mld").write_text("show @nobody_defined_this\n")

    class Scripts(Agent):
        def run(self, job: Job, payload: Any) -> Any:
            if method == "execute":
                return job.execute("ask.mld").output
            return job.process("show @nobody_defined_this")

    policy = circuit_breaker("model", failures=2, open_for=LONG, longest=LONG)
    tree = one_for_one(child(Scripts, name="it", engine="embedded", working_dir=tmp_path, breaker=policy))
    with running(tree, tmp_path) as (runtime, _):
        failed(runtime)
        assert runtime.breakers["model"].view().failures == 1
        failed(runtime)
        assert runtime.breakers["model"].view().status == "open"


def test_a_request_beside_runs_whose_script_fails_counts_for_nothing_as_before(tmp_path: Path) -> None:
    with asking(tmp_path) as (runtime, _, guard, _):
        with pytest.raises(Exception, match="nobody"):
            runtime["it"].process("show @nobody_defined_this")
        assert guard.view().failures == 0


def test_a_result_that_is_not_accepted_counts_as_a_failure(tmp_path: Path) -> None:
    class Picky(Asks):
        def run(self, job: Job, payload: Any) -> Any:
            return job.step("ask", type(self).provider, payload, accept=bool)

    with asking(tmp_path, Picky) as (runtime, provider, guard, _):
        provider.error = None
        assert failed(runtime, "").code == "STEP_NOT_ACCEPTED"
        assert guard.view().failures == 1
        assert runtime["it"].run("fine").result(60) == "fine"
        assert guard.view().failures == 0


def test_the_policy_of_a_breaker_may_say_itself_what_counts(tmp_path: Path) -> None:
    policy = circuit_breaker(
        "model", failures=1, open_for=LONG, longest=LONG, counts=lambda it: isinstance(it, OSError)
    )
    with asking(tmp_path, policy=policy) as (runtime, provider, guard, _):
        provider.error = ValueError("mine")
        failed(runtime)
        assert guard.view().status == "closed"
        provider.error = OSError("theirs")
        failed(runtime)
        assert guard.view().status == "open"


def test_what_says_nothing_about_the_provider_is_not_reported(tmp_path: Path) -> None:
    with asking(tmp_path) as (runtime, provider, guard, _):
        errors = [ConfigurationError("wrong"), RunCancelled("other", None), BreakerOpen("model", 1.0), SystemExit(1)]
        for error in errors:
            provider.error = error
            failed(runtime)
            assert guard.view().failures == 0, error
        provider.error = OSError("503")
        failed(runtime)
        assert guard.view().failures == 1
        provider.error = BreakerOpen("another", 1.0)
        failed(runtime)
        assert guard.view().failures == 2


def test_a_result_that_cannot_be_stored_is_no_failure_of_the_provider(tmp_path: Path) -> None:
    class Strange(Asks):
        def run(self, job: Job, payload: Any) -> Any:
            return job.step("ask", lambda: {1, 2})

    with asking(tmp_path, Strange) as (runtime, _, guard, _):
        assert failed(runtime).code == "VALUE_NOT_STORABLE"
        assert guard.view().failures == 0


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_run_that_is_cancelled_or_late_during_its_call_reports_nothing(how: str, tmp_path: Path) -> None:
    with asking(tmp_path) as (runtime, provider, guard, _):
        provider.goes_on.clear()
        run = runtime["it"].run(deadline=None if how == "cancel" else 1.0)
        eventually(lambda: provider.calls)
        if how == "cancel":
            run.cancel()
        with pytest.raises((RunCancelled, RunFailed)):
            run.result(60)
        runtime["it"].status()  # answered when the agent has dealt with it
        provider.goes_on.set()
        eventually(lambda: not runtime["it"].status().runs)
        assert guard.view().failures == 0


def test_a_failure_that_is_replayed_is_not_reported_again_and_does_not_wait(tmp_path: Path) -> None:
    class Replays(Asks):
        def run(self, job: Job, payload: Any) -> Any:
            try:
                job.step("ask", type(self).provider)
            except StepFailed:
                if job.attempt == 1:
                    raise AgentFails("after the failure") from None
            return job.attempt

    policy = circuit_breaker("model", failures=2, open_for=LONG, longest=LONG)
    with asking(tmp_path, Replays, policy=policy) as (runtime, provider, guard, _):
        assert runtime["it"].run().result(60) == 2
        assert guard.view().status == "open"  # the step and the crash
        assert len(provider.calls) == 1


def test_the_death_of_an_engine_under_a_step_is_one_failure_of_the_breaker_in_front(tmp_path: Path) -> None:
    class Kills(Asks):
        def run(self, job: Job, payload: Any) -> Any:
            script = "run sh { [ -e fine ] || { touch fine; kill -9 $PPID; }; echo ok }"
            return job.process(script, idempotent=True, file_path=None)

    with asking(tmp_path, Kills, working_dir=tmp_path) as (runtime, _, guard, seen):
        run = runtime["it"].run()
        eventually(lambda: [event for event in seen if isinstance(event, ChildExited)])
        assert run.result(60) == "ok\n"
        assert guard.view().passed >= 2
    assert not [event for event in seen if isinstance(event, BreakerOpened)]


def test_a_step_and_the_place_it_calls_may_share_a_breaker(tmp_path: Path) -> None:
    class Gateway(Actor):
        answers = (OSError,)
        fails = True

        def on_receive(self, message: Any) -> Any:
            if type(self).fails:
                raise OSError("503")
            return message

    class Calls(Agent):
        engine = "embedded"
        runtime: Runtime

        def run(self, job: Job, payload: Any) -> Any:
            return job.step("call", lambda: type(self).runtime.place("gateway").call(payload))

    policy = circuit_breaker("model", failures=3, open_for=0.05, growth=1, probes=1)
    tree = one_for_one(child(Gateway, breaker=policy), child(Calls, name="it", breaker=policy))
    with running(tree, tmp_path) as (runtime, seen):
        Calls.runtime = runtime
        failed(runtime)
        assert runtime.breakers["model"].view().failures == 1
        failed(runtime)
        failed(runtime)
        assert [event for event in seen if isinstance(event, BreakerOpened)]
        Gateway.fails = False
        assert runtime["it"].run("fine").result(60) == "fine"
        assert runtime.breakers["model"].view().status == "closed"


def test_metrics_show_a_breaker_from_the_start_and_who_waits_for_it(tmp_path: Path) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    with asking(tmp_path) as (runtime, _, guard, _):
        export_metrics(runtime, registry)
        labels = {"path": "root/it", "breaker": "model"}

        def value(name: str) -> Any:
            return registry.get_sample_value(name, labels)

        assert (value("mlld_breaker_state"), value("mlld_breaker_waiting")) == (0.0, 0.0)
        guard.trip()
        runtime["it"].run()
        waiting(runtime)
        assert (value("mlld_breaker_state"), value("mlld_breaker_waiting")) == (2.0, 1.0)


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Asks, AsksAsync])
def test_a_run_that_needs_an_open_breaker_waits_in_sight_and_uses_no_attempt(kind: type[Asks], tmp_path: Path) -> None:
    with asking(tmp_path, kind) as (runtime, provider, guard, seen):
        guard.trip()
        provider.error = None
        run = runtime["it"].run("patient")
        (wait,) = waiting(runtime)
        assert (wait.run_id, wait.step, wait.breaker) == (run.id, "ask", "model")
        assert wait.retry_after > 0
        assert "(1 waiting)" in runtime.tree()
        (held,) = [event for event in seen if isinstance(event, StepHeld)]
        assert (held.run_id, held.agent, held.step, held.breaker) == (run.id, "root/it", "ask", "model")
        assert run.state == "running"
        assert run.steps() == []
        assert provider.calls == []
        assert runtime["it"].status().engines.busy == 0
        guard.reset()
        assert run.result(60) == "patient"
        assert [step.attempts for step in run.steps()] == [1]
        assert runtime["it"].status().waiting == ()


def test_only_probes_go_when_it_half_opens_and_the_others_follow_when_it_closes(tmp_path: Path) -> None:
    policy = circuit_breaker("model", failures=1, open_for=0.2, probes=2, successes=2, probe_timeout=LONG)
    with asking(tmp_path, policy=policy) as (runtime, provider, guard, _):
        failed(runtime)
        provider.calls.clear()
        provider.error = None
        provider.goes_on.clear()
        runs = [runtime["it"].run(number) for number in range(6)]
        eventually(lambda: len(provider.calls) == 2)
        waiting(runtime, 4)
        assert guard.view().status == "half_open"
        assert len(provider.calls) == 2
        provider.goes_on.set()
        assert [run.result(60) for run in runs] == list(range(6))
        assert guard.view().status == "closed"


def test_branches_of_one_run_wait_and_go_as_steps_of_many_runs_do(tmp_path: Path) -> None:
    class Branches(Asks):
        def run(self, job: Job, payload: Any) -> Any:
            return job.map(lambda item, branch: branch.step("ask", type(self).provider, item), range(3))

    with asking(tmp_path, Branches) as (runtime, provider, guard, _):
        provider.error = None
        guard.trip()
        run = runtime["it"].run()
        assert {wait.run_id for wait in waiting(runtime, 3)} == {run.id}
        assert "(3 waiting)" in runtime.tree()
        guard.reset()
        assert run.result(60) == [0, 1, 2]


def test_a_waiting_run_is_woken_at_the_moment_its_breaker_half_opens(tmp_path: Path) -> None:
    clock, provider = FakeClock(), Provider()
    kind: Any = type("It", (Asks,), {"provider": provider})
    policy = circuit_breaker("model", failures=1, open_for=30.0)
    tree = one_for_one(child(kind, name="it", breaker=policy, concurrency=3))
    with running(tree, tmp_path, env=clock.env, drain_timeout=0) as (runtime, seen):
        failed(runtime)
        provider.error = None
        runs = [runtime["it"].run(number) for number in range(2)]
        assert {wait.retry_after for wait in waiting(runtime, 2)} == {30.0}
        clock.advance(29.0)
        assert {wait.retry_after for wait in waiting(runtime, 2)} == {1.0}
        assert len(provider.calls) == 1
        clock.advance(1.0)
        assert [run.result(60) for run in runs] == [0, 1]
        assert len([event for event in seen if isinstance(event, StepHeld)]) == 2


def test_a_bad_probe_opens_it_again_and_the_others_wait_on(tmp_path: Path) -> None:
    policy = circuit_breaker("model", failures=1, open_for=0.05, growth=1000, longest=LONG)
    with asking(tmp_path, policy=policy) as (runtime, provider, guard, _):
        failed(runtime)
        runs = [runtime["it"].run(number) for number in range(4)]
        eventually(lambda: guard.view().openings == 2 and guard.view().status == "open")
        waiting(runtime, 3)
        assert len(provider.calls) == 2
        eventually(lambda: sorted(run.state for run in runs) == ["failed", "running", "running", "running"])


def test_a_breaker_may_be_declared_to_fail_steps_while_it_is_open(tmp_path: Path) -> None:
    policy = circuit_breaker("model", failures=1, open_for=LONG, longest=LONG, when_open="fail")
    with asking(tmp_path, policy=policy, retry=Retry(attempts=2, delay=0)) as (runtime, provider, guard, _):
        guard.trip()
        assert failed(runtime).code == "BREAKER_OPEN"
        assert provider.calls == []
        guard.reset()
        assert guard.view().failures == 0


@pytest.mark.parametrize("how", ["cancel", "deadline", "stop", "kill"])
@pytest.mark.parametrize("kind", [Asks, AsksAsync])
def test_what_ends_a_run_ends_its_waiting(kind: type[Asks], how: str, tmp_path: Path) -> None:
    with asking(tmp_path, kind) as (runtime, provider, guard, _):
        guard.trip()
        run = runtime["it"].run(run_id="waits", deadline=1.0 if how == "deadline" else None)
        if how != "deadline":
            waiting(runtime)
        match how:
            case "cancel":
                run.cancel()
                with pytest.raises(RunCancelled):
                    run.result(60)
                eventually(lambda: runtime["it"].status().waiting == ())
            case "deadline":
                with pytest.raises(RunFailed, match="deadline"):
                    run.result(60)
                eventually(lambda: runtime["it"].status().waiting == ())
            case "kill":
                runtime["it"].ref.kill("for the test")
                eventually(lambda: run.record().attempt == 2)
                runtime["it"].wait_until_up(60)
                waiting(runtime)
                assert guard.view().by_hand
            case "stop":
                assert runtime.stop(drain=False).clean
                with Journal.open(tmp_path / "state.db") as journal:
                    assert (journal.run("waits").state, journal.run("waits").deaths) == ("pending", ())
        assert provider.calls == []


def test_a_run_that_waits_for_a_breaker_is_not_taken_for_stuck(tmp_path: Path) -> None:
    with asking(tmp_path, wedge=wedge(0.1)) as (runtime, provider, guard, seen):
        guard.trip()
        provider.error = None
        run = runtime["it"].run("patient")
        waiting(runtime)
        until = runtime.env.now() + 1.0
        eventually(lambda: runtime.env.now() > until)
        assert runtime["it"].ref.cell.actor.stuck_for() < 0.1
        guard.reset()
        assert run.result(60) == "patient"
        assert run.record().attempt == 1
    assert not [event for event in seen if isinstance(event, ChildExited)]


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_probe_whose_run_ends_gives_its_turn_to_the_next(how: str, tmp_path: Path) -> None:
    policy = circuit_breaker("model", failures=1, open_for=0.05, probes=1, probe_timeout=LONG)
    with asking(tmp_path, policy=policy) as (runtime, provider, _, _):
        failed(runtime)
        provider.error = None
        provider.calls.clear()
        provider.goes_on.clear()
        probe = runtime["it"].run("probe")
        eventually(lambda: provider.calls == ["probe"])
        other = runtime["it"].run("other")
        waiting(runtime)
        if how == "cancel":
            probe.cancel()
        else:
            runtime["it"].ref.kill("for the test")
        eventually(lambda: len(provider.calls) == 2)
        provider.goes_on.set()
        assert other.result(60) == "other"


# -- which breaker -----------------------------------------------------------------------------------------------------


def test_agents_that_name_the_same_breaker_share_it(tmp_path: Path) -> None:
    policy = circuit_breaker("model", failures=2, open_for=LONG, longest=LONG)
    provider = Provider()
    kind: Any = type("It", (Asks,), {"provider": provider})
    tree = one_for_one(*(child(kind, name=name, breaker=policy) for name in ("one", "two", "it")))
    with running(tree, tmp_path, drain_timeout=0) as (runtime, _):
        for name in ("one", "two"):
            with pytest.raises(RunFailed):
                runtime[name].run().result(60)
        runtime["it"].run()
        waiting(runtime)
        assert [node.breaker.status for node in runtime.snapshot().children if node.breaker] == ["open"] * 3


@pytest.mark.parametrize("method", ["step", "execute", "process", "async step", "async execute", "async process"])
def test_a_step_may_name_a_breaker_of_its_own(method: str, tmp_path: Path) -> None:
    policy = circuit_breaker("payments", failures=1, open_for=LONG, longest=LONG)
    (tmp_path / "ask.mld").write_text("show @nobody_defined_this\n")
    provider = Provider()

    def steps(job: Any) -> dict[str, Callable[[], Any]]:
        return {
            "step": lambda: job.step("pay", provider, breaker=policy),
            "execute": lambda: job.execute("ask.mld", breaker=policy),
            "process": lambda: job.process("show @nobody_defined_this", breaker=policy),
        }

    class Pays(Agent):
        def run(self, job: Job, payload: Any) -> Any:
            return steps(job)[method]()

    class PaysAsync(Agent):
        async def run(self, job: AsyncJob, payload: Any) -> Any:
            return await steps(job)[method.removeprefix("async ")]()

    kind = PaysAsync if method.startswith("async") else Pays
    own = circuit_breaker("model", failures=1, open_for=LONG, longest=LONG)
    tree = one_for_one(child(kind, name="it", engine="embedded", working_dir=tmp_path, breaker=own))
    with running(tree, tmp_path, drain_timeout=0) as (runtime, _):
        failed(runtime)
        assert runtime.breakers["model"].view().status == "closed"
        assert runtime.breakers["payments"].view().status == "open"
        assert "breaker closed" in runtime.tree()
        assert "breaker payments open" in runtime.tree()
        assert runtime.verdict().word == "degraded"
        runtime["it"].run()
        (wait,) = waiting(runtime)
        assert wait.breaker == "payments"
        assert "(1 waiting)" in runtime.tree()


def test_a_step_may_be_exempt_from_the_breaker_of_its_agent_and_sleeping_always_is(tmp_path: Path) -> None:
    class Mixed(Asks):
        def run(self, job: Job, payload: Any) -> Any:
            job.sleep(0)
            return job.step("write", lambda: "written", breaker=False)

    with asking(tmp_path, Mixed) as (runtime, _, guard, _):
        guard.trip()
        assert runtime["it"].run().result(60) == "written"
        assert guard.view().passed == 0


def test_a_breaker_that_contradicts_another_of_its_name_is_refused_before_anything_is_called(tmp_path: Path) -> None:
    provider = Provider()

    class Other(Asks):
        def run(self, job: Job, payload: Any) -> Any:
            return job.step("ask", provider, breaker=circuit_breaker(payload, failures=7))

    with asking(tmp_path, Other) as (runtime, _, _, _):
        assert failed(runtime, "model").code == "INVALID_OPTION"
        assert failed(runtime, "").code == "INVALID_OPTION"
        assert provider.calls == []
    policies = circuit_breaker("model", failures=1), circuit_breaker("model", failures=2)
    tree = one_for_one(*(child(Asks, name=f"it{n}", breaker=policy) for n, policy in enumerate(policies)))
    with pytest.raises(Exception, match="same settings"), running(tree, tmp_path):
        pass
