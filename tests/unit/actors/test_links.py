"""Exit signals, links and monitors: clauses LNK-1 to LNK-9 of docs/semantics-actors.md."""

import threading
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import ActorDead, StartFailed
from mlld_sdk.actors.core.exits import KILLED, NOPROC, NORMAL, SHUTDOWN, Crash, Killed, Other, Shutdown
from mlld_sdk.actors.core.links import DEADLY, DELIVERED, IGNORED, effect_of
from mlld_sdk.actors.core.ref import Down, Exit
from mlld_sdk.actors.core.system import ActorSystem
from tests.support.actors import Gate, Notices, Puppet, Sink, boom, notices_of, seen_by


def test_linking_twice_is_linking_once_and_works_in_both_directions(system: ActorSystem) -> None:  # LNK-1
    one, other = system.start(Notices), system.start(Notices)
    one.ask(lambda me: [me.link(other), me.link(other)])
    assert (one.info().links, other.info().links) == (1, 1)
    other.stop()
    assert [type(notice) for notice in notices_of(one, 1)] == [Exit]
    one.ask(lambda me: None)
    assert len(one.cell.actor.notices) == 1


def test_unlinking_removes_the_link_for_both(system: ActorSystem) -> None:  # LNK-1
    one, other = system.start(Puppet), system.start(Puppet)
    assert one.ask(lambda me: (me.link(other), me.unlink(other), me.unlink(other))[1:]) == (True, False)
    with pytest.raises(ValueError, match="boom"):
        other.ask(boom)
    assert one.ask("still here") == "still here"


def test_each_monitor_gives_exactly_one_notice_of_its_own(system: ActorSystem) -> None:  # LNK-1, LNK-2
    watcher, target = system.start(Notices), system.start(Puppet)
    handles = watcher.ask(lambda me: [me.monitor(target) for _ in range(3)])
    target.stop(reason="done")
    downs = notices_of(watcher, 3)
    assert [down.monitor for down in downs] == handles
    assert {down.ref for down in downs} == {target}
    assert {down.reason for down in downs} == {Other("done")}
    assert target.info().monitors == 0


def test_the_end_reaches_every_link_and_every_monitor(system: ActorSystem) -> None:  # LNK-2
    target = system.start(Puppet)
    linked = [system.start(Notices) for _ in range(3)]
    watching = [system.start(Notices) for _ in range(3)]
    for ref in linked:
        ref.ask(lambda me: me.link(target))
    for ref in watching:
        ref.ask(lambda me: me.monitor(target))
    with pytest.raises(ValueError, match="boom"):
        target.ask(boom)
    for ref in linked:
        (exit_,) = notices_of(ref, 1)
        assert isinstance(exit_, Exit)
        assert isinstance(exit_.reason, Crash)
    for ref in watching:
        (down,) = notices_of(ref, 1)
        assert isinstance(down, Down)
        assert down.reason == target.reason


@pytest.mark.parametrize(
    ("reason", "traps", "from_parent", "effect"),
    [
        (NORMAL, False, False, IGNORED),
        (SHUTDOWN, False, False, DEADLY),
        (Shutdown("detail"), False, False, DEADLY),
        (Other("x"), False, False, DEADLY),
        (KILLED, False, False, DEADLY),
        (NORMAL, True, False, DELIVERED),
        (SHUTDOWN, True, False, DELIVERED),
        (KILLED, True, False, DELIVERED),
        (NORMAL, False, True, DEADLY),
        (NORMAL, True, True, DEADLY),
        (SHUTDOWN, True, True, DEADLY),
    ],
)
def test_what_an_exit_signal_does(reason: Any, traps: bool, from_parent: bool, effect: int) -> None:  # LNK-3, LNK-9
    assert effect_of(reason, traps=traps, from_parent=from_parent) == effect


def test_a_normal_end_of_a_link_is_ignored_by_who_does_not_trap(system: ActorSystem) -> None:  # LNK-3
    one, other = system.start(Puppet), system.start(Puppet)
    one.ask(lambda me: me.link(other))
    other.stop()
    assert one.ask("alive") == "alive"


def test_an_abnormal_end_of_a_link_ends_who_does_not_trap_with_the_same_reason(system: ActorSystem) -> None:  # LNK-3
    one, other = system.start(Puppet), system.start(Puppet)
    one.ask(lambda me: me.link(other))
    other.stop(reason=Other("bad"))
    assert one.join(60) == Other("bad")


