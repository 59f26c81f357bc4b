"""Producers and consumers: nothing is emitted that was not asked for."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.errors import ActorDead, AskTimeout, StartFailed
from mlld_sdk.actors.core.exits import NORMAL, Other, Reason
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.stages.errors import DemandExceeded
from mlld_sdk.actors.stages.event_stream import EventStream
from mlld_sdk.actors.stages.producers import Consumer, Producer, ProducerConsumer
from mlld_sdk.base.errors import ConfigurationError
from tests.support.eventually import eventually
from tests.support.libraries import Gates, Ref, fresh_system


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with fresh_system() as (system, _):
        yield system


@pytest.fixture
def gates() -> Iterator[Gates]:
    gates = Gates()
    yield gates
    gates.open_all()


class Numbers(Producer):
    """Counts for ever, or up to a limit; writes down what it was asked for."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.next = 0
        self.limit = limit
        self.asked: list[int] = []

    def on_demand(self, count: int) -> range:
        self.asked.append(count)
        first = self.next
        self.next = first + count if self.limit is None else min(first + count, self.limit)
        return range(first, self.next)

    def on_message(self, message: Any) -> Any:
        return message(self)


class Everybody(Numbers):
    dealing = "broadcast"


class Halves(Numbers):
    dealing = "partition"
    partitions = (0, 1)

    def partition_of(self, event: Any) -> Any:
        return event % 2


class Collector(Consumer):
    """Keeps what it gets; is held at a gate for each batch if it has one."""

    def __init__(self, source: Ref | None = None, gate: Any = None, **options: Any) -> None:
        super().__init__()
        self.source = source
        self.gate = gate
        self.options = options
        self.batches: list[list[Any]] = []
        self.ends: list[Any] = []

    def on_start(self) -> None:
        if self.source is not None:
            self.subscribe_to(self.source, **self.options)

    def on_events(self, events: list[Any], producer: Ref) -> None:
        self.batches.append(events)
        if self.gate is not None:
            self.gate()

    def on_producer_end(self, producer: Ref, reason: Reason) -> None:
        self.ends.append(reason)

    def on_message(self, message: Any) -> Any:
        return message(self)


def collected(ref: Ref) -> list[Any]:
    return [event for batch in ref.call(lambda me: list(me.batches)) for event in batch]


def test_a_producer_gives_what_a_consumer_asks_for_and_no_more(system: ActorSystem, gates: Gates) -> None:
    # DEM-1, DEM-2
    source = system.start(Numbers)
    slow = system.start(Collector, (source, gates.hold), {"most": 4, "least": 2})
    gates.wait_for()
    assert source.call(lambda me: (me.asked, me.next, me.demand)) == ([4], 4, 0)
    assert slow.info().queued == 0


def test_a_consumer_asks_again_when_it_is_down_to_its_least(system: ActorSystem) -> None:  # DEM-2
    source = system.start(Numbers, (10,))
    consumer = system.start(Collector, (source,), {"most": 4, "least": 2})
    assert eventually(lambda: len(collected(consumer)) == 10)
    assert collected(consumer) == list(range(10))
    assert max(len(batch) for batch in consumer.call(lambda me: me.batches)) <= 4
    assert source.call(lambda me: me.asked[0]) == 4


def test_open_demand_is_served_later_and_only_that_far(system: ActorSystem) -> None:  # DEM-1
    source = system.start(Numbers, (0,))
    consumer = system.start(Collector, (source,), {"most": 4, "least": 0})
    eventually(lambda: source.call(lambda me: me.demand) == 4)
    source.call(lambda me: me.emit(["a", "b"]))
    assert eventually(lambda: collected(consumer) == ["a", "b"])
    assert source.call(lambda me: me.demand) == 2


def refused(me: Any) -> Any:
    try:
        me.emit([1, 2, 3])
    except DemandExceeded as error:
        return error, me.demand
    return None


def test_emitting_more_than_asked_for_is_an_error_and_gives_nothing_out(system: ActorSystem) -> None:  # DEM-1
    source = system.start(Numbers, (0,))
    consumer = system.start(Collector, (source,), {"most": 2, "least": 0})
    eventually(lambda: source.call(lambda me: me.demand) == 2)
    error, demand = source.call(refused)
    assert "more events than the 2 that were asked for" in str(error)
    assert (demand, collected(consumer)) == (2, [])

    class Greedy(Producer):
        def on_demand(self, count: int) -> list[int]:
            return [0] * (count + 1)

    greedy = system.start(Greedy)
    system.start(Collector, (greedy,), {"when_it_ends": "stay"})
    assert "DemandExceeded" in str(greedy.join(10))


