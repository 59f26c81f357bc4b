"""Everything the journal writes, as functions of one transaction.

Each decides before it writes. A refusal raised before anything was written leaves no trace; a refusal that is itself
a change (a run parked because it was claimed once too often) is *returned*, so that it is committed, and raised then.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from mlld_sdk.journal import events, rules
from mlld_sdk.journal.errors import (
    IdempotencyConflict,
    JournalCorrupt,
    JournalRefusal,
    LeaseHeld,
    LimitExceeded,
    RunEnded,
    RunInQuarantine,
    RunNotFound,
    RunNotParked,
    RunParked,
    StepNotOpen,
)
from mlld_sdk.journal.options import JournalLimits, Retention
from mlld_sdk.journal.records import (
    ENDED,
    ErrorRecord,
    EventRecord,
    InputRecord,
    OutcomeRecord,
    OwnerRecord,
    RunRecord,
    StepRecord,
    pack,
)
from mlld_sdk.journal.rows import PutStep, StepRow, Tx
from mlld_sdk.journal.rules import Holder, Lost

_PRUNED_AT_ONCE = 200


def found(tx: Tx, run_id: str) -> RunRecord:
    """Return a run, or raise `RunNotFound`."""
    run = tx.run(run_id)
    if run is None:
        raise RunNotFound(run_id)
    return run


def fenced(tx: Tx, holder: Holder) -> None:
    """Refuse a holder whose epoch has passed."""
    rules.still_owner(holder, tx.fence(holder.run_id))


def _owned(tx: Tx, holder: Holder) -> RunRecord:
    fenced(tx, holder)
    return found(tx, holder.run_id)


def submit(tx: Tx, run: RunRecord, value: msgspec.Raw) -> RunRecord:
    """Write a run down, or find the one that was submitted before under the same key or id."""
    known = tx.run_by_key(run.kind, run.key) if run.key is not None else None
    what = f"key {run.key!r} of {run.kind}"
    if known is None:
        known, what = tx.run(run.id), f"run id {run.id}"
    if known is not None:
        if (known.kind, known.digest) != (run.kind, run.digest):
            raise IdempotencyConflict(
                f"{what} was used before with another input (run {known.id})", hint="use another key for other work"
            )
        return known
    tx.put_run(run)
    tx.put_input(InputRecord(run_id=run.id, value=value))
    tx.notes.events.append(events.RunSubmitted(at=run.created, run_id=run.id, kind=run.kind, key=run.key))
    return run


def claim(
    tx: Tx,
    run_id: str,
    owner: OwnerRecord,
    now: float,
    wall: float,
    alive: Callable[[str], bool],
    limits: JournalLimits,
) -> RunRecord | JournalRefusal | RunInQuarantine:
    """Take a run for an owner; an owner that died on it is counted first, which may park the run instead."""
    run = found(tx, run_id)
    before = run.owner
    owner_alive = before is not None and alive(before.session)
    if rules.may_claim(run, now, owner_alive):
        assert before is not None
        if owner_alive:
            run = died(tx, run, "its lease ran out", wall, limits)
        else:
            process_died(tx, before.session, wall, limits)
            run = found(tx, run_id)
        if run.state == "parked":
            return RunParked(run_id, run.parked.message if run.parked else "")
    if run.deadline is not None and wall >= run.deadline:
        return _overdue(tx, run, wall)
    if run.quarantine and (other := on_trial(tx, now, wall, alive)) is not None:
        return RunInQuarantine(run_id, other)
    run = msgspec.structs.replace(
        run, state="running", owner=owner, epoch=run.epoch + 1, attempt=run.attempt + 1, updated=wall
    )
    tx.put_run(run)
    tx.notes.events.append(
        events.RunClaimed(at=wall, run_id=run_id, kind=run.kind, owner=owner.name, epoch=run.epoch, attempt=run.attempt)
    )
    return run


OVERDUE = 100
"""Runs whose deadline passed in the queue that are failed at once, however few are asked for."""


def claim_unfinished(
    tx: Tx,
    kind: str | None,
    owner: OwnerRecord,
    limit: int,
    now: float,
    wall: float,
    alive: Callable[[str], bool],
    limits: JournalLimits,
) -> list[RunRecord]:
    """Take up to `limit` runs that have no living owner, those whose turn it is first."""
    for session in tx.sessions():
        if not alive(session):
            process_died(tx, session, wall, limits)
    granted: list[RunRecord] = []
    trial = on_trial(tx, now, wall, alive) is None
    overdue = tx.overdue(kind, wall, max(limit, OVERDUE))
    for run_id, of in (*overdue, *tx.claimable(kind, now, (), limit, trial=trial)):
        try:
            grant = claim(tx, run_id, owner, now, wall, alive, limits)
        except RunEnded:
            continue  # it was overdue, and is on both lists
        except JournalCorrupt as error:  # one damaged run must not stand in the way of all others
            _set_aside(tx, run_id, of, error, wall)
            continue
        if isinstance(grant, RunRecord):
            granted.append(grant)
    return granted


def died(tx: Tx, run: RunRecord, reason: str, wall: float, limits: JournalLimits) -> RunRecord:
    """Count the death of a run's owner, and of no other; returns the run as it is then, pending or parked."""
    lost = Lost(run, tx.steps(run.id, ("started",)))
    [share] = rules.shares([lost], wall)
    return _lose(tx, lost, share, reason, wall, limits, process=False)


