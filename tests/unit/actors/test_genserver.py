"""How an actor starts, serves and ends: clauses GEN-1 to GEN-20 of docs/semantics-actors.md."""

import gc
import sys
import threading
import weakref
from typing import Any

import pykka
import pytest

from mlld_sdk.actors.core.actor import Actor, current_actor
from mlld_sdk.actors.core.directives import IGNORE, NO_REPLY, Continue, Idle, Reply, Stop
from mlld_sdk.actors.core.directory import NameTable
from mlld_sdk.actors.core.errors import (
    ActorCrashed,
    ActorDead,
    AlreadyStarted,
    AskTimeout,
    CallingSelf,
    NoSuchActor,
    StartFailed,
    StartIgnored,
    StartTimeout,
)
from mlld_sdk.actors.core.events import (
    ActorCallbackFailed,
    ActorExited,
    ActorStarted,
    ActorStartFailed,
    ErrorUnheard,
    MessageUnhandled,
)
from mlld_sdk.actors.core.exits import NORMAL, SHUTDOWN, Crash, Killed, Other
from mlld_sdk.actors.core.info import Address
from mlld_sdk.actors.core.names import Via
from mlld_sdk.actors.core.ref import Exit
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, TaskError
from tests.support.actors import Clock, Gate, Puppet, Sink, boom, seen_by
from tests.support.eventually import eventually


class Starter(Puppet):
    """Does on start what it was made to do."""

    def __init__(self, action: Any = lambda me: None) -> None:
        super().__init__()
        self.action = action

    def on_start(self) -> Any:
        return self.action(self)


# -- GEN-1: start


def test_start_returns_after_on_start_has_returned(system: ActorSystem, sink: Sink) -> None:  # GEN-1, T-7
    ref = system.start(Starter, (lambda me: me.seen.append("ready"),))
    assert seen_by(ref) == ["ready"]
    assert [event.actor for event in sink.of(ActorStarted)] == [ref.path]


def test_a_start_that_ignores_is_no_failure(system: ActorSystem, sink: Sink) -> None:  # GEN-1
    with pytest.raises(StartIgnored):
        system.start(Starter, (lambda me: IGNORE,), name="x")
    assert system.whereis("x") is None
    assert [event.ignored for event in sink.of(ActorStartFailed)] == [True]


def test_a_start_that_stops_gives_its_reason(system: ActorSystem) -> None:  # GEN-1
    with pytest.raises(StartFailed) as caught:
        system.start(Starter, (lambda me: Stop(Other("no disk")),))
    assert caught.value.reason == Other("no disk")


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt()])
def test_a_start_that_raises_gives_the_exception_as_cause_and_its_trace_as_data(
    system: ActorSystem, error: BaseException
) -> None:  # GEN-1, T-9
    def fail(_: Any) -> None:
        raise error

    with pytest.raises(StartFailed) as caught:
        system.start(Starter, (fail,), name="x")
    assert caught.value.__cause__ is error
    assert isinstance(caught.value.reason, Crash)
    assert "in fail" in caught.value.reason.trace
    assert len(system) == 0


def test_a_constructor_that_raises_fails_the_start(system: ActorSystem) -> None:  # GEN-1
    class Bad(Actor):
        def __init__(self) -> None:
            raise ValueError("no")

    with pytest.raises(StartFailed) as caught:
        system.start(Bad, name="x")
    assert isinstance(caught.value.__cause__, ValueError)
    assert system.whereis("x") is None


def test_a_constructor_that_exits_is_a_failed_start_and_not_the_starters_end(system: ActorSystem) -> None:  # T-5
    class Exits(Actor):
        def __init__(self) -> None:
            raise SystemExit(1)

    class Careful(Puppet):
        answers = (StartFailed,)

    parent = system.start(Careful)
    with pytest.raises(StartFailed) as caught:
        parent.ask(lambda me: me.start_link(Exits))
    assert isinstance(caught.value.__cause__, SystemExit)
    assert parent.ask("alive") == "alive"


def test_an_actor_killed_while_it_is_constructed_fails_its_start(system: ActorSystem) -> None:  # GEN-1
    class KilledEarly(Starter):
        def __init__(self) -> None:
            super().__init__()
            self.actor_ref.kill("early")

    class KilledEarlyThreaded(KilledEarly):
        threaded = True

    for kind in (KilledEarly, KilledEarlyThreaded):
        with pytest.raises(StartFailed) as caught:
            system.start(kind, timeout=10)
        assert caught.value.reason == Killed("early")


