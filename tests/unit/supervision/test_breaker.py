"""Circuit breakers: when they open, whom they let through, and what they say."""

import random
import threading
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError, TaskError
from mlld_sdk.base.events import name_of
from mlld_sdk.supervision import Breaker, BreakerOpen, Breakers, InvalidOption, circuit_breaker
from mlld_sdk.supervision.breaker import Permit
from mlld_sdk.supervision.errors import BreakerNotFound
from tests.support.supervision import Clock, Recorder


def make(clock: Clock, sink: Recorder | None = None, **options: object) -> Breaker:
    policy = circuit_breaker("db", **options)  # type: ignore[arg-type]
    return Breaker(policy, Env(now=clock, wall=clock, random=random.Random(1)), sink or Recorder())


def fail(guard: Breaker, times: int = 1) -> None:
    for _ in range(times):
        guard.acquire().settle(RuntimeError("down"))


def refused(guard: Breaker) -> float:
    with pytest.raises(BreakerOpen) as caught:
        guard.acquire()
    return caught.value.retry_after


def test_it_opens_after_so_many_failures_in_a_row_and_says_when_to_come_back() -> None:  # FUSE-2
    clock = Clock()
    guard = make(clock, failures=3, open_for=10)
    fail(guard, 2)
    guard.acquire().settle()
    fail(guard, 2)
    assert guard.view().status == "closed"
    fail(guard)
    assert guard.view().status == "open"
    clock.advance(4)
    assert refused(guard) == 6
    assert guard.view().refused == 1


def test_failures_too_far_apart_do_not_open_it() -> None:  # FUSE-2
    clock = Clock()
    guard = make(clock, failures=3, within=5)
    for _ in range(6):
        fail(guard)
        clock.advance(3)
    assert guard.view().status == "closed"


def test_a_rate_opens_it_once_there_is_enough_to_judge() -> None:
    clock = Clock()
    guard = make(clock, failures=None, rate=0.5, minimum=10, within=10)
    for at in range(9):
        fail(guard) if at % 2 else guard.acquire().settle()
    assert guard.view().status == "closed"
    fail(guard)
    assert guard.view().status == "open"


def test_old_results_leave_the_rate_window() -> None:
    clock = Clock()
    guard = make(clock, failures=None, rate=0.5, minimum=4, within=10)
    fail(guard, 3)
    clock.advance(11)
    for _ in range(3):
        guard.acquire().settle()
    fail(guard)
    assert guard.view().status == "closed"
    assert len(guard._circuit.buckets) <= 10


def test_half_open_lets_few_through_and_one_bad_probe_opens_it_for_longer() -> None:
    clock = Clock()
    guard = make(clock, failures=1, open_for=10, growth=3, longest=50, probes=2)
    fail(guard)
    for wait in (10, 30, 50, 50):
        assert refused(guard) == wait
        clock.advance(wait)
        first, second = guard.acquire(), guard.acquire()
        assert guard.view().status == "half_open"
        assert refused(guard) > 0
        first.settle(RuntimeError("still down"))
        second.settle()
        assert guard.view().status == "open"


def test_enough_good_probes_close_it_and_the_time_it_is_open_starts_over() -> None:
    clock = Clock()
    guard = make(clock, failures=1, open_for=10, growth=2, successes=2)
    fail(guard)
    clock.advance(10)
    guard.acquire().settle()
    assert guard.view().status == "half_open"
    guard.acquire().settle()
    assert guard.view().status == "closed"
    fail(guard)
    assert refused(guard) == 10


def test_a_probe_that_never_reports_counts_as_bad() -> None:
    clock = Clock()
    guard = make(clock, failures=1, open_for=10, growth=1, probe_timeout=5)
    fail(guard)
    clock.advance(10)
    guard.acquire()
    assert refused(guard) == 5
    clock.advance(5.5)
    assert refused(guard) == 10
    assert guard.view().status == "open"


def test_a_late_result_from_before_the_opening_says_nothing_about_the_probes() -> None:
    clock = Clock()
    guard = make(clock, failures=1, open_for=10)
    slow = guard.acquire()
    fail(guard)
    clock.advance(10)
    probe = guard.acquire()
    slow.settle(RuntimeError("late"))
    assert guard.view().status == "half_open"
    probe.settle()
    assert guard.view().status == "closed"


def test_a_permit_speaks_once() -> None:
    clock = Clock()
    guard = make(clock, failures=2)
    permit = guard.acquire()
    permit.settle(RuntimeError())
    permit.settle(RuntimeError())
    assert guard.view().failures == 1


