"""What a supervisor with a fixed list of children does next, as one pure function: `step`.

A supervisor does one *job* at a time: the start list, a group restart, a management call, the final stop. A job is a
list of stops (in reverse start order) and then a list of starts (in start order), and the supervisor waits for each
before the next. What arrives meanwhile and is not about the job waits in `queue`, as it would in an OTP supervisor's
mailbox; with three differences, all of them documented:

- D-1 A `StopRequested` interrupts any job at once: no further start is made.
- D-2 A call from the very child the job waits for is refused with `SupervisorBusy`; in OTP both would wait for ever.
- D-3 A child that asks for its own termination is answered first and stopped then.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import force_setattr, replace

from mlld_sdk.supervision import management
from mlld_sdk.supervision.children import Slot, SlotMap
from mlld_sdk.supervision.effects import (
    AnswerCall,
    Arm,
    Asked,
    Begin,
    Due,
    Effect,
    Emit,
    Ended,
    FailedToStart,
    Ignored,
    Input,
    NoProgress,
    Overdue,
    Started,
    StopRequested,
)
from mlld_sdk.supervision.errors import SupervisorBusy, SupervisorStopping
from mlld_sdk.supervision.events import (
    ChildExited,
    ChildIgnored,
    ChildStartFailedEvent,
    Decision,
)
from mlld_sdk.supervision.exits import KILLED, SHUTDOWN, ChildExit, Kind
from mlld_sdk.supervision.reasons import ChildFailedToStart
from mlld_sdk.supervision.restart_policy import Ruling, after_exit, after_failed_start, when_due
from mlld_sdk.supervision.sequence import OperationStep
from mlld_sdk.supervision.spec import SupervisorSpec
from mlld_sdk.supervision.state import Operation, StaticState
from mlld_sdk.supervision.step import FailureEvent, World
from mlld_sdk.supervision.strategy import affected


def initial(path: str, spec: SupervisorSpec) -> StaticState:
    """Build the state of a supervisor that has not begun."""
    children = spec.children
    return StaticState(
        path=path,
        spec=spec,
        slots=SlotMap.of([Slot(key=key, spec=child) for key, child in enumerate(children)]),
        order=tuple(range(len(children))),
        names={child.name: key for key, child in enumerate(children)},
        next_key=len(children),
    )


def step(state: StaticState, happened: Iterable[Input], world: World) -> tuple[StaticState, list[Effect]]:
    """Take in what happened, one thing after the other: the state after it, and what is to be done, in order."""
    step = StaticStep(state, world)
    for one in happened:
        step.take(one)
        while step.state.operation is None and step.state.queue and step.state.phase == "running":
            first, *rest = step.state.queue
            step.set(queue=tuple(rest))
            step.take(first)
    return step.state, step.effects


class StaticStep(OperationStep):
    """The part of a step that looks at what happened and picks the job."""

    @property
    def grouped(self) -> bool:
        """Whether siblings are restarted together."""
        return self.state.spec.strategy != "one_for_one"

    # -- inputs --------------------------------------------------------------------------------------------------------

    def take(self, happened: Input) -> None:
        """Take in one thing that happened."""
        _TAKE[type(happened)](self, happened)

    def on_begin(self, _: Begin) -> None:
        """Start the declared children."""
        self.begin_operation(Operation(cause="init", starts=self.state.order))

    def later(self, happened: Input) -> None:
        """Keep something until the job is done."""
        self.set(queue=(*self.state.queue, happened))

    def on_started(self, started: Started) -> None:
        """A child is up."""
        slot = self.find(started.key, started.incarnation)
        if slot is None:
            return
        if slot.status == "stopping":  # told to stop while it was starting: it will go yet
            self.put(replace(slot, child=started.child))
            return
        if slot.status != "starting":
            return
        operation = self.state.operation
        assert operation is not None, "children start within jobs only"
        slot = self.mark_running(slot, started.child, operation.cause)
        self.start_done(slot, started.child)

    def on_ignored(self, ignored: Ignored) -> None:
        """A child does not want to run (SUP-8, SUP-47)."""
        slot = self.find(ignored.key, ignored.incarnation)
        if slot is None or slot.status not in ("starting", "stopping"):
            return
        if slot.status == "stopping":
            self.stop_done(slot, SHUTDOWN)
            return
        keeps = slot.spec.restart != "temporary"
        self.do(
            Emit(ChildIgnored(at=self.world.wall, path=self.path_of(slot), incarnation=slot.incarnation, kept=keeps))
        )
        if keeps:
            slot = self.put(replace(slot, status="stopped", child=None, since=self.world.now, next_at=None))
        else:
            self.remove(slot)
        self.start_done(slot, None)

    def on_failed(self, failed: FailedToStart) -> None:
        """A start failed."""
        slot = self.find(failed.key, failed.incarnation)
        if slot is None or slot.status not in ("starting", "stopping"):
            return
        if slot.status == "stopping":
            self.stop_done(slot, failed.exit)
            return
        operation = self.state.operation
        assert operation is not None, "children start within jobs only"
        if operation.cause == "restart":
            self.set(operation=None)
            self.follow(
                after_failed_start(slot, failed.exit, self.policy_input(failed.closed_for)),
                failed.exit,
                ChildStartFailedEvent,
            )
            self.call_off_rest(operation)
            return
        slot = self.put(replace(slot, status="stopped", child=None, since=self.world.now, last=failed.exit))
        self.tell_failure(
            ChildStartFailedEvent, slot, failed.exit, "roll_back" if operation.cause == "init" else "refuse"
        )
        self.set(operation=None)
        if operation.cause == "init":  # SUP-16
            reason = ChildFailedToStart(slot.spec.name, failed.exit.reason)
            kind: Kind = "configuration" if failed.exit.kind == "configuration" else "crash"
            self.stop_all(ChildExit(kind, str(reason), failed.exit.trace, reason), "roll_back")
        else:
            assert operation.call is not None, "a start that is neither init nor restart was asked for"
            management.start_failed(self, operation.call, slot, failed)

    def on_ended(self, ended: Ended) -> None:
        """A child that had come up is gone."""
        slot = self.find(ended.key, ended.incarnation)
        if slot is None or not slot.live:
            return
        if ended.report:
            self.set(killed=(*self.state.killed, *ended.report))
        operation = self.state.operation
        if slot.status == "stopping":
            self.stop_done(slot, ended.exit)
        elif (
            operation is not None and operation.stopped < len(operation.stops) and ended.key in operation.within
        ):  # it ended before its turn to be stopped came (SUP-22, SUP-38)
            self.down(slot, ended.exit)
        elif operation is not None:
            self.later(ended)
        else:
            lived = self.world.now - slot.since
            self.follow(
                after_exit(slot, ended.exit, self.policy_input(ended.closed_for)), ended.exit, ChildExited, lived
            )

    def on_due(self, due: Due) -> None:
        """A planned start attempt has come due."""
        slot = self.find(due.key, due.incarnation)
        if slot is None or not slot.planned or self.state.phase != "running":
            return
        if self.state.operation is not None:
            self.later(due)
            return
        ruling = when_due(slot, self.policy_input(due.closed_for))
        if ruling.decision == "restart":
            self.set(window=ruling.window)
            self.restart(ruling.slot)
        else:
            exit_ = ruling.slot.last or KILLED
            self.tell_put_off(slot, exit_, ruling)
            self.follow(ruling, exit_, None)

    def on_asked(self, asked: Asked) -> None:
        """Somebody makes a management call."""
        if self.state.phase in ("stopping", "gone"):
            self.do(AnswerCall(asked.call, error=SupervisorStopping(self.state.path)))
            return
        operation = self.state.operation
        if operation is None and self.state.phase == "running":
            management.serve(self, asked)
        elif operation is not None and asked.caller is not None and asked.caller == operation.current:  # D-2
            slot = self.state.slots[asked.caller]
            phase = "stop" if slot.status == "stopping" else "start"
            self.do(AnswerCall(asked.call, error=SupervisorBusy(self.state.path, slot.spec.name, phase)))
        else:
            self.later(asked)

    def on_stop_requested(self, halt: StopRequested) -> None:
        """Stop everything and end; a second one can only shorten the time."""
        if self.state.phase == "gone":
            return
        if self.state.phase == "stopping":
            if halt.deadline is not None and (self.state.deadline is None or halt.deadline < self.state.deadline):
                self.set(deadline=halt.deadline)
                slot = self.current_slot()
                if slot is not None and slot.status == "stopping":
                    self.arm_stop_timer(slot)
            return
        self.set(deadline=halt.deadline, drain=halt.drain)
        self.stop_all(halt.exit, "stop")

    # -- what follows from an end --------------------------------------------------------------------------------------

    def follow(
        self,
        ruling: Ruling,
        exit_: ChildExit,
        event: FailureEvent | None,
        lived: float | None = None,
    ) -> None:
        """Carry out a judgement."""
        slot = ruling.slot
        decision = ruling.decision
        force_setattr(self.state, "window", ruling.window)
        shuts_down = decision in ("stop", "remove") and event is ChildExited and self.ends_supervisor(slot)
        if decision == "remove":
            self.remove(slot)
        elif decision != "restart":
            self.put(slot)
        if event is not None:
            told: Decision = "shutdown" if shuts_down else decision
            self.tell_failure(event, slot, exit_, told, ruling, lived)
        if decision == "restart":
            self.restart(slot)
        elif decision in ("wait", "park"):
            if event is ChildExited:
                self.clear_group(slot)
            self.do(Arm(ruling.delay or 0.0, Due(slot.key, slot.incarnation)))
        elif decision == "give_up":
            self.give_up(slot, ruling, exit_)
        elif shuts_down:
            self.stop_all(SHUTDOWN, "stop")

    def restart(self, slot: Slot) -> None:
        """Make one start attempt, with the siblings the strategy takes along (SUP-31 to SUP-37)."""
        if not self.grouped:  # nobody else is concerned
            self.go_on(Operation(cause="restart", starts=(slot.key,)))
            self.start_next(slot)
            return
        self.put(slot)
        group = affected(self.state.spec.strategy, self.state.order, slot.key)
        self.begin_operation(Operation(cause="restart", stops=self.to_stop(group, slot), starts=tuple(group)))

    def call_off_rest(self, operation: Operation) -> None:
        """Let the siblings that were to be started behind a failed start be stopped, as in OTP, until the next attempt.

        Else they would wait for an attempt that never comes if the child that failed is told to stop meanwhile.
        """
        for key in operation.starts if self.state.phase == "running" else ():
            slot = self.state.slots.get(key)
            if slot is not None and slot.status == "waiting" and slot.next_at is None:
                self.call_off(slot)

    def clear_group(self, slot: Slot) -> None:
        """Stop the siblings that cannot do without a child whose restart is delayed."""
        stops = self.to_stop(affected(self.state.spec.strategy, self.state.order, slot.key), slot)
        if stops:
            self.begin_operation(Operation(cause="restart", stops=stops))

    def to_stop(self, group: Sequence[int], slot: Slot) -> tuple[int, ...]:
        """List who of a group has to be stopped or called back before it is started again, last one first."""
        if len(group) == 1:
            return ()
        slots = self.state.slots
        return tuple(key for key in reversed(group) if key != slot.key and (slots[key].live or slots[key].planned))

    def ends_supervisor(self, slot: Slot) -> bool:
        """Say whether the end of this child, which is not restarted, ends the supervisor (SUP-49, SUP-50)."""
        if not slot.spec.significant or self.state.spec.auto_shutdown == "never":
            return False
        if self.state.spec.auto_shutdown == "any_significant":
            return True
        busy = ("starting", "running", "stopping", "waiting", "parked")
        return not any(
            other.spec.significant and other.status in busy for other in self.state.slots if other.key != slot.key
        )

    def give_up(self, slot: Slot, ruling: Ruling, exit_: ChildExit) -> None:
        """Restarting did not help: stop the others and end (SUP-42)."""
        self.stop_all(self.gave_up(slot, ruling, exit_), "give_up")


_TAKE: dict[type, Callable[[StaticStep, Any], None]] = {
    Begin: StaticStep.on_begin,
    Started: StaticStep.on_started,
    Ignored: StaticStep.on_ignored,
    FailedToStart: StaticStep.on_failed,
    Ended: StaticStep.on_ended,
    Due: StaticStep.on_due,
    Overdue: StaticStep.on_overdue,
    NoProgress: StaticStep.on_no_progress,
    Asked: StaticStep.on_asked,
    StopRequested: StaticStep.on_stop_requested,
}
