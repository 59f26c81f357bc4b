"""The traps of actors on threads, T-1 to T-24 of docs/semantics-actors.md.

T-2 (zombies in a restart loop) is decided by supervisors, on `zombies.count`; T-16 and T-17 need real processes
(`tests/process/actors/test_process.py`); T-10 has its stress test in `tests/process/actors/test_stress.py`; T-23
belongs to the runtime that owns the main thread.
"""

import asyncio
import contextvars
import gc
import random
import socket
import sys
import threading
import time
import weakref
from typing import Any

import pykka
import pytest

from mlld_sdk.actors.core import scheduler as scheduler_module
from mlld_sdk.actors.core import system as system_module
from mlld_sdk.actors.core.actor import Actor, PykkaActor
from mlld_sdk.actors.core.directives import NO_REPLY
from mlld_sdk.actors.core.errors import (
    ActorDead,
    ActorKilled,
    AskTimeout,
    CallingSelf,
    DeadlockDetected,
    MailboxFull,
    StartFailed,
)
from mlld_sdk.actors.core.events import ActorCallbackFailed, ActorExited, ResourceCloseFailed, ZombieEnded, ZombieLeft
from mlld_sdk.actors.core.exits import KILLED, NORMAL, Crash, Killed
from mlld_sdk.actors.core.scheduler import blocking
from mlld_sdk.actors.core.system import ActorSystem, default_system
from mlld_sdk.base.env import Env
from tests.support.actors import Clock, Gate, Notices, Puppet, Sink, boom, notices_of, seen_by
from tests.support.eventually import eventually

# -- T-1: kill means fenced


def test_a_kill_is_prompt_and_complete_even_if_the_actor_is_stuck(system: ActorSystem, sink: Sink) -> None:  # T-1
    watcher, stuck, gate = system.start(Notices), system.start(Puppet, name="stuck"), Gate()
    watcher.ask(lambda me: me.monitor(stuck))
    current = stuck.request(gate)
    waiting = stuck.request("never")
    assert gate.entered.wait(60)
    assert stuck.kill("test")
    assert (stuck.is_alive(), stuck.reason, system.whereis("stuck")) == (False, Killed("test"), None)
    for future in (current, waiting):
        with pytest.raises(ActorDead):
            future.get(timeout=0)
    assert notices_of(watcher, 1)[0].reason == Killed("test")
    with pytest.raises(ActorDead):
        stuck.tell("x")
    assert [zombie.actor for zombie in system.zombies.list()] == ["stuck"]
    (zombie,) = system.zombies.list()
    assert "assert self.open.wait(60)" in zombie.stack
    assert (system.zombies.count("stuck"), system.zombies.count("other")) == (1, 0)
    assert stuck.info().zombie
    gate.open.set()
    eventually(lambda: len(system.zombies) == 0)
    assert [len(sink.of(ZombieLeft)), len(sink.of(ZombieEnded))] == [1, 1]
    assert system.counters.late_replies == 1  # what the handler returned in the end


def test_what_a_killed_actor_still_does_has_no_effect_and_unwinds_it(system: ActorSystem) -> None:  # T-1
    other, gate = system.start(Puppet), Gate()
    attempts: list[Any] = []

    def stubborn(me: Any) -> None:
        gate(me)
        for attempt in (
            lambda: other.tell("ghost"),
            lambda: other.cast("ghost"),
            lambda: other.ask("ghost"),
            lambda: other.request("ghost"),
            lambda: me.start_link(Puppet, name="ghost"),
            lambda: me.system.start(Puppet, name="ghost"),
            lambda: me.send_after(0, "ghost", to=other),
            lambda: me.own(socket.socket()),
            lambda: other.exit("ghost"),
            lambda: other.stop(block=False),
            lambda: me.monitor(other),
            lambda: other.info() and other.get_state(),
        ):
            try:
                attempt()
                attempts.append("worked")
            except ActorKilled:
                attempts.append("fenced")

    ref = system.start(Puppet)
    ref.tell(stubborn)
    assert gate.entered.wait(60)
    ref.kill()
    gate.open.set()
    eventually(lambda: len(system.zombies) == 0)
    assert attempts == ["fenced"] * 12
    assert seen_by(other) == []
    assert system.whereis("ghost") is None


