"""Registries against a plain list, whatever is registered, given back, updated and killed, by whomever."""

import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mlld_sdk.actors.core.errors import ActorDead, ActorKilled
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.pubsub.groups import Groups
from mlld_sdk.actors.pubsub.pubsub import PubSub
from mlld_sdk.actors.registry.errors import NameTaken, NotRegistered
from mlld_sdk.actors.registry.registry import Registry
from mlld_sdk.actors.registry.table import Table
from mlld_sdk.actors.tasks.task_supervisor import Tasks
from tests.support.libraries import Gates, Ref, puppet

KEYS = st.sampled_from(["a", 1, 1.0, ("a", 1)])
WHO = st.integers(0, 3)


class Model(RuleBasedStateMachine):
    unique = True

    @initialize()
    def begin(self) -> None:
        self.system = ActorSystem("model")
        self.registry = Registry(self.system, "r", keys="unique" if self.unique else "duplicate")
        self.refs = [puppet(self.system) for _ in range(4)]
        self.rows: list[tuple[Any, Ref, int]] = []
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "system"):
            self.system.stop()

    def held(self, key: Any) -> list[tuple[Any, Ref, int]]:
        return [row for row in self.rows if type(row[0]) is type(key) and row[0] == key]

    @rule(key=KEYS, who=WHO)
    def register(self, key: Any, who: int) -> None:
        ref = self.refs[who]
        self.number += 1
        if self.unique and self.held(key):
            with pytest.raises(NameTaken) as taken:
                self.registry.register(key, self.number, ref=ref)
            assert taken.value.holder is self.held(key)[0][1]
        else:
            self.registry.register(key, self.number, ref=ref)
            self.rows.append((key, ref, self.number))

    @rule(key=KEYS, who=WHO, some=st.booleans())
    def unregister(self, key: Any, who: int, some: bool) -> None:
        ref = self.refs[who]
        where = (lambda value: value % 2 == 0) if some else (lambda value: True)
        self.registry.unregister(key, where=where, ref=ref)
        gone = [row for row in self.held(key) if row[1] is ref and where(row[2])]
        self.rows = [row for row in self.rows if row not in gone]

    @rule(key=KEYS, who=WHO)
    def update(self, key: Any, who: int) -> None:
        if not self.unique:
            return
        ref, mine = self.refs[who], [row for row in self.held(key) if row[1] is self.refs[who]]
        if not mine:
            with pytest.raises(NotRegistered):
                self.registry.update_value(key, lambda value: value + 100, ref=ref)
            return
        assert self.registry.update_value(key, lambda value: value + 100, ref=ref) == (mine[0][2] + 100, mine[0][2])
        self.rows[self.rows.index(mine[0])] = (mine[0][0], ref, mine[0][2] + 100)

    @rule(who=WHO)
    def kill(self, who: int) -> None:
        dead = self.refs[who]
        dead.kill()
        self.rows = [row for row in self.rows if row[1] is not dead]
        with pytest.raises(ActorDead):
            self.registry.register("never held", ref=dead)
        self.refs[who] = puppet(self.system)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "rows"):
            return
        for key in ("a", 1, 1.0, ("a", 1)):
            assert [tuple(row) for row in self.registry.lookup(key)] == self.held(key)
        assert len(self.registry) == len(self.registry.select()) == len(self.rows)
        assert set(self.registry._watches._watches) == {row[1] for row in self.rows}
        for ref in self.refs:
            assert sorted(map(str, self.registry.keys(ref))) == sorted(
                str(row[0]) for row in self.rows if row[1] is ref
            )


class Duplicate(Model):
    unique = False


TestUnique = Model.TestCase
TestDuplicate = Duplicate.TestCase
TestUnique.settings = TestDuplicate.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


def test_what_the_rest_of_a_killed_actor_does_has_no_effect() -> None:  # T-1
    with ActorSystem("fenced") as system:
        registry, groups, topics = Registry(system, "r", keys="duplicate"), Groups(system), PubSub(system)
        table = Table(system, "t", access="public")
        tasks = Tasks.start(system)
        gates, victim, other = Gates(), puppet(system), puppet(system)
        refused: list[bool] = []

        def live_on(_: Any) -> None:
            gates.hold()
            for step in (
                lambda: registry.register("k", ref=other),
                lambda: groups.join("g", other),
                lambda: topics.subscribe("a", ref=other),
                lambda: topics.broadcast("a", 1),
                lambda: topics.listen("a"),
                lambda: table.put("k", 1),
                lambda: tasks.async_nolink(int),
            ):
                try:
                    step()
                except ActorKilled:
                    refused.append(True)
            gates.let("done")

        victim.cast(live_on)
        gates.wait_for()
        victim.kill()
        gates.let()
        gates.hold("done")
        assert refused == [True] * 7
        assert (len(registry), groups.which_groups(), topics.subscribers("a"), len(table)) == (0, [], [], 0)
        assert (tasks.children(), tasks._count) == ([], 0)


def test_a_unique_key_never_has_two_live_holders_however_many_race_for_it() -> None:
    """Threads register, give back and kill for the same few keys; afterwards nothing of the dead is left."""
    rounds, keys = 1_000, ("a", "b")
    with ActorSystem("race", switch_interval=1e-6) as system:
        registry = Registry(system, "r", keys="unique")
        wrong: list[Any] = []

        def race() -> None:
            for number in range(rounds):
                ref = puppet(system)
                key = keys[number % 2]
                try:
                    registry.register(key, ref=ref)
                except NameTaken as taken:
                    if taken.holder is ref:
                        wrong.append("refused by itself")
                else:
                    if registry.whereis(key) not in (ref, None):
                        wrong.append("two holders")
                    if number % 3 == 0:
                        registry.unregister(key, ref=ref)
                ref.kill()
                if registry.keys(ref):
                    wrong.append("the dead hold keys")

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert (len(registry), registry._watches._watches, registry._rows._by_owner) == (0, {}, {})
