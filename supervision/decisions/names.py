"""Names that children were given under a dynamic supervisor, as a persistent map that is quick with many of them."""

from typing import Any

import msgspec

from mlld_sdk.supervision.decisions.slots import BITS, EMPTY, MASK


class NameMap(msgspec.Struct, frozen=True, eq=False):
    """A persistent map from names to keys of slots: `put` and `drop` return a new one and leave this one alone.

    Two levels of short lists lead to a dict, by the hash of the name. A change copies two lists and one dict, which
    holds about a thousandth of all names.
    """

    _root: list[Any] = msgspec.field(default_factory=lambda: EMPTY)
    count: int = 0

    def __len__(self) -> int:
        return self.count

    def get(self, name: str) -> int | None:
        """Find the key of a name, or `None`."""
        where = hash(name)
        node = self._root[(where >> BITS) & MASK]
        names = None if node is None else node[where & MASK]
        return None if names is None else names.get(name)

    def put(self, name: str, key: int) -> "NameMap":
        """Add a name, or give it another key."""
        return self._with(name, {name: key})

    def drop(self, name: str) -> "NameMap":
        """Remove a name; nothing happens when it is not there."""
        return self if self.get(name) is None else self._with(name, {})

    def _with(self, name: str, entry: dict[str, int]) -> "NameMap":
        """Copy the way to a name, and replace its entry."""
        where = hash(name)
        above, at = (where >> BITS) & MASK, where & MASK
        root = self._root.copy()
        root[above] = node = (root[above] or EMPTY).copy()
        before: dict[str, int] = node[at] or {}
        node[at] = after = {**before, **entry}
        if not entry:
            del after[name]
        return NameMap(root, self.count + len(after) - len(before))
