"""A model outage is not an answer: it is told, fails the call where that is wanted, and nothing keeps it."""

import asyncio
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, Pool, Retry, child, circuit_breaker, one_for_one
from mlld_sdk.actors.core.errors import StartFailed
from mlld_sdk.agents.options import AgentOptions
from mlld_sdk.base.errors import MlldError
from mlld_sdk.client.client import Client
from mlld_sdk.engines.checkpoints import Checkpoints
from mlld_sdk.engines.events import ModelUnansweredEvent
from mlld_sdk.errors import BreakerOpen, CommandFailed, CommandFailuresUnseen, RunFailed, StepFailed, UnansweredWarning
from mlld_sdk.scripts.stream_events import ModelUnanswered
from mlld_sdk.telemetry.log import level_of
from mlld_sdk.types import Unanswered
from tests.support.agents import engine_options, running
from tests.support.engines import Recorder
from tests.support.eventually import eventually
from tests.support.raw_engine import command_of, needs_real, started

SEEING = ["embedded", pytest.param("bridge", marks=needs_real)]
"""Engines that see how a command ends."""

LIVE = [pytest.param("live", marks=needs_real)]

MODEL = """\
#!/bin/sh
echo "$1" >> calls.log
case "$(cat mode 2>/dev/null)" in
  outage) echo "connecting" >&2; echo "503 Service Unavailable" >&2; exit 22 ;;
  crash) kill -SEGV $$ ;;
  silence) exit 0 ;;
esac
echo "answer to $1"
"""
"""A model behind a command; what it does stands in the file `mode`."""

ASK = """\
exe llm @ask(p) = cmd {./model "@p"}
show @ask(@payload.question)
"""

