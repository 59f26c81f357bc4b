"""A look at the runs that have not ended, some at a time: is each of them where those look that claim runs?

They look in indices. A bit that flips there hides a run from them, with nothing else to be seen: every record is sound.
"""

import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from mlld_sdk.base.durations import now
from mlld_sdk.journal.errors import JournalCorrupt
from mlld_sdk.journal.events import JournalRepaired
from mlld_sdk.journal.records import RunRecord, unpack
from mlld_sdk.journal.rows import RUN_COLUMNS, Tx, columns_of

_ROWS: Final = 500
"""Runs in one look, which take the writer about a millisecond if none of them has ended."""

_BETWEEN_LOOKS_S: Final = 0.05
_BETWEEN_WALKS_S: Final = 60.0
_AFTER_TROUBLE_S: Final = 1.0
"""Until the next look after one that failed, or that found something."""

_LAST: Final = "SELECT max(n) FROM (SELECT n FROM runs NOT INDEXED WHERE n>? ORDER BY n LIMIT ?)"
_ASTRAY: Final = """
SELECT n FROM runs AS r NOT INDEXED
WHERE r.n>? AND r.n<=? AND r.state NOT IN ('finished', 'failed', 'cancelled', 'damaged') AND NOT (
    EXISTS (
        SELECT 1 FROM runs AS i INDEXED BY runs_by_turn
        WHERE i.state=r.state AND i.kind=r.kind AND i.quarantine=r.quarantine AND i.priority=r.priority
            AND i.queued=r.queued AND i.id=r.id AND i.due=r.due AND i.n=r.n
    )
    AND EXISTS (SELECT 1 FROM runs AS i INDEXED BY sqlite_autoindex_runs_1 WHERE i.id=r.id AND i.n=r.n)
    AND (r.key IS NULL OR EXISTS (
        SELECT 1 FROM runs AS i INDEXED BY runs_by_key WHERE i.kind=r.kind AND i.key=r.key AND i.n=r.n
    ))
    AND (r.quarantine=0 OR EXISTS (
        SELECT 1 FROM runs AS i INDEXED BY runs_in_quarantine
        WHERE i.state=r.state AND i.kind=r.kind AND i.quarantine>0 AND i.quarantine=r.quarantine AND i.n=r.n
    ))
)
"""


class IndexAudit:
    """Walks along the runs, again and again, on the thread that writes."""

    def __init__(self, path: str, wall: Callable[[], float]) -> None:
        self._path = path
        self._wall = wall
        self._after = 0
        self._due = 0.0

    def due_in(self) -> float:
        """Return the seconds until the next look."""
        return max(self._due - now(), 0.0)

    def look(self, connection: sqlite3.Connection) -> Iterable[Callable[[Tx], object]]:
        """Look at some runs, if it is time to; returns the repair that is due."""
        if now() < self._due:
            return ()
        self._due = now() + _AFTER_TROUBLE_S
        last = connection.execute(_LAST, (self._after, _ROWS)).fetchone()[0]
        if last is None:
            self._after, self._due = 0, now() + _BETWEEN_WALKS_S
            return ()
        astray = [n for (n,) in connection.execute(_ASTRAY, (self._after, last))]
        if astray:
            return (partial(self._repair, astray),)
        self._after, self._due = last, now() + _BETWEEN_LOOKS_S
        return ()

    def _repair(self, rows: list[int], tx: Tx) -> None:
        """Make the indices anew, and the columns they are made of where a record says something else.

        Raises:
            JournalCorrupt: That is not possible, or does not help.
        """
        connection = tx.connection
        try:
            connection.execute("REINDEX runs")
            for n in rows:
                _restore(connection, n)
        except sqlite3.IntegrityError as error:
            raise JournalCorrupt(f"{self._path}: an index of runs cannot be made anew: {error}") from error
        if any(n in rows for (n,) in connection.execute(_ASTRAY, (rows[0] - 1, rows[-1]))):
            raise JournalCorrupt(f"{self._path}: {len(rows)} runs are missing from an index that was made anew")
        reason = f"{len(rows)} runs that have not ended were missing from an index, which is made anew"
        tx.notes.events.append(JournalRepaired(at=self._wall(), path=self._path, reason=reason))


def _restore(connection: sqlite3.Connection, n: int) -> None:
    """Write a run's columns as its record has them; one that cannot be read is set aside when its turn comes."""
    *columns, body = connection.execute(f"SELECT {RUN_COLUMNS}, body FROM runs WHERE n=?", (n,)).fetchone()  # noqa: S608 - fixed names
    try:
        wanted = columns_of(unpack(RunRecord, body, f"row {n}"))
    except JournalCorrupt:
        return
    if tuple(columns) != wanted:
        marks = ",".join("?" * len(wanted))
        connection.execute(f"UPDATE runs SET ({RUN_COLUMNS})=({marks}) WHERE n=?", (*wanted, n))  # noqa: S608 - likewise
