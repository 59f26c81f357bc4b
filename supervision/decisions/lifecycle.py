"""What supervisors of both kinds do alike: start one child, stop it, and end themselves."""

from math import inf
from typing import Any

from msgspec.structs import replace

from mlld_sdk.supervision.decisions.draft import Draft, S
from mlld_sdk.supervision.decisions.effects import Finish, Forget, Kill, Ready, RequestStop, Start
from mlld_sdk.supervision.decisions.inputs import NoProgress, Overdue
from mlld_sdk.supervision.decisions.restart_policy import Ruling
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import Cause
from mlld_sdk.supervision.events import (
    ChildStarted,
    ChildWedged,
    SupervisorGaveUp,
    SupervisorStarted,
    SupervisorStopped,
)
from mlld_sdk.supervision.exits import KILLED, SHUTDOWN, ChildExit
from mlld_sdk.supervision.reasons import GaveUp, Wedged

HEAD_START = 0.05
HEAD_START_SHARE = 0.1
"""A supervisor is handed a deadline a little before it is killed itself, at most so many seconds and so much of what is
left: time to kill its own and to say so."""


def start(draft: Draft[S], slot: Slot) -> None:
    """Start the next incarnation of a child."""
    incarnation, now = slot.incarnation + 1, draft.world.now
    draft.put(replace(slot, status="starting", incarnation=incarnation, since=now, next_at=None, overdue=False))
    draft.do(Start(slot.key, incarnation, slot.spec, slot.rung, draft.state.label_of(slot)))


def mark_running(draft: Draft[S], slot: Slot, child: Any, cause: Cause) -> Slot:
    """Note that a start has succeeded, and return the slot after it."""
    spec, world = slot.spec, draft.world
    if spec.restart == "temporary" and (spec.args or spec.kwargs):  # SUP-10: it may be big, and is not needed again
        spec = replace(spec, args=(), kwargs={})
    took = world.now - slot.since
    slot = draft.put(
        replace(
            slot,
            spec=spec,
            status="running",
            child=child,
            since=world.now,
            held="",
            calls=(),
            restarts=slot.restarts + (cause == "restart"),
        )
    )
    if world.heard:
        at, path, number = world.wall, draft.path_of(slot), slot.incarnation
        draft.emit(ChildStarted(at=at, path=path, incarnation=number, cause=cause, took=took, rung=slot.rung))
    return slot


def mark_ready(draft: Draft[S]) -> None:
    """Note that the supervisor's own start is done."""
    state, world = draft.state, draft.world
    draft.set(phase="running", ready=True, up_since=world.now)
    draft.emit(SupervisorStarted(at=world.wall, path=state.path, children=len(state.slots), strategy=state.kind))
    draft.do(Ready())


def forget_breaker(draft: Draft[S], slot: Slot) -> None:
    """Drop the breaker in front of a child, if it has one of its own."""
    if slot.spec.breaker is not None and not slot.spec.breaker.name:
        draft.do(Forget(draft.path_of(slot)))


def request_stop(draft: Draft[S], slot: Slot, due: float) -> None:
    """Ask a child that is `stopping` to end before `due`, or kill it when its spec says so (SUP-20)."""
    if slot.spec.shutdown == "kill":
        draft.do(Kill(slot.key, slot.incarnation, KILLED))
        return
    if slot.spec.kind == "supervisor" and due != inf:
        due -= min(HEAD_START, HEAD_START_SHARE * max(due - draft.world.now, 0.0))
    draft.do(RequestStop(slot.key, slot.incarnation, None if due == inf else due, draft.state.drain))


def stop_due(draft: Draft[S], slot: Slot) -> float:
    """Return the instant at which a child that is `stopping` is killed: its own limit, or its supervisor's."""
    limit, latest = slot.spec.shutdown, draft.state.deadline
    due = inf if limit == "kill" else slot.since + limit
    return due if latest is None or due < latest else latest


def on_overdue(draft: Draft[S], overdue: Overdue) -> None:
    """Kill a child that had its time to stop."""
    slot = draft.find(overdue.key, overdue.incarnation)
    if slot is not None and slot.status == "stopping" and not slot.overdue:
        _kill_overdue(draft, slot)


def on_all_overdue(draft: Draft[S]) -> None:
    """Kill every child that had its time to stop."""
    for slot in draft.state.slots:
        if slot.status == "stopping" and not slot.overdue and stop_due(draft, slot) <= draft.world.now:
            _kill_overdue(draft, slot)


def _kill_overdue(draft: Draft[S], slot: Slot) -> None:
    """Kill a child and note that its time to stop was up."""
    draft.put(replace(slot, overdue=True))
    draft.do(Kill(slot.key, slot.incarnation, KILLED))


def on_no_progress(draft: Draft[S], seen: NoProgress) -> None:
    """Kill a child that makes no progress; its end is judged like any other."""
    slot = draft.find(seen.key, seen.incarnation)
    if slot is None or slot.status != "running":
        return
    at, path, times = draft.world.wall, draft.path_of(slot), slot.wedges + 1
    wedged = ChildWedged(at=at, path=path, incarnation=slot.incarnation, idle=seen.idle, times=times, rung=slot.rung)
    draft.emit(wedged)
    reason = Wedged(seen.idle)
    draft.do(Kill(slot.key, slot.incarnation, ChildExit("wedged", str(reason), reason=reason)))


def give_up(draft: Draft[S], ruling: Ruling, exit_: ChildExit) -> ChildExit:
    """Report that restarting did not help, and return the reason the supervisor ends with (SUP-42, SUP-43)."""
    state, culprit, last = draft.state, draft.path_of(ruling.slot), str(exit_)
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


def finish(draft: Draft[S], began: float) -> None:
    """End: nothing is left below."""
    end, killed = draft.state.end or SHUTDOWN, draft.state.killed
    draft.set(phase="gone")
    at, path, took = draft.world.wall, draft.state.path, draft.world.now - began
    draft.emit(SupervisorStopped(at=at, path=path, kind=end.kind, reason=str(end), killed=killed, took=took))
    draft.do(Finish(end, killed))
