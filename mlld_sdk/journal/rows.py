"""Records as rows of SQLite: one class reads and writes all tables within a transaction.

A row repeats a few fields of its record as columns, to search by. The record is what counts: what is read is checked
against its checksum and against its columns.
"""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from mlld_sdk.base.events import Event
from mlld_sdk.journal.errors import JournalCorrupt
from mlld_sdk.journal.positions import order
from mlld_sdk.journal.records import (
    Backlog,
    EventRecord,
    InputRecord,
    OutcomeRecord,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
    Stored,
    pack,
    unpack,
)

R = TypeVar("R", bound=Stored)

_RUN = "SELECT id, state, epoch, body FROM runs"
_TURN = "SELECT priority, queued, id, kind FROM runs"
_IN_TURN = "ORDER BY priority DESC, queued, id LIMIT ?"
_PLACE = "(SELECT n FROM runs WHERE id=?)"
_DAMAGED = "damaged"
_ENDED = "state IN ('finished', 'failed', 'cancelled')"
_ENDED_KINDS = f"SELECT DISTINCT kind FROM runs WHERE {_ENDED}"  # noqa: S608 - fixed texts

_RUNS_BY_KEY = """
WITH RECURSIVE kinds (kind) AS (
    SELECT min(kind) FROM runs WHERE key IS NOT NULL
    UNION ALL
    SELECT (SELECT min(kind) FROM runs WHERE key IS NOT NULL AND kind > kinds.kind) FROM kinds WHERE kind IS NOT NULL
)
SELECT runs.id, runs.state, runs.epoch, runs.body FROM kinds CROSS JOIN runs
WHERE runs.kind = kinds.kind AND runs.key = ? LIMIT ?
"""
"""Steps from kind to kind in the index of kinds and keys: a search a kind, and no index more to be written."""

_BACKLOGS = """
SELECT kind, state, count(*), sum(due <= ?), min(CASE WHEN due <= ? THEN due END) FROM runs
WHERE state IN ('pending', 'running', 'parked') GROUP BY state, kind
"""

RUN_COLUMNS = "id, kind, key, state, epoch, session, until, queued, priority, deadline, updated, quarantine, due"
"""What a row of a run repeats of its record, in the order of `columns_of`."""

_PUT_RUN = f"""
INSERT INTO runs ({RUN_COLUMNS}, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    state=excluded.state, epoch=excluded.epoch, session=excluded.session, until=excluded.until, queued=excluded.queued,
    priority=excluded.priority, deadline=excluded.deadline, updated=excluded.updated, quarantine=excluded.quarantine,
    due=excluded.due, body=excluded.body
"""  # noqa: S608 - fixed names

_PUT_STEP = """
INSERT INTO steps (run, position, state, body) VALUES (?, ?, ?, ?)
ON CONFLICT (run, position) DO UPDATE SET state=excluded.state, body=excluded.body
"""

_PUT_OWNED_STEP = """
INSERT INTO steps (position, state, body, run)
SELECT ?, ?, ?, id FROM runs WHERE id=? AND epoch=? AND state='running'
ON CONFLICT (run, position) DO UPDATE SET state=excluded.state, body=excluded.body
"""


class Notes(msgspec.Struct):
    """What a transaction wants told once it is durable: events, and runs that came to rest."""

    events: list[Event] = []
    settled: list[OutcomeRecord] = []


class StepRow(NamedTuple):
    """A step as its owner writes it, packed by the caller, so that the one thread that writes has little to do.

    In the order of the statement that writes it, which takes it as it is.
    """

    position: str
    state: StepState
    body: bytes
    run_id: str
    epoch: int