def test_a_kill_wakes_an_actor_that_waits_for_another(system: ActorSystem) -> None:  # T-1
    slow, gate = system.start(Puppet), Gate()
    after: list[str] = []

    def wait_for_it(me: Any) -> None:
        try:
            slow.ask(gate)
        finally:
            after.append("unwound")

    waiter = system.start(Puppet)
    waiter.tell(wait_for_it)
    assert gate.entered.wait(60)
    eventually(lambda: waiter.info().waiting_for == slow.path)
    waiter.kill()
    eventually(lambda: len(system.zombies) == 0)
    assert after == ["unwound"]
    gate.open.set()


def test_a_kill_closes_what_the_actor_owned_and_that_frees_it(system: ActorSystem, sink: Sink) -> None:  # T-1
    ours, theirs = socket.socketpair()
    began = threading.Event()

    class Broken:
        def close(self) -> None:
            raise OSError("cannot")

    def read(me: Any) -> None:
        me.own(Broken())
        me.own(ours, lambda: ours.shutdown(socket.SHUT_RDWR))
        began.set()
        ours.recv(1)

    ref = system.start(Puppet)
    ref.tell(read)
    assert began.wait(60)
    ref.kill()
    eventually(lambda: len(system.zombies) == 0)
    eventually(lambda: [event.error for event in sink.of(ResourceCloseFailed)] == ["OSError: cannot"])
    ours.close()
    theirs.close()


def test_owned_things_are_closed_at_every_end_in_reverse_unless_disowned(system: ActorSystem) -> None:  # T-1
    closed: list[str] = []

    class Thing:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    def own(me: Any) -> None:
        things = [me.own(Thing(name)) for name in "abc"]
        assert me.disown(things[1])
        assert not me.disown(things[1])

    for end in (lambda ref: ref.stop(), lambda ref: ref.tell(boom), lambda ref: ref.kill()):
        closed.clear()
        ref = system.start(Puppet)
        ref.ask(own)
        end(ref)
        eventually(lambda: closed == ["c", "a"])
    with pytest.raises(Exception, match="no kill, close or stop"):
        system.start(Puppet).ask(lambda me: me.own(object()))


def test_a_killed_actor_gets_its_worker_replaced(system: ActorSystem) -> None:  # T-1
    gates = [Gate() for _ in range(3)]
    for gate in gates:
        ref = system.start(Puppet)
        ref.tell(gate)
        assert gate.entered.wait(60)
        ref.kill()
        assert system.start(Puppet).ask("works", timeout=10) == "works"
    assert len(system.zombies) == 3
    for gate in gates:
        gate.open.set()
    eventually(lambda: len(system.zombies) == 0)
    eventually(lambda: system.scheduler.size == 1, within=20)


def test_an_actor_that_kills_itself_stops_right_there(system: ActorSystem) -> None:  # T-1
    after: list[str] = []
    ref = system.start(Puppet)
    ref.tell(lambda me: (me.actor_ref.kill(), after.append("went on")))
    assert ref.join(60) == KILLED
    system.start(Puppet).ask("another turn")
    assert after == []
    assert len(system.zombies) == 0


def test_an_actor_killed_while_it_runs_another_in_its_own_thread_is_fenced_too(system: ActorSystem) -> None:  # T-1
    class Inline(Puppet):
        caller_runs = True

    other, inline, outer = system.start(Puppet), system.start(Inline), system.start(Puppet)
    outer.tell(lambda me: (inline.call(lambda _: outer.kill()), other.tell("ghost")))
    assert outer.join(60) == KILLED
    system.start(Puppet).ask("another turn")
    assert seen_by(other) == []
    assert inline.call("alive") == "alive"
    assert len(system.zombies) == 0


def test_an_actor_cannot_stop_the_system_it_lives_in(system: ActorSystem) -> None:  # T-11
    class Suicidal(Puppet):
        answers = (CallingSelf,)

    ref = system.start(Suicidal)
    with pytest.raises(CallingSelf):
        ref.call(lambda me: me.system.stop())
    assert ref.call("alive") == "alive"


# -- T-3: stop reaches a busy actor


def test_a_stop_wakes_an_actor_from_its_sleep(system: ActorSystem) -> None:  # T-3
    slept: list[bool] = []
    began = threading.Event()

    def sleep(me: Any) -> None:
        began.set()
        slept.append(me.sleep(60))
        slept.append(me.sleep(60))

    ref = system.start(Puppet)
    ref.tell(sleep)
    assert began.wait(60)
    assert ref.stop(timeout=10)
    assert slept == [False, False]
    assert system.start(Puppet).ask(lambda me: me.sleep(0.001)) is True


