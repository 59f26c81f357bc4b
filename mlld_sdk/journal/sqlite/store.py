"""The journal's file: SQLite with a write-ahead log, one writer thread, readers of their own."""

import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar, cast

from mlld_sdk.base.durations import now, pause
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.events import Sink
from mlld_sdk.base.options import one_of
from mlld_sdk.journal.audit import audit
from mlld_sdk.journal.errors import (
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalGone,
    JournalIncomplete,
    NotAJournal,
    not_text,
)
from mlld_sdk.journal.events import (
    JournalDegraded,
    JournalExposedEvent,
    JournalMigrated,
    JournalRecovered,
    JournalRepaired,
)
from mlld_sdk.journal.options import Durability, JournalLimits
from mlld_sdk.journal.rows import Tx
from mlld_sdk.journal.sqlite import schema, sessions
from mlld_sdk.journal.sqlite.access import check_access
from mlld_sdk.journal.sqlite.faults import FAULTS, Fault, is_no_database, translate
from mlld_sdk.journal.sqlite.upkeep import IndexAudit
from mlld_sdk.journal.sqlite.writer import Writer
from mlld_sdk.journal.store import Host, Problem, StoreStatus

T = TypeVar("T")

_READERS: Final = 16
"""Reading connections at most; further readers wait."""

_CHECK_EVERY_S: Final = 0.05
"""Between two looks whether the file is where it was. A commit after a longer pause is checked before it counts.

So long, too, between two commits that count themselves.
"""

_OPEN_RETRY_S: Final = 0.02
"""Between two tries to open a file that another process is just making. SQLite cannot wait there by itself."""


_FINAL: Final = (JournalCorrupt, JournalGone)
"""With these the file stays refused until it is opened again."""


