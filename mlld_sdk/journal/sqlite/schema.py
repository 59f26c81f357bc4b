"""The file: its tables, how it is opened, and how an older one is brought up to date."""

import os
import sqlite3
import threading
from pathlib import Path

from mlld_sdk.journal import crashpoints
from mlld_sdk.journal.errors import JournalReadOnly, JournalTooNew, JournalUnreadable, NotAJournal
from mlld_sdk.journal.options import Durability

APPLICATION_ID = 0x6D6C6C64
"""`mlld` in ASCII; stands in the header of every journal file."""

CURRENT = 4

_TABLES_1 = """
CREATE TABLE runs (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, key TEXT, state TEXT NOT NULL,
    epoch INTEGER NOT NULL, session TEXT, until REAL, queued REAL NOT NULL, deadline REAL, updated REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX runs_by_key ON runs (kind, key) WHERE key IS NOT NULL;
CREATE INDEX runs_ended ON runs (kind, updated) WHERE state IN ('finished', 'failed', 'cancelled');
CREATE TABLE inputs (run TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE outcomes (run TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE steps (
    run TEXT NOT NULL, position TEXT NOT NULL, state TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (run, position)
) WITHOUT ROWID;
"""

_TABLES_2 = """
ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_by_turn ON runs (state, kind, priority DESC, queued, id);
CREATE TABLE events (run TEXT NOT NULL, n INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (run, n)) WITHOUT ROWID;
"""

_TABLES_3 = """
ALTER TABLE runs ADD COLUMN quarantine INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN due REAL NOT NULL DEFAULT 0;
UPDATE runs SET due = queued;
DROP INDEX runs_by_turn;
CREATE INDEX runs_by_turn ON runs (state, kind, quarantine, priority DESC, queued, id, due);
CREATE INDEX runs_in_quarantine ON runs (state, kind, quarantine) WHERE quarantine > 0
"""

_TABLES_4 = """
CREATE TABLE tally (n INTEGER NOT NULL);
INSERT INTO tally VALUES (0)
"""

MIGRATIONS = {1: _TABLES_1, 2: _TABLES_2, 3: _TABLES_3, 4: _TABLES_4}
"""What leads to each version from the one before. 1 had no priorities and no events, 2 no quarantine, 3 no tally."""

_making = threading.Lock()
"""Held from making a file to closing it, and while opening one: see `create_file`."""


def create_file(path: Path) -> bool:
    """Make an empty file that only its owner can read, unless there is a file already; returns whether it did.

    A file that is there is not opened here: closing it again would drop the locks SQLite holds on it elsewhere in this
    process, as POSIX has it.

    Raises:
        NotAJournal: The folder is missing, or the path names a folder.
        JournalReadOnly: The file cannot be made.
    """
    if not path.parent.is_dir():
        raise NotAJournal(f"{path}: there is no folder {path.parent}", hint="make the folder first")
    if path.is_dir():
        raise NotAJournal(f"{path} is a folder", hint="name a file in it")
    with _making:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            if not os.access(path, os.R_OK | os.W_OK):
                raise JournalReadOnly(f"cannot open {path} for writing: permission denied") from None
            return False
        except OSError as error:
            raise JournalReadOnly(f"cannot make {path}: {error.strerror}") from error
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def connect(path: Path, durability: Durability, busy_s: float) -> sqlite3.Connection:
    """Open a connection to a file that is a journal already."""
    with _making:
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA synchronous={durability}")
        connection.execute(f"PRAGMA fullfsync={durability == 'full'}")  # macOS: through the disk's cache
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> int:
    """Make the tables, or bring them up to date; returns the version the file had, 0 for a new one.

    Raises:
        NotAJournal: It is a database of something else.
        JournalTooNew: A newer version of the library wrote it.
    """
    version = _version(connection, path)
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise JournalUnreadable(
            f"{path}: the file system does not support write-ahead logging", hint="use a file on a local disk"
        )
    if version == CURRENT:
        return version
    crashpoints.reach("migrate.before")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)  # another process may have been faster
        upgrade(connection, version)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={CURRENT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    crashpoints.reach("migrate.after")
    return version


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Bring tables of a version, 0 for none at all, up to date within the transaction at hand."""
    for step in range(version + 1, CURRENT + 1):
        for statement in MIGRATIONS[step].split(";"):
            connection.execute(statement)


def tally(connection: sqlite3.Connection) -> int:
    """Return how many commits have counted themselves: see `sessions`."""
    return int(connection.execute("SELECT coalesce(max(n), 0) FROM tally").fetchone()[0])


def count_commit(connection: sqlite3.Connection) -> int:
    """Let the transaction at hand count itself; returns its number."""
    connection.execute("UPDATE tally SET n=n+1")
    return tally(connection)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    pragmas = "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version"
    application, version = connection.execute(pragmas).fetchone()
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application != APPLICATION_ID and not (application == 0 and version == 0 and empty):
        raise NotAJournal(f"{path} is a SQLite file of something else", hint="name another file; it is as it was")
    if version > CURRENT:
        raise JournalTooNew(
            f"{path} has version {version}, this library knows up to {CURRENT}",
            hint="upgrade the library, or open a backup made before",
        )
    return int(version)
