"""What a journal and the leases it gives out share: one session in a store, and what is due there beside its callers.

Leases are renewed, old runs pruned and what has happened told on the store's writer thread, between commits, so the
journal has no other thread.
"""

import contextlib
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Sink
from mlld_sdk.base.texts import shorten, text_of_error
from mlld_sdk.journal import crashpoints, writes
from mlld_sdk.journal.errors import (
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalRefusal,
    LeaseLost,
    RunInQuarantine,
    RunNotFound,
    not_text,
)
from mlld_sdk.journal.events import ListenerFailed
from mlld_sdk.journal.options import JournalLimits, Retention
from mlld_sdk.journal.records import ENDED, ErrorRecord, EventRecord, Outcome, OutcomeRecord, RunRecord
from mlld_sdk.journal.rows import Notes, Tx
from mlld_sdk.journal.rules import Holder
from mlld_sdk.journal.store import Store
from mlld_sdk.journal.values import Values

A = TypeVar("A")
T = TypeVar("T")

_PRUNE_EVERY: Final = 1000
"""Ended runs between two looks of automatic retention; also looked at when the journal is opened."""

_PRUNE_AFTER: Final = 3600.0
"""Seconds after which it looks in any case, if runs are to go by their age."""


class HeldLease(Protocol):
    """What is needed here of a lease."""

    holder: Holder
    ttl: float
    until: float
    auto_renew: bool

    def lose(self, error: LeaseLost) -> None:
        """Mark the lease as lost and call those of `on_lost`."""

    def end(self) -> None:
        """Mark the lease as given up."""


class _Waiter(NamedTuple):
    """Who wants to know how a run ends, and whether it is the code of a run that waits, which ends with its agent."""

    callback: Callable[[Outcome], None]
    closed: Callable[[], None] | None
    inside: bool


