"""The mailbox by itself: order, limit, policies, close; and a state machine that tries everything."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import integers, sampled_from

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.class_options import Overflow
from mlld_sdk.actors.core.errors import ActorDead, MailboxFull
from mlld_sdk.actors.core.events import MailboxOverflowed
from mlld_sdk.actors.core.exits import NORMAL, Reason
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.mailbox import Mailbox, SystemMessage, take
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.errors import ConfigurationError
from tests.support.actors import Gate, Puppet, Sink, seen_by


class Owner:
    """The owner of a mailbox, that never runs by itself."""

    def __init__(self, policy: Overflow) -> None:
        self.ending: Reason | None = None
        self.traits = SimpleNamespace(overflow=policy, overflow_timeout=0.0)
        self.lost: list[Any] = []
        self.scheduled = 0

    def schedule(self, _: Any) -> None:
        self.scheduled += 1

    def dead(self) -> ActorDead:
        return ActorDead("closed")

    def overflowed(self) -> None:
        pass

    def undelivered(self, message: Any) -> None:
        self.lost.append(message)


class Box(Mailbox):
    """A mailbox, with what its owner is told."""

    __slots__ = ()
    owner: Owner

    def __init__(self, limit: int | None = None, policy: Overflow = "refuse") -> None:
        owner = Owner(policy)
        super().__init__(owner, owner, owner.schedule, limit)

    def close(self) -> None:
        self.owner.ending = NORMAL


class Note(SystemMessage):
    def __init__(self) -> None:
        self.refused = False

    def refuse(self, why: ActorDead) -> None:
        self.refused = True


class MailboxMachine(RuleBasedStateMachine):
    """Whatever is done to a mailbox, every message is handled, dropped by name or refused: exactly one of these."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Box()
        self.model: list[tuple[int, Future[Any] | None]] = []
        self.number = 0
        self.futures: list[Future[Any]] = []
        self.answered: dict[int, str] = {}
        self.told_lost: list[int] = []

    @precondition(lambda self: not self.model and self.box.owner.ending is None)
    @rule(limit=integers(1, 4), policy=sampled_from(["refuse", "drop_newest", "drop_oldest"]))
    def choose_a_limit(self, limit: int, policy: Overflow) -> None:
        self.box.limit, self.box.owner.traits.overflow = limit, policy

    @rule(asks=sampled_from([True, False]))
    def send(self, asks: bool) -> None:
        self.number += 1
        future: Future[Any] | None = Future() if asks else None
        entry = (self.number, future)
        full = self.box.limit is not None and len(self.model) >= self.box.limit
        if self.box.owner.ending is not None:
            with pytest.raises(ActorDead):
                self.box.post(entry)
        elif full and self.box.owner.traits.overflow == "refuse":
            with pytest.raises(MailboxFull):
                self.box.post(entry)
        elif full and self.box.owner.traits.overflow == "drop_newest":
            self.box.post(entry)
            self._expect_dropped(entry)
        elif full:
            self.box.post(entry)
            self._expect_dropped(self.model.pop(0))
            self.model.append(entry)
        else:
            self.box.post(entry)
            self.model.append(entry)

    def _expect_dropped(self, entry: tuple[int, Future[Any] | None]) -> None:
        if entry[1] is None:
            assert self.box.owner.lost[-1] == entry[0]
        else:
            assert isinstance(entry[1].exception(), MailboxFull)

    @rule()
    def take(self) -> None:
        entry = take(self.box.user)
        assert entry == (self.model.pop(0) if self.model else None)
        if entry is not None and entry[1] is not None:
            assert entry[1].try_set("handled")

    @rule()
    def close(self) -> None:
        self.box.close()
        assert self.box.drain() == len(self.model)
        for number, future in self.model:
            if future is None:
                assert number in self.box.owner.lost
            else:
                assert isinstance(future.exception(), ActorDead)
        self.model.clear()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert self.box.queued()[0] == len(self.model)
        assert self.box.limit is None or len(self.model) <= self.box.limit

    @invariant()
    def is_scheduled_if_there_is_something_to_do(self) -> None:
        assert not self.model or self.box.owner.scheduled == 1


MailboxMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMailboxMachine = MailboxMachine.TestCase  # BOX-2, BOX-3


def test_the_system_lane_is_taken_by_itself_and_refused_at_the_close() -> None:  # T-3, BOX-1
    box, first, second = Box(), Note(), Note()
    box.post((1, None))
    box.post_system(first)
    box.post_system(second)
    assert box.alarm
    assert box.queued() == (1, 2)
    assert take(box.system_lane) is first
    box.close()
    assert box.drain() == 1
    assert (first.refused, second.refused) == (False, True)
    late = Note()
    box.post_system(late)
    assert late.refused


def test_a_notice_of_the_runtime_passes_a_full_mailbox() -> None:  # BOX-2
    box = Box(limit=1)
    box.post((1, None))
    box.post_always((2, None))
    assert box.queued() == (2, 0)


def test_a_blocked_sender_goes_on_when_there_is_room_and_gives_up_in_time(system: ActorSystem) -> None:  # BOX-2
    class Narrow(Puppet):
        mailbox_limit = 2
        overflow = "block"
        overflow_timeout = 20.0

    class Impatient(Narrow):
        overflow_timeout = 0.01

    ref, gate = system.start(Narrow), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    sending = threading.Thread(target=lambda: [ref.tell(number) for number in range(10)])
    sending.start()
    gate.open.set()
    sending.join(60)
    assert not sending.is_alive()
    assert seen_by(ref) == list(range(10))
    ref, gate = system.start(Impatient), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    ref.tell(1)
    ref.tell(2)
    with pytest.raises(MailboxFull) as caught:
        ref.tell(3)
    assert caught.value.limit == 2
    gate.open.set()


def test_an_actor_is_never_blocked_on_its_own_mailbox(system: ActorSystem) -> None:  # BOX-2
    class Narrow(Puppet):
        mailbox_limit = 1
        overflow = "block"
        answers = (MailboxFull,)

    ref = system.start(Narrow)
    with pytest.raises(MailboxFull):
        ref.ask(lambda me: [me.actor_ref.tell(number) for number in range(2)], timeout=10)


def test_a_refused_ask_is_answered_and_a_refused_tell_raises(system: ActorSystem, sink: Sink) -> None:  # BOX-2
    class Narrow(Puppet):
        mailbox_limit = 1

    ref, gate = system.start(Narrow), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    ref.tell("fills it")
    with pytest.raises(MailboxFull):
        ref.tell("too much")
    with pytest.raises(MailboxFull):
        ref.ask("too much")
    assert isinstance(ref.request("too much").exception(), MailboxFull)
    ref.cast("dropped")
    assert system.counters.dropped_messages == 1
    assert [(event.limit, event.policy) for event in sink.of(MailboxOverflowed)] == [(1, "refuse")]
    gate.open.set()
    ref.stop(drain=True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("slice", 0),
        ("mailbox_limit", 0),
        ("overflow", "explode"),
        ("overflow_timeout", -1),
        ("answers", (BaseException,)),
        ("idle_after", 0),
    ],
)
def test_a_bad_option_of_a_class_is_named_with_its_value(system: ActorSystem, option: str, value: Any) -> None:
    bad = type("Bad", (Actor,), {option: value})
    with pytest.raises(ConfigurationError, match=option) as caught:
        system.start(bad)
    assert repr(value) in str(caught.value)


def test_a_slice_gives_others_their_turn(system: ActorSystem) -> None:  # BOX-4
    class Short(Puppet):
        slice = 2

    order: list[str] = []
    one, two, gate = system.start(Short), system.start(Short), Gate()
    blocker = system.start(Puppet)
    blocker.tell(gate)
    assert gate.entered.wait(60)
    system.scheduler.max_workers = system.scheduler.size  # no helpers: one worker, so the order is the queue's
    for number in range(4):
        one.tell(lambda me, number=number: order.append(f"one {number}"))
    for number in range(4):
        two.tell(lambda me, number=number: order.append(f"two {number}"))
    gate.open.set()
    one.ask("done")
    two.ask("done")
    assert sorted(order, key=lambda item: item.split()[0]) == [f"{who} {n}" for who in ("one", "two") for n in range(4)]
    assert order.index("two 0") < order.index("one 3")
