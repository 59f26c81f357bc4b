"""Half an emoji in an error, or an exception that cannot say what it is, fails its run and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, MlldError, Runtime, child, one_for_one
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.errors import RunFailed, ValueNotStorable
from mlld_sdk.supervision.errors import ChildNotFound
from mlld_sdk.telemetry.bus import HandlerDetached
from tests.support.actors import Sink
from tests.support.eventually import eventually

HALF = "\ud83d is half an emoji"


class Speechless(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


def fail(error: BaseException) -> Any:
    raise error


WAYS: dict[str, Callable[[Job], Any]] = {
    "raises": lambda job: fail(ValueError(HALF)),
    "exits": lambda job: fail(SystemExit(HALF)),
    "raises several": lambda job: fail(ExceptionGroup(HALF, [ValueError(HALF)])),
    "has no text": lambda job: fail(Speechless()),
    "fails in a step": lambda job: job.step("x", lambda: fail(ValueError(HALF))),
    "has no text in a step": lambda job: job.step("x", lambda: fail(Speechless())),
    "names a step so": lambda job: job.step(HALF, lambda: 1),
    "gives it to a step": lambda job: job.step("x", lambda _: 1, HALF),
    "notes it": lambda job: job.note("n", {"a": HALF}),
    "returns it": lambda job: HALF,
    "returns it from a step": lambda job: job.step("x", lambda: HALF),
    "says it to an engine": lambda job: job.process('show "x@payload"', payload=HALF, idempotent=True),
    "hears it from an engine": lambda job: job.process(
        "var @t = @payload.text\nbail @t.slice(0, 10)", payload={"text": "123456789\U0001f600 hello"}, idempotent=True
    ),
}


class Does(Agent):
    engine = "embedded"

    def run(self, job: Job, way: str) -> Any:
        job.progress(HALF)
        return WAYS[way](job) if way else "well"


@pytest.mark.parametrize("way", WAYS)
def test_such_a_text_fails_its_run_and_the_service_goes_on(way: str, tmp_path: Path) -> None:
    sink = Sink()
    with Runtime(one_for_one(child(Does, name="does"), max_restarts=0), store=tmp_path / "runs.db") as runtime:
        runtime.bus.attach_inline("all", sink)
        agent = runtime.agent("does")
        with pytest.raises(RunFailed) as caught:
            agent.run(way).result(timeout=60)
        assert str(caught.value).encode()
        assert agent.run("").result(timeout=60) == "well"
        assert sink.of(HandlerDetached) == []
    with Runtime(one_for_one(child(Does, name="does"), max_restarts=0), store=tmp_path / "runs.db") as runtime:
        assert runtime.agent("does").run("").result(timeout=60) == "well"


def test_what_such_a_crash_left_behind_is_remembered_and_shown(tmp_path: Path) -> None:
    class Crashes(Agent):
        engine = "embedded"

        def on_receive(self, message: Any) -> Any:
            return fail(ValueError(HALF)) if message == "crash" else super().on_receive(message)

    def tree() -> Any:
        return one_for_one(child(Crashes, name="crashes"))

    with Runtime(tree(), store=tmp_path / "runs.db") as runtime:
        ref = runtime.agent("crashes").ref
        assert ref is not None
        ref.tell("crash")
        ref.join(60)
        eventually(lambda: runtime.history.crashes())
    with Runtime(tree(), store=tmp_path / "runs.db") as runtime:
        assert "\\ud83d" in runtime.history.crashes()[-1].reason


def test_names_that_could_not_be_written_are_refused_before_anything_is() -> None:
    with pytest.raises(InvalidOption, match="surrogate"):
        child(Does, name=HALF)
    with Runtime(one_for_one(child(Does, name="does"))) as runtime:
        for names in ({"key": HALF}, {"run_id": HALF}):
            with pytest.raises(InvalidOption, match="surrogate"):
                runtime.agent("does").run("", **names)
        with pytest.raises(ChildNotFound) as caught:
            runtime[HALF]
        assert isinstance(caught.value, MlldError)
        journal = runtime.journal
        looks: list[Callable[[], object]] = [
            lambda: runtime.run(HALF),
            lambda: journal.runs(kind=HALF),
            lambda: journal.steps(HALF),
            lambda: journal.events(run_id=HALF),
            lambda: journal.cancel(HALF, "no"),
            lambda: journal.retry(HALF),
            lambda: journal.wait(HALF, 1),
        ]
        for look in looks:
            with pytest.raises(ValueNotStorable, match="surrogate"):
                look()
        assert runtime.journal.runs() == []