def test_a_thousand_failing_starts_of_one_name_never_find_it_taken(system: ActorSystem) -> None:  # GEN-1, GS12
    def fail(_: Any) -> None:
        raise ValueError

    for _ in range(1_000):
        with pytest.raises(StartFailed) as caught:
            system.start(Starter, (fail,), name="again")
        assert not isinstance(caught.value, AlreadyStarted)


def test_a_start_that_takes_too_long_is_killed_and_its_name_is_free(system: ActorSystem) -> None:  # GEN-1, T-7
    gate = Gate()
    with pytest.raises(StartTimeout):
        system.start(Starter, (gate,), name="slow", timeout=0.5)
    assert system.whereis("slow") is None
    assert system.start(Puppet, name="slow").ask("other") == "other"
    assert [zombie.actor for zombie in system.zombies.list()] == ["slow"]
    gate.open.set()
    eventually(lambda: len(system.zombies) == 0)


def test_a_start_in_the_background_tells_its_outcome(system: ActorSystem) -> None:  # GEN-1
    gate = Gate()
    started = system.start_soon(Starter, (gate,))
    assert gate.entered.wait(60)
    assert not started.done
    assert started.ref is not None
    assert started.ref.info().state == "starting"
    gate.open.set()
    with pytest.raises(StartFailed):  # a string is no directive
        started.get(timeout=10)
    assert system.start_soon(Starter).get(timeout=10).ask("x") == "x"
    stuck = Gate()
    with pytest.raises(StartTimeout):
        system.start_soon(Starter, (stuck,), timeout=0.05).get(timeout=10)
    stuck.open.set()


def test_messages_sent_during_the_start_wait_for_it(system: ActorSystem) -> None:  # GEN-1
    gate = Gate()
    started = system.start_soon(Starter, (lambda me: me.seen.append(gate(me)),))
    assert gate.entered.wait(60)
    assert started.ref is not None
    started.ref.tell("early")
    gate.open.set()
    assert seen_by(started.get(timeout=10)) == ["through", "early"]


# -- GEN-2: one at a time


def test_one_message_at_a_time_in_mailbox_order(system: ActorSystem) -> None:  # GEN-2
    class Alone(Puppet):
        inside = 0

        def on_receive(self, message: Any) -> Any:
            self.inside += 1
            assert self.inside == 1
            result = super().on_receive(message)
            self.inside -= 1
            return result

    ref = system.start(Alone)

    def send(number: int) -> None:
        for count in range(500):
            ref.tell((number, count))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = seen_by(ref)
    assert len(seen) == 2_000
    for number in range(4):
        assert [count for sender, count in seen if sender == number] == list(range(500))


# -- GEN-3, GEN-4: call and cast


def test_a_late_reply_goes_nowhere_and_is_counted(system: ActorSystem) -> None:  # GEN-3, GS23
    ref, gate = system.start(Puppet), Gate()
    with pytest.raises(AskTimeout) as caught:
        ref.call(gate, timeout=0.02)
    assert isinstance(caught.value, pykka.Timeout)
    assert isinstance(caught.value, TimeoutError)
    gate.open.set()
    assert ref.call("next") == "next"
    assert system.counters.late_replies == 1


def test_calling_the_dead_raises_at_once(system: ActorSystem) -> None:  # GEN-3
    ref = system.start(Puppet)
    ref.stop(reason="over")
    with pytest.raises(ActorDead) as caught:
        ref.call("x")
    assert caught.value.reason == Other("over")
    with pytest.raises(NoSuchActor):
        system.call("nobody", "x")


def test_the_caller_of_an_actor_that_ends_meanwhile_gets_its_reason(system: ActorSystem) -> None:  # GEN-3
    ref, gate = system.start(Puppet), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    waiting = [ref.request("x") for _ in range(3)]
    ref.stop(block=False, reason="going")
    gate.open.set()
    for future in waiting:
        with pytest.raises(ActorDead) as caught:
            future.get(timeout=10)
        assert caught.value.reason == Other("going")


