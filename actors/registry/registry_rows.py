"""The two indexes of a registry: who holds a key, and which keys an owner holds. Plain data, no locks, no actors.

Every change touches the rows it names and nothing else: adding, removing and updating cost the same whether the owner
holds one key or a hundred thousand.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)


def strict(key: Hashable) -> Hashable:
    """Make a key that equals another only when types agree too, also inside tuples.

    Python holds `1 == 1.0 == True`; a registry in which `True` answers for `1` hides mistakes. Strings, the usual
    keys, stand for themselves; a subclass of `str`, such as a string enum, is a different key from its plain twin.
    """
    kind = type(key)
    if kind is str:
        return key
    if kind is tuple:
        return (tuple, *(strict(part) for part in key))  # type: ignore[attr-defined]  # it is a tuple, by the test above
    return (kind, key)


@dataclass(slots=True, eq=False)
class KeyRow(Generic[Owner]):
    """One registration."""

    key: Hashable
    owner: Owner
    value: Any


class Rows(Generic[Owner]):
    """All registrations of one registry; those of one key come in the order in which they were added.

    Args:
        idle: Called with an owner that has no row left.
    """

    def __init__(self, idle: Callable[[Owner], object] = lambda _: None) -> None:
        self._idle = idle
        self._by_key: dict[Hashable, dict[int, KeyRow[Owner]]] = {}
        self._by_owner: dict[Owner, dict[Hashable, dict[int, KeyRow[Owner]]]] = {}
        self._count = 0

    def add(self, key: Hashable, owner: Owner, value: Any) -> KeyRow[Owner]:
        """Add a row, also if the key has other rows."""
        row = KeyRow(key, owner, value)
        exact = strict(key)
        self._by_key.setdefault(exact, {})[id(row)] = row
        self._by_owner.setdefault(owner, {}).setdefault(exact, {})[id(row)] = row
        self._count += 1
        return row

    def holder(self, key: Hashable) -> KeyRow[Owner] | None:
        """Find the first row of a key."""
        rows = self._by_key.get(strict(key))
        return next(iter(rows.values())) if rows else None

    def under(self, key: Hashable) -> list[KeyRow[Owner]]:
        """List the rows of a key."""
        rows = self._by_key.get(strict(key))
        return list(rows.values()) if rows else []

    def owned(self, owner: Owner, key: Hashable) -> list[KeyRow[Owner]]:
        """List the owner's rows of a key."""
        rows = self._by_owner.get(owner, {}).get(strict(key))
        return list(rows.values()) if rows else []

    def of(self, owner: Owner) -> list[KeyRow[Owner]]:
        """List every row of an owner."""
        return [row for rows in self._by_owner.get(owner, {}).values() for row in rows.values()]

    def holds_any(self, owner: Owner) -> bool:
        """Return whether the owner has a row left."""
        return owner in self._by_owner

    def keys(self) -> list[Hashable]:
        """List the keys that have rows."""
        return [next(iter(rows.values())).key for rows in self._by_key.values()]

    def drop(self, row: KeyRow[Owner]) -> None:
        """Remove one row."""
        exact = strict(row.key)
        rows = self._by_key[exact]
        del rows[id(row)]
        if not rows:
            del self._by_key[exact]
        self._count -= 1
        owned = self._by_owner[row.owner]
        del owned[exact][id(row)]
        if not owned[exact]:
            del owned[exact]
            if not owned:
                del self._by_owner[row.owner]
                self._idle(row.owner)

    def __iter__(self) -> Iterator[KeyRow[Owner]]:
        return iter([row for rows in self._by_key.values() for row in rows.values()])

    def __len__(self) -> int:
        return self._count
