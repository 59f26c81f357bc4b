"""Owning a run: the only way to write steps and outcomes, and only as long as no other owner has taken over."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from mlld_sdk.journal import rules, writes
from mlld_sdk.journal.core import JournalCore
from mlld_sdk.journal.errors import JournalCorrupt, JournalError, LeaseLost, LimitExceeded, StepNotOpen
from mlld_sdk.journal.options import StepPolicy
from mlld_sdk.journal.positions import checked
from mlld_sdk.journal.records import (
    ErrorRecord,
    EventRecord,
    Outcome,
    OutcomeRecord,
    OutcomeState,
    Replay,
    RunRecord,
    StepRecord,
    recall,
    unpack,
)
from mlld_sdk.journal.rules import Failed, Fresh, Holder
from mlld_sdk.journal.values import Fingerprint

_DEFAULT = StepPolicy()


class RunLease:
    """Ownership of one run under one epoch. Threads may share it; each works on positions of its own.

    Every write is refused with `LeaseLost` once the run has another owner or has ended (J-32).

    Attributes:
        run: The run as it was claimed.
        run_id: Its id.
        owner: Whose lease this is.
        epoch: The epoch that fences its writes.
        attempt: Which owner of the run this is, from 1; from 2 on there may be steps to replay.
        holder: Run, owner and epoch, as its writes name them.
        lost: Why this lease does not count any more, or `None` as far as is known here.
        over: Whether the lease was given up, lost or ended with its run.
    """

    def __init__(self, core: JournalCore, run: RunRecord, auto_renew: bool) -> None:
        """Leases are made by `Journal.claim` and `Journal.claim_unfinished`."""
        assert run.owner is not None
        self.run = run
        self.run_id: str = run.id
        self.owner: str = run.owner.name
        self.epoch: int = run.epoch
        self.attempt: int = run.attempt
        self.ttl: float = run.owner.ttl
        self.until: float = run.owner.until
        self.auto_renew = auto_renew
        self._core = core
        self.holder: Holder = Holder(run.id, self.owner, run.epoch)
        self._lock = threading.Lock()
        self.lost: LeaseLost | None = None
        self._on_lost: list[Callable[[LeaseLost], None]] = []
        self.over: bool = False
        self._recorded: dict[str, bytes] | None = {} if run.attempt == 1 else None
        self._recorded_all = True
        self._open: dict[str, StepRecord] = {}
        self._failed: dict[str, StepRecord] = {}
        self._used: set[str] = set()
        self._on_trial: set[str] | None = None
        if run.quarantine:
            self._on_trial = {position for death in (*run.deaths, *run.suspected) for position in death.in_flight}

    @property
    def input(self) -> Any:
        """What the run was asked to do."""
        return self._core.input(self.run_id)

    def on_lost(self, callback: Callable[[LeaseLost], None]) -> None:
        """Call back once if the run is taken away (cancelled, taken over), at once if it has been.

        Runs on the thread that notices, which may be the journal's writer: it must not block.
        """
        with self._lock:
            if self.lost is None:
                self._on_lost.append(callback)
                return
        callback(self.lost)

    # -- steps --------------------------------------------------------------------------------------------------------

    def begin_step(
        self, position: str, name: str, fingerprint: Fingerprint | str, policy: StepPolicy = _DEFAULT
    ) -> Fresh | Replay | Failed:
        """Ask what to do at a position; when it returns `Fresh`, that the step is about to act is durable.

        Args:
            position: Where in the run, as `Positions` counts it.
            name: What the step is called.
            fingerprint: What it asks for; `Journal.fingerprint` makes one. A plain text stands for itself.
            policy: What to do if the step was interrupted.

        Returns:
            `Fresh(attempt)`: act, then call `finish_step` or `fail_step`. `Replay(value=value)`: do not act, go on with
            the value. `Failed(error)`: the step has failed for good before.

        Raises:
            StepMismatch: Something else is recorded at this position.
            StepInterrupted: The step was in flight when an owner died, and its policy is to fail.
            StepExhausted: It was begun as often as its policy allows.
            StepNotOpen: The position is in use already, or was used by another step of this owner.
            LeaseLost: The run has another owner, or has ended.
        """
        if self.lost is not None:
            raise self.lost
        asked = fingerprint if isinstance(fingerprint, Fingerprint) else Fingerprint(fingerprint, fingerprint[:200])
        recorded = self._recorded
        if recorded and (packed := recorded.pop(position, None)) is not None:  # atomic: one caller gets it
            known = recall(packed)
            if (
                known is not None
                and known.fingerprint == asked.digest
                and known.name == name
                and known.position == position
                and known.run_id == self.run_id
            ):
                return known
            return self._begin(position, self._unpack(position, packed), name, asked, policy)
        return self._begin(position, self._take(checked(position)), name, asked, policy)

    def _begin(
        self, position: str, known: StepRecord | None, name: str, asked: Fingerprint, policy: StepPolicy
    ) -> Fresh | Replay | Failed:
        try:
            decision = rules.begin(known, self.run_id, position, name, asked.digest, asked.asked, policy)
            if isinstance(decision, StepRecord):
                if decision.error is not None and decision.state == "failed":
                    return Failed(error=decision.error)
                assert decision.result is not msgspec.UNSET
                where = f"the result of step {position} ({name}) of run {self.run_id}"
                return Replay(recorded=self._core.values.decode(decision.result, where))
            step = StepRecord(
                run_id=self.run_id,
                position=position,
                name=name,
                fingerprint=asked.digest,
                asked=asked.asked,
                policy=policy,
                state="started",
                attempts=decision.attempt,
                forgiven=known.forgiven if known else 0,
                deaths=known.deaths if known else 0,
                started=self._core.env.wall(),
            )
            self._write("begin_step", writes.put_step(self.holder, step))
        except BaseException:
            self._put_back(position, known)
            raise
        self._open[position] = step
        return decision

    def finish_step(self, position: str, value: Any = None) -> Any:
        """Record what a step gave; returns it as a replay would give it. Hand on what this returns.

        If it raises, nothing is recorded and the step stays open: call it again, `fail_step`, or give the run up.

        Raises:
            ValueNotStorable: The value would not come back the same; the message names the field.
            LimitExceeded: It is too long.
            StepNotOpen: The step was not begun here.
            LeaseLost: The run has another owner, or has ended.
        """
        step = self._opened(position)
        raw, back = self._core.values.encode_both(
            value, f"the result of step {position} ({step.name})", self._core.limits.value_bytes
        )
        done = msgspec.structs.replace(step, state="finished", result=raw, ended=self._core.env.wall())
        self._write("finish_step", writes.put_step(self.holder, done))
        self._open.pop(position, None)
        if self._on_trial is not None:
            self._survived(position)
        return back

    def fail_step(self, position: str, error: BaseException | ErrorRecord, *, final: bool = True) -> ErrorRecord:
        """Record that a step failed.

        Args:
            position: The step, begun before.
            error: Why.
            final: Whether this is the step's answer, given again at every replay. If not, the step may be begun
                again, now or by another owner, within its policy's attempts.
        """
        step = self._opened(position)
        record = self._core.error_record(error)
        ended = self._core.env.wall()
        failed = msgspec.structs.replace(step, state="failed", error=record, final=final, ended=ended)
        self._write("fail_step", writes.put_step(self.holder, failed))
        del self._open[position]
        if not final:
            self._failed[position] = failed
        if self._on_trial is not None:
            self._survived(position)
        return record

    def to_retry(self, position: str) -> StepRecord | None:
        """Return the record of a step that failed and may be begun again; begins nothing."""
        known = self._known(position)
        return known if known is not None and known.state == "failed" and not known.final else None

    def is_answered(self, position: str) -> bool:
        """Return whether a step has its answer, which is given again; begins nothing."""
        known = self._known(position)
        return known is not None and (known.state == "finished" or (known.state == "failed" and known.final))

    def note(self, name: str, data: Any = None) -> EventRecord:
        """Add a receipt to the run: progress, a decision, a cost. Bounded by `events_per_run`."""
        return self._core.append_event(self.holder, name, data, self.run_id)

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish_run(self, value: Any = None) -> Outcome:
        """End the run with a result. Those that wait for it are woken; a second time changes nothing."""
        raw = self._core.encode(value, f"the result of run {self.run_id}")
        return self._end_run("finish_run", "finished", raw, None)

    def fail_run(self, error: BaseException | ErrorRecord) -> Outcome:
        """End the run with an error."""
        return self._end_run("fail_run", "failed", msgspec.UNSET, self._core.error_record(error))

    def park_run(self, error: BaseException | ErrorRecord | str) -> RunRecord:
        """Make the run a dead letter: it is not worked on until it is retried."""
        record = ErrorRecord(code="RUN_PARKED", message=error) if isinstance(error, str) else error
        record = self._core.error_record(record)
        wall = self._core.env.wall()
        run: RunRecord = self._write("park_run", lambda tx: writes.park_run(tx, self.holder, record, wall))
        self.end()
        return run

    def release(self) -> None:
        """Put the run back into the queue, to be claimed again; steps in flight count as interrupted."""
        self._write("release", lambda tx: writes.release(tx, self.holder, self._core.env.wall()))
        self.end()

    def abandon(self, reason: str) -> RunRecord:
        """Report that the owner died, so that the run need not wait for the lease to run out.

        Counts as a death: a run that keeps taking its owners down is parked. Returns the run, pending or parked.
        """
        wall = self._core.env.wall()
        limits = self._core.limits
        run: RunRecord = self._write("abandon", lambda tx: writes.abandon(tx, self.holder, reason, wall, limits))
        self.end()
        return run

    def renew(self, ttl: float | None = None) -> None:
        """Prolong the lease from now by `ttl`, or by what it was claimed with."""
        ttl = self.ttl if ttl is None else ttl
        until = self._core.env.now() + ttl
        self._write("renew", lambda tx: writes.renew(tx, self.holder, until, ttl))
        self.ttl, self.until = ttl, until

    def sleep_until(self, until: float) -> None:
        """Write down that the run waits on purpose until a moment: an owner that dies meanwhile did not die of it."""
        self._write("sleep_until", lambda tx: writes.sleep_until(tx, self.holder, until))

    # -- inside -------------------------------------------------------------------------------------------------------

    def lose(self, error: LeaseLost) -> None:
        """Mark the lease as lost and call those of `on_lost`. The journal calls this."""
        with self._lock:
            if self.over:
                return
            self.lost = error
            callbacks, self._on_lost = self._on_lost, []
        self.end()
        for callback in callbacks:
            self._core.call(self.run_id, callback, error)

    def end(self) -> None:
        """Mark the lease as given up, or ended with its run. The journal calls this."""
        self.over = True
        self._core.forget(self)

    def _end_run(
        self, name: str, state: OutcomeState, value: msgspec.Raw | msgspec.UnsetType, error: ErrorRecord | None
    ) -> Outcome:
        record = OutcomeRecord(run_id=self.run_id, state=state, at=self._core.env.wall(), value=value, error=error)
        ended: OutcomeRecord = self._write(name, lambda tx: writes.end_run(tx, self.holder, record))
        self.end()
        return self._core.outcome(ended)

    def _write(self, name: str, work: Any) -> Any:
        try:
            return self._core.write(name, work)
        except LeaseLost as error:
            self.lose(error)
            raise

    def _survived(self, position: str) -> None:
        """Note that a step came to an end while the run is on trial; the last that was in flight before clears it."""
        with self._lock:
            if self._on_trial is None:
                return
            self._on_trial.discard(position)
            if self._on_trial:
                return
        with contextlib.suppress(JournalError):  # the step is written down; the next one clears it
            self._write("clear", lambda tx: writes.clear(tx, self.holder, self._core.env.wall()))
            self._on_trial = None

    def _known(self, position: str) -> StepRecord | None:
        """Return what is recorded at a position that is not begun here."""
        with self._lock:
            loaded = self._load()
            known, packed, recorded_all = self._failed.get(position), loaded.get(position), self._recorded_all
        if known is None and packed is not None:
            return unpack(StepRecord, packed, f"step {position} of run {self.run_id}")
        if known is None and not recorded_all and position not in self._open:
            return self._core.read(lambda tx: tx.step(self.run_id, position))
        return known

    def _load(self) -> dict[str, bytes]:
        """Read what earlier owners have recorded, once. Called with the lock held."""
        if self._recorded is None:
            limit = self._core.limits.replay_bytes
            recorded, self._recorded_all = self._core.read(lambda tx: tx.packed_steps(self.run_id, limit))
            self._used.update(recorded)
            self._recorded = recorded
        return self._recorded

    def _take(self, position: str) -> StepRecord | None:
        """Reserve a position and return what is recorded there."""
        with self._lock:
            loaded = self._load()
            failed = self._failed.pop(position, None)
            if failed is not None:
                return failed
            packed = loaded.pop(position, None)
            recorded_all = self._recorded_all
            if packed is None:
                if position in self._used:
                    raise StepNotOpen(
                        f"step {position} of run {self.run_id} was begun before by this owner",
                        hint="every step has a position of its own: take it from Positions, one branch for each thread",
                    )
                allowed = self._core.limits.steps_per_run
                if recorded_all and len(self._used) >= allowed:
                    raise LimitExceeded(f"run {self.run_id} has {allowed} steps", "steps_per_run", allowed)
                self._used.add(position)
        if packed is not None:
            return self._unpack(position, packed)
        return None if recorded_all else self._core.read(lambda tx: tx.step(self.run_id, position))

    def _unpack(self, position: str, packed: bytes) -> StepRecord:
        where = f"step {position} of run {self.run_id}"
        try:
            step = unpack(StepRecord, packed, where)
            if (step.run_id, step.position) != (self.run_id, position):
                raise JournalCorrupt(f"{where} disagrees with its row")
        except JournalError:
            assert self._recorded is not None
            self._recorded[position] = packed  # or, asked again, it would look like a step never begun
            raise
        return step

    def _put_back(self, position: str, known: StepRecord | None) -> None:
        with self._lock:
            if known is not None:
                self._failed[position] = known
            else:
                self._used.discard(position)

    def _opened(self, position: str) -> StepRecord:
        step = self._open.get(position)
        if step is None:
            raise StepNotOpen(
                f"step {position} of run {self.run_id} is not open here",
                hint="begin_step must have returned Fresh for it",
            )
        return step