class SqliteStore:
    """One open file. Several processes may have the same file open, each through its own."""

    def __init__(self, path: Path, *, env: Env, sink: Sink, durability: Durability, limits: JournalLimits) -> None:
        """Open or make the file; an older one is brought up to date first."""
        one_of("durability", durability, "full", "normal")
        self._path = path.resolve()  # one file, one folder of sessions, by any link that names it
        self._env = env
        self._sink = sink
        self._durability = durability
        self._limits = limits
        self._fault: JournalError | None = None
        self._names = (str(self._path), f"{self._path}-wal")
        self._check_at = 0.0
        self._count_at = 0.0
        self._counted = 0
        self._audit = IndexAudit(str(self._path), env.wall)
        self._idle: list[Tx] = []
        self._readers = threading.BoundedSemaphore(_READERS)
        self._lock = threading.Lock()
        self._closed = False
        self._sessions = self._path.with_name(f"{self._path.name}-sessions")
        fresh = schema.create_file(self._path)
        exposed = check_access(self._path, self._sessions, mend=True)
        known = 0 if fresh else sessions.last_count(self._sessions)  # before the file is read, as others may write
        connection, count = self._open()
        self._writing = Tx(connection)
        try:
            self._refuse_if_incomplete(count, known)
            self._changes = self._writing.connection.total_changes
            for reason in exposed:
                sink(JournalExposedEvent(at=env.wall(), path=str(self._path), reason=reason))
            file = self._path.stat()
            self._identity: tuple[int, ...] = (file.st_dev, file.st_ino)
            self._session = sessions.Session(self._sessions, self._names[1], count, durable=durability == "full")
        except BaseException:
            self._writing.connection.close()
            raise
        self._writer = Writer(self, self._path.name, limits.queued_writes)

    # -- the store ----------------------------------------------------------------------------------------------------

    def join(self, host: Host) -> str:
        """Attach the one journal that works on this store."""
        if self._writer.host is not None:
            raise ConfigurationError(f"{self._path} is attached to a journal already", hint="open the file once more")
        self._writer.host = host
        return self._session.name

    def leave(self, session: str) -> None:
        """Write what is queued and close."""
        with self._lock:
            if self._closed or session != self._session.name:
                return
            self._closed = True
        if self._session.inherited:
            return  # a fork of the process that opened it, which everything here belongs to
        in_time = self._writer.close(self._limits.write_timeout)
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.connection.close()
        if isinstance(self._fault, _FINAL) or os.path.exists(self._names[1]):
            self._session.drop()  # its count is of use still
        else:
            self._session.end()
        if not in_time:
            raise JournalBusy(
                f"{self._path} could not be closed within {self._limits.write_timeout:g} s",
                hint="the disk is stuck; what was confirmed before is safe",
            )

    def alive(self, session: str) -> bool:
        """Return whether a session lives, in any process."""
        return session == self._session.name or sessions.alive(self._sessions, self._names[1], session)

    def write(self, session: str, work: Callable[[Tx], T], timeout: float) -> T:
        """Run a transaction in the next group; returns when it is durable."""
        if self._closed or self._session.inherited or session != self._session.name:
            self._refuse_if_closed()
            raise JournalClosed(f"{self._path}: session {session} is over")
        return cast("T", self._writer.write(work, timeout))

    def read(self, work: Callable[[Tx], T]) -> T:
        """Read one consistent state on a connection of its own; never waits for the writer."""
        reader = self._take_reader()
        broken = False
        try:
            reader.connection.execute("BEGIN")
            return work(reader)
        except FAULTS as error:
            broken = True
            raise translate(error, self._path) from error
        except UnicodeEncodeError as error:
            raise not_text() from error
        finally:
            self._put_back(reader, broken)

    def wake(self) -> None:
        """Make the writer look again at what is due."""
        self._writer.wake()

    def backup(self, target: Path) -> None:
        """Copy everything into a new file, which appears under its name when it is whole."""
        self._refuse_if_closed()
        if target.exists() and target.samefile(self._path):
            raise ConfigurationError(f"{target} is the journal itself", hint="name another file")
        partial = target.with_name(f"{target.name}.partial")
        try:
            partial.unlink(missing_ok=True)
            schema.create_file(partial)
            copy = sqlite3.connect(partial)
            try:
                self.read(lambda reader: reader.connection.backup(copy))
                copy.execute("PRAGMA journal_mode=DELETE")
            finally:
                copy.close()
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(target)
            schema.sync_folder(target.parent)
        except FAULTS as error:
            raise translate(error, target) from error
        finally:
            partial.unlink(missing_ok=True)

    def verify(self) -> list[Problem]:
        """Look at every page and every record."""
        self._refuse_if_closed()
        return self.read(lambda reader: audit(reader.connection))

    def status(self) -> StoreStatus:
        """Return how the file is doing."""
        fault = self._fault
        return StoreStatus(
            path=str(self._path),
            degraded=fault.code if fault else None,
            reason=fault.message if fault else "",
            queued=self._writer.queued,
            commits=self._writer.commits,
            writes=self._writer.writes,
            bytes=sum(map(_size_of, self._names)),
        )

    # -- for the writer, on its thread --------------------------------------------------------------------------------

    def writable(self) -> Tx:
        """Return the transaction of the writing connection; what is damaged or gone for good is refused at once."""
        if isinstance(self._fault, _FINAL):
            raise self._fault
        return self._writing

    def committing(self, tx: Tx) -> None:
        """Let a transaction that changes something count itself, now and then."""
        self._counted = 0
        if now() >= self._count_at and tx.connection.total_changes != self._changes:
            self._counted = schema.count_commit(tx.connection)

    def committed(self) -> None:
        """Check, now and then, that what was written can be found again under the file's name, and note its count."""
        if now() >= self._check_at:
            self._check_at = now() + _CHECK_EVERY_S
            self._check_names()
            self._check_session()
        if self._counted:
            self._count_at = now() + _CHECK_EVERY_S
            self._session.note(self._counted)
        self._changes = self._writing.connection.total_changes
        if self._fault is not None:
            self._fault = None
            self._sink(JournalRecovered(at=self._env.wall(), path=str(self._path)))

    def chores(self) -> Iterable[Callable[[Tx], object]]:
        """Look whether the session's file is there and the indices lead to all runs; returns the repair that is due."""
        if self._audit.due_in():
            return ()
        self._check_session()
        return self._audit.look(self.writable().connection)

    def pace(self) -> float:
        """Return the seconds until the next look; a file that is damaged or gone for good is not looked at any more."""
        return math.inf if isinstance(self._fault, _FINAL) else self._audit.due_in()

    def failed(self, error: BaseException) -> JournalError:
        """Name an error and tell of it once; the damaged and the gone stay refused until the file is opened again."""
        if isinstance(error, Fault):
            named = translate(error, self._path)
        elif isinstance(error, JournalError):
            named = error
        else:
            named = JournalError(f"{self._path}: {type(error).__name__}: {error}", hint="check the disk and the file")
        if isinstance(self._fault, _FINAL):
            return self._fault
        first = self._fault is None
        self._fault = named
        if first:
            self._sink(
                JournalDegraded(at=self._env.wall(), path=str(self._path), code=named.code, reason=named.message)
            )
        return named

    def closed(self) -> None:
        """Close the writing connection."""
        self._writing.connection.close()

    def _check_names(self) -> None:
        try:
            file, log = map(os.stat, self._names)
            here = (file.st_dev, file.st_ino, log.st_dev, log.st_ino)
        except OSError:
            here = None
        if here is not None and len(self._identity) == 2:  # SQLite makes the log with the first write
            self._identity += here[2:]
        if here != self._identity:
            raise self.failed(
                JournalGone(
                    f"{self._path} (or its -wal) was deleted or replaced while it was open",
                    hint="what was written in the last moments is lost: restore a backup, then open the journal again",
                )
            )

    def _check_session(self) -> None:
        """Make the session's file again if somebody has removed it; others cannot take its runs in between."""
        if self._session.restore():
            reason = f"{self._sessions} was removed while it was in use, and is made again"
            self._sink(JournalRepaired(at=self._env.wall(), path=str(self._path), reason=reason))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise JournalClosed(f"{self._path} is closed")
        if self._session.inherited:
            raise JournalClosed(
                f"{self._path} was opened by another process, and this is a fork of it",
                hint="open the journal again in the child",
            )

    def _refuse_if_incomplete(self, count: int, known: int) -> None:
        if count < known:
            raise JournalIncomplete(
                f"{self._path} lacks writes that were confirmed: it knows of {count} counts, and there were {known}",
                hint=f"put its -wal back if it was moved away, or restore a backup; to go on with what is left, remove "
                f"{self._sessions}: then steps that were finished may run again",
            )

    def _open(self) -> tuple[sqlite3.Connection, int]:
        """Connect; returns how many commits have counted themselves, too."""
        deadline = now() + self._limits.write_timeout / 2
        while True:
            connection = None
            try:
                connection = schema.connect(self._path, self._durability, self._limits.write_timeout / 2)
                before = schema.prepare(connection, self._path)
                count = schema.tally(connection)
            except BaseException as error:
                if connection is not None:
                    connection.close()
                if not isinstance(error, Fault):
                    raise
                if is_no_database(error) and not self._sessions.exists():  # which it has if it was a journal once
                    raise NotAJournal(
                        f"{self._path} is not a journal, nor any SQLite file",
                        hint="name another file; this one is as it was",
                    ) from error
                named = translate(error, self._path)
                if named.code != "JOURNAL_LOCKED" or now() > deadline:
                    raise named from error
                pause(_OPEN_RETRY_S)
            else:
                if 0 < before < schema.CURRENT:
                    at = self._env.wall()
                    self._sink(JournalMigrated(at=at, path=str(self._path), before=before, after=schema.CURRENT))
                return connection, count

    def _take_reader(self) -> Tx:
        if self._closed or self._session.inherited:
            self._refuse_if_closed()
        if not self._readers.acquire(timeout=self._limits.write_timeout):
            raise JournalBusy(f"{self._path} has {_READERS} readers already", hint="read less at once")
        try:
            with self._lock:
                if self._idle:
                    return self._idle.pop()
            connection = schema.connect(self._path, self._durability, self._limits.write_timeout / 2)
            connection.execute("PRAGMA query_only=ON")
            return Tx(connection)
        except BaseException as error:
            self._readers.release()
            if isinstance(error, Fault):
                raise translate(error, self._path) from error
            raise

    def _put_back(self, reader: Tx, broken: bool) -> None:
        if not broken:
            try:
                reader.connection.execute("ROLLBACK")
            except sqlite3.Error:  # what the work gave or raised is what counts
                broken = True
        with self._lock:
            keep = not broken and not self._closed
            if keep:
                self._idle.append(reader)
        if not keep:
            reader.connection.close()
        self._readers.release()


def _size_of(name: str) -> int:
    try:
        return os.stat(name).st_size
    except FileNotFoundError:  # the log goes when the last process closes the journal
        return 0