def test_calling_oneself_raises_at_once(system: ActorSystem) -> None:  # GEN-3, T-11
    class Narcissus(Puppet):
        answers = (CallingSelf,)

    ref = system.start(Narcissus)
    for ask in (
        lambda me: me.actor_ref.call("x"),
        lambda me: me.actor_ref.ask("x"),
        lambda me: me.actor_ref.ask("x", block=False).get(),
        lambda me: me.actor_ref.stop(),
        lambda me: me.actor_ref.get_state(),
    ):
        with pytest.raises(CallingSelf):
            ref.call(ask)
    assert ref.is_alive()


def test_a_cast_never_raises(system: ActorSystem) -> None:  # GEN-4
    ref = system.start(Puppet)
    ref.cast("heard")
    assert seen_by(ref) == ["heard"]
    ref.stop()
    ref.cast("unheard")
    system.cast("nobody", "unheard")
    assert system.counters.dropped_messages == 2


# -- GEN-5: replies from elsewhere


def test_a_reply_may_come_later_from_anybody_and_only_the_first_counts(system: ActorSystem) -> None:  # GEN-5
    rights: list[Any] = []
    ref = system.start(Puppet)

    def later(me: Any) -> Any:
        rights.append(me.reply_to())
        return NO_REPLY

    future = ref.request(later)
    assert ref.call("meanwhile") == "meanwhile"
    assert rights[0].reply("first")
    assert not rights[0].reply("second")
    assert future.get(timeout=10) == "first"
    assert system.counters.late_replies == 1


def test_a_reply_still_owed_at_the_end_is_answered_dead(system: ActorSystem) -> None:  # GEN-5
    ref = system.start(Puppet)
    owed = [ref.request(lambda me: (me.reply_to(), NO_REPLY)[1]), ref.request(lambda me: NO_REPLY)]
    ref.stop(reason="gone")
    for future in owed:
        with pytest.raises(ActorDead) as caught:
            future.get(timeout=10)
        assert caught.value.reason == Other("gone")


# -- GEN-6, GEN-8, GEN-9, GEN-10: directives


def test_stop_with_a_reply_runs_the_stop_hook_first(system: ActorSystem) -> None:  # GEN-6
    order: list[str] = []

    class Last(Puppet):
        def on_terminate(self, reason: Any) -> None:
            order.append(f"terminate {reason}")

    ref = system.start(Last)
    assert ref.call(lambda me: Stop(SHUTDOWN, reply="bye")) == "bye"
    order.append("answered")
    assert order == ["terminate shutdown", "answered"]
    assert ref.reason == SHUTDOWN


def test_a_reply_can_carry_what_is_to_be_done_next(system: ActorSystem) -> None:  # GEN-6
    class Chain(Puppet):
        def on_continue(self, value: int) -> Any:
            self.seen.append(f"continue {value}")
            return Continue(value - 1) if value > 1 else None

    ref = system.start(Chain)
    assert ref.call(lambda me: Reply("now", Continue(2))) == "now"
    assert seen_by(ref) == ["continue 2", "continue 1"]
    assert ref.call(lambda me: Reply("end", Stop(Other("done")))) == "end"
    assert ref.join(60) == Other("done")


def test_a_wrong_return_value_is_a_crash(system: ActorSystem) -> None:  # GEN-8
    with pytest.raises(StartFailed) as caught:
        system.start(Starter, (lambda me: 42,))
    assert isinstance(caught.value.__cause__, TypeError)
    ref = system.start(Puppet)
    with pytest.raises(ActorCrashed, match="IGNORE"):
        ref.call(lambda me: IGNORE)


def test_continue_runs_before_messages_that_wait_already(system: ActorSystem) -> None:  # GEN-9
    class Careful(Starter):
        def on_continue(self, value: Any) -> Any:
            self.seen.append(value)
            return Continue("second") if value == "first" else None

    gate = Gate()
    started = system.start_soon(Careful, (lambda me: (gate(me), Continue("first"))[1],))
    assert gate.entered.wait(60)
    assert started.ref is not None
    started.ref.tell("waiting")
    gate.open.set()
    assert seen_by(started.get(timeout=10)) == ["first", "second", "waiting"]


def test_continue_without_a_hook_for_it_is_a_crash(system: ActorSystem) -> None:  # GEN-9
    ref = system.start(Puppet)
    ref.tell(lambda me: Continue(1))
    assert "on_continue" in str(ref.join(10))