def process_died(tx: Tx, session: str, wall: float, limits: JournalLimits) -> None:
    """Count the death of a process for the runs it owned, all at once: one of them may have been the cause."""
    lost: list[Lost] = []
    for run_id, kind in tx.owned_by(session):
        try:
            lost.append(Lost(found(tx, run_id), tx.steps(run_id, ("started",))))
        except JournalCorrupt as error:
            _set_aside(tx, run_id, kind, error, wall)
    culprits = []
    for one, share in zip(lost, rules.shares(lost, wall), strict=True):
        run = _lose(tx, one, share, "its process ended", wall, limits, process=True)
        if share == "alone" or (run.state == "parked" and share == "blamed"):
            culprits.append(run)
    for culprit in culprits:
        for run_id in tx.in_quarantine():
            cleared = rules.exonerated(found(tx, run_id), culprit)
            if cleared is not None:
                _put_cleared(tx, cleared, wall)


def on_trial(tx: Tx, now: float, wall: float, alive: Callable[[str], bool]) -> str | None:
    """Name the run in quarantine that is being tried, if one is: the others wait."""
    for run_id, session, until, since, quarantine in tx.on_trial():
        if now < until and wall < since + rules.trial_length(quarantine) and alive(session):
            return run_id
    return None


def clear(tx: Tx, holder: Holder, wall: float) -> None:
    """Take a run out of quarantine: what was in flight when processes died has come to an end this time."""
    _put_cleared(tx, msgspec.structs.replace(_owned(tx, holder), suspected=(), quarantine=0), wall)


def _put_cleared(tx: Tx, run: RunRecord, wall: float) -> None:
    tx.put_run(run)
    if not run.quarantine:
        tx.notes.events.append(events.RunCleared(at=wall, run_id=run.id, kind=run.kind))


def _lose(
    tx: Tx, lost: Lost, share: rules.Share, reason: str, wall: float, limits: JournalLimits, *, process: bool
) -> RunRecord:
    run, in_flight = lost
    progress = tx.finished_steps(run.id)
    changed, steps = rules.after_death(lost, share, progress, reason, wall, limits.max_deaths, process=process)
    for step in steps:
        tx.put_step(step)
    tx.put_run(changed)
    assert run.owner is not None
    tx.notes.events.append(
        events.OwnerDied(
            at=wall,
            run_id=run.id,
            kind=run.kind,
            owner=run.owner.name,
            reason=reason,
            in_flight=rules.named(in_flight),
            share=share,
            quarantine=changed.quarantine > 0,
        )
    )
    if changed.parked is not None:
        _tell_parked(tx, changed)
    return changed


def _set_aside(tx: Tx, run_id: str, kind: str, error: JournalCorrupt, wall: float) -> None:
    tx.set_aside(run_id)
    tx.notes.events.append(events.RunDamaged(at=wall, run_id=run_id, kind=kind, reason=error.message))


def put_step(holder: Holder, step: StepRecord) -> PutStep:
    """Write down that a step is about to act, what it gave, or how it failed."""
    at = step.started if step.ended is None else step.ended
    event: events.AttemptEvent
    if step.error is None:
        kind = events.StepStarted if step.state == "started" else events.StepFinished
        event = kind(at=at, run_id=step.run_id, position=step.position, name=step.name, attempt=step.attempts)
    else:
        event = events.StepFailedEvent(
            at=at,
            run_id=step.run_id,
            position=step.position,
            name=step.name,
            attempt=step.attempts,
            code=step.error.code,
            message=step.error.message,
            final=step.final,
        )
    row = StepRow(step.position, step.state, pack(step), step.run_id, holder.epoch)
    return PutStep(row, event, partial(fenced, holder=holder))


