"""The children of a supervisor with a fixed list: started, stopped and restarted in order, one at a time.

Such a supervisor does one *operation* at a time: the start list, a group restart, a management call, the final stop. An
operation is a list of stops (in reverse start order) and then a list of starts (in start order), and the supervisor
waits for each before the next. What arrives meanwhile and is not about the operation waits in `queue`, as it would in
an OTP supervisor's mailbox; with three differences, all of them documented:

- D-1 A `StopRequested` interrupts any operation at once: no further start is made.
- D-2 A call from the very child the operation waits for is refused with `SupervisorBusy`; in OTP both would wait for
  ever.
- D-3 A child that asks for its own termination is answered first and stopped then.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import force_setattr, replace

from mlld_sdk.supervision.decisions import lifecycle, management
from mlld_sdk.supervision.decisions.draft import Draft
from mlld_sdk.supervision.decisions.effects import Disarm
from mlld_sdk.supervision.decisions.inputs import Asked, Ended, FailedToStart, Input
from mlld_sdk.supervision.decisions.requests import StartChild
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import Operation, StaticState, Why
from mlld_sdk.supervision.errors import SupervisorBusy, SupervisorStopping
from mlld_sdk.supervision.events import ChildStartFailedEvent
from mlld_sdk.supervision.reasons import ChildExit, ChildFailedToStart, as_exit
from mlld_sdk.supervision.spec import Strategy


def affected(strategy: Strategy, order: Sequence[int], dead: int) -> Sequence[int]:
    """List, in start order, the children that a restart of `dead` replaces, itself included."""
    if strategy == "one_for_one":
        return (dead,)
    return order if strategy == "one_for_all" else order[order.index(dead) :]


class StaticSiblings(msgspec.Struct):
    """The children of one supervisor with a fixed list, during one step."""

    draft: Draft[StaticState]

    def defers(self, happened: Input, slot: Slot) -> bool:
        """Keep an input for the end of the operation that is going on; return whether there is one."""
        operation = self.draft.state.operation
        if operation is None:
            return False
        if isinstance(happened, Ended) and operation.stopping and slot.key in operation.within:
            self._down(slot, happened.exit)  # it ended before its turn to be stopped came (SUP-22, SUP-38)
        else:
            self._later(happened)
        return True

    def _later(self, happened: Input) -> None:
        self.draft.set(queue=(*self.draft.state.queue, happened))

    def begin(self) -> None:
        """Start the declared children."""
        self._begin(Operation(cause="init", starts=self.draft.state.order))

    def serve(self, asked: Asked) -> None:
        """Serve a management call of a supervisor that does not stop, now or when the operation is over."""
        draft, state = self.draft, self.draft.state
        operation = state.operation
        if operation is None and state.phase == "running":
            begun = management.serve(draft, asked)
            if begun is not None:
                self._begin(begun)
        elif operation is not None and asked.caller is not None and asked.caller == operation.current:  # D-2
            slot = state.slots[asked.caller]
            doing = "stop" if slot.status == "stopping" else "start"
            draft.answer(asked.call, error=SupervisorBusy(state.path, slot.spec.name, doing))
        else:
            self._later(asked)

    def stop_all(self, end: ChildExit, why: Why) -> None:
        """Drop whatever goes on, stop all children in reverse start order, then end (SUP-19)."""
        draft, state = self.draft, self.draft.state
        interrupted, slots = state.operation, state.slots
        if interrupted is not None and interrupted.call is not None:
            draft.answer(interrupted.call.call, error=SupervisorStopping(state.path))
        stops = tuple(key for key in reversed(state.order) if slots[key].live or slots[key].planned)
        operation = Operation(cause="restart", why=why, stops=stops, within=frozenset(stops))
        draft.set(phase="stopping", end=end, stopping_since=draft.world.now, operation=operation, killed=())
        self._take_queued_ends(operation)
        for waiting in state.queue:
            if isinstance(waiting, Asked):
                draft.answer(waiting.call, error=SupervisorStopping(state.path))
        draft.set(queue=())
        self._work()

    def up(self, slot: Slot, child: object) -> None:
        """Note that a child is up, and go on."""
        operation = self.draft.state.operation
        assert operation is not None, "children start within operations only"
        lifecycle.mark_running(self.draft, slot, child, operation.cause)
        self.start_done(slot, child)

    def start_done(self, slot: Slot, answer: object) -> None:
        """Go on after a start that did not fail."""
        operation = self.draft.state.operation
        if operation is None or operation.current != slot.key:
            return
        if operation.call is not None:
            self.draft.answer(operation.call.call, answer)
        self._go_on(replace(operation, started=operation.started + 1))
        self._work()

    def takes_failed_start(self, slot: Slot, failed: FailedToStart) -> bool:
        """Handle a failed start, unless it was a restart, which the restart policy judges; return whether it did."""
        draft, operation = self.draft, self.draft.state.operation
        assert operation is not None, "children start within operations only"
        draft.set(operation=None)
        if operation.cause == "restart":
            return False
        first = operation.cause == "init"
        slot = draft.put(replace(slot, status="stopped", child=None, since=draft.world.now, last=failed.exit))
        lifecycle.report_failed(draft, ChildStartFailedEvent, slot, failed.exit, "roll_back" if first else "refuse")
        if first:  # SUP-16
            self.stop_all(as_exit(ChildFailedToStart(slot.spec.name, failed.exit.reason)), "roll_back")
            return True
        asked = operation.call
        assert asked is not None, "a start that is neither init nor restart was asked for"
        if isinstance(asked.request, StartChild):  # it counts towards nothing (SUP-54, SUP-55)
            self.remove(slot)
        draft.answer(asked.call, error=management.start_refused(slot, failed))
        return True

    def restart(self, slot: Slot) -> None:
        """Make one start attempt, with the siblings the strategy takes along (SUP-31 to SUP-37)."""
        state = self.draft.state
        if not state.grouped:  # no sibling is concerned
            self._go_on(Operation(cause="restart", starts=(slot.key,)))
            lifecycle.start(self.draft, slot)
            return
        self.draft.put(slot)
        group = affected(state.spec.strategy, state.order, slot.key)
        self._begin(Operation(cause="restart", stops=self._to_stop(group, slot), starts=tuple(group)))

    def remove(self, slot: Slot) -> None:
        """Forget a child."""
        management.remove(self.draft, slot)

    def stopped(self, slot: Slot, exit_: ChildExit) -> None:
        """Go on after a child that was told to stop is gone."""
        self._down(slot, exit_)
        operation = self.draft.state.operation
        if operation is not None and operation.stopping and operation.current == slot.key:
            self._go_on(replace(operation, stopped=operation.stopped + 1))
            self._work()

    def clear_group(self, slot: Slot, exited: bool) -> None:
        """Stop the siblings that cannot do without a child whose restart is delayed.

        After a failed start that is only the sibling whose end began the restart, if its turn to start had not come: it
        is stopped, as in OTP, until the next attempt. Else it would wait for ever if the child is then told to stop.
        """
        state = self.draft.state
        group = affected(state.spec.strategy, state.order, slot.key)
        if not exited:
            for other in (state.slots[key] for key in group):
                if other.status == "waiting" and other.next_at is None:
                    self._call_off(other, "stop")
        elif stops := self._to_stop(group, slot):
            self._begin(Operation(cause="restart", stops=stops))

    def _to_stop(self, group: Sequence[int], slot: Slot) -> tuple[int, ...]:
        """List who of a group has to be stopped or called back before it is started again, last one first."""
        if len(group) == 1:
            return ()
        slots = self.draft.state.slots
        return tuple(key for key in reversed(group) if key != slot.key and (slots[key].live or slots[key].planned))

    def _begin(self, operation: Operation) -> None:
        """Start working on a list of stops and starts."""
        assert self.draft.state.operation is None, "one operation at a time"
        if operation.stops:
            operation = replace(operation, within=frozenset(operation.stops))
        self._go_on(operation)
        if operation.stops and self.draft.state.queue:
            self._take_queued_ends(operation)
        self._work()

    def _go_on(self, operation: Operation) -> None:
        """Note how far the operation has got."""
        force_setattr(self.draft.state, "operation", operation)

    def _take_queued_ends(self, operation: Operation) -> None:
        """Note which of those that are to be stopped have ended already: no further notice of it will come (SUP-38)."""
        kept: list[Input] = []
        for waiting in self.draft.state.queue:
            slot = self.draft.state.slots.get(waiting.key) if isinstance(waiting, Ended) else None
            ended = slot is not None and slot.live and slot.key in operation.within
            if ended and slot is not None and isinstance(waiting, Ended) and slot.incarnation == waiting.incarnation:
                self._down(slot, waiting.exit)
            else:
                kept.append(waiting)
        self.draft.set(queue=tuple(kept))

    def _work(self) -> None:
        """Go on with the operation until it has to wait for a child."""
        while (operation := self.draft.state.operation) is not None:
            if operation.stopped < len(operation.stops):
                slot = self.draft.state.slots.get(operation.stops[operation.stopped])
                if slot is not None and slot.live:
                    if slot.status != "stopping":  # or a `StopRequested` has taken over while it was
                        lifecycle.request_stop(self.draft, slot)
                    return
                if slot is not None and slot.planned:
                    self._call_off(slot, operation.why, operation.note)
                self._go_on(replace(operation, stopped=operation.stopped + 1))
            elif operation.started < len(operation.starts):
                slot = self.draft.state.slots.get(operation.starts[operation.started])
                if slot is not None and not slot.live:
                    lifecycle.start(self.draft, slot)
                    return
                self._go_on(replace(operation, started=operation.started + 1))
            else:
                self._finish(operation)

    def _down(self, slot: Slot, exit_: ChildExit) -> None:
        """Note that a child the operation wants stopped is down, told or not."""
        draft, operation = self.draft, self.draft.state.operation
        lifecycle.report_stopped(draft, slot, exit_, "stop" if operation is None else operation.why)
        if slot.spec.restart == "temporary" and draft.state.phase != "stopping":  # SUP-35, SUP-56
            self.remove(slot)
            return
        held = "" if operation is None else operation.note
        slot = replace(slot, status="stopped", child=None, since=draft.world.now, last=exit_, overdue=False, held=held)
        draft.put(slot)

    def _call_off(self, slot: Slot, why: Why, note: str = "") -> None:
        """Call off a planned restart: the child is stopped now."""
        self.draft.do(Disarm(slot.key))
        self.draft.put(replace(slot, status="stopped", next_at=None, held=note))
        lifecycle.report_called_off(self.draft, slot, why)

    def _finish(self, operation: Operation) -> None:
        """End the operation: all stops and starts are done."""
        force_setattr(self.draft.state, "operation", None)
        if self.draft.state.phase == "stopping":
            lifecycle.finish(self.draft)
        elif operation.cause == "init":
            lifecycle.mark_ready(self.draft)
        elif operation.call is not None and operation.stops:
            self.draft.answer(operation.call.call, True)