class JournalCore:
    """The leases held in a session, the callbacks that wait there, and how to write. Implements the store's `Host`.

    Attributes:
        read: Reads one consistent state of the store.
        session: Name of the session, which ends with the journal or with its process.
    """

    def __init__(
        self,
        store: Store,
        env: Env,
        sink: Sink,
        limits: JournalLimits,
        retention: Retention | None,
        values: Values,
        poll_interval: float,
    ) -> None:
        self.store = store
        self.env = env
        self.limits = limits
        self.values = values
        self.read = store.read
        self._sink = sink
        self._retention = retention
        self._poll_interval = poll_interval
        self._lock = threading.Lock()
        self._leases: dict[str, list[HeldLease]] = {}
        self._waiting: dict[str, list[_Waiter]] = {}
        self._no_waits: set[bool] = set()
        self._why_no_waits: Callable[[], Exception] | None = None
        self._ended_since_prune = _PRUNE_EVERY
        self._renew_at = math.inf
        self._prune_at = math.inf if retention is None or retention.older_than is None else env.now() + _PRUNE_AFTER
        self.session = store.join(self)
        self.unwatch = env.watch(store.wake, self._keep_leases)
        store.wake()

    def write(self, name: str, work: Callable[[Tx], T | JournalRefusal | RunInQuarantine]) -> T:
        """Run a transaction by the name of its crash points.

        Raises:
            JournalRefusal, RunInQuarantine: What the transaction returned, if it did: then what it wrote is durable.
        """
        if crashpoints.armed:
            crashpoints.reach(f"{name}.before")
        try:
            result = self.store.write(self.session, work, self.limits.write_timeout)
        except UnicodeEncodeError as error:
            raise not_text() from error
        if crashpoints.armed:
            crashpoints.reach(f"{name}.after")
        if isinstance(result, JournalRefusal | RunInQuarantine):
            raise result
        return result

    def encode(self, value: Any, where: str) -> msgspec.Raw:
        """Write a user's value as JSON bytes, within the limits; `where` names it in a refusal."""
        return self.values.encode(value, where, self.limits.value_bytes)

    def input(self, run_id: str) -> Any:
        """Read what a run was asked to do."""
        record = self.read(lambda tx: tx.input(run_id))
        if record is None:
            raise RunNotFound(run_id)
        return self.values.decode(record.value, f"the input of run {run_id}")

    def append_event(self, holder: Holder | None, name: str, data: Any, run_id: str) -> EventRecord:
        """Add an event to a run as its owner, or without an owner to a run or the common stream."""
        raw = msgspec.UNSET if data is None else self.encode(data, f"the event {name}")
        record = EventRecord(n=0, at=self.env.wall(), name=name, run_id=run_id, data=raw)
        return self.write("append_event", lambda tx: writes.append_event(tx, holder, record, self.limits))

    def error_record(self, error: BaseException | ErrorRecord) -> ErrorRecord:
        """Make an error storable, within the limits."""
        limit = self.limits.error_chars
        if isinstance(error, BaseException):
            return ErrorRecord.of(error, limit)
        return msgspec.structs.replace(
            error, message=shorten(error.message, limit), traceback=shorten(error.traceback, limit)
        )

    # -- leases -------------------------------------------------------------------------------------------------------

    def leases(self) -> list[HeldLease]:
        """List the leases held here."""
        with self._lock:
            return [lease for leases in self._leases.values() for lease in leases]

    def keep(self, lease: HeldLease) -> None:
        """Renew a lease from now on, if it wants to be; earlier leases of its run that are held here are lost."""
        due, run_id = _renewal_due(lease), lease.holder.run_id
        with self._lock:
            before = self._leases.get(run_id, ())
            self._leases[run_id] = [*before, lease]
            sooner = due < self._renew_at
            if sooner:
                self._renew_at = due
        for one in before:
            one.lose(one.holder.lost(f"{lease.holder.owner} took it over", "running"))
        if sooner:
            self.store.wake()

    def forget(self, lease: HeldLease) -> None:
        """Stop renewing a lease."""
        with self._lock:
            left = [one for one in self._leases.pop(lease.holder.run_id, ()) if one is not lease]
            if left:
                self._leases[lease.holder.run_id] = left

    def lose(self, run: RunRecord, why: str) -> None:
        """Mark the leases of a run that are held here as lost."""
        with self._lock:
            leases = self._leases.get(run.id, ())
        for lease in leases:
            lease.lose(lease.holder.lost(why, run.state))

    # -- waiting ------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Number of callbacks that wait."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def await_outcome(
        self,
        run_id: str,
        callback: Callable[[Outcome], None],
        closed: Callable[[], None] | None,
        *,
        inside: bool = False,
    ) -> Callable[[], None]:
        """Do what `Journal.on_outcome` promises."""
        waiter = _Waiter(callback, closed, inside)
        with self._lock:
            self._waiting.setdefault(run_id, []).append(waiter)

        def withdraw() -> None:
            with self._lock:
                waiters = self._waiting.get(run_id, [])
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters:
                    self._waiting.pop(run_id, None)

        try:
            self.store.wake()
            record = self.read(lambda tx: outcome_record(tx, run_id))
        except BaseException as error:
            withdraw()
            if isinstance(error, JournalClosed) and self._why_no_waits is not None:
                raise self._why_no_waits() from None
            raise
        if record is not None:  # it had ended, or did while this was registered
            self._settled(record)
        elif closed is not None and inside in self._no_waits:
            withdraw()
            closed()
        return withdraw

    def end_waits(self, why: Callable[[], Exception] | None, *, inside: bool) -> None:
        """Wake those that wait for runs and want to know when that is in vain; from now on none of them waits."""
        with self._lock:
            if self._why_no_waits is None:
                self._why_no_waits = why
            self._no_waits |= {False, inside}
            before, self._waiting = self._waiting, {}
            ended: list[Callable[[], None]] = []
            for run_id, waiters in before.items():
                for waiter in waiters:
                    if waiter.closed is not None and waiter.inside in self._no_waits:
                        ended.append(waiter.closed)
                    else:
                        self._waiting.setdefault(run_id, []).append(waiter)
        for closed in ended:
            closed()

    def why_no_waits(self, run_id: str) -> Exception:
        """Make the error of a caller that waited for a run in vain."""
        if self._why_no_waits is not None:
            return self._why_no_waits()
        return JournalClosed(
            f"the journal was closed while run {run_id} was waited for", hint="attach to the run after the next start"
        )

    def outcome(self, record: OutcomeRecord) -> Outcome:
        """Read an outcome's value."""
        where = f"the outcome of run {record.run_id}"
        value = self.values.decode(record.value, where)
        return Outcome(run_id=record.run_id, state=record.state, at=record.at, value=value, error=record.error)

    def call(self, run_id: str, callback: Callable[[A], None], argument: A) -> None:
        """Call a user's callback so that nothing it raises is felt."""
        try:
            callback(argument)
        except Exception as error:  # noqa: BLE001 - it is told as an event
            said = text_of_error(error)
            self._sink(ListenerFailed(at=self.env.wall(), run_id=run_id, error=said))

    # -- for the store ------------------------------------------------------------------------------------------------

    def committed(self, notes: Notes) -> None:
        """Send events to the sink, and call back those that wait for a run that came to rest."""
        for event in notes.events:
            try:  # noqa: SIM105 - a context manager for each would cost more than the call
                self._sink(event)
            except Exception:  # noqa: BLE001, S110 - sinks do not raise; one that does must not cost a waiter
                pass
        for record in notes.settled:
            self._ended_since_prune += 1
            if self._ended_since_prune == _PRUNE_EVERY and self._retention is not None:
                self.store.wake()
            if record.run_id in self._waiting:
                self._settled(record)

    def changed_elsewhere(self) -> None:
        """Look at every run that is waited for."""
        with self._lock:
            waiting = list(self._waiting)
        if waiting:
            for run_id in self.read(lambda tx: tx.settled(waiting)):
                self._settle(run_id)

    def chores(self) -> list[Callable[[Tx], object]]:
        """Return the renewals and the retention that are due."""
        now = self.env.now()
        prune_due = self._retention is not None and (self._ended_since_prune >= _PRUNE_EVERY or now >= self._prune_at)
        if now < self._renew_at and not prune_due:
            return []
        work: list[Callable[[Tx], object]] = [
            partial(_renew, lease, now) for lease in self.leases() if _renewal_due(lease) <= now
        ]
        if prune_due:
            self._ended_since_prune = 0
            if self._prune_at < math.inf:
                self._prune_at = now + _PRUNE_AFTER
            work.append(self._prune)
        return work

    def pace(self) -> float | None:
        """Return the seconds until the next look, or `None` if there is nothing to look for."""
        now = self.env.now()
        with self._lock:
            if self._renew_at <= now:  # not before: a lease that is gone costs one look, and each look would cost more
                held = [_renewal_due(lease) for leases in self._leases.values() for lease in leases]
                self._renew_at = min(held, default=math.inf)
            if self._waiting:
                return self._poll_interval
        if self._retention is not None and self._ended_since_prune >= _PRUNE_EVERY:
            return 0.0
        due = min(self._renew_at, self._prune_at)
        return None if due == math.inf else self.env.real(max(due - now, 0.05))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _keep_leases(self, to: float) -> None:
        """Renew what is held here before a test moves the clock so far; in truth it would have been, on the way."""
        kept = [lease for lease in self.leases() if lease.auto_renew]
        if kept:
            with contextlib.suppress(JournalError):
                self.write("renew", partial(_renew_all, kept, to))

    def _prune(self, tx: Tx) -> None:
        assert self._retention is not None
        if writes.prune(tx, None, self._retention, self.env.wall()):
            self._ended_since_prune = _PRUNE_EVERY  # there may be more

    def _settled(self, record: OutcomeRecord) -> None:
        """Call the callbacks of a run that has come to rest."""
        try:
            outcome = self.outcome(record)
        except JournalError as error:  # its value cannot be read here, but the callbacks must be called
            outcome = Outcome(run_id=record.run_id, state="failed", at=record.at, error=ErrorRecord.of(error))
        with self._lock:
            waiters = self._waiting.pop(record.run_id, [])
        for waiter in waiters:
            self.call(record.run_id, waiter.callback, outcome)

    def _settle(self, run_id: str) -> None:
        try:
            record = self.read(lambda tx: outcome_record(tx, run_id))
        except RunNotFound as gone:
            record = OutcomeRecord(run_id=run_id, state="failed", at=self.env.wall(), error=ErrorRecord.of(gone))
        if record is not None:
            self._settled(record)


def outcome_record(tx: Tx, run_id: str) -> OutcomeRecord | None:
    """Find how a run came to rest, or `None` while it has not."""
    run = writes.found(tx, run_id)
    if run.state == "parked":
        return writes.parked_outcome(run)
    if run.state not in ENDED:
        return None
    outcome = tx.outcome(run_id)
    if outcome is None:
        raise JournalCorrupt(f"the outcome of run {run_id}, which has {run.state}, is not there")
    return outcome


def _renew(lease: HeldLease, now: float, tx: Tx) -> None:
    try:
        writes.renew(tx, lease.holder, now + lease.ttl, lease.ttl)
    except LeaseLost as lost:
        lease.lose(lost)
    else:
        lease.until = now + lease.ttl


def _renew_all(leases: list[HeldLease], now: float, tx: Tx) -> None:
    for lease in leases:
        _renew(lease, now, tx)


def _renewal_due(lease: HeldLease) -> float:
    """Return when a lease should be renewed: after a third of its time."""
    return lease.until - lease.ttl * 2 / 3 if lease.auto_renew else math.inf
