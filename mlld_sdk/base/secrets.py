"""Secrets of engines: found by the names of the variables that hold them, and hidden in what tells of failures.

An engine's environment tells them when it is started; from then on they are hidden in every text that goes through
`redacted`: stderr of engines, errors, crash reports and the events about them. What scripts and runs give is data and
stays as it is.
"""

import functools
import os
import re
import threading
from collections.abc import Mapping
from typing import Final

HIDDEN: Final = "[redacted]"

SHORTEST: Final = 6
"""Characters below which a value is not looked for: it would be found everywhere."""

LONGEST: Final = 4096
"""Characters of a value that are looked for."""

MOST: Final = 256
"""Values that are looked for; the oldest are forgotten first."""

_NAMES: Final = re.compile(
    r"(?:^|_|API|ACCESS|PRIVATE)KEYS?$|_PWD$|_PAT$|TOKEN$|(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?$",
    re.IGNORECASE,
)
_lock = threading.Lock()
_values: dict[str, None] = {}
_longest_first: tuple[str, ...] = ()


@functools.lru_cache(4096)
def is_secret(name: str) -> bool:
    """Return whether a variable of this name holds a secret, as `*_KEY`, `*_TOKEN`, `*_SECRET` and `*PASSWORD` do."""
    return _NAMES.search(name) is not None


def keep_secret(environ: Mapping[str, str]) -> None:
    """Hide the secrets of an environment from now on; of a value with several lines, each line, too."""
    global _longest_first
    found = [one for name, value in environ.items() if is_secret(name) for one in _parts(value)]
    if all(one in _values for one in found):
        return
    with _lock:
        _values.update(dict.fromkeys(found))
        while len(_values) > MOST:
            del _values[next(iter(_values))]
        _longest_first = tuple(sorted(_values, key=len, reverse=True))


def _parts(value: str) -> list[str]:
    pieces = (piece.strip()[:LONGEST] for piece in (value, *value.splitlines()))
    return [piece for piece in dict.fromkeys(pieces) if len(piece) >= SHORTEST]


def redacted(text: str) -> str:
    """Return a text with every secret in it hidden."""
    for value in _longest_first:
        if value in text:
            text = text.replace(value, HIDDEN)
    return text


def _forked() -> None:
    """Take a lock of one's own: a thread of the parent may have held the other one."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
