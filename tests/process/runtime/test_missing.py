"""Agents that come and go by name: their runs outlive the service, and are seen while nobody is there for them."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, child, dynamic, one_for_one
from mlld_sdk.base.env import Env
from mlld_sdk.base.events import name_of
from mlld_sdk.cli.doctor import check_runtimes
from mlld_sdk.control.client import Remote
from mlld_sdk.control.protocol import AskTree
from mlld_sdk.journal import Journal
from mlld_sdk.journal.rows import Tx
from mlld_sdk.runtime.missing import MISSING_GRACE, MissingAgent, MissingAgents
from mlld_sdk.supervision.spec import ChildSpec
from mlld_sdk.testing import FakeClock
from tests.support.agents import running
from tests.support.command_line import command_line
from tests.support.eventually import eventually
from tests.support.trees import is_up

TREE = one_for_one(dynamic(name="stories"))

SERVICE = """
import sys
from pathlib import Path
from mlld_sdk import Runtime
from tests.process.runtime.test_missing import TREE, story

folder = Path(sys.argv[1])
with Runtime(TREE, store=folder / "state.db", durability="normal") as runtime:
    runtime.place("stories").supervisor().start_child(story("S1", folder))
    runtime["stories/S1"].run("the first", run_id="first")
    runtime["stories/S1"].run("the next", run_id="next")
    sys.stdin.read()