class Tx:
    """Rows of one connection, transaction after transaction. It knows records and nothing of their meaning.

    Attributes:
        connection: The connection.
        notes: What the transaction at hand wants told once it is durable.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._execute = connection.execute
        self._execute_many = connection.executemany
        self.notes = Notes()

    # -- reading ------------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord | None:
        """Find a run."""
        row = self._execute(f"{_RUN} WHERE id=?", (run_id,)).fetchone()
        return None if row is None else _run(row)

    def run_by_key(self, kind: str, key: str) -> RunRecord | None:
        """Find a run by its idempotency key."""
        row = self._execute(f"{_RUN} WHERE kind=? AND key=?", (kind, key)).fetchone()
        return None if row is None else _run(row)

    def runs_by_key(self, key: str, limit: int) -> list[RunRecord]:
        """List the runs with this idempotency key, one of each kind that has one, by kind."""
        return [_run(row) for row in self._execute(_RUNS_BY_KEY, (key, limit))]

    def runs(
        self,
        kind: str | None = None,
        states: tuple[RunState, ...] = (),
        after: str | None = None,
        before: str | None = None,
        limit: int = 100,
        *,
        newest_first: bool = False,
    ) -> list[RunRecord]:
        """List runs in the order of their submission, or the other way round."""
        conditions = {"kind=?": kind, f"n > {_PLACE}": after, f"n < {_PLACE}": before}
        given = {condition: value for condition, value in conditions.items() if value is not None}
        in_state = f"AND state IN ({_marks(states)})" if states else ""
        order = "n DESC" if newest_first else "n"
        sql = f"{_RUN} WHERE {' AND '.join(['1', *given])} {in_state} ORDER BY {order} LIMIT ?"
        return [_run(row) for row in self._execute(sql, (*given.values(), *states, limit))]

    def input(self, run_id: str) -> InputRecord | None:
        """Find what a run was asked."""
        row = self._execute("SELECT body FROM inputs WHERE run=?", (run_id,)).fetchone()
        return None if row is None else read_row(InputRecord, row[0], f"the input of run {run_id}", run_id=run_id)

    def outcome(self, run_id: str) -> OutcomeRecord | None:
        """Find how a run ended."""
        row = self._execute("SELECT body FROM outcomes WHERE run=?", (run_id,)).fetchone()
        return None if row is None else read_row(OutcomeRecord, row[0], f"the outcome of run {run_id}", run_id=run_id)

    def step(self, run_id: str, position: str) -> StepRecord | None:
        """Find a step."""
        sql = "SELECT position, state, body FROM steps WHERE run=? AND position=?"
        row = self._execute(sql, (run_id, position)).fetchone()
        return None if row is None else read_step(run_id, row)

    def steps(self, run_id: str, states: tuple[StepState, ...] = ()) -> list[StepRecord]:
        """List a run's steps in the order of their positions."""
        sql = "SELECT position, state, body FROM steps WHERE run=?"
        if states:
            sql += f" AND state IN ({_marks(states)})"
        steps = [read_step(run_id, row) for row in self._execute(sql, (run_id, *states))]
        return sorted(steps, key=lambda step: order(step.position))

    def packed_steps(self, run_id: str, max_bytes: int) -> tuple[dict[str, bytes], bool]:
        """Return steps as packed records by position, up to a size, and whether these are all."""
        cursor = self._execute("SELECT position, body FROM steps WHERE run=?", (run_id,))
        size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if self._execute(size).fetchone()[0] <= max_bytes:
            return dict(cursor), True  # the whole file is smaller
        found: dict[str, bytes] = {}
        total = 0
        while rows := cursor.fetchmany(5000):
            total += sum(len(row[1]) for row in rows)
            if total > max_bytes:
                cursor.close()
                return found, False
            found.update(rows)
        return found, True

    def finished_steps(self, run_id: str) -> int:
        """Count finished steps."""
        sql = "SELECT count(*) FROM steps WHERE run=? AND state='finished'"
        return int(self._execute(sql, (run_id,)).fetchone()[0])

    def events(self, run_id: str, after: int, limit: int) -> list[EventRecord]:
        """List a stream (`""`: the common one) from the number behind `after`."""
        rows = self._execute(
            "SELECT n, body FROM events WHERE run=? AND n>? ORDER BY n LIMIT ?", (run_id, after, limit)
        )
        return [_event(run_id, row) for row in rows]

    def last_event(self, run_id: str) -> int:
        """Return the number of the newest event of a stream, 0 without any."""
        return self._execute("SELECT max(n) FROM events WHERE run=?", (run_id,)).fetchone()[0] or 0

    def counts(self) -> dict[str, int]:
        """Count runs by state."""
        return dict(self._execute("SELECT state, count(*) FROM runs GROUP BY state").fetchall())

    def backlogs(self, wall: float) -> dict[str, Backlog]:
        """Count what has not ended, by kind; one walk along an index."""
        found: dict[str, dict[str, Any]] = {}
        for kind, state, count, waiting, oldest in self._execute(_BACKLOGS, (wall, wall)):
            counts = found.setdefault(kind, {})
            counts[state] = count
            if state == "pending":
                counts |= {"waiting": waiting, "oldest": oldest}
        return {kind: Backlog(**counts) for kind, counts in found.items()}

    def unfinished_kinds(self) -> set[str]:
        """Name the kinds that have pending or running runs."""
        sql = "SELECT DISTINCT kind FROM runs WHERE state IN ('pending', 'running')"
        return {row[0] for row in self._execute(sql)}

    def settled(self, run_ids: Collection[str]) -> list[str]:
        """Return those of these runs that have come to rest (ended, parked or gone)."""
        wanted = list(run_ids)
        busy: set[str] = set()
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            sql = f"SELECT id FROM runs WHERE state IN ('pending', 'running') AND id IN ({_marks(some)})"  # noqa: S608 - only question marks are put in
            busy.update(row[0] for row in self._execute(sql, some))
        return [run_id for run_id in wanted if run_id not in busy]

    # -- writing ------------------------------------------------------------------------------------------------------

    def fence(self, run_id: str) -> tuple[int, str] | None:
        """Return a run's epoch and state, which are checked before every write of an owner."""
        row: tuple[int, str] | None = self._execute("SELECT epoch, state FROM runs WHERE id=?", (run_id,)).fetchone()
        return row

    def sessions(self) -> set[str]:
        """Name the sessions that own running runs."""
        return {row[0] for row in self._execute("SELECT DISTINCT session FROM runs WHERE state='running'")}

    def owned_by(self, session: str) -> list[tuple[str, str]]:
        """List id and kind of the runs that a session owns."""
        return self._execute("SELECT id, kind FROM runs WHERE state='running' AND session=?", (session,)).fetchall()

    def claimable(
        self, kind: str | None, now: float, dead: Collection[str], limit: int, *, trial: bool
    ) -> list[tuple[str, str]]:
        """List id and kind of pending runs and of running ones with a late owner or a dead session, in turn.

        Of those in quarantine only one is among them, the first, and only if there is to be a `trial`.
        """
        of_kind, kinds = ("", ()) if kind is None else ("kind=? AND", (kind,))
        pending = f"{_TURN} WHERE {of_kind} state='pending' AND quarantine=0 {_IN_TURN}"
        of_dead = f"OR session IN ({_marks(dead)})" if dead else ""
        left = f"{_TURN} WHERE {of_kind} state='running' AND (until<=? {of_dead}) {_IN_TURN}"
        suspect = f"{_TURN} WHERE {of_kind} state='pending' AND quarantine>0 ORDER BY quarantine, priority DESC, queued"
        parts = [(pending, (*kinds, limit)), (left, (*kinds, now, *dead, limit))]
        if trial:
            parts.append((f"{suspect} LIMIT ?", (*kinds, min(limit, 1))))
        union = " UNION ALL ".join(f"SELECT * FROM ({part})" for part, _ in parts)  # noqa: S608 - fixed texts
        values = [value for _, some in parts for value in some]
        return self._execute(f"SELECT id, kind FROM ({union}) {_IN_TURN}", (*values, limit)).fetchall()  # noqa: S608 - likewise

    def on_trial(self) -> list[tuple[str, str, float, float, int]]:
        """List id, session, end of the lease, wall clock of the claim and rank of runs in quarantine that are owned."""
        sql = "SELECT id, session, until, updated, quarantine FROM runs WHERE state='running' AND quarantine>0"
        return self._execute(sql).fetchall()

    def in_quarantine(self) -> list[str]:
        """Name the runs in quarantine that wait."""
        sql = "SELECT id FROM runs WHERE state='pending' AND quarantine>0"
        return [row[0] for row in self._execute(sql)]

    def attended(self, now: float, dead: Collection[str]) -> set[str]:
        """Name the kinds of which a run is running with an owner that is neither late nor of a dead session."""
        not_dead = f"AND session NOT IN ({_marks(dead)})" if dead else ""
        sql = f"SELECT DISTINCT kind FROM runs WHERE state='running' AND until>? {not_dead}"  # noqa: S608 - only question marks are put in
        return {row[0] for row in self._execute(sql, (now, *dead))}

    def overdue(self, kind: str | None, wall: float, limit: int) -> list[tuple[str, str]]:
        """List id and kind of pending runs whose deadline has passed."""
        of_kind, kinds = ("", ()) if kind is None else ("kind=? AND", (kind,))
        sql = f"SELECT id, kind FROM runs WHERE {of_kind} state='pending' AND deadline<=? LIMIT ?"  # noqa: S608 - fixed texts
        return self._execute(sql, (*kinds, wall, limit)).fetchall()

    def set_aside(self, run_id: str) -> None:
        """Take a damaged run out of every list of runs to work on."""
        self._execute("UPDATE runs SET state=? WHERE id=?", (_DAMAGED, run_id))

    def put_run(self, record: RunRecord) -> None:
        """Write or replace a run."""
        self._execute(_PUT_RUN, (*columns_of(record), pack(record)))

    def put_input(self, record: InputRecord) -> None:
        """Write what a run was asked."""
        self._execute("INSERT INTO inputs (run, body) VALUES (?, ?)", (record.run_id, pack(record)))

    def put_outcome(self, record: OutcomeRecord) -> None:
        """Write or replace how a run ended."""
        self._execute("INSERT OR REPLACE INTO outcomes (run, body) VALUES (?, ?)", (record.run_id, pack(record)))

    def drop_outcome(self, run_id: str) -> None:
        """Forget how a run ended, because it is retried."""
        self._execute("DELETE FROM outcomes WHERE run=?", (run_id,))

    def put_step(self, record: StepRecord) -> None:
        """Write or replace a step."""
        self._execute(_PUT_STEP, (record.run_id, record.position, record.state, pack(record)))

    def put_owned_steps(self, rows: Sequence[StepRow]) -> int:
        """Write or replace the steps whose run is running at their epoch; returns how many. Has to be fast."""
        return self._execute_many(_PUT_OWNED_STEP, rows).rowcount

    def put_event(self, record: EventRecord) -> None:
        """Add an event to its stream."""
        self._execute("INSERT INTO events (run, n, body) VALUES (?, ?, ?)", (record.run_id, record.n, pack(record)))

    def drop_events(self, run_id: str, up_to: int) -> None:
        """Forget a stream's oldest events."""
        self._execute("DELETE FROM events WHERE run=? AND n<=?", (run_id, up_to))

    def prunable(self, kind: str | None, keep_last: int | None, before: float | None, limit: int) -> list[str]:
        """List ended runs beyond the newest `keep_last` of their kind and last changed `before` that time."""
        kinds = [row[0] for row in self._execute(_ENDED_KINDS)] if kind is None else [kind]
        age, ages = ("", ()) if before is None else ("WHERE updated<?", (before,))
        sql = f"""
            SELECT id FROM (
                SELECT id, updated FROM runs WHERE {_ENDED} AND kind=? ORDER BY updated DESC, id DESC LIMIT -1 OFFSET ?
            ) {age} LIMIT ?
        """  # noqa: S608 - fixed texts
        found: list[str] = []
        for name in kinds:
            rows = self._execute(sql, (name, keep_last or 0, *ages, limit - len(found)))
            found.extend(row[0] for row in rows)
            if len(found) >= limit:
                break
        return found

    def drop_run(self, run_id: str) -> None:
        """Forget a run and all that belongs to it."""
        for table in ("inputs", "outcomes", "steps", "events"):
            self._execute(f"DELETE FROM {table} WHERE run=?", (run_id,))  # noqa: S608 - fixed names
        self._execute("DELETE FROM runs WHERE id=?", (run_id,))


