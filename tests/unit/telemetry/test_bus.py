"""The bus delivers in order, and nothing a handler does is felt by whoever emits."""

import threading

import pytest

from mlld_sdk.base.events import Event
from mlld_sdk.telemetry import AlreadyAttached, Bus, HandlerDetached, HandlerLagged
from tests.support.eventually import eventually


class Ticked(Event, frozen=True, tag="test.ticked"):
    n: int


class Tocked(Event, frozen=True, tag="test.tocked"):
    n: int


def tick(n: int) -> Ticked:
    return Ticked(at=0.0, n=n)


@pytest.fixture
def bus():
    bus = Bus()
    yield bus
    bus.close()


def test_handlers_see_events_in_the_order_they_were_emitted(bus: Bus) -> None:
    seen: list[Event] = []
    bus.attach("a", seen.append)
    for n in range(1000):
        bus.emit(tick(n))
    assert bus.detach("a")
    assert [event.n for event in seen] == list(range(1000))


def test_a_handler_gets_only_the_events_it_asked_for(bus: Bus) -> None:
    seen: list[Event] = []
    bus.attach("a", seen.append, events=[Tocked])
    bus.emit(tick(1))
    bus.emit(Tocked(at=0.0, n=2))
    bus.detach("a")
    assert seen == [Tocked(at=0.0, n=2)]


def test_a_handler_that_raises_is_detached_and_reported_and_others_go_on(bus: Bus) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise SystemExit("broken on purpose")

    bus.attach("good", seen.append)
    bus.attach("broken", broken)
    bus.emit(tick(1))
    report = eventually(lambda: next((event for event in seen if isinstance(event, HandlerDetached)), None))
    assert (report.handler, report.during) == ("broken", "test.ticked")
    assert "broken on purpose" in report.error
    bus.emit(tick(2))
    bus.detach("good")
    assert [event.n for event in seen if isinstance(event, Ticked)] == [1, 2]
    assert not bus.detach("broken")


def test_an_inline_view_that_raises_is_detached_and_reported(bus: Bus) -> None:
    def broken(event: Event) -> None:
        raise ValueError("no")

    with bus.recording() as seen:
        bus.attach_inline("broken", broken)
        bus.emit(tick(1))
        bus.emit(tick(2))
    assert [type(event) for event in seen] == [Ticked, HandlerDetached, Ticked]


def test_a_blocked_handler_holds_up_nobody_and_learns_what_it_missed(bus: Bus) -> None:
    gate = threading.Event()
    slow: list[Event] = []
    quick: list[Event] = []

    def blocked(event: Event) -> None:
        gate.wait(60)
        slow.append(event)

    bus.attach("blocked", blocked, backlog=10)
    bus.attach("quick", quick.append)
    for n in range(500):
        bus.emit(tick(n))
    eventually(lambda: len(quick) == 500)
    assert slow == []
    gate.set()
    bus.detach("blocked")
    kept = [event.n for event in slow if isinstance(event, Ticked)]
    missed = sum(event.missed for event in slow if isinstance(event, HandlerLagged))
    assert kept == sorted(kept)
    assert kept[-10:] == list(range(490, 500))
    assert len(kept) + missed == 500


def test_an_id_can_be_used_once_at_a_time(bus: Bus) -> None:
    bus.attach("a", lambda event: None)
    with pytest.raises(AlreadyAttached, match="'a'"):
        bus.attach_inline("a", lambda event: None)
    assert bus.handlers() == ["a"]
    assert bus.detach("a")
    assert not bus.detach("a")


def test_many_emitters_lose_nothing(bus: Bus) -> None:
    seen: list[Event] = []
    bus.attach("a", seen.append, backlog=100_000)
    threads = [threading.Thread(target=lambda: [bus.emit(tick(n)) for n in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bus.detach("a")
    assert len(seen) == 16_000
