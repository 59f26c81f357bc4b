"""What a supervisor does next, as one pure function: `step`.

Here is what supervisors of both kinds do about each thing that happens: which child it is about, what the restart
policy says, and what follows. How children are started, stopped and restarted together is the business of their
`Siblings`: in order and one at a time (`static`), or side by side (`dynamic`).
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from msgspec.structs import force_setattr, replace

from mlld_sdk.supervision.decisions import inputs, lifecycle, reports
from mlld_sdk.supervision.decisions.draft import Draft, S, World
from mlld_sdk.supervision.decisions.dynamic import DynamicSiblings
from mlld_sdk.supervision.decisions.effects import Arm, Effect
from mlld_sdk.supervision.decisions.restart_policy import Ruling, after_exit, after_failed_start, when_due
from mlld_sdk.supervision.decisions.slots import Slot, SlotMap
from mlld_sdk.supervision.decisions.state import Cause, DynamicState, StaticState, SupervisorState, Why
from mlld_sdk.supervision.decisions.static import StaticSiblings
from mlld_sdk.supervision.errors import SupervisorStopping
from mlld_sdk.supervision.events import ChildExited, ChildIgnored, ChildStartFailedEvent, Decision
from mlld_sdk.supervision.exits import KILLED, SHUTDOWN, ChildExit
from mlld_sdk.supervision.spec import DynamicSpec, SupervisorSpec


class Siblings(Protocol):
    """How the children of one supervisor are started, stopped and restarted together."""

    draft: Draft[Any]

    def next_queued(self) -> inputs.Input | None:
        """Take the next input that has waited and need not wait any more."""

    def defers(self, _happened: inputs.Input, _slot: Slot, /) -> bool:
        """Keep an input about a child for later if it has to wait; return whether it has."""

    def begin(self) -> None:
        """Start the declared children."""

    def serve(self, _asked: inputs.Asked, /) -> None:
        """Serve a management call."""

    def on_stop_requested(self, _wanted: inputs.StopRequested, /) -> None:
        """Stop everything and end; a second request can only shorten the time."""

    def stop_all(self, _end: ChildExit, _why: Why, /) -> None:
        """Stop all children, then end."""

    def cause_of(self, _slot: Slot, /) -> Cause:
        """Return what the start of this child is for."""

    def start_done(self, _slot: Slot, _answer: object, /) -> None:
        """Go on after a start that did not fail."""

    def takes_failed_start(self, _slot: Slot, _failed: inputs.FailedToStart, /) -> bool:
        """Handle a failed start unless it was a restart; return whether it did."""

    def restart(self, _slot: Slot, /) -> None:
        """Make one start attempt."""

    def clear_group(self, _slot: Slot, _exited: bool, /) -> None:
        """Stop the siblings that cannot do without a child whose restart is delayed, after its exit or failed start."""

    def ends_supervisor(self, _slot: Slot, /) -> bool:
        """Return whether the end of this child, which is not restarted, ends the supervisor."""

    def remove(self, _slot: Slot, /) -> None:
        """Forget a child."""

    def stopped(self, _slot: Slot, _exit: ChildExit, /) -> None:
        """Go on after a child that was told to stop is gone."""


def initial(path: str, spec: SupervisorSpec | DynamicSpec) -> SupervisorState:
    """Build the state of a supervisor that has not begun."""
    if isinstance(spec, DynamicSpec):
        return DynamicState(path=path, spec=spec)
    children = spec.children
    return StaticState(
        path=path,
        spec=spec,
        slots=SlotMap.of([Slot(key=key, spec=child) for key, child in enumerate(children)]),
        order=tuple(range(len(children))),
        names={child.name: key for key, child in enumerate(children)},
        next_key=len(children),
    )


def step(state: S, happened: Iterable[inputs.Input], world: World) -> tuple[S, list[Effect]]:
    """Take in what happened, one thing after the other: the state after it, and what is to be done, in order."""
    draft: Draft[Any] = Draft(state, world)
    siblings: Siblings = StaticSiblings(draft) if isinstance(state, StaticState) else DynamicSiblings(draft)
    for one in happened:
        _TAKE[type(one)](siblings, one)
        while draft.state.queue and (waiting := siblings.next_queued()) is not None:
            _TAKE[type(waiting)](siblings, waiting)
    return draft.state, draft.effects


# -- starts ------------------------------------------------------------------------------------------------------------


def _on_started(siblings: Siblings, started: inputs.Started) -> None:
    """Note that a child is up."""
    draft = siblings.draft
    slot = draft.find(started.key, started.incarnation)
    if slot is None:
        return
    if slot.status == "stopping":  # told to stop while it was starting: it will go yet
        draft.put(replace(slot, child=started.child))
    elif slot.status == "starting":
        lifecycle.mark_running(draft, slot, started.child, siblings.cause_of(slot))
        siblings.start_done(slot, started.child)


def _on_ignored(siblings: Siblings, ignored: inputs.Ignored) -> None:
    """Note that a child does not want to run (SUP-8, SUP-47)."""
    draft = siblings.draft
    slot = draft.find(ignored.key, ignored.incarnation)
    if slot is None or slot.status not in ("starting", "stopping"):
        return
    if slot.status == "stopping":
        siblings.stopped(slot, SHUTDOWN)
        return
    kept = draft.state.keeps and slot.spec.restart != "temporary"
    at, path = draft.world.wall, draft.path_of(slot)
    draft.emit(ChildIgnored(at=at, path=path, incarnation=slot.incarnation, kept=kept))
    if kept:
        draft.put(replace(slot, status="stopped", child=None, since=draft.world.now, next_at=None))
    else:
        siblings.remove(slot)
    siblings.start_done(slot, None)


def _on_failed_to_start(siblings: Siblings, failed: inputs.FailedToStart) -> None:
    """Take in a failed start."""
    draft = siblings.draft
    slot = draft.find(failed.key, failed.incarnation)
    if slot is None or slot.status not in ("starting", "stopping"):
        return
    if slot.status == "stopping":
        siblings.stopped(slot, failed.exit)
    elif not siblings.takes_failed_start(slot, failed):
        ruling = after_failed_start(slot, failed.exit, draft.policy_input(failed.closed_for))
        _follow(siblings, ruling, failed.exit, ChildStartFailedEvent)


# -- ends --------------------------------------------------------------------------------------------------------------


def _on_ended(siblings: Siblings, ended: inputs.Ended) -> None:
    """Take in the end of a child that had come up."""
    draft = siblings.draft
    slot = draft.find(ended.key, ended.incarnation)
    if slot is None or not slot.live:
        return
    if ended.report and draft.state.phase == "stopping":
        draft.set(killed=(*draft.state.killed, *ended.report))
    if slot.status == "stopping":
        siblings.stopped(slot, ended.exit)
    elif not siblings.defers(ended, slot):
        ruling = after_exit(slot, ended.exit, draft.policy_input(ended.closed_for))
        _follow(siblings, ruling, ended.exit, ChildExited, draft.world.now - slot.since)


def _on_due(siblings: Siblings, due: inputs.Due) -> None:
    """Make a planned start attempt that has come due, unless the restart policy says otherwise."""
    draft = siblings.draft
    slot = draft.find(due.key, due.incarnation)
    if slot is None or not slot.planned or draft.state.phase != "running" or siblings.defers(due, slot):
        return
    ruling = when_due(slot, draft.policy_input(due.closed_for))
    exit_ = slot.last or KILLED
    reports.put_off(draft, slot, exit_, ruling)
    _follow(siblings, ruling, exit_, None)


def _follow(
    siblings: Siblings,
    ruling: Ruling,
    exit_: ChildExit,
    event: reports.FailureEvent | None,
    lived: float | None = None,
) -> None:
    """Carry out a ruling of the restart policy."""
    draft, slot, decision = siblings.draft, ruling.slot, ruling.decision
    force_setattr(draft.state, "window", ruling.window)
    exited = event is ChildExited
    shuts_down = exited and decision in ("stop", "remove") and siblings.ends_supervisor(slot)
    if decision == "remove" or (decision == "give_up" and not draft.state.keeps):
        siblings.remove(slot)
    elif decision != "restart":
        draft.put(slot)
    if event is not None:
        told: Decision = "shutdown" if shuts_down else decision
        reports.failed(draft, event, slot, exit_, told, ruling, lived)
    if decision == "restart":
        siblings.restart(slot)
    elif decision in ("wait", "park"):
        siblings.clear_group(slot, exited)
        draft.do(Arm(ruling.delay or 0.0, inputs.Due(slot.key, slot.incarnation)))
    elif decision == "give_up":  # SUP-42
        siblings.stop_all(lifecycle.give_up(draft, ruling, exit_), "give_up")
    elif shuts_down:
        siblings.stop_all(SHUTDOWN, "stop")


# -- requests ----------------------------------------------------------------------------------------------------------


def _on_begin(siblings: Siblings, _: inputs.Begin) -> None:
    """Start the declared children."""
    siblings.begin()


def _on_asked(siblings: Siblings, asked: inputs.Asked) -> None:
    """Serve a management call, unless the supervisor stops."""
    state = siblings.draft.state
    if state.phase in ("stopping", "gone"):
        siblings.draft.answer(asked.call, error=SupervisorStopping(state.path))
    else:
        siblings.serve(asked)


def _on_stop_requested(siblings: Siblings, wanted: inputs.StopRequested) -> None:
    """Stop everything and end."""
    if siblings.draft.state.phase != "gone":
        siblings.on_stop_requested(wanted)


_TAKE: dict[type, Callable[[Siblings, Any], None]] = {
    inputs.Begin: _on_begin,
    inputs.Started: _on_started,
    inputs.Ignored: _on_ignored,
    inputs.FailedToStart: _on_failed_to_start,
    inputs.Ended: _on_ended,
    inputs.Due: _on_due,
    inputs.Overdue: lambda siblings, overdue: lifecycle.on_overdue(siblings.draft, overdue),
    inputs.AllOverdue: lambda siblings, _: lifecycle.on_all_overdue(siblings.draft),
    inputs.NoProgress: lambda siblings, seen: lifecycle.on_no_progress(siblings.draft, seen),
    inputs.Asked: _on_asked,
    inputs.StopRequested: _on_stop_requested,
}
