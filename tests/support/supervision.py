"""Trees for tests: a clock that stands still, a recorder of events, and waiting until nothing is left to do."""

import threading
import time
from collections.abc import Callable
from typing import Any

from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Event, name_of


class Clock:
    """Time that moves only when a test says so; timers of the systems it knows are told."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start
        self.systems: list[ActorSystem] = []

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds
        for system in self.systems:
            system.timers.wake()


class Recorder:
    """Keeps every event of supervision, and lets a test wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def named(self, *names: str) -> list[Any]:
        with self._changed:
            return [event for event in self.events if name_of(event) in names]

    def wait_for(self, holds: Callable[[Any], bool], within: float = 60.0) -> Any:
        """Return the first event that satisfies `holds`, past or to come."""
        deadline = time.monotonic() + within
        seen = 0
        with self._changed:
            while True:
                for event in self.events[seen:]:
                    if holds(event):
                        return event
                seen = len(self.events)
                left = deadline - time.monotonic()
                assert left > 0, f"no such event within {within} s; there were {[name_of(one) for one in self.events]}"
                self._changed.wait(left)


def fake_system(sink: Callable[[Event], None] | None = None) -> tuple[ActorSystem, Clock]:
    """Make an actor system whose time stands still."""
    clock = Clock()
    env = Env(now=clock, wall=clock)
    system = ActorSystem("test", env=env) if sink is None else ActorSystem("test", env=env, sink=sink)
    clock.systems.append(system)
    return system, clock


def is_quiet(system: ActorSystem) -> bool:
    """Say whether no actor has anything to do right now (one that blocks in a handler counts as busy)."""
    for ref in system.actors():
        info = ref.info()
        if ref.cell.mailbox.idle.locked():  # on its way to a worker, or handling something of the system lane
            return False
        if info.queued or info.queued_system or info.current_for is not None or info.state == "starting":
            return False
    return True


def quiet(system: ActorSystem, within: float = 60.0) -> None:
    """Wait until no actor has anything to do, twice in a row."""
    deadline = time.monotonic() + within
    calm = 0
    while calm < 3:
        calm = calm + 1 if is_quiet(system) else 0
        assert time.monotonic() < deadline, f"still busy: {[ref.info() for ref in system.actors()]}"
        time.sleep(0.0005)
