"""Actors that do as they are told, a clock that stands still, and a sink that remembers."""

import threading
from typing import Any, TypeVar

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.ref import Down, Exit
from mlld_sdk.base.events import Event

E = TypeVar("E", bound=Event)


class Sink:
    """A sink that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time


class Puppet(Actor):
    """Runs the functions it is sent, as itself, and keeps everything else it gets."""

    def __init__(self, trap: bool = False) -> None:
        self.trap_exit = trap
        self.seen: list[Any] = []
        self.ended: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.seen.append(message)
        return message


class Notices(Puppet):
    """Keeps exit and down notices apart, and lets a test wait for them."""

    def __init__(self, trap: bool = True) -> None:
        super().__init__(trap)
        self.notices: list[Exit | Down] = []
        self.arrived = threading.Semaphore(0)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Exit | Down):
            self.notices.append(message)
            self.arrived.release()
            return None
        return super().on_receive(message)


class Gate:
    """A handler that waits inside until it is let go, and tells when it is inside."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, actor: Any) -> str:
        self.entered.set()
        assert self.open.wait(60)
        return "through"


def seen_by(ref: Any) -> list[Any]:
    """Copy what a puppet has kept, after everything sent to it before."""
    result: list[Any] = ref.ask(lambda actor: list(actor.seen), timeout=60)
    return result


def notices_of(ref: Any, count: int) -> list[Any]:
    """Wait until a `Notices` actor has got so many notices, and give them."""
    actor = ref.cell.actor
    for _ in range(count):
        assert actor.arrived.acquire(timeout=10)
    return list(actor.notices)


def boom(_: Any) -> None:
    """Crash."""
    raise ValueError("boom")
