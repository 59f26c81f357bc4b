"""What a dynamic supervisor does next, as one pure function: `step_crowd`.

Its children know nothing of each other, so nothing is done in order: starts run side by side, and a stop tells all
children at once. A child's identity is its key; names may repeat. A child that will not be restarted leaves no trace.
"""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import force_setattr, replace

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.children import Slot
from mlld_sdk.supervision.effects import (
    AllOverdue,
    AnswerCall,
    Arm,
    Asked,
    Begin,
    CountChildren,
    Disarm,
    Due,
    Effect,
    Emit,
    Ended,
    FailedToStart,
    Forget,
    Ignored,
    Input,
    Kill,
    NoProgress,
    Overdue,
    Ready,
    StartChild,
    Started,
    StopRequested,
    TerminateKey,
    UpdateDynamic,
    WhichChildren,
)
from mlld_sdk.supervision.errors import (
    ChildAlreadyStarted,
    ChildNotFound,
    ChildStartFailed,
    NotSupported,
    SupervisorStopping,
    TooManyChildren,
)
from mlld_sdk.supervision.events import ChildExited, ChildIgnored, ChildStartFailedEvent, SupervisorStarted
from mlld_sdk.supervision.exits import KILLED, SHUTDOWN, ChildExit
from mlld_sdk.supervision.management import counts, row
from mlld_sdk.supervision.restart_policy import Ruling, after_exit, after_failed_start, when_due
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, settle
from mlld_sdk.supervision.state import DynamicState
from mlld_sdk.supervision.step import FailureEvent, Step, World


def initial_dynamic(path: str, spec: DynamicSpec) -> DynamicState:
    """Build the state of a dynamic supervisor that has not begun."""
    return DynamicState(path=path, spec=spec)


def step_dynamic(state: DynamicState, happened: Iterable[Input], world: World) -> tuple[DynamicState, list[Effect]]:
    """Take in what happened, one thing after the other: the state after it, and what is to be done, in order."""
    step = DynamicStep(state, world)
    for one in happened:
        _TAKE[type(one)](step, one)
    return step.state, step.effects


