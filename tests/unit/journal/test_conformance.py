"""What every store must do, said once and asked of each."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError, TaskError
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.journal import ErrorRecord, Failed, Fresh, Journal, JournalLimits, Positions, Replay, StepPolicy
from mlld_sdk.journal.errors import (
    IdempotencyConflict,
    JournalBusy,
    JournalClosed,
    LeaseHeld,
    LeaseLost,
    LimitExceeded,
    RunEnded,
    RunNotFound,
    RunNotParked,
    RunParked,
    StepExhausted,
    StepInterrupted,
    StepMismatch,
    StepNotOpen,
    ValueNotStorable,
    WaitTimeout,
)
from mlld_sdk.journal.memory import MemoryStore
from mlld_sdk.journal.records import Backlog
from mlld_sdk.journal.rows import _BACKLOGS
from mlld_sdk.journal.sqlite.store import SqliteStore
from tests.support.journal import AGAIN, Clock, act, begin, python, quick

FAIL = StepPolicy()


class World:
    """One kind of store, and as many journals on it as a test wants: as if each were another process."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.opened: list[Journal] = []
        self._memory = MemoryStore() if kind == "memory" else None
        self._path = folder / "journal.db"

    def open(self, **options: Any) -> Journal:
        options = {"env": self.clock.env, "sink": self.events.append, "poll_interval": 0.01, **options}
        journal = Journal(self._memory, **options) if self._memory else quick(self._path, **options)
        self.opened.append(journal)
        return journal

    def names(self) -> list[str]:
        return [name_of(event) for event in self.events]

    def close(self) -> None:
        for journal in self.opened:
            journal.close()


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(request.param, tmp_path)
    yield world
    world.close()


@pytest.fixture
def journal(world: World) -> Journal:
    return world.open()


# -- runs -------------------------------------------------------------------------------------------------------------


def test_a_submitted_run_is_pending_and_keeps_its_input(journal: Journal) -> None:  # J-1
    run = journal.submit("reviewer", {"topic": "safety", "n": [1, 2.5, None, True]}, priority=3, deadline=60)
    assert journal.run(run.id) == run
    assert (run.state, run.kind, run.priority, run.deadline) == ("pending", "reviewer", 3, run.created + 60)
    assert journal.input(run.id) == {"topic": "safety", "n": [1, 2.5, None, True]}


def test_the_same_key_with_the_same_input_is_the_same_run_even_after_its_end(journal: Journal) -> None:  # J-2
    first = journal.submit("a", {"x": 1, "y": 2}, key="order-7")
    assert journal.submit("a", {"y": 2, "x": 1}, key="order-7").id == first.id
    journal.claim(first.id, "w").finish_run("done")
    again = journal.submit("a", {"x": 1, "y": 2}, key="order-7")
    assert (again.id, again.state) == (first.id, "finished")
    assert journal.find("a", "order-7") == again
    assert journal.submit("b", {"x": 1}, key="order-7").id != first.id  # a key belongs to its kind


def test_the_same_key_with_another_input_is_refused_and_changes_nothing(journal: Journal) -> None:  # J-3
    first = journal.submit("a", {"x": 1}, key="order-7")
    with pytest.raises(IdempotencyConflict, match="order-7"):
        journal.submit("a", {"x": 2}, key="order-7")
    assert journal.runs() == [first]


def test_a_key_that_is_no_text_is_refused_in_words(journal: Journal) -> None:
    with pytest.raises(ConfigurationError, match="key must be text of 1 to 500 characters, got 7"):
        journal.submit("kind", {}, key=7)  # type: ignore[arg-type]


def test_a_value_that_was_not_awaited_is_refused_with_that_hint(journal: Journal) -> None:
    async def forgotten() -> None: ...

    value = forgotten()
    with pytest.raises(ValueNotStorable, match="awaited first"):
        journal.submit("kind", {"x": value})
    value.close()


def test_a_given_run_id_works_like_a_key(journal: Journal) -> None:  # J-4
    run = journal.submit("a", 1, run_id="mine")
    assert journal.submit("a", 1, run_id="mine") == run
    for kind, value in (("a", 2), ("b", 1)):
        with pytest.raises(IdempotencyConflict, match="mine"):
            journal.submit(kind, value, run_id="mine")


def test_a_run_past_its_deadline_fails_instead_of_being_claimed(world: World, journal: Journal) -> None:  # J-5
    runs = [journal.submit("a", n, deadline=10) for n in range(2)]
    world.clock.advance(11)
    with pytest.raises(RunEnded, match="deadline"):
        journal.claim(runs[0].id, "w")
    assert journal.claim_unfinished("a", "w") == []
    for run in runs:
        outcome = journal.outcome(run.id)
        assert outcome is not None
        assert outcome.error is not None
        assert (outcome.state, outcome.error.code) == ("failed", "RUN_DEADLINE_EXCEEDED")


