"""What registries, groups, topics and tables share: a place in their system, and the watch over whom they serve."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.context import fenced, stop_if_fenced
from mlld_sdk.actors.core.errors import ActorDead, NotAnActor, UnknownName
from mlld_sdk.actors.core.exits import Killed
from mlld_sdk.actors.core.ref import ActorRef, Down, monitor
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.core.system_messages import EndNow
from mlld_sdk.base.errors import ConfigurationError

Ref = ActorRef[Any]
S = TypeVar("S")


def acting(what: str, ref: Ref | None) -> Ref:
    """Return for which actor something is done: the one named, else the one whose code is running.

    Raises:
        NotAnActor: Neither is there.
    """
    still_in_effect()
    found = ref or current_actor()
    if found is None:
        raise NotAnActor(what)
    return found


def still_in_effect() -> None:
    """Refuse what the rest of a killed actor still tries to do; called before anything is changed."""
    if fenced:
        stop_if_fenced()


def publish(system: ActorSystem, service: object, name: str) -> None:
    """Make a service known in its system by its class and name."""
    if system.directory.services.setdefault((type(service), name), service) is not service:
        raise ConfigurationError(
            f"{type(service).__name__} {name!r} exists in system {system.name!r}", hint="use that one, or another name"
        )


def withdraw(system: ActorSystem, service: object, name: str) -> None:
    """Take a service out of its system; its name is free again."""
    system.directory.services.pop((type(service), name), None)


def find(system: ActorSystem, kind: type[S], name: str) -> S:
    """Find a service by class and name.

    Raises:
        UnknownName: There is none; never an empty stand-in.
    """
    found = system.directory.services.get((kind, name))
    if not isinstance(found, kind):
        raise UnknownName(
            f"no {kind.__name__} {name!r} in system {system.name!r}", hint="make it first, or check the name"
        )
    return found


def queued(ref: Ref) -> int:
    """Count the messages that wait for an actor."""
    waiting: int = ref.cell.mailbox.queued()[0]
    return waiting


def offer(ref: Ref, message: Any, *, beyond_limit: bool = False) -> Literal["ok", "full", "dead"]:
    """Send without waiting and without raising, whatever the receiver's overflow policy; return what became of it.

    Args:
        ref: The receiver.
        message: What to send.
        beyond_limit: Deliver it to a full mailbox too; for notices that come once.
    """
    mailbox = ref.cell.mailbox
    if ref.cell.ending is not None:
        return "dead"
    if not beyond_limit and mailbox.limit is not None and queued(ref) >= mailbox.limit:
        return "full"
    mailbox.post_always((message, None))
    return "ok"


def kill(ref: Ref, detail: str) -> None:
    """Kill an actor from a callback, which may be running in that very actor's thread; never raises."""
    if current_actor() is ref:
        ref.cell.post_system(EndNow(Killed(detail)))
    else:
        ref.kill(detail)


def spawn(
    system: ActorSystem,
    actor_class: type[Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    parent: Ref | None = None,
    label: str | None = None,
) -> Ref:
    """Start an actor and have its ref at once, without waiting for its `on_start`."""
    started = system.start_soon(actor_class, args, kwargs, parent=parent, timeout=None, label=label)
    return started.ref or started.get(timeout=0)  # a start that failed before it had one raises here


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
            watch = monitor(ref, None, self._ended, first=True)
            if ref in self._watches:
                self._watches[ref] = watch
        if ref.reason is not None:
            self._forget(ref)
            raise ActorDead(f"{ref} has ended", reason=ref.reason)

    def release(self, ref: Ref) -> None:
        """Stop watching an actor that nothing is stored for any more."""
        watch = self._watches.pop(ref, None)
        if watch is not None:
            watch.cancel()

    def _ended(self, down: Down) -> None:
        with self._lock:
            self._forget(down.ref)

    def _forget(self, ref: Ref) -> None:
        if self._watches.pop(ref, self) is not self:
            self._died(ref)
