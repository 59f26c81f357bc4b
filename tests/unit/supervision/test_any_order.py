"""Answers in any order: starts that take their time, stops, ends and calls in between."""

import random
from typing import Any

import pytest
from msgspec.structs import replace

from mlld_sdk.supervision import Backoff, child, dynamic, one_for_all, one_for_one, rest_for_one
from mlld_sdk.supervision.decisions import effects, inputs
from mlld_sdk.supervision.decisions.decide import initial, step
from mlld_sdk.supervision.decisions.draft import World
from mlld_sdk.supervision.decisions.requests import DeleteChild, RestartChild, StartChild, TerminateChild
from mlld_sdk.supervision.decisions.state import DynamicState
from mlld_sdk.supervision.reasons import NORMAL, SHUTDOWN, ChildExit
from tests.support.trees import Puppet

BOOM = ChildExit("crash", "boom")
WRONG = ChildExit("configuration", "wrong")
RESTARTS = ("permanent", "permanent", "transient", "temporary")


class Executor:
    """Carries out what a supervisor decides, whenever and with whatever outcome chance has it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.starting: set[tuple[int, int]] = set()
        self.up: set[tuple[int, int]] = set()
        self.asked_to_stop: set[tuple[int, int]] = set()
        self.timers: dict[int, inputs.Due] = {}
        self.calls: set[int] = set()
        self.called = 0
        self.finished = False
        strategy = self.chance.choice((one_for_one, one_for_all, rest_for_one, dynamic))
        self.auto_shutdown: Any = self.chance.choice(("never", "never", "any_significant", "all_significant"))
        limits: Any = {"max_restarts": self.chance.choice((0, 2, 50)), "within": 100}
        spec = dynamic(**limits) if strategy is dynamic else self.static(strategy, limits)
        self.state: Any = initial("root", spec)
        self.feed(inputs.Begin())

    def static(self, strategy: Any, limits: dict[str, Any]) -> Any:
        names = "abcd"[: self.chance.randint(1, 4)]
        return strategy(*map(self.child, names), auto_shutdown=self.auto_shutdown, **limits)

    def child(self, name: str) -> Any:
        restart = self.chance.choice(RESTARTS)
        return child(
            Puppet,
            name=name,
            restart=restart,
            backoff=self.chance.choice((None, Backoff.of(0.1, most=1))),
            significant=self.auto_shutdown != "never" and restart != "permanent" and self.chance.random() < 0.3,
        )

    def feed(self, *happened: inputs.Input) -> None:
        self.state, wanted = step(self.state, happened, World(self.now, self.now, self.chance))
        for effect in wanted:
            match effect:
                case effects.Start(key=key, incarnation=incarnation):
                    assert not any(one[0] == key for one in self.starting | self.up), "two of one child"
                    self.starting.add((key, incarnation))
                case (
                    effects.RequestStop(key=key, incarnation=incarnation)
                    | effects.Kill(key=key, incarnation=incarnation)
                ):
                    assert (key, incarnation) in self.starting | self.up
                    self.asked_to_stop.add((key, incarnation))
                case effects.Arm(then=due):
                    self.timers[due.key] = due
                case effects.Disarm(key=key):
                    self.timers.pop(key, None)
                case effects.AnswerCall(call=call):
                    self.calls.remove(call)
                case effects.Finish():
                    assert not self.finished
                    self.finished = True

    def start_ends(self) -> None:
        one = self.chance.choice(sorted(self.starting))
        self.starting.remove(one)
        outcome = self.chance.choice(("up", "up", "up", "ignored", "failed", "failed", "wrong"))
        if outcome == "up":
            self.up.add(one)
            self.feed(inputs.Started(*one, child=one))
        elif outcome == "ignored":
            self.feed(inputs.Ignored(*one))
        else:
            self.feed(inputs.FailedToStart(*one, exit=BOOM if outcome == "failed" else WRONG))

    def child_ends(self, among: set[tuple[int, int]]) -> None:
        one = self.chance.choice(sorted(among))
        self.up.remove(one)
        exit_ = SHUTDOWN if one in self.asked_to_stop else self.chance.choice((BOOM, BOOM, NORMAL))
        # A supervisor that was ready may be killed before its own start has ended: that start has failed, then.
        how = self.chance.choice((inputs.Ended, inputs.Ended, inputs.FailedToStart))
        self.feed(how(*one, exit=exit_))

    def time_passes(self) -> None:
        due = self.timers.pop(self.chance.choice(sorted(self.timers)))
        self.now += 0.5
        self.feed(due)

    def someone_asks(self) -> None:
        self.called += 1
        self.calls.add(self.called)
        name: Any = self.chance.choice("abcdef")
        child = self.child(name)
        if isinstance(self.state, DynamicState):
            name = self.chance.randint(0, self.state.next_key)
            child = replace(child, significant=False)
        request = self.chance.choice((StartChild(child), RestartChild(name), TerminateChild(name), DeleteChild(name)))
        self.feed(inputs.Asked(self.called, request))

    def anything(self, *, asks: bool) -> bool:
        """Let one thing happen; return whether there was one."""
        possible = [self.start_ends] * bool(self.starting) + [lambda: self.child_ends(self.up)] * bool(self.up)
        possible += [self.time_passes] * bool(self.timers) + [self.someone_asks] * asks
        if possible:
            self.chance.choice(possible)()
        return bool(possible)

    def answers(self) -> bool:
        """Let one thing happen that the supervisor waits for; return whether there was one."""
        told = self.up & self.asked_to_stop
        possible = [self.start_ends] * bool(self.starting) + [lambda: self.child_ends(told)] * bool(told)
        possible += [self.time_passes] * bool(self.timers and not self.finished)
        if possible:
            self.chance.choice(possible)()
        return bool(possible)

    def settle(self) -> None:
        for _ in range(1_000):
            if not self.answers():
                return
        raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("block", range(4))
def test_whatever_order_answers_come_in_nothing_waits_for_ever(block: int) -> None:  # D-1
    for seed in range(block * 300, block * 300 + 300):
        it = Executor(seed)
        for _ in range(it.chance.randint(0, 30)):
            if not it.finished:
                it.anything(asks=it.state.phase == "running")
        if it.chance.random() < 0.5:
            it.settle()
            if not it.finished:
                assert isinstance(it.state, DynamicState) or it.state.operation is None, seed
                assert not it.state.queue, seed
                assert not it.calls, seed
                waiting = {slot.key for slot in it.state.slots if slot.planned}
                assert waiting <= set(it.timers), seed
        if not it.finished:
            it.feed(inputs.StopRequested(SHUTDOWN))
            it.settle()
        assert it.finished, seed
        assert not it.up, seed
        assert not it.starting, seed
        assert not it.calls, seed
