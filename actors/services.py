"""What registries, groups, topics and tables share: a place in their system, and the watch over whom they serve."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mlld_sdk.actors.errors import ActorDead
from mlld_sdk.actors.library_errors import NotAnActor, UnknownName
from mlld_sdk.actors.links import Down
from mlld_sdk.actors.ref import ActorRef
from mlld_sdk.actors.system import ActorSystem, current_actor
from mlld_sdk.errors import ConfigurationError

Ref = ActorRef[Any]
S = TypeVar("S")


def acting(what: str, ref: Ref | None) -> Ref:
    """Say for which actor something is done: the one named, else the one whose code is running.

    Raises:
        NotAnActor: Neither is there.
    """
    found = ref or current_actor()
    if found is None:
        raise NotAnActor(what)
    return found


def publish(system: ActorSystem, service: object, name: str) -> None:
    """Make a service known in its system by its class and name."""
    if system.services.setdefault((type(service), name), service) is not service:
        raise ConfigurationError(
            f"{type(service).__name__} {name!r} exists in system {system.name!r}", hint="use that one, or another name"
        )


def withdraw(system: ActorSystem, service: object, name: str) -> None:
    """Take a service out of its system; its name is free again."""
    system.services.pop((type(service), name), None)


def find(system: ActorSystem, kind: type[S], name: str) -> S:
    """Find a service by class and name.

    Raises:
        UnknownName: There is none; never an empty stand-in.
    """
    found = system.services.get((kind, name))
    if not isinstance(found, kind):
        raise UnknownName(
            f"no {kind.__name__} {name!r} in system {system.name!r}", hint="make it first, or check the name"
        )
    return found


class Watches:
    """Tells a service when an actor it keeps something for has ended: once for each, at the moment of its end.

    The service's own lock guards this too; the methods must be called with it held.
    """

    def __init__(self, lock: threading.RLock, died: Callable[[Ref], None]) -> None:
        self._lock = lock
        self._died = died
        self._watches: dict[Ref, Any] = {}

    def keep(self, ref: Ref) -> None:
        """Watch an actor, before something is stored for it.

        Raises:
            ActorDead: It has ended; nothing is to be stored.
        """
        if ref not in self._watches:
            self._watches[ref] = None
            watch = ref.monitor(self._ended)
            if ref in self._watches:
                self._watches[ref] = watch
        if not ref.is_alive():
            self._ended(Down(None, ref, ref.reason))
            raise ActorDead(f"{ref} has ended", reason=ref.reason)

    def release(self, ref: Ref) -> None:
        """Stop watching an actor that nothing is stored for any more."""
        watch = self._watches.pop(ref, None)
        if watch is not None:
            watch.cancel()

    def _ended(self, down: Down) -> None:
        with self._lock:
            if self._watches.pop(down.ref, self) is not self:
                self._died(down.ref)
