"""What a supervisor does next, as one pure function: `step`.

Here is what supervisors of both kinds do about each thing that happens: which child it is about, what the restart
policy says, and what follows. How children are started, stopped and restarted together is the business of their
`Siblings`: in order and one at a time (`static`), or side by side (`dynamic`).
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from msgspec.structs import force_setattr, replace

from mlld_sdk.supervision.decisions import inputs, lifecycle
from mlld_sdk.supervision.decisions.draft import Draft, S, World
from mlld_sdk.supervision.decisions.dynamic import DynamicSiblings
from mlld_sdk.supervision.decisions.effects import Arm, Effect, LimitStops
from mlld_sdk.supervision.decisions.restart_policy import Ruling, after_exit, after_failed_start, when_due
from mlld_sdk.supervision.decisions.slots import Slot, SlotMap
from mlld_sdk.supervision.decisions.state import DynamicState, StaticState, SupervisorState
from mlld_sdk.supervision.decisions.static import StaticSiblings
from mlld_sdk.supervision.errors import SupervisorStopping
from mlld_sdk.supervision.events import ChildExited, ChildIgnored, ChildStartFailedEvent, Decision
from mlld_sdk.supervision.reasons import KILLED, SHUTDOWN, ChildExit
from mlld_sdk.supervision.spec import DynamicSpec, SupervisorSpec

Siblings: TypeAlias = StaticSiblings | DynamicSiblings
"""How the children of one supervisor are started, stopped and restarted together."""


def initial(path: str, spec: SupervisorSpec | DynamicSpec) -> SupervisorState:
    """Build the state of a supervisor that has not begun."""
    if isinstance(spec, DynamicSpec):
        return DynamicState(path=path, spec=spec, names={})
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
    effects: list[Effect] = []
    draft: Draft[Any] = Draft(replace(state), world, effects, effects.append)
    siblings = StaticSiblings(draft) if type(state) is StaticState else DynamicSiblings(draft)
    for one in happened:
        taken: Any = one
        while taken is not None:
            take = _ABOUT_CHILD.get(type(taken))  # several times faster than `isinstance` with a struct
            if take is not None:
                slot = draft.state.slots.get(taken.key)
                if slot is not None and slot.incarnation == taken.incarnation:
                    take(siblings, slot, taken)
            else:
                _ABOUT_ITSELF[type(taken)](siblings, taken)
            taken = _next_queued(draft) if draft.state.queue else None
    return draft.state, effects


def _next_queued(draft: Draft[Any]) -> inputs.Input | None:
    """Take the next input that waited for the end of an operation, when there is no operation."""
    state = draft.state
    if state.operation is not None or state.phase != "running":
        return None
    first, *rest = state.queue
    draft.set(queue=tuple(rest))
    waited: inputs.Input = first
    return waited


def _on_started(siblings: Siblings, slot: Slot, started: inputs.Started) -> None:
    """Note that a child is up."""
    if slot.status == "starting":
        siblings.up(slot, started.child)
    elif slot.status == "stopping":  # told to stop while it was starting: it will go yet
        siblings.draft.put(replace(slot, child=started.child))


def _on_ignored(siblings: Siblings, slot: Slot, _: inputs.Ignored) -> None:
    """Note that a child does not want to run (SUP-8, SUP-47)."""
    draft: Draft[Any] = siblings.draft
    if slot.status == "stopping":
        siblings.stopped(slot, SHUTDOWN)
    elif slot.status == "starting":
        kept = draft.state.keeps and slot.spec.restart != "temporary"
        at, path = draft.world.wall, draft.state.path_of(slot)
        draft.emit(ChildIgnored(at=at, path=path, incarnation=slot.incarnation, kept=kept))
        if kept:
            draft.put(replace(slot, status="stopped", child=None, since=draft.world.now, next_at=None))
        else:
            siblings.remove(slot)
        siblings.start_done(slot, None)


def _on_failed_to_start(siblings: Siblings, slot: Slot, failed: inputs.FailedToStart) -> None:
    """Take in a failed start."""
    draft: Draft[Any] = siblings.draft
    if slot.status == "stopping" or (slot.status == "starting" and draft.state.phase == "stopping"):  # or not yet told
        siblings.stopped(slot, failed.exit)
    elif slot.status == "running":  # a supervisor that was ready and was killed before its own start had ended
        _on_ended(siblings, slot, inputs.Ended(slot.key, slot.incarnation, failed.exit, failed.closed_for))
    elif slot.status == "starting" and not siblings.takes_failed_start(slot, failed):
        ruling = after_failed_start(slot, failed.exit, draft.state, draft.world, failed.closed_for)
        _follow(siblings, ruling, failed.exit, ChildStartFailedEvent)


def _on_ended(siblings: Siblings, slot: Slot, ended: inputs.Ended) -> None:
    """Take in the end of a child that had come up."""
    draft: Draft[Any] = siblings.draft
    if not slot.live:
        return
    if ended.report and draft.state.phase == "stopping":
        draft.set(killed=(*draft.state.killed, *ended.report))
    if slot.status == "stopping":
        siblings.stopped(slot, ended.exit)
    elif not siblings.defers(ended, slot):
        ruling = after_exit(slot, ended.exit, draft.state, draft.world, ended.closed_for)
        _follow(siblings, ruling, ended.exit, ChildExited, draft.world.now - slot.since)


def _on_due(siblings: Siblings, slot: Slot, due: inputs.Due) -> None:
    """Make a planned start attempt that has come due, unless the restart policy says otherwise."""
    draft: Draft[Any] = siblings.draft
    if not slot.planned or draft.state.phase != "running" or siblings.defers(due, slot):
        return
    ruling = when_due(slot, draft.state, draft.world, due.closed_for)
    exit_ = slot.last or KILLED
    lifecycle.report_put_off(draft, slot, exit_, ruling)
    _follow(siblings, ruling, exit_, None)


def _follow(
    siblings: Siblings,
    ruling: Ruling,
    exit_: ChildExit,
    event: lifecycle.FailureEvent | None,
    lived: float | None = None,
) -> None:
    """Carry out a ruling of the restart policy."""
    draft: Draft[Any] = siblings.draft
    slot, decision = ruling.slot, ruling.decision
    force_setattr(draft.state, "window", ruling.window)
    exited = event is ChildExited
    shuts_down = exited and decision in ("stop", "remove") and _ends_supervisor(draft.state, slot)
    if decision == "remove" or (decision == "give_up" and not draft.state.keeps):
        siblings.remove(slot)
    elif decision != "restart":
        draft.put(slot)
    if event is not None:
        told: Decision = "shutdown" if shuts_down else decision
        lifecycle.report_failed(draft, event, slot, exit_, told, ruling, lived)
    if decision == "restart":
        siblings.restart(slot)
    elif decision in ("wait", "park"):
        siblings.clear_group(slot, exited)
        draft.do(Arm(ruling.delay or 0.0, inputs.Due(slot.key, slot.incarnation)))
    elif decision == "give_up":  # SUP-42
        siblings.stop_all(lifecycle.give_up(draft, ruling, exit_), "give_up")
    elif shuts_down:
        siblings.stop_all(SHUTDOWN, "stop")


def _ends_supervisor(state: Any, slot: Slot) -> bool:
    """Return whether the end of this child, which is not restarted, ends the supervisor (SUP-49, SUP-50)."""
    if not slot.spec.significant or state.spec.auto_shutdown == "never":
        return False
    if state.spec.auto_shutdown == "any_significant":
        return True
    others = (other for other in state.slots if other.key != slot.key and other.spec.significant)
    return not any(other.live or other.planned for other in others)


def _on_asked(siblings: Siblings, asked: inputs.Asked) -> None:
    """Serve a management call, unless the supervisor stops."""
    state = siblings.draft.state
    if state.phase in ("stopping", "gone"):
        siblings.draft.answer(asked.call, error=SupervisorStopping(state.path))
    else:
        siblings.serve(asked)


def _on_stop_requested(siblings: Siblings, wanted: inputs.StopRequested) -> None:
    """Stop everything and end; a second request can only shorten the time."""
    draft: Draft[Any] = siblings.draft
    state, deadline = draft.state, wanted.deadline
    if state.phase == "gone":
        return
    if deadline is not None and (state.deadline is None or deadline < state.deadline):
        draft.set(deadline=deadline)
        draft.do(LimitStops(deadline))
    if state.phase != "stopping":
        draft.set(drain=wanted.drain)
        siblings.stop_all(wanted.exit, "stop")


_ABOUT_CHILD: dict[type, Callable[[Siblings, Slot, Any], None]] = {
    inputs.Started: _on_started,
    inputs.Ignored: _on_ignored,
    inputs.FailedToStart: _on_failed_to_start,
    inputs.Ended: _on_ended,
    inputs.Due: _on_due,
    inputs.Overdue: lambda siblings, slot, _: lifecycle.on_overdue(siblings.draft, slot),
    inputs.Configured: lambda siblings, slot, given: lifecycle.on_configured(siblings.draft, slot, given),
    inputs.NoProgress: lambda siblings, slot, seen: lifecycle.on_no_progress(siblings.draft, slot, seen),
}
_ABOUT_ITSELF: dict[type, Callable[[Siblings, Any], None]] = {
    inputs.Begin: lambda siblings, _: siblings.begin(),
    inputs.Asked: _on_asked,
    inputs.StopRequested: _on_stop_requested,
}
