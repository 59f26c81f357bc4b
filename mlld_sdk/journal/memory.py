"""A store in memory: the same rows as in a file, without a writer, a disk or other processes."""

import sqlite3
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from mlld_sdk.journal.audit import audit
from mlld_sdk.journal.errors import JournalClosed, JournalRefusal, not_text
from mlld_sdk.journal.rows import Tx
from mlld_sdk.journal.sqlite import schema
from mlld_sdk.journal.store import Host, Problem, StoreStatus

T = TypeVar("T")

_OUTERMOST: Final = "BEGIN", "ROLLBACK", "COMMIT"
_WITHIN: Final = "SAVEPOINT within", "ROLLBACK TO within", "RELEASE within"
"""How a write begins, is undone and ends: those who hear within one that a lease is lost may write, too."""


class MemoryStore:
    """Keeps records as long as it lives. Several journals may share one, as several processes share a file."""

    def __init__(self) -> None:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        # Not when the interpreter exits: threads may be at work then, and a connection closed under them is a crash.
        weakref.finalize(self, connection.close).atexit = False
        schema.upgrade(connection, 0)
        self._tx = Tx(connection)
        self._lock = threading.RLock()
        self._hosts: dict[str, Host] = {}
        self._joined = 0
        self._writes = 0

    def join(self, host: Host) -> str:
        """Attach a journal."""
        with self._lock:
            self._joined += 1
            session = f"memory-{self._joined}"
            self._hosts[session] = host
            return session

    def leave(self, session: str) -> None:
        """Detach a journal."""
        with self._lock:
            self._hosts.pop(session, None)

    def alive(self, session: str) -> bool:
        """Return whether a journal is attached."""
        return session in self._hosts

    def write(self, session: str, work: Callable[[Tx], T], timeout: float) -> T:  # noqa: ARG002 - never waits
        """Run a transaction, after what is due, and tell every journal of it."""
        with self._lock:
            if session not in self._hosts:
                raise JournalClosed("the journal in memory is closed")
            self.wake()
            return self._run(session, work)

    def read(self, work: Callable[[Tx], T]) -> T:
        """Read under the lock."""
        with self._lock:
            if not self._hosts:
                raise JournalClosed("the journal in memory is closed")
            try:
                return work(self._tx)
            except UnicodeEncodeError as error:
                raise not_text() from error

    def wake(self) -> None:
        """Do what is due. Nothing waits here: every write tells every journal."""
        with self._lock:
            for name, host in list(self._hosts.items()):
                for chore in host.chores():
                    self._run(name, chore)

    def backup(self, target: Path) -> None:
        """Refuse: there is nothing a file could be opened with."""
        raise JournalRefusal(f"a journal in memory cannot be copied to {target}", hint="open a file instead")

    def verify(self) -> list[Problem]:
        """Look at every record."""
        return self.read(lambda tx: audit(tx.connection))

    def status(self) -> StoreStatus:
        """Return how much was written."""
        return StoreStatus(
            path=None, degraded=None, reason="", queued=0, commits=self._writes, writes=self._writes, bytes=0
        )

    def _run(self, session: str, work: Callable[[Tx], T]) -> T:
        connection = self._tx.connection
        tx, (begin, undo, end) = Tx(connection), _WITHIN if connection.in_transaction else _OUTERMOST
        try:
            connection.execute(begin)
            result = work(tx)
        except BaseException:
            if connection.in_transaction:
                connection.execute(undo)
            raise
        connection.execute(end)
        self._writes += 1
        for name, host in list(self._hosts.items()):
            if name == session:
                host.committed(tx.notes)
            else:
                host.changed_elsewhere()
        return result
