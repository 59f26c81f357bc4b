"""State machines as actors: the order the engine decides, carried out with real messages and timers."""

from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.directives import IGNORE
from mlld_sdk.actors.core.errors import ActorCrashed, ActorDead, StartFailed, StartIgnored
from mlld_sdk.actors.core.exits import NORMAL, Other, Shutdown
from mlld_sdk.actors.core.ref import Down
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.statem import (
    Happening,
    State,
    StateMachine,
    anywhere,
    cancel_event_timeout,
    cancel_state_timeout,
    cancel_timeout,
    event_timeout,
    goto,
    keep,
    next_event,
    postpone,
    repeat,
    state_timeout,
    stop,
    timeout,
    update_state_timeout,
    update_timeout,
)
from mlld_sdk.actors.statem.errors import UndeclaredTransition, UnhandledEvent
from tests.support.eventually import eventually
from tests.support.libraries import Clock, Ref, fresh_system, puppet


@pytest.fixture
def world() -> Iterator[tuple[ActorSystem, Clock]]:
    with fresh_system() as (system, clock):
        yield system, clock


class Scripted(StateMachine):
    """Does what the message says; writes down every event and every entry."""

    a = State(initial=True)
    b = State()
    c = State()
    d = State()
    start = State(initial=True)

    def __init__(self, first: Any = None) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.first = first
        self.kept: Any = None

    def on_init(self) -> Any:
        return self.first

    @anywhere.enter
    def entered(self, previous: str) -> Any:
        self.log.append(("enter", previous, self.state))
        return self.on_entry() if (previous, self.state) == ("a", "d") else None

    def on_entry(self) -> Any:
        return None

    @anywhere.on("log", kind="call")
    def give_log(self, event: Happening) -> Any:
        log, self.log = self.log, []
        return keep(event.reply(log))

    @anywhere.on("keep the question", kind="call")
    def keep_question(self, event: Happening) -> Any:
        self.kept = event
        return keep()

    @anywhere.on("answer it now", to=(b, c))
    def answer_kept(self, event: Happening) -> Any:
        return goto(self.b, self.kept.reply("late"))

    @a.on("later")
    def later(self, event: Happening) -> Any:
        self.log.append((self.state, event.content))
        return keep(postpone())

    @anywhere.on(tuple, to=(a, b, c, d))
    def act(self, event: Happening) -> Any:
        self.log.append((self.state, event.content[0]))
        return event.content[1](self)

    @anywhere.on_state_timeout()
    @anywhere.on_event_timeout()
    @anywhere.on_timeout("n1")
    @anywhere.on_timeout("n2")
    @anywhere.on_timeout("n3")
    @anywhere.on()
    def anything(self, event: Happening) -> None:
        self.log.append((self.state, event.content))


def act(ref: Ref, answer: Any) -> None:
    ref.tell(("act", lambda me: answer))


def log(ref: Ref) -> list[Any]:
    return list(ref.call("log"))


def begin(system: ActorSystem, first: Any = None) -> Ref:
    ref = system.start(Scripted, (first,))
    log(ref)
    return ref


def test_the_first_state_is_entered_at_the_start_with_itself_before(world: tuple[ActorSystem, Clock]) -> None:
    # FSM-2, SM4
    ref = world[0].start(Scripted)
    assert log(ref) == [("enter", "a", "a")]


def test_init_may_begin_elsewhere_with_actions_decline_or_fail(world: tuple[ActorSystem, Clock]) -> None:
    # FSM-10, SM1, FSM-11
    system, clock = world
    ref = system.start(Scripted, (goto("start", state_timeout(5, "first")),))
    clock.advance(5)
    assert log(ref) == [("enter", "start", "start"), ("start", "first")]
    assert log(system.start(Scripted, (keep(next_event("inserted")),))) == [("enter", "a", "a"), ("a", "inserted")]
    with pytest.raises(StartIgnored):
        system.start(Scripted, (IGNORE,))
    with pytest.raises(StartFailed) as stopped:
        system.start(Scripted, (stop("not today"),))
    assert stopped.value.reason == Other("not today")
    with pytest.raises(StartFailed) as undeclared:
        system.start(Scripted, (goto("b"),))
    assert isinstance(undeclared.value.__cause__, UndeclaredTransition)


