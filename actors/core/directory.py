"""Which actors a system has, and how they are found: by name, by address, or by what keeps names for them.

A plain name is kept in the system's own table; a `Via(service, key)` is kept by whatever object follows the
`NameService` protocol (the library's `Registry` does). Registering happens before the actor's first line of code
runs; the name is released before anyone learns of its end.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from mlld_sdk.actors.core.cell import Cell
from mlld_sdk.actors.core.errors import NoSuchActor
from mlld_sdk.actors.core.exits import NOPROC
from mlld_sdk.actors.core.names import Name, Via
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.base.errors import ConfigurationError


class NameService(Protocol):
    """Gives unique names to actors. Methods must be quick and thread-safe, and must not call actors."""

    def register_name(self, key: Any, ref: ActorRef[Any], value: Any = None) -> ActorRef[Any] | None:
        """Register `ref` under `key`, unless a live actor holds it.

        Returns:
            `None` when `ref` has it now, else the live holder.
        """

    def unregister_name(self, key: Any, ref: ActorRef[Any]) -> None:
        """Release `key` if it is still `ref`'s; a successor's name is never touched."""

    def whereis_name(self, key: Any) -> ActorRef[Any] | None:
        """Find the live holder of `key`."""


class NameTable:
    """The system's own name service: plain strings."""

    def __init__(self) -> None:
        self._refs: dict[Any, ActorRef[Any]] = {}
        self._lock = threading.RLock()

    def register_name(self, key: Any, ref: ActorRef[Any], value: Any = None) -> ActorRef[Any] | None:  # noqa: ARG002 - a plain name carries no value
        """Register `ref` under `key`, unless a live actor holds it."""
        with self._lock:
            holder = self._refs.get(key)
            if holder is not None and holder.reason is None:
                return holder
            self._refs[key] = ref
            return None

    def unregister_name(self, key: Any, ref: ActorRef[Any]) -> None:
        """Release `key` if it is still `ref`'s."""
        with self._lock:
            if self._refs.get(key) is ref:
                del self._refs[key]

    def whereis_name(self, key: Any) -> ActorRef[Any] | None:
        """Find the live holder of `key`."""
        ref = self._refs.get(key)
        return ref if ref is not None and ref.reason is None else None

    def all(self) -> dict[Any, ActorRef[Any]]:
        """Copy the table."""
        with self._lock:
            return dict(self._refs)


class Directory:
    """The living actors of one system and their names.

    Attributes:
        cells: The cells of all living actors by epoch, in the order they were started.
        names: Who has which plain name.
        services: Registries, groups, topics and tables by class and name; see `services`.
    """

    def __init__(self, failed: Callable[[BaseException], object]) -> None:
        self.cells: dict[int, Cell] = {}
        self.names = NameTable()
        self.services: dict[tuple[type, str], object] = {}
        self._failed = failed

    def keeper_of(self, name: Name) -> tuple[NameService, Any, Any]:
        """Return what keeps that kind of name, the key it has there, and the value stored with it.

        Raises:
            ConfigurationError: It is no name.
        """
        if isinstance(name, Via):
            return name.service, name.key, name.value
        if not isinstance(name, str):
            raise ConfigurationError(f"{name!r} is not an actor name", hint="use a string or Via(service, key)")
        if not name or "/" in name:
            raise ConfigurationError(f"{name!r} is not an actor name", hint="a name is a non-empty string with no /")
        return self.names, name, None

    def whereis(self, name: Name | ActorRef[Any]) -> ActorRef[Any] | None:
        """Find the live actor of that name (a ref gives itself while it lives)."""
        if isinstance(name, ActorRef):
            return name if name.is_alive() else None
        service, key, _ = self.keeper_of(name)
        return service.whereis_name(key)

    def at(self, name: Name) -> ActorRef[Any]:
        """Find the live actor of that name, or raise `NoSuchActor`."""
        ref = self.whereis(name)
        if ref is None:
            key = self.keeper_of(name)[1]
            raise NoSuchActor(f"there is no actor named {key!r}", reason=NOPROC, hint="is it started under that name?")
        return ref

    def register(self, name: Name, ref: ActorRef[Any]) -> ActorRef[Any] | None:
        """Give a name to an actor; return the live holder if it is taken."""
        service, key, value = self.keeper_of(name)
        return service.register_name(key, ref, value)

    def remove(self, cell: Cell) -> None:
        """Drop a dead actor and its name."""
        self.cells.pop(cell.epoch, None)
        if cell.name is not None:
            try:
                service, key, _ = self.keeper_of(cell.name)
                service.unregister_name(key, cell.ref)
            except Exception as error:  # noqa: BLE001 - a broken name service must not keep the dead from dying
                self._failed(error)
