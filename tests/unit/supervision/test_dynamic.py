"""Supervisors whose children come and go, and partitions."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import IGNORE
from mlld_sdk.actors.core.errors import ActorDead, StartFailed
from mlld_sdk.actors.core.exits import Killed, Reason, Shutdown
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.supervision import (
    Backoff,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildStartFailed,
    GaveUp,
    InvalidOption,
    NotSupported,
    Partitions,
    SupervisorRef,
    TooManyChildren,
    Tree,
    budget,
    child,
    circuit_breaker,
    dynamic,
    one_for_one,
    partitioned,
)
from tests.support.eventually import eventually
from tests.support.trees import Later, Puppet, World, attempt, is_up


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


class Room:
    """A dynamic supervisor under a root, and its children by reference."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world = world
        self.tree = world.start(one_for_one(dynamic(name="room", **options), max_restarts=0))
        self.sup: SupervisorRef = self.tree["room"].supervisor()

    def add(self, **options: Any) -> Any:
        ref = self.sup.start_child(child(Puppet, **options))
        assert ref is not None
        return ref

    def names(self) -> list[str]:
        return [node.name for node in self.tree.snapshot().children[0].children]

    def state(self) -> Any:
        return self.tree.context.states[self.sup.ref]

    def calls(self, name: str) -> tuple[Any, ...]:
        """The calls that wait for a child."""
        slot = self.tree._slot(f"root/room/{name}")
        return () if slot is None else slot.calls

    def active(self) -> int:
        return self.sup.count_children().active

    def end(self, ref: Any, reason: Any) -> None:
        if reason == "kill":
            ref.kill()
        elif isinstance(reason, BaseException):
            ref.tell(reason)
        else:
            ref.stop(reason=reason)
        ref.join(60)
        self.world.settle()


def test_children_without_a_name_are_known_by_reference_and_share_that_of_their_class(
    world: World,
) -> None:  # SUP-62, ED12, ED13
    room = Room(world)
    one, two = room.add(), room.add()
    assert one is not two
    assert {row.child for row in room.sup.which_children()} == {one, two}
    assert {row.name for row in room.sup.which_children()} == {"puppet"}
    assert room.names() == ["puppet-0", "puppet-1"]
    assert room.tree["room/puppet-1"].call("hello") == "hello"
    assert isinstance(attempt(room.tree["room/puppet-9"].ref), ChildNotFound)
    counts = room.sup.count_children()
    assert (counts.specs, counts.active, counts.workers, counts.supervisors) == (2, 2, 2, 0)


def test_a_name_that_was_given_is_the_place_and_belongs_to_one_child_at_a_time(world: World) -> None:  # SUP-62
    room = Room(world)
    first = room.add(name="S1")
    assert first.path == "root/room/S1"
    assert room.tree["room/S1"].ref() is first
    taken = attempt(lambda: room.add(name="S1"))
    assert isinstance(taken, ChildAlreadyStarted)
    assert (taken.child, taken.ref) == ("S1", first)
    assert isinstance(attempt(lambda: room.sup.start_child(child(one_for_one(), name="S1"))), ChildAlreadyStarted)
    assert room.names() == ["S1"]
    room.sup.terminate_child(first)
    again = room.add(name="S1", restart="permanent")
    assert again.path == "root/room/S1"
    world.crash(room.tree, "room/S1")
    assert room.tree["room/S1"].ref() is not again
    assert room.names() == ["S1"]


def test_a_name_stays_taken_while_its_child_waits_for_its_restart(world: World) -> None:  # SUP-62
    room = Room(world)
    room.add(name="S1", restart="permanent", backoff=Backoff.of(10, jitter=0))
    world.crash(room.tree, "room/S1")
    assert isinstance(attempt(lambda: room.add(name="S1")), ChildRestarting)


def test_a_second_start_of_a_name_waits_for_the_first_and_hears_who_has_it(world: World) -> None:  # SUP-62
    room = Room(world)
    first = Later(lambda: room.add(name="S1", begin=world.blocks()))
    eventually(lambda: room.sup.count_children().specs == 1)
    second = Later(lambda: attempt(lambda: room.add(name="S1")))
    third = Later(lambda: attempt(lambda: room.add(name="S1", begin=world.blocks())))
    eventually(lambda: len(room.calls("S1")) == 3)
    world.release.set()
    for late in (second, third):
        refused = late.result()
        assert isinstance(refused, ChildAlreadyStarted)
        assert refused.ref is first.result()
    assert room.names() == ["S1"]


