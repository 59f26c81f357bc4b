"""The journal's decisions, as pure functions of records: who may claim, what a step does, when a run is poison."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from mlld_sdk.journal.errors import (
    LeaseHeld,
    LeaseLost,
    RunEnded,
    RunParked,
    StepExhausted,
    StepInterrupted,
    StepMismatch,
)
from mlld_sdk.journal.options import StepPolicy
from mlld_sdk.journal.records import ENDED, Death, ErrorRecord, RunRecord, StepRecord

NAMED = 100
"""Steps in flight that are named with a death."""

POISONED = "RUN_POISONED"
DEADLINE = "RUN_DEADLINE_EXCEEDED"


class Fresh(msgspec.Struct, frozen=True, kw_only=True):
    """The step has to act; that it will is durable.

    Attributes:
        attempt: How often it was begun, this time included.
        after: What ended the attempt before, or `None` the first time.
    """

    attempt: int
    after: ErrorRecord | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The step was answered with a failure before, which is its answer still.

    Attributes:
        error: The failure.
    """

    error: ErrorRecord


class Holder(NamedTuple):
    """The owner of a run, as its writes name it."""

    run_id: str
    owner: str
    epoch: int

    def lost(self, why: str, state: str | None) -> LeaseLost:
        """Make the error of a holder that no longer owns the run, which is in a state now, or gone."""
        return LeaseLost(self.run_id, self.owner, self.epoch, why, state)


def still_owner(holder: Holder, fence: tuple[int, str] | None) -> None:
    """Refuse a write of an owner whose epoch has passed (J-32)."""
    if fence is None:
        raise holder.lost("it is gone", None)
    epoch, state = fence
    if epoch != holder.epoch:
        raise holder.lost(f"it is {state} at epoch {epoch}", state)
    if state != "running":
        raise holder.lost(f"it is {state}", state)


def may_claim(run: RunRecord, now: float, alive: bool) -> bool:
    """Decide whether a run can be claimed; returns whether that takes it from an owner that died.

    Raises:
        LeaseHeld: Its owner is alive and in time.
        RunEnded: It has an outcome.
        RunParked: It is a dead letter.
    """
    if run.state == "parked":
        raise RunParked(run.id, run.parked.message if run.parked else "no reason recorded")
    if run.state in ENDED:
        raise RunEnded(run.id, run.state)
    if run.owner is None:
        return False
    if alive and now < run.owner.until:
        raise LeaseHeld(run.id, run.owner.name, run.owner.until - now)
    return True


def named(in_flight: Sequence[StepRecord]) -> tuple[str, ...]:
    """Return the positions of the steps in flight at a death, the first hundred."""
    return tuple(step.position for step in in_flight[:NAMED])


def after_death(
    run: RunRecord, in_flight: Sequence[StepRecord], progress: int, reason: str, wall: float, max_deaths: int
) -> tuple[RunRecord, list[StepRecord]]:
    """Count the death of a run's owner: interrupt its steps in flight; park the run if it is poison (J-40).

    A run is poison when `max_deaths` owners in a row died on it without finishing a step, or when one step was in
    flight at `max_deaths` deaths. What kills an owner while the run only waits is not the run, so that does not count.
    """
    assert run.owner is not None
    death = Death(at=wall, owner=run.owner.name, reason=reason, in_flight=named(in_flight))
    before = run.deaths if progress <= run.progress else ()
    only_waits = not in_flight and run.resting is not None and wall < run.resting
    deaths = before if only_waits else (*before, death)
    steps = [
        msgspec.structs.replace(
            step,
            state="interrupted",
            deaths=step.deaths + 1,
            ended=wall,
            error=ErrorRecord(code="STEP_INTERRUPTED", message=f"{run.owner.name}: {reason}"),
        )
        for step in in_flight
    ]
    worst = max(steps, key=lambda step: step.deaths, default=None)
    why = None
    if len(deaths) >= max_deaths:
        why = f"{len(deaths)} owners died on it without finishing a step; last: {reason}"
    elif worst is not None and worst.deaths >= max_deaths:
        why = f"{worst.deaths} owners died during step {worst.position} ({worst.name}); last: {reason}"
    hint = "find out what kills its owners, then retry the run"
    changed = msgspec.structs.replace(
        run,
        state="pending" if why is None else "parked",
        parked=None if why is None else ErrorRecord(code=POISONED, message=why, hint=hint),
        owner=None,
        epoch=run.epoch + 1,
        deaths=deaths,
        progress=progress,
        queued=wall,
        updated=wall,
    )
    return changed, steps


def begin(
    known: StepRecord | None, run_id: str, position: str, name: str, digest: str, asked: str, policy: StepPolicy
) -> Fresh | StepRecord:
    """Decide what a step does: act (`Fresh`), or give what is `known`, recorded at the position.

    A step still `started` was interrupted: only a new owner asks about it.

    Raises:
        StepMismatch: Something else is recorded.
        StepInterrupted: It was in flight when its owner died and may not run twice.
        StepExhausted: It has no attempts left.
    """
    if known is None:
        return Fresh(attempt=1)
    answered = known.state == "finished" or (known.state == "failed" and known.final)
    # A step without an answer that may be repeated may also be asked differently: by a stronger model, say.
    if (known.name, known.fingerprint) != (name, digest) and (answered or policy.on_interrupt == "fail"):
        raise StepMismatch(run_id, position, f"{known.name}({known.asked})", f"{name}({asked})")
    if answered:
        return known
    interrupted = known.state in ("started", "interrupted")
    if interrupted and policy.on_interrupt == "fail":
        raise StepInterrupted(run_id, position, name, known.attempts)
    if known.attempts >= policy.max_attempts:
        last = known.error.message if known.error else "interrupted"
        raise StepExhausted(run_id, position, name, known.attempts, last)
    return Fresh(attempt=known.attempts + 1, after=known.error)


def reopened(step: StepRecord, rerun_interrupted: bool) -> StepRecord | None:
    """Return the step as a retried run finds it, or `None` if it stays as it is.

    Failures may be tried again from the first attempt. Interruptions too with `rerun_interrupted`; otherwise their
    policy decides again, with the attempts counted from the start.
    """
    if step.state == "finished":
        return None
    if step.state == "failed" or rerun_interrupted:
        return msgspec.structs.replace(step, state="failed", final=False, attempts=0, deaths=0)
    return msgspec.structs.replace(step, state="interrupted", attempts=0, deaths=0)
