"""The management calls of a supervisor with a fixed list of children (SUP-53 to SUP-58), and its live update."""

from msgspec.structs import replace

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.decisions import lifecycle, requests
from mlld_sdk.supervision.decisions.draft import Draft
from mlld_sdk.supervision.decisions.inputs import Asked, FailedToStart
from mlld_sdk.supervision.decisions.slots import Slot, SlotMap
from mlld_sdk.supervision.decisions.state import Operation, StaticState, SupervisorState
from mlld_sdk.supervision.errors import (
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildError,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    NotSupported,
)
from mlld_sdk.supervision.events import SupervisorUpdated
from mlld_sdk.supervision.spec import ChildSpec, SupervisorSpec, settle


def serve(draft: Draft[StaticState], asked: Asked) -> Operation | None:
    """Answer one call of a supervisor that has nothing else to do, or return the operation whose end answers it."""
    match asked.request:
        case requests.StartChild(spec):
            return _start(draft, asked, spec)
        case requests.WhichChildren():
            draft.answer(asked.call, rows(draft.state))
        case requests.CountChildren():
            draft.answer(asked.call, counts(draft.state.slots))
        case requests.Update(SupervisorSpec() as spec):
            _update(draft, spec)
            draft.answer(asked.call, True)
        case (
            requests.RestartChild(name)
            | requests.TerminateChild(str() as name)
            | requests.DeleteChild(name)
            | requests.GetSpec(name)
        ):
            slot = draft.state.find(name)
            if slot is None:
                draft.answer(asked.call, error=ChildNotFound(name))
            else:
                return _serve_child(draft, asked, slot)
        case other:
            draft.answer(asked.call, error=NotSupported("", "static", type(other).__name__))
    return None


def _serve_child(draft: Draft[StaticState], asked: Asked, slot: Slot) -> Operation | None:
    """Serve a call that names an existing child."""
    match asked.request:
        case requests.GetSpec():
            draft.answer(asked.call, slot.spec)
        case requests.TerminateChild(_, why):
            return _terminate(draft, asked, slot, why)
        case _ if slot.live:
            draft.answer(asked.call, error=ChildRunning(slot.spec.name))
        case _ if slot.planned:
            draft.answer(asked.call, error=ChildRestarting(slot.spec.name))
        case requests.RestartChild():
            draft.put(replace(slot, streak=0, wedges=0, rung=0, configured=None))
            return Operation(cause="call", starts=(slot.key,), call=asked)
        case requests.DeleteChild():
            remove(draft, slot)
            draft.answer(asked.call, True)
    return None


def row(slot: Slot) -> requests.ChildRow:
    """Describe one child the way `which_children` does."""
    name, kind = slot.spec.name, slot.spec.kind
    if slot.planned or (slot.status == "starting" and slot.incarnation > 1):
        return requests.ChildRow(name, None, "restarting", kind)
    running = slot.status in ("running", "stopping")
    return requests.ChildRow(name, slot.child if running else None, "running" if running else "stopped", kind)


def rows(state: SupervisorState) -> list[requests.ChildRow]:
    """Describe the children, most recently added first (SUP-57)."""
    return [row(slot) for slot in state.in_order()][::-1]


def counts(slots: SlotMap) -> requests.ChildCounts:
    """Count children the way `count_children` does."""
    active = supervisors = 0
    for slot in slots:
        active += slot.status in ("running", "stopping")
        supervisors += slot.spec.kind == "supervisor"
    return requests.ChildCounts(len(slots), active, supervisors, len(slots) - supervisors)


def start_refused(slot: Slot, failed: FailedToStart) -> ChildError:
    """Make the error that answers a call whose start failed."""
    if failed.holder is not None:
        return ChildAlreadyStarted(slot.spec.name, failed.holder)
    return ChildStartFailed(slot.spec.name, failed.exit.reason)


def remove(draft: Draft[StaticState], slot: Slot) -> None:
    """Forget a child."""
    state = draft.state
    names = {name: key for name, key in state.names.items() if key != slot.key}
    order = tuple(key for key in state.order if key != slot.key)
    draft.set(slots=state.slots.drop(slot.key), names=names, order=order)
    lifecycle.forget_breaker(draft, slot)


def _start(draft: Draft[StaticState], asked: Asked, spec: ChildSpec) -> Operation | None:
    state = draft.state
    slot = state.find(spec.name)
    if slot is not None:
        known = ChildAlreadyStarted(spec.name, slot.child) if slot.live else ChildAlreadyPresent(spec.name)
        draft.answer(asked.call, error=known)
        return None
    try:
        spec = settle(spec, "permanent", state.spec.auto_shutdown)
    except InvalidOption as error:
        draft.answer(asked.call, error=error)
        return None
    key = state.next_key
    draft.put(Slot(key=key, spec=spec))
    draft.set(next_key=key + 1, order=(*state.order, key), names={**state.names, spec.name: key})
    return Operation(cause="call", starts=(key,), call=asked)


def _terminate(draft: Draft[StaticState], asked: Asked, slot: Slot, why: str) -> Operation | None:
    if slot.configured is not None:
        slot = draft.put(replace(slot, configured=None))
    own = asked.caller == slot.key  # D-3: it could not hear the answer while it stops
    down = not slot.live and not slot.planned
    if down or own:
        draft.answer(asked.call, True)
    if not down:
        return Operation(cause="call", why="call", stops=(slot.key,), call=None if own else asked, note=why)
    if slot.status == "failed":
        lifecycle.report_called_off(draft, slot, "call", "it was down already")
    draft.put(replace(slot, status="stopped", held=why))
    return None


def _update(draft: Draft[StaticState], spec: SupervisorSpec) -> None:
    """Merge new flags and specs in: nothing is started, nothing is stopped (SUP-72)."""
    state = draft.state
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
        elif (slot := slots[key]).spec != child:
            if slot.spec.breaker != child.breaker:  # the next one has other settings
                lifecycle.forget_breaker(draft, slot)
            slots = slots.put(replace(slot, spec=child, configured=None))
            replaced.append(child.name)
        order.append(key)
    listed = set(order)
    order += [key for key in state.order if key not in listed]
    flags = replace(spec, name=state.spec.name)
    draft.set(spec=flags, slots=slots, names=names, next_key=next_key, order=tuple(order))
    at = draft.world.wall
    draft.emit(SupervisorUpdated(at=at, path=state.path, replaced=tuple(replaced), added=tuple(added)))
