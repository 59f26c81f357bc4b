"""One thread that writes: all that was asked for while the last commit ran goes into the next one."""

import math
import queue
import threading
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Final, Protocol

from mlld_sdk.base.durations import now
from mlld_sdk.journal import crashpoints
from mlld_sdk.journal.errors import (
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalLocked,
    JournalUncertain,
)
from mlld_sdk.journal.rows import Notes, PutStep, Tx
from mlld_sdk.journal.sqlite.faults import FAULTS, Fault, fits_alone
from mlld_sdk.journal.sqlite.write_queue import GONE, PATIENCE_S, QUEUED, TAKEN, WITHDRAWN, QueuedWrite, WriteBatch
from mlld_sdk.journal.store import Host

_row_of, _event_of = attrgetter("row"), attrgetter("event")

_GROUP: Final = 512
"""Writes in one commit at most, so that the first of them does not wait for ever."""


class Disk(Protocol):
    """What the writer needs of the file. All of it runs on the writer's thread."""

    def writable(self) -> Tx:
        """Return the transaction of the writing connection, or raise what the file is refused with."""

    def committing(self, tx: Tx) -> None:
        """Add to a transaction that is about to be committed what the file needs for itself."""

    def committed(self) -> None:
        """Check after a commit that the file is still the one that was opened; raises if not."""

    def chores(self) -> Iterable[Callable[[Tx], object]]:
        """Look after the file, if that is due; returns what has to be written for it."""

    def pace(self) -> float:
        """Return the seconds until that is due."""

    def failed(self, error: BaseException) -> JournalError:
        """Take note that writes fail, and name the error."""

    def closed(self) -> None:
        """Close the connection; the writer ends."""


