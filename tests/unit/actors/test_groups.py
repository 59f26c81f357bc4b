"""Process groups: membership, and being told of it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mlld_sdk.actors.core.errors import ActorDead, NotAnActor, UnknownName
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.pubsub.errors import NotJoined
from mlld_sdk.actors.pubsub.groups import GroupChanged, Groups
from mlld_sdk.actors.pubsub.outlet import Lagged, Resumed
from mlld_sdk.base.errors import ConfigurationError
from tests.support.libraries import Gates, Ref, fresh_system, puppet, seen, within


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with fresh_system() as (system, _):
        yield system


@pytest.fixture
def groups(system: ActorSystem) -> Groups:
    return Groups(system)


@pytest.fixture
def one(system: ActorSystem) -> Ref:
    return puppet(system)


@pytest.fixture
def two(system: ActorSystem) -> Ref:
    return puppet(system)


def test_a_shared_scope_is_made_once_whoever_asks_first(system: ActorSystem) -> None:  # PG-5
    with pytest.raises(UnknownName):
        Groups.of(system)
    together = threading.Barrier(8)

    def ask(_: int) -> Groups:
        together.wait(60)
        return Groups.shared(system)

    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(ask, range(8)))
    assert found == {Groups.of(system)}
    with pytest.raises(ConfigurationError, match="exists"):
        Groups(system)


def changes(ref: Ref) -> list[tuple[str, Any, Any]]:
    return [(message.kind, message.group, message.refs) for message in seen(ref)]


def test_an_actor_joins_as_often_as_it_likes_and_leaves_as_often(groups: Groups, one: Ref, two: Ref) -> None:
    # PG-1, PG1
    within(one, lambda: (groups.join("g"), groups.join("g")))
    groups.join("g", two, one)
    assert groups.members("g") == [one, one, one, two]
    groups.leave("g", one)
    within(one, lambda: groups.leave("g"))
    groups.leave("g", one)
    assert groups.members("g") == [two]


def test_leaving_fails_only_when_none_was_a_member(groups: Groups, one: Ref, two: Ref) -> None:  # PG-1, PG2
    groups.join("g", one)
    groups.leave("g", two, one)
    with pytest.raises(NotJoined):
        groups.leave("g", one, two)
    with pytest.raises(NotJoined):
        groups.leave("unknown", one)


def test_groups_exist_while_they_have_members(groups: Groups, one: Ref) -> None:  # PG-2, PG1
    assert (groups.members("g"), groups.which_groups()) == ([], [])
    groups.join("g", one)
    groups.join(("h", 1), one)
    assert groups.which_groups() == ["g", ("h", 1)]
    groups.leave("g", one)
    assert groups.which_groups() == [("h", 1)]


def test_misuse_says_what_is_wrong(system: ActorSystem, groups: Groups, one: Ref) -> None:  # PG2
    assert Groups.of(system) is groups
    with pytest.raises(UnknownName):
        Groups.of(system, "other")
    with pytest.raises(NotAnActor):
        groups.join("g")
    one.kill()
    with pytest.raises(ActorDead):
        groups.join("g", one)
    assert groups.which_groups() == []


def test_a_death_ends_all_memberships_and_leaves_no_residue(groups: Groups, one: Ref, two: Ref) -> None:
    # PG-3, PG3
    for group in range(50):
        groups.join(group, one, one, two)
    one.kill()
    assert {group: groups.members(group) for group in groups.which_groups()} == {n: [two] for n in range(50)}
    two.kill()
    assert (groups.which_groups(), len(groups._members), groups._watches._watches) == ([], 0, {})


def test_a_scope_made_anew_knows_nobody(
    system: ActorSystem, one: Ref
) -> None:  # PG-3, PG4 (deviation: it cannot restart)
    Groups(system, "first").join("g", one)
    assert Groups(system, "second").members("g") == []


def test_a_monitor_begins_with_the_members_and_hears_of_every_change(groups: Groups, one: Ref, two: Ref) -> None:
    # PG-4, PG6
    groups.join("g", one)
    _, members = within(two, lambda: groups.monitor("g"))
    assert members == [one]
    groups.join("g", one)
    groups.leave("g", one)
    groups.join("other", one)
    assert changes(two) == [("join", "g", (one,)), ("leave", "g", (one,))]


def test_a_death_is_one_leave_for_each_membership(groups: Groups, one: Ref, two: Ref) -> None:  # PG-4
    groups.join("g", one, one)
    within(two, lambda: groups.monitor("g"))
    one.kill()
    assert changes(two) == [("leave", "g", (one,)), ("leave", "g", (one,))]


def test_a_monitor_of_the_whole_scope_hears_of_every_group(groups: Groups, one: Ref, two: Ref) -> None:  # PG-4, PG6
    groups.join("old", one)
    _, members = groups.monitor_all(ref=two)
    assert members == {"old": [one]}
    groups.join("new", one)
    groups.leave("old", one)
    assert changes(two) == [("join", "new", (one,)), ("leave", "old", (one,))]


def test_several_monitors_of_one_actor_are_told_apart_and_may_watch_itself(groups: Groups, one: Ref) -> None:  # PG6
    first, _ = groups.monitor("g", ref=one)
    second, _ = groups.monitor("g", ref=one)
    groups.join("g", one)
    assert len(seen(one)) == 2
    first.cancel()
    groups.leave("g", one)
    assert [(message.monitor, message.kind) for message in seen(one)] == [
        (first, "join"),
        (second, "join"),
        (second, "leave"),
    ]


def test_nothing_of_a_cancelled_monitor_is_seen_not_even_what_was_on_its_way(
    system: ActorSystem, groups: Groups, one: Ref
) -> None:  # PG-4
    busy, gates = puppet(system), Gates()
    monitor, _ = groups.monitor("g", ref=busy)
    busy.cast(lambda _: gates.hold())
    gates.wait_for()
    groups.join("g", one)
    monitor.cancel()
    monitor.cancel()
    gates.open_all()
    assert seen(busy) == []


def test_a_dead_watcher_is_forgotten(groups: Groups, one: Ref, two: Ref) -> None:  # PG6
    monitor, _ = groups.monitor("g", ref=one)
    one.kill()
    assert monitor.cancelled
    groups.join("g", two)
    assert (len(groups._monitors), set(groups._watches._watches)) == (0, {two})


def test_a_slow_watcher_is_told_that_it_missed_something(system: ActorSystem, groups: Groups, one: Ref) -> None:
    # PG-4, PUB-5
    slow, gates = puppet(system), Gates()
    groups.monitor("g", ref=slow, limit=4)
    slow.cast(lambda _: gates.hold())
    gates.wait_for()
    for _ in range(5):
        groups.join("g", one)
        groups.leave("g", one)
    gates.open_all()
    assert seen(slow)[4:] == [Lagged("pg")]
    groups.join("g", one)
    assert seen(slow)[5] == Resumed("pg", 6)
    assert isinstance(seen(slow)[6], GroupChanged)


def test_many_groups_are_joined_by_steps_that_do_not_grow(groups: Groups, one: Ref) -> None:  # PG5
    for group in range(2_000):
        groups.join(group, one)
    assert len(groups.which_groups()) == 2_000
    one.kill()
    assert groups.which_groups() == []