def test_what_is_not_there_is_an_error_with_the_id(journal: Journal) -> None:
    calls: list[Callable[[], object]] = [
        lambda: journal.run("nope"),
        lambda: journal.input("nope"),
        lambda: journal.outcome("nope"),
        lambda: journal.claim("nope", "w"),
        lambda: journal.cancel("nope"),
        lambda: journal.retry("nope"),
        lambda: journal.wait("nope", 1),
        lambda: journal.on_outcome("nope", print),
        lambda: journal.append_event("note", run_id="nope"),
    ]
    for call in calls:
        with pytest.raises(RunNotFound, match="nope"):
            call()


def test_runs_are_listed_by_kind_and_state_page_by_page(journal: Journal) -> None:
    ids = [journal.submit("a" if n % 2 else "b", n).id for n in range(7)]
    journal.claim(ids[1], "w")
    assert [run.id for run in journal.runs(limit=3)] == ids[:3]
    assert [run.id for run in journal.runs(after=ids[2])] == ids[3:]
    assert [run.id for run in journal.runs(kind="a", states=["pending"])] == [ids[3], ids[5]]
    assert [run.id for run in journal.runs(newest_first=True, limit=3)] == ids[:3:-1]
    assert [run.id for run in journal.runs(newest_first=True, before=ids[4], limit=2)] == [ids[3], ids[2]]
    assert [run.id for run in journal.runs(newest_first=True, before=ids[4], kind="a")] == [ids[3], ids[1]]
    assert [run.id for run in journal.runs(after=ids[1], before=ids[4])] == [ids[2], ids[3]]
    assert journal.runs(before="nope") == journal.runs(after="nope") == []
    assert journal.status().runs == {"pending": 6, "running": 1}
    assert journal.unfinished_kinds() == {"a", "b"}
    for run in journal.runs(kind="b"):
        journal.cancel(run.id)
    assert journal.unfinished_kinds() == {"a"}


@pytest.mark.parametrize("option", [{"kind": ""}, {"kind": "a", "key": "x" * 501}, {"kind": "a", "run_id": ""}])
def test_names_out_of_range_are_refused_by_name(journal: Journal, option: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(reversed(option))):
        journal.submit(**option)


# -- steps ------------------------------------------------------------------------------------------------------------


def test_a_step_that_begins_is_recorded_before_it_acts(journal: Journal) -> None:  # J-10
    lease = journal.claim(journal.submit("a").id, "w")
    assert begin(journal, lease, "1", policy=FAIL) == Fresh(attempt=1)
    [step] = journal.steps(lease.run_id)
    assert (step.position, step.name, step.state, step.attempts, step.policy) == ("1", "step", "started", 1, FAIL)


def test_finishing_returns_what_a_replay_will_return(journal: Journal) -> None:  # J-11, J-12, J-55
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1")
    first = lease.finish_step("1", {"pair": (1, 2), "text": "ü"})
    assert first == {"pair": [1, 2], "text": "ü"}
    lease.release()
    again = journal.claim(run.id, "w")
    assert begin(journal, again, "1") == Replay(recorded=first)
    assert again.attempt == 2


def test_a_step_that_asks_for_something_else_is_refused_with_both_sides_named(journal: Journal) -> None:  # J-13
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    lease.begin_step("1", "fetch", journal.fingerprint({"url": "old"}))
    lease.finish_step("1", 1)
    lease.release()
    lease = journal.claim(run.id, "w")
    for name, asked in (("fetch", {"url": "new"}), ("store", {"url": "old"})):
        with pytest.raises(StepMismatch) as caught:
            lease.begin_step("1", name, journal.fingerprint(asked))
        said = str(caught.value)
        assert all(part in said for part in (run.id, "step 1", "fetch", '"old"', name, asked["url"], "cancel it")), said
    assert lease.begin_step("1", "fetch", journal.fingerprint({"url": "old"})) == Replay(recorded=1)


def test_a_step_without_an_answer_that_may_run_again_may_ask_for_something_else(journal: Journal) -> None:  # J-13
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    lease.begin_step("1", "ask", journal.fingerprint("small model"), AGAIN)
    lease.abandon("killed")
    lease = journal.claim(run.id, "w")
    with pytest.raises(StepMismatch):
        lease.begin_step("1", "ask", journal.fingerprint("large model"), FAIL)
    assert isinstance(lease.begin_step("1", "ask", journal.fingerprint("large model"), AGAIN), Fresh)
    lease.finish_step("1", "answer")
    lease.release()
    lease = journal.claim(run.id, "w")
    assert lease.begin_step("1", "ask", journal.fingerprint("large model"), AGAIN) == Replay(recorded="answer")


def test_an_interrupted_step_is_not_repeated_unasked(journal: Journal) -> None:  # J-14
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1")
    lease.abandon("killed")
    lease = journal.claim(run.id, "w")
    for _ in range(2):  # asked again it still says no
        with pytest.raises(StepInterrupted, match=r"step 1 \(step\)") as caught:
            begin(journal, lease, "1", policy=FAIL)
        assert isinstance(caught.value, TaskError)
    [step] = journal.steps(run.id)
    assert (step.state, step.attempts, step.deaths) == ("interrupted", 1, 1)