"""


class Story(Agent):
    """Has two steps, the second of which comes to its end only when it is allowed to."""

    engine = "embedded"
    folder = ""

    def __init__(self, folder: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder

    def run(self, job: Job, payload: str) -> list[str]:
        begun = job.step("begin", lambda: self.write(f"{payload} begun"))
        ended = job.step("end", lambda: self.end(payload), idempotent=True)
        return [begun, ended]

    def write(self, line: str) -> str:
        with Path(self.folder, "log").open("a") as log:
            log.write(f"{line}\n")
        return line

    def end(self, payload: str) -> str:
        eventually(lambda: Path(self.folder, "go").exists())
        return self.write(f"{payload} ended")


def story(name: str, folder: Path) -> ChildSpec:
    return child(Story, str(folder), name=name)


def lines(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def kill_a_service_with_two_runs(folder: Path) -> None:
    """Run a service until its agent is in the middle of the first of two runs, and kill it."""
    service = subprocess.Popen([sys.executable, "-c", SERVICE, str(folder)], stdin=subprocess.PIPE)
    try:
        eventually(lambda: lines(folder) == ["the first begun"])
    finally:
        service.send_signal(signal.SIGKILL)
        service.communicate()


def test_the_runs_of_an_agent_started_by_name_survive_the_kill_of_the_service(tmp_path: Path) -> None:
    kill_a_service_with_two_runs(tmp_path)
    with running(TREE, tmp_path) as (runtime, _):
        eventually(runtime.missing)
        runtime.place("stories").supervisor().start_child(story("S1", tmp_path))
        assert "no agent" not in runtime.tree()
        (tmp_path / "go").touch()
        assert runtime.run("first").result(60) == ["the first begun", "the first ended"]
        assert runtime.run("next").result(60) == ["the next begun", "the next ended"]
        assert runtime.agent("S1").name == "root/stories/S1"
        assert lines(tmp_path).count("the first begun") == 1  # not once more
        eventually(lambda: runtime.missing() == [])


def test_the_runs_of_an_agent_started_by_name_survive_the_end_of_its_supervisor(tmp_path: Path) -> None:
    with running(TREE, tmp_path) as (runtime, _):
        runtime.place("stories").supervisor().start_child(story("S1", tmp_path))
        run = runtime["stories/S1"].run("the first")
        eventually(lambda: lines(tmp_path) == ["the first begun"])
        first = runtime.place("stories").ref()
        first.kill("to see")
        eventually(lambda: is_up(runtime._running(), "stories") and runtime.place("stories").ref() is not first)
        eventually(runtime.missing)
        runtime.place("stories").supervisor().start_child(story("S1", tmp_path))
        (tmp_path / "go").touch()
        assert run.result(60) == ["the first begun", "the first ended"]
        assert lines(tmp_path).count("the first begun") == 1


def test_an_agent_that_is_not_started_again_is_missed_with_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_a_service_with_two_runs(tmp_path)
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path))
    clock = FakeClock()
    with running(TREE, tmp_path, env=clock.env, control=True) as (runtime, seen):
        (missing,) = eventually(runtime.missing)
        assert (missing.agent, sorted(missing.runs), missing.more) == ("root/stories/S1", ["first", "next"], False)
        assert "no agent root/stories/S1 is in this tree, and runs wait for it: " in runtime.tree()
        assert runtime.verdict().word == "healthy"  # it may be started yet, here or elsewhere
        clock.advance(MISSING_GRACE)
        verdict = runtime.verdict()
        assert verdict.word == "degraded"
        (concern,) = verdict.concerns
        assert concern.path == "root/stories/S1"
        assert all(word in concern.why for word in ("first", "next", "no such agent is in this tree"))
        missed: list[Any] = eventually(lambda: [event for event in seen if name_of(event) == "agent.missed"])
        assert [(event.agent, event.runs) for event in missed] == [("root/stories/S1", missing.runs)]
        said = command_line(tmp_path, "tree")
        assert (said.status, said.out.count("root/stories/S1")) == (3, 2)  # in the verdict and in the tree
        with Remote("root") as remote:
            assert [one["agent"] for one in remote.ask(AskTree())["missing"]] == ["root/stories/S1"]
        (check,) = check_runtimes()
        assert check.finding == "warning"
        assert "root/stories/S1 (" in check.found
        assert "root/stories/S1" in command_line(tmp_path, "doctor").out
        for run in missing.runs:
            runtime.run(run).cancel()
        eventually(lambda: runtime.verdict().word == "healthy")
        assert "S1" not in runtime.tree()
        assert check_runtimes()[0].finding == "ok"


def test_an_agent_of_another_process_is_not_missed_while_that_one_works(tmp_path: Path) -> None:
    service = subprocess.Popen([sys.executable, "-c", SERVICE, str(tmp_path)], stdin=subprocess.PIPE)
    try:
        eventually(lambda: lines(tmp_path) == ["the first begun"])
        with Journal.open(tmp_path / "state.db", durability="normal") as journal:
            clock = FakeClock()
            agents = MissingAgents(journal, lambda _: False, clock.env)
            agents.look(journal.unfinished_kinds())
            assert agents.all() == []  # the second run waits, and its agent is there to be seen
            service.send_signal(signal.SIGSTOP)
            agents.look(journal.unfinished_kinds())
            assert agents.all() == []  # nor is one missed that is slow
            service.send_signal(signal.SIGKILL)
            service.wait()
            agents.look(journal.unfinished_kinds())
            assert [one.agent for one in agents.all()] == ["root/stories/S1"]
            assert agents.concerns() == []
            clock.advance(MISSING_GRACE)
            agents.look(journal.unfinished_kinds())
            assert [one.path for one in agents.concerns()] == ["root/stories/S1"]
    finally:
        service.kill()
        service.communicate()


def test_what_stands_in_the_tree_is_not_missed_whatever_its_state(tmp_path: Path) -> None:
    tree = one_for_one(child(Story, name="paused"), one_for_one(child(Story, name="inner"), name="below"))
    with running(tree, tmp_path) as (runtime, _):
        runtime.pause("paused", "to see")
        runtime.pause("below", "to see")
        journal = runtime.journal
        for kind in ("root/paused", "root/below/inner", "root/below", "other/paused", "root/gone"):
            journal.submit(kind)
        eventually(runtime.missing)
        assert [one.agent for one in runtime.missing()] == ["other/paused", "root/below", "root/gone"]


def test_many_runs_are_not_all_named(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "state.db", durability="normal") as journal:
        for n in range(7):
            journal.submit("root/S1", run_id=f"run-{n}")
        agents = MissingAgents(journal, lambda _: False, journal.env)
        agents.look(journal.unfinished_kinds())
        (missing,) = agents.all()
        assert isinstance(missing, MissingAgent)
        assert str(missing).endswith("run-0, run-1, run-2, run-3, run-4 and more")


def test_agents_of_others_are_looked_for_in_one_question_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions, sessions = 0, Tx.sessions

    def counted(tx: Tx) -> set[str]:
        nonlocal questions
        questions += 1
        return sessions(tx)

    with Journal.open(tmp_path / "s.db") as mine, Journal.open(tmp_path / "s.db") as others:
        for number in range(40):
            runs = [mine.submit(f"other/{number:02}", text) for text in ("first", "second")]
            if number < 10:
                others.claim(runs[0].id, "somebody")
        looks = MissingAgents(mine, lambda _: False, Env())
        kinds = set(mine.backlogs())
        monkeypatch.setattr(Tx, "sessions", counted)
        looks.look(kinds)
        assert questions == 1
        assert [one.agent for one in looks.all()] == [f"other/{number:02}" for number in range(10, 40)]
        assert {len(one.runs) for one in looks.all()} == {2}
