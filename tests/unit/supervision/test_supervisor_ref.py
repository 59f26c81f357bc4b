"""Many children with one call, and children that have nothing of their own to do when they end."""

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import IGNORE
from mlld_sdk.actors.core.errors import ActorDead, AskTimeout
from mlld_sdk.actors.core.exits import SHUTDOWN, Killed
from mlld_sdk.supervision import (
    ChildAlreadyStarted,
    ChildStartFailed,
    InvalidOption,
    SupervisorBusy,
    SupervisorRef,
    SupervisorStopping,
    TooManyChildren,
    child,
    dynamic,
    one_for_one,
)
from mlld_sdk.supervision.decisions.decide import initial, step
from mlld_sdk.supervision.decisions.draft import World as Circumstances
from mlld_sdk.supervision.decisions.effects import Finish
from mlld_sdk.supervision.decisions.inputs import Begin, Ended, Started, StopRequested
from mlld_sdk.supervision.reasons import SHUTDOWN as SHUTDOWN_EXIT
from mlld_sdk.supervision.supervisor_ref import PORTION
from tests.support.eventually import eventually
from tests.support.trees import Later, Puppet, World, attempt


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


class Plain(Actor):
    """Has neither a start nor an end of its own."""

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message


class Explodes(Actor):
    def __init__(self) -> None:
        raise SystemError("in the constructor")


def fails(_: Any) -> None:
    raise ValueError("bad")


def all_kinds() -> list[Any]:
    """Children that start at once, that take a turn, that decline, that fail, and one name twice."""
    return [
        Plain,
        child(Puppet, name="p", begin=lambda _: None),
        child(Puppet, name="declines", begin=lambda _: IGNORE),
        child(Puppet, name="fails", begin=fails),
        Explodes,
        child(Plain, name="p"),
        one_for_one(child(Plain, name="below"), name="branch"),
        child(Plain, name="last"),
    ]


def outcome(found: Any) -> tuple[str, str]:
    """Say what came of a start, in words that are the same for two trees."""
    return type(found).__name__, found.cell.label if hasattr(found, "cell") else str(found)


@pytest.mark.parametrize("spec", [dynamic(), one_for_one()], ids=["dynamic", "static"])
def test_many_starts_come_to_the_same_as_one_after_the_other(world: World, spec: Any) -> None:  # SUP-54
    one_by_one, together = world.start(spec, name="a"), world.start(spec, name="b")
    expected = [attempt(lambda one=one: one_by_one.supervisor.start_child(one)) for one in all_kinds()]
    found = together.supervisor.start_children(all_kinds())
    assert [outcome(one) for one in found] == [outcome(one) for one in expected]
    assert {type(None), ChildStartFailed} <= {type(one) for one in found}
    assert [type(one) for one in found].count(ChildAlreadyStarted) == 1
    rows = [[(row.name, row.status) for row in tree.supervisor.which_children()] for tree in (one_by_one, together)]
    assert rows[0] == rows[1]
    started = [event.path for event in world.events.named("child.started")]
    assert sorted(path[2:] for path in started if path[0] == "a") == sorted(
        path[2:] for path in started if path[0] == "b"
    )


def test_places_are_taken_in_order_also_by_those_whose_start_will_fail(world: World) -> None:  # SUP-63
    tree = world.start(dynamic(max_children=2))
    found = tree.supervisor.start_children([child(Puppet, begin=fails), Plain, Plain])
    assert [outcome(one)[0] for one in found] == ["ChildStartFailed", "ActorRef", "TooManyChildren"]
    assert [outcome(one)[0] for one in tree.supervisor.start_children([Plain, Plain])] == [
        "ActorRef",
        "TooManyChildren",
    ]


def test_more_than_a_portion_are_answered_in_order(world: World) -> None:
    tree = world.start(dynamic(max_children=PORTION + 5))
    found = tree.supervisor.start_children([child(Plain, name=f"w{number}") for number in range(PORTION + 10)])
    assert [one.cell.label for one in found[: PORTION + 5]] == [f"w{n}" for n in range(PORTION + 5)]
    assert [type(one) for one in found[PORTION + 5 :]] == [TooManyChildren] * 5
    assert tree.supervisor.count_children().active == PORTION + 5
    assert tree.supervisor.start_children([]) == []


def test_under_a_dynamic_supervisor_many_start_side_by_side_and_others_are_served(world: World) -> None:  # SUP-59
    tree = world.start(dynamic())
    together, inside = threading.Barrier(3), threading.Semaphore(0)

    def begin(_: Any) -> None:
        inside.release()
        together.wait(60)

    later = Later(lambda: tree.supervisor.start_children([child(Puppet, begin=begin)] * 2))
    assert inside.acquire(timeout=5)
    assert inside.acquire(timeout=5)
    assert tree.supervisor.count_children().specs == 2
    together.wait(60)
    assert [ref.is_alive() for ref in later.result()] == [True, True]


