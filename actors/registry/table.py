"""A shared table: any actor or thread reads it without sending a message, and it lives as long as its owner.

A table made inside an actor is that actor's. When the owner ends, the table goes to its heir, or is gone. Reading takes
no lock and never waits for a writer (except in a table that evicts by use, where reading is what is counted).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.errors import ActorDead, NotOwner
from mlld_sdk.actors.core.services import Ref, Watches, find, offer, publish, still_in_effect, withdraw
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.registry.errors import TableClosed, TableFull
from mlld_sdk.actors.registry.registry_rows import strict
from mlld_sdk.base.options import one_of, whole

Entries: TypeAlias = OrderedDict[Hashable, tuple[Hashable, Any]]
Access = Literal["public", "protected", "private"]
WhenFull = Literal["refuse", "evict_oldest", "evict_least_used"]
MISSING: Any = object()
LIMIT = 100_000


class TableGiven(msgspec.Struct, frozen=True):
    """Told to an actor: this table is yours now.

    Attributes:
        table: The table.
        giver: Who had it before; it may have ended.
        data: What the giver, or the will of the table, says about it.
    """

    table: "Table"
    giver: Ref | None
    data: Any


class Table:
    """Keys and values shared by the actors of a system.

    Args:
        system: The actors it is for.
        name: Its name in that system, free again when the table is gone.
        access: Who may write: all (`public`) or the owner (`protected`); `private` lets only the owner read, too.
        owner: Whose it is; by default the actor that makes it. A table made outside actors belongs to the code outside
            actors and lives as long as the system.
        heir: Who gets it when the owner ends; told so with `TableGiven`.
        heir_data: What that message says.
        limit: Entries it may hold.
        when_full: What a new key does to a full table: be refused with `TableFull`, or evict the entry that was written
            first, or the one that was not read or written for longest.
    """

    def __init__(
        self,
        system: ActorSystem,
        name: str,
        *,
        access: Access = "protected",
        owner: Ref | None = None,
        heir: Ref | None = None,
        heir_data: Any = None,
        limit: int = LIMIT,
        when_full: WhenFull = "refuse",
    ) -> None:
        one_of("access", access, *get_args(Access))
        one_of("when_full", when_full, *get_args(WhenFull))
        self.name = name
        self.access = access
        self.limit: int = whole("limit", limit, least=1)
        self.owner = owner or current_actor()
        self._heir = heir
        self._heir_data = heir_data
        self._when_full = when_full
        self._system = system
        self._entries: Entries | None = OrderedDict()
        self._lock = threading.RLock()
        self._watches = Watches(self._lock, self._owner_died)
        with self._lock:
            if self.owner is not None:
                self._watches.keep(self.owner)
            publish(system, self, name)

    @classmethod
    def of(cls, system: ActorSystem, name: str) -> "Table":
        """Find the table of that name; raises `UnknownName` when there is none."""
        return find(system, cls, name)

    def get(self, key: Hashable, default: Any = None) -> Any:
        """Read a value, or `default` when the key is not there."""
        entries = self._readable()
        exact = strict(key)
        if self._when_full == "evict_least_used":
            with self._lock:
                if exact in entries:
                    entries.move_to_end(exact)
        found = entries.get(exact)
        return default if found is None else found[1]

    def __getitem__(self, key: Hashable) -> Any:
        found = self.get(key, MISSING)
        if found is MISSING:
            raise KeyError(key)
        return found

    def __contains__(self, key: Hashable) -> bool:
        return strict(key) in self._readable()

    def __len__(self) -> int:
        return len(self._readable())

    def items(self, where: Callable[[Hashable, Any], object] | None = None) -> list[tuple[Hashable, Any]]:
        """List the entries of this instant, oldest first: all, or those for which `where(key, value)` holds."""
        with self._lock:
            entries = list(self._readable().values())
        return [entry for entry in entries if where is None or where(*entry)]

    def put(self, key: Hashable, value: Any) -> None:
        """Write a value, over the one that is there.

        Raises:
            TableFull: The key is new and the table refuses more.
        """
        with self._lock:
            entries, exact = self._writable(), strict(key)
            if exact in entries:
                if self._when_full == "evict_least_used":
                    entries.move_to_end(exact)
            elif len(entries) >= self.limit:
                if self._when_full == "refuse":
                    raise TableFull(f"table {self.name!r} holds its limit of {self.limit} entries")
                entries.popitem(last=False)
            entries[exact] = (key, value)

    def put_new(self, key: Hashable, value: Any) -> bool:
        """Write a value unless the key is there; return whether it was written."""
        with self._lock:
            if strict(key) in self._writable():
                return False
            self.put(key, value)
            return True

    def update(self, key: Hashable, change: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace a value by `change(value)`, with no other writer in between; return the new value.

        `change` runs in the caller while other writers wait: keep it short.
        """
        with self._lock:
            found = self._writable().get(strict(key))
            new = change(default if found is None else found[1])
            self.put(key, new)
            return new

    def update_counter(self, key: Hashable, by: int = 1, *, start: int = 0) -> int:
        """Add to a number, which begins at `start`; return the sum."""
        return int(self.update(key, lambda value: value + by, start))

    def take(self, key: Hashable, default: Any = None) -> Any:
        """Remove an entry and return its value, or `default` when it is not there."""
        with self._lock:
            found = self._writable().pop(strict(key), None)
        return default if found is None else found[1]

    def delete(self, key: Hashable) -> None:
        """Remove an entry, if it is there."""
        self.take(key)

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._writable().clear()

    def give(self, ref: Ref, data: Any = None) -> None:
        """Make another actor the owner and tell it so. Only the owner may.

        Raises:
            ActorDead: That actor has ended; the table stays where it is.
        """
        with self._lock:
            self._owned("give away")
            self._move_to(ref, data)

    def set_heir(self, heir: Ref | None, data: Any = None) -> None:
        """Name who gets the table when the owner ends. Only the owner may."""
        with self._lock:
            self._owned("leave")
            self._heir, self._heir_data = heir, data

    def drop(self) -> None:
        """End the table. Only the owner may."""
        with self._lock:
            self._owned("drop")
            self._close()

    def _open(self) -> Entries:
        entries = self._entries
        if entries is None:
            raise TableClosed(f"table {self.name!r} is gone", hint="its owner ended; name an heir to keep it")
        return entries

    def _readable(self) -> Entries:
        return self._owned("read") if self.access == "private" else self._open()

    def _writable(self) -> Entries:
        still_in_effect()
        return self._open() if self.access == "public" else self._owned("write")

    def _owned(self, what: str) -> Entries:
        """Return the entries to the owner, and to no one else."""
        still_in_effect()
        entries = self._open()
        if current_actor() is not self.owner:
            owner = self.owner or "the code outside actors"
            raise NotOwner(f"only its owner may {what} table {self.name!r}", hint=f"its owner is {owner}")
        return entries

    def _move_to(self, ref: Ref, data: Any) -> None:
        self._watches.keep(ref)
        if self.owner is not None and self.owner is not ref:
            self._watches.release(self.owner)
        giver, self.owner = self.owner, ref
        offer(ref, TableGiven(self, giver, data), beyond_limit=True)

    def _owner_died(self, _: Ref) -> None:
        heir, self._heir = self._heir, None
        if heir is not None and heir.reason is None:
            try:
                self._move_to(heir, self._heir_data)
            except ActorDead:
                self._close()
        else:
            self._close()

    def _close(self) -> None:
        self._entries = None
        if self.owner is not None:
            self._watches.release(self.owner)
        withdraw(self._system, self, self.name)
