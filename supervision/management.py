"""The management calls of a supervisor with a fixed list of children (SUP-53 to SUP-58), and its live update."""

from typing import TYPE_CHECKING

import msgspec

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.children import Slot, SlotMap
from mlld_sdk.supervision.effects import (
    AnswerCall,
    Asked,
    ChildCounts,
    ChildRow,
    CountChildren,
    DeleteChild,
    Emit,
    FailedToStart,
    GetSpec,
    RestartChild,
    StartChild,
    TerminateChild,
    Update,
    WhichChildren,
)
from mlld_sdk.supervision.errors import (
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
)
from mlld_sdk.supervision.events import SupervisorUpdated
from mlld_sdk.supervision.spec import ChildSpec, SupervisorSpec, settle
from mlld_sdk.supervision.state import Operation, StaticState

if TYPE_CHECKING:
    from mlld_sdk.supervision.sequence import OperationStep


def serve(step: "OperationStep", asked: Asked) -> None:
    """Serve one call of a supervisor that has nothing else to do."""
    match asked.request:
        case StartChild(spec):
            _start(step, asked, spec)
        case RestartChild(name):
            _restart(step, asked, name)
        case TerminateChild(name, why):
            _terminate(step, asked, name, why)
        case DeleteChild(name):
            _delete(step, asked, name)
        case GetSpec(name):
            slot = _find(step, asked, name)
            if slot is not None:
                step.do(AnswerCall(asked.call, slot.spec))
        case WhichChildren():
            step.do(AnswerCall(asked.call, rows(step.state)))
        case CountChildren():
            step.do(AnswerCall(asked.call, counts(step.state.slots)))
        case Update(spec):
            _update(step, asked, spec)


def row(slot: Slot) -> ChildRow:
    """Describe one child the way `which_children` does."""
    if slot.planned:
        return ChildRow(slot.spec.name, None, "restarting", slot.spec.kind)
    running = slot.status in ("running", "stopping")
    return ChildRow(
        slot.spec.name, slot.child if running else None, "running" if running else "stopped", slot.spec.kind
    )


def rows(state: StaticState) -> list[ChildRow]:
    """Describe the children, most recently added first (SUP-57)."""
    return [row(state.slots[key]) for key in reversed(state.order)]


def counts(slots: SlotMap) -> ChildCounts:
    """Count children the way `count_children` does."""
    active = supervisors = 0
    for slot in slots:
        active += slot.status in ("running", "stopping")
        supervisors += slot.spec.kind == "supervisor"
    return ChildCounts(len(slots), active, supervisors, len(slots) - supervisors)


def start_failed(step: "OperationStep", asked: Asked, slot: Slot, failed: FailedToStart) -> None:
    """Answer a call whose start failed; it counts towards nothing (SUP-54, SUP-55)."""
    if isinstance(asked.request, StartChild):
        step.remove(slot)
    if failed.holder is not None:
        step.do(AnswerCall(asked.call, error=ChildAlreadyStarted(slot.spec.name, failed.holder)))
    else:
        step.do(AnswerCall(asked.call, error=ChildStartFailed(slot.spec.name, failed.exit.reason)))


def _find(step: "OperationStep", asked: Asked, name: str) -> Slot | None:
    key = step.state.names.get(name)
    if key is None:
        step.do(AnswerCall(asked.call, error=ChildNotFound(name)))
        return None
    return step.state.slots[key]


def _start(step: "OperationStep", asked: Asked, spec: ChildSpec) -> None:
    state = step.state
    known = state.names.get(spec.name)
    if known is not None:
        slot = state.slots[known]
        error = ChildAlreadyStarted(spec.name, slot.child) if slot.live else ChildAlreadyPresent(spec.name)
        step.do(AnswerCall(asked.call, error=error))
        return
    try:
        spec = settle(spec, "permanent", state.spec.auto_shutdown)
    except InvalidOption as error:
        step.do(AnswerCall(asked.call, error=error))
        return
    key = state.next_key
    step.put(Slot(key=key, spec=spec))
    step.set(next_key=key + 1, order=(*state.order, key), names={**state.names, spec.name: key})
    step.begin_operation(Operation(cause="call", starts=(key,), call=asked))


def _restart(step: "OperationStep", asked: Asked, name: str) -> None:
    slot = _find(step, asked, name)
    if slot is None:
        return
    if slot.live:
        step.do(AnswerCall(asked.call, error=ChildRunning(name)))
    elif slot.planned:
        step.do(AnswerCall(asked.call, error=ChildRestarting(name)))
    else:
        step.put(msgspec.structs.replace(slot, streak=0, wedges=0, rung=0))
        step.begin_operation(Operation(cause="call", starts=(slot.key,), call=asked))


def _terminate(step: "OperationStep", asked: Asked, name: str, why: str) -> None:
    slot = _find(step, asked, name)
    if slot is None:
        return
    if not slot.live and not slot.planned:
        if slot.status == "failed":
            step.tell_called_off(slot, "call", "it was down already")
        step.put(msgspec.structs.replace(slot, status="stopped", held=why))
        step.do(AnswerCall(asked.call, True))
        return
    if asked.caller == slot.key:  # D-3: it could not hear the answer while it stops
        step.do(AnswerCall(asked.call, True))
        step.begin_operation(Operation(cause="call", why="call", stops=(slot.key,), note=why))
    else:
        step.begin_operation(Operation(cause="call", why="call", stops=(slot.key,), call=asked, note=why))


def _delete(step: "OperationStep", asked: Asked, name: str) -> None:
    slot = _find(step, asked, name)
    if slot is None:
        return
    if slot.live:
        step.do(AnswerCall(asked.call, error=ChildRunning(name)))
    elif slot.planned:
        step.do(AnswerCall(asked.call, error=ChildRestarting(name)))
    else:
        step.remove(slot)
        step.do(AnswerCall(asked.call, True))


def _update(step: "OperationStep", asked: Asked, spec: SupervisorSpec) -> None:
    """Merge new flags and specs in: nothing is started, nothing is stopped (SUP-72)."""
    state = step.state
    slots, names, next_key = state.slots, dict(state.names), state.next_key
    order: list[int] = []
    replaced: list[str] = []
    added: list[str] = []
    for child in spec.children:
        key = names.get(child.name)
        if key is None:
            key, next_key = next_key, next_key + 1
            names[child.name] = key
            slots = slots.put(Slot(key=key, spec=child))
            added.append(child.name)
        elif slots[key].spec != child:
            slots = slots.put(msgspec.structs.replace(slots[key], spec=child))
            replaced.append(child.name)
        order.append(key)
    listed = set(order)
    order += [key for key in state.order if key not in listed]
    flags = msgspec.structs.replace(spec, name=state.spec.name)
    step.set(spec=flags, slots=slots, names=names, next_key=next_key, order=tuple(order))
    step.do(Emit(SupervisorUpdated(at=step.world.wall, path=state.path, replaced=tuple(replaced), added=tuple(added))))
    step.do(AnswerCall(asked.call, True))
