"""Names of actors, and the protocol by which any registry can give them.

A name is a plain string, kept in the system's own table, or a `Via(service, key)`, kept by whatever object follows the
`NameService` protocol (the library's `Registry` does). Registering happens before the actor's first line of code
runs; the name is released before anybody learns of its end.
"""

import threading
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from mlld_sdk.actors.core.ref import ActorRef


class NameService(Protocol):
    """Gives unique names to actors. Methods must be quick and thread-safe, and must not call actors."""

    def register_name(self, key: Any, ref: "ActorRef[Any]", value: Any = None) -> "ActorRef[Any] | None":
        """Give `key` to `ref`, unless a live actor holds it.

        Returns:
            `None` when `ref` has it now, else the live holder.
        """

    def unregister_name(self, key: Any, ref: "ActorRef[Any]") -> None:
        """Release `key` if it is still `ref`'s; a successor's name is never touched."""

    def whereis_name(self, key: Any) -> "ActorRef[Any] | None":
        """Find the live holder of `key`."""


class Via(msgspec.Struct, frozen=True):
    """A name kept by another service than the system's own table.

    Attributes:
        service: Who keeps it.
        key: The name there.
        value: Stored with it, for services that keep values.
    """

    service: Any
    key: Any
    value: Any = None


Name = str | Via


class NameTable:
    """The system's own name service: plain strings."""

    def __init__(self) -> None:
        self._refs: dict[Any, ActorRef[Any]] = {}
        self._lock = threading.RLock()

    def register_name(self, key: Any, ref: "ActorRef[Any]", value: Any = None) -> "ActorRef[Any] | None":  # noqa: ARG002 - a plain name carries no value
        """Give `key` to `ref`, unless a live actor holds it."""
        with self._lock:
            holder = self._refs.get(key)
            if holder is not None and holder.reason is None:
                return holder
            self._refs[key] = ref
            return None

    def unregister_name(self, key: Any, ref: "ActorRef[Any]") -> None:
        """Release `key` if it is still `ref`'s."""
        with self._lock:
            if self._refs.get(key) is ref:
                del self._refs[key]

    def whereis_name(self, key: Any) -> "ActorRef[Any] | None":
        """Find the live holder of `key`."""
        ref = self._refs.get(key)
        return ref if ref is not None and ref.reason is None else None

    def all(self) -> dict[Any, "ActorRef[Any]"]:
        """Copy the table."""
        with self._lock:
            return dict(self._refs)