OUTAGE = Unanswered(function="ask", command="./model", returncode=22, said="503 Service Unavailable")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Make a folder with a model and a script that asks it."""
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "ask.mld").write_text(ASK)
    model = tmp_path / "model"
    model.write_text(MODEL)
    model.chmod(0o755)
    return tmp_path


def is_(desk: Path, mode: str) -> None:
    """Make the model behave so from now on."""
    (desk / "mode").write_text(mode)


def asked(desk: Path) -> int:
    """Count how often the model was really called."""
    log = desk / "calls.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def kept(desk: Path, script: str = "ask") -> list[str]:
    """List the first arguments of the calls whose answers are kept."""
    found = [info for info in Checkpoints(desk).list() if info.script == script]
    return [call.preview for call in Checkpoints(desk).inspect(script)] if found else []


def client(kind: str, desk: Path, **options: Any) -> Client:
    return Client(**{"working_dir": desk, "timeout": 30, **engine_options(kind), **options})


def ask(owner: Any, question: str = "one", **options: Any) -> Any:
    return owner.execute("ask.mld", {"question": question}, checkpoint=True, **options)


# -- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEEING)
@pytest.mark.parametrize(
    ("mode", "returncode", "said"),
    [("outage", 22, "503 Service Unavailable"), ("crash", None, "Segmentation fault"), ("silence", None, "")],
)
def test_an_outage_is_told_and_nothing_is_kept_of_it(  # C-7 XP-33 XP-34
    kind: str, mode: str, returncode: int | None, said: str, desk: Path
) -> None:
    is_(desk, mode)
    events = Recorder()
    with client(kind, desk, sink=events) as owner:
        result = ask(owner)
        (told,) = result.unanswered
        assert told.function == "ask"
        assert told.command == ("" if mode == "silence" else "./model")
        if mode == "crash":  # a shell between tells of it in its own way, where there is one
            assert told.returncode
            assert told.said in ("", said)
        else:
            assert (told.returncode, told.said) == (returncode, said)
        (event,) = events.of(ModelUnansweredEvent)
        assert (event.function, event.command, event.said) == (told.function, told.command, told.said)
        assert level_of(event) == "warning"
        assert kept(desk) == []
        is_(desk, "well")
        assert ask(owner).output.strip() == "answer to one"
        assert ask(owner).output.strip() == "answer to one"
    assert asked(desk) == 2  # the outage was asked about again, the answer was not


@pytest.mark.parametrize("kind", SEEING)
def test_the_output_of_a_failed_command_stays_what_mlld_makes_of_it(kind: str, desk: Path) -> None:
    (desk / "ask.mld").write_text('exe llm @ask(p) = sh { echo "half of it"; exit 3 }\nshow @ask("one")\n')
    with client(kind, desk) as owner:
        result = owner.execute("ask.mld", checkpoint=True)
    assert result.output.strip() == "half of it"
    assert result.unanswered == [Unanswered(function="ask", command="sh", returncode=3, said="half of it")]
    assert kept(desk) == []


@pytest.mark.parametrize("kind", SEEING)
def test_a_shell_that_a_signal_ends_has_failed(kind: str, desk: Path) -> None:  # mlld itself takes it for a success
    (desk / "ask.mld").write_text('exe llm @ask(p) = sh { echo "half"; kill -SEGV $$ }\nshow @ask("one")\n')
    with client(kind, desk) as owner:
        result = owner.execute("ask.mld", checkpoint=True)
        assert result.unanswered == [Unanswered(function="ask", command="sh", returncode=-11, said="half")]
        with pytest.raises(CommandFailed, match=r"@ask: sh was ended by SIGSEGV: half"):
            owner.execute("ask.mld", on_command_failure="fail")
    assert kept(desk) == []


@pytest.mark.parametrize("kind", SEEING)
def test_a_reader_of_events_sees_the_outage_in_its_place(kind: str, desk: Path) -> None:
    is_(desk, "outage")
    with client(kind, desk) as owner:
        handle = owner.execute_async("ask.mld", {"question": "one"})
        assert [event.call for event in handle.events() if isinstance(event, ModelUnanswered)] == [OUTAGE]


@pytest.mark.parametrize("kind", SEEING)
def test_process_which_returns_only_text_warns(kind: str, desk: Path) -> None:
    is_(desk, "outage")
    with client(kind, desk) as owner:
        with pytest.warns(UnansweredWarning, match="503 Service Unavailable"):
            owner.process(ASK, file_path="ask.mld", payload={"question": "one"})
        is_(desk, "well")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            owner.process(ASK, file_path="ask.mld", payload={"question": "one"})


@pytest.mark.parametrize("kind", SEEING)
def test_arguments_of_a_command_are_not_told(kind: str, desk: Path) -> None:  # they may hold secrets
    (desk / "ask.mld").write_text('exe llm @ask(p) = cmd {ls --secret-key=hunter2}\nshow @ask("one")\n')
    (desk / "no.mld").write_text('exe llm @ask(p) = cmd {no-such-program hunter2}\nshow @ask("one")\n')
    with client(kind, desk) as owner:
        for script, program in (("ask.mld", "ls"), ("no.mld", "no-such-program")):
            (told,) = owner.execute(script).unanswered
            assert told.command == program
            assert told.returncode
            assert "hunter2" not in repr(told) or script == "ask.mld"  # what the program itself prints is told


@pytest.mark.parametrize("kind", SEEING)
def test_a_function_that_uses_what_failed_has_no_answer_either(kind: str, desk: Path) -> None:
    (desk / "ask.mld").write_text(
        "exe @inner(p) = cmd {./model @p}\n"
        'exe llm @outer(p) = [\n  let @found = @inner(@p)\n  => "found: @found"\n]\n'
        "exe llm @fine(p) = cmd {echo fine}\n"
        'show @outer("one")\nshow @fine("two")\n'
    )
    is_(desk, "outage")
    with client(kind, desk) as owner:
        (told,) = owner.execute("ask.mld", checkpoint=True).unanswered
    assert told.function == "outer"
    assert kept(desk) == ["two"]


@pytest.mark.parametrize("kind", SEEING)
def test_a_command_outside_of_llm_functions_may_fail_as_it_likes(kind: str, desk: Path) -> None:
    (desk / "ask.mld").write_text('exe @check(p) = cmd {false}\nrun cmd {false}\nshow `[@check("one")]`\n')
    with client(kind, desk) as owner:
        result = owner.execute("ask.mld", on_command_failure="fail")
    assert result.output.strip().endswith("[]")
    assert result.unanswered == []


@pytest.mark.parametrize("kind", SEEING)
def test_nothing_that_another_engine_has_stored_is_served(kind: str, desk: Path) -> None:  # C-7
    with client(kind, desk) as owner:
        ask(owner)
        (call,) = Checkpoints(desk).inspect("ask")
        for nothing in ('""', '" \\n"', "null"):
            (result,) = Path(Checkpoints(desk).info("ask").folder, "results").iterdir()
            result.write_text(f'{{"version":1,"value":{nothing}}}\n')
            assert ask(owner).output.strip() == "answer to one"
    assert call.preview == "one"
    assert asked(desk) == 4


def test_an_engine_like_the_real_one_keeps_to_its_ways(desk: Path) -> None:
    is_(desk, "outage")
    with started(command_of("embedded", "--like-real"), desk) as raw:
        refused = raw.ask("execute", {"filepath": "ask.mld", "onCommandFailure": "fail"}).result
        assert refused["error"]["code"] == "INVALID_REQUEST"
        assert "onCommandFailure" in refused["error"]["message"]
        answered = raw.ask("execute", {"filepath": "ask.mld", "payload": {"question": "one"}})
        assert "unanswered" not in answered.result
    assert kept(desk) == ["one"]


# -- on_command_failure="fail" ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEEING)
def test_a_call_may_fail_for_it(kind: str, desk: Path) -> None:  # XP-32
    is_(desk, "outage")
    (desk / "ask.mld").write_text(ASK + 'output "went on" to "went-on.txt"\n')
    with client(kind, desk) as owner:
        with pytest.raises(CommandFailed) as failed:
            ask(owner, on_command_failure="fail")
        assert str(failed.value).startswith("@ask: ./model exited with status 22: 503 Service Unavailable")
        assert failed.value.code == "COMMAND_FAILED"
        error = failed.value
        assert (error.function, error.command, error.returncode, error.said) == ("ask", "./model", 22, OUTAGE.said)
        assert not (desk / "went-on.txt").exists()
        with pytest.raises(CommandFailed):
            owner.process(ASK, payload={"question": "one"}, on_command_failure="fail")
        is_(desk, "well")
        assert ask(owner, on_command_failure="fail").output.strip() == "answer to one"


@pytest.mark.parametrize("kind", SEEING)
def test_a_loop_that_collects_errors_does_not_swallow_it(kind: str, desk: Path) -> None:
    (desk / "ask.mld").write_text(
        "exe llm @ask(p) = cmd {./model @p}\n"
        'var @all = for parallel(2) @q in ["one", "two", "three", "four"] => @ask(@q)\nshow `done @all`\n'
    )
    is_(desk, "outage")
    with client(kind, desk) as owner, pytest.raises(CommandFailed, match="503"):
        owner.execute("ask.mld", on_command_failure="fail")
    assert asked(desk) < 4  # it stopped


@pytest.mark.parametrize("kind", SEEING)
def test_a_step_fails_with_it_and_retry_asks_again(kind: str, desk: Path) -> None:
    is_(desk, "outage")

    class Asking(Agent):
        def run(self, job: Job, payload: Any) -> list[str]:
            try:
                job.execute("ask.mld", {"question": "never"}, on_command_failure="fail")
            except StepFailed as failed:
                first = f"{failed.code} {failed.type}: {failed.message}"
            again = Retry(attempts=50, delay=0.02, factor=1)
            step = job.execute("ask.mld", {"question": "one"}, on_command_failure="fail", retry=again)
            return [first, step.output.strip()]

    tree = one_for_one(child(Asking, name="a", working_dir=desk, checkpoint=True, **engine_options(kind)))
    with running(tree, desk) as (runtime, seen):
        run = runtime["a"].run({})
        eventually(lambda: asked(desk) >= 3)
        is_(desk, "well")
        first, answer = run.result(60)
    assert first == "COMMAND_FAILED CommandFailed: @ask: ./model exited with status 22: 503 Service Unavailable"
    assert answer == "answer to one"
    events = [event for event in seen if isinstance(event, ModelUnansweredEvent)]
    assert {(event.agent, event.function, event.returncode) for event in events} == {("root/a", "ask", 22)}
    assert len(events) == asked(desk) - 1
    assert kept(desk) == ["one"]


@pytest.mark.parametrize("kind", SEEING)
def test_it_may_be_chosen_for_a_whole_agent(kind: str, desk: Path) -> None:
    is_(desk, "outage")
    options = {"script": "ask.mld", "working_dir": desk, "on_command_failure": "fail", **engine_options(kind)}
    with running(one_for_one(child(Agent, name="a", **options)), desk) as (runtime, _):
        agent = runtime["a"]
        with pytest.raises(RunFailed) as failed:
            agent.run({"question": "one"}).result(60)
        assert failed.value.code == "COMMAND_FAILED"
        calls: list[Callable[[], Any]] = [
            lambda: agent.process(ASK, payload={"question": "one"}),
            lambda: agent.execute("ask.mld", {"question": "one"}),
            lambda: asyncio.run(agent.aio.execute("ask.mld", {"question": "one"})),
            lambda: asyncio.run(agent.aio.process(ASK, payload={"question": "one"})),
        ]
        for call in calls:
            with pytest.raises(CommandFailed):
                call()
        assert agent.execute("ask.mld", {"question": "one"}, on_command_failure="tell").unanswered == [OUTAGE]


def test_an_outage_opens_a_circuit_breaker(desk: Path) -> None:
    is_(desk, "outage")
    breaker = circuit_breaker("model", failures=2, open_for=600)
    options = {"working_dir": desk, "on_command_failure": "fail", "breaker": breaker}
    with running(one_for_one(child(Pool, name="p", engine="embedded", **options)), desk) as (runtime, _):
        pool = runtime["p"]
        for _ in range(2):
            with pytest.raises(CommandFailed):
                pool.execute("ask.mld", {"question": "one"})
        with pytest.raises(BreakerOpen):
            pool.execute("ask.mld", {"question": "one"})
    assert asked(desk) == 2


def test_a_value_that_means_nothing_is_refused(desk: Path) -> None:
    with client("embedded", desk) as owner, pytest.raises(MlldError, match="on_command_failure must be one of"):
        ask(owner, on_command_failure="explode")
    with started("embedded", desk) as raw:
        refused = raw.ask("execute", {"filepath": "ask.mld", "onCommandFailure": 1}).result["error"]
        assert refused["code"] == "INVALID_REQUEST"
    with pytest.raises(MlldError, match="on_command_failure"):
        AgentOptions().having({"on_command_failure": "explode"})


# -- the live engine, which sees nothing of it ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LIVE)
def test_where_nothing_is_seen_the_option_is_refused(kind: str, desk: Path) -> None:
    with client(kind, desk) as owner, pytest.raises(CommandFailuresUnseen, match="on_command_failure='fail'"):
        ask(owner, on_command_failure="fail")
    tree = one_for_one(child(Agent, name="a", on_command_failure="fail", **engine_options(kind)))
    with pytest.raises((StartFailed, MlldError), match="on_command_failure='fail'"), running(tree, desk):
        pass
    assert asked(desk) == 0


@pytest.mark.parametrize("kind", LIVE)
def test_a_step_that_asks_for_it_is_refused_before_it_is_begun(kind: str, desk: Path) -> None:
    class Asking(Agent):
        def run(self, job: Job, payload: Any) -> None:
            with pytest.raises(CommandFailuresUnseen):
                job.execute("ask.mld", {"question": "one"}, on_command_failure="fail")

    tree = one_for_one(child(Asking, name="a", working_dir=desk, **engine_options(kind)))
    with running(tree, desk) as (runtime, _):
        run = runtime["a"].run({})
        run.result(60)
        assert run.steps() == []


@pytest.mark.parametrize("kind", LIVE)
def test_a_live_engine_stores_what_it_got_and_only_nothing_is_found_out(kind: str, desk: Path) -> None:  # C-7
    with client(kind, desk) as owner:
        is_(desk, "silence")
        assert ask(owner).unanswered == []
        assert kept(desk) == ["one"]
        is_(desk, "outage")
        assert ask(owner).output.strip().endswith("503 Service Unavailable")
        is_(desk, "well")
        assert ask(owner).output.strip().endswith("503 Service Unavailable")  # served; accept= would have helped
    assert asked(desk) == 2