def test_only_a_request_to_end_wakes_a_sleeper(system: ActorSystem) -> None:  # T-3
    began = threading.Event()
    ref = system.start(Puppet, (True,))
    slept = ref.request(lambda me: (began.set(), me.sleep(0.05), me.stopping))
    assert began.wait(60)
    ref.tell("a message")
    ref.exit("trapped")
    assert ref.get_state()["trap_exit"] is True
    assert slept.get(timeout=10) == (None, True, False)


def test_a_long_computation_can_see_that_it_is_to_stop(system: ActorSystem) -> None:  # T-3
    began = threading.Event()

    def compute(me: Any) -> None:
        while not me.stopping:
            began.set()

    ref = system.start(Puppet)
    ref.tell(compute)
    assert began.wait(60)
    assert ref.stop(timeout=10)


# -- T-4: no asynchronous exceptions


def test_a_kill_throws_nothing_into_code_that_does_not_use_the_library(system: ActorSystem) -> None:  # T-4
    gate = Gate()
    finished: list[str] = []

    def careful(me: Any) -> None:
        gate(me)
        finished.append("bookkeeping done")

    ref = system.start(Puppet)
    ref.tell(careful)
    assert gate.entered.wait(60)
    ref.kill()
    gate.open.set()
    eventually(lambda: finished == ["bookkeeping done"])


# -- T-5: BaseException


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), MemoryError(), BaseException()])
def test_a_base_exception_is_a_crash_of_that_actor_alone(system: ActorSystem, error: BaseException) -> None:  # T-5
    def fail(_: Any) -> None:
        raise error

    bystander, victim = system.start(Puppet), system.start(Puppet)
    with pytest.raises(type(error)):
        victim.ask(fail, timeout=10)
    assert isinstance(victim.join(10), Crash)
    assert bystander.ask("alive") == "alive"
    told = system.start(Puppet)
    told.tell(fail)
    assert isinstance(told.join(10), Crash)
    assert bystander.ask("alive") == "alive"


# -- T-6: no orphans


def test_killing_supervisors_at_random_points_leaves_no_orphan(system: ActorSystem) -> None:  # T-6
    chance = random.Random(7)
    for _ in range(20):
        root = system.start(Puppet, (True,))
        stop = threading.Event()

        def grow(root: Any = root, stop: threading.Event = stop) -> None:
            refs = [root]
            while not stop.is_set():
                try:
                    refs.append(chance.choice(refs).ask(lambda me: me.start_link(Puppet, True), timeout=5))
                except (ActorDead, StartFailed, AskTimeout):
                    return

        growing = threading.Thread(target=grow)
        growing.start()
        eventually(lambda: len(system) > chance.randrange(2, 12))
        root.kill()
        stop.set()
        growing.join()
        eventually(lambda: len(system) == 0)


# -- T-8, T-9: the end is always made known


def test_the_stop_hook_runs_exactly_once(system: ActorSystem) -> None:  # T-8
    for _ in range(50):
        runs: list[Any] = []

        class Once(Puppet):
            def on_terminate(self, reason: Any, runs: list[Any] = runs) -> None:
                runs.append(reason)

        ref = system.start(Once)
        ends = [threading.Thread(target=end) for end in (ref.stop, lambda: ref.exit("x"), lambda: ref.cast(boom))]  # noqa: B023
        for thread in ends:
            thread.start()
        for thread in ends:
            thread.join()
        ref.join(60)
        assert len(runs) == 1


def test_a_fault_of_the_runtime_itself_is_a_crash_and_not_silence(system: ActorSystem) -> None:  # T-9
    class Hostile(Puppet):
        @property
        def on_idle(self) -> Any:  # type: ignore[override]
            raise SystemExit(1)

    ref = system.start(Hostile)
    ref.cell.runner.pending = object()  # type: ignore[assignment]
    ref.tell("x")
    assert isinstance(ref.join(10), Crash)
    assert system.start(Puppet).ask("alive") == "alive"


# -- T-10: nothing is lost


