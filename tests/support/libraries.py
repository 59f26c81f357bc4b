"""What the tests of the actor libraries share: a clock that stands still, an actor that does what it is sent, gates."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Event, name_of

Ref = ActorRef[Any]


class Clock:
    """Time as the test says. `advance` returns when every timer due by then has done its work."""

    def __init__(self) -> None:
        self.time = 0.0
        self.system: ActorSystem | None = None
        self.events: list[Event] = []

    def named(self, tag: str) -> list[Any]:
        return [event for event in self.events if name_of(event) == tag]

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        assert self.system is not None
        self.time += seconds
        done = threading.Event()
        self.system.timers.after(0.0, done.set)
        self.system.timers.wake()
        assert done.wait(60)


@contextmanager
def fresh_system(name: str = "test") -> Iterator[tuple[ActorSystem, Clock]]:
    """Run a system whose clock stands still; its events are kept in `clock.events`."""
    clock = Clock()
    with ActorSystem(name, env=Env(now=clock), sink=clock.events.append, max_workers=64) as system:
        clock.system = system
        yield system, clock


class Puppet(Actor):
    """Calls every function it is sent with itself; writes down everything else."""

    def __init__(self, *, traps: bool = False) -> None:
        super().__init__()
        self.trap_exit = traps
        self.seen: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.seen.append(message)
        return None


def puppet(system: ActorSystem, *, traps: bool = False) -> Ref:
    return system.start(Puppet, kwargs={"traps": traps})


def within(ref: Ref, action: Callable[[], Any]) -> Any:
    """Run `action` as the actor; give back what it returned, or raise what it raised."""

    def guarded(_: Any) -> tuple[Any, BaseException | None]:
        try:
            return action(), None
        except Exception as error:
            return None, error

    value, error = ref.call(guarded)
    if error is not None:
        raise error
    return value


def seen(ref: Ref) -> list[Any]:
    """What a puppet has got so far; everything sent before is in it."""
    return list(ref.call(lambda me: list(me.seen)))


class Gates:
    """Holds tasks until the test lets them go; nothing is held after the test."""

    def __init__(self) -> None:
        self._all_open = False
        self._gates: dict[Any, threading.Event] = {}
        self.entered: dict[Any, threading.Event] = {}
        self._lock = threading.Lock()

    def _pair(self, name: Any) -> tuple[threading.Event, threading.Event]:
        with self._lock:
            entered, gate = (
                self.entered.setdefault(name, threading.Event()),
                self._gates.setdefault(name, threading.Event()),
            )
            if self._all_open:
                gate.set()
            return entered, gate

    def hold(self, name: Any = None) -> Any:
        """Wait, in a task, until `let` is called for `name`; give `name` back."""
        entered, gate = self._pair(name)
        entered.set()
        assert gate.wait(60)
        return name

    def wait_for(self, name: Any = None) -> None:
        """Wait, in the test, until a task is held under `name`."""
        assert self._pair(name)[0].wait(60)

    def has(self, name: Any = None) -> bool:
        return self._pair(name)[0].is_set()

    def let(self, name: Any = None) -> None:
        self._pair(name)[1].set()

    def open_all(self) -> None:
        """Let everybody go, also those who come later."""
        with self._lock:
            self._all_open = True
            for gate in self._gates.values():
                gate.set()
