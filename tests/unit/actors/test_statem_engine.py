"""The order in which a state machine handles events, without actors and without clocks."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlld_sdk.actors.statem.engine import (
    EVENT_TIMEOUT,
    STATE_TIMEOUT,
    Action,
    CancelTimer,
    EndMachine,
    EventReply,
    Goto,
    Happening,
    Keep,
    Machine,
    NextEvent,
    Outcome,
    Postpone,
    Repeat,
    SetTimer,
    StartClock,
    StopClock,
    TimerKey,
    UpdateTimer,
    arrive,
    enters,
    fired,
    pull,
    reply_effects,
    settle,
    waiting,
)

Callback = Callable[[str, Happening], Outcome]


class Bench:
    """Runs the engine the way the shell does, and writes down what a callback would have seen."""

    def __init__(self, state: str = "a", callback: Callback | None = None, entry: tuple[Action, ...] = ()) -> None:
        self.machine = Machine(state)
        self.log: list[object] = []
        self.clocks: dict[TimerKey, tuple[int, float]] = {}
        self.halted: object = None
        self.callback = callback or (lambda state, event: Keep())
        self.entry = entry

    def send(self, content: object, outcome: Outcome | None = None, kind: str = "cast") -> None:
        self._turn(Happening(kind, content), outcome)  # type: ignore[arg-type]
        self.drain()

    def drain(self) -> None:
        while self.halted is None:
            self.machine, event = pull(self.machine)
            if event is None:
                return
            self._turn(event)

    def expire(self, key: TimerKey) -> None:
        self.machine, event = fired(self.machine, key, self.clocks.pop(key)[0])
        if event is not None:
            self._turn(event)
            self.drain()

    def _turn(self, event: Happening, outcome: Outcome | None = None) -> None:
        self.machine, effects = arrive(self.machine)
        self._carry_out(effects)
        label = event.content if event.timer is None else (str(event.timer), event.content)
        self.log.append((self.machine.state, label))
        outcome = self.callback(self.machine.state, event) if outcome is None else outcome
        self._carry_out(reply_effects(outcome.actions))
        old, target, entered = self.machine.state, enters(self.machine, outcome), ()
        if target is not None:
            self.log.append(("enter", old, target))
            entered = self.entry
            self._carry_out(reply_effects(entered))
        self.machine, effects = settle(self.machine, event, outcome, entered)
        self._carry_out(effects)

    def _carry_out(self, effects: list) -> None:
        for effect in effects:
            match effect:
                case StartClock(key, delay, _, generation):
                    self.clocks[key] = (generation, delay)
                case StopClock(key, generation):
                    assert self.clocks.pop(key)[0] == generation
                case EventReply(source, value):
                    self.log.append(("reply", source, value))
                case EndMachine(reason):
                    self.halted = reason


def named(name: str) -> TimerKey:
    return TimerKey("timeout", name)


def test_going_to_the_same_state_is_no_change_and_enters_nothing() -> None:  # FSM-1, FSM-2
    bench = Bench("b")
    bench.send("x", Goto("b"))
    assert bench.log == [("b", "x")]


def test_repeating_a_state_enters_it_again_but_retries_nothing() -> None:  # FSM-1, FSM-2, FSM-8
    bench = Bench("b")
    bench.send("later", Keep((Postpone(),)))
    bench.send("x", Repeat())
    assert bench.log == [("b", "later"), ("b", "x"), ("enter", "b", "b")]
    assert [event.content for event in waiting(bench.machine)[1]] == ["later"]


def test_replies_leave_before_the_new_state_is_entered() -> None:  # FSM-3
    bench = Bench()
    bench.send("ask", Goto("b", (EventReply("caller", 42),)), kind="call")
    assert bench.log == [("a", "ask"), ("reply", "caller", 42), ("enter", "a", "b")]


def test_of_two_settings_of_one_timer_the_last_counts_and_the_enter_call_comes_last() -> None:  # FSM-3
    bench = Bench(entry=(SetTimer(STATE_TIMEOUT, 9.0, "entry"),))
    bench.send("x", Goto("b", (SetTimer(STATE_TIMEOUT, 1.0, "one"), SetTimer(STATE_TIMEOUT, 2.0, "two"))))
    assert bench.clocks[STATE_TIMEOUT][1] == 9.0
    bench.expire(STATE_TIMEOUT)
    assert bench.log[-1] == ("b", ("state_timeout", "entry"))


def test_postponed_events_come_back_on_a_change_oldest_first_and_before_younger_ones() -> None:  # FSM-3, FSM-8
    bench = Bench(callback=lambda state, event: Keep((Postpone(),)) if state == "a" else Keep())
    bench.send("p1")
    bench.send("p2")
    bench.send("data", Keep())
    bench.send("go", Goto("b", (NextEvent("inserted"),)))
    bench.send("young")
    assert bench.log == [
        *[("a", "p1"), ("a", "p2"), ("a", "data"), ("a", "go"), ("enter", "a", "b")],
        *[("b", "inserted"), ("b", "p1"), ("b", "p2"), ("b", "young")],
    ]


def test_the_event_that_changes_the_state_may_itself_be_postponed_into_the_new_one() -> None:  # FSM-3
    bench = Bench()
    bench.send("both", Goto("b", (Postpone(),)))
    assert bench.log == [("a", "both"), ("enter", "a", "b"), ("b", "both")]


def test_a_postponed_event_seen_again_in_a_state_it_is_postponed_in_waits_for_the_next_change() -> None:  # FSM-8
    bench = Bench(callback=lambda state, event: Keep((Postpone(),)) if state != "c" else Keep())
    bench.send("p")
    bench.send("go", Goto("b"))
    bench.send("go", Goto("c"))
    assert [entry for entry in bench.log if entry[1] == "p"] == [("a", "p"), ("b", "p"), ("c", "p")]


def test_a_state_timeout_lives_while_the_state_stays_whatever_else_happens() -> None:  # FSM-4
    bench = Bench()
    bench.send("x", Keep((SetTimer(STATE_TIMEOUT, 50, "st"),)))
    bench.send("other")
    bench.expire(STATE_TIMEOUT)
    assert bench.log[-1] == ("a", ("state_timeout", "st"))


def test_a_state_timeout_ends_with_its_state() -> None:  # FSM-4
    bench = Bench()
    bench.send("x", Keep((SetTimer(STATE_TIMEOUT, 50, "st"),)))
    bench.send("go", Goto("b"))
    assert bench.clocks == {}


def test_a_state_timeout_set_while_changing_belongs_to_the_new_state() -> None:  # FSM-4
    bench = Bench()
    bench.send("x", Keep((SetTimer(STATE_TIMEOUT, 50, "old"),)))
    bench.send("go", Goto("b", (SetTimer(STATE_TIMEOUT, 20, "new"),)))
    bench.expire(STATE_TIMEOUT)
    assert bench.log[-1] == ("b", ("state_timeout", "new"))


def test_an_update_of_a_state_timeout_that_ended_with_its_state_fires_at_once() -> None:  # FSM-4, FSM-6
    bench = Bench()
    bench.send("x", Keep((SetTimer(STATE_TIMEOUT, 50, "old"),)))
    bench.send("go", Goto("b", (UpdateTimer(STATE_TIMEOUT, "new"),)))
    assert bench.log[-1] == ("b", ("state_timeout", "new"))


def test_setting_a_timer_again_restarts_it_and_the_old_firing_is_nothing() -> None:  # FSM-4
    bench = Bench()
    bench.send("x", Keep((SetTimer(STATE_TIMEOUT, 50, "one"),)))
    old = bench.clocks[STATE_TIMEOUT][0]
    bench.send("x", Keep((SetTimer(STATE_TIMEOUT, 50, "two"),)))
    assert fired(bench.machine, STATE_TIMEOUT, old)[1] is None
    bench.expire(STATE_TIMEOUT)
    assert bench.log[-1] == ("a", ("state_timeout", "two"))


@pytest.mark.parametrize("other", ["mailbox", "inserted", "retried"])
def test_any_event_ends_the_wait_of_an_event_timeout(other: str) -> None:  # FSM-5
    bench = Bench()
    wait = SetTimer(EVENT_TIMEOUT, 50, "et")
    if other == "mailbox":
        bench.send("x", Keep((wait,)))
        bench.send("other")
    elif other == "inserted":
        bench.send("x", Keep((wait, NextEvent("i"))))
    else:
        bench.send("p", Keep((Postpone(),)))
        bench.send("x", Goto("b", (wait,)))
    assert bench.clocks == {}
    assert EVENT_TIMEOUT not in bench.machine.timers


def test_an_event_timeout_fires_when_nothing_comes() -> None:  # FSM-5
    bench = Bench()
    bench.send("x", Keep((SetTimer(EVENT_TIMEOUT, 30, "et"),)))
    bench.expire(EVENT_TIMEOUT)
    assert bench.log[-1] == ("a", ("event_timeout", "et"))


def test_named_timers_outlive_changes_and_can_be_cancelled_and_updated() -> None:  # FSM-6
    bench = Bench()
    bench.send("x", Goto("c", tuple(SetTimer(named(name), 40, name) for name in ("n1", "n2", "n3"))))
    bench.send("x", Goto("d", (CancelTimer(named("n3")), UpdateTimer(named("n2"), "newer"))))
    assert set(bench.clocks) == {named("n1"), named("n2")}
    bench.expire(named("n1"))
    bench.expire(named("n2"))
    assert bench.log[-2:] == [("d", ("timeout 'n1'", "n1")), ("d", ("timeout 'n2'", "newer"))]


def test_a_timer_may_be_set_for_an_instant() -> None:  # FSM-6
    bench = Bench()
    machine, effects = settle(bench.machine, None, Keep((SetTimer(named("t"), at=12.5),)))
    assert effects == [StartClock(named("t"), 0.0, 12.5, 1)]
    assert machine.immediate == ()


def test_zero_timeouts_come_after_inserted_events_and_before_the_mailbox() -> None:  # FSM-7
    bench = Bench()
    actions = (
        *(NextEvent("i1"), SetTimer(STATE_TIMEOUT, 0, "st0")),
        *(NextEvent("i2"), SetTimer(named("z"), 0, "g0")),
    )
    bench.send("go", Goto("b", actions))
    bench.send("ext")
    assert bench.log[2:] == [
        *[("b", "i1"), ("b", "i2"), ("b", ("state_timeout", "st0")), ("b", ("timeout 'z'", "g0")), ("b", "ext")]
    ]


def test_a_zero_event_timeout_beats_the_mailbox() -> None:  # FSM-7
    bench = Bench()
    bench.send("x", Keep((SetTimer(EVENT_TIMEOUT, 0, "e0"),)))
    bench.send("ext")
    assert bench.log[1:] == [("a", ("event_timeout", "e0")), ("a", "ext")]


def test_a_zero_timeout_still_waiting_can_be_cancelled() -> None:  # FSM-6, FSM-7
    def callback(state: str, event: Happening) -> Outcome:
        return Keep((CancelTimer(named("z")),)) if event.content == "stop it" else Keep()

    bench = Bench(callback=callback)
    bench.send("x", Keep((SetTimer(named("z"), 0, "never"), NextEvent("stop it"))))
    assert bench.log == [("a", "x"), ("a", "stop it")]


def test_stopping_replies_first_then_stops_every_clock_and_handles_nothing_more() -> None:  # FSM-9
    bench = Bench()
    bench.send("x", Keep((SetTimer(STATE_TIMEOUT, 50), SetTimer(named("n"), 50))))
    bench.send("p", Keep((NextEvent("never"), NextEvent("ever"))), kind="cast")
    bench.send("end", EndMachine("bye", (EventReply("one", 1), EventReply("two", 2))))
    assert bench.log[-2:] == [("reply", "one", 1), ("reply", "two", 2)]
    assert (bench.halted, bench.clocks, bench.machine.queue) == ("bye", {}, None)


def test_only_a_call_can_be_answered() -> None:
    with pytest.raises(TypeError, match="only a call can be answered, not a cast"):
        Happening("cast", "x").reply(1)


class Model(RuleBasedStateMachine):
    """The engine against the plain lists of the rules FSM-3 to FSM-8."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine("s0")
        self.state, self.queue, self.postponed = "s0", [], []
        self.timers: dict[TimerKey, int] = {}
        self.zero: list[TimerKey] = []
        self.clocks: dict[TimerKey, int] = {}
        self.number = 0

    def actions(self, data: st.DataObject, inserted: list[int]) -> tuple[Action, ...]:
        found: list[Action] = [NextEvent(number) for number in inserted]
        keys = data.draw(st.lists(st.sampled_from([STATE_TIMEOUT, EVENT_TIMEOUT, named("n")]), max_size=3, unique=True))
        for key in keys:
            what = data.draw(st.sampled_from(["zero", "later", "cancel"]))
            found.append(CancelTimer(key) if what == "cancel" else SetTimer(key, 0 if what == "zero" else 5, "t"))
        return tuple(found)

    def handle(self, event: Happening, data: st.DataObject) -> None:
        self.machine, effects = arrive(self.machine)
        self.carry_out(effects)
        self.forget(EVENT_TIMEOUT)
        target = data.draw(st.sampled_from(["s0", "s1", "s2"]))
        postpone = data.draw(st.booleans()) and event.timer is None
        inserted = [self.number + 1, self.number + 2][: data.draw(st.integers(0, 2))]
        self.number += len(inserted)
        actions = self.actions(data, inserted)
        full = (*actions, Postpone()) if postpone else actions
        self.machine, effects = settle(self.machine, event, Goto(target, full))
        if postpone:
            self.postponed.append(event.content)
        if target != self.state:
            self.forget(STATE_TIMEOUT)
            self.queue, self.postponed = self.postponed + self.queue, []
        self.queue = inserted + self.queue
        self.state = target
        for action in actions:
            if isinstance(action, SetTimer | CancelTimer):
                self.forget(action.key)
            if isinstance(action, SetTimer):
                self.timers[action.key] = 1
                if not action.delay:
                    self.zero.append(action.key)
        self.carry_out(effects)

    def forget(self, key: TimerKey) -> None:
        self.timers.pop(key, None)
        if key in self.zero:
            self.zero.remove(key)

    def carry_out(self, effects: list) -> None:
        for effect in effects:
            if isinstance(effect, StartClock):
                assert effect.key not in self.clocks
                self.clocks[effect.key] = effect.generation
            elif isinstance(effect, StopClock):
                assert self.clocks.pop(effect.key) == effect.generation

    @rule(data=st.data())
    def next_event(self, data: st.DataObject) -> None:
        self.machine, event = pull(self.machine)
        if self.queue:
            assert event is not None
            assert event.content == self.queue.pop(0)
        elif self.zero:
            assert event is not None
            assert event.timer == self.zero[0]
            self.forget(self.zero[0])
        else:
            assert event is None
            self.number += 1
            event = Happening("cast", self.number)
        self.handle(event, data)

    @precondition(lambda self: self.clocks and not self.queue and not self.zero)
    @rule(data=st.data())
    def clock_ends(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.clocks, key=str)))
        self.machine, event = fired(self.machine, key, self.clocks.pop(key))
        self.forget(key)
        assert event is not None
        self.handle(event, data)

    @invariant()
    def agrees(self) -> None:
        queue, postponed = waiting(self.machine)
        assert [event.content for event in queue] == self.queue
        assert [event.content for event in postponed] == self.postponed
        assert (self.machine.state, set(self.machine.timers)) == (self.state, set(self.timers))
        assert list(self.machine.immediate) == self.zero
        assert set(self.clocks) == set(self.timers) - set(self.zero)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
