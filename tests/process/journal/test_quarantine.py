"""Whose doing was the death of a process? Real ones die, and the runs that may have been it are tried one at a time."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlld_sdk.journal import Journal, JournalLimits, StepPolicy
from mlld_sdk.journal.errors import RunInQuarantine
from mlld_sdk.journal.events import OwnerDied, RunCleared
from mlld_sdk.journal.rows import Tx
from mlld_sdk.journal.rules import SHORTEST_TRIAL, rank, trial_length
from tests.support.journal import Clock, begin, python, quick

DIE = r"""
import os, signal, sys
from tests.support.journal import quick, begin

path, *words = sys.argv[1:]  # a run with its step in flight; `-run`: between steps; `~run`: it sleeps
journal = quick(path)
for word in words:
    lease = journal.claim(word.lstrip("-~"), "w")
    if word[0] == "~":
        lease.sleep_until(lease.run.created + 3600)
    elif word[0] != "-":
        begin(journal, lease, "1")
os.kill(os.getpid(), signal.SIGKILL)
"""


class Deaths:
    """A journal, and processes that die while they own some of its runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.events: list[object] = []
        self.journal = quick(self.path, sink=self.events.append, limits=JournalLimits(max_deaths=4))
        for name in "abcd":
            self.journal.submit("kind", name, run_id=name)

    def die(self, *words: str) -> dict[str, str]:
        """Let a process die; returns what share each of its runs is given."""
        child = python(DIE, str(self.path), *words)
        out, err = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL, out + err
        seen = len(self.events)
        assert self.journal.claim_unfinished("nobody's kind", "finder") == []
        return {event.run_id: event.share for event in self.events[seen:] if isinstance(event, OwnerDied)}


@pytest.fixture
def deaths(tmp_path: Path) -> Iterator[Deaths]:
    made = Deaths(tmp_path)
    yield made
    assert made.journal.verify() == []
    made.journal.close()


def claimed(journal: Journal, limit: int = 10) -> list[str]:
    return [lease.run_id for lease in journal.claim_unfinished("kind", "w", limit=limit)]


def test_blame_goes_to_what_had_something_under_way(deaths: Deaths) -> None:  # J-43
    assert deaths.die("a", "~b") == {"a": "alone", "b": "none"}
    assert deaths.die("c", "-d") == {"c": "suspected", "d": "suspected"}  # code between steps can crash, too
    assert len(deaths.journal.run("a").deaths) == 1
    assert [deaths.journal.run(name).deaths for name in "bcd"] == [(), (), ()]


def test_an_interruption_that_may_be_anothers_doing_costs_no_attempt(deaths: Deaths) -> None:  # J-43
    for _ in range(2):
        deaths.die("a", "b")
    deaths.journal.claim("a", "w").release()
    lease = deaths.journal.claim("a", "w")
    begun = begin(deaths.journal, lease, "1", policy=StepPolicy(on_interrupt="retry", max_attempts=2))
    assert begun.attempt == 3
    lease.release()  # in good order: that costs none either
    lease = deaths.journal.claim("a", "w")
    assert begin(deaths.journal, lease, "1", policy=StepPolicy(on_interrupt="retry", max_attempts=1)).attempt == 4


def test_after_one_death_all_go_on_side_by_side_after_two_one_at_a_time(deaths: Deaths) -> None:  # J-44
    deaths.die("a", "b", "c")
    with quick(deaths.path) as other:
        assert claimed(other) == ["d", "a", "b", "c"]
    deaths.die("a", "b", "c")
    free, tried = claimed(deaths.journal)
    assert (free, tried in "abc") == ("d", True)
    waiting = next(name for name in "abc" if name != tried)
    with quick(deaths.path) as other:
        assert claimed(other) == []
        assert not other.has_claimable("kind")
        with pytest.raises(RunInQuarantine, match=f"run {waiting} waits.*run {tried} is being tried"):
            other.claim(waiting, "w")
        deaths.journal.cancel(tried)
        assert other.has_claimable("kind")
        assert len(claimed(other)) == 1


def test_a_suspect_is_cleared_by_the_step_that_was_in_flight(deaths: Deaths) -> None:  # J-44
    for _ in range(2):
        deaths.die("a", "b")
    lease = deaths.journal.claim("b", "w")
    assert lease.run.quarantine
    begin(deaths.journal, lease, "2")
    lease.finish_step("2")
    assert deaths.journal.run("b").quarantine
    begin(deaths.journal, lease, "1")
    lease.finish_step("1")
    assert deaths.journal.run("b").quarantine == 0
    assert [event.run_id for event in deaths.events if isinstance(event, RunCleared)] == ["b"]
    assert deaths.journal.claim("a", "w").run.quarantine


def test_one_that_dies_with_nothing_else_under_way_clears_the_others_and_is_parked(deaths: Deaths) -> None:
    for _ in range(2):
        deaths.die("a", "b", "c")
    assert deaths.die("b") == {"b": "alone"}  # J-43
    assert [len(death.session) > 0 for death in deaths.journal.run("b").deaths] == [True] * 3
    assert [deaths.journal.run(name).quarantine for name in "ac"] == [0, 0]
    assert deaths.die("a", "b", "d") == {"a": "none", "b": "blamed", "d": "none"}  # it is known by now
    assert deaths.journal.run("b").state == "parked"
    assert deaths.journal.retry("b").quarantine == 1  # J-23: tried alone again


def test_who_has_something_under_way_beside_a_trial_becomes_a_suspect(deaths: Deaths) -> None:  # J-44
    for _ in range(2):
        deaths.die("a", "b")
    assert deaths.die("a", "c") == {"a": "blamed", "c": "suspected"}
    assert [bool(deaths.journal.run(name).quarantine) for name in "abc"] == [True, True, False]


def test_a_trial_that_lasts_holds_up_the_others_for_a_while_only(deaths: Deaths) -> None:  # J-44
    for _ in range(2):
        deaths.die("a", "b")
    clock = Clock(wall=deaths.journal.env.wall())
    with quick(deaths.path, env=clock.env) as first, quick(deaths.path, env=clock.env) as second:
        first.claim("b", "w", ttl=1000)
        assert "a" not in claimed(second)
        clock.advance(SHORTEST_TRIAL + 1)
        assert claimed(second) == ["a"]


def test_what_had_been_under_way_for_the_shortest_time_is_tried_first_and_who_was_blamed_last() -> None:  # J-44
    assert sorted([rank(1, 0.1), rank(0, 70.0), rank(0, 0.4)]) == [rank(0, 0.4), rank(0, 70.0), rank(1, 0.1)]
    assert trial_length(rank(2, 70.0)) == 140.0
    assert trial_length(rank(0, 0.0)) == SHORTEST_TRIAL


def test_the_questions_about_whose_turn_it_is_are_answered_from_indexes(deaths: Deaths) -> None:  # J-34, J-44
    asked: list[str] = []

    def work(tx: Tx) -> list[str]:
        tx.connection.set_trace_callback(asked.append)
        tx.claimable("kind", 0.0, (), 16, trial=True)
        tx.on_trial()
        tx.in_quarantine()
        tx.connection.set_trace_callback(None)
        return [row[-1] for sql in asked for row in tx.connection.execute(f"EXPLAIN QUERY PLAN {sql}")]

    plan = deaths.journal._core.read(work)
    scans = [line for line in plan if line.startswith("SCAN") and "subquery" not in line.lower()]
    assert not [line for line in scans if "runs" in line.split()], plan
    assert any("runs_by_turn (state=? AND kind=? AND quarantine=?)" in line for line in plan), plan