def test_calls_casts_and_notices_are_told_apart(world: tuple[ActorSystem, Clock]) -> None:  # SM7
    class Kinds(StateMachine):
        only = State(initial=True)

        @only.on("kinds", kind="call")
        def give(self, event: Happening) -> Any:
            return keep(event.reply([*self.kinds]))

        @only.on(int)
        @only.on(Down)
        def any(self, event: Happening) -> Any:
            self.kinds.append((event.kind, type(event.content).__name__))
            return keep(event.reply(None)) if event.kind == "call" else keep()

        @only.on("watch", kind="call")
        def watch(self, event: Happening) -> Any:
            self.kinds: list[Any] = []
            self.monitor(self.other)
            return keep(next_event(4), event.reply(None))

        def __init__(self, other: Ref) -> None:
            super().__init__()
            self.other = other

    system, _ = world
    other = puppet(system)
    ref = system.start(Kinds, (other,))
    ref.call("watch")
    ref.call(1)
    ref.tell(2)
    other.kill()
    assert ref.call("kinds") == [("internal", "int"), ("call", "int"), ("cast", "int"), ("info", "Down")]


def test_the_recorded_order_of_timeouts_inserted_and_external_events(world: tuple[ActorSystem, Clock]) -> None:
    # FSM-3, FSM-7, SM5
    system, _ = world
    ref = begin(system)
    ref.suspend()
    act(ref, goto("b", next_event("i1"), state_timeout(0, "st0"), next_event("i2"), timeout("n1", 0, "g0")))
    ref.tell("ext")
    ref.resume()
    assert log(ref) == [
        ("a", "act"),
        ("enter", "a", "b"),
        *[("b", "i1"), ("b", "i2"), ("b", "st0"), ("b", "g0"), ("b", "ext")],
    ]
    ref.suspend()
    act(ref, keep(event_timeout(0, "e0")))
    ref.tell("ext")
    ref.resume()
    assert log(ref) == [("b", "act"), ("b", "e0"), ("b", "ext")]


def test_postponed_events_are_retried_on_a_change_only(world: tuple[ActorSystem, Clock]) -> None:  # FSM-8, SM5
    ref = begin(world[0])
    ref.tell("later")
    ref.tell("x1")
    act(ref, keep())
    act(ref, goto("b"))
    ref.tell("x2")
    assert log(ref) == [
        *[("a", "later"), ("a", "x1"), ("a", "act"), ("a", "act"), ("enter", "a", "b")],
        *[("b", "later"), ("b", "x2")],
    ]


def test_a_state_timeout_survives_events_and_ends_with_the_state(world: tuple[ActorSystem, Clock]) -> None:
    # FSM-4, SM6
    system, clock = world
    ref = begin(system)
    act(ref, keep(state_timeout(50, "st")))
    ref.tell("other")
    log(ref)
    clock.advance(50)
    assert log(ref) == [("a", "st")]
    act(ref, keep(state_timeout(50, "st")))
    act(ref, goto("b"))
    log(ref)
    assert len(system.timers) == 0
    clock.advance(50)
    assert log(ref) == []


def test_setting_updating_and_cancelling_a_state_timeout(world: tuple[ActorSystem, Clock]) -> None:  # FSM-4, SM6
    system, clock = world
    ref = begin(system)
    act(ref, keep(state_timeout(50, "one")))
    act(ref, keep(state_timeout(50, "two")))
    act(ref, keep(update_state_timeout("three")))
    log(ref)
    clock.advance(50)
    assert log(ref) == [("a", "three")]
    act(ref, keep(state_timeout(50, "never")))
    act(ref, keep(cancel_state_timeout()))
    log(ref)
    clock.advance(50)
    assert log(ref) == []