def test_a_wrong_spec_among_many_starts_nobody(world: World) -> None:
    tree = world.start(dynamic())
    with pytest.raises(InvalidOption):
        tree.supervisor.start_children([Plain, "no actor class"])
    assert tree.supervisor.which_children() == []


def test_a_stop_answers_all_that_have_not_started(world: World) -> None:  # D-1
    tree = world.start(dynamic())
    specs = [Plain, child(Puppet, begin=world.blocks(), shutdown="kill"), child(Puppet, begin=world.blocks())]
    later = Later(lambda: tree.supervisor.start_children(specs))
    eventually(lambda: tree.supervisor.count_children().specs == 3)
    Later(tree.stop)
    first, *others = later.result()
    assert first.cell.traits.actor_class is Plain
    assert [type(one) for one in others] == [SupervisorStopping] * 2
    world.release.set()
    tree.wait(60)


def test_a_supervisor_that_is_killed_meanwhile_answers_as_the_dead_do(world: World) -> None:
    tree = world.start(dynamic())
    later = Later(lambda: attempt(lambda: tree.supervisor.start_children([child(Puppet, begin=world.blocks())] * 3)))
    eventually(lambda: tree.supervisor.count_children().specs == 3)
    tree.root.kill()
    assert isinstance(later.result(), ActorDead)


def test_what_was_handed_over_goes_on_when_the_caller_waits_no_longer(world: World) -> None:
    tree = world.start(dynamic())
    with pytest.raises(AskTimeout):
        tree.supervisor.start_children([Plain, child(Puppet, begin=world.blocks())], timeout=0.01)
    world.release.set()
    eventually(lambda: tree.supervisor.count_children().active == 2)
    eventually(lambda: all(row.child is not None for row in tree.supervisor.which_children()))


def test_a_child_that_starts_siblings_while_it_is_waited_for_is_refused(world: World) -> None:  # SUP-59
    found: list[Any] = []

    def begin(me: Any) -> None:
        found.extend(SupervisorRef(me.parent).start_children([Plain, child(Plain, name="other")]))

    tree = world.start(one_for_one(child(Puppet, name="asks", begin=begin)))
    assert [type(one) for one in found] == [SupervisorBusy] * 2
    assert [row.name for row in tree.supervisor.which_children()] == ["asks"]


# -- children without an end of their own ------------------------------------------------------------------------------


def test_plain_children_end_in_reverse_order_each_before_the_next_is_told(world: World) -> None:  # SUP-19
    tree = world.start(one_for_one(*[child(Plain, name=name) for name in "abc"]))
    alive: list[tuple[str, list[bool]]] = []
    refs = [tree[name].ref() for name in "abc"]
    for name, ref in zip("abc", refs, strict=True):
        ref.monitor(lambda _, name=name: alive.append((name, [ref.is_alive() for ref in refs])))
    assert tree.stop().clean
    assert alive == [("c", [True, True, False]), ("b", [True, False, False]), ("a", [False, False, False])]
    assert [ref.reason for ref in refs] == [SHUTDOWN] * 3
    stopped = world.events.named("child.stopped")
    assert [(event.path, event.kind, event.killed) for event in stopped] == [
        (f"root/{name}", "shutdown", False) for name in "cba"
    ]


def test_a_plain_child_that_is_busy_gets_its_time_and_is_killed_after_it(world: World) -> None:  # SUP-20, SUP-21
    tree = world.start(dynamic())
    quick, busy = tree.supervisor.start_children([Plain, child(Plain, shutdown=2.0)])
    assert not isinstance(quick, Exception)
    assert not isinstance(busy, Exception)
    inside = threading.Event()
    busy.tell(lambda _: (inside.set(), world.release.wait(10)))
    waiting = busy.request("after that")
    assert inside.wait(60)
    stopping = Later(lambda: tree.stop(30))
    quick.join(60)
    assert busy.is_alive()
    eventually(lambda: world.clock.advance(0.5) or not stopping.running)
    assert stopping.result().killed == ("root/plain-1",)
    assert isinstance(busy.reason, Killed)
    assert isinstance(waiting.exception(), ActorDead)


def test_a_stop_costs_the_same_for_each_temporary_child_however_many_there_are() -> None:
    world = Circumstances(now=1.0, wall=1.0, chance=random.Random(1))
    state = initial("root", one_for_one(*[child(Plain, name=name, restart="temporary") for name in "abc"]))
    state, _ = step(
        state, [Begin(), *[Started(key, 1, object()) for key in range(3)], StopRequested(SHUTDOWN_EXIT)], world
    )
    before = state
    state, effects = step(state, [Ended(key, 1, SHUTDOWN_EXIT) for key in (2, 1, 0)], world)
    assert (state.names is before.names, state.order is before.order) == (True, True)  # nothing was copied
    assert {slot.status for slot in state.slots} == {"stopped"}
    assert isinstance(effects[-1], Finish)
