"""The limits of children that stop: one timer for all of them, and each is due at its own time."""

import random
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import floats, integers

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.timers import TimerHeap
from mlld_sdk.supervision import child, dynamic, one_for_one
from mlld_sdk.supervision.decisions.decide import initial, step
from mlld_sdk.supervision.decisions.draft import World
from mlld_sdk.supervision.decisions.effects import Kill, LimitStops, RequestStop
from mlld_sdk.supervision.decisions.inputs import Asked, Begin, Overdue, Started, StopRequested
from mlld_sdk.supervision.decisions.requests import StartChild, TerminateChild
from mlld_sdk.supervision.execution.stop_limits import StopLimits
from mlld_sdk.supervision.reasons import SHUTDOWN
from tests.support.actors import Clock

KEYS = integers(0, 5)


class HeapOnly:
    """Timers without a thread."""

    def __init__(self, clock: Clock) -> None:
        self.heap = TimerHeap(clock)
        self.made = 0

    def after(self, delay: float, action: Callable[[], object]) -> Any:
        self.made += 1
        return self.heap.add(delay, action)


class LimitsMachine(RuleBasedStateMachine):
    """Whatever is set, lifted and set again: each child is reported once its own time is over, and never before."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.timers = HeapOnly(self.clock)
        self.rung = 0
        self.limits = StopLimits(self.timers, self.clock, self.ring)  # type: ignore[arg-type]
        self.due: dict[int, float] = {}

    def ring(self) -> None:
        self.rung += 1

    @rule(key=KEYS, delay=floats(0, 10))
    def told_to_stop(self, key: int, delay: float) -> None:
        self.due[key] = self.clock.time + delay
        self.limits.set(key, 1, self.due[key])

    @rule(delay=floats(0, 10))
    def all_are_to_hurry(self, delay: float) -> None:
        due = self.clock.time + delay
        self.limits.shorten(due)
        self.due = {key: min(own, due) for key, own in self.due.items()}

    @rule(key=KEYS)
    def gone(self, key: int) -> None:
        self.limits.lift(key)
        self.due.pop(key, None)

    @rule(step=floats(0.001, 5))
    def time_passes(self, step: float) -> None:
        self.clock.time += step
        expected = {key for key, due in self.due.items() if due <= self.clock.time}
        taken: list[Overdue] = []
        for action in self.timers.heap.take_due():
            action()
            taken += self.limits.take_due()
        assert expected <= {overdue.key for overdue in taken}
        for overdue in taken:
            assert self.due.pop(overdue.key) <= self.clock.time + 1e-5

    @invariant()
    def one_timer_will_ring_in_time(self) -> None:
        assert len(self.timers.heap) <= 1
        if self.due:
            left = self.timers.heap.next_in()
            assert left is not None
            assert left <= max(0.0, min(self.due.values()) - self.clock.time) + 1e-9


LimitsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLimitsMachine = LimitsMachine.TestCase


def test_children_that_stop_one_after_the_other_need_one_timer() -> None:
    clock = Clock()
    timers = HeapOnly(clock)
    limits = StopLimits(timers, clock, lambda: None)  # type: ignore[arg-type]
    for key in range(1_000):
        clock.time += 0.001
        limits.set(key, 1, clock.time + 5.0)
        limits.lift(key)
    assert timers.made == 1
    limits.close()
    assert len(timers.heap) == 0


def test_a_limit_that_never_comes_can_be_shortened() -> None:
    clock = Clock()
    timers = HeapOnly(clock)
    limits = StopLimits(timers, clock, lambda: None)  # type: ignore[arg-type]
    limits.set(1, 1, inf)
    assert timers.made == 0
    limits.shorten(clock.time + 5.0)
    clock.time += 5.0
    assert len(timers.heap.take_due()) == 1
    assert limits.take_due() == [Overdue(1, 1)]


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_deadline_also_holds_for_a_child_that_stops_already(kind: str) -> None:  # SUP-20
    patient = child(Actor, name="w", shutdown=inf)
    state = initial("root", one_for_one(patient) if kind == "static" else dynamic())
    now, chance = 1.0, random.Random(1)

    def take(happened: Any) -> list[Any]:
        nonlocal state
        state, effects = step(state, [happened], World(now, now, chance))
        return effects

    take(Begin())
    if kind == "dynamic":
        take(Asked("start", StartChild(patient)))
    take(Started(0, 1, "the child"))
    asked = take(Asked("stop", TerminateChild("w" if kind == "static" else 0)))
    assert [effect.due for effect in asked if isinstance(effect, RequestStop)] == [inf]
    hurried = take(StopRequested(SHUTDOWN, 7.0))
    assert LimitStops(7.0) in hurried
    assert not [effect for effect in hurried if isinstance(effect, RequestStop)]
    assert LimitStops(5.0) in take(StopRequested(SHUTDOWN, 5.0))
    assert not take(StopRequested(SHUTDOWN, 9.0))
    assert [effect.key for effect in take(Overdue(0, 1)) if isinstance(effect, Kill)] == [0]
