"""The events of a step: what is reported about children, when, and with which words."""

import zlib

from mlld_sdk.supervision.decisions.draft import Draft, S
from mlld_sdk.supervision.decisions.restart_policy import Ruling
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import Why
from mlld_sdk.supervision.events import ChildExited, ChildPutOff, ChildStartFailedEvent, ChildStopped, Decision
from mlld_sdk.supervision.exits import ChildExit

FailureEvent = type[ChildExited] | type[ChildStartFailedEvent]


def stopped(draft: Draft[S], slot: Slot, exit_: ChildExit, cause: Why) -> None:
    """Report that a child that was to be stopped is down, and how (SUP-22); note which had to be killed."""
    if slot.overdue and draft.state.phase == "stopping":
        draft.set(killed=(*draft.state.killed, draft.state.path_of(slot)))
    if not draft.world.heard:
        return
    told = slot.status == "stopping"
    brutal = told and slot.spec.shutdown == "kill"
    fine = exit_.kind == "shutdown" or (brutal and exit_.kind == "killed")
    if slot.spec.restart != "permanent" or draft.state.drain:
        fine = fine or exit_.expected
    draft.emit(
        ChildStopped(
            at=draft.world.wall,
            path=draft.state.path_of(slot),
            incarnation=slot.incarnation,
            cause=cause,
            kind=exit_.kind,
            reason=str(exit_),
            killed=slot.overdue or brutal,
            overdue=slot.overdue,
            took=draft.world.now - slot.since if told else 0.0,
            context="" if fine else "shutdown_error",
        )
    )


def called_off(draft: Draft[S], slot: Slot, cause: Why, why: str = "its restart was called off") -> None:
    """Report that a child which does not run is not meant to any more."""
    kind = slot.last.kind if slot.last else "shutdown"
    at, path = draft.world.wall, draft.state.path_of(slot)
    draft.emit(ChildStopped(at=at, path=path, incarnation=slot.incarnation, cause=cause, kind=kind, reason=why))


def put_off(draft: Draft[S], slot: Slot, exit_: ChildExit, ruling: Ruling) -> None:
    """Report that a planned restart came due and was not made; one that stays parked is nothing new."""
    if ruling.decision not in ("park", "fail", "remove") or slot.status == ruling.slot.status:
        return
    draft.emit(
        ChildPutOff(
            at=draft.world.wall,
            path=draft.state.path_of(slot),
            incarnation=slot.incarnation,
            decision=ruling.decision,
            reason=str(exit_),
            next_attempt_in=ruling.delay if ruling.decision == "park" else None,
            budget=ruling.budget,
        )
    )


def failed(
    draft: Draft[S],
    event: FailureEvent,
    slot: Slot,
    exit_: ChildExit,
    decision: Decision,
    ruling: Ruling | None = None,
    lived: float | None = None,
) -> None:
    """Report an end or a failed start, with what follows."""
    if not draft.world.heard:
        return
    path, wall = draft.state.path_of(slot), draft.world.wall
    draft.emit(
        event(
            at=wall,
            path=path,
            incarnation=slot.incarnation,
            kind=exit_.kind,
            reason=str(exit_),
            trace=exit_.trace,
            decision=decision,
            next_attempt_in=None if ruling is None or slot.next_at is None else ruling.delay,
            budget=None if ruling is None else ruling.budget,
            lived=lived,
            # A name that is easy to search for and the same wherever this failure is shown.
            crash_id=f"{zlib.crc32(f'{path}#{slot.incarnation}@{wall!r}'.encode()):08x}",
            blame=draft.state.path,
        )
    )