def test_events_without_end_are_looked_at_only_as_far_as_they_may_be_emitted(system: ActorSystem) -> None:  # DEM-1
    class Endless(Producer):
        def on_demand(self, count: int) -> Any:
            return itertools.count()

    endless = system.start(Endless)
    system.start(Collector, (endless,), {"when_it_ends": "stay"})
    assert "DemandExceeded" in str(endless.join(10))


def test_events_dealt_by_demand_go_to_one_consumer_each(system: ActorSystem) -> None:  # DEM-3
    source = system.start(Numbers, (100,))
    consumers = [system.start(Collector, (source,), {"most": most, "least": 0}) for most in (3, 7)]
    assert eventually(lambda: sum(len(collected(ref)) for ref in consumers) == 100)
    assert sorted(event for ref in consumers for event in collected(ref)) == list(range(100))


def test_a_broadcast_waits_for_the_slowest(system: ActorSystem, gates: Gates) -> None:  # DEM-3
    source = system.start(Everybody, (100,))
    quick = system.start(Collector)
    slow = system.start(Collector, (None, gates.hold))
    source.call(lambda me: setattr(me, "limit", 0))
    for ref in (slow, quick):
        ref.call(lambda me: me.subscribe_to(source, most=4, least=0))
    eventually(lambda: source.call(lambda me: me.demand) == 4)
    source.call(lambda me: (setattr(me, "limit", 100), me.emit(me.on_demand(4))))
    gates.wait_for()
    assert eventually(lambda: collected(quick) == [0, 1, 2, 3])
    assert source.call(lambda me: (me.demand, me.next)) == (0, 4)
    slow.kill()
    assert eventually(lambda: len(collected(quick)) == 100)
    assert collected(quick) == list(range(100))


def test_partitions_get_their_own_events(system: ActorSystem) -> None:  # DEM-3
    source = system.start(Halves, (0,))
    halves = [system.start(Collector) for _ in range(2)]
    for half, ref in enumerate(halves):
        ref.call(lambda me, half=half: me.subscribe_to(source, most=10, partition=half))
    eventually(lambda: source.call(lambda me: me.demand) == 10)
    source.call(lambda me: me.emit(range(10)))
    assert eventually(lambda: [collected(ref) for ref in halves] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]])


def test_what_is_still_owed_to_each_consumer_is_counted(system: ActorSystem) -> None:  # DEM-1, DEM-4
    source = system.start(Numbers, (0,))
    first, second = (system.start(Collector, (source,), {"most": 5, "manual": True}) for _ in range(2))
    first.call(lambda me: me.ask(source, 5))
    assert eventually(lambda: source.call(lambda me: me._downstream.wanted) == {first: 5, second: 0})
    source.call(lambda me: me.emit([1, 2]))
    assert source.call(lambda me: me._downstream.wanted) == {first: 3, second: 0}
    first.kill()
    assert eventually(lambda: source.call(lambda me: me._downstream.wanted) == {second: 0})


def test_a_partition_has_one_consumer(system: ActorSystem) -> None:  # DEM-3
    source = system.start(Halves, (0,))
    first = system.start(Collector, (source,), {"partition": 0})
    second = system.start(Collector, (source,), {"partition": 0})
    assert "refused" in str(second.join(10))
    stranger = system.start(Collector, (source,), {"partition": 2})
    assert "no partition 2" in str(stranger.join(10))
    assert first.is_alive()


def test_nothing_is_asked_for_until_every_partition_has_its_consumer(system: ActorSystem) -> None:  # DEM-3
    source = system.start(Halves, (100,))
    even = system.start(Collector, (source,), {"partition": 0, "most": 10})
    eventually(lambda: source.call(lambda me: list(me._downstream.wanted.values())) == [10])
    assert source.call(lambda me: (me.asked, me.demand)) == ([], 0)
    odd = system.start(Collector, (source,), {"partition": 1, "most": 10})
    assert eventually(lambda: len(collected(even)) >= 5 and len(collected(odd)) >= 5)
    odd.kill()
    eventually(lambda: source.call(lambda me: len(me._downstream.wanted)) == 1)
    emitted = source.call(lambda me: me.next)
    assert source.call(lambda me: (me.demand, me.next)) == (0, emitted)
    assert source.is_alive()


@pytest.mark.parametrize(("dealing", "partitions"), [("partition", ()), ("demand", (1,)), ("random", ())])
def test_bad_dealing_is_named(system: ActorSystem, dealing: str, partitions: tuple[int, ...]) -> None:
    wrong = type("Wrong", (Numbers,), {"dealing": dealing, "partitions": partitions})
    with pytest.raises(StartFailed) as failed:
        system.start(wrong)
    assert "dealing" in str(failed.value.__cause__)