class Idler(Puppet):
    def on_idle(self) -> Any:
        self.seen.append("idle")
        self.idled.set()

    def __init__(self) -> None:
        super().__init__()
        self.idled = threading.Event()


def test_an_idle_time_passes_without_a_message(system: ActorSystem) -> None:  # GEN-10
    ref = system.start(Idler)
    idled = ref.ask(lambda me: me.idled)
    ref.tell(lambda me: Idle(0.01))
    assert idled.wait(60)
    assert seen_by(ref) == ["idle"]


def test_a_message_cancels_the_idle_time() -> None:  # GEN-10
    clock = Clock()
    with ActorSystem("idle", env=Env(now=clock)) as still:
        ref = still.start(Idler)
        ref.ask(lambda me: Idle(1.0))
        eventually(lambda: len(still.timers) == 1)
        ref.ask("message")
        clock.time += 2
        still.timers.wake()
        assert len(still.timers) == 0
        assert seen_by(ref) == ["message"]


def test_with_no_idle_time_at_all_a_waiting_message_wins(system: ActorSystem) -> None:  # GEN-10
    ref, gate = system.start(Idler), Gate()
    ref.tell(lambda me: (gate(me), Idle(0))[1])
    assert gate.entered.wait(60)
    ref.tell("first")
    gate.open.set()
    assert seen_by(ref) == ["first"]


def test_an_idle_class_is_called_whenever_it_has_been_idle(system: ActorSystem) -> None:  # GEN-16
    class Sleepy(Idler):
        idle_after = 0.01

    ref = system.start(Sleepy)
    for _ in range(2):
        ref.ask(lambda me: me.idled.clear())
        assert ref.cell.actor.idled.wait(60)


# -- GEN-7, GEN-11, GEN-13, GEN-15: crashes


def test_an_exception_ends_the_actor_and_the_caller_gets_it(system: ActorSystem, sink: Sink) -> None:  # GEN-7, T-5
    class Secretive(Puppet):
        def format_state(self) -> str:
            return "state without secrets"

        def describe_message(self, message: Any) -> str:
            return "a message without secrets"

    ended: list[Any] = []
    Secretive.on_terminate = lambda me, reason: ended.append(reason)  # type: ignore[method-assign]
    ref = system.start(Secretive, name="s")
    with pytest.raises(ActorCrashed) as caught:
        ref.call(boom)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.reason == ref.reason
    assert ended == [ref.reason]
    (report,) = sink.of(ActorExited)
    assert (report.actor, report.normal, report.reason) == ("s", False, "ValueError: boom")
    assert (report.last_message, report.state) == ("a message without secrets", "state without secrets")
    assert "in boom" in report.trace


def test_an_asker_gets_the_exception_itself(system: ActorSystem) -> None:  # GEN-7
    ref = system.start(Puppet)
    with pytest.raises(ValueError, match="boom"):
        ref.ask(boom)
    assert not ref.is_alive()


def test_a_caller_learns_of_the_crash_also_if_the_stop_hook_is_killed(system: ActorSystem) -> None:  # GEN-7
    gate = Gate()

    class SlowEnd(Puppet):
        def on_terminate(self, reason: Any) -> None:
            gate(self)

    ref = system.start(SlowEnd)
    future = ref.request(boom)
    assert gate.entered.wait(60)
    assert ref.info().state == "stopping"
    ref.kill()
    with pytest.raises(ActorCrashed, match="boom"):
        future.get(timeout=10)
    assert ref.reason == Killed()
    gate.open.set()


def test_an_exception_given_as_an_answer_is_one_also_at_the_end(system: ActorSystem) -> None:  # GEN-6
    error = ValueError("as a value")
    assert system.start(Puppet).call(lambda me: Stop(reply=error)) is error


def test_a_crash_by_tell_and_by_ask_is_the_same_end(system: ActorSystem) -> None:  # GEN-7, T-5
    told, asked = system.start(Puppet), system.start(Puppet)
    told.tell(boom)
    asked.request(boom)
    assert isinstance(told.join(10), Crash)
    assert isinstance(asked.join(10), Crash)


