"""How a supervisor works through a job: stops in reverse start order, then starts in start order, one at a time."""

import random
import zlib

import msgspec

from mlld_sdk.supervision.errors import SupervisorStopping
from mlld_sdk.supervision.events import (
    ChildExited,
    ChildStartFailed,
    ChildStopped,
    Decision,
    SupervisorStarted,
    SupervisorStopped,
)
from mlld_sdk.supervision.exits import KILLED, SHUTDOWN, Exit
from mlld_sdk.supervision.judge import Judgement, Scene
from mlld_sdk.supervision.slots import Slot
from mlld_sdk.supervision.state import Job, State, Why
from mlld_sdk.supervision.steps import (
    Answer,
    Arm,
    Disarm,
    Effect,
    Finish,
    Input,
    Kill,
    Overdue,
    Ready,
    Signal,
    Start,
    Tell,
)


class World(msgspec.Struct, frozen=True):
    """The clocks at this step, and the source of jitter."""

    now: float
    wall: float
    chance: random.Random


class Turn:
    """One step in the making: the state so far, and the effects so far. Lives only inside `step`."""

    def __init__(self, state: State, world: World) -> None:
        self.state = state
        self.world = world
        self.effects: list[Effect] = []

    # -- small change --------------------------------------------------------------------------------------------------

    def set(self, **changes: object) -> None:
        """Replace fields of the state."""
        self.state = msgspec.structs.replace(self.state, **changes)

    def put(self, slot: Slot, **changes: object) -> Slot:
        """Replace a slot, with these fields changed."""
        if changes:
            slot = msgspec.structs.replace(slot, **changes)
        self.set(slots=self.state.slots.put(slot))
        return slot

    def remove(self, slot: Slot) -> None:
        """Forget a child."""
        names = {name: key for name, key in self.state.names.items() if key != slot.key}
        order = tuple(key for key in self.state.order if key != slot.key)
        self.set(slots=self.state.slots.drop(slot.key), names=names, order=order)

    def take(self, happened: Input) -> None:
        """Take in one thing that happened."""
        raise NotImplementedError

    def do(self, effect: Effect) -> None:
        """Add an effect."""
        self.effects.append(effect)

    def path_of(self, slot: Slot) -> str:
        """Say where a child stands in the tree."""
        return f"{self.state.path}/{slot.spec.name}"

    def find(self, key: int, incarnation: int) -> Slot | None:
        """Find a slot if this is still its incarnation; what comes from an older one is nothing."""
        slot = self.state.slots.get(key)
        return slot if slot is not None and slot.incarnation == incarnation else None

    def scene(self, closed_for: float | None = None) -> Scene:
        """Describe the circumstances of a judgement."""
        return Scene(
            now=self.world.now,
            limit=self.state.spec.limit,
            window=self.state.window,
            chance=self.world.chance,
            grouped=self.state.spec.strategy != "one_for_one",
            closed_for=closed_for,
        )

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def begin_job(self, job: Job) -> None:
        """Start working on a list of stops and starts."""
        assert self.state.job is None, "one job at a time"
        self.set(job=msgspec.structs.replace(job, within=frozenset(job.stops), began=self.world.now))
        self.work()

    def work(self) -> None:
        """Go on with the job until it has to wait for somebody."""
        while (job := self.state.job) is not None:
            if job.stopped < len(job.stops):
                slot = self.state.slots.get(job.stops[job.stopped])
                if slot is not None and slot.live:
                    self.ask_to_stop(slot)
                    return
                if slot is not None:
                    self.forget_restart(slot)
                self.set(job=msgspec.structs.replace(job, stopped=job.stopped + 1))
            elif job.started < len(job.starts):
                slot = self.state.slots.get(job.starts[job.started])
                if slot is not None and not slot.live:
                    self.start(slot)
                    return
                self.set(job=msgspec.structs.replace(job, started=job.started + 1))
            else:
                self.finish_job(job)

    def current_slot(self) -> Slot | None:
        """Find the child the job waits for."""
        job = self.state.job
        key = None if job is None else job.current
        return None if key is None else self.state.slots.get(key)

    def start(self, slot: Slot) -> None:
        """Start the next incarnation of a child."""
        if slot.next_at is not None:
            self.do(Disarm(slot.key))
        incarnation = slot.incarnation + 1
        self.put(slot, status="starting", incarnation=incarnation, since=self.world.now, overdue=False)
        self.do(Start(slot.key, incarnation, slot.spec, slot.rung))

    def start_done(self, slot: Slot, answer: object) -> None:
        """Go on after a start that did not fail."""
        job = self.state.job
        if job is None or job.current != slot.key:
            return
        if job.call is not None:
            self.do(Answer(job.call.call, answer))
        self.set(job=msgspec.structs.replace(job, started=job.started + 1))
        self.work()

    def ask_to_stop(self, slot: Slot) -> None:
        """Tell a child to stop, or kill it when its spec says so (SUP-20)."""
        if slot.status == "stopping":  # it was told before a `Halt` took over
            self.set_stop_timer(slot)
            return
        brutal = slot.spec.shutdown == "kill"
        slot = self.put(slot, status="stopping", since=self.world.now)
        if brutal:
            self.do(Kill(slot.key, slot.incarnation, KILLED))
        else:
            self.do(Signal(slot.key, slot.incarnation, self.set_stop_timer(slot)))

    def set_stop_timer(self, slot: Slot) -> float | None:
        """Arm the timer of a child that is stopping; say at which instant it will be killed."""
        limit = slot.spec.shutdown
        latest = self.state.deadline
        if limit == "kill":
            return latest
        due = slot.since + limit
        if latest is not None and latest < due:
            due = latest
        if due == float("inf"):
            return None
        self.do(Arm(max(due - self.world.now, 0.0), Overdue(slot.key, slot.incarnation)))
        return due

    def stop_done(self, slot: Slot, exit_: Exit) -> None:
        """Go on after a child that was told to stop is gone."""
        self.do(Disarm(slot.key))
        self.down(slot, exit_)
        job = self.state.job
        if job is not None and job.stopped < len(job.stops) and job.stops[job.stopped] == slot.key:
            self.set(job=msgspec.structs.replace(job, stopped=job.stopped + 1))
            self.work()

    def down(self, slot: Slot, exit_: Exit) -> None:
        """Note that a child the job wanted stopped is down, and report how (SUP-22)."""
        job = self.state.job
        path = self.path_of(slot)
        told = slot.status == "stopping"
        brutal = told and slot.spec.shutdown == "kill"
        fine = exit_.kind == "shutdown" or (brutal and exit_.kind == "killed")
        if slot.spec.restart != "permanent":
            fine = fine or exit_.expected
        if slot.overdue:
            self.set(killed=(*self.state.killed, path))
        why: Why = "stop" if job is None else job.why
        self.do(
            Tell(
                ChildStopped(
                    at=self.world.wall,
                    path=path,
                    incarnation=slot.incarnation,
                    cause=why,
                    kind=exit_.kind,
                    reason=str(exit_),
                    killed=slot.overdue or brutal,
                    overdue=slot.overdue,
                    took=self.world.now - slot.since if told else 0.0,
                    context="" if fine else "shutdown_error",
                )
            )
        )
        if slot.spec.restart == "temporary":  # SUP-35, SUP-56
            self.remove(slot)
        else:
            self.put(
                slot,
                status="stopped",
                child=None,
                since=self.world.now,
                last=exit_,
                overdue=False,
                held="" if job is None else job.note,
            )

    def forget_restart(self, slot: Slot) -> None:
        """Call off a planned restart: the child is stopped now."""
        if slot.status not in ("waiting", "parked"):
            return
        job = self.state.job
        self.do(Disarm(slot.key))
        self.put(slot, status="stopped", next_at=None, held="" if job is None else job.note)
        self.do(
            Tell(
                ChildStopped(
                    at=self.world.wall,
                    path=self.path_of(slot),
                    incarnation=slot.incarnation,
                    cause="stop" if job is None else job.why,
                    kind=slot.last.kind if slot.last else "shutdown",
                    reason="its restart was called off",
                )
            )
        )

    def finish_job(self, job: Job) -> None:
        """All stops and starts are done."""
        self.set(job=None)
        if self.state.phase == "stopping":
            self.finish(job)
        elif job.cause == "init":
            self.set(phase="running", ready=True, up_since=self.world.now)
            self.do(
                Tell(
                    SupervisorStarted(
                        at=self.world.wall,
                        path=self.state.path,
                        children=len(self.state.slots),
                        strategy=self.state.spec.strategy,
                    )
                )
            )
            self.do(Ready())
        elif job.call is not None and job.why == "call" and job.stops:
            self.do(Answer(job.call.call, True))

    def stop_all(self, end: Exit, why: Why) -> None:
        """Drop whatever goes on, stop all children in reverse start order, then end (SUP-19)."""
        job, queue = self.state.job, self.state.queue
        self.set(phase="stopping", end=end, job=None, queue=())
        if job is not None and job.call is not None:
            self.do(Answer(job.call.call, error=SupervisorStopping(self.state.path)))
        stops = []
        for key in reversed(self.state.order):
            slot = self.state.slots[key]
            if slot.live or slot.status in ("waiting", "parked"):
                stops.append(key)
        stopping = Job(cause="restart", why=why, stops=tuple(stops), within=frozenset(stops), began=self.world.now)
        self.set(job=stopping)
        for waiting in queue:  # ends noticed before, calls not served yet
            self.take(waiting)
        self.work()

    def finish(self, job: Job) -> None:
        """Nothing is left below: end."""
        end = self.state.end or SHUTDOWN
        self.set(phase="gone")
        self.do(
            Tell(
                SupervisorStopped(
                    at=self.world.wall,
                    path=self.state.path,
                    kind=end.kind,
                    reason=str(end),
                    killed=self.state.killed,
                    took=self.world.now - job.began,
                )
            )
        )
        self.do(Finish(end, self.state.killed))

    # -- reports -------------------------------------------------------------------------------------------------------

    def tell_failure(
        self,
        event: type[ChildExited] | type[ChildStartFailed],
        slot: Slot,
        exit_: Exit,
        decision: Decision,
        judged: Judgement | None = None,
        lived: float | None = None,
    ) -> None:
        """Report an end or a failed start, with what follows."""
        path = self.path_of(slot)
        self.do(
            Tell(
                event(
                    at=self.world.wall,
                    path=path,
                    incarnation=slot.incarnation,
                    kind=exit_.kind,
                    reason=str(exit_),
                    trace=exit_.trace,
                    decision=decision,
                    next_attempt_in=None if judged is None or slot.next_at is None else judged.delay,
                    budget=None if judged is None else judged.budget,
                    lived=lived,
                    crash_id=crash_id(path, slot.incarnation, self.world.wall),
                    blame=self.state.path,
                )
            )
        )


def crash_id(path: str, incarnation: int, wall: float) -> str:
    """Make a short name for a failure that is easy to search for and the same wherever it is shown."""
    return f"{zlib.crc32(f'{path}#{incarnation}@{wall!r}'.encode()):08x}"
