"""Runs that nobody takes up are seen: in the tree, its verdict, `top` and the metrics, without asking any actor."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, Runtime, child, one_for_one
from mlld_sdk.base.env import Env
from mlld_sdk.control import protocol
from mlld_sdk.control.client import Remote
from mlld_sdk.journal import Journal
from mlld_sdk.journal.errors import JournalUnreadable
from mlld_sdk.runtime import backlogs
from mlld_sdk.runtime.backlogs import Backlogs
from mlld_sdk.supervision.verdict import Verdict
from mlld_sdk.testing import FakeClock
from tests.support.command_line import command_line
from tests.support.eventually import eventually


class Busy(Agent):
    """Works on one run at a time, until it is let go."""

    engine = "embedded"
    oldest_waiting = 0.5
    gate: threading.Event

    def run(self, job: Job, payload: Any) -> Any:
        if payload == "sleep":
            job.sleep(3600)
        self.gate.wait(120)
        return payload


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start runtimes on one store; the gate is opened at the end."""
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    monkeypatch.setattr(Busy, "gate", threading.Event(), raising=False)
    with contextlib.ExitStack() as stack:

        def start(name: str = "root", **options: Any) -> Runtime:
            tree = one_for_one(child(Busy, name="busy", **options))
            runtime = Runtime(
                tree, store=tmp_path / "state.db", name=name, durability="normal", drain_timeout=0.0, control=True
            )
            return stack.enter_context(runtime)

        yield start
        Busy.gate.set()


def concern(runtime: Runtime) -> str:
    """Say what is wrong with the agent."""
    verdict: Verdict = runtime.verdict()
    return next((f"{one.word}: {one.why}" for one in verdict.concerns if one.path == "root/busy"), "")


def test_an_agent_whose_runs_wait_for_too_long_is_degraded_everywhere(make: Any, tmp_path: Path) -> None:  # V-9
    prometheus_client = pytest.importorskip("prometheus_client")
    from mlld_sdk.telemetry.prometheus import export_metrics

    runtime = make()
    for n in range(3):
        runtime["busy"].run(n)
    eventually(lambda: concern(runtime).startswith("degraded: 2 runs wait, the oldest for"))
    assert "runs 2 waiting for" in runtime.tree()
    assert ", 1 running" in runtime.tree()
    said = command_line(tmp_path, "tree")
    assert said.status == 3
    assert "runs 2 waiting" in said.out
    top = command_line(tmp_path, "top").out.splitlines()
    [heads] = [line.split() for line in top if line.startswith("agent or pool")]
    assert heads[-4:] == ["runs", "pending", "oldest", "parked"]
    [row] = [line.split() for line in top if line.startswith("root/busy")]
    assert (row[-4], row[-3], row[-1]) == ("1", "2", "0")
    registry = prometheus_client.CollectorRegistry()
    metrics = export_metrics(runtime, registry)
    assert registry.get_sample_value("mlld_runs", {"path": "root/busy", "state": "pending"}) == 2
    assert registry.get_sample_value("mlld_runs", {"path": "root/busy", "state": "running"}) == 1
    assert (registry.get_sample_value("mlld_oldest_waiting_seconds", {"path": "root/busy"}) or 0) > 0.5
    metrics.close()
    Busy.gate.set()
    eventually(lambda: concern(runtime) == "")
    assert "waiting" not in runtime.tree()


def test_starvation_is_seen_when_the_agent_does_not_even_read_its_mailbox(make: Any) -> None:  # V-9
    class Deaf(Busy):
        def on_receive(self, message: Any) -> Any:
            if message == "hang":
                self.gate.wait(120)
            return super().on_receive(message)

    runtime = make()
    runtime.supervisor.start_child(child(Deaf, name="deaf"))
    runtime["deaf"].ref.tell("hang")
    runtime["deaf"].run("never begun")
    eventually(lambda: "root/deaf" in [one.path for one in runtime.verdict().concerns if "a run has waited" in one.why])


