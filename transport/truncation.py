"""Finding what the live engine has cut out of an answer.

The engine passes every message through a lossy copier: text over 4000 characters loses its middle, lists end after 200
elements, objects after 100 keys, deep values and repeated references become marks. It says nothing about it, so this
module looks for the marks. The counts inside the marks are wrong (a second pass overwrites them) and are not reported.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

TEXT_LIMIT = 4000
LIST_LIMIT = 200
KEY_LIMIT = 100
REPORTED = 100
_DEPTH = 32  # the live engine itself stops at 8

_MARK = re.compile(r" \.\.\. \[truncated \d+ chars\] \.\.\. ")
_MORE = re.compile(r"\[\+\d+ more items\]")
_STAND_INS = {
    "[Object]": "depth",
    "[Array]": "depth",
    "[Circular]": "reference",
    "[omitted internal state]": "internal",
}
# Bookkeeping the engine repeats by reference in nearly every message: no value of the script is in it.
_BOOKKEEPING = {
    "effect": {"security", "capability"},
    "effects": {"security", "capability"},
    "write": {"security"},
    "stateWrites": {"security"},
    "exports": {"metadata"},
}


class Cut(msgspec.Struct, frozen=True):
    """One place where something is missing.

    Attributes:
        path: Where: `output`, `exports.items.value[3]`.
        kind: `text`, `list`, `object`, `depth`, `reference` or `internal`.
    """

    path: str
    kind: str


def find_cuts(value: Any, path: str = "") -> list[Cut]:
    """List every place of a decoded payload or event the engine has cut, in reading order, at most 100."""
    return list(islice(_cuts_of_message(value, path), REPORTED))


def _cuts_of_message(value: Any, path: str) -> Iterator[Cut]:
    """Walk a message, leaving out the bookkeeping beside the values."""
    if not isinstance(value, dict):
        yield from _cuts(value, path)
        return
    for key, part in value.items():
        here = f"{path}.{key}" if path else key
        skipped = _BOOKKEEPING.get(key)
        if skipped is None:
            yield from _cuts(part, here)
        elif key in ("effect", "write"):
            yield from _cuts(_without(part, skipped), here)
        elif isinstance(part, dict):
            yield from _cuts({name: _without(inner, skipped) for name, inner in part.items()}, here)
        elif isinstance(part, list):
            yield from _cuts([_without(inner, skipped) for inner in part], here)
        else:
            yield from _cuts(part, here)


def _without(value: Any, keys: set[str]) -> Any:
    return {key: part for key, part in value.items() if key not in keys} if isinstance(value, dict) else value


def _cuts(value: Any, path: str, depth: int = _DEPTH) -> Iterator[Cut]:
    if isinstance(value, str):
        kind = _STAND_INS.get(value) or ("text" if _is_cut_text(value) else None)
        if kind:
            yield Cut(path, kind)
    elif depth == 0:
        return
    elif isinstance(value, list):
        for index, part in enumerate(value):
            if index == LIST_LIMIT and len(value) == LIST_LIMIT + 1 and isinstance(part, str) and _MORE.fullmatch(part):
                yield Cut(path, "list")
            else:
                yield from _cuts(part, f"{path}[{index}]", depth - 1)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key == "__truncatedKeys" and len(value) > KEY_LIMIT:
                yield Cut(path, "object")
            else:
                yield from _cuts(part, f"{path}.{key}" if path else key, depth - 1)


def _is_cut_text(text: str) -> bool:
    """A cut text is just short of the limit, counted as the engine counts, and has the mark in its middle."""
    if not TEXT_LIMIT // 2 <= len(text) <= TEXT_LIMIT or _MARK.search(text) is None:
        return False
    return TEXT_LIMIT - 8 <= len(text.encode("utf-16-le", "surrogatepass")) // 2 <= TEXT_LIMIT
