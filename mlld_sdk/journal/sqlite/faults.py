"""What SQLite reports, as the journal's own errors."""

import sqlite3
from typing import Final

from mlld_sdk.journal.errors import (
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalReadOnly,
    JournalUnreadable,
)

Fault = sqlite3.Error | UnicodeDecodeError
"""What SQLite raises; the second for a text that is damaged so that it is no UTF-8 any more, if only in a message."""

FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)

_PRIMARY = 0xFF
"""SQLite's extended codes carry the primary code in the low byte."""


_KNOWN: Final[dict[int | None, tuple[type[JournalError], str, str | None]]] = {
    sqlite3.SQLITE_FULL: (JournalFull, "no room left for", None),
    sqlite3.SQLITE_BUSY: (JournalLocked, "another process holds", None),
    sqlite3.SQLITE_LOCKED: (JournalLocked, "another process holds", None),
    sqlite3.SQLITE_READONLY: (JournalReadOnly, "cannot write", None),
    sqlite3.SQLITE_PERM: (JournalReadOnly, "cannot write", None),
    sqlite3.SQLITE_CORRUPT: (JournalCorrupt, "the journal is damaged:", "stop, verify() it and restore a backup"),
    sqlite3.SQLITE_NOTADB: (JournalCorrupt, "the journal is damaged:", "stop and restore a backup"),
    sqlite3.SQLITE_CANTOPEN: (JournalUnreadable, "cannot open", "check that the folder is there and can be written"),
    sqlite3.SQLITE_IOERR: (JournalUnreadable, "the disk fails for", "check the disk, quota and file size limits"),
}
_DAMAGED: Final = _KNOWN[sqlite3.SQLITE_CORRUPT]
_OTHER: Final = (JournalError, "the journal failed:", "verify() it, and check the disk")


def translate(error: Fault, path: object) -> JournalError:
    """Return an error of SQLite as one of the journal's own, for the file at `path`."""
    code = getattr(error, "sqlite_errorcode", None)
    kind, words, hint = _KNOWN.get(code and code & _PRIMARY, _OTHER)
    if code is None and isinstance(error, sqlite3.ProgrammingError):
        kind, words, hint = JournalClosed, "the journal is closed:", None
    elif code is None and (isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error)):
        kind, words, hint = _DAMAGED
    known = kind(f"{words} {path}: {error} [{getattr(error, 'sqlite_errorname', type(error).__name__)}]", hint=hint)
    known.__cause__ = error
    return known


def is_no_database(error: Fault) -> bool:
    """Return whether SQLite does not take the file for one of its own."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB


def fits_alone(error: Fault) -> bool:
    """Return whether a failed group may succeed in parts: the fault may lie with one of its members."""
    code = getattr(error, "sqlite_errorcode", None)
    kind, *_ = _KNOWN.get(code and code & _PRIMARY, _OTHER)
    return code is not None and not issubclass(kind, JournalLocked | JournalReadOnly | JournalCorrupt)