class Writer:
    """Owns the writing connection. Its queue is bounded: callers beyond the bound wait for room, within their time.

    Attributes:
        host: The journal that is told what has become durable and asked what is due, once there is one.
    """

    def __init__(self, disk: Disk, name: str, bound: int) -> None:
        self.host: Host | None = None
        self._disk = disk
        self._bound = bound
        self._queue: queue.SimpleQueue[QueuedWrite | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._crowd = 0
        self._claim = threading.Lock()
        self._closing = False
        self._ended = False
        self._due = 0.0
        self._locked_out = False
        self._version = -1
        self._batch = WriteBatch([])
        self.commits = 0
        self.writes = 0
        self._thread = threading.Thread(target=self._run, name=f"mlld-journal-{name}", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Writes waiting for their turn."""
        return self._queue.qsize()

    def write(self, work: Callable[[Tx], Any], timeout: float) -> Any:
        """Queue a write and wait until it is durable; returns the result of `work`.

        Raises:
            JournalBusy, JournalLocked: Its turn did not come in time; it was withdrawn and is certainly not written.
            JournalUncertain: The commit did not come back in time.
        """
        left = timeout
        if self._queue.qsize() >= self._bound:
            left = self._wait_for_room(timeout)
        if self._closing:
            raise JournalClosed("the journal is closed")
        write = QueuedWrite(work)
        self._queue.put(write)
        if self._ended:
            raise JournalClosed("the journal is closed")
        if not write.wait(left):
            self._withdraw(write, timeout)
        if write.error is not None:
            raise write.error
        return write.result

    def wake(self) -> None:
        """Make the writer look at its chores and its pace."""
        self._queue.put(None)

    def close(self, timeout: float) -> bool:
        """Write what is queued, then end; returns whether that was done in time."""
        self._closing = True
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _wait_for_room(self, timeout: float) -> float:
        """Wait until the queue has room; returns what is left of the time."""
        deadline = now() + timeout
        with self._room:
            self._crowd += 1
            try:
                free = self._room.wait_for(lambda: self._closing or self._queue.qsize() < self._bound, timeout)
            finally:
                self._crowd -= 1
        if not free:
            raise self._late(timeout)
        return max(deadline - now(), 0)

    def _withdraw(self, write: QueuedWrite, timeout: float) -> None:
        with self._claim:
            if write.state == QUEUED:
                write.state = WITHDRAWN
                raise self._late(timeout)
            write.state = GONE
        if not write.wait(0.05):  # it may have been done this very moment
            raise JournalUncertain(
                f"a write was not confirmed within {timeout:g} s; it may be written or not",
                hint="the disk may be very slow or stuck; read the run before you go on",
            )

    def _late(self, timeout: float) -> JournalError:
        if self._locked_out:
            return JournalLocked(f"another process held the journal for {timeout:g} s; nothing was written")
        return JournalBusy(
            f"a write did not get its turn within {timeout:g} s; it was withdrawn",
            hint="mostly the disk does not keep up: fewer writers at once, durability='normal', or a faster disk",
        )

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not (self._closing and self._queue.empty()):
            first = self._next()
            if first is not None:
                self._group(first)
            if self._crowd:
                with self._room:
                    self._room.notify_all()
            if first is None or now() >= self._due:
                self._look_around()
        self._ended = True  # from here on callers see it; those that were faster are refused here
        self._fail(self._drain(self._bound), JournalClosed("the journal was closed"))
        with self._room:
            self._room.notify_all()
        self._disk.closed()

    def _next(self) -> QueuedWrite | None:
        try:
            if self._batch.left:
                return self._queue.get(timeout=PATIENCE_S)
            return self._queue.get(timeout=None if self._due == math.inf else max(self._due - now(), 0))
        except queue.Empty:
            self._batch.wake_all()
            return None

    def _group(self, first: QueuedWrite) -> None:
        try:
            tx = self._begin()
        except Exception as error:  # noqa: BLE001 - every waiting caller is told
            self._fail([first, *self._drain(_GROUP)], self._disk.failed(error))
            return
        writes: list[QueuedWrite] = []
        notes: list[Notes] = []
        try:
            self._fill(tx, first, writes, notes)
            self._commit(tx, len(writes))
        except Exception as error:  # noqa: BLE001 - every waiting caller is told
            self._rollback(tx)
            if len(writes) > 1 and (not isinstance(error, Fault) or fits_alone(error)):
                for write in writes:
                    self._alone(write)
            else:
                self._fail(writes, error)
        else:
            self._tell(notes)
            if self._batch.left:
                self._batch.wake_all()
            if len(writes) == 1:
                writes[0].end()
            else:
                self._batch = WriteBatch(writes)

    def _fill(self, tx: Tx, first: QueuedWrite, writes: list[QueuedWrite], notes: list[Notes]) -> None:
        """Run the writes of one commit, those too that are asked for meanwhile; adds them and what is to be told."""
        more = [first]
        while True:
            if not self._queue.empty():
                more += self._drain(_GROUP - len(writes) - len(more))
            more = self._take(more)
            writes += more
            self._perform(tx, more, notes)
            if not more or self._queue.empty():
                return
            more = []

    def _alone(self, write: QueuedWrite) -> None:
        """Commit one write by itself, because its group failed and the fault may be another's."""
        try:
            self._transact([write])
        except Exception as error:  # noqa: BLE001 - its caller is told
            self._fail([write], error)
        else:
            write.end()

    def _transact(self, writes: list[QueuedWrite]) -> None:
        """Begin, perform and commit these writes alone."""
        tx = self._begin()
        notes: list[Notes] = []
        try:
            self._perform(tx, writes, notes)
            self._commit(tx, len(writes))
        except BaseException:
            self._rollback(tx)
            raise
        self._tell(notes)

    def _begin(self) -> Tx:
        tx = self._disk.writable()
        self._locked_out = True  # as far as callers can tell while we wait for other processes
        try:
            tx.connection.execute("BEGIN IMMEDIATE")
        finally:
            self._locked_out = False
        return tx

    def _perform(self, tx: Tx, writes: list[QueuedWrite], notes: list[Notes]) -> None:
        """Run writes within the group; adds what is to be told of them when they are durable."""
        steps: list[PutStep] = []
        others: list[QueuedWrite] = []
        for write in writes:
            if isinstance(write.work, PutStep):
                steps.append(write.work)
            else:
                others.append(write)
        if steps and tx.put_owned_steps(list(map(_row_of, steps))) == len(steps):
            # They go first: of what was asked for at the same time anything may come first.
            notes.append(Notes(list(map(_event_of, steps))))
            writes = others
        for write in writes:
            self._perform_alone(tx, write)
            notes.append(tx.notes)

    def _commit(self, tx: Tx, writes: int) -> None:
        if crashpoints.armed:
            crashpoints.reach("commit.before")
        self._disk.committing(tx)
        tx.connection.execute("COMMIT")
        if crashpoints.armed:
            crashpoints.reach("commit.after")
        self._disk.committed()
        self.commits += 1
        self.writes += writes

    def _tell(self, notes: list[Notes]) -> None:
        """Pass on what is durable now, before the callers go on."""
        if self.host is None:
            return
        for one in notes:
            if one.events or one.settled:
                try:  # noqa: SIM105 - a context manager for each would cost more than the call
                    self.host.committed(one)
                except Exception:  # noqa: BLE001, S110 - a listener may raise anything, and this write is durable
                    pass

    def _perform_alone(self, tx: Tx, write: QueuedWrite) -> None:
        """Run one write within the group. A refusal that changed nothing concerns its caller alone."""
        tx.notes = Notes()
        write.error = None
        before = tx.connection.total_changes
        try:
            write.result = write.work(tx)
        except FAULTS:
            raise
        except Exception as error:
            if tx.connection.total_changes != before:
                raise
            write.error = error
            tx.notes = Notes()

    def _rollback(self, tx: Tx) -> None:
        try:
            if tx.connection.in_transaction:
                tx.connection.execute("ROLLBACK")
        except FAULTS as error:
            self._disk.failed(error)

    def _fail(self, writes: list[QueuedWrite], error: BaseException) -> None:
        self._batch.wake_all()
        named = self._disk.failed(error) if isinstance(error, Fault | OSError) else error
        for write in writes:
            if write.state != WITHDRAWN:
                write.error = named
                write.end()

    def _take(self, writes: list[QueuedWrite]) -> list[QueuedWrite]:
        """Leave out what was withdrawn; the rest can be withdrawn no more."""
        taken = []
        with self._claim:
            for write in writes:
                if write.state != WITHDRAWN:
                    write.state = TAKEN
                    taken.append(write)
        return taken

    def _drain(self, limit: int) -> list[QueuedWrite]:
        writes: list[QueuedWrite] = []
        while len(writes) < limit and not self._queue.empty():  # only this thread takes from it
            write = self._queue.get_nowait()
            if write is None:
                self._due = 0.0
            else:
                writes.append(write)
        return writes

    def _look_around(self) -> None:
        """Do what is due, and look whether another process has committed something."""
        host = self.host
        chores = [] if self._closing or host is None else list(host.chores())
        try:
            if chores:
                self._transact([QueuedWrite(chore) for chore in chores])
            mended = [] if self._closing else [QueuedWrite(chore) for chore in self._disk.chores()]
            if mended:
                self._transact(mended)
                for one in mended:
                    if one.error is not None:
                        raise one.error
                self._version = -1  # as if another process had written: what was hidden is to be seen
            version = self._disk.writable().connection.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                if host is not None:
                    host.changed_elsewhere()
                self._version = version
        except Exception as error:  # noqa: BLE001 - told as an event; what was not done comes again, and so do callers
            if isinstance(error, Fault | OSError | JournalCorrupt):
                self._disk.failed(error)
        pace = None if host is None else host.pace()
        self._due = now() + min(math.inf if pace is None else pace, self._disk.pace())