def test_an_event_timeout_is_ended_by_any_event(world: tuple[ActorSystem, Clock]) -> None:  # FSM-5, SM6
    system, clock = world
    ref = begin(system)
    act(ref, keep(event_timeout(30, "quiet")))
    ref.tell("noise")
    log(ref)
    clock.advance(30)
    assert log(ref) == []
    act(ref, keep(event_timeout(30, "quiet")))
    eventually(lambda: len(system.timers) == 1)
    ref.get_state()  # looking at it is no event
    clock.advance(30)
    assert log(ref) == [("a", "act"), ("a", "quiet")]
    act(ref, keep(event_timeout(0, "never"), cancel_event_timeout()))
    assert log(ref) == [("a", "act")]


def test_named_timeouts_run_beside_everything_else(world: tuple[ActorSystem, Clock]) -> None:  # FSM-6, SM6
    system, clock = world
    ref = begin(system)
    act(ref, goto("c", timeout("n1", 40, "g1"), timeout("n2", at=60.0, content="g2"), timeout("n3", 20, "g3")))
    act(ref, goto("d", cancel_timeout("n3"), update_timeout("n1", "newer")))
    log(ref)
    clock.advance(40)
    clock.advance(20)
    assert log(ref) == [("d", "newer"), ("d", "g2")]
    act(ref, keep(update_timeout("n1", "at once")))
    assert log(ref) == [("d", "act"), ("d", "at once")]


def test_a_firing_that_was_overtaken_by_a_cancel_is_nothing(world: tuple[ActorSystem, Clock]) -> None:  # FSM-4
    system, clock = world
    ref = begin(system)
    act(ref, keep(state_timeout(10, "late")))
    log(ref)
    ref.suspend()
    clock.advance(10)
    act(ref, goto("b", state_timeout(10, "new")))
    ref.resume()
    assert log(ref) == [("a", "late"), ("a", "act"), ("enter", "a", "b")]
    ref.suspend()
    act(ref, keep(cancel_state_timeout()))
    clock.advance(10)
    ref.resume()
    assert log(ref) == [("b", "act")]


def test_repeating_enters_again_and_staying_does_not(world: tuple[ActorSystem, Clock]) -> None:  # FSM-1, FSM-2, SM4
    ref = begin(world[0])
    act(ref, goto("a"))
    act(ref, repeat())
    act(ref, keep())
    ref.tell(("act", lambda me: None))
    assert log(ref) == [("a", "act"), ("a", "act"), ("enter", "a", "a"), ("a", "act"), ("a", "act")]


def test_an_enter_method_may_set_timers_but_not_change_postpone_or_insert(world: tuple[ActorSystem, Clock]) -> None:
    # FSM-2, FSM-3, SM4
    system, clock = world

    def entering(answer: Any) -> Ref:
        class Entering(Scripted):
            def on_entry(self) -> Any:
                return answer

        return system.start(Entering)

    timed = entering(keep(state_timeout(5, "from entry")))
    act(timed, goto("d", state_timeout(1, "from the event")))
    log(timed)
    clock.advance(5)
    assert log(timed) == [("d", "from entry")]
    for forbidden in (goto("b"), repeat(), keep(postpone()), keep(next_event("x"))):
        ref = entering(forbidden)
        act(ref, goto("d"))
        reason = ref.join(10)
        assert reason.is_crash
    stopping = entering(stop("enough"))
    act(stopping, goto("d"))
    assert stopping.join(60) == Other("enough")


def test_a_question_may_be_answered_from_another_state(world: tuple[ActorSystem, Clock]) -> None:  # FSM-9
    ref = begin(world[0])
    answer = ref.request("keep the question")
    act(ref, goto("c"))
    assert not answer.done
    ref.tell("answer it now")
    assert answer.get(timeout=10) == "late"