def test_an_expected_error_is_answered_and_the_actor_lives(
    system: ActorSystem, sink: Sink
) -> None:  # GEN-7 (deviation)
    class Polite(Puppet):
        answers = (LookupError,)

    def missing(_: Any) -> None:
        raise KeyError("x")

    def task_error(_: Any) -> None:
        raise TaskError("the script failed")

    ref = system.start(Polite)
    for ask in (ref.call, ref.ask):
        with pytest.raises(KeyError):
            ask(missing)
        with pytest.raises(TaskError):
            ask(task_error)
    ref.tell(missing)
    assert ref.ask("alive") == "alive"
    assert [event.error for event in sink.of(ErrorUnheard)] == ["KeyError: 'x'"]


def test_an_unknown_message_is_reported_and_dropped(system: ActorSystem, sink: Sink) -> None:  # GEN-11
    ref = system.start(Actor)
    assert ref.ask({"what": "is this"}) is None
    assert [event.message for event in sink.of(MessageUnhandled)] == ["dict"]


def test_an_exception_in_the_stop_hook_replaces_the_reason(system: ActorSystem) -> None:  # GEN-13, T-8
    class BadEnd(Puppet):
        def on_stop(self) -> None:
            raise ValueError("in the end")

    ref = system.start(BadEnd)
    assert ref.stop()
    assert "in the end" in str(ref.reason)


def test_ordinary_ends_are_not_reported_as_crashes(system: ActorSystem, sink: Sink) -> None:  # GEN-15
    for reason in (NORMAL, SHUTDOWN):
        system.start(Puppet).stop(reason=reason)
    system.start(Puppet).stop(reason="odd")
    assert [event.normal for event in sink.of(ActorExited)] == [True, True, False]


# -- GEN-12: when the stop hook runs


class Hooked(Puppet):
    def __init__(self, log: list[Any], trap: bool) -> None:
        super().__init__(trap)
        self.log = log

    def on_terminate(self, reason: Any) -> None:
        self.log.append(reason)


@pytest.mark.parametrize("trap", [True, False])
def test_the_stop_hook_runs_at_every_end_but_a_kill(system: ActorSystem, trap: bool) -> None:  # GEN-12, T-8
    log: list[Any] = []
    parent = system.start(Puppet, (True,))

    def hooked() -> Any:
        log.clear()
        return parent.ask(lambda me: me.start_link(Hooked, log, trap))

    ref = hooked()
    ref.ask(lambda me: Stop(Other("returned")))
    assert ref.join(60) == Other("returned")
    assert log == [Other("returned")]
    ref = hooked()
    ref.tell(boom)
    assert log == [ref.join(10)]
    ref = hooked()
    ref.stop()
    assert log == [NORMAL]
    ref = hooked()
    parent.ask(lambda me: ref.shutdown(5).get(timeout=5))
    assert log == [SHUTDOWN]
    ref = hooked()
    ref.kill()
    assert log == []
    assert ref.reason == Killed()


def test_a_strangers_exit_signal_is_only_a_message_to_who_traps(system: ActorSystem) -> None:  # GEN-12
    log: list[Any] = []
    trapping, plain = system.start(Hooked, (log, True)), system.start(Hooked, (log, False))
    trapping.exit("go")
    assert seen_by(trapping) == [Exit(None, Other("go"))]
    assert log == []
    plain.exit("go")
    plain.join(60)
    assert log == [Other("go")]  # a deviation from OTP: the stop hook runs


def test_pykkas_hooks_run_as_pykka_says(system: ActorSystem) -> None:  # GEN-12
    log: list[Any] = []

    class Old(Puppet):
        def on_stop(self) -> None:
            log.append("stop")

        def on_failure(self, kind: Any, value: Any, trace: Any) -> None:
            log.append((kind, str(value)))

    system.start(Old).stop()
    ref = system.start(Old)
    ref.tell(boom)
    ref.join(60)
    assert log == ["stop", (ValueError, "boom")]


# -- GEN-14: stop


def test_stop_waits_for_the_end_and_says_whether_there_was_one(system: ActorSystem) -> None:  # GEN-14
    ref = system.start(Puppet)
    assert ref.stop(reason="why")
    assert ref.reason == Other("why")
    assert not ref.stop()
    assert ref.stop(block=False).get(timeout=10) is False


def test_stop_overtakes_the_backlog_unless_asked_to_drain(system: ActorSystem) -> None:  # GEN-14, T-3
    for drain, handled in ((False, []), (True, [0, 1, 2])):
        ref, gate = system.start(Puppet), Gate()
        ref.tell(gate)
        actor = ref.cell.actor
        assert gate.entered.wait(60)
        for number in range(3):
            ref.tell(number)
        done = ref.stop(block=False, drain=drain, reason="why")
        gate.open.set()
        assert done.get(timeout=10)
        assert actor.seen == handled
        assert ref.reason == Other("why")


