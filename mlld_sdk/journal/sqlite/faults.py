"""What SQLite reports, as the journal's own errors."""

import sqlite3

from mlld_sdk.journal.errors import (
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalReadOnly,
    JournalUnreadable,
)

_PRIMARY = 0xFF
"""SQLite's extended codes carry the primary code in the low byte."""


def translate(error: sqlite3.Error, path: object) -> JournalError:
    """Name an error of SQLite, for the file at `path`."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    said = f"{path}: {error} [{name}]"
    known: JournalError
    match code and code & _PRIMARY:
        case sqlite3.SQLITE_FULL:
            known = JournalFull(f"no room left for {said}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            known = JournalLocked(f"another process holds {said}")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            known = JournalReadOnly(f"cannot write {said}")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            known = JournalCorrupt(f"the journal is damaged: {said}", hint="stop, verify() it and restore a backup")
        case sqlite3.SQLITE_CANTOPEN:
            known = JournalUnreadable(f"cannot open {said}", hint="check that the folder is there and can be written")
        case sqlite3.SQLITE_IOERR:
            known = JournalUnreadable(f"the disk fails for {said}", hint="check the disk, quota and file size limits")
        case None if isinstance(error, sqlite3.ProgrammingError):
            known = JournalClosed(f"the journal is closed: {said}")
        case _:
            known = JournalError(f"the journal failed: {said}", hint="verify() it, and check the disk")
    known.__cause__ = error
    return known


def fits_alone(error: sqlite3.Error) -> bool:
    """Return whether a failed group may succeed in parts: the fault may lie with one of its members."""
    code = getattr(error, "sqlite_errorcode", None)
    whole = {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
    }
    return code is not None and (code & _PRIMARY) not in whole
