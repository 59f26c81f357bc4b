"""How an actor comes to be: named, tied to its parent, constructed. Nothing of it runs before all that is done."""

import threading
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Generic, TypeVar

import pykka
from pykka import ActorRegistry

from mlld_sdk.actors.core.cell import Cell
from mlld_sdk.actors.core.class_options import traits_of
from mlld_sdk.actors.core.context import fenced, stop_if_fenced, topology
from mlld_sdk.actors.core.directory import Directory
from mlld_sdk.actors.core.errors import AlreadyStarted, StartFailed, StartTimeout, SystemStopped
from mlld_sdk.actors.core.exits import NOPROC, Killed, crash, reason_of
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.names import Name
from mlld_sdk.actors.core.protocols import System
from mlld_sdk.actors.core.pykka_compat import leave_registry
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.scheduler import OwnThread

A = TypeVar("A", bound=pykka.Actor)

_epochs = count(1)
"""Numbers of incarnations: one counter for the process, so that an epoch never comes back."""


class Starting(Future[ActorRef[A]], Generic[A]):
    """The outcome of a start that goes on in the background."""

    __slots__ = ()

    @property
    def ref(self) -> ActorRef[A] | None:
        """The actor that is starting: to watch it or to kill it meanwhile. `None` if it failed before it had one."""
        return None if self.target is None else self.target.ref


class ActorFactory:
    """Makes the actors of one system.

    Args:
        system: Where they live.
        directory: Where they are listed.
        in_pykka_registry: Also list them in `pykka.ActorRegistry`.
    """

    def __init__(self, system: System, directory: Directory, *, in_pykka_registry: bool) -> None:
        self._system = system
        self._directory = directory
        self._in_pykka_registry = in_pykka_registry
        self._own_threads: dict[Cell, OwnThread] = {}

    def new_cell(self, actor_class: type[pykka.Actor], name: Name | None, parent: Cell | None) -> Cell:
        """Make the runtime's part of an actor; nothing runs yet."""
        return Cell(self._system, traits_of(actor_class), next(_epochs), name, parent)

    def create(
        self,
        actor_class: type[pykka.Actor],
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        name: Name | None = None,
        parent: ActorRef[Any] | None = None,
        label: str | None = None,
        *,
        raw: bool = False,
    ) -> Cell:
        """Make an actor: named, linked to its parent, constructed; not running yet.

        Raises:
            SystemStopped: There are no more actors here.
            StartFailed: The name is taken, the parent has ended, or the constructor failed; with `raw`, what the
                constructor raised is raised as it is.
        """
        if fenced:
            stop_if_fenced()
        if self._system.has_stopped():
            raise SystemStopped(
                f"the actor system {self._system.name} has stopped", hint="start actors inside its `with` block"
            )
        above: Cell | None = None if parent is None else parent.cell  # type: ignore[assignment]
        cell = Cell(self._system, traits_of(actor_class), next(_epochs), name, above, label)
        if name is not None:
            holder = self._directory.register(name, cell.ref)
            if holder is not None:
                raise AlreadyStarted(cell.label, holder)
        with topology:
            refused = self._system.has_stopped() or (above is not None and above.ending is not None)
            if refused:
                cell.ending = cell.reason = NOPROC
            else:
                if above is not None:
                    above.links = above.links or {}
                    above.links[cell] = True
                self._directory.cells[cell.epoch] = cell
        if refused:
            self.forget(cell)
            why = "its system has stopped" if self._system.has_stopped() else "its parent has ended"
            raise StartFailed(f"{cell.label} did not start: {why}", reason=NOPROC)
        if self._in_pykka_registry:
            ActorRegistry.register(cell.ref)
        if cell.traits.threaded:
            self._give_thread(cell)
        self._construct(cell, args, kwargs or {}, raw=raw)
        return cell

    def forget(self, cell: Cell) -> None:
        """Drop a dead actor from every table."""
        self._directory.remove(cell)
        if self._in_pykka_registry:
            leave_registry(cell.ref)
        own = self._own_threads.pop(cell, None)
        if own is not None:
            own.schedule(None)
            cell.mailbox.schedule = self._system.schedule

    @staticmethod
    def _construct(cell: Cell, args: Sequence[Any], kwargs: Mapping[str, Any], *, raw: bool) -> None:
        actor_class = cell.traits.actor_class
        try:
            actor = actor_class.__new__(actor_class, *args, **kwargs)
            actor._cell = cell  # noqa: SLF001 - before the constructor, which may want it
            cell.actor = actor
            actor.__init__(*args, **kwargs)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
            if raw or interrupted:
                cell.finish(crash(error), error)
                raise
            started: Future[Any] = Future()
            cell.tell_when_started(started)
            cell.finish(reason_of(error), error)
            started.get(timeout=0)

    def _give_thread(self, cell: Cell) -> None:
        try:
            own = OwnThread(f"{self._system.name}-{cell.label}")
        except RuntimeError as error:
            cell.finish(crash(error), error)
            raise StartFailed(
                f"{cell.label} did not start: no thread for it",
                reason=crash(error),
                hint="the machine has no more threads; use fewer actors with threaded = True",
            ) from error
        self._own_threads[cell] = own
        cell.mailbox.schedule = own.schedule
        if cell.reason is not None:  # killed by its name meanwhile
            self.forget(cell)


def kill_late_start(cell: Cell, timeout: float | None) -> None:
    """Kill an actor whose start took too long; its starter gets `StartTimeout`."""
    reason = Killed("it did not start in time")
    late = StartTimeout(
        f"{cell.label} did not start within {timeout} seconds",
        reason=reason,
        hint="give it more time, or let on_start return Continue and do the slow part in on_continue",
    )
    cell.kill(reason, late)
