"""Finding what the live engine has cut out of an answer.

The engine passes every message through a lossy copier: text over 4000 characters loses its middle, lists end after 200
elements, objects after 100 keys, deep values and repeated references become marks. It says nothing about it, so this
module looks for the marks.
"""

from typing import Any

import msgspec

__all__ = ["Cut", "find_cuts"]


class Cut(msgspec.Struct, frozen=True):
    """One place where something is missing.

    Attributes:
        path: Where: `output`, `exports.items.value[3]`.
        kind: `text`, `list`, `object`, `depth`, `reference`, `internal`.
    """

    path: str
    kind: str


def find_cuts(value: Any, path: str = "") -> list[Cut]:
    """List every place of a decoded payload the engine has cut, in reading order (at most 100)."""
    raise NotImplementedError
