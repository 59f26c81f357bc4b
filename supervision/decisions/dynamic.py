"""The children of a dynamic supervisor: they know nothing of each other, and nothing is done in order.

Starts run side by side, and a stop tells all children at once. A child's identity is its key. A name that was given is
its place in the tree and belongs to one child at a time; others share the name of their class. A child that will not be
restarted leaves no trace.
"""

from typing import Any

import msgspec
from msgspec.structs import force_setattr, replace

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.decisions import lifecycle
from mlld_sdk.supervision.decisions.draft import Draft
from mlld_sdk.supervision.decisions.effects import AnswerCall, Disarm, Start
from mlld_sdk.supervision.decisions.inputs import Asked, FailedToStart, Input
from mlld_sdk.supervision.decisions.management import counts, rows, start_refused
from mlld_sdk.supervision.decisions.requests import CountChildren, StartChild, TerminateChild, Update, WhichChildren
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import DynamicState, Why
from mlld_sdk.supervision.errors import (
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    NotSupported,
    SupervisorStopping,
    TooManyChildren,
)
from mlld_sdk.supervision.events import ChildStartFailedEvent
from mlld_sdk.supervision.reasons import ChildExit
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, settle


class SecondCall(msgspec.Struct, frozen=True):
    """A call for a child whose name belongs to one that is just starting; it waits for what comes of that."""

    call: Any