def test_who_traps_gets_every_reason_as_a_message_even_normal(system: ActorSystem) -> None:  # LNK-3
    trapper = system.start(Notices)
    for reason in (NORMAL, SHUTDOWN, Other("bad")):
        other = system.start(Puppet)
        trapper.ask(lambda me, other=other: me.link(other))
        other.stop(reason=reason)
        assert notices_of(trapper, 1)[-1] == Exit(other, reason)


def test_a_kill_cannot_be_trapped_and_links_see_a_trappable_killed(system: ActorSystem) -> None:  # LNK-4
    victim, trapper = system.start(Notices), system.start(Notices)
    trapper.ask(lambda me: me.link(victim))
    assert victim.kill()
    assert victim.reason == Killed()
    assert notices_of(trapper, 1) == [Exit(victim, Killed())]
    assert not victim.kill()


def test_an_exit_signal_normal_to_another_is_ignored_unless_trapped(system: ActorSystem) -> None:  # LNK-4
    plain, trapper = system.start(Puppet), system.start(Notices)
    plain.exit("normal")
    trapper.exit("normal")
    assert plain.ask("alive") == "alive"
    assert notices_of(trapper, 1) == [Exit(None, NORMAL)]


def test_an_exit_signal_with_any_other_reason_ends_who_does_not_trap(system: ActorSystem) -> None:  # LNK-4
    plain = system.start(Puppet)
    plain.exit("bored")
    assert plain.join(60) == Other("bored")


def test_an_exit_signal_names_its_sender(system: ActorSystem) -> None:  # LNK-4
    trapper, sender = system.start(Notices), system.start(Puppet)
    sender.ask(lambda me: trapper.exit("psst"))
    assert notices_of(trapper, 1) == [Exit(sender, Other("psst"))]


def test_monitoring_the_dead_gives_noproc_at_once(system: ActorSystem) -> None:  # LNK-5
    watcher, target = system.start(Notices), system.start(Puppet)
    target.stop()
    handle = watcher.ask(lambda me: me.monitor(target))
    assert notices_of(watcher, 1) == [Down(handle, target, NOPROC)]
    watcher.ask(lambda me: me.monitor("nobody of that name"))
    assert notices_of(watcher, 1)[-1].reason == NOPROC


def test_linking_to_the_dead_is_an_exit_signal_noproc(system: ActorSystem) -> None:  # LNK-5
    trapper, plain, dead = system.start(Notices), system.start(Puppet), system.start(Puppet)
    dead.stop()
    trapper.ask(lambda me: me.link(dead))
    assert notices_of(trapper, 1) == [Exit(dead, NOPROC)]
    plain.ask(lambda me: me.link(dead))
    assert plain.join(60) == NOPROC


def test_a_cancelled_monitor_is_never_heard_of_even_if_its_notice_waits(system: ActorSystem) -> None:  # LNK-6
    watcher, target = system.start(Notices), system.start(Puppet)
    gate = Gate()
    handle = watcher.ask(lambda me: me.monitor(target))
    watcher.tell(gate)
    assert gate.entered.wait(60)
    target.stop()
    assert watcher.info().queued == 1  # the notice is in the mailbox already
    handle.cancel()
    gate.open.set()
    assert watcher.ask("done") == "done"
    assert watcher.cell.actor.notices == []


def test_cancelling_a_monitor_in_time_removes_it_from_the_watched(system: ActorSystem) -> None:  # LNK-6
    watcher, target = system.start(Notices), system.start(Puppet)
    handle = watcher.ask(lambda me: me.monitor(target))
    assert target.info().monitors == 1
    assert handle.cancel()
    assert not handle.cancel()
    assert target.info().monitors == 0


def test_everything_sent_before_dying_arrives_before_the_notice(system: ActorSystem) -> None:  # LNK-7
    class Keeper(Puppet):
        def on_receive(self, message: Any) -> Any:
            if isinstance(message, Down | Exit):
                self.seen.append("end")
                return None
            return super().on_receive(message)

    keeper = system.start(Keeper, (True,))
    for _ in range(50):
        teller = system.start(Puppet)
        keeper.ask(lambda me, teller=teller: (me.monitor(teller), me.link(teller), me.seen.clear()))

        def last_words(me: Any) -> None:
            for number in range(20):
                keeper.tell(number)
            me.stop()

        teller.tell(last_words)
        teller.join(60)
        assert seen_by(keeper) == [*range(20), "end", "end"]


