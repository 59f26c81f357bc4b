"""The journal's decisions, as pure functions of records: who may claim, what a step does, when a run is poison."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

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
"""Steps in flight that are named with a death, and suspicions that are kept of a run."""

SHORTEST_TRIAL = 60.0
"""Seconds for which a run in quarantine has the trial to itself at least, if it does not clear itself sooner."""

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


class Lost(NamedTuple):
    """A run that lost its owner, and what of it was under way."""

    run: RunRecord
    in_flight: Sequence[StepRecord]


Share = Literal["none", "suspected", "blamed", "alone"]
"""What a run had to do with the death of its owner: nothing; it, or another run, was the cause; it was, most likely,
since it was on trial; it was, since nothing else was under way there."""


def shares(lost: Sequence[Lost], wall: float) -> list[Share]:
    """Decide what runs that lost their owners at one moment had to do with it (J-43).

    A run that waits on purpose did nothing. If one run did something, it was that one. If several did, any of them may
    have been it, unless one was on trial.
    """
    active = {one.run.id for one in lost if one.in_flight or one.run.resting is None or wall >= one.run.resting}
    on_trial = [one.run for one in lost if one.run.id in active and one.run.quarantine]
    proven = len(on_trial) == 1 and any(death.alone for death in on_trial[0].deaths)

    def share(one: Lost) -> Share:
        if one.run.id not in active:
            return "none"
        if len(active) == 1:
            return "alone"
        if len(on_trial) == 1 and one.run is on_trial[0]:
            return "blamed"
        return "none" if proven else "suspected"

    return [share(one) for one in lost]


def after_death(
    lost: Lost, share: Share, progress: int, reason: str, wall: float, max_deaths: int, *, process: bool
) -> tuple[RunRecord, list[StepRecord]]:
    """Give a run back whose owner died: interrupt its steps in flight; park it if it is poison (J-40, J-41).

    A run is poison when `max_deaths` owners in a row died of it without finishing a step, or when one step was in
    flight at `max_deaths` such deaths. A death it had nothing to do with, or may have had nothing to do with, is not
    counted, and neither is the attempt of the step. With the second death of a `process` in a row that may have been
    its doing it goes into quarantine.
    """
    run, in_flight = lost
    assert run.owner is not None
    death = Death(
        at=wall,
        owner=run.owner.name,
        reason=reason,
        in_flight=named(in_flight),
        session=run.owner.session if process else "",
        alone=share == "alone" and process,
    )
    deaths, suspected = (run.deaths, run.suspected) if progress <= run.progress else ((), ())
    guilty = share in ("blamed", "alone")
    earlier: tuple[Death, ...] = ()
    if guilty and process:  # so the deaths before were its doing, too
        earlier, suspected = suspected, ()
    if guilty:
        deaths = (*deaths, *earlier, death)
    elif share == "suspected":
        suspected = (*suspected, death)[-NAMED:]
    steps = [
        msgspec.structs.replace(
            step,
            state="interrupted",
            forgiven=step.forgiven + (not guilty),
            deaths=step.deaths + guilty + sum(step.position in one.in_flight for one in earlier),
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
    began = max((step.started for step in in_flight), default=run.updated)
    again = process and share != "none" and _is_repeated(deaths, suspected)
    changed = msgspec.structs.replace(
        run,
        state="pending" if why is None else "parked",
        parked=None if why is None else ErrorRecord(code=POISONED, message=why, hint=hint),
        owner=None,
        epoch=run.epoch + 1,
        deaths=deaths,
        suspected=suspected,
        quarantine=rank(len(deaths), wall - began) if again or run.quarantine else 0,
        progress=progress,
        queued=wall,
        updated=wall,
    )
    return changed, steps


_LONGEST_MS = 10**9 - 1


def rank(deaths: int, seconds: float) -> int:
    """Return a run's turn in quarantine: fewer deaths first, then what was under way for less time when it ended."""
    return 1 + deaths * 10**9 + min(max(int(seconds * 1000), 0), _LONGEST_MS)


def trial_length(quarantine: int) -> float:
    """Return for how many seconds the others in quarantine wait for one that is being tried (J-44)."""
    return max(SHORTEST_TRIAL, 2 * ((quarantine - 1) % 10**9) / 1000)


def exonerated(run: RunRecord, culprit: RunRecord) -> RunRecord | None:
    """Return a run without the suspicions that a culprit explains, or `None` if it explains none."""
    explained = {death.session for death in culprit.deaths} - {""}
    left = tuple(death for death in run.suspected if death.session not in explained)
    if len(left) == len(run.suspected):
        return None
    stays = _is_repeated(run.deaths, left)
    return msgspec.structs.replace(run, suspected=left, quarantine=run.quarantine if stays else 0)


def _is_repeated(deaths: Sequence[Death], suspected: Sequence[Death]) -> bool:
    """Return whether processes died more than once: a single time may be a power cut, or somebody's SIGKILL."""
    return sum(one.session != "" for one in (*deaths, *suspected)) > 1


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
    if known.attempts - known.forgiven >= policy.max_attempts:
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
        return msgspec.structs.replace(step, state="failed", final=False, attempts=0, forgiven=0, deaths=0)
    return msgspec.structs.replace(step, state="interrupted", attempts=0, forgiven=0, deaths=0)
