"""The short way out: an idle actor that has nothing to do at its end needs no worker for it."""

import threading
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import PykkaActor
from mlld_sdk.actors.core.errors import ActorDead
from mlld_sdk.actors.core.exits import NORMAL, SHUTDOWN, Killed
from mlld_sdk.actors.core.system import ActorSystem
from tests.support.actors import Gate, Notices, Puppet, notices_of
from tests.support.eventually import eventually
from tests.support.trees import attempt


class Closes(Puppet):
    def on_stop(self) -> None:
        self.ended.append("closed")


class AsksFirst(Puppet):
    def on_end_request(self, reason: Any) -> bool:
        return True


class OldSchool(PykkaActor):
    pass


def test_an_idle_actor_ends_at_once_and_everybody_learns_of_it(system: ActorSystem) -> None:
    watcher, target = system.start(Notices), system.start(Puppet, name="target")
    watcher.ask(lambda me: [me.link(target), me.monitor(target)])
    assert target.cell.retire(SHUTDOWN)
    assert target.reason == SHUTDOWN
    assert system.whereis("target") is None
    assert {(type(notice).__name__, notice.reason) for notice in notices_of(watcher, 2)} == {
        ("Exit", SHUTDOWN),
        ("Down", SHUTDOWN),
    }
    with pytest.raises(ActorDead):
        target.ask("anybody?")
    assert target.cell.retire(NORMAL)  # nothing more happens
    assert target.reason == SHUTDOWN


@pytest.mark.parametrize("kind", [Closes, AsksFirst, OldSchool])
def test_one_with_code_for_its_end_has_to_be_asked(system: ActorSystem, kind: type[Any]) -> None:
    ref = system.start(kind)
    assert not ref.cell.retire(SHUTDOWN)
    assert ref.is_alive()
    ref.kill()


def test_one_that_works_has_to_be_asked(system: ActorSystem) -> None:
    ref, gate = system.start(Puppet), Gate()
    answer = ref.request(gate)
    assert gate.entered.wait(60)
    assert not ref.cell.retire(SHUTDOWN)
    gate.open.set()
    assert answer.get(timeout=5) == "through"


def test_one_whose_start_is_not_over_has_to_be_asked(system: ActorSystem) -> None:
    cell = system.create(Puppet, (), None)
    assert not cell.retire(SHUTDOWN)
    assert cell.open()
    assert cell.retire(SHUTDOWN)


def test_what_waits_for_a_suspended_actor_is_refused(system: ActorSystem) -> None:
    ref = system.start(Puppet)
    ref.suspend()
    answer = ref.request("hello")
    eventually(lambda: ref.cell.retire(SHUTDOWN))
    assert isinstance(answer.exception(), ActorDead)
    assert ref.cell.mailbox.queued() == (0, 0)


def test_no_answer_is_lost_when_messages_and_the_end_meet(system: ActorSystem) -> None:  # T-10
    for _ in range(300):
        ref = system.start(Puppet)
        asked = threading.Barrier(2)
        answers: list[Any] = []

        def ask(ref: Any = ref, asked: Any = asked, answers: Any = answers) -> None:
            asked.wait(60)
            answers.extend(ref.request(number) for number in range(3))

        sender = threading.Thread(target=ask)
        sender.start()
        asked.wait(60)
        while not ref.cell.retire(SHUTDOWN):
            pass
        sender.join(60)
        for number, answer in enumerate(answers):
            found = attempt(lambda answer=answer: answer.get(timeout=5))
            assert found == number or isinstance(found, ActorDead)


def test_a_start_is_told_of_once_even_if_a_kill_comes_in_between(system: ActorSystem) -> None:
    class Told:
        def __init__(self) -> None:
            self.of: list[str] = []

        def try_set(self, _: Any) -> None:
            self.of.append("up")

        def try_set_exception(self, _: BaseException) -> None:
            self.of.append("down")

    seen = set()
    for number in range(300):
        cell, told = system.create(Puppet, (), None), Told()
        cell.tell_when_started(told)
        killer = threading.Thread(target=cell.kill, args=(Killed("at any time"),))
        if number % 3 == 0:
            cell.open()
        killer.start()
        cell.open() if number % 3 == 1 else None
        killer.join(60)
        assert len(told.of) == 1
        seen.add(told.of[0])
    assert seen == {"up", "down"}
    late = Told()
    cell.tell_when_started(late)
    assert late.of == ["down"]