def test_the_exception_of_a_guarded_call_passes_and_counts() -> None:  # FUSE-4: there it does not count
    clock = Clock()
    guard = make(clock, failures=1)
    with pytest.raises(ZeroDivisionError), guard.acquire():
        _ = 1 / 0
    with pytest.raises(BreakerOpen):
        guard.call(lambda: 1)
    guard.reset()
    assert guard.call(lambda: 7) == 7


def test_a_task_that_failed_by_itself_is_no_failure_of_what_runs_it() -> None:
    clock = Clock()
    guard = make(clock, failures=1)
    with pytest.raises(TaskError), guard.acquire():
        raise TaskError("the script said no")
    assert guard.view().status == "closed"
    picky = make(clock, failures=1, counts=lambda failure: isinstance(failure, TaskError))
    picky.report(RuntimeError())
    assert picky.view().status == "closed"
    picky.report(TaskError("counts here"))
    assert picky.view().status == "open"


def test_tripped_by_hand_it_stays_open_until_reset() -> None:  # FUSE-3, FUSE-5
    clock = Clock()
    guard = make(clock, open_for=1)
    guard.trip("maintenance")
    clock.advance(10_000)
    with pytest.raises(BreakerOpen, match="tripped by hand; reset it"):
        guard.acquire()
    view = guard.view()
    assert (view.status, view.by_hand, view.cause) == ("open", True, "maintenance")
    called = []
    guard.on_reset(lambda: called.append(1))
    guard.reset()
    assert guard.view().status == "closed"
    assert called == [1]


def test_every_change_of_status_is_one_event() -> None:  # E-8, FUSE-7
    clock, sink = Clock(), Recorder()
    guard = make(clock, sink, failures=2, open_for=10)
    fail(guard, 2)
    refused(guard)
    refused(guard)
    clock.advance(10)
    probe = guard.acquire()
    refused(guard)
    probe.settle()
    guard.acquire().settle()
    assert [name_of(event) for event in sink.events] == ["breaker.opened", "breaker.half_opened", "breaker.closed"]
    assert (sink.events[0].cause, sink.events[0].retry_after) == ("RuntimeError: down", 10)  # type: ignore[attr-defined]


def test_looking_at_a_breaker_uses_up_no_probe() -> None:
    clock = Clock()
    guard = make(clock, failures=1, open_for=10)
    fail(guard)
    clock.advance(10)
    for _ in range(5):
        assert (guard.view().status, guard.view().retry_after) == ("half_open", 0.0)
    assert isinstance(guard.acquire(), Permit)


def test_breakers_of_one_name_are_one_breaker_with_one_setting() -> None:
    breakers = Breakers()
    one = breakers.get(circuit_breaker("model"), "root/a")
    assert breakers.get(circuit_breaker("model", parks=True), "root/b") is one
    assert breakers.get(circuit_breaker(), "root/a") is not one
    assert breakers["model"] is one
    assert breakers.find("nobody") is None
    assert [view.name for view in breakers.views()] == ["model", "root/a"]
    with pytest.raises(InvalidOption):
        breakers.get(circuit_breaker("model", failures=99), "root/c")
    breakers.forget("model")
    assert breakers.find("model") is None


