"""The contract with Pykka: the private names we rest on, and what Pykka's users may expect of our actors."""

import inspect
import logging
from collections.abc import Iterator
from typing import Any

import pykka
import pytest
from pykka import ActorRegistry, messages

from mlld_sdk.actors.core.actor import Actor, PykkaActor
from mlld_sdk.actors.core.errors import ActorDead, StartFailed
from mlld_sdk.actors.core.exits import NORMAL, Crash
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.pykka_compat import RefTable
from mlld_sdk.actors.core.system import ActorSystem, default_system
from tests.support.actors import Gate, boom
from tests.support.eventually import eventually


@pytest.fixture
def stop_all() -> Iterator[None]:
    yield
    ActorRegistry.stop_all(timeout=10)


# -- what we take from Pykka's inside


def test_the_private_names_we_use_exist_as_we_use_them() -> None:  # PYK-3
    assert messages._ActorStop() == ()
    assert list(inspect.signature(pykka.Actor._handle_receive).parameters) == ["self", "message"]
    assert hasattr(ActorRegistry, "_actor_refs")
    assert hasattr(ActorRegistry._actor_refs_lock, "acquire")
    source = inspect.getsource(pykka.ActorProxy)
    assert "actor_ref._actor_weakref()" in source
    for seam in ("_create_actor_inbox", "_create_future", "_start_actor_loop"):
        assert callable(getattr(pykka.Actor, seam))


def test_pykkas_registry_uses_its_table_only_in_ways_ours_supports() -> None:
    table = RefTable(["a", "b"])
    table.append("c")
    table.remove("a")
    with pytest.raises(ValueError, match="a"):
        table.remove("a")
    assert ("b" in table, "a" in table, len(table), list(table), table[:]) == (True, False, 2, ["b", "c"], ["b", "c"])
    assert list(reversed(table)) == ["c", "b"]


def test_what_pykkas_future_needs_of_a_subclass_is_there() -> None:
    assert set(inspect.signature(pykka.Future.get).parameters) == set(inspect.signature(Future.get).parameters)
    assert "self.__class__()" in inspect.getsource(pykka.Future.map)


# -- what Pykka's users may expect


class Calculator(PykkaActor):
    total = 0

    def add(self, number: int) -> int:
        self.total += number
        return self.total

    def fail(self) -> None:
        raise LookupError("no")

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message


@pytest.mark.usefixtures("stop_all")
def test_proxies_call_read_and_set() -> None:  # PYK-1
    proxy = Calculator.start().proxy()
    assert proxy.add(2).get(timeout=10) == 2
    proxy.total = 40
    assert proxy.total.get(timeout=10) == 40
    proxy.add.defer(1)
    assert proxy.add(1).get(timeout=10) == 42
    proxy.stop().get(timeout=10)
    eventually(lambda: not proxy.actor_ref.is_alive())


@pytest.mark.usefixtures("stop_all")
def test_a_pykka_actor_survives_an_asked_exception_and_dies_of_a_told_one(
    caplog: pytest.LogCaptureFixture,
) -> None:  # PYK-2
    caplog.set_level(logging.INFO, "pykka")
    ref = Calculator.start()
    with pytest.raises(LookupError):
        ref.proxy().fail().get(timeout=10)
    assert ref.ask("alive") == "alive"
    ref.proxy().fail.defer()
    assert isinstance(ref.join(10), Crash)
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]


@pytest.mark.usefixtures("stop_all")
def test_a_pykka_actor_handles_what_was_sent_before_the_stop() -> None:  # PYK-2
    ref, gate = Calculator.start(), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    before = ref.ask("before", block=False)
    stopping = ref.stop(block=False)
    after = ref.ask("after", block=False)
    gate.open.set()
    assert before.get(timeout=10) == "before"
    assert stopping.get(timeout=10) is True
    with pytest.raises(ActorDead):
        after.get(timeout=10)


@pytest.mark.usefixtures("stop_all")
def test_a_failing_on_start_does_not_reach_the_starter_of_a_pykka_actor() -> None:  # PYK-2
    class Bad(PykkaActor):
        def on_start(self) -> None:
            raise ValueError("no")

    ref = Bad.start()
    assert isinstance(ref.join(10), Crash)
    assert not ref.is_alive()

    class AlsoBad(Actor):
        on_start = Bad.on_start

    with pytest.raises(StartFailed):
        AlsoBad.start()


@pytest.mark.usefixtures("stop_all")
def test_an_actor_made_by_hand_and_started_through_pykkas_own_start_works() -> None:
    ref = pykka.Actor.start.__func__(Calculator)  # type: ignore[attr-defined]
    assert ref.ask("x") == "x"
    assert ref.system is default_system()
    assert ref.stop()


@pytest.mark.usefixtures("stop_all")
def test_pykkas_envelopes_stop_messages_and_broadcasts_are_understood() -> None:  # PYK-1
    ref = Calculator.start()
    ActorRegistry.broadcast(lambda me: me.add(1), Calculator)
    assert ref.proxy().total.get(timeout=10) == 1
    ref.ask(messages._ActorStop())
    assert ref.reason == NORMAL
    assert ref not in ActorRegistry.get_all()
    assert ref.actor_inbox.empty()
    assert ref.actor_stopped.is_set()
    assert ref.actor_stopped.wait(60)


@pytest.mark.usefixtures("stop_all")
def test_ten_thousand_registered_actors_leave_one_by_one_quickly() -> None:
    refs = [Calculator.start() for _ in range(10_000)]
    assert len(ActorRegistry.get_all()) == 10_000
    for ref in reversed(refs):
        ref.kill()
    assert ActorRegistry.get_all() == []


def test_a_pykka_actor_can_live_in_a_system_of_its_own(system: ActorSystem) -> None:
    ref = system.start(Calculator, name="c")
    with pytest.raises(ValueError, match="boom"):
        ref.ask(boom)
    assert ref.call("alive") == "alive"
    assert ref not in ActorRegistry.get_all()
