"""Registries: who holds a key, and that the dead hold none."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import (
    ActorDead,
    AlreadyStarted,
    DeadlockDetected,
    NoSuchActor,
    NotAnActor,
    StartFailed,
    UnknownName,
)
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.registry.errors import LockTimeout, NameTaken, NotRegistered
from mlld_sdk.actors.registry.registry import KeyRegistered, KeyUnregistered, Registration, Registry
from mlld_sdk.base.errors import ConfigurationError
from tests.support.eventually import eventually
from tests.support.libraries import Gates, Ref, fresh_system, puppet, seen, within

KINDS = ["unique", "duplicate"]


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with fresh_system() as (system, _):
        yield system


@pytest.fixture
def unique(system: ActorSystem) -> Registry:
    return Registry(system, "u", keys="unique")


@pytest.fixture
def duplicate(system: ActorSystem) -> Registry:
    return Registry(system, "d", keys="duplicate")


@pytest.fixture
def one(system: ActorSystem) -> Ref:
    return puppet(system)


@pytest.fixture
def two(system: ActorSystem) -> Ref:
    return puppet(system)


# -- the registry itself


@pytest.mark.parametrize("keys", ["Unique", None, "both", ("duplicate", "key")])
def test_keys_of_no_known_kind_are_refused_when_it_is_made(system: ActorSystem, keys: Any) -> None:  # REG-1, RD30
    with pytest.raises(ConfigurationError, match="unique"):
        Registry(system, "r", keys=keys)


@pytest.mark.parametrize("keys", KINDS)
def test_a_registry_is_found_by_name_and_an_unknown_one_is_an_error(
    system: ActorSystem, keys: Any
) -> None:  # REG-1, RU21, RD20
    made = Registry(system, "r", keys=keys)
    assert Registry.of(system, "r") is made
    with pytest.raises(UnknownName, match="nobody"):
        Registry.of(system, "nobody")
    with pytest.raises(ConfigurationError, match="exists"):
        Registry(system, "r", keys=keys)


def test_registries_of_two_systems_know_nothing_of_each_other(system: ActorSystem) -> None:
    Registry(system, "r", keys="unique")
    with fresh_system("other") as (other, _):
        with pytest.raises(UnknownName):
            Registry.of(other, "r")
        Registry(other, "r", keys="unique")


def test_properties_of_the_registry_are_set_read_and_removed(system: ActorSystem) -> None:  # REG-8
    registry = Registry(system, "r", keys="unique", meta={"a": 1})
    registry.put_meta("b", 2)
    assert (registry.meta("a"), registry.meta("b")) == (1, 2)
    registry.delete_meta("b")
    registry.delete_meta("b")
    with pytest.raises(KeyError):
        registry.meta("b")


# -- unique keys


def test_it_registers_whoever_calls(unique: Registry, one: Ref) -> None:  # REG-2, REG-6
    within(one, lambda: unique.register("k", 1))
    assert unique.lookup("k") == [Registration("k", one, 1)]
    assert (unique.whereis("k"), unique.keys(one), unique.values("k", one), len(unique)) == (one, ["k"], [1], 1)


def test_code_outside_actors_says_whom_it_registers(unique: Registry, one: Ref) -> None:  # REG-2 (deviation)
    with pytest.raises(NotAnActor, match="ref="):
        unique.register("k")
    unique.register("k", ref=one)
    assert unique.whereis("k") is one


def test_a_key_held_is_refused_with_its_holder_even_to_the_holder(unique: Registry, one: Ref, two: Ref) -> None:
    # REG-2, RU4, RU5
    within(one, lambda: unique.register("k", 1))
    within(one, lambda: unique.register("other", 1))
    for who in (one, two):
        with pytest.raises(NameTaken) as refused:
            within(who, lambda: unique.register("k", 2))
        assert refused.value.holder is one
    assert (unique.values("k", one), unique.keys(one), unique.keys(two)) == ([1], ["k", "other"], [])


def test_a_refused_registration_leaves_no_trace(unique: Registry, one: Ref, two: Ref) -> None:  # REG-12, RU34, RU35
    unique.register("k", ref=one)
    for who in (one, two):
        with pytest.raises(NameTaken):
            unique.register("k", ref=who)
    assert len(unique) == 1
    assert two not in unique._watches._watches


def test_the_dead_are_registered_nowhere_and_cannot_register(unique: Registry, one: Ref) -> None:  # REG-4, RU5
    one.kill()
    with pytest.raises(ActorDead):
        unique.register("k", ref=one)
    assert (len(unique), unique._watches._watches) == (0, {})


def test_a_key_whose_holder_is_dead_but_not_yet_forgotten_is_taken_over(unique: Registry, one: Ref, two: Ref) -> None:
    # REG-2, REG-4, RU6: the moment between a death and its clean-up, held still.
    unique.register("k", 1, ref=one)
    with unique._lock:
        killer = threading.Thread(target=one.kill)
        killer.start()
        eventually(lambda: one.reason is not None)
        assert (unique.whereis("k"), unique.lookup("k"), unique.select(), len(unique)) == (None, [], [], 1)
        unique.register("k", 2, ref=two)
    killer.join(60)
    assert unique.lookup("k") == [Registration("k", two, 2)]


def test_a_key_is_held_until_the_stop_hook_has_run(system: ActorSystem, unique: Registry, two: Ref) -> None:  # REG-4
    gates = Gates()

    class Cleaning(Actor):
        def on_terminate(self, reason: Any) -> None:
            gates.hold()

    one = system.start(Cleaning, name=unique.via("k"))
    stopped = one.stop(block=False)
    gates.wait_for()
    with pytest.raises(NameTaken):
        unique.register("k", ref=two)
    assert unique.whereis("k") is one
    gates.open_all()
    assert stopped.get(timeout=10)
    unique.register("k", ref=two)


def test_the_dying_never_unregister_their_successor(unique: Registry, one: Ref, two: Ref) -> None:
    unique.register("k", ref=one)
    unique.unregister("k", ref=one)
    unique.register("k", ref=two)
    one.kill()
    unique.unregister_name("k", one)
    assert unique.whereis("k") is two


def test_unregistering_touches_only_ones_own(unique: Registry, one: Ref, two: Ref) -> None:  # REG-5, RU17, RU18
    within(one, lambda: (unique.register("a"), unique.register("b")))
    within(two, lambda: unique.unregister("a"))
    within(one, lambda: unique.unregister("never"))
    assert unique.keys(one) == ["a", "b"]
    within(one, lambda: unique.unregister("a"))
    assert unique.keys(one) == ["b"]


def test_unregistering_may_depend_on_the_value(unique: Registry, one: Ref) -> None:  # REG-5, RU12, RU13
    unique.register("k", {"version": 1}, ref=one)
    unique.unregister("k", where=lambda value: value["version"] > 1, ref=one)
    assert len(unique) == 1
    unique.unregister("k", where=lambda value: value["version"] == 1, ref=one)
    assert len(unique) == 0


def test_keys_equal_in_python_but_not_in_type_are_different_keys(unique: Registry, one: Ref) -> None:  # REG-3, RU14
    for key in (1, 1.0, True, (1,), (1.0,)):
        unique.register(key, ref=one)
    assert len(unique) == 5
    assert unique.keys(one) == [1, 1.0, True, (1,), (1.0,)]


def test_an_owner_updates_its_value_and_nobody_elses(unique: Registry, one: Ref, two: Ref) -> None:  # REG-7, RU15
    unique.register("k", 1, ref=one)
    never: list[Any] = []
    for who, key in ((two, "k"), (one, "missing")):
        with pytest.raises(NotRegistered):
            unique.update_value(key, never.append, ref=who)
    assert within(one, lambda: unique.update_value("k", lambda value: value + 1)) == (2, 1)
    assert (unique.values("k", one), never) == ([2], [])


def test_looking_may_filter_by_value_or_by_everything(unique: Registry, one: Ref, two: Ref) -> None:
    # REG-6, RU2, RU3, RU7, RU8, RU10, RU11, RU24, RU25, RU27, RU30, RU31
    assert (unique.select(), len(unique), unique.lookup("a")) == ([], 0, [])
    unique.register("a", 1, ref=one)
    unique.register("b", 2, ref=two)
    assert unique.select() == [Registration("a", one, 1), Registration("b", two, 2)]
    assert unique.select(lambda row: row.value > 1) == [Registration("b", two, 2)]
    assert unique.lookup("a", where=lambda value: value > 1) == []


@pytest.mark.parametrize("keys", KINDS)
def test_everything_a_killed_actor_held_is_gone_when_the_kill_returns(system: ActorSystem, keys: Any) -> None:
    # REG-4, RC1
    registry = Registry(system, "r", keys=keys)
    victim, other = puppet(system), puppet(system)
    for key in range(100):
        registry.register(key, ref=victim)
    registry.register("kept", ref=other)
    victim.kill()
    assert registry.select() == [Registration("kept", other, None)]
    assert (registry.keys(victim), registry.lookup(1)) == ([], [])
    assert set(registry._watches._watches) == {other}


@pytest.mark.parametrize("end", ["stop", "crash", "kill"])
def test_whoever_learns_of_a_death_finds_the_key_free(system: ActorSystem, unique: Registry, end: str) -> None:  # REG-4
    holder, asker = puppet(system), puppet(system)
    unique.register("k", ref=holder)
    found: list[Any] = []
    told = threading.Event()

    def watching(me: Any) -> None:
        me.monitor(holder)
        me.on_receive = lambda message: (found.append(len(unique)), told.set())

    asker.call(watching)
    if end == "stop":
        holder.stop()
    elif end == "kill":
        holder.kill()
    else:
        with pytest.raises(Exception, match="division"):
            holder.call(lambda _: 1 / 0)
        found.append(len(unique))
    assert told.wait(60)
    assert set(found) == {0}


def test_the_watch_ends_with_the_last_key(unique: Registry, one: Ref) -> None:  # REG-12, RU20, RD19
    within(one, lambda: (unique.register("a"), unique.register("b")))
    within(one, lambda: unique.unregister("a"))
    assert one in unique._watches._watches
    assert one.info().monitors == 1
    within(one, lambda: unique.unregister("b"))
    assert unique._watches._watches == {}
    assert one.info().monitors == 0


def test_unregistering_costs_the_same_however_many_keys_the_owner_holds(unique: Registry, one: Ref) -> None:  # REG-15
    for key in range(1_000):
        unique.register(key, ref=one)
    looked_at: list[object] = []
    unique._rows.of = lambda owner: looked_at.append(owner)  # type: ignore[method-assign]
    unique.unregister(7, ref=one)
    assert looked_at == []
    assert len(unique) == 999


# -- dispatching


def test_a_dispatch_runs_in_the_caller_and_only_when_somebody_is_there(unique: Registry, one: Ref) -> None:
    # REG-9, RU16
    got: list[Any] = []
    unique.dispatch("k", got.append)
    unique.register("k", 1, ref=one)
    unique.dispatch("k", lambda entries: got.append((threading.get_ident(), entries)))
    assert got == [(threading.get_ident(), [Registration("k", one, 1)])]


def test_an_exception_of_a_dispatch_is_the_callers(unique: Registry, one: Ref) -> None:  # REG-9
    unique.register("k", ref=one)
    with pytest.raises(ZeroDivisionError):
        unique.dispatch("k", lambda entries: 1 // 0)


# -- duplicate keys


def test_a_duplicate_key_may_be_held_by_many_and_more_than_once(duplicate: Registry, one: Ref, two: Ref) -> None:
    # REG-2, REG-6, RD2-RD5
    assert len(duplicate) == 0
    within(one, lambda: (duplicate.register("k", 1), duplicate.register("k", 2)))
    within(two, lambda: duplicate.register("k", 3))
    assert [(row.ref, row.value) for row in duplicate.lookup("k")] == [(one, 1), (one, 2), (two, 3)]
    assert (duplicate.keys(one), duplicate.values("k", one), duplicate.values("k", two)) == (["k", "k"], [1, 2], [3])
    assert len(duplicate) == 3


def test_duplicate_registrations_are_dispatched_listed_and_given_back_by_key(duplicate: Registry, one: Ref) -> None:
    # RD7, RD9, RD10, RD22, RD23, RD25, RD27, RD28
    assert duplicate.select() == []
    for value in (1, 2):
        duplicate.register("k", value, ref=one)
    duplicate.register("other", 3, ref=one)
    got: list[Any] = []
    duplicate.dispatch("k", got.extend)
    assert [row.value for row in got] == [1, 2]
    assert [row.value for row in duplicate.select(lambda row: row.value != 2)] == [1, 3]
    duplicate.unregister("k", ref=one)
    duplicate.unregister("k", ref=one)
    assert [row.key for row in duplicate.select()] == ["other"]


def test_of_duplicate_registrations_those_with_a_value_may_go(duplicate: Registry, one: Ref) -> None:
    # RD11, RD12, RD14-RD17
    for value in (1, 2, 3):
        duplicate.register("k", value, ref=one)
    duplicate.unregister("k", where=lambda value: value != 2, ref=one)
    assert duplicate.values("k", one) == [2]
    assert duplicate.lookup("k", where=lambda value: value == 2) == duplicate.lookup("k")


def test_duplicate_keys_are_strict_and_exact(duplicate: Registry, one: Ref) -> None:  # REG-3, RD6, RD13
    for key in (1, 1.0, ("a", 1), ("a", 1, 2), ("a", 1.0)):
        duplicate.register(key, ref=one)
    for key in (1, 1.0, ("a", 1), ("a", 1.0)):
        assert len(duplicate.lookup(key)) == 1


def test_what_needs_the_one_holder_is_refused_by_a_duplicate_registry(duplicate: Registry, one: Ref) -> None:
    # REG-7, REG-11, RD21, RD31
    duplicate.register("k", 1, ref=one)
    for misuse in (
        lambda: duplicate.update_value("k", str, ref=one),
        lambda: duplicate.via("k"),
        lambda: duplicate.whereis("k"),
        lambda: duplicate.register_name("k", one),
    ):
        with pytest.raises(ConfigurationError, match="duplicate"):
            misuse()


# -- listeners


@pytest.mark.parametrize("keys", KINDS)
def test_listeners_are_told_of_every_change_and_of_deaths_too(system: ActorSystem, keys: Any) -> None:
    # REG-10 (deviation: deaths too), RU19, RD18
    listener, one, two = puppet(system), puppet(system), puppet(system)
    registry = Registry(system, "r", keys=keys, listeners=[listener])
    registry.register("k", 1, ref=one)
    registry.unregister("k", ref=one)
    registry.unregister("k", ref=one)
    registry.register("k", 2, ref=two)
    two.kill()
    assert seen(listener) == [
        KeyRegistered("r", "k", one, 1),
        KeyUnregistered("r", "k", one, died=False),
        KeyRegistered("r", "k", two, 2),
        KeyUnregistered("r", "k", two, died=True),
    ]


# -- via names


class Named(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


class Refusing(Actor):
    def on_start(self) -> None:
        raise ValueError("no")


def test_actors_are_started_and_found_by_a_key(system: ActorSystem, unique: Registry) -> None:  # REG-11, RU22, RU23
    ref = system.start(Named, name=unique.via("agent", "the value"))
    assert system.whereis(unique.via("agent")) is ref
    assert unique.values("agent", ref) == ["the value"]
    with pytest.raises(AlreadyStarted) as taken:
        system.start(Named, name=unique.via("agent"))
    assert taken.value.holder is ref
    assert system.whereis(unique.via("nobody")) is None


def test_a_failed_start_frees_the_key_and_a_restart_registers_again(system: ActorSystem, unique: Registry) -> None:
    # REG-11, RU22: never "already started" after a start that failed
    for _ in range(50):
        with pytest.raises(StartFailed) as failed:
            system.start(Refusing, name=unique.via("agent"))
        assert not isinstance(failed.value, AlreadyStarted)
    assert len(unique) == 0
    first = system.start(Named, name=unique.via("agent"))
    first.kill()
    second = system.start(Named, name=unique.via("agent"))
    assert unique.whereis("agent") is second


# -- locks


def test_different_keys_do_not_wait_for_each_other(unique: Registry) -> None:  # REG-14, RC2
    with unique.lock("a"), unique.lock("b", timeout=0):
        pass


def test_a_key_is_held_by_one_caller_at_a_time_first_come_first_served(
    system: ActorSystem, unique: Registry
) -> None:  # REG-14, RC3
    gates, order = Gates(), []

    def work(number: int) -> None:
        with unique.lock("k", timeout=30):
            order.append(number)

    workers = [puppet(system) for _ in range(3)]
    answers = []
    with unique.lock("k"):
        for number, worker in enumerate(workers):
            answers.append(worker.request(lambda _, number=number: work(number)))
            eventually(lambda number=number: len(unique._locks._queues.under("k")) == number + 2)
        assert order == []
    for answer in answers:
        answer.get(timeout=10)
    assert order == [0, 1, 2]
    assert len(unique._locks._queues) == 0
    gates.open_all()


def test_a_lock_is_free_after_an_exception(unique: Registry) -> None:  # REG-14, RC4
    with pytest.raises(ZeroDivisionError), unique.lock("k"):
        raise ZeroDivisionError
    with unique.lock("k", timeout=0):
        pass


def test_a_killed_holder_loses_the_lock_and_a_killed_waiter_its_place(system: ActorSystem, unique: Registry) -> None:
    # REG-14, RC5, RC6
    gates = Gates()
    holder, waiter = puppet(system), puppet(system)

    def hold(_: Any) -> None:
        with unique.lock("k"):
            gates.hold("holding")

    def queue_up(_: Any) -> None:
        with unique.lock("k", timeout=30):
            raise AssertionError("a dead waiter must be passed over")

    holder.cast(hold)
    gates.wait_for("holding")
    waiter.cast(queue_up)
    eventually(lambda: len(unique._locks._queues.under("k")) == 2)
    waiter.kill()
    holder.kill()
    with unique.lock("k", timeout=5):
        assert len(unique._locks._queues.under("k")) == 1
        gates.open_all()
    assert len(unique._locks._queues) == 0


def test_an_actor_that_would_wait_for_itself_is_told_at_once(unique: Registry, one: Ref) -> None:  # REG-14
    def twice() -> None:
        with unique.lock("k"), unique.lock("k", timeout=None):
            pass

    with pytest.raises(DeadlockDetected):
        within(one, twice)
    assert len(unique._locks._queues) == 0


def test_a_lock_that_many_share_is_held_by_one_of_them_at_a_time(unique: Registry) -> None:  # REG-14
    shared, order = unique.lock("k", timeout=5), []
    two_wait = threading.Event()

    def work(number: int) -> None:
        with shared:
            order.append(f"{number} in")
            two_wait.wait(60)
            order.append(f"{number} out")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for number, thread in enumerate(threads):
        thread.start()
        eventually(lambda number=number: len(unique._locks._queues.under("k")) == number + 1)
    two_wait.set()
    for thread in threads:
        thread.join(60)
    assert order == [f"{number} {way}" for number in range(3) for way in ("in", "out")]
    assert len(unique._locks._queues) == 0


def test_waiting_for_a_lock_ends_in_time_and_leaves_the_queue(unique: Registry) -> None:  # REG-14
    with unique.lock("k"):
        with pytest.raises(LockTimeout), unique.lock("k", timeout=0.01):
            pass
        assert len(unique._locks._queues.under("k")) == 1
    assert len(unique._locks._queues) == 0


def test_a_coroutine_waits_for_a_lock_without_stopping_its_loop(unique: Registry) -> None:  # REG-14
    async def main() -> list[str]:
        order: list[str] = []

        async def first() -> None:
            async with unique.lock("k"):
                order.append("first in")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                order.append("first out")

        async def second() -> None:
            async with unique.lock("k"):
                order.append("second in")

        await asyncio.gather(first(), second())
        with pytest.raises(LockTimeout):
            async with unique.lock("k"), unique.lock("k", timeout=0.01):
                pass
        return order

    assert asyncio.run(main()) == ["first in", "first out", "second in"]
    assert len(unique._locks._queues) == 0


def test_asking_by_an_unregistered_key_says_so(system: ActorSystem, unique: Registry) -> None:  # REG-11
    assert system.whereis(unique.via("nobody")) is None
    with pytest.raises((NoSuchActor, AttributeError)):
        system.whereis(unique.via("nobody")).call("x")  # type: ignore[union-attr]
