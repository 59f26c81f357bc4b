"""Steps that fail and are tried again: decided from records, waited for durably, ended by cancel and deadline."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, Retry, Runtime, child, one_for_one
from mlld_sdk.base.errors import ConfigurationError, InvalidOption
from mlld_sdk.errors import RunCancelled, RunFailed, StepFailed
from mlld_sdk.journal import Journal
from mlld_sdk.runs.retry import HOPELESS
from mlld_sdk.scripts.answers import TruncatedResult
from tests.support.eventually import eventually

NOW = Retry(attempts=3, delay=0)
LATER = Retry(attempts=3, delay=60, longest=60, jitter=0)


class Calls:
    """A function that fails as often as it is told, and counts."""

    def __init__(self, failures: int, error: type[Exception] = ValueError) -> None:
        self.made = 0
        self._failures = failures
        self._error = error

    def __call__(self, *_: Any) -> int:
        self.made += 1
        if self.made <= self._failures:
            raise self._error(f"call {self.made}")
        return self.made

    async def awaited(self) -> int:
        return self()


def agent_for(code: Any) -> Any:
    """Declare an agent whose runs are this code."""
    kind = type("Worker", (Agent,), {"run": staticmethod(code), "engine": "embedded", "concurrency": 2})
    return one_for_one(child(kind, name="worker"))


# -- the decision


def test_attempts_and_classes_of_errors_decide() -> None:
    retry = Retry(attempts=3, on=OSError)
    assert [retry.wants(attempt, OSError()) for attempt in (1, 2, 3, 4)] == [True, True, False, False]
    assert retry.wants(1, ConnectionError())
    assert not retry.wants(1, ValueError())
    assert not Retry().wants(1, KeyboardInterrupt())


def test_what_asking_again_would_only_bring_back_is_never_tried_again() -> None:
    assert TruncatedResult in HOPELESS
    assert not Retry(on=(BaseException,)).wants(1, ConfigurationError("wrong option"))


def test_pauses_grow_up_to_the_longest_and_are_the_same_whenever_asked() -> None:
    retry = Retry(attempts=9, delay=1.0, factor=2.0, longest=10.0, jitter=0.0)
    assert [retry.pause(attempt, "r/1") for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert Retry(delay=1, longest=1e6, factor=1000).pause(10**9, "r/1") <= 1e6
    spread = Retry(delay=8.0, jitter=0.5)
    pauses = [spread.pause(1, f"r/{n}") for n in range(50)]
    assert pauses == [spread.pause(1, f"r/{n}") for n in range(50)]
    assert all(4 <= pause <= 8 for pause in pauses)
    assert len(set(pauses)) > 40
    assert Retry(delay=timedelta(minutes=1), longest=timedelta(hours=1), jitter=0).pause(2, "") == 120
    assert Retry(delay=0).pause(5, "") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": 0}, "attempts must be a whole number of at least 1, got 0"),
        ({"attempts": 1.5}, "attempts must be a whole number of at least 1, got 1.5"),
        ({"attempts": True}, "attempts must be a whole number of at least 1, got True"),
        ({"delay": -1}, "delay must be a number from 0 to"),
        ({"factor": "2"}, "factor must be a number from 1 to 1000, got '2'"),
        ({"jitter": 2}, "jitter must be a number from 0 to 1, got 2"),
        ({"on": "OSError"}, "on must be exception classes, got"),
        ({"on": ()}, "on must be exception classes, got"),
    ],
)
def test_wrong_options_are_told(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        Retry(**options)
    assert refused.type is InvalidOption


# -- the step


def test_a_step_is_tried_again_until_it_succeeds_and_replayed_as_one() -> None:
    calls = Calls(2)

    def code(job: Job, payload: Any) -> Any:
        return job.step("flaky", calls, retry=NOW)

    with Runtime(agent_for(code)) as runtime:
        run = runtime["worker"].run()
        assert run.result(60) == 3
        (step,) = run.steps()
        assert (step.state, step.attempts) == ("finished", 3)


def test_the_last_failure_is_the_answer_for_good() -> None:
    calls = Calls(9)

    def code(job: Job, payload: Any) -> Any:
        try:
            job.step("flaky", calls, retry=NOW)
        except StepFailed as failed:
            return [failed.type, str(failed)]

    with Runtime(agent_for(code)) as runtime:
        run = runtime["worker"].run()
        kind, text = run.result(60)
        assert kind.endswith("ValueError")
        assert "call 3" in text
        (step,) = run.steps()
        assert (step.state, step.final, step.attempts) == ("failed", True, 3)
        assert calls.made == 3


def test_another_error_is_not_tried_again() -> None:
    calls = Calls(9, KeyError)

    def code(job: Job, payload: Any) -> Any:
        job.step("flaky", calls, retry=Retry(delay=0, on=OSError))

    with Runtime(agent_for(code)) as runtime, pytest.raises(RunFailed, match="call 1"):
        runtime["worker"].run().result(60)
    assert calls.made == 1


def test_scripts_are_tried_again_too(tmp_path: Path) -> None:
    script = f'run sh {{ echo x >> {tmp_path}/calls; [ "$(wc -l < {tmp_path}/calls)" -ge 3 ] }}\nshow "done"'

    def code(job: Job, payload: Any) -> Any:
        return job.process(script, retry=NOW).strip()

    with Runtime(agent_for(code)) as runtime:
        assert runtime["worker"].run().result(30) == "done"


def test_async_code_has_the_same() -> None:
    calls = Calls(2)

    async def code(job: Any, payload: Any) -> Any:
        await job.sleep(0.01)
        await job.sleep_until(datetime.now(UTC))
        return await job.step("flaky", calls.awaited, retry=NOW)

    with Runtime(agent_for(code)) as runtime:
        assert runtime["worker"].run().result(60) == 3


# -- the waiting


def waiting(code: Any, **options: Any) -> Runtime:
    """Start a runtime with a run that waits for its second attempt, or sleeps."""
    runtime = Runtime(agent_for(code), **options).start()
    run = runtime["worker"].run(run_id="waits", deadline=options.get("deadline"))
    eventually(lambda: any(step.state in ("failed", "finished") for step in run.steps()))
    return runtime


def flaky(job: Job, payload: Any) -> Any:
    return job.step("flaky", Calls(9), retry=LATER)


def sleeps(job: Job, payload: Any) -> Any:
    job.sleep(600)


async def async_flaky(job: Any, payload: Any) -> Any:
    return await job.step("flaky", Calls(9).awaited, retry=LATER)


async def async_sleeps(job: Any, payload: Any) -> Any:
    await job.sleep_until(datetime.now(UTC) + timedelta(hours=1))


WAYS = [flaky, sleeps, async_flaky, async_sleeps]


@pytest.mark.parametrize("code", WAYS)
def test_cancelling_a_run_ends_the_wait(code: Any) -> None:
    runtime = waiting(code)
    try:
        run = runtime.run("waits")
        run.cancel("enough")
        with pytest.raises(RunCancelled):
            run.result(60)
        eventually(lambda: runtime["worker"].status().runs == ())
    finally:
        assert runtime.stop().clean


@pytest.mark.parametrize("code", WAYS)
def test_the_deadline_of_the_run_ends_the_wait(code: Any) -> None:
    with Runtime(agent_for(code)) as runtime:
        with pytest.raises(RunFailed, match="deadline"):
            runtime["worker"].run(deadline=0.5).result(60)
        eventually(lambda: runtime["worker"].status().runs == ())


@pytest.mark.parametrize("code", WAYS)
def test_a_stop_ends_the_wait_and_hands_the_run_back(code: Any, tmp_path: Path) -> None:
    runtime = waiting(code, store=tmp_path / "s.db", drain_timeout=0.1)
    assert runtime.stop().clean
    with Journal.open(tmp_path / "s.db") as journal:
        assert journal.run("waits").state == "pending"
        assert journal.run("waits").deaths == ()


def test_who_waits_is_not_stuck() -> None:
    runtime = waiting(sleeps)
    try:
        worker = runtime["worker"].ref.cell.actor
        assert worker.stuck_for() < 0.1
        assert not threading.Event().wait(0.3)
        assert worker.stuck_for() < 0.1
    finally:
        runtime.stop(drain=False)


def test_an_agent_that_goes_on_waits_for_what_is_left_only(tmp_path: Path) -> None:
    calls = Calls(1)

    def code(job: Job, payload: Any) -> Any:
        job.sleep(0.2)
        return job.step("flaky", calls, retry=Retry(delay=1.0, jitter=0))

    runtime = waiting(code, store=tmp_path / "s.db", drain_timeout=0.1)
    eventually(lambda: calls.made == 1)
    eventually(lambda: any(step.state == "failed" for step in runtime.run("waits").steps()))
    failed = next(step.ended for step in runtime.run("waits").steps() if step.name == "flaky")
    runtime.stop()
    with Runtime(agent_for(code), store=tmp_path / "s.db") as again:
        run = again.run("waits")
        assert run.result(60) == 2
        sleep, flaky_step = run.steps()
        assert (sleep.name, sleep.attempts) == ("sleep", 1)
        assert flaky_step.attempts == 2
        assert flaky_step.started >= failed + 1.0


def test_a_retried_run_waits_for_nothing() -> None:
    calls = Calls(2)

    def code(job: Job, payload: Any) -> Any:
        return job.step("flaky", calls, retry=Retry(attempts=2, delay=0.0) if calls.made < 2 else LATER)

    with Runtime(agent_for(code)) as runtime:
        run = runtime["worker"].run()
        with pytest.raises(RunFailed):
            run.result(60)
        run.retry()
        assert run.result(60) == 3


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_sleep_has_an_end(seconds: float) -> None:
    def code(job: Job, payload: Any) -> Any:
        job.sleep(seconds)

    with (
        Runtime(agent_for(code)) as runtime,
        pytest.raises(RunFailed, match="seconds must be seconds >= 0"),
    ):
        runtime["worker"].run().result(60)
