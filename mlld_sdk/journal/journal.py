"""The journal: runs that survive their owners."""

import contextlib
import os
import queue
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from mlld_sdk.base.durations import LONGEST_WAIT, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.events import Sink, discard
from mlld_sdk.base.options import check_callable, check_class, one_of, text, truth, whole
from mlld_sdk.base.texts import fit
from mlld_sdk.journal import crashpoints, writes
from mlld_sdk.journal.core import JournalCore, outcome_record
from mlld_sdk.journal.errors import JournalClosed, JournalError, WaitTimeout
from mlld_sdk.journal.lease import RunLease
from mlld_sdk.journal.options import Durability, JournalLimits, Retention
from mlld_sdk.journal.records import (
    Backlog,
    DeadLetter,
    ErrorRecord,
    EventRecord,
    Outcome,
    OwnerRecord,
    RunRecord,
    RunState,
    StepRecord,
)
from mlld_sdk.journal.rows import Tx
from mlld_sdk.journal.store import JournalStatus, Problem, Store, StoreStatus
from mlld_sdk.journal.values import Fingerprint, Values, digest_of

A = TypeVar("A")
T = TypeVar("T")

DEFAULT_TTL = 30.0
LONGEST_TTL = 86_400.0
_KEEP = Retention()


class Journal:
    """Runs, their steps and their outcomes, written before they are acted upon.

    Thread-safe. Every call that writes returns when the write is durable. Every call blocks at most
    `limits.write_timeout`, except `wait`, which is told how long.
    """

    def __init__(
        self,
        store: Store,
        *,
        env: Env | None = None,
        sink: Sink = discard,
        limits: JournalLimits | None = None,
        retention: Retention | None = None,
        values: Values | None = None,
        poll_interval: float = 0.1,
    ) -> None:
        """Attach to a store; most users call `Journal.open`."""
        _check(limits, retention, values, poll_interval)
        self.env: Env = env or Env()
        self.limits: JournalLimits = limits or JournalLimits()
        self.values: Values = values or Values()
        self._store = store
        self._core = JournalCore(store, self.env, sink, self.limits, retention, self.values, poll_interval)
        self.session: str = self._core.session

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        env: Env | None = None,
        sink: Sink = discard,
        durability: Durability = "full",
        limits: JournalLimits | None = None,
        retention: Retention | None = _KEEP,
        values: Values | None = None,
        poll_interval: float = 0.1,
    ) -> "Journal":
        """Open a journal file, made if it is not there, or one in memory.

        Args:
            path: The file, on a local disk. `None` keeps everything in memory, for tests.
            env: Clocks and randomness.
            sink: Takes the journal's events; must not block.
            durability: `full` survives a power cut, `normal` every crash of the program.
            limits: How large things may become.
            retention: Which ended runs to keep; `None` keeps all.
            values: Registered types of user values.
            poll_interval: Seconds between two looks for what other processes committed, while any run is waited for.

        Raises:
            NotAJournal: The path is something else.
            JournalTooNew: A newer version of the library wrote the file.
            JournalError: It cannot be opened: locked, read-only, full, damaged.
        """
        from mlld_sdk.journal.memory import MemoryStore
        from mlld_sdk.journal.sqlite.store import SqliteStore

        _check(limits, retention, values, poll_interval)
        one_of("durability", durability, *get_args(Durability))
        env, limits = env or Env(), limits or JournalLimits()
        store: Store
        if path is None:
            store = MemoryStore()
        else:
            store = SqliteStore(Path(path), env=env, sink=sink, durability=durability, limits=limits)
        return cls(
            store, env=env, sink=sink, limits=limits, retention=retention, values=values, poll_interval=poll_interval
        )

    def close(self) -> None:
        """Release what is still owned here, write what is queued and close. A second time does nothing."""
        self._core.unwatch()
        leases = self._core.leases()
        holders, wall = [lease.holder for lease in leases], self.env.wall()
        if holders:
            with contextlib.suppress(JournalError):  # if not, they are taken over when the session is seen to be dead
                self._core.write("release", lambda tx: writes.release_all(tx, holders, wall))
        for lease in leases:
            lease.end()
        self._store.leave(self.session)
        self._core.end_waits(None, inside=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- runs ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        kind: str,
        input: Any = None,  # noqa: A002 - the word of the domain
        *,
        run_id: str | None = None,
        key: str | None = None,
        deadline: float | timedelta | None = None,
        priority: int = 0,
    ) -> RunRecord:
        """Write down a piece of work; it is durable when this returns.

        Args:
            kind: Who can work on it: an agent's path.
            input: What to do; anything `Values` can store.
            run_id: Name of the run; made up if not given. The same id with the same input is the same run.
            key: Idempotency key, unique within the kind: the same key with the same input is the same run,
                in any state, as long as retention keeps it.
            deadline: Seconds from now within which it must have been finished or at least claimed again.
            priority: Higher goes first.

        Raises:
            IdempotencyConflict: The key or the id was used with another input.
            ValueNotStorable: The input cannot be stored.
        """
        for name, given in (("kind", kind), ("run_id", run_id), ("key", key)):
            if given is not None:
                text(name, given, most=500)
                if fit(given) != given:
                    raise InvalidOption(name, given, "text without halves of surrogate pairs")
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise InvalidOption("priority", priority, "a whole number; higher goes first")
        raw = self._core.encode(input, "the input")
        wall = self.env.wall()
        run = RunRecord(
            id=run_id or f"run-{int(wall * 1000):011x}-{self.env.random.getrandbits(40):010x}",
            kind=kind,
            state="pending",
            created=wall,
            updated=wall,
            queued=wall,
            digest=digest_of(self.values.canonical(raw)),
            key=key,
            deadline=None if deadline is None else wall + seconds(deadline, "deadline"),
            priority=priority,
        )
        return self._core.write("submit", lambda tx: writes.submit(tx, run, raw))

    def claim(
        self, run_id: str, owner: str, *, ttl: float | timedelta = DEFAULT_TTL, auto_renew: bool = True
    ) -> RunLease:
        """Take a run, by compare-and-set.

        Args:
            run_id: The run.
            owner: Who takes it, for people: an agent's path and incarnation.
            ttl: Seconds after which others may take it over unless the lease is renewed.
            auto_renew: Renew it as long as this journal is open. Without, the owner has to call `renew`.

        Raises:
            RunNotFound, RunEnded, RunParked: There is nothing to claim. Claiming may itself park a run that took down
                too many owners, or fail one whose deadline has passed.
            LeaseHeld: It has another owner.
            RunInQuarantine: It waits until another run is cleared of the deaths of processes, or convicted.
        """
        record = self._owner(owner, ttl)
        now, wall = self.env.now(), self.env.wall()
        run = self._core.write(
            "claim", lambda tx: writes.claim(tx, run_id, record, now, wall, self._store.alive, self.limits)
        )
        return self._lease(run, auto_renew)

    def claim_unfinished(
        self,
        kind: str | None,
        owner: str,
        *,
        limit: int = 16,
        ttl: float | timedelta = DEFAULT_TTL,
        auto_renew: bool = True,
    ) -> list[RunLease]:
        """Take up to `limit` runs without a living owner: higher priority first, then those that have waited longest.

        Runs of owners whose process is dead or whose lease ran out are among them. A run that came back goes to the end
        of the queue, so one that keeps failing cannot starve the others.
        """
        whole("limit", limit)
        record = self._owner(owner, ttl)
        now, wall = self.env.now(), self.env.wall()
        runs = self._core.write(
            "claim_unfinished",
            lambda tx: writes.claim_unfinished(tx, kind, record, limit, now, wall, self._store.alive, self.limits),
        )
        return [self._lease(run, auto_renew) for run in runs]

    def fail_overdue(self) -> None:
        """Fail the pending runs whose deadline has passed, so that they are not waited for until it is their turn."""
        wall = self.env.wall()
        if self._core.read(lambda tx: tx.overdue(None, wall, 1)):
            self.claim_unfinished(None, "deadlines", limit=0)

    def cancel(self, run_id: str, reason: str = "cancelled") -> RunRecord:
        """End a run from outside. Its owner's next write is refused; an owner in this process is told at once."""
        text("reason", reason, empty=True)
        run = self._core.write("cancel", lambda tx: writes.cancel(tx, run_id, reason, self.env.wall()))
        self._core.lose(run, f"it was cancelled: {reason}")
        return run

    def retry(self, run_id: str, *, rerun_interrupted: bool = False) -> RunRecord:
        """Put a parked, failed or cancelled run back into the queue. What it finished stays finished.

        Args:
            run_id: The run.
            rerun_interrupted: Also let steps run again that were interrupted, though their policy says no.
        """
        truth("rerun_interrupted", rerun_interrupted)
        return self._core.write("retry", lambda tx: writes.retry(tx, run_id, rerun_interrupted, self.env.wall()))

    def resolve_step(self, run_id: str, position: str, value: Any = None) -> StepRecord:
        """Record by hand what an interrupted step gave; for a run without an owner, usually a parked one."""
        raw = self._core.encode(value, f"the result of step {position}")
        wall = self.env.wall()
        return self._core.write("resolve_step", lambda tx: writes.resolve_step(tx, run_id, position, raw, wall))

    # -- reading ------------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord:
        """Find a run."""
        return self._core.read(lambda tx: writes.found(tx, run_id))

    def find(self, kind: str, key: str) -> RunRecord | None:
        """Find a run by its idempotency key."""
        text("key", key)
        return self._core.read(lambda tx: tx.run_by_key(kind, key))

    def find_all(self, key: str, *, limit: int = 10) -> list[RunRecord]:
        """List the runs of all kinds that have this idempotency key, one of a kind at most, by kind."""
        return self._core.read(lambda tx: tx.runs_by_key(key, limit))

    def runs(
        self,
        *,
        kind: str | None = None,
        states: Iterable[RunState] = (),
        after: str | None = None,
        before: str | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> list[RunRecord]:
        """List runs, oldest submission first; `after` the last id of a page gives the next page.

        With `newest_first` the other way round; then `before` the last id of a page gives the next page.
        """
        wanted = tuple(states)
        for state in wanted:
            one_of("states", state, *get_args(RunState))
        whole("limit", limit)
        return self._core.read(lambda tx: tx.runs(kind, wanted, after, before, limit, newest_first=newest_first))

    def has_claimable(self, kind: str) -> bool:
        """Return whether a run of a kind waits for an owner, or has one that is late; claims nothing."""
        now, wall = self.env.now(), self.env.wall()

        def work(tx: Tx) -> bool:
            trial = writes.on_trial(tx, now, wall, self._store.alive) is None
            return bool(tx.claimable(kind, now, (), 1, trial=trial))

        return self._core.read(work)

    def unattended(self, kinds: Iterable[str], *, most: int = 100, limit: int = 100) -> dict[str, list[str]]:
        """List the ids of runs that wait for an owner or were left by one, in turn, by kind; claims nothing.

        A kind is left out while a living owner, in any process, works on a run of it: then somebody has the others
        before them.

        Args:
            kinds: The kinds to look at, in this order.
            most: How many kinds to find.
            limit: How many runs of each.
        """
        now = self.env.now()

        def work(tx: Tx) -> dict[str, list[str]]:
            dead = [session for session in tx.sessions() if not self._store.alive(session)]
            attended, found = tx.attended(now, dead), dict[str, list[str]]()
            for kind in kinds:
                if len(found) == most:
                    break
                runs = [] if kind in attended else tx.claimable(kind, now, dead, limit, trial=True)
                if runs:
                    found[kind] = [run_id for run_id, _ in runs]
            return found

        return self._core.read(work)

    def backlogs(self) -> dict[str, Backlog]:
        """Return what has not ended and since when the oldest waits, by kind; kinds without any are left out.

        Runs that have an owner do not wait, and neither do those that sleep or wait for the time of a retry (J-45).
        """
        wall = self.env.wall()
        return self._core.read(lambda tx: tx.backlogs(wall))

    def unfinished_kinds(self) -> set[str]:
        """Return the kinds that have pending or running runs, for looks at what other processes submitted."""
        return self._core.read(Tx.unfinished_kinds)

    def steps(self, run_id: str) -> list[StepRecord]:
        """List a run's steps in the order of their positions."""
        return self._core.read(lambda tx: tx.steps(run_id))

    def step(self, run_id: str, position: str) -> StepRecord | None:
        """Find one step."""
        return self._core.read(lambda tx: tx.step(run_id, position))

    def step_result(self, step: StepRecord) -> Any:
        """Read what a finished step gave."""
        return self.values.decode(step.result, f"step {step.position}")

    def input(self, run_id: str) -> Any:
        """Read what a run was asked to do."""
        return self._core.input(run_id)

    def outcome(self, run_id: str) -> Outcome | None:
        """Return how a run came to rest, or `None` while it has not."""
        record = self._core.read(lambda tx: outcome_record(tx, run_id))
        return None if record is None else self._core.outcome(record)

    def dead_letters(self, kind: str | None = None, *, limit: int = 100) -> list[DeadLetter]:
        """List parked runs with the reasons, oldest submission first."""

        def work(tx: Tx) -> list[DeadLetter]:
            return [
                DeadLetter(
                    run=run,
                    error=run.parked or ErrorRecord(code="RUN_PARKED", message="no reason recorded"),
                    deaths=run.deaths,
                    steps=tuple(tx.steps(run.id, ("started", "interrupted", "failed"))),
                )
                for run in tx.runs(kind=kind, states=("parked",), limit=limit)
            ]

        return self._core.read(work)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def on_outcome(
        self,
        run_id: str,
        callback: Callable[[Outcome], None],
        closed: Callable[[], None] | None = None,
        *,
        inside: bool = False,
    ) -> Callable[[], None]:
        """Call back once when a run comes to rest, at once if it has; returns how to withdraw.

        The run may be worked on by any process that has the file open. The callback runs on the thread that notices,
        which may be the journal's writer: it must not block and must not call the journal. One that raises is
        reported as an event and otherwise ignored. `closed` is called if waiting ends before; `last_look` says why.
        `inside`: it is the code of a run that waits, see `end_waits`.

        Raises:
            RunNotFound: There is no such run.
        """
        return self._core.await_outcome(run_id, check_callable("function", callback), closed, inside=inside)

    def wait(self, run_id: str, timeout: float | timedelta | None, *, inside: bool = False) -> Outcome:
        """Wait until a run comes to rest, whichever process works on it.

        Args:
            run_id: The run.
            timeout: Seconds to wait; `None` waits as long as it takes.
            inside: Whether it is the code of a run that waits, see `end_waits`.

        Raises:
            WaitTimeout: It has not come to rest in time.
            JournalClosed: This journal was closed meanwhile; or what `end_waits` was given.
            RunNotFound: There is no such run.
        """
        told: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        withdraw = self.on_outcome(run_id, told.put, lambda: told.put(None), inside=inside)
        try:
            outcome = told.get(timeout=None if timeout is None else min(seconds(timeout), LONGEST_WAIT))
        except queue.Empty:
            raise WaitTimeout(f"run {run_id} did not end within {seconds(timeout or 0):g} s") from None
        finally:
            withdraw()
        return self.last_look(run_id) if outcome is None else outcome

    def end_waits(self, why: Callable[[], Exception] | None = None, *, inside: bool = True) -> None:
        """End every wait for a run, because nobody here works on runs any more; later ones end at once.

        A run that has come to rest still gives its outcome. `on_outcome` without `closed` goes on, since another
        process may work on the run.

        Args:
            why: Makes the error of those that wait, unless an earlier call has given one; `JournalClosed` by default.
            inside: Also the waits of runs for other runs. While their agents still own them, their code must not take
                the end of the waiting for an answer.
        """
        self._core.end_waits(why, inside=inside)

    def last_look(self, run_id: str) -> Outcome:
        """Return the outcome of a run that is not waited for any more, or raise why it is not."""
        try:
            outcome = self.outcome(run_id)
        except JournalClosed:
            outcome = None
        if outcome is None:
            raise self._core.why_no_waits(run_id)
        return outcome

    # -- events -------------------------------------------------------------------------------------------------------

    def append_event(self, name: str, data: Any = None, *, run_id: str = "") -> EventRecord:
        """Add an event to the common stream, whose oldest go, or as a receipt to a run, which can be full."""
        return self._core.append_event(None, name, data, run_id)

    def events(self, *, run_id: str = "", after: int = 0, limit: int = 100) -> list[EventRecord]:
        """List events of the common stream or of a run, from the number behind `after`."""
        whole("after", after)
        whole("limit", limit)
        return self._core.read(lambda tx: tx.events(run_id, after, limit))

    def last_event(self, run_id: str = "") -> int:
        """Return the number of the newest event of the common stream or of a run, 0 without any."""
        return self._core.read(lambda tx: tx.last_event(run_id))

    def event_data(self, event: EventRecord) -> Any:
        """Read what an event says beside its name."""
        return self.values.decode(event.data, f"event {event.n}")

    # -- keeping ------------------------------------------------------------------------------------------------------

    def prune(
        self, *, keep_last: int | None = None, older_than: float | timedelta | None = None, kind: str | None = None
    ) -> int:
        """Forget ended runs beyond the newest `keep_last` of each kind and ended longer ago than `older_than`.

        Runs that have not ended, parked ones among them, stay. Works in small transactions, so other writers go on.
        Returns how many runs are gone.
        """
        age = None if older_than is None else seconds(older_than, "older_than")
        retention = Retention(keep_last=keep_last, older_than=age)
        total = 0
        wall = self.env.wall()
        while True:
            gone = self._core.write("prune", lambda tx: writes.prune(tx, kind, retention, wall))
            if not gone:
                return total
            total += gone

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy the journal into a new file while work goes on. The copy appears under its name when it is whole."""
        crashpoints.reach("backup.before")
        self._store.backup(Path(target))
        crashpoints.reach("backup.after")

    def verify(self) -> list[Problem]:
        """Look at every page and every record and list what is damaged; empty when all is well."""
        return self._store.verify()

    def status(self) -> JournalStatus:
        """Return how the journal is doing."""
        try:
            counts = self._core.read(Tx.counts)
        except JournalError:
            counts = {}  # the store's own status says what is wrong
        return JournalStatus(
            store=self._store.status(), runs=counts, leases=len(self._core.leases()), waiting=self._core.waiting
        )

    def store_status(self) -> StoreStatus:
        """Return how the store is doing, as far as is known; reads nothing, so it cannot wait for a disk."""
        return self._store.status()

    def fingerprint(self, *parts: Any) -> Fingerprint:
        """Digest what a step asks for; leave out what changes without mattering: times, random ids, stack traces."""
        return self.values.fingerprint(*parts)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _owner(self, owner: str, ttl: float | timedelta) -> OwnerRecord:
        span = seconds(ttl, "ttl", above=0)
        if span > LONGEST_TTL:
            raise InvalidOption("ttl", ttl, "at most a day")
        return OwnerRecord(name=owner, session=self.session, until=self.env.now() + span, ttl=span)

    def _lease(self, run: RunRecord, auto_renew: bool) -> RunLease:
        lease = RunLease(self._core, run, auto_renew)
        self._core.keep(lease)
        return lease


def _check(limits: object, retention: object, values: object, poll_interval: float) -> None:
    check_class("limits", limits, JournalLimits)
    check_class("retention", retention, Retention)
    check_class("values", values, Values)
    seconds(poll_interval, "poll_interval", above=0)