def test_an_interrupted_step_that_may_run_again_does_so_as_often_as_its_policy_says(journal: Journal) -> None:  # J-15
    policy = StepPolicy(on_interrupt="retry", max_attempts=3)
    run = journal.submit("a")
    for attempt in (1, 2, 3):
        lease = journal.claim(run.id, "w")
        begun = begin(journal, lease, "1", policy=policy)
        assert isinstance(begun, Fresh)
        assert begun.attempt == attempt
        assert (begun.after is None) == (attempt == 1)
        lease.abandon("killed")
    lease = journal.claim(run.id, "w")
    with pytest.raises(StepExhausted, match="3 times"):
        begin(journal, lease, "1", policy=policy)
    once = StepPolicy(on_interrupt="retry", max_attempts=1)  # one attempt means never again
    begin(journal, lease, "2", policy=once)
    lease.abandon("killed")
    lease = journal.claim(run.id, "w")
    with pytest.raises(StepExhausted):
        begin(journal, lease, "2", policy=once)


def test_a_final_failure_is_the_steps_answer_from_then_on(journal: Journal) -> None:  # J-16
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1")
    error = lease.fail_step("1", ValueError("bad input"))
    assert (error.code, error.message, error.type) == ("EXCEPTION", "bad input", "ValueError")
    lease.release()
    lease = journal.claim(run.id, "w")
    assert begin(journal, lease, "1") == Failed(error=error)


def test_a_failure_that_is_not_final_may_be_tried_again_here_or_by_another_owner(journal: Journal) -> None:  # J-16
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    for attempt in (1, 2):
        begun = begin(journal, lease, "1", policy=FAIL)
        assert isinstance(begun, Fresh)
        assert begun.attempt == attempt
        lease.fail_step("1", ErrorRecord(code="FLAKY", message="try again"), final=False)
        failed = lease.to_retry("1")
        assert failed is not None
        assert failed.attempts == attempt
    lease.release()
    lease = journal.claim(run.id, "w")
    assert lease.to_retry("1") == failed
    assert lease.to_retry("2") is None
    begun = begin(journal, lease, "1", policy=FAIL)
    assert isinstance(begun, Fresh)
    assert begun.attempt == 3
    assert lease.to_retry("1") is None
    lease.fail_step("1", RuntimeError("again"), final=False)
    with pytest.raises(StepExhausted, match="again"):
        begin(journal, lease, "1", policy=FAIL)


def test_a_position_is_used_once_and_only_what_was_begun_can_end(journal: Journal) -> None:  # J-18
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    act(journal, lease, "1")
    begin(journal, lease, "2")
    for position in ("1", "2"):
        with pytest.raises(StepNotOpen, match=f"step {position}"):
            begin(journal, lease, position)
    for end in (lambda: lease.finish_step("1"), lambda: lease.fail_step("9", ValueError())):
        with pytest.raises(StepNotOpen):
            end()
    lease.finish_step("2")
    lease.release()
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1")
    with pytest.raises(StepNotOpen):  # replayed counts as used
        begin(journal, lease, "1")
    with pytest.raises(ConfigurationError, match="position"):
        begin(journal, lease, "0.1")


def test_steps_are_listed_in_the_order_of_their_positions(journal: Journal) -> None:  # J-17
    lease = journal.claim(journal.submit("a").id, "w")
    for position in ("10", "2", "3.2.1", "3.1.10", "3.1.2", "1", "3"):
        act(journal, lease, position)
    assert [s.position for s in journal.steps(lease.run_id)] == ["1", "2", "3", "3.1.2", "3.1.10", "3.2.1", "10"]


def test_a_result_that_cannot_be_stored_is_refused_by_field_and_leaves_the_step_open(journal: Journal) -> None:  # J-52
    lease = journal.claim(journal.submit("a").id, "w")
    begin(journal, lease, "1")
    with pytest.raises(ValueNotStorable, match=r"the result of step 1 \(step\)\.items\[1\]\.when") as caught:
        lease.finish_step("1", {"items": [1, {"when": {1, 2}}]})
    assert caught.value.field.endswith(".items[1].when")
    assert journal.steps(lease.run_id)[0].state == "started"
    lease.finish_step("1", "text")  # still open
    with pytest.raises(ValueNotStorable, match="the input"):
        journal.submit("a", object())
    assert len(journal.runs()) == 1


def test_an_interrupted_step_can_be_settled_by_hand(world: World, journal: Journal) -> None:  # J-19
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1", policy=FAIL)
    with pytest.raises(LeaseHeld):
        journal.resolve_step(run.id, "1", "by hand")
    lease.park_run("do not know whether the mail was sent")
    journal.resolve_step(run.id, "1", "by hand")
    with pytest.raises(StepNotOpen):
        journal.resolve_step(run.id, "1", "twice")
    with pytest.raises(StepNotOpen):
        journal.resolve_step(run.id, "2", "never begun")
    journal.retry(run.id)
    assert begin(journal, journal.claim(run.id, "w"), "1", policy=FAIL) == Replay(recorded="by hand")
    assert world.names().count("step.resolved") == 1


# -- ends -------------------------------------------------------------------------------------------------------------