def end_run(tx: Tx, holder: Holder, outcome: OutcomeRecord) -> OutcomeRecord:
    """Write down how a run ended. The same owner may do so twice; the second time changes nothing."""
    fence = tx.fence(holder.run_id)
    if fence == (holder.epoch, outcome.state):
        known = tx.outcome(holder.run_id)
        if known is not None and (known.value, known.error) == (outcome.value, outcome.error):
            return known
    rules.still_owner(holder, fence)
    _end(tx, found(tx, holder.run_id), outcome)
    return outcome


def park_run(tx: Tx, holder: Holder, error: ErrorRecord, wall: float) -> RunRecord:
    """Make a run a dead letter because its owner says so."""
    run = _owned(tx, holder)
    _interrupt(tx, run.id, wall, f"{holder.owner} parked the run")
    run = msgspec.structs.replace(run, state="parked", owner=None, epoch=holder.epoch + 1, parked=error, updated=wall)
    tx.put_run(run)
    _tell_parked(tx, run)
    return run


def release(tx: Tx, holder: Holder, wall: float) -> None:
    """Put a run back into the queue; its steps in flight are interrupted, its owner is not counted as dead."""
    run = _owned(tx, holder)
    _interrupt(tx, run.id, wall, f"{holder.owner} gave the run back")
    tx.put_run(
        msgspec.structs.replace(run, state="pending", owner=None, epoch=holder.epoch + 1, queued=wall, updated=wall)
    )
    tx.notes.events.append(events.RunReleased(at=wall, run_id=run.id, kind=run.kind, owner=holder.owner))


def release_all(tx: Tx, holders: list[Holder], wall: float) -> None:
    """Release all runs that these owners still own."""
    for holder in holders:
        if tx.fence(holder.run_id) == (holder.epoch, "running"):
            release(tx, holder, wall)


def abandon(tx: Tx, holder: Holder, reason: str, wall: float, limits: JournalLimits) -> RunRecord:
    """Count an owner as dead because the caller saw it die."""
    return died(tx, _owned(tx, holder), reason, wall, limits)


def renew(tx: Tx, holder: Holder, until: float, ttl: float) -> None:
    """Prolong a lease."""
    run = _owned(tx, holder)
    assert run.owner is not None
    tx.put_run(msgspec.structs.replace(run, owner=msgspec.structs.replace(run.owner, until=until, ttl=ttl)))


def sleep_until(tx: Tx, holder: Holder, until: float) -> None:
    """Write down that a run waits on purpose."""
    run = _owned(tx, holder)
    tx.put_run(msgspec.structs.replace(run, resting=max(until, run.resting or 0.0)))  # branches wait side by side


def cancel(tx: Tx, run_id: str, reason: str, wall: float) -> RunRecord:
    """End a run from outside; its owner finds its lease lost."""
    run = found(tx, run_id)
    if run.state == "cancelled":
        return run
    if run.state in ENDED:
        raise RunEnded(run_id, run.state)
    _interrupt(tx, run_id, wall, f"the run was cancelled: {reason}")
    error = ErrorRecord(code="RUN_CANCELLED", message=reason)
    return _end(tx, run, OutcomeRecord(run_id=run_id, state="cancelled", at=wall, error=error))


def retry(tx: Tx, run_id: str, rerun_interrupted: bool, wall: float) -> RunRecord:
    """Put a run that stopped back into the queue; finished steps stay finished."""
    run = found(tx, run_id)
    if run.state not in ("parked", "failed", "cancelled"):
        raise RunNotParked(run_id, run.state)
    for step in tx.steps(run_id, ("started", "failed", "interrupted")):
        changed = rules.reopened(step, rerun_interrupted)
        if changed is not None:
            tx.put_step(changed)
    tx.drop_outcome(run_id)
    run = msgspec.structs.replace(
        run,
        state="pending",
        owner=None,
        epoch=run.epoch + 1,
        deaths=(),
        suspected=(),
        quarantine=min(run.quarantine, 1),
        parked=None,
        deadline=None if run.deadline is not None and run.deadline <= wall else run.deadline,
        queued=wall,
        updated=wall,
    )
    tx.put_run(run)
    tx.notes.events.append(events.RunRetried(at=wall, run_id=run_id, kind=run.kind))
    return run