def test_a_class_may_take_its_end_into_its_own_hands(system: ActorSystem) -> None:  # GEN-14
    class Orderly(Puppet):
        def on_end_request(self, reason: Any) -> bool:
            self.send_after(0, lambda me: Stop(reason))
            return True

    ref = system.start(Orderly)
    assert ref.stop(reason="in my own time")
    assert ref.reason == Other("in my own time")


def test_a_stop_that_takes_too_long_times_out_and_goes_on(system: ActorSystem) -> None:  # GEN-14
    ref, gate = system.start(Puppet), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    with pytest.raises(AskTimeout):
        ref.stop(timeout=0.02)
    gate.open.set()
    assert ref.join(60) == NORMAL


def test_an_orderly_shutdown_that_is_too_slow_is_killed(system: ActorSystem) -> None:  # GEN-14, T-3
    ref, gate = system.start(Puppet), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    assert isinstance(ref.shutdown(0.02).get(timeout=10), Killed)
    quick = system.start(Puppet)
    assert quick.shutdown(5).get(timeout=10) == SHUTDOWN
    assert quick.shutdown(5).get(timeout=10) == SHUTDOWN
    assert isinstance(system.start(Puppet).shutdown(0).get(timeout=10), Killed)
    assert len(system.timers) == 0
    gate.open.set()


# -- GEN-17: introspection


def test_introspection_needs_nothing_from_the_class(system: ActorSystem) -> None:  # GEN-17
    ref = system.start(Puppet, name="p")
    ref.ask("one")
    assert ref.get_state()["seen"] == ["one"]
    assert ref.replace_state(lambda me: me.seen.append("changed")) is None
    with pytest.raises(ZeroDivisionError):
        ref.replace_state(lambda me: 1 / 0)
    assert seen_by(ref) == ["one", "changed"]


def test_a_suspended_actor_handles_system_messages_only(system: ActorSystem) -> None:  # GEN-17
    ref = system.start(Puppet)
    ref.suspend()
    ref.tell("waits")
    assert ref.get_state()["seen"] == []
    info = ref.info()
    assert (info.state, info.queued) == ("suspended", 1)
    ref.resume()
    assert seen_by(ref) == ["waits"]
    ref.suspend()
    assert ref.stop()


def test_messages_can_be_watched_as_they_are_handled(system: ActorSystem, sink: Sink) -> None:  # GEN-17
    ref = system.start(Puppet)
    watched: list[Any] = []
    ref.trace(watched.append)
    ref.ask("one")
    assert ref.get_state() == {"trap_exit": False, "seen": ["one"], "ended": []}
    ref.trace(None)
    ref.ask("two")
    assert watched == ["one"]
    ref.trace(boom)
    assert ref.ask("three") == "three"
    assert ref.ask("four") == "four"
    assert len(sink.of(ActorCallbackFailed)) == 1


def test_looking_at_a_busy_actor_does_not_disturb_it(system: ActorSystem) -> None:  # GEN-17
    ref, gate = system.start(Puppet, name="busy"), Gate()
    ref.tell(gate)
    ref.tell("next")
    assert gate.entered.wait(60)
    info = ref.info()
    assert (info.path, info.state, info.queued, info.current) == ("busy", "running", 1, "Gate")
    assert info.current_for is not None
    gate.open.set()
    ref.ask("done")
    info = eventually(lambda: ref.info() if ref.info().current is None else None)
    assert (info.handled, info.queued) == (3, 0)
    assert info.rate > 0
    ref.kill()
    assert ref.info().state == "dead"


# -- GEN-18: names


def test_a_name_is_registered_before_any_code_runs_and_a_taken_one_runs_nothing(system: ActorSystem) -> None:  # GEN-18
    ran: list[Any] = []
    ref = system.start(Starter, (lambda me: ran.append(me.system.whereis("n")),), name="n")
    assert ran == [ref]
    with pytest.raises(AlreadyStarted) as caught:
        system.start(Starter, (lambda me: ran.append("second"),), name="n")
    assert caught.value.holder is ref
    assert ran == [ref]