def test_a_run_ends_once_with_its_result(journal: Journal) -> None:  # J-20
    run = journal.submit("a")
    assert journal.outcome(run.id) is None
    lease = journal.claim(run.id, "w")
    outcome = lease.finish_run({"answer": 42})
    assert journal.outcome(run.id) == outcome
    assert (outcome.state, outcome.value, outcome.error) == ("finished", {"answer": 42}, None)
    assert lease.finish_run({"answer": 42}) == outcome  # said twice by its owner, it is the same end
    with pytest.raises(LeaseLost, match="finished"):
        lease.finish_run({"answer": 43})
    with pytest.raises(RunEnded):
        journal.claim(run.id, "w")
    with pytest.raises(RunEnded):
        journal.cancel(run.id)


def test_a_failed_run_keeps_its_error_as_data(journal: Journal) -> None:  # J-20
    lease = journal.claim(journal.submit("a").id, "w")
    lease.fail_run(InfrastructureError("engine gone", code="ENGINE_GONE", hint="look at it"))
    outcome = journal.outcome(lease.run_id)
    assert outcome is not None
    assert outcome.error is not None
    said = outcome.error
    assert (outcome.state, said.code, said.message, said.hint) == ("failed", "ENGINE_GONE", "engine gone", "look at it")
    assert "InfrastructureError" in said.traceback


def test_a_cancelled_run_takes_the_lease_away_at_once(world: World, journal: Journal) -> None:  # J-20, J-32
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1")
    lost: list[LeaseLost] = []
    lease.on_lost(lost.append)
    journal.cancel(run.id, "not needed")
    assert [error.state for error in lost] == ["cancelled"]
    assert lease.over
    with pytest.raises(LeaseLost, match="cancelled"):
        lease.finish_step("1", 1)
    with pytest.raises(LeaseLost):
        lease.begin_step("2", "x", "y")
    assert journal.steps(run.id)[0].state == "interrupted"
    assert journal.cancel(run.id).state == "cancelled"  # twice is once
    assert world.names().count("run.cancelled") == 1
    late: list[LeaseLost] = []
    lease.on_lost(late.append)
    assert len(late) == 1


def test_whoever_hears_that_a_lease_is_lost_may_write_to_a_journal_in_memory() -> None:
    """It is noticed within the transaction that renews the lease."""
    clock, memory = Clock(), MemoryStore()
    journal, other = Journal(memory, env=clock.env), Journal(memory, env=clock.env)
    for n in range(3):
        journal.submit("a", n, key=str(n))
    leases = journal.claim_unfinished("a", "w", limit=2)
    tried: list[str] = []

    def heard(lost: LeaseLost) -> None:
        with pytest.raises(IdempotencyConflict):
            journal.submit("a", "another", key="2")
        tried.append(journal.submit("heard", lost.run_id).id)

    for lease in leases:
        lease.on_lost(heard)
        other.cancel(lease.run_id)
    clock.advance(leases[0].ttl)
    last = other.submit("a", "last")
    assert [run.id for run in journal.runs(kind="heard")] == tried
    assert {journal.input(run_id) for run_id in tried} == {lease.run_id for lease in leases}
    assert journal.run(last.id).state == "pending"


def test_a_journal_in_memory_works_until_the_interpreter_is_gone() -> None:
    """As long as there are threads that may be using it."""
    child = python("""
import atexit
atexit.register(lambda: print(journal.submit("kind").state))  # it is called last

from mlld_sdk.journal import Journal

journal = Journal.open()
""")
    assert child.communicate(timeout=60) == ("pending\n", "")


def test_whoever_waits_is_told_once_however_the_run_comes_to_rest(journal: Journal) -> None:  # J-21
    def park(run_id: str) -> None:
        journal.claim(run_id, "w").park_run("enough")

    ends: dict[str, Callable[[str], object]] = {
        "finished": lambda run_id: journal.claim(run_id, "w").finish_run(1),
        "failed": lambda run_id: journal.claim(run_id, "w").fail_run(ValueError("x")),
        "cancelled": journal.cancel,
        "parked": park,
    }
    for state, end in ends.items():
        run = journal.submit("a", state)
        told: list[str] = []
        journal.on_outcome(run.id, lambda outcome, told=told: told.append(outcome.state))
        assert told == []
        end(run.id)
        assert told == [state]
        journal.on_outcome(run.id, lambda outcome, told=told: told.append(outcome.state))
        assert told == [state, state]  # at once, because it has come to rest
        assert journal.wait(run.id, 0).state == state
    assert journal.status().waiting == 0


def test_waiting_ends_by_its_deadline_and_a_withdrawn_callback_is_not_called(journal: Journal) -> None:  # J-21
    run = journal.submit("a")
    told: list[object] = []
    withdraw = journal.on_outcome(run.id, told.append)
    with pytest.raises(WaitTimeout, match=run.id):
        journal.wait(run.id, 0.01)
    withdraw()
    withdraw()
    assert journal.status().waiting == 0
    journal.claim(run.id, "w").finish_run()
    assert told == []


def test_a_callback_that_raises_is_told_of_and_harms_nobody(world: World, journal: Journal) -> None:  # J-21
    run = journal.submit("a")
    told: list[str] = []

    def bad(outcome: object) -> None:
        raise RuntimeError("listener broke")

    journal.on_outcome(run.id, bad)
    journal.on_outcome(run.id, lambda outcome: told.append(outcome.state))
    journal.claim(run.id, "w").finish_run()
    assert told == ["finished"]
    assert world.names().count("journal.listener_failed") == 1
    assert journal.submit("a", "still works").state == "pending"