def test_a_second_start_of_a_name_is_told_when_the_first_fails(world: World) -> None:  # SUP-62
    room = Room(world)

    def fails(_: Any) -> None:
        world.release.wait(60)
        raise ValueError("bad")

    first = Later(lambda: attempt(lambda: room.add(name="S1", begin=fails)))
    eventually(lambda: room.sup.count_children().specs == 1)
    second = Later(lambda: attempt(lambda: room.add(name="S1")))
    eventually(lambda: len(room.calls("S1")) == 2)
    world.release.set()
    assert isinstance(first.result(), ChildStartFailed)
    assert isinstance(second.result(), ChildStartFailed)
    assert room.add(name="S1").path == "root/room/S1"


def test_numbers_keep_clear_of_names_that_were_given(world: World) -> None:  # SUP-62
    room = Room(world)
    room.add(name="puppet-1")
    room.add(name="puppet-2")
    assert room.add().path == "root/room/puppet-3"
    assert isinstance(attempt(lambda: room.add(name="puppet-3")), ChildAlreadyStarted)
    assert room.names() == ["puppet-1", "puppet-2", "puppet-3"]


def test_a_supervisor_that_was_given_a_name_is_found_by_it_and_one_without_gets_a_number(world: World) -> None:
    room = Room(world)
    for spec in (
        one_for_one(child(Puppet, name="T1"), name="US1"),
        child(one_for_one(child(Puppet, name="T1")), name="US2"),
        one_for_one(),
    ):
        room.sup.start_child(spec)
    assert room.names() == ["US1", "US2", "supervisor-2"]
    assert room.tree["room/US1/T1"].ref().path == "root/room/US1/T1"


def test_names_that_are_gone_are_free_and_an_old_state_finds_nothing_wrong(world: World) -> None:  # SUP-62
    room = Room(world)
    old = room.state()
    for n in range(100):
        ref = room.add(name="S1")
        assert room.state().find("S1").child is ref
        room.sup.terminate_child(ref)
        room.add(name=f"S1-{n}")
        assert (old.find("S1"), old.find(f"S1-{n}"), room.state().find("S1")) == (None, None, None)
    assert len(room.state().names) == len(room.state().slots) == 100


def test_what_ends_leaves_no_trace_unless_it_is_restarted(world: World) -> None:  # SUP-28, SUP-30, ED19, ED20, ED21
    room = Room(world, max_restarts=99)
    for restart, reason, stays in (
        ("temporary", "normal", False),
        ("temporary", RuntimeError("boom"), False),
        ("temporary", "kill", False),
        ("transient", "normal", False),
        ("transient", "shutdown", False),
        ("transient", Shutdown("x"), False),
        ("transient", RuntimeError("boom"), True),
        ("transient", "kill", True),
        ("permanent", "normal", True),
        ("permanent", "shutdown", True),
        ("permanent", RuntimeError("boom"), True),
        ("permanent", "kill", True),
    ):
        ref = room.add(restart=restart)
        room.end(ref, reason)
        rows = room.sup.which_children()
        assert len(rows) == stays, (restart, reason)
        for row in rows:
            assert row.child is not ref
            room.sup.terminate_child(row.child)


def test_a_child_without_a_restart_type_is_temporary_here(world: World) -> None:  # deviation, anubis#239
    room = Room(world, max_restarts=0)
    for _ in range(5):
        room.end(room.add(), RuntimeError("boom"))
    assert room.active() == 0
    assert room.tree.running


def test_starts_are_answered_with_what_came_of_them(world: World) -> None:  # SUP-8, SUP-54, ED16, ED17
    room = Room(world)

    def fails(_: Any) -> None:
        raise ValueError("bad")

    assert room.sup.start_child(child(Puppet, begin=lambda _: IGNORE)) is None
    with pytest.raises(ChildStartFailed, match="ValueError: bad") as caught:
        room.add(begin=fails)
    assert caught.value.child == "puppet"
    with pytest.raises(ChildStartFailed):
        room.sup.start_child(child(Explodes))
    assert room.sup.which_children() == []