def test_a_name_is_free_before_anybody_learns_of_the_end(system: ActorSystem) -> None:  # GEN-18
    for _ in range(200):
        ref = system.start(Puppet, name="n")
        free: list[Any] = []
        ref.monitor(lambda _, free=free: free.append(system.whereis("n")))
        ref.kill()
        assert free == [None]


@pytest.mark.parametrize("name", ["", "a/b", 7, ("via", 1)])
def test_a_bad_name_is_refused_in_the_caller(system: ActorSystem, name: Any) -> None:  # GEN-18
    with pytest.raises(ConfigurationError):
        system.start(Puppet, name=name)
    assert len(system) == 0


def test_any_object_with_the_protocol_can_give_names(system: ActorSystem) -> None:  # GEN-18
    table = NameTable()
    ref = system.start(Puppet, name=Via(table, ("key", 1)))
    assert system.whereis(Via(table, ("key", 1))) is ref
    assert system.call(Via(table, ("key", 1)), "x") == "x"
    with pytest.raises(AlreadyStarted):
        system.start(Puppet, name=Via(table, ("key", 1)))
    ref.kill()
    assert table.all() == {}


def test_an_actor_without_a_name_still_has_a_path(system: ActorSystem) -> None:  # GEN-18
    root = system.start(Puppet, name="root")
    child = root.ask(lambda me: me.start_link(Puppet, name="child"))
    assert child.path == "root/child"
    assert child.address.path == "root/child"
    assert (child.address.system, child.address.epoch) == (system.id, child.epoch)
    assert system.resolve(child.address) is child
    child.kill()
    assert system.resolve(child.address) is None
    assert system.resolve(Address(root.path, "another system", root.epoch)) is None
    assert system.start(Puppet).path.startswith("Puppet-")


# -- GEN-19: timers


def test_a_timer_sends_later_and_says_what_was_left_when_cancelled(system: ActorSystem) -> None:  # GEN-19
    ref, other = system.start(Puppet), system.start(Puppet)
    ref.ask(lambda me: me.send_after(0.0, "tick"))
    ref.ask(lambda me: me.send_after(0.0, "for another", to=other))
    eventually(lambda: seen_by(ref) == ["tick"] and seen_by(other) == ["for another"])
    timer = ref.ask(lambda me: me.send_after(60, "never"))
    left = timer.cancel()
    assert left is not None
    assert 50 < left <= 60
    assert timer.cancel() is None
    with pytest.raises(ValueError, match="delay"):
        ref.ask(lambda me: me.send_after(-1, "x"))


def test_timers_that_fire_while_they_are_made_lose_nothing(system: ActorSystem, sink: Sink) -> None:  # GEN-19
    ref = system.start(Puppet)
    keep = system.send_after(60, ref, "much later")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(500):
            system.send_after(0, ref, number)
    finally:
        sys.setswitchinterval(before)
    eventually(lambda: sorted(seen_by(ref)) == list(range(500)))
    assert sink.of(ActorCallbackFailed) == []
    assert list(ref.cell.timers or ()) == [keep]


def test_a_timer_of_a_dead_actor_is_gone(system: ActorSystem) -> None:  # GEN-19, T-18
    ref = system.start(Puppet, name="n")
    timer = ref.ask(lambda me: me.send_after(60, "x"))
    assert len(system.timers) == 1
    ref.stop()
    assert len(system.timers) == 0
    assert timer.cancel() is None
    successor = system.start(Puppet, name="n")
    assert seen_by(successor) == []
    assert system.send_after(60, ref, "x").cancel() is None


# -- GEN-20: an agent is an actor that runs what it is sent


def test_a_function_sent_to_an_agent_runs_in_it_and_its_raise_kills_it(system: ActorSystem) -> None:  # GEN-20
    ref = system.start(Puppet)
    assert ref.call(lambda me: current_actor()) is ref
    assert current_actor() is None
    with pytest.raises(ActorCrashed):
        ref.call(boom)
    with pytest.raises(ActorDead):
        ref.call("x")


def test_dead_actors_keep_nothing_alive(system: ActorSystem) -> None:
    class Big:
        pass

    big = Big()
    watch = weakref.ref(big)
    ref = system.start(Starter, (lambda me, big=big: None,))
    ref.ask(lambda me, big=big: setattr(me, "big", big))
    del big
    ref.stop()
    gc.collect()
    assert watch() is None