def test_a_thread_that_waits_is_woken_by_an_end_in_another_journal(world: World, journal: Journal) -> None:  # J-22
    other = world.open()
    run = journal.submit("a")
    found: list[object] = []
    waiter = threading.Thread(target=lambda: found.append(other.wait(run.id, 20).value))
    waiter.start()
    journal.claim(run.id, "w").finish_run("from elsewhere")
    waiter.join(60)
    assert found == ["from elsewhere"]


def test_a_failed_look_at_other_journals_costs_no_writer_and_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # J-22
    looked = threading.Event()
    read = SqliteStore.read

    def fails_once(store: SqliteStore, work: Any) -> Any:
        if threading.current_thread().name.startswith("mlld-journal") and not looked.is_set():
            looked.set()
            raise JournalBusy("no reader just now")
        return read(store, work)

    monkeypatch.setattr(SqliteStore, "read", fails_once)
    world = World("sqlite", tmp_path)
    journal, other = world.open(), world.open()
    run = journal.submit("a")
    found: queue.SimpleQueue[object] = queue.SimpleQueue()
    other.on_outcome(run.id, lambda outcome: found.put(outcome.value))
    journal.claim(run.id, "w").finish_run("from elsewhere")
    assert found.get(timeout=20) == "from elsewhere"
    assert looked.is_set()
    assert other.submit("a").state == "pending"
    world.close()


def test_a_stopped_run_can_be_retried_and_goes_on_from_what_it_finished(journal: Journal) -> None:  # J-23
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    act(journal, lease, "1", "paid for")
    begin(journal, lease, "2")
    lease.fail_step("2", ValueError("bad"))
    begin(journal, lease, "3", policy=FAIL)
    with pytest.raises(RunNotParked):
        journal.retry(run.id)
    lease.fail_run(ValueError("bad"))
    assert journal.retry(run.id).state == "pending"
    assert journal.outcome(run.id) is None
    lease = journal.claim(run.id, "w")
    assert begin(journal, lease, "1") == Replay(recorded="paid for")
    assert isinstance(begin(journal, lease, "2"), Fresh)  # a final failure may be tried again now
    with pytest.raises(StepInterrupted):
        begin(journal, lease, "3", policy=FAIL)
    lease.park_run("step 3")
    journal.retry(run.id, rerun_interrupted=True)
    lease = journal.claim(run.id, "w")
    assert isinstance(begin(journal, lease, "3", policy=FAIL), Fresh)


# -- ownership --------------------------------------------------------------------------------------------------------


def test_one_run_has_one_owner(journal: Journal) -> None:  # J-30
    run = journal.submit("a")
    lease = journal.claim(run.id, "first", ttl=30)
    with pytest.raises(LeaseHeld, match="first") as caught:
        journal.claim(run.id, "second")
    assert 0 < caught.value.retry_after <= 30
    assert journal.run(run.id).owner is not None
    lease.release()
    assert journal.claim(run.id, "second").epoch > lease.epoch


def test_a_lease_that_ran_out_can_be_taken_over_and_the_late_owner_is_fenced(world: World) -> None:  # J-31, J-32
    late, other = world.open(), world.open()
    run = late.submit("a")
    lease = late.claim(run.id, "late", ttl=10, auto_renew=False)
    act(late, lease, "1", "kept")
    begin(late, lease, "2")
    world.clock.advance(9)
    with pytest.raises(LeaseHeld):
        other.claim(run.id, "quick")
    world.clock.advance(1)
    lease_2 = other.claim(run.id, "quick", auto_renew=False)
    writes: list[Callable[[], object]] = [
        lambda: lease.finish_step("2", "too late"),
        lambda: begin(late, lease, "3"),
        lambda: lease.finish_run("too late"),
        lambda: lease.fail_run(ValueError()),
        lambda: lease.park_run("too late"),
        lambda: lease.note("too late"),
        lease.renew,
        lease.release,
        lambda: lease.abandon("too late"),
    ]
    before = other.steps(run.id), other.run(run.id)
    for write in writes:
        with pytest.raises(LeaseLost, match=r"late \(epoch 1\)"):
            write()
    assert (other.steps(run.id), other.run(run.id)) == before
    assert lease.lost is not None
    assert begin(other, lease_2, "1") == Replay(recorded="kept")
    assert begin(other, lease_2, "2") == Fresh(attempt=2, after=before[0][1].error)


def test_a_renewed_lease_stays(world: World) -> None:  # J-33
    mine, other = world.open(), world.open()
    run = mine.submit("a")
    lease = mine.claim(run.id, "me", ttl=10, auto_renew=False)
    for _ in range(5):
        world.clock.advance(8)
        lease.renew()
        with pytest.raises(LeaseHeld):
            other.claim(run.id, "other")
    lease.renew(ttl=100)
    world.clock.advance(99)
    assert other.claim_unfinished(None, "other") == []
    act(mine, lease, "1")


