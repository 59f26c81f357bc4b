"""A store in memory, for tests: the same records, the same refusals, nothing on disk."""

import threading
from collections.abc import Callable, Collection, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mlld_sdk.base.env import Env
from mlld_sdk.journal.errors import JournalClosed, JournalRefusal
from mlld_sdk.journal.positions import order
from mlld_sdk.journal.records import (
    ENDED,
    EventRecord,
    InputRecord,
    OutcomeRecord,
    RunRecord,
    StepRecord,
    StepState,
    pack,
    unpack,
)
from mlld_sdk.journal.store import Host, Notes, Problem, Reader, RunQuery, StepRow, StoreStatus, Tx

T = TypeVar("T")


class _Tables:
    """The rows, packed, so that they cannot be changed from outside."""

    def __init__(self) -> None:
        self.runs: dict[str, bytes] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.inputs: dict[str, bytes] = {}
        self.outcomes: dict[str, bytes] = {}
        self.steps: dict[str, dict[str, bytes]] = {}
        self.events: dict[str, dict[int, bytes]] = {}


class _MemoryTx:
    """One transaction: writes at once, and knows how to undo it."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables
        self._undo: list[Callable[[], object]] = []
        self.notes = Notes()

    def undo(self) -> None:
        """Take everything back."""
        for step in reversed(self._undo):
            step()

    def _put(self, table: dict[Any, Any], key: Hashable, value: object) -> None:
        if key in table:
            before = table[key]
            self._undo.append(lambda: table.__setitem__(key, before))
        else:
            self._undo.append(lambda: table.pop(key, None))
        table[key] = value

    def _drop(self, table: dict[Any, Any], key: Hashable) -> None:
        if key in table:
            before = table.pop(key)
            self._undo.append(lambda: table.__setitem__(key, before))

    def _all_runs(self) -> list[RunRecord]:
        return [unpack(RunRecord, data, f"run {run_id}") for run_id, data in self._tables.runs.items()]

    # -- reading ------------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord | None:
        data = self._tables.runs.get(run_id)
        return None if data is None else unpack(RunRecord, data, f"run {run_id}")

    def run_by_key(self, kind: str, key: str) -> RunRecord | None:
        run_id = self._tables.keys.get((kind, key))
        return None if run_id is None else self.run(run_id)

    def runs(self, query: RunQuery) -> list[RunRecord]:
        runs = self._all_runs()
        ids = list(self._tables.runs)
        for border in (query.after, query.before):
            if border is not None and border not in self._tables.runs:
                return []
        first = 0 if query.after is None else ids.index(query.after) + 1
        runs = runs[first : None if query.before is None else ids.index(query.before)]
        if query.newest_first:
            runs.reverse()
        wanted = [
            run for run in runs if query.kind in (None, run.kind) and (not query.states or run.state in query.states)
        ]
        return wanted[: query.limit]

    def input(self, run_id: str) -> InputRecord | None:
        data = self._tables.inputs.get(run_id)
        return None if data is None else unpack(InputRecord, data, f"the input of run {run_id}")

    def outcome(self, run_id: str) -> OutcomeRecord | None:
        data = self._tables.outcomes.get(run_id)
        return None if data is None else unpack(OutcomeRecord, data, f"the outcome of run {run_id}")

    def step(self, run_id: str, position: str) -> StepRecord | None:
        data = self._tables.steps.get(run_id, {}).get(position)
        return None if data is None else unpack(StepRecord, data, f"step {position} of run {run_id}")

    def steps(self, run_id: str, states: tuple[StepState, ...] = ()) -> list[StepRecord]:
        rows = self._tables.steps.get(run_id, {})
        steps = [unpack(StepRecord, rows[p], f"step {p} of run {run_id}") for p in sorted(rows, key=order)]
        return [step for step in steps if not states or step.state in states]

    def packed_steps(self, run_id: str, max_bytes: int) -> tuple[dict[str, bytes], bool]:
        rows = self._tables.steps.get(run_id, {})
        if sum(map(len, rows.values())) > max_bytes:
            return {}, False
        return dict(rows), True

    def finished_steps(self, run_id: str) -> int:
        return len(self.steps(run_id, ("finished",)))

    def events(self, run_id: str, after: int, limit: int) -> list[EventRecord]:
        rows = self._tables.events.get(run_id, {})
        return [unpack(EventRecord, rows[n], f"event {n} of {run_id!r}") for n in sorted(rows) if n > after][:limit]

    def last_event(self, run_id: str) -> int:
        return max(self._tables.events.get(run_id, {}), default=0)

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for run in self._all_runs():
            counts[run.state] = counts.get(run.state, 0) + 1
        return counts

    def unfinished_kinds(self) -> set[str]:
        return {run.kind for run in self._all_runs() if run.state in ("pending", "running")}

    def settled(self, run_ids: Collection[str]) -> list[str]:
        runs = {run_id: self.run(run_id) for run_id in run_ids}
        return [run_id for run_id, run in runs.items() if run is None or run.state in (*ENDED, "parked")]

    # -- writing ------------------------------------------------------------------------------------------------------

    def fence(self, run_id: str) -> tuple[int, str] | None:
        run = self.run(run_id)
        return None if run is None else (run.epoch, run.state)

    def sessions(self) -> set[str]:
        return {run.owner.session for run in self._all_runs() if run.owner is not None}

    def claimable(self, kind: str | None, now: float, dead: Collection[str], limit: int) -> list[tuple[str, str]]:
        free = [
            run
            for run in self._all_runs()
            if kind in (None, run.kind)
            and (
                run.state == "pending"
                or (run.owner is not None and (run.owner.until <= now or run.owner.session in dead))
            )
        ]
        in_turn = sorted(free, key=lambda run: (-run.priority, run.queued, run.id))
        return [(run.id, run.kind) for run in in_turn[:limit]]

    def overdue(self, kind: str | None, wall: float, limit: int) -> list[tuple[str, str]]:
        return [
            (run.id, run.kind)
            for run in self._all_runs()
            if kind in (None, run.kind) and run.state == "pending" and run.deadline is not None and run.deadline <= wall
        ][:limit]

    def set_aside(self, run_id: str) -> None:
        self._drop(self._tables.runs, run_id)

    def put_run(self, record: RunRecord) -> None:
        self._put(self._tables.runs, record.id, pack(record))
        if record.key is not None:
            self._put(self._tables.keys, (record.kind, record.key), record.id)

    def put_input(self, record: InputRecord) -> None:
        self._put(self._tables.inputs, record.run_id, pack(record))

    def put_outcome(self, record: OutcomeRecord) -> None:
        self._put(self._tables.outcomes, record.run_id, pack(record))

    def drop_outcome(self, run_id: str) -> None:
        self._drop(self._tables.outcomes, run_id)

    def put_step(self, record: StepRecord) -> None:
        self._put(self._tables.steps.setdefault(record.run_id, {}), record.position, pack(record))

    def put_owned_steps(self, rows: Sequence[StepRow]) -> int:
        owned = [row for row in rows if self.fence(row.run_id) == (row.epoch, "running")]
        for row in owned:
            self._put(self._tables.steps.setdefault(row.run_id, {}), row.position, row.body)
        return len(owned)

    def put_event(self, record: EventRecord) -> None:
        self._put(self._tables.events.setdefault(record.run_id, {}), record.n, pack(record))

    def drop_events(self, run_id: str, up_to: int) -> None:
        rows = self._tables.events.get(run_id, {})
        for n in [n for n in rows if n <= up_to]:
            self._drop(rows, n)

    def prunable(self, kind: str | None, keep_last: int | None, before: float | None, limit: int) -> list[str]:
        found: list[str] = []
        seen: dict[str, int] = {}
        for run in sorted(self._all_runs(), key=lambda run: (run.updated, run.id), reverse=True):
            if run.state not in ENDED or kind not in (None, run.kind):
                continue
            seen[run.kind] = seen.get(run.kind, 0) + 1
            if (keep_last is None or seen[run.kind] > keep_last) and (before is None or run.updated < before):
                found.append(run.id)
        return found[:limit]

    def drop_run(self, run_id: str) -> None:
        run = self.run(run_id)
        if run is not None and run.key is not None:
            self._drop(self._tables.keys, (run.kind, run.key))
        for table in (self._tables.runs, self._tables.inputs, self._tables.outcomes, self._tables.steps):
            self._drop(table, run_id)
        self._drop(self._tables.events, run_id)


class MemoryStore:
    """Keeps records as long as it lives. Several journals may share one, as several processes share a file."""

    def __init__(self, env: Env | None = None) -> None:
        self._env = env or Env()
        self._tables = _Tables()
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
            self._check(session)
            for name, host in list(self._hosts.items()):
                for chore in host.chores():
                    self._run(name, chore)
            return self._run(session, work)

    def read(self, work: Callable[[Reader], T]) -> T:
        """Read under the lock."""
        with self._lock:
            if not self._hosts:
                raise JournalClosed("the journal in memory is closed")
            return work(_MemoryTx(self._tables))

    def wake(self) -> None:
        """Nothing waits here: every write tells every journal."""

    def backup(self, target: Path) -> None:
        """Refuse: there is nothing a file could be opened with."""
        raise JournalRefusal(f"a journal in memory cannot be copied to {target}", hint="open a file instead")

    def verify(self) -> list[Problem]:
        """Find nothing: memory is not damaged by crashes."""
        return []

    def status(self) -> StoreStatus:
        """Return how much was written."""
        return StoreStatus(
            path=None, degraded=None, reason="", queued=0, commits=self._writes, writes=self._writes, bytes=0
        )

    def _check(self, session: str) -> None:
        if session not in self._hosts:
            raise JournalClosed("the journal in memory is closed")

    def _run(self, session: str, work: Callable[[Tx], T]) -> T:
        tx = _MemoryTx(self._tables)
        try:
            result = work(tx)
        except BaseException:
            tx.undo()
            raise
        self._writes += 1
        for name, host in list(self._hosts.items()):
            if name == session:
                host.committed(tx.notes)
            else:
                host.changed_elsewhere()
        return result