class DynamicSiblings(msgspec.Struct):
    """The children of one dynamic supervisor, during one step."""

    draft: Draft[DynamicState]

    def defers(self, _happened: Input, _slot: Slot) -> bool:
        """Return `False`: nothing has to wait."""
        return False

    def clear_group(self, slot: Slot, exited: bool) -> None:
        """Leave the siblings alone."""

    def begin(self) -> None:
        """Return the first state: there is nothing to start yet."""
        lifecycle.mark_ready(self.draft)

    def serve(self, asked: Asked) -> None:
        """Serve a management call of a supervisor that does not stop."""
        draft, request = self.draft, asked.request
        if type(request) is StartChild:  # by far the most frequent one
            self._start_child(asked, request.spec)
            return
        match request:
            case TerminateChild(int() as key):
                self._terminate(asked, draft.state.slots.get(key), str(key))
            case TerminateChild(str() as label):
                self._terminate(asked, draft.state.find(label), label)
            case WhichChildren():
                draft.answer(asked.call, rows(draft.state))
            case CountChildren():
                draft.answer(asked.call, counts(draft.state.slots))
            case Update(DynamicSpec() as spec):
                draft.set(spec=spec)
                draft.answer(asked.call, True)
            case other:
                draft.answer(asked.call, error=NotSupported("", "dynamic", type(other).__name__))

    def stop_all(self, end: ChildExit, _: Why) -> None:
        """Ask all children at once to stop, each with its own time, then wait (SUP-65)."""
        draft = self.draft
        draft.set(phase="stopping", end=end, stopping_since=draft.world.now, killed=())
        for slot in draft.state.slots:
            if slot.status in ("running", "starting"):
                if slot.status == "starting":
                    self._refuse(slot, SupervisorStopping(draft.state.path))
                lifecycle.request_stop(draft, slot)
            elif slot.status != "stopping":
                if slot.planned:
                    draft.do(Disarm(slot.key))
                    lifecycle.report_called_off(draft, slot, "stop")
                self.remove(slot)
        if not draft.state.slots:
            lifecycle.finish(draft)

    def _start_child(self, asked: Asked, spec: ChildSpec) -> None:
        """Add a child (SUP-62, SUP-63)."""
        state = self.draft.state
        if spec.named and (holder := state.find(spec.name)) is not None:
            self._refuse_second(asked, holder)
            return
        limit = state.spec.max_children
        if limit is not None and len(state.slots) >= limit:
            self.draft.answer(asked.call, error=TooManyChildren(spec.name, limit))
            return
        try:
            spec = settle(spec, "temporary", "never")
        except InvalidOption as error:
            self.draft.answer(asked.call, error=error)
            return
        key, now = state.next_key, self.draft.world.now
        if spec.named:
            state.names[spec.name] = key
        elif state.names:
            while f"{spec.name}-{key}" in state.names:  # another was given that very name
                key += 1
        force_setattr(state, "next_key", key + 1)
        slot = Slot(key=key, spec=spec, status="starting", incarnation=1, since=now, calls=(asked.call,))
        force_setattr(state, "slots", state.slots.put(slot))
        self.draft.do(Start(key, 1, spec, 0, state.label_of(slot)))

    def _refuse_second(self, asked: Asked, holder: Slot) -> None:
        """Refuse a child whose name another has, which need not be up (SUP-62)."""
        name = holder.spec.name
        if holder.status in ("running", "stopping"):
            self.draft.answer(asked.call, error=ChildAlreadyStarted(name, holder.child))
        elif holder.status == "starting" and holder.incarnation == 1:  # answered when it is clear who has the name
            self.draft.put(replace(holder, calls=(*holder.calls, SecondCall(asked.call))))
        else:
            self.draft.answer(asked.call, error=ChildRestarting(name))

    def _terminate(self, asked: Asked, slot: Slot | None, called: str) -> None:
        """Stop one child, or call its restart off (SUP-64)."""
        draft = self.draft
        if slot is None:
            draft.answer(asked.call, error=ChildNotFound(called))
        elif slot.planned:
            draft.do(Disarm(slot.key))
            lifecycle.report_called_off(draft, slot, "call")
            self.remove(slot)
            draft.answer(asked.call, True)
        elif slot.status == "stopping":
            draft.put(replace(slot, calls=(*slot.calls, asked.call)))
        else:
            if slot.status == "starting":
                self._refuse(slot, SupervisorStopping(draft.state.path_of(slot)))
            own = asked.caller == slot.key  # it could not hear the answer while it stops
            if own:
                draft.answer(asked.call, True)
            lifecycle.request_stop(draft, slot, () if own else (asked.call,))

    def _refuse(self, slot: Slot, error: Exception) -> None:
        """Answer the calls that wait for a child with an error."""
        for call in slot.calls:
            self.draft.answer(call.call if type(call) is SecondCall else call, error=error)

    def up(self, slot: Slot, child: object) -> None:
        """Note that a child is up, and answer the calls that waited for it."""
        lifecycle.mark_running(self.draft, slot, child, "restart" if slot.incarnation > 1 else "call")
        for call in slot.calls:
            if type(call) is SecondCall:
                self.draft.answer(call.call, error=ChildAlreadyStarted(slot.spec.name, child))
            else:  # as in `start_done`, spelled out for speed
                self.draft.do(AnswerCall(call, child))

    def start_done(self, slot: Slot, answer: object) -> None:
        """Answer the calls that waited for a child."""
        for call in slot.calls:
            self.draft.do(AnswerCall(call.call if type(call) is SecondCall else call, answer))

    def takes_failed_start(self, slot: Slot, failed: FailedToStart) -> bool:
        """Refuse the calls that waited for a first start; return `False` for a restart, which the policy judges."""
        if slot.incarnation > 1:
            return False
        lifecycle.report_failed(self.draft, ChildStartFailedEvent, slot, failed.exit, "refuse")
        self.remove(slot)
        self._refuse(slot, start_refused(slot, failed))
        return True

    def restart(self, slot: Slot) -> None:
        """Make one start attempt."""
        lifecycle.start(self.draft, slot)

    def remove(self, slot: Slot) -> None:
        """Forget a child."""
        force_setattr(self.draft.state, "slots", self.draft.state.slots.drop(slot.key))
        if slot.spec.named:
            self.draft.state.names.pop(slot.spec.name, None)
        if slot.spec.breaker is not None:
            lifecycle.forget_breaker(self.draft, slot)

    def stopped(self, slot: Slot, exit_: ChildExit) -> None:
        """Forget a child that was told to stop and is gone."""
        draft = self.draft
        stopping = draft.state.phase == "stopping"
        lifecycle.report_stopped(draft, slot, exit_, "stop" if stopping else "call")
        self.remove(slot)
        self.start_done(slot, True)
        if stopping and not draft.state.slots:
            lifecycle.finish(draft)