def test_a_lease_can_be_taken_over_at_once_when_its_journal_is_closed(world: World) -> None:  # J-31, J-36
    mine, other = world.open(), world.open()
    run = mine.submit("a")
    lease = mine.claim(run.id, "me", ttl=3600)
    act(mine, lease, "1", 1)
    begin(mine, lease, "2")
    mine.close()
    assert other.run(run.id).deaths == ()  # given back in good order
    lease = other.claim(run.id, "other")
    assert begin(other, lease, "1") == Replay(recorded=1)
    with pytest.raises(StepInterrupted):
        begin(other, lease, "2", policy=FAIL)


def test_giving_back_is_no_death_and_abandoning_is(journal: Journal) -> None:  # J-35
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1")
    lease.release()
    assert lease.over
    [step] = journal.steps(run.id)
    assert (journal.run(run.id).deaths, step.state, step.deaths) == ((), "interrupted", 0)
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1")
    lease.abandon("exit 137")
    [death] = journal.run(run.id).deaths
    assert (death.owner, death.reason, death.in_flight) == ("w", "exit 137", ("1",))
    assert journal.steps(run.id)[0].deaths == 1


def test_a_run_too_large_for_memory_is_replayed_step_by_step(world: World) -> None:  # J-12
    journal = world.open(limits=JournalLimits(replay_bytes=700))
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    for n in range(1, 41):
        act(journal, lease, str(n), {"n": n})
    lease.release()
    lease = journal.claim(run.id, "w")
    for n in range(1, 41):
        assert begin(journal, lease, str(n)) == Replay(recorded={"n": n})
    assert begin(journal, lease, "41") == Fresh(attempt=1)


