"""`accept=`: what a step gives counts only if a predicate of the caller takes it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, AsyncJob, Job, Retry, child, one_for_one
from mlld_sdk.base.errors import InfrastructureError, InvalidOption
from mlld_sdk.engines.checkpoints import Checkpoints
from mlld_sdk.errors import StepFailed
from tests.support.agents import ENGINES, engine_options, running

AGAIN = Retry(attempts=5, delay=0.01)

MODEL = """\
#!/bin/sh
echo "$1" >> calls.log
if [ "$(grep -c "^$1$" calls.log)" -le "$(cat nonsense)" ]; then cat words; else echo "answer to $1"; fi
"""
"""A model that says what stands in `words` when it is asked the first few times."""

ASK = 'exe llm @ask(p) = cmd {./model "@p"}\nshow @ask(@payload.question)\n'


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Make a folder with a model that talks nonsense twice, and a script that asks it."""
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "ask.mld").write_text(ASK)
    (tmp_path / "nonsense").write_text("2")
    (tmp_path / "words").write_text("as a language model\n")
    model = tmp_path / "model"
    model.write_text(MODEL)
    model.chmod(0o755)
    return tmp_path


def asked(desk: Path) -> list[str]:
    """List what the model was really asked."""
    log = desk / "calls.log"
    return log.read_text().splitlines() if log.exists() else []


def kept(desk: Path) -> list[str]:
    """List the calls whose answers the cache holds."""
    found = [info for info in Checkpoints(desk).list() if info.script == "ask"]
    return [call.preview for call in Checkpoints(desk).inspect("ask") if call.present] if found else []


def sense(output: str) -> bool:
    return output.startswith("answer")


def one_run(code: Callable[..., Any], engine: str, desk: Path, **options: Any) -> tuple[Any, list[Any]]:
    """Make one run of this code; gives its result and its steps."""
    options = {"checkpoint": True, "working_dir": desk, **engine_options(engine), **options}
    kind = type("Asking", (Agent,), {"run": code})
    with running(one_for_one(child(kind, name="a", **options)), desk) as (runtime, _):
        run = runtime["a"].run({})
        return run.result(60), run.steps()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_accepted_is_asked_again_though_the_cache_holds_it(engine: str, desk: Path) -> None:  # A-70 A-71
    def code(_: Agent, job: Job, payload: Any) -> list[str]:
        first = job.execute("ask.mld", {"question": "one"}, retry=AGAIN, accept=sense)
        second = job.process(ASK, file_path="ask.mld", payload={"question": "two"}, retry=AGAIN, accept=sense)
        return [first.output.strip(), second.strip()]

    result, steps = one_run(code, engine, desk)
    assert result == ["answer to one", "answer to two"]
    assert asked(desk) == ["one"] * 3 + ["two"] * 3
    assert [(step.state, step.attempts) for step in steps] == [("finished", 3)] * 2
    assert "two" in kept(desk)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_answer_is_not_accepted_by_bool(engine: str, desk: Path) -> None:
    (desk / "words").write_text("")

    def code(_: Agent, job: Job, payload: Any) -> str:
        return job.execute("ask.mld", {"question": "one"}, retry=AGAIN, accept=bool).output.strip()

    assert one_run(code, engine, desk)[0] == "answer to one"
    assert asked(desk) == ["one"] * 3


@pytest.mark.parametrize("engine", ["embedded", pytest.param("bridge", marks=pytest.mark.real)])
def test_only_the_calls_of_that_step_are_forgotten(engine: str, desk: Path) -> None:
    (desk / "nonsense").write_text("0")

    def code(_: Agent, job: Job, payload: Any) -> None:
        job.execute("ask.mld", {"question": "one"})
        with pytest.raises(StepFailed):
            job.execute("ask.mld", {"question": "two"}, accept=lambda _: False)
        job.execute("ask.mld", {"question": "one"}, accept=sense)

    one_run(code, engine, desk)
    assert asked(desk) == ["one", "two"]
    assert kept(desk) == ["one"]


def test_without_retry_the_step_has_failed_for_good_and_says_what_it_was_given(desk: Path) -> None:
    told: list[StepFailed] = []

    def code(_: Agent, job: Job, payload: Any) -> str:
        with pytest.raises(StepFailed) as failed:
            job.execute("ask.mld", {"question": "one"}, accept=sense)
        told.append(failed.value)
        return failed.value.code

    result, (step,) = one_run(code, "embedded", desk)
    assert result == "STEP_NOT_ACCEPTED"
    assert told[0].message == "ask.mld gave 'as a language model', which sense does not accept"
    assert told[0].type == "StepNotAccepted"
    assert step.state == "failed"
    assert asked(desk) == ["one"]


