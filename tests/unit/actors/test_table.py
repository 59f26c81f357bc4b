"""Shared tables: read by anybody without a message, written by those who may, gone or inherited with the owner."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.errors import ActorDead, NotOwner, UnknownName
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.registry.errors import TableClosed, TableFull
from mlld_sdk.actors.registry.table import Table, TableGiven
from mlld_sdk.base.errors import ConfigurationError
from tests.support.libraries import Gates, Ref, fresh_system, puppet, seen, within


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with fresh_system() as (system, _):
        yield system


@pytest.fixture
def one(system: ActorSystem) -> Ref:
    return puppet(system)


@pytest.fixture
def two(system: ActorSystem) -> Ref:
    return puppet(system)


def test_values_are_written_read_changed_and_removed(system: ActorSystem) -> None:
    table = Table(system, "t")
    table.put("a", 1)
    table.put("a", 2)
    assert (table.put_new("a", 3), table.put_new("b", 4)) == (False, True)
    assert (table["a"], table.get("b"), table.get("c", "none"), "b" in table, len(table)) == (2, 4, "none", True, 2)
    assert (table.update("a", lambda value: value * 10), table.update("n", lambda value: value, "new")) == (20, "new")
    assert [table.update_counter("hits") for _ in range(3)] == [1, 2, 3]
    assert table.update_counter("down", -2, start=10) == 8
    assert (table.take("a"), table.take("a", "gone")) == (20, "gone")
    table.delete("a")
    assert table.items(lambda key, value: isinstance(value, int)) == [("b", 4), ("hits", 3), ("down", 8)]
    table.clear()
    assert table.items() == []
    with pytest.raises(KeyError):
        table["a"]


def test_a_stored_none_is_a_value(system: ActorSystem) -> None:
    table = Table(system, "t")
    table.put("a", None)
    assert (table["a"], table.get("a", "default"), "a" in table) == (None, None, True)


def test_keys_are_strict(system: ActorSystem) -> None:  # as REG-3
    table = Table(system, "t")
    for key in (1, 1.0, True, (1,), (1.0,)):
        table.put(key, type(key))
    assert len(table) == 5
    assert table[1.0] is float


def test_tables_are_found_by_name(system: ActorSystem) -> None:
    table = Table(system, "t")
    assert Table.of(system, "t") is table
    with pytest.raises(UnknownName):
        Table.of(system, "u")
    with pytest.raises(ConfigurationError):
        Table(system, "t")
    table.drop()
    Table(system, "t")


@pytest.mark.parametrize(
    "option", [{"access": "open"}, {"limit": 0}, {"when_full": "panic"}], ids=lambda option: next(iter(option))
)
def test_bad_options_are_named(system: ActorSystem, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        Table(system, "t", **option)


def test_who_may_write_and_read_is_what_access_says(system: ActorSystem, one: Ref, two: Ref) -> None:  # TBL-2
    tables = {
        access: within(one, lambda access=access: Table(system, access, access=access))
        for access in ("public", "protected", "private")
    }
    for table in tables.values():
        within(one, lambda table=table: table.put("k", 1))
    within(two, lambda: tables["public"].put("k", 2))
    assert within(two, lambda: tables["protected"]["k"]) == 1
    for forbidden in (
        lambda: tables["protected"].put("k", 2),
        lambda: tables["protected"].clear(),
        lambda: tables["private"].get("k"),
        lambda: "k" in tables["private"],
        lambda: tables["public"].drop(),
        lambda: tables["public"].give(two),
    ):
        with pytest.raises(NotOwner):
            within(two, forbidden)
        with pytest.raises(NotOwner):
            forbidden()


def test_reading_sends_no_message_and_waits_for_no_one(system: ActorSystem, one: Ref) -> None:  # TBL-1
    table = within(one, lambda: Table(system, "t"))
    within(one, lambda: table.put("k", 1))
    gates, handled = Gates(), one.info().handled
    one.cast(lambda _: gates.hold())
    gates.wait_for()
    with table._lock:
        reader = threading.Thread(target=lambda: (table["k"], len(table), "k" in table))
        reader.start()
        reader.join(60)
        assert not reader.is_alive()
    assert one.info().handled == handled + 1
    gates.open_all()


def test_a_full_table_refuses_or_evicts_as_it_was_told(system: ActorSystem) -> None:  # TBL-4
    refusing = Table(system, "refusing", limit=2)
    oldest = Table(system, "oldest", limit=2, when_full="evict_oldest")
    unused = Table(system, "unused", limit=2, when_full="evict_least_used")
    for table in (refusing, oldest, unused):
        table.put("a", 1)
        table.put("b", 2)
        table.put("a", 3)
        assert table["a"] == 3
    with pytest.raises(TableFull, match="limit of 2"):
        refusing.put("c", 4)
    oldest.put("c", 4)
    unused.put("c", 4)
    assert (refusing.items(), oldest.items(), unused.items()) == (
        [("a", 3), ("b", 2)],
        [("b", 2), ("c", 4)],
        [("a", 3), ("c", 4)],
    )


def test_a_table_is_gone_with_its_owner(system: ActorSystem, one: Ref) -> None:  # TBL-3
    table = within(one, lambda: Table(system, "t", access="public"))
    one.kill()
    for use in (lambda: table.get("k"), lambda: table.put("k", 1), lambda: len(table), table.items):
        with pytest.raises(TableClosed):
            use()
    with pytest.raises(UnknownName):
        Table.of(system, "t")


def test_an_heir_gets_the_table_with_what_is_in_it(system: ActorSystem, one: Ref, two: Ref) -> None:  # TBL-3
    table = within(one, lambda: Table(system, "t", heir=two, heir_data="will"))
    within(one, lambda: table.put("k", 1))
    one.kill()
    assert (table["k"], table.owner) == (1, two)
    assert seen(two) == [TableGiven(table, one, "will")]
    within(two, lambda: table.put("k", 2))
    two.kill()
    with pytest.raises(TableClosed):
        table.get("k")


def test_a_dead_heir_inherits_nothing(system: ActorSystem, one: Ref, two: Ref) -> None:  # TBL-3
    table = within(one, lambda: Table(system, "t"))
    within(one, lambda: table.set_heir(two))
    two.kill()
    one.kill()
    with pytest.raises(TableClosed):
        table.get("k")


def test_an_owner_gives_its_table_away(system: ActorSystem, one: Ref, two: Ref) -> None:  # TBL-3
    table = within(one, lambda: Table(system, "t"))
    within(one, lambda: table.give(two, "here"))
    assert seen(two) == [TableGiven(table, one, "here")]
    one.kill()
    within(two, lambda: table.put("k", 1))
    assert set(table._watches._watches) == {two}
    dead = puppet(system)
    dead.kill()
    with pytest.raises(ActorDead):
        within(two, lambda: table.give(dead))
    assert table.owner is two


def test_a_table_of_the_code_outside_actors_lives_with_the_system(system: ActorSystem, one: Ref) -> None:
    # TBL-2, TBL-3
    table = Table(system, "t")
    table.put("k", 1)
    assert within(one, lambda: table["k"]) == 1
    with pytest.raises(NotOwner):
        within(one, lambda: table.put("k", 2))


def test_updates_of_many_threads_are_all_counted(system: ActorSystem) -> None:  # TBL-5
    table = Table(system, "t", access="public")
    threads = [threading.Thread(target=lambda: [table.update_counter("n") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table["n"] == 2_000
