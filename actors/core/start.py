"""How an actor comes to be: named, tied to its parent, constructed. Nothing of it runs before all that is done."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pykka
from pykka import ActorRegistry

from mlld_sdk.actors.core.cell import Cell
from mlld_sdk.actors.core.context import fenced, stop_if_fenced
from mlld_sdk.actors.core.errors import AlreadyStarted, StartFailed, StartTimeout, SystemStopped
from mlld_sdk.actors.core.exits import NOPROC, Killed, Other, crash, reason_of
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.links import topology
from mlld_sdk.actors.core.names import Name
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.scheduler import OwnThread

if TYPE_CHECKING:
    from mlld_sdk.actors.core.system import ActorSystem

A = TypeVar("A", bound=pykka.Actor)


class Starting(Future[ActorRef[A]], Generic[A]):
    """The outcome of a start that goes on in the background.

    Attributes:
        ref: The actor that is starting: to watch it or to kill it meanwhile. `None` if it failed before it had one.
    """

    __slots__ = ("ref",)

    def __init__(self) -> None:
        super().__init__()
        self.ref: ActorRef[A] | None = None


def create(
    system: "ActorSystem",
    actor_class: type[Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    name: Name | None,
    parent: ActorRef[Any] | None,
    label: str | None = None,
    *,
    raw: bool = False,
) -> Cell:
    """Make an actor: named, linked to its parent, constructed; not running yet."""
    if fenced:
        stop_if_fenced()
    if system.has_stopped():
        raise SystemStopped(f"the actor system {system.name} has stopped", hint="start actors inside its `with` block")
    above = None if parent is None else parent.cell
    cell = system.new_cell(actor_class, name, above)
    cell.segment = label
    if name is not None:
        holder = system.name_service(name).register_name(*_key_and_ref(name, cell.ref))
        if holder is not None:
            raise AlreadyStarted(
                f"the name {cell.label!r} is taken by {holder.path}", reason=Other("already started"), holder=holder
            )
    with topology:
        refused = system.has_stopped() or (above is not None and above.ending is not None)
        if refused:
            cell.ending = cell.reason = NOPROC
        else:
            if above is not None:
                if above.links is None:
                    above.links = {}
                above.links[cell] = True
            system.cells[cell.epoch] = cell
    if refused:
        system.forget(cell)
        why = "its system has stopped" if system.has_stopped() else "its parent has ended"
        raise StartFailed(f"{cell.label} did not start: {why}", reason=NOPROC)
    if system.in_pykka_registry:
        ActorRegistry.register(cell.ref)
    if cell.traits.threaded:
        _give_thread(system, cell)
    try:
        actor = actor_class.__new__(actor_class, *args, **(kwargs or {}))
        actor._cell = cell
        cell.actor = actor
        actor.__init__(*args, **(kwargs or {}))
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
        if raw or interrupted:
            cell.finish(crash(error), error)
            raise
        started: Future[Any] = Future()
        cell.tell_when_started(started)
        cell.finish(reason_of(error), error)
        started.get(timeout=0)
    return cell


def _give_thread(system: "ActorSystem", cell: Cell) -> None:
    try:
        own = OwnThread(f"{system.name}-{cell.label}")
    except RuntimeError as error:
        cell.finish(crash(error), error)
        raise StartFailed(
            f"{cell.label} did not start: no thread for it",
            reason=crash(error),
            hint="the machine has no more threads; use fewer actors with threaded = True",
        ) from error
    system.own_threads[cell] = own
    cell.schedule = own.schedule
    if cell.reason is not None:  # killed by its name meanwhile
        system.forget(cell)


def start_timeout(cell: Cell, timeout: float | None) -> StartTimeout:
    """Make the error for a start that took too long."""
    return StartTimeout(
        f"{cell.label} did not start within {timeout} seconds",
        reason=Killed("it did not start in time"),
        hint="give it more time, or let on_start return Continue and do the slow part in on_continue",
    )


def _key_and_ref(name: Name, ref: ActorRef[Any]) -> tuple[Any, ...]:
    return (name, ref) if isinstance(name, str) else (name.key, ref, name.value)
