"""Workers, callers that run actors themselves, and what surrounds a run."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mlld_sdk.actors.core import scheduler as scheduler_module
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import ActorCrashed, DeadlockDetected, MailboxFull
from mlld_sdk.actors.core.events import WorkersExhausted
from mlld_sdk.actors.core.exits import KILLED, Killed, Normal, Other, Shutdown, as_reason, crash
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.supervision import Tree, child, one_for_one, wedge
from tests.support.actors import Gate, Puppet, Sink, boom, seen_by
from tests.support.eventually import eventually


class Inline(Puppet):
    caller_runs = True
    answers = (DeadlockDetected, MailboxFull)


def on_another_thread(test: Callable[[], object]) -> None:
    """Run a test where callers run others: not on the main thread."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(test).result(60)


def test_an_idle_actor_of_such_a_class_runs_in_its_callers_thread(system: ActorSystem) -> None:
    def test() -> None:
        ref = system.start(Inline)
        assert ref.call(lambda me: threading.get_ident()) == threading.get_ident()
        assert ref.request(lambda me: threading.get_ident()).get(timeout=10) != threading.get_ident()
        with pytest.raises(ActorCrashed):
            ref.call(boom)
        assert not ref.is_alive()

    on_another_thread(test)


def test_a_busy_one_is_waited_for_like_any_other(system: ActorSystem) -> None:
    def test() -> None:
        ref, gate = system.start(Inline), Gate()
        ref.tell(gate)
        assert gate.entered.wait(60)
        threading.Timer(0.01, gate.open.set).start()
        assert ref.call(lambda me: threading.get_ident(), timeout=10) != threading.get_ident()
        assert seen_by(ref) == []

    on_another_thread(test)


def test_callers_run_each_other_only_so_deep_and_rings_are_still_found(system: ActorSystem) -> None:
    class Link(Inline):
        def on_receive(self, message: Any) -> Any:
            return 0 if not message else 1 + message[0].ask(message[1:], timeout=20)

    links = [system.start(Link) for _ in range(30)]
    assert links[0].ask(links[1:], timeout=20) == 29
    one, two = system.start(Inline), system.start(Inline)
    with pytest.raises(DeadlockDetected):
        one.ask(lambda me: two.ask(lambda me: one.ask("x")), timeout=10)
    assert (one.ask("alive"), two.ask("alive")) == ("alive", "alive")


def test_a_limit_holds_for_them_too(system: ActorSystem) -> None:
    class Narrow(Inline):
        mailbox_limit = 1

    ref, gate = system.start(Narrow), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    ref.tell("fills it")
    with pytest.raises(MailboxFull):
        ref.ask("too much")
    gate.open.set()
    eventually(lambda: ref.info().queued == 0)
    assert ref.ask("x") == "x"


def test_a_pool_at_its_limit_says_so_and_goes_on_when_one_comes_back(sink: Sink) -> None:
    gate = Gate()
    with ActorSystem("small", max_workers=2, sink=sink) as system:
        for _ in range(4):
            system.start(Puppet).tell(gate)
        waiting = system.start(Puppet).request("x")
        eventually(lambda: sink.of(WorkersExhausted))
        gate.open.set()
        assert waiting.get(timeout=10) == "x"
        assert sink.of(WorkersExhausted)[0].limit == 2
    assert system.scheduler.peak == 2


def test_supervision_goes_on_when_every_worker_hangs(sink: Sink) -> None:
    gate = Gate()
    spec = one_for_one(
        child(Puppet, name="crashes"), child(Puppet, name="hangs", wedge=wedge(0.2)), max_restarts=10, within=60
    )
    with ActorSystem("small", max_workers=2, sink=sink) as system, Tree.start(system, spec) as tree:
        hung = tree["hangs"].ref()
        hung.tell(gate)
        hung.tell("waits")
        others = [system.start(Puppet) for _ in range(3)]
        for other in others:
            other.tell(gate)
        eventually(lambda: sink.of(WorkersExhausted))
        tree["crashes"].ref().kill()
        assert tree.wait_until(lambda root: root.children[0].restarts == 1, 20)
        assert tree.supervisor.count_children(timeout=20).active == 2
        assert tree.wait_until(lambda root: root.children[1].restarts >= 1, 20)
        assert hung.reason is not None
        gate.open.set()
        assert tree["crashes"].call("alive", timeout=20) == "alive"
        assert [other.call("alive", timeout=20) for other in others] == ["alive"] * 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("small")]


def test_workers_lost_while_they_block_leave_the_count_right(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "KEEPALIVE", 0.05)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(150):
            refs = [system.start(Puppet) for _ in range(3)]
            for ref in refs:
                ref.tell(lambda me: [me.sleep(0) for _ in range(20)])
            for ref in refs:
                ref.kill()
    finally:
        sys.setswitchinterval(before)
    eventually(lambda: len(system.zombies) == 0 and system.scheduler.size == 1)
    assert system.scheduler._blocked == 0
    assert system.start(Puppet).ask("works") == "works"


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 3, "max_workers": 2}])
def test_a_pool_that_cannot_work_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="workers"):
        ActorSystem("bad", **options)


def test_several_systems_live_side_by_side_and_names_do_not_meet() -> None:
    with ActorSystem("one") as one, ActorSystem("two") as two:
        first, second = one.start(Puppet, name="same"), two.start(Puppet, name="same")
        assert (one.whereis("same"), two.whereis("same")) == (first, second)
        assert one.id != two.id
        assert first.ask(lambda me: second.call("across")) == "across"
        assert first.ask(lambda me: me.monitor(second)).ref is second
        two.stop()
        assert [type(message).__name__ for message in seen_by(first)] == ["Down"]


def test_a_stopped_system_takes_its_threads_along() -> None:
    before = set(threading.enumerate())
    with ActorSystem("gone") as system:
        ref = system.start(Puppet)
        ref.ask(lambda me: me.send_after(60, "x"))
        system.start(type("Async", (Actor,), {"on_receive": _async_echo})).ask("x")
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    assert system.stop().clean


async def _async_echo(_: Any, message: Any) -> Any:
    return message


@pytest.mark.parametrize(
    ("value", "reason", "text", "ordinary"),
    [
        ("normal", Normal(), "normal", True),
        ("shutdown", Shutdown(), "shutdown", True),
        (Shutdown("why"), Shutdown("why"), "shutdown: why", True),
        ("killed", KILLED, "killed", False),
        (Killed("late"), Killed("late"), "killed: late", False),
        ("noproc", as_reason("noproc"), "no such actor", False),
        ("anything", Other("anything"), "anything", False),
        (17, Other(17), "17", False),
    ],
)
def test_reasons_are_values_with_a_text_and_a_family(value: Any, reason: Any, text: str, ordinary: bool) -> None:
    assert as_reason(value) == reason
    assert str(reason) == text
    assert reason.is_normal_family is ordinary


def test_a_crash_holds_the_whole_story_of_its_exception_as_text() -> None:
    try:
        try:
            boom(None)
        except ValueError as first:
            raise KeyError("second") from first
    except KeyError as error:
        error.add_note("a note")
        reason = crash(error)
    assert as_reason(KeyError("x")).is_crash
    assert reason.is_crash
    assert str(reason) == "KeyError: 'second'"
    for part in ("in boom", "ValueError: boom", "direct cause", "KeyError: 'second'", "a note"):
        assert part in reason.trace