def test_a_class_is_temporary_like_any_child_that_does_not_say_more(world: World) -> None:  # SUP-62
    sup = Room(world).sup
    ref = sup.start_child(Puppet)
    assert ref is not None
    ref.tell(RuntimeError("boom"))
    ref.join(60)
    eventually(lambda: sup.which_children() == [])


def test_nothing_is_kept_of_children_that_did_not_start(world: World) -> None:  # SUP-54
    room = Room(world)

    def fails(_: Any) -> None:
        raise ValueError("bad")

    for _ in range(3):
        with pytest.raises(ChildStartFailed):
            room.add(begin=fails)
    executor = room.sup.ref.cell.actor.executor
    assert (executor.refs, executor.keys) == ({}, {})


class Explodes(Actor):
    def __init__(self) -> None:
        raise SystemError("in the constructor")


def test_starts_run_side_by_side(world: World) -> None:  # deviation from SUP-59, otp#8361
    room = Room(world)
    begun = threading.Event()

    def slow(_: Any) -> None:
        begun.set()
        world.release.wait(10)

    waiting = Later(lambda: attempt(lambda: room.add(begin=slow)))
    assert begun.wait(60)
    assert room.add().call("quick") == "quick"
    assert [row.status for row in room.sup.which_children()] == ["running", "stopped"]
    assert room.sup.count_children().specs == 2
    world.release.set()
    assert waiting.result().call("now") == "now"


def test_a_bad_spec_is_refused_in_the_caller(world: World) -> None:  # SUP-62, ED15
    room = Room(world)
    room.tree.stop()
    with pytest.raises(InvalidOption):
        room.sup.start_child("rubbish")
    with pytest.raises(ActorDead):
        room.sup.start_child(child(Puppet))


def test_a_significant_child_is_refused(world: World) -> None:  # SUP-48, S82
    with pytest.raises(InvalidOption):
        Room(world).sup.start_child(child(Puppet, restart="transient", significant=True))


def test_max_children_counts_every_entry_and_a_restart_keeps_its_place(
    world: World,
) -> None:  # SUP-63, ED18, ED23, ED24
    with pytest.raises(TooManyChildren):
        Room(world, max_children=0).add()
    room = Room(world, max_children=2)
    waiting = room.add(restart="permanent", backoff=Backoff.of(5, jitter=0))
    room.add()
    room.end(waiting, RuntimeError("boom"))
    assert room.active() == 1
    with pytest.raises(TooManyChildren) as caught:
        room.add()
    assert caught.value.limit == 2
    world.clock.advance(5)
    eventually(lambda: room.active() == 2)
    with pytest.raises(TooManyChildren):
        room.add()
    room.sup.terminate_child(room.sup.which_children()[0].child)
    room.add()


