"""Timers: a state machine for the heap, and the thread around it."""

import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import floats

from mlld_sdk.actors.core.timers import Timer, TimerHeap, Timers
from mlld_sdk.base.env import Env
from tests.support.actors import Clock
from tests.support.eventually import eventually


class TimerMachine(RuleBasedStateMachine):
    """Every timer fires once, at its time and in order, unless it was cancelled first."""

    timers = Bundle("timers")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.heap = TimerHeap(self.clock)
        self.pending: dict[int, tuple[float, Timer]] = {}
        self.fired: list[int] = []
        self.number = 0

    @rule(target=timers, delay=floats(0, 10))
    def add(self, delay: float) -> int:
        self.number += 1
        number = self.number
        due = self.clock.time + delay
        timer = self.heap.add(delay, lambda: self.fired.append(number))
        self.pending[number] = (due, timer)
        self.all = {**getattr(self, "all", {}), number: timer}
        return number

    @rule(number=timers)
    def cancel(self, number: int) -> None:
        left = self.all[number].cancel()
        if number in self.pending:
            assert left is not None
            assert left == max(0.0, self.pending.pop(number)[0] - self.clock.time)
        else:
            assert left is None

    @rule(step=floats(0, 5))
    def time_passes(self, step: float) -> None:
        self.clock.time += step
        due = sorted((when, number) for number, (when, _) in self.pending.items() if when <= self.clock.time)
        self.fired.clear()
        for action in self.heap.take_due():
            action()
        assert self.fired == [number for _, number in due]
        for _, number in due:
            del self.pending[number]

    @invariant()
    def knows_the_next(self) -> None:
        assert len(self.heap) == len(self.pending)
        nearest = min((when for when, _ in self.pending.values()), default=None)
        expected = None if nearest is None else max(0.0, nearest - self.clock.time)
        assert self.heap.next_in() == expected


TimerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTimerMachine = TimerMachine.TestCase


def test_many_cancelled_timers_do_not_stay_in_the_heap() -> None:
    heap = TimerHeap(Clock())
    for _ in range(1_000):
        heap.add(60, lambda: None).cancel()
    assert len(heap._heap) < 200
    assert len(heap) == 0


def test_an_action_that_raises_stops_nobodys_clock() -> None:
    failures: list[BaseException] = []
    done = threading.Event()
    timers = Timers(Env(now=Clock()), failures.append, "test-timers")
    timers.after(0, lambda: 1 / 0)
    timers.after(0, done.set)
    assert done.wait(60)
    assert [type(failure) for failure in failures] == [ZeroDivisionError]
    timers.close(5)


def test_the_thread_leaves_when_there_are_no_timers_and_comes_back(monkeypatch: Any) -> None:
    monkeypatch.setattr("mlld_sdk.actors.core.timers.LINGER", 0.01)
    clock = Clock()
    timers = Timers(Env(now=clock), print, "test-timers-linger")

    def running() -> bool:
        return any(thread.name == "test-timers-linger" for thread in threading.enumerate())

    for _ in range(2):
        done = threading.Event()
        timers.after(0, done.set)
        assert done.wait(60)
        eventually(lambda: not running())
    timers.close(5)
    timers.after(0, lambda: None)
    assert not running()


def test_an_earlier_timer_overtakes_a_later_one() -> None:
    fired: list[str] = []
    done = threading.Event()
    clock = Clock()
    timers = Timers(Env(now=clock), print, "test-timers")
    timers.after(20, lambda: (fired.append("late"), done.set()))
    timers.after(10, lambda: fired.append("early"))
    clock.time += 20
    timers.wake()
    assert done.wait(60)
    assert fired == ["early", "late"]
    timers.close(5)


def test_a_timer_that_is_due_before_the_thread_looks_again_wakes_it() -> None:
    clock = Clock()
    fired: list[str] = []
    timers = Timers(Env(now=clock), fired.append, "test-timers-early")
    timers.after(60, lambda: fired.append("late"))
    eventually(lambda: clock.time < timers._looks_at <= clock.time + 60)
    timers.after(0, lambda: fired.append("at once"))
    eventually(lambda: fired == ["at once"])
    timers.close(5)


def test_a_limit_that_is_called_off_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(Env(now=Clock()), lambda _: None, "test-timers-limit")
    timers.after(30, lambda: None).cancel()
    rung: list[str] = []

    def rings() -> bool:
        rung.clear()
        timers.after(30, lambda: None).cancel()
        return bool(rung)

    with monkeypatch.context() as patch:
        patch.setattr(timers, "wake", lambda: rung.append("rung"))
        eventually(lambda: not rings())  # once its thread has gone to sleep
    timers.close(5)


def test_a_timer_added_after_a_test_moved_the_clock_is_seen() -> None:
    clock = Clock()
    fired: list[str] = []
    timers = Timers(Env(now=clock), fired.append, "test-timers-jump")
    timers.after(60, lambda: None)
    eventually(lambda: timers._looks_at <= clock.time + 60)
    clock.time += 1_000
    timers.after(0, lambda: fired.append("now"))
    eventually(lambda: fired == ["now"])
    timers.close(5)