class PutStep(NamedTuple):
    """The work there is most of: writing one step for its owner. A store may do many of these at once.

    Attributes:
        row: What to write.
        event: What to tell when it is durable.
        refuse: Raises why the owner may not write, if it may not.
    """

    row: StepRow
    event: Event
    refuse: Callable[[Tx], None]

    def __call__(self, tx: Tx) -> None:
        """Write it by itself."""
        if not tx.put_owned_steps((self.row,)):
            self.refuse(tx)
        tx.notes.events.append(self.event)


def _marks(values: Collection[str]) -> str:
    return ",".join("?" * len(values))


def columns_of(record: RunRecord) -> tuple[object, ...]:
    """Return what the row of a run repeats of it."""
    owner = record.owner
    held = (owner.session, owner.until) if owner else (None, None)
    named = (record.id, record.kind, record.key, record.state, record.epoch, *held)
    return (*named, record.queued, record.priority, record.deadline, record.updated, record.quarantine, record.due)


def read_row(kind: type[R], body: bytes, where: str, **columns: object) -> R:
    """Unpack a record; it has to agree with the columns of its row."""
    record = unpack(kind, body, where)
    for name, value in columns.items():
        if getattr(record, name) != value:
            raise JournalCorrupt(f"{where} disagrees with its row")
    return record


def _run(row: tuple[str, str, int, bytes]) -> RunRecord:
    run_id, state, epoch, body = row
    if state == _DAMAGED:
        raise JournalCorrupt(f"run {run_id} was set aside: its record or one of its steps is damaged")
    return read_row(RunRecord, body, f"run {run_id}", id=run_id, state=state, epoch=epoch)


def read_step(run_id: str, row: tuple[str, str, bytes]) -> StepRecord:
    """Unpack a step; it has to agree with position and state of its row."""
    position, state, body = row
    where = f"step {position} of run {run_id}"
    return read_row(StepRecord, body, where, run_id=run_id, position=position, state=state)


def _event(run_id: str, row: tuple[int, bytes]) -> EventRecord:
    n, body = row
    return read_row(EventRecord, body, f"event {n} of {run_id or 'the common stream'}", run_id=run_id, n=n)
