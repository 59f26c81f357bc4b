"""Topics: who gets what is broadcast, and what happens to the slow."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import AskTimeout, NotAnActor, UnknownName
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.pubsub.errors import Unsubscribed
from mlld_sdk.actors.pubsub.outlet import Lagged, Resumed
from mlld_sdk.actors.pubsub.pubsub import Listener, PubSub, Subscription
from tests.support.libraries import Clock, Gates, Ref, fresh_system, puppet, seen, within


@pytest.fixture
def world() -> Iterator[tuple[ActorSystem, Clock]]:
    with fresh_system() as (system, clock):
        yield system, clock


@pytest.fixture
def system(world: tuple[ActorSystem, Clock]) -> ActorSystem:
    return world[0]


@pytest.fixture
def topics(system: ActorSystem) -> PubSub:
    return PubSub(system)


@pytest.fixture
def one(system: ActorSystem) -> Ref:
    return puppet(system)


@pytest.fixture
def two(system: ActorSystem) -> Ref:
    return puppet(system)


def test_a_broadcast_reaches_every_subscriber_of_its_topic_and_no_other(topics: PubSub, one: Ref, two: Ref) -> None:
    # PUB-2, PU1, PU2, PU3
    within(one, lambda: topics.subscribe("a"))
    topics.subscribe("a", ref=two)
    topics.subscribe("b", ref=two)
    topics.broadcast("a", "to both")
    topics.broadcast("b", "to two")
    topics.broadcast("c", "to nobody")
    assert (seen(one), seen(two)) == (["to both"], ["to both", "to two"])


def test_subscribing_twice_delivers_twice_and_one_unsubscribe_ends_both(topics: PubSub, one: Ref) -> None:  # PUB-1
    within(one, lambda: (topics.subscribe("a"), topics.subscribe("a")))
    topics.broadcast("a", 1)
    within(one, lambda: topics.unsubscribe("a"))
    topics.broadcast("a", 2)
    assert seen(one) == [1, 1]
    assert (topics.subscribers("a"), topics._watches._watches) == ([], {})


def test_unsubscribing_without_a_subscription_is_fine(topics: PubSub, one: Ref) -> None:  # PUB-1, PU5
    within(one, lambda: topics.unsubscribe("never"))


def test_only_actors_subscribe_without_saying_who(topics: PubSub) -> None:
    with pytest.raises(NotAnActor):
        topics.subscribe("a")


def test_a_broadcast_may_leave_out_its_sender(topics: PubSub, one: Ref, two: Ref) -> None:  # PUB-2, PU4
    for ref in (one, two):
        topics.subscribe("a", ref=ref)
    within(one, lambda: topics.broadcast_from("a", "not to me"))
    topics.broadcast_from("a", "nor to two", sender=two)
    topics.broadcast_from("a", "from nobody")
    assert (seen(one), seen(two)) == (["nor to two", "from nobody"], ["not to me", "from nobody"])


def test_death_unsubscribes(topics: PubSub, one: Ref, two: Ref) -> None:  # PUB-3
    for ref in (one, two):
        topics.subscribe("a", ref=ref)
    one.kill()
    assert [entry.ref for entry in topics.subscribers("a")] == [two]
    assert set(topics._watches._watches) == {two}


def test_what_one_sender_broadcasts_arrives_in_its_order(topics: PubSub, one: Ref) -> None:  # PUB-3
    topics.subscribe("a", ref=one)
    for number in range(500):
        topics.broadcast("a", number)
    assert seen(one) == list(range(500))


def test_a_dispatcher_sees_metadata_and_decides_about_delivery(system: ActorSystem, one: Ref, two: Ref) -> None:
    # PUB-4, PU7
    calls: list[Any] = []

    def by_tenant(entries: Sequence[Subscription | Listener], sender: Ref | None, message: Any) -> None:
        calls.append((len(entries), sender))
        for entry in entries:
            if entry.metadata == message[0]:
                entry.send(message)

    topics = PubSub(system, "by tenant", dispatcher=by_tenant)
    topics.subscribe("a", "red", ref=one)
    topics.subscribe("a", "blue", ref=two)
    topics.broadcast("a", ("blue", 1))
    within(one, lambda: topics.broadcast_from("a", ("red", 2)))
    topics.broadcast("a", ("all", 3), dispatcher=lambda entries, sender, message: [e.send(message) for e in entries])
    topics.broadcast("nobody", ("red", 4))
    assert (seen(one), seen(two)) == ([("red", 2), ("all", 3)], [("blue", 1), ("all", 3)])
    assert calls == [(2, None), (2, one)]


def test_topic_spaces_are_found_by_name_and_apart(system: ActorSystem, topics: PubSub, one: Ref) -> None:
    assert PubSub.of(system) is topics
    with pytest.raises(UnknownName):
        PubSub.of(system, "other")
    PubSub(system, "other").subscribe("a", ref=one)
    topics.broadcast("a", 1)
    assert seen(one) == []


# -- the slow


def test_a_slow_subscriber_holds_up_nobody_learns_of_its_gap_and_stays_subscribed(
    world: tuple[ActorSystem, Clock], topics: PubSub, one: Ref
) -> None:  # PUB-5
    system, clock = world
    slow, gates = puppet(system), Gates()
    subscription = topics.subscribe("a", limit=4, ref=slow)
    topics.subscribe("a", ref=one)
    slow.cast(lambda _: gates.hold())
    gates.wait_for()
    for number in range(10):
        topics.broadcast("a", number)
    assert seen(one) == list(range(10))
    assert (subscription.missed, slow.info().queued) == (6, 5)
    gates.open_all()
    assert seen(slow) == [0, 1, 2, 3, Lagged("a")]
    topics.broadcast("a", 10)
    assert seen(slow)[5:] == [Resumed("a", 6), 10]
    assert [(event.actor, event.limit) for event in clock.named("subscriber.lagged")] == [(slow.path, 4)]
    assert [(event.actor, event.missed) for event in clock.named("subscriber.resumed")] == [(slow.path, 6)]


def test_a_subscriber_that_lags_again_is_told_again(system: ActorSystem, topics: PubSub) -> None:  # PUB-5
    # One lag must not end a subscription for good.
    slow = puppet(system)
    topics.subscribe("a", limit=2, ref=slow)
    for burst in range(3):
        gates = Gates()
        slow.cast(lambda _, gates=gates: gates.hold())
        gates.wait_for()
        for number in range(4):
            topics.broadcast("a", (burst, number))
        gates.open_all()
        seen(slow)
    got = seen(slow)
    assert [message for message in got if isinstance(message, Lagged)] == [Lagged("a")] * 3
    assert [message for message in got if isinstance(message, Resumed)] == [Resumed("a", 2), Resumed("a", 3)]


def test_a_full_mailbox_is_no_error_for_the_broadcaster(system: ActorSystem, topics: PubSub) -> None:  # PUB-5
    class Small(Actor):
        mailbox_limit = 2
        overflow = "block"

        def on_receive(self, message: Any) -> Any:
            return message() if callable(message) else None

    gates = Gates()
    small = system.start(Small)
    subscription = topics.subscribe("a", ref=small)
    small.cast(gates.hold)
    gates.wait_for()
    for number in range(5):
        topics.broadcast("a", number)
    assert (subscription.missed, small.info().queued) == (3, 3)
    gates.open_all()


# -- listeners


def test_a_thread_listens(topics: PubSub) -> None:  # PUB-6
    with topics.listen("a", "metadata") as listener:
        topics.broadcast("a", 1)
        topics.broadcast_from("a", 2)
        assert [listener.take(), listener.take(timeout=0)] == [1, 2]
        with pytest.raises(AskTimeout):
            listener.take(timeout=0)
    assert topics.subscribers("a") == []
    topics.broadcast("a", 3)
    with pytest.raises(Unsubscribed):
        listener.take()
    assert len(topics._listeners) == 0


def test_a_slow_listener_finds_the_gap_at_its_place(topics: PubSub) -> None:  # PUB-5, PUB-6
    with topics.listen("a", limit=2) as listener:
        for number in range(5):
            topics.broadcast("a", number)
        assert [listener.take() for _ in range(4)] == [0, 1, Lagged("a"), Resumed("a", 3)]
        topics.broadcast("a", 5)
        for number in range(6, 9):
            topics.broadcast("a", number)
        assert [listener.take() for _ in range(4)] == [5, 6, Lagged("a"), Resumed("a", 2)]


def test_a_coroutine_listens_without_stopping_its_loop(topics: PubSub, one: Ref) -> None:  # PUB-6
    async def main() -> list[Any]:
        got: list[Any] = []
        async with topics.listen("a") as listener:
            one.cast(lambda _: [topics.broadcast("a", number) for number in range(3)])
            async for message in listener:
                got.append(message)
                if message == 2:
                    asyncio.get_running_loop().call_soon(listener.close)
        return got

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_cancelled_listening_coroutine_loses_no_message(topics: PubSub) -> None:  # PUB-6
    async def main() -> Any:
        with topics.listen("a") as listener:
            waiting = asyncio.ensure_future(anext(aiter(listener)))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            topics.broadcast("a", "kept")
            return await anext(aiter(listener))

    assert asyncio.run(main()) == "kept"
