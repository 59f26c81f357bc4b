"""What the journal asks of a place to keep records: rows, transactions, and word of what was committed.

A store knows records and nothing of their meaning. Everything the journal does is a function of one transaction; a
store runs it, makes it durable and only then returns. Writing one for another database is implementing these protocols;
the conformance suite says whether it is right.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from mlld_sdk.base.events import Event
from mlld_sdk.journal.records import (
    EventRecord,
    InputRecord,
    OutcomeRecord,
    RunRecord,
    RunState,
    StepRecord,
    StepState,
)

T = TypeVar("T")


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list, oldest submission first unless something else is said.

    Attributes:
        kind: Only this kind.
        states: Only these states; empty for all.
        after: Only runs submitted after this one (paging).
        before: Only runs submitted before this one (paging, when the newest come first).
        newest_first: The other way round.
        limit: At most so many.
    """

    kind: str | None = None
    states: tuple[RunState, ...] = ()
    after: str | None = None
    before: str | None = None
    newest_first: bool = False
    limit: int = 100


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One damaged thing that `verify` found.

    Attributes:
        where: The record or the part of the file.
        what: What is wrong with it.
    """

    where: str
    what: str


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a store is doing.

    Attributes:
        path: The file, or `None` for memory.
        degraded: Code of the error that writes fail with, or `None` when they work.
        reason: That error in words.
        queued: Writes waiting for their turn.
        commits: Commits made since it was opened.
        writes: Writes in them.
        bytes: Size of the file and its log.
    """

    path: str | None
    degraded: str | None
    reason: str
    queued: int
    commits: int
    writes: int
    bytes: int


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


class Reader(Protocol):
    """Reads one consistent state."""

    def run(self, run_id: str) -> RunRecord | None:
        """Find a run."""

    def run_by_key(self, kind: str, key: str) -> RunRecord | None:
        """Find a run by its idempotency key."""

    def runs(self, query: RunQuery) -> list[RunRecord]:
        """List runs in the order of their submission, or the other way round."""

    def input(self, run_id: str) -> InputRecord | None:
        """Find what a run was asked."""

    def outcome(self, run_id: str) -> OutcomeRecord | None:
        """Find how a run ended."""

    def step(self, run_id: str, position: str) -> StepRecord | None:
        """Find a step."""

    def steps(self, run_id: str, states: tuple[StepState, ...] = ()) -> list[StepRecord]:
        """List a run's steps in the order of their positions."""

    def packed_steps(self, run_id: str, max_bytes: int) -> tuple[dict[str, bytes], bool]:
        """Return steps as packed records by position, up to a size, and whether these are all."""

    def finished_steps(self, run_id: str) -> int:
        """Count finished steps."""

    def events(self, run_id: str, after: int, limit: int) -> list[EventRecord]:
        """List a stream (`""`: the common one) from the number behind `after`."""

    def last_event(self, run_id: str) -> int:
        """Return the number of the newest event of a stream, 0 without any."""

    def counts(self) -> dict[str, int]:
        """Count runs by state."""

    def unfinished_kinds(self) -> set[str]:
        """Name the kinds that have pending or running runs."""

    def settled(self, run_ids: Collection[str]) -> list[str]:
        """Return those of these runs that have come to rest (ended, parked or gone)."""

    def overdue(self, kind: str | None, wall: float, limit: int) -> list[tuple[str, str]]:
        """List id and kind of pending runs whose deadline has passed."""

    def claimable(self, kind: str | None, now: float, dead: Collection[str], limit: int) -> list[tuple[str, str]]:
        """List id and kind of pending runs and of running ones with a late owner or a dead session, in turn."""


class Tx(Reader, Protocol):
    """Reads and writes within one transaction."""

    notes: Notes

    def fence(self, run_id: str) -> tuple[int, str] | None:
        """Return a run's epoch and state, which are checked before every write of an owner."""

    def sessions(self) -> set[str]:
        """Name the sessions that own running runs."""

    def set_aside(self, run_id: str) -> None:
        """Take a damaged run out of every list of runs to work on."""

    def put_run(self, record: RunRecord) -> None:
        """Write or replace a run."""

    def put_input(self, record: InputRecord) -> None:
        """Write what a run was asked."""

    def put_outcome(self, record: OutcomeRecord) -> None:
        """Write or replace how a run ended."""

    def drop_outcome(self, run_id: str) -> None:
        """Forget how a run ended, because it is retried."""

    def put_step(self, record: StepRecord) -> None:
        """Write or replace a step."""

    def put_owned_steps(self, rows: Sequence[StepRow]) -> int:
        """Write or replace the steps whose run is running at their epoch; returns how many. Has to be fast."""

    def put_event(self, record: EventRecord) -> None:
        """Add an event to its stream."""

    def drop_events(self, run_id: str, up_to: int) -> None:
        """Forget a stream's oldest events."""

    def prunable(self, kind: str | None, keep_last: int | None, before: float | None, limit: int) -> list[str]:
        """List ended runs beyond the newest `keep_last` of their kind and last changed `before` that time."""

    def drop_run(self, run_id: str) -> None:
        """Forget a run and all that belongs to it."""


Work = Callable[[Tx], T]
"""Something to do in a transaction. It decides before it writes: it may be run again if the commit fails."""


class PutStep:
    """The work there is most of: writing one step for its owner. A store may do many of these at once.

    Attributes:
        row: What to write.
        event: What to tell when it is durable.
        refuse: Raises why the owner may not write, if it may not.
    """

    __slots__ = ("event", "refuse", "row")

    def __init__(self, row: StepRow, event: Event, refuse: Callable[[Tx], None]) -> None:
        self.row = row
        self.event = event
        self.refuse = refuse

    def __call__(self, tx: Tx) -> None:
        """Write it by itself."""
        if not tx.put_owned_steps((self.row,)):
            self.refuse(tx)
        tx.notes.events.append(self.event)


class Host(Protocol):
    """What a journal does for the store it is attached to. Called on the store's writer thread, if it has one."""

    def committed(self, notes: Notes) -> None:
        """Report what has become durable."""

    def changed_elsewhere(self) -> None:
        """Look again at what is waited for: another process has committed something."""

    def chores(self) -> Iterable[Callable[[Tx], object]]:
        """Return what is due: renewals, retention."""

    def pace(self) -> float | None:
        """Return the seconds until the next look, or `None` if there is nothing to look for."""


class Store(Protocol):
    """A place to keep records."""

    def join(self, host: Host) -> str:
        """Attach a journal; returns the name of its session, which lives until `leave` or the end of the process."""

    def leave(self, session: str) -> None:
        """Detach a journal: write what is queued, end its session; the last one closes the store."""

    def alive(self, session: str) -> bool:
        """Return whether a session still lives, in any process."""

    def write(self, session: str, work: Callable[[Tx], T], timeout: float) -> T:
        """Run a transaction for a session; returns when it is durable and its journal was told."""

    def read(self, work: Callable[[Reader], T]) -> T:
        """Read one consistent state."""

    def wake(self) -> None:
        """Ask the host's `pace` again, because it may have changed."""

    def backup(self, target: Path) -> None:
        """Copy everything into a new file while work goes on."""

    def verify(self) -> list[Problem]:
        """Look at everything and list what is damaged."""

    def status(self) -> StoreStatus:
        """Return how the store is doing."""