def test_many_threads_find_exactly_the_allowed_probes() -> None:
    clock = Clock()
    guard = make(clock, failures=1, open_for=1, probes=3)
    fail(guard)
    clock.advance(1)
    let_through = []
    gate = threading.Barrier(16)

    def caller() -> None:
        gate.wait(60)
        with suppress(BreakerOpen):
            let_through.append(guard.acquire())

    threads = [threading.Thread(target=caller) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(let_through) == 3


def test_the_refusal_reads_well() -> None:
    error = BreakerOpen("model", 2.5)
    assert isinstance(error, MlldError)
    assert str(error) == "circuit breaker `model` is open (retry in 2.5 s)"
    assert error.code == "BREAKER_OPEN"


def test_failures_of_steps_in_a_row_count_however_long_they_take_to_come() -> None:
    clock = Clock()
    calls, steps, bounded = make(clock, failures=3), make(clock, failures=3), make(clock, failures=3, within=30)
    for _ in range(3):
        clock.advance(60)
        fail(calls)
        steps.acquire(for_step=True).settle(TaskError("503"))
        bounded.acquire(for_step=True).settle(TaskError("503"))
    assert [guard.view().status for guard in (calls, steps, bounded)] == ["closed", "open", "closed"]


def test_a_probe_that_is_a_step_has_ten_minutes_and_any_other_half_a_minute() -> None:
    clock = Clock()
    guard = make(clock, failures=1, open_for=1, growth=1, probes=2, successes=2)
    fail(guard)
    clock.advance(1)
    step, call = guard.acquire(for_step=True), guard.acquire()
    assert refused(guard) == 30
    clock.advance(29)
    call.settle()
    clock.advance(500)
    assert guard.view().status == "half_open"
    step.settle()
    assert guard.view().status == "closed"
    fail(guard)
    clock.advance(1)
    guard.acquire(for_step=True)
    clock.advance(601)
    assert refused(guard) == 1  # it never reported


def test_what_is_called_inside_a_call_is_part_of_it() -> None:
    clock = Clock()
    guard, other = make(clock, failures=2, open_for=10), make(clock)
    permit = guard.acquire()
    with guard.inside():
        guard.acquire().settle(RuntimeError("down"))
        other.acquire().settle(RuntimeError("down"))
    assert (guard.view().failures, other.view().failures) == (0, 1)
    permit.settle(RuntimeError("down"))
    assert guard.view().failures == 1
    fail(guard)
    with guard.inside():
        guard.acquire()  # whoever has leave may go on although it has opened meanwhile
    assert refused(guard) == 10


def test_those_that_wait_are_told_of_every_change_that_may_let_them_through() -> None:
    clock, told = Clock(), []
    guard = make(clock, failures=1, open_for=10, probes=1, successes=2)
    with guard.telling(lambda: told.append(guard._circuit.status)):
        guard.acquire().settle()
        fail(guard)
        assert told == ["open"]
        clock.advance(10)
        guard.acquire().withdraw()
        assert told == ["open", "half_open", "half_open", "half_open"]  # half-open, one goes, one comes back
        refused_while = guard.acquire()
        told.clear()
        refused(guard)
        assert told == []  # who is refused wakes nobody
        refused_while.settle()
        assert told == ["half_open"]
        guard.reset()
        assert told == ["half_open", "closed"]
    guard.trip()
    assert told == ["half_open", "closed"]


def test_a_breaker_that_is_not_there_is_named() -> None:
    with pytest.raises(BreakerNotFound, match="there is no circuit breaker `model`"):
        Breakers()["model"]


def test_breakers_of_one_name_may_differ_in_what_is_made_of_them() -> None:
    breakers = Breakers()
    first = breakers.get(circuit_breaker("model", failures=2), "")
    assert breakers.get(circuit_breaker("model", failures=2, parks=True, when_open="fail"), "") is first
    with pytest.raises(InvalidOption, match="same settings"):
        breakers.get(circuit_breaker("model", failures=3), "")


@pytest.mark.parametrize("wrong", ["block", None, 1])
def test_what_steps_do_while_it_is_open_is_one_of_two_words(wrong: object) -> None:
    with pytest.raises(InvalidOption, match="when_open must be one of 'wait', 'fail'"):
        circuit_breaker("model", when_open=wrong)  # type: ignore[arg-type]


class BreakerMachine(RuleBasedStateMachine):
    """Random calls, results and waits; a model that only counts what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.sink = Clock(), Recorder()
        self.guard = make(
            self.clock, self.sink, failures=3, within=30, open_for=10, growth=2, longest=40, probes=2, probe_timeout=20
        )
        self.out: list[Permit] = []
        self.by_hand = False

    @rule()
    def call(self) -> None:
        before = self.guard.view()
        try:
            self.out.append(self.guard.acquire())
            assert before.status != "open"
        except BreakerOpen:
            assert before.status != "closed"

    @precondition(lambda self: self.out)
    @rule(good=st.booleans(), which=st.integers(0, 100))
    def result(self, good: bool, which: int) -> None:
        permit = self.out.pop(which % len(self.out))
        if good:
            permit.settle()
        else:
            permit.settle(RuntimeError("down"))

    @rule(seconds=st.floats(0, 25))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def trip(self) -> None:
        self.guard.trip()
        self.by_hand = True

    @rule()
    def reset(self) -> None:
        self.guard.reset()
        self.by_hand = False
        assert self.guard.view().status == "closed"

    @invariant()
    def holds(self) -> None:
        view = self.guard.view()
        circuit = self.guard._circuit
        assert len(circuit.probes) <= 2
        assert len(circuit.failed_at) < 3
        assert view.by_hand == self.by_hand
        assert view.retry_after <= 300
        names = [name_of(event) for event in self.sink.events]
        for one, other in pairwise(names):
            assert one != other or one == "breaker.opened", names


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
