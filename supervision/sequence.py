"""How a supervisor works through a job: stops in reverse start order, then starts in start order, one at a time."""

from msgspec.structs import force_setattr, replace

from mlld_sdk.supervision.children import Slot
from mlld_sdk.supervision.effects import AnswerCall, Arm, Disarm, Emit, Ended, Input, Overdue, Ready
from mlld_sdk.supervision.errors import SupervisorStopping
from mlld_sdk.supervision.events import SupervisorStarted
from mlld_sdk.supervision.exits import ChildExit
from mlld_sdk.supervision.state import Operation, StaticState, Why
from mlld_sdk.supervision.step import Step


class OperationStep(Step[StaticState]):
    """The part of a step that carries a job on."""

    def take(self, happened: Input) -> None:
        """Take in one thing that happened."""
        raise NotImplementedError

    def remove(self, slot: Slot) -> None:
        """Forget a child."""
        names = {name: key for name, key in self.state.names.items() if key != slot.key}
        order = tuple(key for key in self.state.order if key != slot.key)
        self.set(slots=self.state.slots.drop(slot.key), names=names, order=order)

    def begin_operation(self, operation: Operation) -> None:
        """Start working on a list of stops and starts."""
        assert self.state.operation is None, "one job at a time"
        if operation.stops:
            operation = replace(operation, within=frozenset(operation.stops), began=self.world.now)
        self.go_on(operation)
        self.take_queued_ends(operation)
        self.work()

    def go_on(self, operation: Operation) -> None:
        """Note how far the job has got."""
        force_setattr(self.state, "operation", operation)

    def take_queued_ends(self, operation: Operation) -> None:
        """Note which of those that are to be stopped have ended already: no further notice of it will come (SUP-38)."""
        if not (operation.stops and self.state.queue):
            return
        kept: list[Input] = []
        for waiting in self.state.queue:
            slot = self.find(waiting.key, waiting.incarnation) if isinstance(waiting, Ended) else None
            if isinstance(waiting, Ended) and slot is not None and slot.live and slot.key in operation.within:
                self.down(slot, waiting.exit)
            else:
                kept.append(waiting)
        self.set(queue=tuple(kept))

    def work(self) -> None:
        """Go on with the job until it has to wait for somebody."""
        while (operation := self.state.operation) is not None:
            if operation.stopped < len(operation.stops):
                slot = self.state.slots.get(operation.stops[operation.stopped])
                if slot is not None and slot.live:
                    self.ask_to_stop(slot)
                    return
                if slot is not None and slot.planned:
                    self.call_off(slot)
                self.go_on(replace(operation, stopped=operation.stopped + 1))
            elif operation.started < len(operation.starts):
                slot = self.state.slots.get(operation.starts[operation.started])
                if slot is not None and not slot.live:
                    self.start_next(slot)
                    return
                self.go_on(replace(operation, started=operation.started + 1))
            else:
                self.finish_operation(operation)

    def current_slot(self) -> Slot | None:
        """Find the child the job waits for."""
        operation = self.state.operation
        key = None if operation is None else operation.current
        return None if key is None else self.state.slots.get(key)

    def start_next(self, slot: Slot) -> None:
        """Start a child as the job's next step."""
        if slot.next_at is not None:
            self.do(Disarm(slot.key))
        self.start(slot)

    def start_done(self, slot: Slot, answer: object) -> None:
        """Go on after a start that did not fail."""
        operation = self.state.operation
        if operation is None or operation.current != slot.key:
            return
        if operation.call is not None:
            self.do(AnswerCall(operation.call.call, answer))
        self.go_on(replace(operation, started=operation.started + 1))
        self.work()

    def ask_to_stop(self, slot: Slot) -> None:
        """Tell a child to stop as the job's next step."""
        told = slot.status == "stopping"  # before a `StopRequested` took over
        if not told:
            slot = self.put(replace(slot, status="stopping", since=self.world.now))
        due = self.arm_stop_timer(slot)
        if not told:
            self.tell_to_stop(slot, due)

    def arm_stop_timer(self, slot: Slot) -> float | None:
        """Arm the timer of a child that is stopping; say at which instant it will be killed."""
        due = self.stop_due(slot)
        if due == float("inf"):
            return None
        if slot.spec.shutdown != "kill":
            self.do(Arm(max(due - self.world.now, 0.0), Overdue(slot.key, slot.incarnation)))
        return due

    def stop_done(self, slot: Slot, exit_: ChildExit) -> None:
        """Go on after a child that was told to stop is gone."""
        self.do(Disarm(slot.key))
        self.down(slot, exit_)
        operation = self.state.operation
        if (
            operation is not None
            and operation.stopped < len(operation.stops)
            and operation.stops[operation.stopped] == slot.key
        ):
            self.go_on(replace(operation, stopped=operation.stopped + 1))
            self.work()

    def down(self, slot: Slot, exit_: ChildExit) -> None:
        """Note that a child the job wants stopped is down, told or not."""
        operation = self.state.operation
        self.tell_stopped(slot, exit_, "stop" if operation is None else operation.why)
        if slot.spec.restart == "temporary" and self.state.phase != "stopping":  # SUP-35, SUP-56
            self.remove(slot)
        else:
            self.put(
                replace(
                    slot,
                    status="stopped",
                    child=None,
                    since=self.world.now,
                    last=exit_,
                    overdue=False,
                    held="" if operation is None else operation.note,
                )
            )

    def call_off(self, slot: Slot) -> None:
        """Call off a planned restart: the child is stopped now."""
        operation = self.state.operation
        self.do(Disarm(slot.key))
        self.put(replace(slot, status="stopped", next_at=None, held="" if operation is None else operation.note))
        self.tell_called_off(slot, "stop" if operation is None else operation.why)

    def finish_operation(self, operation: Operation) -> None:
        """All stops and starts are done."""
        self.set(operation=None)
        if self.state.phase == "stopping":
            self.finish(operation.began)
        elif operation.cause == "init":
            self.set(phase="running", ready=True, up_since=self.world.now)
            self.do(
                Emit(
                    SupervisorStarted(
                        at=self.world.wall,
                        path=self.state.path,
                        children=len(self.state.slots),
                        strategy=self.state.spec.strategy,
                    )
                )
            )
            self.do(Ready())
        elif operation.call is not None and operation.stops:
            self.do(AnswerCall(operation.call.call, True))

    def stop_all(self, end: ChildExit, why: Why) -> None:
        """Drop whatever goes on, stop all children in reverse start order, then end (SUP-19)."""
        operation, queue = self.state.operation, self.state.queue
        self.set(phase="stopping", end=end, operation=None, queue=())
        if operation is not None and operation.call is not None:
            self.do(AnswerCall(operation.call.call, error=SupervisorStopping(self.state.path)))
        slots = self.state.slots
        stops = tuple(key for key in reversed(self.state.order) if slots[key].live or slots[key].planned)
        self.set(
            operation=Operation(cause="restart", why=why, stops=stops, within=frozenset(stops), began=self.world.now)
        )
        for waiting in queue:  # ends noticed before, calls not served yet
            self.take(waiting)
        self.work()