def test_every_message_that_slips_in_at_the_end_is_answered(system: ActorSystem) -> None:  # T-10
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(100):
            ref = system.start(Puppet)
            futures: list[Any] = []
            asking = threading.Thread(
                target=lambda ref=ref, futures=futures: futures.extend(ref.ask("x", block=False) for _ in range(100))
            )
            asking.start()
            ref.kill() if number % 2 else ref.stop()
            asking.join()
            for future in futures:
                try:
                    assert future.get(timeout=10) == "x"
                except ActorDead:
                    continue
    finally:
        sys.setswitchinterval(before)


# -- T-11: deadlocks


def test_a_ring_of_asks_is_found_by_who_closes_it(system: ActorSystem) -> None:  # T-11
    class Asker(Puppet):
        answers = (DeadlockDetected,)

    one, two, three = (system.start(Asker, name=name) for name in ("one", "two", "three"))
    with pytest.raises(DeadlockDetected) as caught:
        one.ask(lambda me: two.ask(lambda me: three.ask(lambda me: one.ask("x"))), timeout=10)
    assert caught.value.ring == ["three", "one", "two"]
    assert [ref.ask("alive") for ref in (one, two, three)] == ["alive"] * 3
    assert seen_by(one) == ["alive"]  # the message that would have closed the ring was taken back


def test_a_child_that_asks_its_starting_parent_fails_its_start(system: ActorSystem) -> None:  # T-11
    class Naughty(Puppet):
        def on_start(self) -> None:
            assert self.parent is not None
            self.parent.call("hello")

    parent = system.start(Puppet)

    def try_it(me: Any) -> Any:
        try:
            me.start_link(Naughty)
        except StartFailed as failed:
            return failed.__cause__

    assert isinstance(parent.ask(try_it, timeout=10), DeadlockDetected)


def test_a_stop_that_would_wait_in_a_ring_is_found(system: ActorSystem) -> None:  # T-11
    class Asker(Puppet):
        answers = (DeadlockDetected,)

    one, two = system.start(Asker), system.start(Asker)
    with pytest.raises(DeadlockDetected):
        one.ask(lambda me: two.ask(lambda me: one.stop()), timeout=10)


def test_an_answer_that_may_come_from_elsewhere_is_no_ring(system: ActorSystem) -> None:  # T-11
    rights: list[Any] = []
    one, two = system.start(Puppet), system.start(Puppet)

    def later(me: Any) -> Any:
        rights.append(me.reply_to())
        return NO_REPLY

    first = one.request(lambda me: two.ask(later))
    eventually(lambda: rights)
    second = two.request(lambda me: one.ask("x"))
    rights[0].reply("from outside")
    assert first.get(timeout=10) == "from outside"
    assert second.get(timeout=10) == "x"


def test_a_deep_chain_of_asks_does_not_starve_the_pool(system: ActorSystem) -> None:  # T-11
    class Link(Puppet):
        def on_receive(self, message: Any) -> Any:
            return 0 if not message else 1 + message[0].ask(message[1:], timeout=20)

    links = [system.start(Link) for _ in range(60)]
    assert links[0].ask(links[1:], timeout=20) == 59
    eventually(lambda: system.scheduler.size <= 61)


# -- T-12, T-13, T-14: blocking, busy and many


def test_stopping_a_slow_actor_blocks_nobody(system: ActorSystem) -> None:  # T-12
    parent, gate = system.start(Puppet, (True,)), Gate()
    child = parent.ask(lambda me: me.start_link(Puppet))
    child.tell(gate)
    assert gate.entered.wait(60)
    done = parent.ask(lambda me: child.shutdown(30))
    assert parent.ask("responsive") == "responsive"
    gate.open.set()
    assert str(done.get(timeout=10)) == "shutdown"


def test_a_starved_actor_is_not_taken_for_a_stuck_one(system: ActorSystem) -> None:  # T-13
    clock = Clock()
    with ActorSystem("slow", env=Env(now=clock)) as slow:
        gate = Gate()
        slow.start(Puppet).tell(gate)
        assert gate.entered.wait(60)
        done = slow.start(Puppet).shutdown(1.0)
        clock.time += 1.0  # the deadline passes before the actor got any processor time
        slow.timers.wake()
        gate.open.set()
        assert str(done.get(timeout=10)) == "shutdown"