def test_the_demand_of_a_dead_consumer_is_gone(system: ActorSystem) -> None:  # DEM-4
    source = system.start(Numbers, (0,))
    consumer = system.start(Collector, (source,), {"most": 5})
    eventually(lambda: source.call(lambda me: me.demand) == 5)
    consumer.kill()
    assert eventually(lambda: source.call(lambda me: (me.demand, len(me._downstream.wanted))) == (0, 0))


def test_unsubscribing_drops_what_is_on_the_way(system: ActorSystem) -> None:  # DEM-4
    source = system.start(Numbers, (0,))
    consumer = system.start(Collector, (source,), {"most": 5})
    eventually(lambda: source.call(lambda me: me.demand) == 5)
    consumer.call(lambda me: (me.unsubscribe_from(source), me.unsubscribe_from(source)))
    assert eventually(lambda: source.call(lambda me: me.demand) == 0)
    source.kill()
    assert consumer.call(lambda me: me.ends) == []


@pytest.mark.parametrize(
    ("option", "reason", "lives"),
    [
        ("stop", NORMAL, False),
        ("stop", Other("bad"), False),
        ("stop_if_abnormal", NORMAL, True),
        ("stop_if_abnormal", Other("bad"), False),
        ("stay", Other("bad"), True),
    ],
)
def test_the_end_of_a_producer_comes_after_its_events(
    system: ActorSystem, option: Any, reason: Reason, lives: bool
) -> None:  # DEM-6
    ends: list[Any] = []

    class Last(Collector):
        def on_producer_end(self, producer: Ref, reason: Reason) -> None:
            ends.append((len(self.batches[0]), reason))

    source = system.start(Numbers, (3,))
    consumer = system.start(Last, (source,), {"most": 10, "when_it_ends": option})
    eventually(lambda: source.call(lambda me: me.next) == 3)
    source.stop(reason=reason)
    assert eventually(lambda: ends == [(3, reason)])
    if lives:
        assert len(collected(consumer)) == 3
    else:
        assert consumer.join(60) == reason


def test_a_consumer_may_ask_by_itself(system: ActorSystem) -> None:  # DEM-2
    source = system.start(Numbers)
    consumer = system.start(Collector, (source,), {"most": 5, "manual": True})
    assert collected(consumer) == []
    consumer.call(lambda me: me.ask(source, 2))
    assert eventually(lambda: collected(consumer) == [0, 1])
    consumer.call(lambda me: me.ask(source, 5))
    assert eventually(lambda: len(collected(consumer)) == 7)

    def too_much(me: Any) -> Any:
        try:
            me.ask(source, 6)
        except DemandExceeded as error:
            return error
        return None

    assert consumer.call(too_much) is not None


def test_bad_subscriptions_are_named(system: ActorSystem) -> None:
    source = system.start(Numbers)
    for options, name in (
        ({"most": 0}, "most"),
        ({"most": 5, "least": 5}, "least"),
        ({"when_it_ends": "panic"}, "when_it_ends"),
    ):
        with pytest.raises(StartFailed) as failed:
            system.start(Collector, (source,), options)
        assert isinstance(failed.value.__cause__, ConfigurationError)
        assert name in str(failed.value.__cause__)


# -- stages in between


class Doubling(ProducerConsumer):
    def __init__(self, source: Ref) -> None:
        super().__init__()
        self.source = source

    def on_start(self) -> None:
        self.subscribe_to(self.source, most=100)

    def on_events(self, events: list[Any], producer: Ref) -> list[Any]:
        return [event * 2 for event in events]

    def on_message(self, message: Any) -> Any:
        return message(self)


class EvenOnly(Doubling):
    def on_events(self, events: list[Any], producer: Ref) -> list[Any]:
        return [event for event in events if event % 2 == 0]


class Thrice(Doubling):
    expansion = 3

    def on_events(self, events: list[Any], producer: Ref) -> list[Any]:
        return [event for event in events for _ in range(3)]


def test_a_stage_asks_for_exactly_what_is_asked_of_it(system: ActorSystem, gates: Gates) -> None:  # DEM-5
    source = system.start(Numbers)
    stage = system.start(Doubling, (source,))
    assert source.call(lambda me: me.next) == 0
    system.start(Collector, (stage, gates.hold), {"most": 6, "least": 3})
    gates.wait_for()
    assert source.call(lambda me: me.next) == 6
    assert stage.call(lambda me: (me.demand, len(me._held), me._on_the_way)) == (0, 0, 0)


