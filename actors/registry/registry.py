"""Names and properties: which actor holds which key. Reading costs no message, cleaning up no cooperation of the dead.

A `unique` registry maps a key to one live actor and can be the name space in which actors are started and addressed
(`via`). A `duplicate` registry maps a key to any number of registrations, the usual base of dispatching. What an actor
registered is gone before any other learns of its death.
"""

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import msgspec

from mlld_sdk.actors.core.names import Via
from mlld_sdk.actors.core.services import Ref, Watches, acting, find, offer, publish
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.registry.errors import NameTaken, NotRegistered
from mlld_sdk.actors.registry.registry_locks import KeyLock, KeyLocks
from mlld_sdk.actors.registry.registry_rows import KeyRow, Rows
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.options import one_of

T = TypeVar("T")
Keys = Literal["unique", "duplicate"]


class Registration(NamedTuple):
    """One actor under one key, with the value it registered."""

    key: Hashable
    ref: Ref
    value: Any


class KeyRegistered(msgspec.Struct, frozen=True):
    """Told to listeners: an actor holds a key from now on."""

    registry: str
    key: Any
    ref: Ref
    value: Any


class KeyUnregistered(msgspec.Struct, frozen=True):
    """Told to listeners: a registration is gone.

    Attributes:
        died: The actor ended; otherwise it gave the key back.
    """

    registry: str
    key: Any
    ref: Ref
    died: bool


