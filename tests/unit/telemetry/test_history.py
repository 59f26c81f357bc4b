"""The story survives the program: crash reports and what happened to the tree come back from the journal's ring."""

from pathlib import Path

import msgspec
import pytest

from mlld_sdk import Runtime, child, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.events import ActorExited
from mlld_sdk.cli.render import crash_report
from mlld_sdk.engines.events import CheckpointMissedEvent
from mlld_sdk.journal import Journal, JournalLimits
from mlld_sdk.journal.events import OwnerDied, StepFinished
from mlld_sdk.runtime.keeper import HistoryKeeper
from mlld_sdk.supervision.events import BudgetView, ChildExited, ChildStarted
from mlld_sdk.telemetry import SpanStarted
from mlld_sdk.telemetry.history import CHAPTER, LONGEST, History
from mlld_sdk.transport.events import EngineExited, EngineStarted
from tests.support.eventually import eventually


class Brittle(Actor):
    def on_receive(self, message: object) -> None:
        raise RuntimeError(message)


def started(n: int) -> ChildStarted:
    return ChildStarted(at=float(n), path="root/a", incarnation=n, cause="restart")


def test_the_story_goes_on_after_a_restart_of_the_program(tmp_path: Path) -> None:
    tree = one_for_one(child(Brittle, name="brittle"), max_restarts=100)
    with Runtime(tree, store=tmp_path / "state.db") as runtime:
        runtime.place("brittle").ref().tell("remember me")
        eventually(lambda: runtime.history.crashes())
    with Runtime(tree, store=tmp_path / "state.db") as runtime:
        told = runtime.history.events(limit=10_000)
        assert [event.n for event in told] == list(range(1, len(told) + 1))
        names = [event.name for event in told]
        assert names.count("supervisor.started") == 2
        assert names.index("child.exited") < names.index("supervisor.stopped")
        crash = next(event for event in told if event.name == "child.exited")
        assert crash.level == "warning"
        assert crash.fields["reason"] == "RuntimeError: remember me"
        assert "trace" not in crash.fields
        assert "remember me" in runtime.history.crashes("root/brittle")[0].trace


def test_only_what_happened_to_the_tree_is_written_down_and_only_once() -> None:
    history = History()
    with Journal.open() as journal:
        history(started(1))
        history(SpanStarted(at=0.0, span="1", name="execute"))
        HistoryKeeper(history, journal).write_down()
        HistoryKeeper(history, journal).write_down()
        assert len(journal.events()) == 1
        again = History()
        HistoryKeeper(again, journal).remember()
        assert [event.name for event in again.events()] == ["child.started"]


def test_long_fields_are_cut_in_the_story_and_whole_in_the_crash_report() -> None:
    history = History()
    long = "x" * 10_000
    with Journal.open() as journal:
        history(
            ChildExited(
                at=0.0,
                path="root/a",
                incarnation=1,
                kind="crash",
                reason=long,
                trace=long,
                decision="stop",
                crash_id="c",
            )
        )
        HistoryKeeper(history, journal).write_down()
        again = History()
        HistoryKeeper(again, journal).remember()
        (told,) = again.events()
    assert len(told.fields["reason"]) == LONGEST + 1
    assert "trace" not in told.fields
    assert history.crash("c").reason == long  # type: ignore[union-attr]


def test_a_storm_costs_one_record_and_keeps_the_newest() -> None:
    history = History()
    with Journal.open() as journal:
        for n in range(CHAPTER * 3):
            history(started(n))
        HistoryKeeper(history, journal).write_down()
        assert len(journal.events()) == 1
        again = History()
        HistoryKeeper(again, journal).remember()
        assert [event.fields["incarnation"] for event in again.events(limit=10_000)] == list(
            range(CHAPTER * 2, CHAPTER * 3)
        )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 33])
def test_the_number_of_the_newest_record_is_known_though_the_oldest_are_gone(count: int) -> None:
    with Journal.open(limits=JournalLimits(events=5)) as journal:
        for n in range(count):
            journal.append_event("note", n)
        assert journal.last_event() == count


def test_a_crash_report_of_another_version_is_no_reason_to_fail() -> None:
    with Journal.open() as journal:
        journal.append_event("crash", {"who": "knows"})
        journal.append_event("story", {"no": "list"})
        history = History()
        HistoryKeeper(history, journal).remember()
        assert history.crashes() == []
        assert history.events() == []


def test_events_are_numbered_and_the_oldest_go() -> None:
    history = History(kept=10)
    for n in range(25):
        history(started(n))
    assert [event.n for event in history.events()] == list(range(16, 26))
    assert [event.n for event in history.events(after=20)] == [21, 22, 23, 24, 25]
    assert [event.n for event in history.events(after=3, limit=2)] == [16, 17]
    assert history.events(after=25) == []
    assert history.wait(after=25, timeout=0.01) == []


def test_a_failure_of_a_child_that_ended_as_it_should_is_no_crash() -> None:
    history = History()
    for kind in ("normal", "shutdown"):
        history(ChildExited(at=0.0, path="root/a", incarnation=1, kind=kind, reason="done", decision="stop"))
    assert history.crashes() == []


def test_a_crash_report_is_put_together_from_the_events_around_it() -> None:
    history = History()
    history(CheckpointMissedEvent(at=90.0, agent="root/a", function="ask", key="k"))
    history(StepFinished(at=95.0, run_id="r1", position="1", name="ask", attempt=1))
    history(EngineStarted(at=80.0, engine="root/a-7", pid=42, command="mlld"))
    history(
        EngineExited(
            at=99.5, engine="root/a-7", pid=42, reason="died", signal=9, out_of_memory=True, stderr_tail="one\ntwo"
        )
    )
    history(OwnerDied(at=99.6, run_id="r1", kind="root/a", owner="root/a#3", reason="it died"))
    history(
        ActorExited(at=99.9, actor="root/a", epoch=3, kind="A", reason="x", normal=False, last_message="Go", queued=2)
    )
    history(
        ChildExited(
            at=100.0,
            path="root/a",
            incarnation=1,
            kind="crash",
            reason="x",
            decision="wait",
            next_attempt_in=1.5,
            budget=BudgetView(1, 3, 5.0),
            crash_id="c0ffee",
            blame="root",
        )
    )
    report = history.crash("c0ffee")
    assert report is not None
    assert report.engine is not None
    assert (report.engine.exit, report.engine.out_of_memory, report.engine.stderr_tail) == (
        "SIGKILL",
        True,
        ("one", "two"),
    )
    assert (report.runs, report.last_step, report.checkpoint) == (("r1",), 95.0, 90.0)
    assert (report.last_message, report.queued) == ("Go", 2)
    assert (report.decision, report.next_attempt_in, report.blame) == ("wait", 1.5, "root")
    printed = crash_report(msgspec.to_builtins(report))
    for said in (
        "c0ffee",
        "SIGKILL, memory ran out?",
        "| two",
        "runs r1",
        "was handling Go; waiting messages refused: 2",
        "1 of 3",
    ):
        assert said in printed