class DynamicStep(Step[DynamicState]):
    """One step of a dynamic supervisor."""

    keeps = False

    def label_of(self, slot: Slot) -> str:
        """Names may repeat, so the path says which one it is."""
        return f"{slot.spec.name}-{slot.key}"

    def on_begin(self, _: Begin) -> None:
        """There is nothing to start yet."""
        self.set(phase="running", ready=True, up_since=self.world.now)
        self.do(Emit(SupervisorStarted(at=self.world.wall, path=self.state.path, children=0, strategy="dynamic")))
        self.do(Ready())

    # -- children ------------------------------------------------------------------------------------------------------

    def on_started(self, started: Started) -> None:
        """A child is up."""
        slot = self.find(started.key, started.incarnation)
        if slot is None or slot.status not in ("starting", "stopping"):
            return
        if slot.status == "stopping":
            self.put(replace(slot, child=started.child))
            return
        calls = slot.calls
        self.mark_running(slot, started.child, "restart" if slot.incarnation > 1 else "call")
        self.answer(calls, started.child)

    def on_ignored(self, ignored: Ignored) -> None:
        """A child does not want to run: it leaves no trace (SUP-8, SUP-47)."""
        slot = self.find(ignored.key, ignored.incarnation)
        if slot is None:
            return
        if slot.status == "stopping":
            self.stopped(slot, SHUTDOWN)
            return
        self.do(
            Emit(ChildIgnored(at=self.world.wall, path=self.path_of(slot), incarnation=slot.incarnation, kept=False))
        )
        self.remove(slot)
        self.answer(slot.calls, None)

    def on_failed(self, failed: FailedToStart) -> None:
        """A start failed."""
        slot = self.find(failed.key, failed.incarnation)
        if slot is None:
            return
        if slot.status == "stopping":
            self.stopped(slot, failed.exit)
        elif slot.incarnation > 1:
            ruling = after_failed_start(slot, failed.exit, self.policy_input(failed.closed_for))
            self.follow(ruling, failed.exit, ChildStartFailedEvent)
        else:
            self.tell_failure(ChildStartFailedEvent, slot, failed.exit, "refuse")
            self.remove(slot)
            name = slot.spec.name
            holder = failed.holder
            self.refuse(
                slot.calls,
                ChildStartFailed(name, failed.exit.reason) if holder is None else ChildAlreadyStarted(name, holder),
            )

    def on_ended(self, ended: Ended) -> None:
        """A child that had come up is gone."""
        slot = self.find(ended.key, ended.incarnation)
        if slot is None or not slot.live:
            return
        if ended.report:
            self.set(killed=(*self.state.killed, *ended.report))
        if slot.status == "stopping":
            self.stopped(slot, ended.exit)
        else:
            lived = self.world.now - slot.since
            self.follow(
                after_exit(slot, ended.exit, self.policy_input(ended.closed_for)), ended.exit, ChildExited, lived
            )

    def on_due(self, due: Due) -> None:
        """A planned start attempt has come due."""
        slot = self.find(due.key, due.incarnation)
        if slot is None or not slot.planned:
            return
        ruling = when_due(slot, self.policy_input(due.closed_for))
        exit_ = ruling.slot.last or KILLED
        self.tell_put_off(slot, exit_, ruling)
        self.follow(ruling, exit_, None)

    def follow(self, ruling: Ruling, exit_: ChildExit, event: FailureEvent | None, lived: float | None = None) -> None:
        """Carry out a judgement."""
        slot = ruling.slot
        if ruling.window is not self.state.window:
            self.set(window=ruling.window)
        if event is not None:
            self.tell_failure(event, slot, exit_, ruling.decision, ruling, lived)
        match ruling.decision:
            case "restart":
                self.start(slot)
            case "wait" | "park":
                self.put(slot)
                self.do(Arm(ruling.delay or 0.0, Due(slot.key, slot.incarnation)))
            case "give_up":
                self.remove(slot)
                self.stop_all(self.gave_up(slot, ruling, exit_), None)
            case _:
                self.remove(slot)

    def remove(self, slot: Slot) -> None:
        """Forget a child."""
        force_setattr(self.state, "slots", self.state.slots.drop(slot.key))
        if slot.spec.breaker is not None:
            self.do(Forget(slot.key, slot.spec))

    def stopped(self, slot: Slot, exit_: ChildExit) -> None:
        """A child that was told to stop is gone."""
        stopping = self.state.phase == "stopping"
        if not stopping:
            self.do(Disarm(slot.key))
        self.tell_stopped(slot, exit_, "stop" if stopping else "call")
        self.remove(slot)
        self.answer(slot.calls, True)
        if stopping and not self.state.slots:
            self.finish(self.state.stopping_since)

    # -- calls ---------------------------------------------------------------------------------------------------------

    def on_asked(self, asked: Asked) -> None:
        """Somebody makes a management call."""
        if self.state.phase != "running":
            self.do(AnswerCall(asked.call, error=SupervisorStopping(self.state.path)))
            return
        request = asked.request
        if type(request) is StartChild:  # by far the most frequent one
            self.start_child(asked, request.spec)
            return
        match request:
            case TerminateKey(key):
                self.terminate(asked, key)
            case WhichChildren():
                self.do(AnswerCall(asked.call, [row(slot) for slot in self.state.slots]))
            case CountChildren():
                self.do(AnswerCall(asked.call, counts(self.state.slots)))
            case UpdateDynamic(spec):
                self.set(spec=spec)
                self.do(AnswerCall(asked.call, True))
            case other:
                error = NotSupported("", f"a dynamic supervisor does not know `{type(other).__name__}`")
                self.do(AnswerCall(asked.call, error=error))

    def start_child(self, asked: Asked, spec: ChildSpec) -> None:
        """Add a child (SUP-62, SUP-63)."""
        limit = self.state.spec.max_children
        if limit is not None and len(self.state.slots) >= limit:
            self.do(AnswerCall(asked.call, error=TooManyChildren(spec.name, limit)))
            return
        try:
            spec = settle(spec, "temporary", "never")
        except InvalidOption as error:
            self.do(AnswerCall(asked.call, error=error))
            return
        key = self.state.next_key
        force_setattr(self.state, "next_key", key + 1)
        self.start(Slot(key=key, spec=spec, calls=(asked.call,)))

    def terminate(self, asked: Asked, key: int) -> None:
        """Stop one child, or call its restart off (SUP-64)."""
        slot = self.state.slots.get(key)
        if slot is None:
            self.do(AnswerCall(asked.call, error=ChildNotFound(str(key))))
        elif slot.planned:
            self.do(Disarm(key))
            self.tell_called_off(slot, "call")
            self.remove(slot)
            self.do(AnswerCall(asked.call, True))
        elif slot.status == "stopping":
            self.put(replace(slot, calls=(*slot.calls, asked.call)))
        else:
            if slot.status == "starting":
                self.refuse(slot.calls, SupervisorStopping(self.path_of(slot)))
            own = asked.caller == key  # it could not hear the answer while it stops
            if own:
                self.do(AnswerCall(asked.call, True))
            self.tell_one(slot, () if own else (asked.call,), arm=True)

    def answer(self, calls: Iterable[object], value: object) -> None:
        """Answer calls that waited for a child."""
        for call in calls:
            self.do(AnswerCall(call, value))

    def refuse(self, calls: Iterable[object], error: Exception) -> None:
        """Answer calls that waited for a child with an error."""
        for call in calls:
            self.do(AnswerCall(call, error=error))

    # -- the end -------------------------------------------------------------------------------------------------------

    def on_stop_requested(self, halt: StopRequested) -> None:
        """Stop everything and end; a second one can only shorten the time."""
        if self.state.phase == "gone":
            return
        earlier = self.state.deadline is None or (halt.deadline is not None and halt.deadline < self.state.deadline)
        if earlier:
            self.set(deadline=halt.deadline, drain=halt.drain)
        if self.state.phase != "stopping":
            self.stop_all(halt.exit, halt.deadline)
        elif earlier and halt.deadline is not None:
            self.do(Arm(max(halt.deadline - self.world.now, 0.0), AllOverdue()))

    def stop_all(self, end: ChildExit, deadline: float | None) -> None:
        """Tell all children at once, each with its own time, then wait (SUP-65)."""
        self.set(phase="stopping", end=end, stopping_since=self.world.now, deadline=deadline)
        instants: set[float] = set()
        for slot in self.state.slots:
            if slot.planned:
                self.do(Disarm(slot.key))
                self.tell_called_off(slot, "stop")
                self.remove(slot)
            elif slot.status == "stopping":
                instants.add(self.stop_due(slot))
            else:
                if slot.status == "starting":
                    self.refuse(slot.calls, SupervisorStopping(self.state.path))
                instants.add(self.tell_one(slot, (), arm=False))
        for due in sorted(instants - {float("inf")}):
            self.do(Arm(max(due - self.world.now, 0.0), AllOverdue()))
        if not self.state.slots:
            self.finish(self.state.stopping_since)

    def tell_one(self, slot: Slot, calls: tuple[object, ...], *, arm: bool) -> float:
        """Tell one child to stop; say when it will have had its time."""
        slot = self.put(replace(slot, status="stopping", since=self.world.now, calls=calls))
        due = self.stop_due(slot)
        if arm and due != float("inf"):
            self.do(Arm(max(due - self.world.now, 0.0), Overdue(slot.key, slot.incarnation)))
        self.tell_to_stop(slot, None if due == float("inf") else due)
        return due

    def on_all_overdue(self, _: AllOverdue) -> None:
        """Kill whoever has had its time."""
        for slot in self.state.slots:
            if slot.status == "stopping" and not slot.overdue and self.stop_due(slot) <= self.world.now:
                self.put(replace(slot, overdue=True))
                self.do(Kill(slot.key, slot.incarnation, KILLED))


_TAKE: dict[type, Callable[[DynamicStep, Any], None]] = {
    Begin: DynamicStep.on_begin,
    Started: DynamicStep.on_started,
    Ignored: DynamicStep.on_ignored,
    FailedToStart: DynamicStep.on_failed,
    Ended: DynamicStep.on_ended,
    Due: DynamicStep.on_due,
    Overdue: DynamicStep.on_overdue,
    AllOverdue: DynamicStep.on_all_overdue,
    NoProgress: DynamicStep.on_no_progress,
    Asked: DynamicStep.on_asked,
    StopRequested: DynamicStep.on_stop_requested,
}