def test_stopping_answers_whom_it_names_and_the_rest_get_the_reason(world: tuple[ActorSystem, Clock]) -> None:
    # FSM-9, SM3
    system, _ = world

    class Farewell(StateMachine):
        asking = State(initial=True)

        def __init__(self) -> None:
            super().__init__()
            self.questions: list[Happening] = []

        @asking.on("question", kind="call")
        def collect(self, event: Happening) -> None:
            self.questions.append(event)

        @asking.on("end")
        def end(self, event: Happening) -> Any:
            return stop(Shutdown("done"), *[question.reply(n) for n, question in enumerate(self.questions[:2])])

    ref = system.start(Farewell)
    answers = [ref.request("question") for _ in range(3)]
    ref.tell("end")
    assert [answer.get(timeout=10) for answer in answers[:2]] == [0, 1]
    with pytest.raises(ActorDead) as unanswered:
        answers[2].get(timeout=10)
    assert unanswered.value.reason == Shutdown("done")


def test_calls_still_postponed_when_it_ends_get_the_reason(world: tuple[ActorSystem, Clock]) -> None:  # FSM-9
    ref = begin(world[0])
    answer = ref.request("later")
    log(ref)
    ref.kill()
    with pytest.raises(ActorDead):
        answer.get(timeout=10)


def test_its_end_runs_terminate_in_the_state_it_was_in(world: tuple[ActorSystem, Clock]) -> None:  # FSM-10, SM2
    ends: list[Any] = []

    class Ending(Scripted):
        def on_terminate(self, reason: Any) -> None:
            ends.append((self.state, reason))

    ref = world[0].start(Ending)
    act(ref, goto("b"))
    act(ref, stop())
    assert ref.join(60) == NORMAL
    assert ends == [("b", NORMAL)]
    assert len(world[0].timers) == 0


def test_an_event_nobody_declared_ends_the_machine_by_name(world: tuple[ActorSystem, Clock]) -> None:  # FSM-11
    class Small(StateMachine):
        only = State(initial=True)

        @only.on("known")
        def known(self, event: Happening) -> None: ...

    ref = world[0].start(Small)
    with pytest.raises(ActorCrashed) as crashed:
        ref.call("unknown")
    assert isinstance(crashed.value.__cause__, UnhandledEvent)
    assert "call 'unknown' in state 'only'" in str(crashed.value.__cause__)


def test_going_where_the_declaration_does_not_lead_ends_the_machine_by_name(world: tuple[ActorSystem, Clock]) -> None:
    # FSM-11
    class Strict(StateMachine):
        a = State(initial=True)
        b = State()

        @a.on("go")
        def go(self, event: Happening) -> Any:
            return goto(self.b)

        @a.on("odd")
        def odd(self, event: Happening) -> Any:
            return "b"

    for message, error in (("go", UndeclaredTransition), ("odd", TypeError)):
        with pytest.raises(ActorCrashed) as crashed:
            world[0].start(Strict).call(message)
        assert isinstance(crashed.value.__cause__, error)


def test_each_change_of_state_is_one_event(world: tuple[ActorSystem, Clock]) -> None:
    system, clock = world
    ref = begin(system)
    for answer in (goto("b"), goto("b"), repeat(), goto("c")):
        act(ref, answer)
    log(ref)
    assert [(event.actor, event.old, event.new, event.cause) for event in clock.named("state.changed")] == [
        (ref.path, "a", "b", "tuple"),
        (ref.path, "b", "c", "tuple"),
    ]


def test_a_machine_that_feeds_itself_can_be_stopped(world: tuple[ActorSystem, Clock]) -> None:  # FSM-14
    class Busy(StateMachine):
        on = State(initial=True)

        def on_init(self) -> Any:
            return keep(next_event("again"))

        @on.on("again")
        def again(self, event: Happening) -> Any:
            return keep(next_event("again"))

    ref = world[0].start(Busy)
    assert ref.stop(timeout=10)


def test_postponing_costs_the_same_with_many_waiting(world: tuple[ActorSystem, Clock]) -> None:  # FSM-8
    ref = begin(world[0])
    for _ in range(3_000):
        ref.tell("later")
    act(ref, goto("b"))
    assert [entry for entry in log(ref) if entry == ("b", "later")] == [("b", "later")] * 3_000