def test_extra_arguments_go_in_front_at_every_start(world: World) -> None:  # SUP-62, ED14, ED25
    room = Room(world, extra_args=("first",), extra_kwargs={"mode": "extra", "other": 1})
    seen: list[Any] = []

    class Takes(Actor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__()
            seen.append((args, kwargs))

    ref = room.sup.start_child(child(Takes, "own", mode="mine", restart="permanent"))
    assert ref is not None
    ref.kill()
    world.settle()
    assert seen == [(("first", "own"), {"mode": "mine", "other": 1})] * 2
    assert room.sup.which_children()[0].child is not ref


def test_the_newest_child_is_listed_first_and_a_restart_moves_nothing(world: World) -> None:  # SUP-57
    room = Room(world)
    refs = [room.add(restart="permanent") for _ in range(3)]
    assert [row.child for row in room.sup.which_children()] == refs[::-1]
    room.end(refs[1], "kill")
    newest, restarted, oldest = (row.child for row in room.sup.which_children())
    assert (newest, oldest) == (refs[2], refs[0])
    assert restarted not in {None, refs[1]}


def test_terminate_child_goes_by_reference(world: World) -> None:  # SUP-60, SUP-64, ED39, ED40, S24
    room = Room(world)
    ref, stranger = room.add(restart="permanent"), world.system.start(Puppet)
    room.sup.terminate_child(ref)
    assert isinstance(ref.reason, Shutdown)
    for unknown in (ref, stranger):
        with pytest.raises(ChildNotFound):
            room.sup.terminate_child(unknown)
    assert stranger.is_alive()
    brutal = room.add(shutdown="kill")
    room.sup.terminate_child(brutal)
    assert isinstance(brutal.reason, Killed)
    assert room.sup.count_children().specs == 0
    for call in (room.sup.restart_child, room.sup.delete_child, room.sup.get_spec):
        with pytest.raises(NotSupported):
            call("w")


def test_terminate_child_goes_by_what_a_child_is_called_in_its_path_too(world: World) -> None:  # SUP-64
    room = Room(world)
    named, other = room.add(name="w"), room.add()
    room.sup.terminate_child("w")
    assert isinstance(named.reason, Shutdown)
    room.sup.terminate_child("puppet-1")
    assert isinstance(other.reason, Shutdown)
    with pytest.raises(ChildNotFound):
        room.sup.terminate_child("w")


@pytest.mark.parametrize("backoff", [None, Backoff.of(0.01, jitter=0)], ids=["at once", "with backoff"])
def test_a_child_whose_restarts_fail_is_restarting_and_can_be_terminated(backoff: Backoff | None) -> None:  # SUP-64
    fails, kills = threading.Event(), 5 if backoff else 100

    class Fails(Puppet):
        def on_start(self) -> None:
            if fails.is_set():
                raise RuntimeError("not now")

    with (
        ActorSystem("restarts") as system,
        Tree.start(system, dynamic(max_restarts=10_000_000, max_children=1)) as tree,
    ):
        sup = tree.supervisor
        refs = [sup.start_child(child(Fails, restart="permanent", backoff=backoff))]
        for _ in range(kills):  # old references are of no use, and do not pile up
            refs[-1].kill()
            eventually(lambda: sup.which_children()[0].child not in (None, *refs))
            refs.append(sup.which_children()[0].child)
        for old in refs[:-1]:
            with pytest.raises(ChildNotFound):
                sup.terminate_child(old)
        assert len(tree.root.cell.actor.executor.former) <= 70
        fails.set()
        refs[-1].kill()
        eventually(lambda: tree.snapshot().children[0].incarnation > kills + 3)
        assert {row.status for _ in range(50) for row in sup.which_children()} == {"restarting"}
        with pytest.raises(TooManyChildren):
            sup.start_child(child(Puppet))
        sup.terminate_child(refs[-1])
        assert sup.which_children() == []
        fails.clear()
        assert sup.start_child(child(Puppet)).is_alive()


def test_a_waiting_restart_is_called_off_by_the_last_reference(world: World) -> None:  # SUP-64, ED41, S68
    room = Room(world)
    ref = room.add(restart="permanent", backoff=Backoff.of(5, jitter=0))
    room.end(ref, RuntimeError("boom"))
    assert [row.status for row in room.sup.which_children()] == ["restarting"]
    assert room.sup.count_children().workers == 1
    room.sup.terminate_child(ref)
    world.clock.advance(10)
    world.settle()
    assert room.sup.which_children() == []
    with pytest.raises(ChildNotFound):
        room.sup.terminate_child(ref)


def test_a_child_that_is_starting_can_be_terminated(world: World) -> None:
    room = Room(world)
    begun = threading.Event()
    me: list[Any] = []

    def slow(puppet: Any) -> None:
        me.append(puppet.actor_ref)
        begun.set()
        world.release.wait(10)

    adding = Later(lambda: attempt(lambda: room.add(begin=slow, shutdown=2)))
    assert begun.wait(60)
    ending = Later(lambda: attempt(lambda: room.sup.terminate_child(me[0])))
    world.advance_until(lambda: not ending.running)
    assert ending.result() is None
    assert adding.result().code == "SUPERVISOR_STOPPING"
    assert room.sup.count_children().specs == 0


def test_all_children_are_told_at_once_and_each_has_its_own_time(world: World) -> None:  # SUP-65, S20, S38, ED31-ED38
    gate = threading.Barrier(5)
    ends: list[str] = []

    def together(_: Any, reason: Reason) -> None:
        gate.wait(60)  # passes only if all four stop at the same time
        ends.append(str(reason))

    tree = world.start(dynamic())
    for _ in range(4):
        tree.supervisor.start_child(child(Puppet, finish=together))
    brutal = tree.supervisor.start_child(child(Puppet, shutdown="kill", finish=lambda *_: ends.append("never")))
    stubborn = tree.supervisor.start_child(child(Puppet, name="s", shutdown=3, finish=world.blocks()))
    assert brutal is not None
    assert stubborn is not None
    stopper = Later(tree.stop)
    gate.wait(60)
    passed = world.advance_until(lambda: not stopper.running)
    assert ends == ["shutdown"] * 4
    assert passed <= 4
    assert stopper.result().killed == ("root/s",)
    assert isinstance(brutal.reason, Killed)


def test_children_that_end_otherwise_during_the_stop_do_not_disturb_it(world: World) -> None:  # S22, ED33, ED35, ED37
    def bad(*_: Any) -> None:
        raise RuntimeError("in the stop hook")

    tree = world.start(dynamic())
    for finish in (bad, bad, None):
        tree.supervisor.start_child(child(Puppet, restart="permanent", finish=finish))
    report = tree.stop()
    assert report.clean
    assert isinstance(report.reason, Shutdown)
    assert len(world.events.named("child.started")) == 3


def test_an_empty_room_stops_too(world: World) -> None:
    assert world.start(dynamic()).stop().clean


def test_intensity_is_shared_by_all_unless_a_child_has_its_own(world: World) -> None:  # SUP-66, S36, ED27, elixir#6123
    room = Room(world, max_restarts=2)
    own = room.add(restart="permanent", budget=budget(0, 60))
    room.end(own, RuntimeError("boom"))
    assert room.active() == 0
    refs = [room.add(restart="permanent") for _ in range(4)]
    for ref in refs[:2]:
        room.end(ref, RuntimeError("boom"))
    assert room.active() == 4
    supervisor = room.tree["room"].ref()
    refs[2].kill()
    reason = supervisor.join(5)
    assert isinstance(reason, GaveUp)
    world.settle()
    assert not any(ref.is_alive() for ref in refs)


def test_failing_restarts_are_tried_again_and_use_up_intensity(world: World) -> None:  # ED22, ED26, ED28, S60
    starts: list[int] = []

    def begin(outcomes: str) -> Any:
        def run(_: Any) -> Any:
            starts.append(1)
            what = outcomes[min(len(starts), len(outcomes)) - 1]
            if what == "x":
                raise RuntimeError("not now")
            return IGNORE if what == "i" else None

        return run

    room = Room(world, max_restarts=3)
    room.end(room.add(restart="permanent", begin=begin(".x.")), RuntimeError("boom"))
    assert (room.active(), len(starts)) == (1, 3)
    starts.clear()
    room = Room(world, max_restarts=3)
    room.end(room.add(restart="permanent", begin=begin(".i")), RuntimeError("boom"))
    assert room.sup.which_children() == []
    starts.clear()
    room = Room(world, max_restarts=3)
    room.add(restart="permanent", begin=begin(".x")).kill()
    assert isinstance(room.tree.wait(60), GaveUp)
    assert len(starts) == 4


def test_a_failing_restart_on_configuration_drops_the_child_only(world: World) -> None:  # J-9
    from mlld_sdk.base.errors import ConfigurationError

    broken = threading.Event()

    def begin(_: Any) -> None:
        if broken.is_set():
            raise ConfigurationError("no such program")

    room = Room(world)
    ref, other = room.add(restart="permanent", begin=begin), room.add()
    broken.set()
    room.end(ref, RuntimeError("boom"))
    assert [row.child for row in room.sup.which_children()] == [other]


def test_flags_can_be_changed_while_it_runs(world: World) -> None:  # ED9, ED10
    room = Room(world)
    for _ in range(3):
        room.add()
    room.sup.update(dynamic(name="room", max_children=1))
    assert room.active() == 3
    with pytest.raises(TooManyChildren):
        room.add()


def test_a_thousand_children_come_and_go(world: World) -> None:  # SUP-67, S58, S64
    room = Room(world)
    refs = [room.add() for _ in range(1000)]
    assert room.active() == 1000
    for ref in refs[::2]:
        room.sup.terminate_child(ref)
    assert room.active() == 500
    for ref in refs[1::2]:
        ref.kill()
    world.settle()
    assert room.active() == 0
    assert len(room.tree["room"].ref().cell.actor.executor.keys) == 0
    assert len(room.tree["room"].ref().cell.actor.executor.refs) == 0


def test_the_breaker_of_a_child_that_left_is_forgotten(world: World) -> None:
    room = Room(world)
    for _ in range(5):
        room.end(room.add(breaker=circuit_breaker(failures=9)), RuntimeError("boom"))
    assert room.tree.breakers.views() == []


def test_a_dynamic_supervisor_can_be_a_supervised_child_of_any_supervisor(world: World) -> None:  # ED1, ED2, ED3
    tree = world.start(one_for_one(dynamic(name="x"), child(dynamic(), name="y", shutdown=9)))
    assert tree.supervisor.get_spec("y").shutdown == 9
    assert tree.supervisor.count_children().supervisors == 2
    tree["x"].supervisor().start_child(one_for_one(child(Puppet, name="p"), name="branch"))
    assert tree["x/branch/p"].call("hi") == "hi"


# -- partitions --------------------------------------------------------------------------------------------------------


class Part(Puppet):
    def __init__(self, number: int = -1) -> None:
        super().__init__()
        self.number = number

    def on_receive(self, message: Any) -> Any:
        return self.number if message == "number" else super().on_receive(message)


def parts(world: World, count: int = 3) -> Partitions:
    spec = partitioned(Part, name="p", partitions=count, with_arguments=lambda args, number: (*args, number))
    return Partitions(world.start(one_for_one(spec)), "p")


def test_keys_are_routed_without_asking_the_supervisor(world: World) -> None:  # SUP-69, PS3, PS5
    routed = parts(world)
    assert [routed[key].call("number") for key in (0, 1, 2, 3, 4, -1)] == [0, 1, 2, 0, 1, 1]
    names = {routed.number_of(f"user-{key}") for key in range(50)}
    assert names == {0, 1, 2}
    assert routed.number_of("user-1") == routed.number_of("user-1")
    place = routed[1]
    place.ref().kill()
    world.settle()
    assert place.call("number") == 1
    assert [one.call("number") for one in routed.places()] == [0, 1, 2]


def test_partitions_can_be_fewer_for_a_while(world: World) -> None:  # SUP-70, PS9, PS10, PS11
    routed = parts(world, 4)
    tree = routed._tree
    assert routed.resize(2) == 4
    assert [is_up(tree, f"p/{number}") for number in range(4)] == [True, True, False, False]
    assert {routed.number_of(key) for key in range(20)} == {0, 1}
    assert routed.resize(0) == 2
    with pytest.raises(ChildNotFound):
        _ = routed["x"]
    assert routed.resize(4) == 0
    assert len(routed) == 4
    assert routed[3].call("number") == 3
    with pytest.raises(InvalidOption):
        routed.resize(5)


def test_partitions_of_nothing_are_an_error(world: World) -> None:  # SUP-71
    with pytest.raises(ChildNotFound):
        Partitions(world.start(one_for_one()), "nobody")


class KilledInItsConstructor(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.actor_ref.kill()


def test_a_child_killed_before_it_has_started_counts_as_a_failed_start() -> None:  # SUP-62
    with ActorSystem() as system, Tree.start(system, dynamic()) as tree:
        with pytest.raises(ChildStartFailed, match="killed"):
            tree.supervisor.start_child(child(KilledInItsConstructor))
        assert tree.supervisor.count_children().active == 0
    with ActorSystem() as system:
        with pytest.raises(StartFailed, match="killed"):
            system.start(KilledInItsConstructor)
        assert isinstance(system.start_soon(KilledInItsConstructor).exception(), StartFailed)