def test_fifty_actors_that_sleep_unannounced_do_not_stop_the_others(system: ActorSystem) -> None:  # T-14
    gate = Gate()
    for _ in range(50):
        system.start(Puppet).tell(gate)
    assert system.start(Puppet).ask("quick", timeout=10) == "quick"
    gate.open.set()


def test_blocking_code_can_say_so(system: ActorSystem) -> None:  # T-14
    gate = Gate()

    def politely(me: Any) -> None:
        with blocking():
            gate(me)

    system.start(Puppet).tell(politely)
    assert gate.entered.wait(60)
    assert system.start(Puppet).ask("quick", timeout=10) == "quick"
    gate.open.set()
    with blocking():
        pass


def test_the_pool_shrinks_when_the_work_is_done(system: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> None:  # T-14
    monkeypatch.setattr(scheduler_module, "KEEPALIVE", 0.05)
    gate = Gate()
    for _ in range(10):
        system.start(Puppet).tell(gate)
    eventually(lambda: system.scheduler.size > 1)
    gate.open.set()
    eventually(lambda: system.scheduler.size == 1)
    assert system.start(Puppet).ask("still works") == "still works"


def test_a_thread_of_ones_own_is_used_for_every_message_and_ends_with_the_actor(system: ActorSystem) -> None:  # T-14
    class Own(Puppet):
        threaded = True

        def on_start(self) -> None:
            self.seen.append(threading.get_ident())

    ref = system.start(Own, name="own")
    idents = {ref.ask(lambda me: threading.get_ident()) for _ in range(5)} | set(seen_by(ref))
    assert len(idents) == 1
    assert any(thread.name == "test-own" for thread in threading.enumerate())
    ref.stop()
    eventually(lambda: not any(thread.name == "test-own" for thread in threading.enumerate()))


def test_no_more_threads_is_a_failed_start(system: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> None:  # T-14
    class Own(Puppet):
        threaded = True

    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(StartFailed, match="no thread"):
        system.start(Own, name="own")
    monkeypatch.undo()
    assert system.start(Own, name="own").ask("x") == "x"


def test_a_machine_without_threads_fails_what_needs_one_and_nothing_else(
    system: ActorSystem, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:  # T-14
    class Async(Actor):
        async def on_receive(self, message: Any) -> Any:
            return message

    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    ref, asynchronous = system.start(Puppet), system.start(Async)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        asynchronous.ask("x", timeout=10)
    ref.ask(lambda me: me.send_after(0, "late"))
    assert [type(event) for event in sink.of(ActorCallbackFailed)] == [ActorCallbackFailed]
    gate = Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    system.start(Puppet).tell("waits for the only worker")
    gate.open.set()
    assert ref.ask("alive", timeout=10) == "alive"
    monkeypatch.undo()
    assert system.start(Async).ask("x", timeout=10) == "x"
    system.send_after(0, ref, "now")
    eventually(lambda: seen_by(ref) == ["alive", "late", "now"])


# -- T-15: registries


def test_a_system_of_ones_own_is_not_in_pykkas_registry(system: ActorSystem) -> None:  # T-15
    ref = system.start(Puppet)
    assert ref not in pykka.ActorRegistry.get_all()
    pykka.ActorRegistry.stop_all()
    assert ref.is_alive()
    inside = ref.ask(lambda me: Puppet.start())
    assert inside.system is system


def test_the_default_system_is_in_pykkas_registry_and_stays_usable() -> None:  # T-15
    class Greeter(PykkaActor):
        def greet(self, name: str) -> str:
            return f"hello {name}"

    ref = Greeter.start()
    assert ref.system is default_system()
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is ref
    assert pykka.ActorRegistry.get_by_class(Greeter) == [ref]
    assert ref.proxy().greet("you").get(timeout=10) == "hello you"
    pykka.ActorRegistry.stop_all()
    assert pykka.ActorRegistry.get_all() == []
    assert not ref.is_alive()


# -- T-18, T-20: time


def test_a_thousand_timers_need_one_thread(system: ActorSystem) -> None:  # T-18
    ref = system.start(Puppet)
    timers = [ref.ask(lambda me: me.send_after(60, "x"))] + [system.send_after(60, ref, "x") for _ in range(999)]
    assert sum(thread.name.startswith("test-timer") for thread in threading.enumerate()) == 1
    assert len(system.timers) == 1_000
    assert all(timer.cancel() is not None for timer in timers)
    assert len(system.timers) == 0


def test_time_is_what_the_env_says(sink: Sink) -> None:  # T-20
    clock = Clock()
    with ActorSystem("clock", env=Env(now=clock, wall=lambda: 5.0), sink=sink) as system:
        ref = system.start(Puppet)
        system.send_after(3_600, ref, "an hour later")
        clock.time += 3_599
        system.timers.wake()
        assert seen_by(ref) == []
        clock.time += 1
        system.timers.wake()
        eventually(lambda: seen_by(ref) == ["an hour later"])
        assert ref.info().up == 3_600
    assert {event.at for event in sink.events} == {5.0}


# -- T-19: messages are shared


def test_messages_are_not_copied(system: ActorSystem) -> None:  # T-19 (documented)
    message: list[int] = []
    system.start(Puppet).ask(lambda me: message.append(1))
    assert message == [1]


# -- T-21: reports never hurt


def test_a_report_survives_a_class_that_cannot_describe_itself(system: ActorSystem, sink: Sink) -> None:  # T-21
    class Mute(Puppet):
        def describe_message(self, message: Any) -> str:
            raise RuntimeError

        def format_state(self) -> str:
            raise RuntimeError

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail(_: Any) -> None:
        raise Unprintable

    ref = system.start(Mute)
    with pytest.raises(Unprintable):
        ref.ask(fail)
    (report,) = sink.of(ActorExited)
    assert report.last_message == "<describe_message raised RuntimeError>"
    assert report.state == "<format_state raised RuntimeError>"
    assert "has no text: RuntimeError" in report.reason


def test_what_an_actor_comes_to_own_at_the_moment_of_its_kill_is_closed(system: ActorSystem) -> None:  # T-1
    passed, at = 0, 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal passed
        if frame.f_code is Actor.own.__code__ and event == "line":
            passed += 1
            if passed == at:
                killer.start()
                killer.join(0.1)  # it cannot end before a lock is given back
        return trace

    def own(me: Any) -> None:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            me.own(closed, closed.set)
        finally:
            sys.settrace(before)

    while passed >= at:  # at each line in turn, until there are no more
        closed, ref, passed, at = threading.Event(), system.start(Puppet), 0, at + 1
        ref.ask(lambda me: me.own(threading.Event(), print))  # so that there is a list already
        killer = threading.Thread(target=ref.kill)
        future = ref.request(own)
        eventually(lambda future=future: future.done)
        assert passed < at or closed.wait(10), at
    assert at > 6


def test_a_close_that_fails_without_words_costs_no_worker(system: ActorSystem, sink: Sink) -> None:  # T-1, T-21
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Broken:
        def close(self) -> None:
            raise Unprintable

    workers = set(system.scheduler._threads)
    closed = threading.Event()
    ref = system.start(Puppet)
    ref.ask(lambda me: me.own(closed, closed.set))
    ref.ask(lambda me: me.own(Broken()))
    ref.kill()
    assert closed.wait(10)
    (failed,) = sink.of(ResourceCloseFailed)
    assert failed.error == "Unprintable: <Unprintable has no text: RuntimeError>"
    assert workers <= set(system.scheduler._threads)


def test_a_report_survives_a_class_that_cannot_count_itself(system: ActorSystem, sink: Sink) -> None:  # T-21
    class Countless(Puppet):
        def __len__(self) -> int:
            return self.never_set  # type: ignore[attr-defined,no-any-return]

    ref = system.start(Countless)
    assert ref.ask(lambda me: ref.info().current) == "function"
    with pytest.raises(ValueError, match="boom"):
        ref.ask(boom)
    (report,) = sink.of(ActorExited)
    assert (report.last_message, report.state) == ("function", "trap_exit, seen, ended")


def test_an_actor_in_a_log_line_shows_neither_what_it_holds_nor_whom_it_knows(system: ActorSystem) -> None:  # T-21
    known = [system.start(Puppet) for _ in range(4)]
    for one in known:
        one.ask(lambda me: [me.link(other) for other in known if other is not me.actor_ref] and None)
    cell = known[0].cell
    assert all(len(repr(part)) < 200 for part in (cell, cell.runner))


def test_a_crash_keeps_no_frame_alive(system: ActorSystem) -> None:  # T-21
    class Big:
        pass

    held: list[Any] = []

    def fail(_: Any) -> None:
        big = Big()
        held.append(weakref.ref(big))
        raise ValueError(big)

    ref = system.start(Puppet)
    ref.tell(fail)
    reason = ref.join(10)
    system.start(Puppet).ask("another turn of the worker")
    gc.collect()
    assert held[0]() is None
    assert isinstance(reason, Crash)
    assert len(reason.trace) < 9_000


def test_a_callback_that_raises_is_reported_and_felt_by_nobody(system: ActorSystem, sink: Sink) -> None:  # T-21
    ref = system.start(Puppet)
    ref.monitor(boom)
    ref.request("x").on_done(boom)
    ref.ask("y")
    ref.stop()
    assert len(sink.of(ActorCallbackFailed)) == 2
    assert ref.reason == NORMAL


def test_a_sink_that_raises_is_counted_and_felt_by_nobody() -> None:  # T-21
    def broken(_: Any) -> None:
        raise RuntimeError

    with ActorSystem("deaf", sink=broken) as system:
        parent = system.start(Puppet, (True,))
        child = parent.ask(lambda me: me.start_link(Puppet))
        parent.kill()
        assert child.join(60) == Killed()
        assert system.counters.sink_failures >= 4


# -- T-22: context


def test_context_variables_stay_with_their_actor(system: ActorSystem) -> None:  # T-22
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    one, other = system.start(Puppet), system.start(Puppet)
    one.ask(lambda me: variable.set("one"))
    assert one.ask(lambda me: variable.get()) == "one"
    assert other.ask(lambda me: variable.get()) == "unset"
    assert variable.get() == "unset"


# -- T-24: asyncio


def test_a_blocking_wait_on_the_loops_thread_is_refused(system: ActorSystem) -> None:  # T-24
    class Async(Actor):
        async def on_receive(self, message: Any) -> Any:
            return message.ask("x")

    with pytest.raises(Exception, match="event loop"):
        system.start(Async).ask(system.start(Puppet), timeout=10)


def test_a_kill_cancels_a_coroutine(system: ActorSystem) -> None:  # T-24
    ended: list[str] = []
    began = threading.Event()

    class Async(Actor):
        async def on_receive(self, message: Any) -> Any:
            began.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    ref = system.start(Async)
    future = ref.request("x")
    assert began.wait(60)
    ref.kill()
    with pytest.raises(ActorDead):
        future.get(timeout=10)
    eventually(lambda: ended == ["cancelled"])


def test_a_full_mailbox_of_a_dead_actor_lets_nobody_wait(system: ActorSystem) -> None:  # T-10
    class Narrow(Puppet):
        mailbox_limit = 1
        overflow = "block"
        overflow_timeout = 20.0

    ref, gate = system.start(Narrow), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    ref.tell("fills it")
    outcome: list[Any] = []

    def send() -> None:
        try:
            ref.tell("blocked")
        except (ActorDead, MailboxFull) as refused:
            outcome.append(type(refused))

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(0.01)
    ref.kill()
    sender.join(60)
    assert outcome == [ActorDead]
    gate.open.set()


def test_a_stop_takes_no_longer_than_it_was_given_when_a_thread_does_not_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # T-16
    system, gate, given = ActorSystem("zombie"), Gate(), []
    monkeypatch.setattr(system_module, "FAREWELL", 0.5)
    ref = system.start(Puppet)
    ref.tell(gate)
    assert gate.entered.wait(60)
    ref.kill()
    wait = system._await
    monkeypatch.setattr(system, "_await", lambda happens, within: given.append(within) or wait(happens, within))
    try:
        report = system.stop(0.5)
    finally:
        gate.open.set()
    assert report.zombies
    assert given[0] <= 0.5
    assert given[1] == system_module.LEAST_GRACE  # the wait before has used up the rest


def test_a_stop_that_is_to_hurry_waits_no_longer_for_what_does_not_come_back() -> None:  # T-16
    system, gate = ActorSystem("zombie"), Gate()
    ref = system.start(Puppet)
    ref.tell(gate)
    assert gate.entered.wait(60)
    ref.kill()
    reports: list[Any] = []
    stopper = threading.Thread(target=lambda: reports.append(system.stop(3_600)))
    stopper.start()
    eventually(system.has_stopped)
    system.hurry()
    stopper.join(60)
    gate.open.set()
    assert [zombie.actor for zombie in reports[0].zombies] == [ref.path]