def test_branches_in_threads_are_recorded_and_replayed_alike(journal: Journal) -> None:  # J-17
    run = journal.submit("a")

    def work(lease: Any) -> list[Any]:
        answers: dict[str, Any] = {}

        def branch(positions: Positions, number: int) -> None:
            for n in range(10):
                position = positions.next()
                begun = begin(journal, lease, position)
                value = f"{number}/{n}"
                answers[position] = begun.value if isinstance(begun, Replay) else lease.finish_step(position, value)

        branches = Positions().branches(8)
        threads = [threading.Thread(target=branch, args=(part, n)) for n, part in enumerate(branches)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(answers.items())

    lease = journal.claim(run.id, "w")
    first = work(lease)
    lease.abandon("killed")
    assert len(first) == 80
    assert work(journal.claim(run.id, "w")) == first
    assert {step.attempts for step in journal.steps(run.id)} == {1}


def test_a_sink_that_raises_costs_nobody_anything(world: World) -> None:  # J-21, J-82
    def bad(event: Event) -> None:
        raise RuntimeError("sink broke")

    journal = world.open(sink=bad)
    run = journal.submit("a")
    told: list[str] = []
    journal.on_outcome(run.id, lambda outcome: told.append(outcome.state))
    lease = journal.claim(run.id, "w")
    act(journal, lease, "1")
    lease.finish_run()
    assert told == ["finished"]


def test_unfinished_runs_are_claimed_by_priority_then_in_turn(world: World, journal: Journal) -> None:  # J-34
    ids = []
    for n in range(5):
        ids.append(journal.submit("a", n, priority=1 if n == 3 else 0).id)
        world.clock.advance(1)
    journal.submit("b")
    first = journal.claim_unfinished("a", "w", limit=2)
    assert [lease.run_id for lease in first] == [ids[3], ids[0]]
    world.clock.advance(1)
    first[1].abandon("crashed")  # goes to the end of the queue: it cannot starve the others
    rest = journal.claim_unfinished("a", "w", limit=10)
    assert [lease.run_id for lease in rest] == [ids[1], ids[2], ids[4], ids[0]]
    assert journal.claim_unfinished("a", "w") == []
    assert len(journal.claim_unfinished(None, "w")) == 1  # any kind


def test_claiming_skips_what_live_owners_hold(world: World) -> None:  # J-34
    mine, other = world.open(), world.open()
    held = mine.submit("a", "held")
    free = mine.submit("a", "free")
    mine.claim(held.id, "me", ttl=5, auto_renew=False)
    assert [lease.run_id for lease in other.claim_unfinished("a", "other", auto_renew=False)] == [free.id]
    world.clock.advance(5)
    assert [lease.run_id for lease in other.claim_unfinished("a", "other")] == [held.id]


def test_after_close_everything_is_refused_by_name(journal: Journal) -> None:
    run = journal.submit("a")
    lease = journal.claim(run.id, "w")
    journal.close()
    journal.close()
    for call in (
        lambda: journal.submit("a"),
        lambda: journal.claim(run.id, "w"),
        lambda: lease.begin_step("1", "x", "y"),
    ):
        with pytest.raises(JournalClosed):
            call()


# -- poison -----------------------------------------------------------------------------------------------------------


def die(journal: Journal, run_id: str, work: Callable[[Any], object] = lambda lease: None) -> str:
    """Own a run, do some work and die; returns the run's state then."""
    lease = journal.claim(run_id, "w")
    work(lease)
    return lease.abandon("boom").state


def test_a_run_that_kills_every_owner_is_parked_and_listed_with_the_reasons(world: World) -> None:  # J-40, J-42
    journal = world.open(limits=JournalLimits(max_deaths=3))
    run = journal.submit("a", "poison")
    assert [die(journal, run.id) for _ in range(3)] == ["pending", "pending", "parked"]
    with pytest.raises(RunParked, match="3 owners died"):
        journal.claim(run.id, "w")
    assert journal.claim_unfinished("a", "w") == []
    [letter] = journal.dead_letters()
    assert letter.error.code == "RUN_POISONED"
    assert [death.reason for death in letter.deaths] == ["boom"] * 3
    assert journal.dead_letters("b") == []
    assert world.names().count("run.parked") == 1
    assert world.names().count("run.owner_died") == 3
    journal.retry(run.id)
    assert journal.dead_letters() == []
    assert die(journal, run.id) == "pending"  # counted from the start


def test_progress_between_deaths_keeps_a_run_alive(world: World) -> None:  # J-40
    journal = world.open(limits=JournalLimits(max_deaths=2))
    run = journal.submit("a")
    for n in range(1, 6):
        assert die(journal, run.id, lambda lease, n=n: act(journal, lease, str(n))) == "pending"
    assert die(journal, run.id) == "parked"


def test_one_poisonous_step_parks_its_run_though_other_branches_make_progress(world: World) -> None:  # J-41
    journal = world.open(limits=JournalLimits(max_deaths=3))
    run = journal.submit("a")
    policy = StepPolicy(on_interrupt="retry", max_attempts=100)

    def work(lease: Any, n: int) -> None:
        begin(journal, lease, "1.1.1", name="deadly", policy=policy)
        act(journal, lease, f"1.2.{n}")

    states = [die(journal, run.id, lambda lease, n=n: work(lease, n)) for n in (1, 2, 3)]
    assert states == ["pending", "pending", "parked"]
    [letter] = journal.dead_letters()
    assert "deadly" in letter.error.message
    assert [step.position for step in letter.steps] == ["1.1.1"]


def test_a_takeover_counts_as_a_death_and_parks_when_it_is_one_too_many(world: World) -> None:  # J-40
    journal = world.open(limits=JournalLimits(max_deaths=2))
    run = journal.submit("a")
    journal.claim(run.id, "w", ttl=5, auto_renew=False)
    world.clock.advance(5)
    journal.claim(run.id, "w", ttl=5, auto_renew=False)
    world.clock.advance(5)
    told: list[str] = []
    journal.on_outcome(run.id, lambda outcome: told.append(outcome.state))
    with pytest.raises(RunParked):
        journal.claim(run.id, "w")
    assert journal.run(run.id).state == "parked"
    assert told == ["parked"]
    assert [death.reason for death in journal.run(run.id).deaths] == ["its lease ran out"] * 2


# -- what there is to do ----------------------------------------------------------------------------------------------


def test_the_backlog_counts_what_has_not_ended_and_knows_since_when_the_oldest_waits(world: World) -> None:  # J-45
    journal = world.open()
    assert journal.backlogs() == {}
    begun = world.clock.wall
    for kind, name in (("a", "first"), ("a", "second"), ("a", "sleeps"), ("b", "parked"), ("b", "done")):
        journal.submit(kind, name, run_id=name)
        world.clock.advance(10)
    assert journal.backlogs()["a"] == Backlog(pending=3, waiting=3, oldest=begun)
    journal.claim("parked", "w").park_run("look")
    journal.claim("done", "w").finish_run()
    lease = journal.claim("first", "w")
    asleep = journal.claim("sleeps", "w")
    asleep.sleep_until(world.clock.wall + 100)
    assert journal.backlogs() == {
        "a": Backlog(pending=1, waiting=1, running=2, oldest=begun + 10),
        "b": Backlog(parked=1),
    }
    asleep.release()  # as a service does that is stopped: it waits for nobody before its sleep is over
    lease.release()
    assert journal.backlogs()["a"] == Backlog(pending=3, waiting=2, oldest=begun + 10)
    for name in ("first", "second"):
        journal.cancel(name)
    assert journal.backlogs()["a"] == Backlog(pending=1)
    world.clock.advance(130)
    assert journal.backlogs()["a"] == Backlog(pending=1, waiting=1, oldest=begun + 150)


def test_the_question_about_the_backlog_is_one_walk_along_an_index(world: World) -> None:  # J-45
    journal = world.open()
    plan = journal._core.read(lambda tx: tx.connection.execute(f"EXPLAIN QUERY PLAN {_BACKLOGS}", (0, 0)).fetchall())
    assert [row[-1] for row in plan] == ["SEARCH runs USING COVERING INDEX runs_by_turn (state=?)"]


# -- limits, events, keeping ------------------------------------------------------------------------------------------


def test_what_is_too_large_is_refused_by_the_name_of_the_limit(world: World) -> None:  # J-54
    journal = world.open(limits=JournalLimits(value_bytes=100, steps_per_run=2, events_per_run=2, error_chars=1000))
    with pytest.raises(LimitExceeded, match="value_bytes"):
        journal.submit("a", "x" * 101)
    lease = journal.claim(journal.submit("a").id, "w")
    begin(journal, lease, "1")
    with pytest.raises(LimitExceeded, match=r"step 1 .*value_bytes"):
        lease.finish_step("1", "x" * 101)
    lease.finish_step("1", "x" * 98)
    act(journal, lease, "2")
    with pytest.raises(LimitExceeded, match="steps_per_run"):
        begin(journal, lease, "3")
    lease.note("one")
    lease.note("two")
    with pytest.raises(LimitExceeded, match="events_per_run"):
        lease.note("three")
    lease.fail_run(ValueError("x" * 5000))
    outcome = journal.outcome(lease.run_id)
    assert outcome is not None
    assert outcome.error is not None
    assert len(outcome.error.message) <= 1000
    assert "left out" in outcome.error.message


def test_the_common_stream_keeps_the_newest_events_and_is_read_on_from_a_number(world: World) -> None:  # J-80
    journal = world.open(limits=JournalLimits(events=3))
    for n in range(5):
        assert journal.append_event("tick", {"n": n}).n == n + 1
    assert [event.n for event in journal.events()] == [3, 4, 5]
    assert [event.n for event in journal.events(after=3, limit=1)] == [4]
    assert journal.event_data(journal.events(after=4)[0]) == {"n": 4}
    assert journal.event_data(journal.append_event("tock")) is None


def test_receipts_belong_to_their_run(journal: Journal) -> None:  # J-81
    lease = journal.claim(journal.submit("a").id, "w")
    lease.note("cost", {"usd": 0.25})
    journal.append_event("seen", run_id=lease.run_id)
    assert [(event.n, event.name) for event in journal.events(run_id=lease.run_id)] == [(1, "cost"), (2, "seen")]
    assert journal.events() == []


def test_each_transition_is_told_once_in_order(world: World, journal: Journal) -> None:  # J-82
    run = journal.submit("a", key="k")
    journal.submit("a", key="k")
    lease = journal.claim(run.id, "w")
    act(journal, lease, "1")
    begin(journal, lease, "2")
    lease.fail_step("2", ValueError("x"), final=False)
    lease.release()
    lease = journal.claim(run.id, "w")
    begin(journal, lease, "1")
    lease.finish_run()
    lease.finish_run()
    assert world.names() == [
        "run.submitted",
        "run.claimed",
        "step.started",
        "step.finished",
        "step.started",
        "step.failed",
        "run.released",
        "run.claimed",
        "run.finished",
    ]


def test_pruning_forgets_ended_runs_only(world: World, journal: Journal) -> None:  # J-70, J-71
    ended = []
    for n in range(6):
        lease = journal.claim(journal.submit("a", n, key=f"k{n}").id, "w")
        act(journal, lease, "1")
        lease.note("receipt")
        lease.finish_run()
        ended.append(lease.run_id)
        world.clock.advance(10)
    parked = journal.submit("a", "parked")
    journal.claim(parked.id, "w").park_run("look at it")
    running = journal.claim(journal.submit("a", "running").id, "w")
    pending = journal.submit("a", "pending")
    assert journal.prune(keep_last=4, kind="b") == 0
    assert journal.prune(keep_last=4, older_than=55) == 1  # both must say so
    assert journal.prune(keep_last=4) == 1
    assert journal.prune(older_than=25) == 2
    assert [run.id for run in journal.runs()] == [*ended[4:], parked.id, running.run_id, pending.id]
    assert journal.steps(ended[0]) == []
    assert journal.events(run_id=ended[0]) == []
    assert journal.submit("a", 0, key="k0").id != ended[0]  # its key went with it
    with pytest.raises(ConfigurationError, match="keep_last and older_than"):
        journal.prune()
    assert journal.verify() == []


def test_every_error_has_a_code_and_a_hint() -> None:
    from mlld_sdk.journal import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MlldError)]
    own = [kind for kind in kinds if kind.__module__ == errors.__name__]
    assert len({kind.code for kind in own}) == len(own)
    assert all(kind.__doc__ for kind in own)


def test_a_policy_or_limit_out_of_range_is_refused_by_name() -> None:
    from mlld_sdk.journal import Retention

    for make, name in (
        (lambda: StepPolicy(max_attempts=0), "max_attempts"),
        (lambda: StepPolicy(on_interrupt="maybe"), "on_interrupt"),  # type: ignore[arg-type]
        (lambda: JournalLimits(max_deaths=0), "max_deaths"),
        (lambda: Retention(keep_last=-1), "keep_last"),
        (lambda: Retention(keep_last=None), "older_than"),
        (lambda: Journal.open(poll_interval=0), "poll_interval"),
    ):
        with pytest.raises(ConfigurationError, match=name):
            make()


@pytest.mark.parametrize("option", [{"values": 1}, {"retention": 1}, {"limits": 1}, {"poll_interval": 0}])
def test_a_wrong_option_is_refused_before_a_file_is_made(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        quick(tmp_path / "journal.db", **option)
    assert list(tmp_path.iterdir()) == []


def test_a_ttl_out_of_range_is_refused(journal: Journal) -> None:
    run = journal.submit("a")
    for ttl in (0, -1, 100_000):
        with pytest.raises(ConfigurationError, match="ttl"):
            journal.claim(run.id, "w", ttl=ttl)