def resolve_step(tx: Tx, run_id: str, position: str, result: msgspec.Raw, wall: float) -> StepRecord:
    """Record by hand what an interrupted or failed step gave, while its run has no owner."""
    run = found(tx, run_id)
    if run.owner is not None:
        raise LeaseHeld(run_id, run.owner.name, run.owner.ttl)
    if run.state == "finished":
        raise RunEnded(run_id, run.state)
    step = tx.step(run_id, position)
    if step is None or step.state == "finished":
        raise StepNotOpen(
            f"run {run_id} has no unfinished step {position}",
            hint="list its steps; only a step once begun can be resolved",
        )
    step = msgspec.structs.replace(step, state="finished", result=result, error=None, ended=wall, final=False)
    tx.put_step(step)
    tx.notes.events.append(events.StepResolved(at=wall, run_id=run_id, position=position, name=step.name))
    return step


def append_event(tx: Tx, holder: Holder | None, record: EventRecord, limits: JournalLimits) -> EventRecord:
    """Add an event: a receipt to its run (refused when full), or to the common stream (the oldest go)."""
    if holder is not None:
        fenced(tx, holder)
    elif record.run_id:
        found(tx, record.run_id)
    n = tx.last_event(record.run_id) + 1
    if record.run_id and n > limits.events_per_run:
        raise LimitExceeded(f"run {record.run_id} has {n - 1} events", "events_per_run", limits.events_per_run)
    record = msgspec.structs.replace(record, n=n)
    tx.put_event(record)
    if not record.run_id and n > limits.events:
        tx.drop_events("", n - limits.events)
    return record


def prune(tx: Tx, kind: str | None, retention: Retention, wall: float) -> int:
    """Forget some ended runs that need not be kept; returns how many, 0 when none are left."""
    before = None if retention.older_than is None else wall - retention.older_than
    runs = tx.prunable(kind, retention.keep_last, before, _PRUNED_AT_ONCE)
    for run_id in runs:
        tx.drop_run(run_id)
    if runs:
        tx.notes.events.append(events.JournalPruned(at=wall, runs=len(runs)))
    return len(runs)


def parked_outcome(run: RunRecord) -> OutcomeRecord:
    """Return the outcome of a parked run, which is not stored as one."""
    return OutcomeRecord(run_id=run.id, state="parked", at=run.updated, error=run.parked)


def _tell_parked(tx: Tx, run: RunRecord) -> None:
    error = run.parked
    assert error is not None
    tx.notes.events.append(
        events.RunParkedEvent(at=run.updated, run_id=run.id, kind=run.kind, code=error.code, reason=error.message)
    )
    tx.notes.settled.append(parked_outcome(run))


def _interrupt(tx: Tx, run_id: str, wall: float, why: str) -> None:
    for step in tx.steps(run_id, ("started",)):
        error = ErrorRecord(code="STEP_INTERRUPTED", message=why)
        tx.put_step(
            msgspec.structs.replace(step, state="interrupted", forgiven=step.forgiven + 1, ended=wall, error=error)
        )


def _overdue(tx: Tx, run: RunRecord, wall: float) -> RunEnded:
    error = ErrorRecord(
        code=rules.DEADLINE,
        message="its deadline passed before it ended",
        hint="retry the run, or submit it with more time",
    )
    _end(tx, run, OutcomeRecord(run_id=run.id, state="failed", at=wall, error=error))
    return RunEnded(run.id, "failed (its deadline has passed)")


def _end(tx: Tx, run: RunRecord, outcome: OutcomeRecord) -> RunRecord:
    run = msgspec.structs.replace(
        run, state=outcome.state, owner=None, parked=None, suspected=(), quarantine=0, updated=outcome.at
    )
    tx.put_outcome(outcome)
    tx.put_run(run)
    tx.notes.settled.append(outcome)
    tx.notes.events.append(_ended(run, outcome))
    return run


def _ended(run: RunRecord, outcome: OutcomeRecord) -> events.RunTransition:
    error = outcome.error
    if error is None:
        return events.RunFinished(at=outcome.at, run_id=run.id, kind=run.kind)
    if outcome.state == "cancelled":
        return events.RunCancelledEvent(at=outcome.at, run_id=run.id, kind=run.kind, reason=error.message)
    return events.RunFailedEvent(at=outcome.at, run_id=run.id, kind=run.kind, code=error.code, message=error.message)