def test_what_was_not_accepted_is_not_accepted_when_the_run_is_resumed(desk: Path) -> None:  # A-3 A-70
    (desk / "die.mld").write_text("run sh { [ -e died ] || { touch died; kill -KILL $PPID; } }\n")
    codes: list[str] = []
    guesses: list[int] = []

    def guess() -> int:
        guesses.append(7)
        return 7

    def code(_: Agent, job: Job, payload: Any) -> int:
        with pytest.raises(StepFailed) as failed:
            job.step("guess", guess, accept=lambda value: value > 7)
        codes.append(failed.value.code)
        job.execute("die.mld", idempotent=True)
        return job.attempt

    result, steps = one_run(code, "embedded", desk)
    assert result == 2
    assert codes == ["STEP_NOT_ACCEPTED"] * 2
    assert guesses == [7]
    assert [step.state for step in steps] == ["failed", "finished"]


def test_the_value_of_a_function_is_judged_as_it_is(desk: Path) -> None:
    seen: list[Any] = []

    def code(_: Agent, job: Job, payload: Any) -> list[Any]:
        values = iter([{"label": "?"}, {"label": "bug"}])

        def known(value: dict[str, str]) -> bool:
            seen.append(value)
            return value["label"] in ("bug", "refund")

        return [job.step("guess", lambda: next(values), retry=AGAIN, accept=known)]

    result, (step,) = one_run(code, "embedded", desk)
    assert result == [{"label": "bug"}]
    assert seen == [{"label": "?"}, {"label": "bug"}]
    assert step.attempts == 2


def test_output_is_judged_without_the_white_space_around_it(desk: Path) -> None:
    (desk / "ask.mld").write_text('show " yes "\nshow ""\n')
    seen: list[str] = []

    def code(_: Agent, job: Job, payload: Any) -> str:
        def note(output: str) -> bool:
            seen.append(output)
            return True

        job.process('show "  no "', accept=note)
        return job.execute("ask.mld", accept=note).output

    assert one_run(code, "embedded", desk)[0].strip() == "yes"
    assert seen == ["no", "yes"]


@pytest.mark.parametrize("error", [ValueError("no such label"), InfrastructureError("the labels cannot be read")])
def test_a_predicate_that_raises_fails_the_step_with_that(error: Exception, desk: Path) -> None:
    def code(_: Agent, job: Job, payload: Any) -> list[str]:
        def broken(output: str) -> bool:
            if not sense(output):
                raise error
            return True

        with pytest.raises(StepFailed) as failed:
            job.execute("ask.mld", {"question": "one"}, accept=broken)
        answer = job.execute("ask.mld", {"question": "two"}, accept=broken, retry=AGAIN).output.strip()
        return [failed.value.type, failed.value.message, answer]

    result, _ = one_run(code, "embedded", desk)
    assert result == [type(error).__name__, str(error), "answer to two"]
    assert asked(desk) == ["one", "two", "two", "two"]


def test_steps_of_async_code_take_it_too(desk: Path) -> None:
    async def code(_: Agent, job: AsyncJob, payload: Any) -> list[Any]:
        values = iter(["", "", "third"])

        async def later() -> str:
            await asyncio.sleep(0)
            return next(values)

        awaited = await job.step("later", later, retry=AGAIN, accept=bool)
        first = await job.execute("ask.mld", {"question": "one"}, retry=AGAIN, accept=sense)
        text = await job.process(ASK, file_path="ask.mld", payload={"question": "two"}, retry=AGAIN, accept=sense)
        with pytest.raises(StepFailed) as failed:
            await job.step("never", later, accept=lambda _: False)
        return [awaited, first.output.strip(), text.strip(), failed.value.type]

    result, _ = one_run(code, "embedded", desk)
    assert result[:3] == ["third", "answer to one", "answer to two"]


def test_what_is_no_predicate_is_refused_before_anything_acts(desk: Path) -> None:
    async def verdict(_: Any) -> bool:
        return True

    def code(_: Agent, job: Job, payload: Any) -> list[str]:
        wrong: list[Any] = [7, verdict]
        for accept in wrong:
            with pytest.raises(InvalidOption, match="accept must be"):
                job.execute("ask.mld", {"question": "one"}, accept=accept)
            with pytest.raises(InvalidOption, match="accept must be"):
                job.step("guess", lambda: 1, accept=accept)
        with pytest.raises(StepFailed, match="accept must be") as failed:
            job.step("guess", lambda: 1, accept=lambda value: verdict(value))
        return [failed.value.code]

    result, steps = one_run(code, "embedded", desk)
    assert result == ["INVALID_OPTION"]
    assert [step.name for step in steps] == ["guess"]
    assert asked(desk) == []
