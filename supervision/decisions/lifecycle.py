"""What supervisors of both kinds do alike: start one child, stop it, report about it, and end themselves."""

import zlib
from math import inf
from typing import Any

from msgspec.structs import force_setattr, replace

from mlld_sdk.base.texts import shorten
from mlld_sdk.supervision.decisions.draft import Draft, S
from mlld_sdk.supervision.decisions.effects import Disarm, Finish, Forget, Kill, Ready, RequestStop, Start
from mlld_sdk.supervision.decisions.inputs import Configured, NoProgress
from mlld_sdk.supervision.decisions.restart_policy import Ruling
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import Cause, Why
from mlld_sdk.supervision.events import (
    ChildExited,
    ChildPutOff,
    ChildStarted,
    ChildStartFailedEvent,
    ChildStopped,
    ChildWedged,
    Decision,
    SupervisorGaveUp,
    SupervisorStarted,
    SupervisorStopped,
)
from mlld_sdk.supervision.reasons import KILLED, SHUTDOWN, ChildExit, GaveUp, Wedged, as_exit

FailureEvent = type[ChildExited] | type[ChildStartFailedEvent]

LAST_WORDS = 1_000
"""Characters kept of the reason for which a supervisor gives up: each level above adds its own."""

HEAD_START = 0.05
HEAD_START_SHARE = 0.1
"""A supervisor is handed a deadline a little before it is killed itself, at most so many seconds and so much of what is
left: time to kill its own and to say so."""


def start(draft: Draft[S], slot: Slot) -> None:
    """Start the next incarnation of a child."""
    incarnation, now = slot.incarnation + 1, draft.world.now
    if slot.next_at is not None:
        draft.do(Disarm(slot.key))
    draft.put(replace(slot, status="starting", incarnation=incarnation, since=now, next_at=None, overdue=False))
    draft.do(Start(slot.key, incarnation, slot.spec, slot.rung, draft.state.label_of(slot)))


def mark_running(draft: Draft[S], slot: Slot, child: Any, cause: Cause) -> None:
    """Note that a start has succeeded."""
    spec, world = slot.spec, draft.world
    added = cause == "call" and spec.restart == "temporary"
    if added and (spec.args or spec.kwargs):  # SUP-10: it may be big, and is not needed again
        spec = spec.without_arguments()
    now, restarts = world.now, slot.restarts + (cause == "restart")
    up = replace(slot, spec=spec, status="running", child=child, since=now, held="", calls=(), restarts=restarts)
    force_setattr(draft.state, "slots", draft.state.slots.put(up))
    if world.heard:
        at, path, number, took = world.wall, draft.state.path_of(slot), slot.incarnation, now - slot.since
        draft.emit(ChildStarted(at=at, path=path, incarnation=number, cause=cause, took=took, rung=slot.rung))


def mark_ready(draft: Draft[S]) -> None:
    """Note that the supervisor's own start is done."""
    state, world = draft.state, draft.world
    draft.set(phase="running", ready=True, up_since=world.now)
    at, path, children, strategy = world.wall, state.path, len(state.slots), state.spec.strategy
    draft.emit(SupervisorStarted(at=at, path=path, children=children, strategy=strategy))
    draft.do(Ready())


def forget_breaker(draft: Draft[S], slot: Slot) -> None:
    """Drop the breaker in front of a child, if it has one of its own."""
    if slot.spec.breaker is not None and not slot.spec.breaker.name:
        draft.do(Forget(draft.state.path_of(slot)))


def request_stop(draft: Draft[S], slot: Slot, calls: tuple[object, ...] = ()) -> None:
    """Ask a child to end within its own time or its supervisor's, or kill it when its spec says so (SUP-20)."""
    key, incarnation, spec, now = slot.key, slot.incarnation, slot.spec, draft.world.now
    draft.put(replace(slot, status="stopping", since=now, calls=calls))
    if spec.shutdown == "kill":
        draft.do(Kill(key, incarnation, KILLED))
        return
    latest, due, deadline = draft.state.deadline, now + spec.shutdown, None
    if latest is not None and latest < due:
        due = latest
    if spec.kind == "supervisor" and due != inf:
        deadline = due - min(HEAD_START, HEAD_START_SHARE * max(due - now, 0.0))
    draft.do(RequestStop(key, incarnation, due, deadline, draft.state.drain))


def on_overdue(draft: Draft[Any], slot: Slot) -> None:
    """Kill a child that had its time to stop."""
    if slot.status == "stopping" and not slot.overdue:
        draft.put(replace(slot, overdue=True))
        draft.do(Kill(slot.key, slot.incarnation, KILLED))


def on_no_progress(draft: Draft[Any], slot: Slot, seen: NoProgress) -> None:
    """Kill a child that makes no progress; its end is judged like any other."""
    if slot.status != "running":
        return
    at, path, times = draft.world.wall, draft.state.path_of(slot), slot.wedges + 1
    wedged = ChildWedged(at=at, path=path, incarnation=slot.incarnation, idle=seen.idle, times=times, rung=slot.rung)
    draft.emit(wedged)
    draft.do(Kill(slot.key, slot.incarnation, as_exit(Wedged(seen.idle))))


def on_configured(draft: Draft[Any], slot: Slot, given: Configured) -> None:
    """Keep options for the incarnations to come (SUP-76)."""
    if slot.status == "running":
        draft.put(replace(slot, configured={**(slot.configured or {}), **given.options}))


def give_up(draft: Draft[S], ruling: Ruling, exit_: ChildExit) -> ChildExit:
    """Report that restarting did not help, and return the reason the supervisor ends with (SUP-42, SUP-43)."""
    state, culprit, last = draft.state, draft.state.path_of(ruling.slot), shorten(str(exit_), LAST_WORDS)
    draft.emit(
        SupervisorGaveUp(
            at=draft.world.wall, path=state.path, culprit=culprit, why=ruling.why, reason=last, budget=ruling.budget
        )
    )
    reason = GaveUp(state.path, culprit, ruling.why, last)
    draft.set(gave_up=str(reason))
    if state.spec.give_up_as == "shutdown":
        return SHUTDOWN
    return ChildExit("gave_up", str(reason), exit_.trace, reason)


def finish(draft: Draft[S]) -> None:
    """End: nothing is left below."""
    state, at = draft.state, draft.world.wall
    path, end, killed, took = state.path, state.end or SHUTDOWN, state.killed, draft.world.now - state.stopping_since
    draft.set(phase="gone")
    draft.emit(SupervisorStopped(at=at, path=path, kind=end.kind, reason=str(end), killed=killed, took=took))
    draft.do(Finish(end, killed))


def report_stopped(draft: Draft[S], slot: Slot, exit_: ChildExit, cause: Why) -> None:
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


def report_called_off(draft: Draft[S], slot: Slot, cause: Why, why: str = "its restart was called off") -> None:
    """Report that a child which does not run is not meant to any more."""
    kind = slot.last.kind if slot.last else "shutdown"
    at, path = draft.world.wall, draft.state.path_of(slot)
    draft.emit(ChildStopped(at=at, path=path, incarnation=slot.incarnation, cause=cause, kind=kind, reason=why))


def report_put_off(draft: Draft[S], slot: Slot, exit_: ChildExit, ruling: Ruling) -> None:
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


def report_failed(
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