def test_runs_of_an_agent_that_was_stopped_on_purpose_do_not_starve(make: Any) -> None:  # V-9
    runtime = make()
    runtime.pause("busy", "new model tonight")
    runtime["busy"].run("waits for tonight")
    eventually(lambda: "runs 1 waiting for 1s" in runtime.tree())  # more than its limit
    assert concern(runtime).startswith("maintenance: new model tonight")
    runtime.resume("busy")


def test_a_limit_can_be_changed_and_taken_away_while_it_works(make: Any) -> None:
    runtime = make()
    for n in range(2):
        runtime["busy"].run(n)
    eventually(lambda: concern(runtime).startswith("degraded"))
    runtime["busy"].configure(oldest_waiting=None)
    assert concern(runtime) == ""


def test_sleeping_is_not_waiting(make: Any, tmp_path: Path) -> None:  # V-9, J-45
    runtime = make(concurrency=2)
    run = runtime["busy"].run("sleep")
    eventually(lambda: "runs 1 running" in runtime.tree() and run.record().resting)
    runtime.stop(drain=False)
    with Journal.open(tmp_path / "state.db") as journal:
        [backlog] = journal.backlogs().values()
        assert (backlog.pending, backlog.waiting, backlog.oldest) == (1, 0, None)


def test_each_process_that_has_the_agent_says_that_its_runs_starve(make: Any, tmp_path: Path) -> None:  # V-9
    first = make()
    for n in range(4):
        first["busy"].run(n)
    tree = one_for_one(child(Busy, name="busy"), child(Agent, name="idle", engine="embedded"))
    with Runtime(tree, store=tmp_path / "state.db", durability="normal", drain_timeout=0.0) as second:
        for runtime in (first, second):
            eventually(lambda runtime=runtime: concern(runtime).startswith("degraded: 2 runs wait"))
        assert [one.path for one in second.verdict().concerns] == ["root/busy"]


def test_the_wait_goes_on_being_counted_while_the_journal_takes_no_writes(make: Any, tmp_path: Path) -> None:  # V-9
    runtime = make(oldest_waiting=1.5)
    runtime["busy"].run("works")
    runtime["busy"].run("waits")
    eventually(lambda: "1 waiting" in runtime.tree())
    lock = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        eventually(lambda: concern(runtime).startswith("degraded: a run has waited"))
    finally:
        lock.close()


class Broken:
    """A journal that can be read, or not."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.fails = journal, False

    def backlogs(self) -> Any:
        if self.fails:
            raise JournalUnreadable("the disk fails")
        return self.journal.backlogs()


def test_what_cannot_be_read_is_not_known_and_what_can_goes_on_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()  # V-9
    env: Env = clock.env
    journal: Any = Broken(Journal.open(env=env))
    with journal.journal:
        journal.journal.submit("root/a")
        looks = Backlogs(journal, env)
        assert looks("root/a", None) is None
        assert looks.look() == {"root/a"}
        clock.advance(30)
        view = looks("root/a", None)
        assert view is not None
        assert (view.known, view.pending, view.oldest) == (True, 1, 30.0)
        journal.fails = True
        with pytest.raises(JournalUnreadable):
            looks.look()
        view = looks("root/a", None)
        assert view is not None
        assert (view.known, view.pending, view.starves) == (False, 0, False)
        journal.fails = False
        looks.look()
        monkeypatch.setattr(backlogs, "now", lambda: float("inf"))  # nobody has asked for long
        view = looks("root/a", None)
        assert view is not None
        assert not view.known


def test_the_answer_of_top_can_be_read_by_programs(make: Any) -> None:
    runtime = make()
    runtime["busy"].run(1)
    with Remote("root") as remote:
        top: Any = eventually(
            lambda: [one for one in remote.ask(protocol.AskTop())["agents"] if one["runs"]["running"]]
        )
    assert top[0]["runs"]["known"] is True