def test_a_filter_asks_again_for_what_it_left_out(system: ActorSystem) -> None:  # DEM-5
    source = system.start(Numbers, (20,))
    stage = system.start(EvenOnly, (source,))
    consumer = system.start(Collector, (stage,), {"most": 4})
    assert eventually(lambda: collected(consumer) == list(range(0, 20, 2)))


def test_a_stage_that_multiplies_asks_for_fewer(system: ActorSystem, gates: Gates) -> None:  # DEM-5
    source = system.start(Numbers)
    stage = system.start(Thrice, (source,))
    consumer = system.start(Collector, (stage, gates.hold), {"most": 8, "least": 4})
    gates.wait_for()
    assert source.call(lambda me: me.next) == 2
    gates.let()
    assert eventually(lambda: collected(consumer)[:9] == [0, 0, 0, 1, 1, 1, 2, 2, 2])
    small = system.start(Collector, (stage,), {"most": 2})
    assert "most >= 3" in str(small.join(10))


def test_a_stage_that_makes_more_than_it_declared_ends_by_name(system: ActorSystem) -> None:  # DEM-5
    class Lying(Thrice):
        expansion = 2

    stage = system.start(Lying, (system.start(Numbers),))
    system.start(Collector, (stage,), {"when_it_ends": "stay"})
    assert "DemandExceeded" in str(stage.join(10))


def test_what_was_on_its_way_to_a_dead_consumer_goes_to_the_next(system: ActorSystem) -> None:  # DEM-5
    held: list[Any] = []

    class Slow(Numbers):
        def on_demand(self, count: int) -> Any:
            held.append(count)
            return []

    source = system.start(Slow)
    stage = system.start(Doubling, (source,))
    first = system.start(Collector, (stage,), {"most": 4, "least": 0})
    eventually(lambda: held == [4])
    first.kill()
    eventually(lambda: stage.call(lambda me: me.demand) == 0)
    source.call(lambda me: me.emit([1, 2, 3, 4]))
    eventually(lambda: stage.call(lambda me: len(me._held)) == 4)
    second = system.start(Collector, (stage,), {"most": 3, "least": 0})
    assert eventually(lambda: collected(second) == [2, 4, 6, 8])


def test_a_stage_has_one_producer(system: ActorSystem) -> None:  # DEM-5
    source, other = system.start(Numbers), system.start(Numbers)
    stage = system.start(Doubling, (source,))
    stage.cast(lambda me: me.subscribe_to(other))
    assert "has a producer already" in str(stage.join(10))


# -- code outside actors


def test_a_thread_reads_events_at_its_own_pace(system: ActorSystem) -> None:  # DEM-7
    source = system.start(Numbers)
    with EventStream(system, source, most=4) as events:
        read = iter(events)
        assert [next(read) for _ in range(3)] == [0, 1, 2]
        assert source.call(lambda me: me.next) <= 7
        assert [next(read) for _ in range(10)] == list(range(3, 13))
        pump = events._pump
    assert pump.join(60) == NORMAL
    assert eventually(lambda: source.call(lambda me: len(me._downstream.wanted)) == 0)


def test_reading_ends_with_the_producer(system: ActorSystem) -> None:  # DEM-7
    source = system.start(Numbers, (3,))
    with EventStream(system, source, most=10) as events:
        read = iter(events)
        assert next(read) == 0
        source.stop()
        assert list(read) == [1, 2]
    failing = system.start(Numbers, (1,))
    with EventStream(system, failing, most=10) as events:
        read = iter(events)
        assert next(read) == 0
        failing.kill()
        with pytest.raises(ActorDead, match="killed"):
            next(read)


def test_reading_waits_for_so_long_and_no_longer(system: ActorSystem) -> None:
    with EventStream(system, system.start(Numbers, (0,)), timeout=0.01) as events, pytest.raises(AskTimeout):
        next(iter(events))
    with pytest.raises(ConfigurationError, match="most"):
        EventStream(system, system.start(Numbers), most=0)


def test_a_coroutine_reads_without_stopping_its_loop(system: ActorSystem) -> None:  # DEM-7
    source = system.start(Numbers, (50,))

    async def main() -> list[int]:
        got = []
        async with EventStream(system, source, most=4) as events:
            async for event in events:
                got.append(event)
                await asyncio.sleep(0)
                if event == 49:
                    source.cast(lambda me: me.stop())
        return got

    assert asyncio.run(main()) == list(range(50))