def test_an_urgent_class_hears_of_the_end_before_its_waiting_messages(system: ActorSystem) -> None:  # LNK-7 (deviation)
    class Urgent(Notices):
        urgent_exits = True

        def on_receive(self, message: Any) -> Any:
            self.seen.append(type(message).__name__)
            return super().on_receive(message) if callable(message) or isinstance(message, Exit) else None

    urgent, child = system.start(Urgent), system.start(Puppet)
    urgent.ask(lambda me: me.link(child))
    gate = Gate()
    urgent.tell(gate)
    assert gate.entered.wait(60)
    urgent.tell("waiting")
    child.stop()
    gate.open.set()
    seen = seen_by(urgent)
    assert seen.index("Exit") < seen.index("str")


def test_a_child_that_dies_at_once_is_never_unnoticed(system: ActorSystem) -> None:  # LNK-8
    class Dies(Actor):
        def on_start(self) -> None:
            self.stop("at once")

    parent = system.start(Notices)
    for _ in range(100):
        child = parent.ask(lambda me: me.start_link(Dies), timeout=10)
        assert notices_of(parent, 1)[-1] == Exit(child, Other("at once"))


def test_a_child_of_a_dead_parent_is_not_started(system: ActorSystem) -> None:  # LNK-8
    parent = system.start(Puppet)
    parent.stop()
    with pytest.raises(StartFailed) as caught:
        system.start(Puppet, parent=parent)
    assert caught.value.reason == NOPROC
    assert len(system) == 0


@pytest.mark.parametrize("trap", [True, False])
@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Other("boom")])
def test_the_end_of_the_parent_ends_the_child_with_its_reason(
    system: ActorSystem, trap: bool, reason: Any
) -> None:  # LNK-9, T-6
    ended: list[Any] = []

    class Child(Notices):
        def on_terminate(self, reason: Any) -> None:
            ended.append(reason)

    parent = system.start(Puppet)
    child = parent.ask(lambda me: me.start_link(Child, trap))
    parent.stop(reason=reason)
    assert child.join(60) == reason
    assert ended == [reason]


def test_the_parents_explicit_exit_signal_ends_a_trapping_child(system: ActorSystem) -> None:  # LNK-9
    parent, stranger = system.start(Notices), system.start(Puppet)
    child = parent.ask(lambda me: me.start_link(Notices))
    stranger.ask(lambda me: child.exit("shutdown"))
    assert notices_of(child, 1) == [Exit(stranger, SHUTDOWN)]
    parent.ask(lambda me: child.exit("shutdown"))
    assert child.join(60) == SHUTDOWN


def test_parent_and_child_cannot_be_unlinked(system: ActorSystem) -> None:  # LNK-9
    parent = system.start(Puppet)
    child = parent.ask(lambda me: me.start_link(Puppet))
    assert not child.ask(lambda me: me.unlink(parent))
    assert not parent.ask(lambda me: me.unlink(child))
    parent.kill()
    assert child.join(60) == Killed()


def test_a_killed_parent_takes_its_whole_tree_along(system: ActorSystem, sink: Sink) -> None:  # T-6
    root = system.start(Puppet, name="root")
    middle = [root.ask(lambda me: me.start_link(Puppet)) for _ in range(3)]
    leaves = [ref.ask(lambda me: me.start_link(Puppet)) for ref in middle for _ in range(3)]
    assert leaves[0].path.startswith("root/Puppet-")
    root.kill()
    for ref in [*middle, *leaves]:
        assert ref.join(60) == Killed()
    assert len(system) == 0


def test_the_watchers_own_end_leaves_no_monitor_behind(system: ActorSystem) -> None:
    target = system.start(Puppet)
    for _ in range(20):
        watcher = system.start(Notices)
        watcher.ask(lambda me: (me.monitor(target), me.link(target)))
        watcher.stop()
    assert (target.info().monitors, target.info().links) == (0, 0)


def test_a_callback_monitor_runs_once_where_the_end_happens(system: ActorSystem) -> None:
    target = system.start(Puppet)
    seen: list[Down] = []
    told = threading.Event()
    target.monitor(lambda down: (seen.append(down), told.set()))
    target.stop()
    assert told.wait(60)
    assert [down.reason for down in seen] == [NORMAL]
    target.monitor(seen.append)
    assert seen[-1].reason == NOPROC


def test_a_linked_actor_that_dies_of_a_link_refuses_what_waits(system: ActorSystem) -> None:
    one, other = system.start(Puppet), system.start(Puppet)
    gate = Gate()
    one.ask(lambda me: me.link(other))
    one.tell(gate)
    assert gate.entered.wait(60)
    waiting = one.request("never")
    other.kill()
    gate.open.set()
    with pytest.raises(ActorDead) as caught:
        waiting.get(timeout=10)
    assert caught.value.reason == Killed()