class Registry:
    """Keys held by live actors.

    Methods that change something act for the actor that calls them; code outside actors says which actor is meant
    with `ref=`. All methods are quick and may be called from any thread.

    Args:
        system: The actors it is for.
        name: Its name in that system.
        keys: `unique` (one live holder for a key) or `duplicate`.
        listeners: Actors that are told of every change with `KeyRegistered` and `KeyUnregistered`.
        meta: The first of the registry's own properties.
    """

    def __init__(
        self,
        system: ActorSystem,
        name: str,
        *,
        keys: Keys,
        listeners: Iterable[Ref] = (),
        meta: Mapping[Hashable, Any] | None = None,
    ) -> None:
        self.name = name
        self.unique: bool = one_of("keys", keys, *get_args(Keys)) == "unique"
        self._lock = threading.RLock()
        self._watches = Watches(self._lock, self._died)
        self._rows: Rows[Ref] = Rows(self._watches.release)
        self._listeners = tuple(listeners)
        self._meta = dict(meta or {})
        self._locks = KeyLocks()
        publish(system, self, name)

    @classmethod
    def of(cls, system: ActorSystem, name: str) -> "Registry":
        """Find the registry of that name; raises `UnknownName` when there is none."""
        return find(system, cls, name)

    def register(self, key: Hashable, value: Any = None, *, ref: Ref | None = None) -> None:
        """Hold `key` from now on, with `value` beside it.

        Raises:
            NameTaken: A live actor holds the key of a unique registry, be it the caller itself.
            ActorDead: The actor to register has ended.
        """
        holder = self._take(key, acting("registering", ref), value)
        if holder is not None:
            raise NameTaken(key, holder)

    def unregister(
        self, key: Hashable, *, where: Callable[[Any], object] | None = None, ref: Ref | None = None
    ) -> None:
        """Remove the caller's registrations of `key`: all, or those whose value satisfies `where`."""
        owner = acting("unregistering", ref)
        with self._lock:
            for row in self._rows.owned(owner, key):
                if where is None or where(row.value):
                    self._drop(row, died=False)

    def update_value(self, key: Hashable, change: Callable[[Any], T], *, ref: Ref | None = None) -> tuple[T, Any]:
        """Replace the caller's value of `key` by `change(value)`, which runs in the caller; return the new and the old.

        Raises:
            NotRegistered: The caller does not hold the key; `change` was not called.
        """
        self._require_unique("updating a value")
        owner = acting("updating a value", ref)
        with self._lock:
            row = self._rows.holder(key)
        if row is None or row.owner != owner:
            raise NotRegistered(f"{owner} does not hold {key!r}")
        old = row.value
        row.value = new = change(old)
        return new, old

    def whereis(self, key: Hashable) -> Ref | None:
        """Find the live holder of a unique key."""
        self._require_unique("whereis")
        with self._lock:
            row = self._rows.holder(key)
        return row.owner if row is not None and row.owner.reason is None else None

    def lookup(self, key: Hashable, *, where: Callable[[Any], object] | None = None) -> list[Registration]:
        """List the registrations of a key by live actors, oldest first: all, or those whose value satisfies `where`."""
        with self._lock:
            rows = self._rows.under(key)
        return [_shown(row) for row in rows if row.owner.reason is None and (where is None or where(row.value))]

    def keys(self, ref: Ref) -> list[Hashable]:
        """List the keys an actor holds, one for each registration."""
        with self._lock:
            return [row.key for row in self._rows.of(ref)]

    def values(self, key: Hashable, ref: Ref) -> list[Any]:
        """List the values an actor registered under a key."""
        with self._lock:
            return [row.value for row in self._rows.owned(ref, key)]

    def select(self, where: Callable[[Registration], object] | None = None) -> list[Registration]:
        """List all registrations of live actors, or those that satisfy `where`. Looks at every one."""
        with self._lock:
            rows = list(self._rows)
        found = [_shown(row) for row in rows if row.owner.reason is None]
        return found if where is None else [shown for shown in found if where(shown)]

    def __len__(self) -> int:
        """Count the registrations."""
        return len(self._rows)

    def dispatch(self, key: Hashable, deliver: Callable[[list[Registration]], object]) -> None:
        """Call `deliver`, in the caller, with the registrations of a key; not at all when there are none."""
        found = self.lookup(key)
        if found:
            deliver(found)

    def via(self, key: Hashable, value: Any = None) -> Via:
        """Name an actor by its key here, for starting and addressing it."""
        self._require_unique("via")
        return Via(self, key, value)

    def lock(self, key: Hashable, *, timeout: float | None = 5.0) -> KeyLock:
        """Lock `key` inside `with` (or `async with`): one caller at a time, first come, first served.

        Locks are a name space of their own: locking a key says nothing about who registered it. An actor that is
        killed loses its locks and its place in the queue at once.

        Raises:
            LockTimeout: (on entering) It was not the caller's turn within `timeout` seconds.
            DeadlockDetected: (on entering) The calling actor holds the key already.
        """
        return KeyLock(self._locks, key, timeout)

    def meta(self, key: Hashable) -> Any:
        """Read a property of the registry; raises `KeyError` when it is not set."""
        return self._meta[key]

    def put_meta(self, key: Hashable, value: Any) -> None:
        """Set a property of the registry."""
        self._meta[key] = value

    def delete_meta(self, key: Hashable) -> None:
        """Remove a property of the registry, if it is set."""
        self._meta.pop(key, None)

    def register_name(self, key: Any, ref: Ref, value: Any = None) -> Ref | None:
        """Register `ref` under `key`, or return the live actor that holds it."""
        self._require_unique("via")
        return self._take(key, ref, value)

    def unregister_name(self, key: Any, ref: Ref) -> None:
        """Release `key` if it is still `ref`'s."""
        self.unregister(key, ref=ref)

    whereis_name = whereis

    def _take(self, key: Hashable, owner: Ref, value: Any) -> Ref | None:
        with self._lock:
            if self.unique and (row := self._rows.holder(key)) is not None:
                if row.owner.reason is None:
                    return row.owner
                self._drop(row, died=True)
            self._watches.keep(owner)
            self._rows.add(key, owner, value)
            self._tell(KeyRegistered(self.name, key, owner, value))
        return None

    def _drop(self, row: KeyRow[Ref], *, died: bool) -> None:
        self._rows.drop(row)
        self._tell(KeyUnregistered(self.name, row.key, row.owner, died))

    def _died(self, ref: Ref) -> None:
        for row in self._rows.of(ref):
            self._drop(row, died=True)

    def _tell(self, change: KeyRegistered | KeyUnregistered) -> None:
        for listener in self._listeners:
            offer(listener, change, beyond_limit=True)

    def _require_unique(self, what: str) -> None:
        if not self.unique:
            raise ConfigurationError(f"{what} needs unique keys; registry {self.name!r} is duplicate")


def _shown(row: KeyRow[Ref]) -> Registration:
    return Registration(row.key, row.owner, row.value)
