"""How a supervisor works through a job: stops in reverse start order, then starts in start order, one at a time."""

from msgspec.structs import force_setattr, replace

from mlld_sdk.supervision.children import Slot
from mlld_sdk.supervision.effects import Answer, Arm, Disarm, Gone, Input, Overdue, Ready, Tell
from mlld_sdk.supervision.errors import SupervisorStopping
from mlld_sdk.supervision.events import SupervisorStarted
from mlld_sdk.supervision.exits import Exit
from mlld_sdk.supervision.state import Job, State, Why
from mlld_sdk.supervision.step import Turn


class JobTurn(Turn[State]):
    """The part of a step that carries a job on."""

    def take(self, happened: Input) -> None:
        """Take in one thing that happened."""
        raise NotImplementedError

    def remove(self, slot: Slot) -> None:
        """Forget a child."""
        names = {name: key for name, key in self.state.names.items() if key != slot.key}
        order = tuple(key for key in self.state.order if key != slot.key)
        self.set(slots=self.state.slots.drop(slot.key), names=names, order=order)

    def begin_job(self, job: Job) -> None:
        """Start working on a list of stops and starts."""
        assert self.state.job is None, "one job at a time"
        if job.stops:
            job = replace(job, within=frozenset(job.stops), began=self.world.now)
        self.go_on(job)
        self.take_queued_ends(job)
        self.work()

    def go_on(self, job: Job) -> None:
        """Note how far the job has got."""
        force_setattr(self.state, "job", job)

    def take_queued_ends(self, job: Job) -> None:
        """Note which of those that are to be stopped have ended already: no further notice of it will come (SUP-38)."""
        if not (job.stops and self.state.queue):
            return
        kept: list[Input] = []
        for waiting in self.state.queue:
            slot = self.find(waiting.key, waiting.incarnation) if isinstance(waiting, Gone) else None
            if isinstance(waiting, Gone) and slot is not None and slot.live and slot.key in job.within:
                self.down(slot, waiting.exit)
            else:
                kept.append(waiting)
        self.set(queue=tuple(kept))

    def work(self) -> None:
        """Go on with the job until it has to wait for somebody."""
        while (job := self.state.job) is not None:
            if job.stopped < len(job.stops):
                slot = self.state.slots.get(job.stops[job.stopped])
                if slot is not None and slot.live:
                    self.ask_to_stop(slot)
                    return
                if slot is not None and slot.planned:
                    self.call_off(slot)
                self.go_on(replace(job, stopped=job.stopped + 1))
            elif job.started < len(job.starts):
                slot = self.state.slots.get(job.starts[job.started])
                if slot is not None and not slot.live:
                    self.start_next(slot)
                    return
                self.go_on(replace(job, started=job.started + 1))
            else:
                self.finish_job(job)

    def current_slot(self) -> Slot | None:
        """Find the child the job waits for."""
        job = self.state.job
        key = None if job is None else job.current
        return None if key is None else self.state.slots.get(key)

    def start_next(self, slot: Slot) -> None:
        """Start a child as the job's next step."""
        if slot.next_at is not None:
            self.do(Disarm(slot.key))
        self.start(slot)

    def start_done(self, slot: Slot, answer: object) -> None:
        """Go on after a start that did not fail."""
        job = self.state.job
        if job is None or job.current != slot.key:
            return
        if job.call is not None:
            self.do(Answer(job.call.call, answer))
        self.go_on(replace(job, started=job.started + 1))
        self.work()

    def ask_to_stop(self, slot: Slot) -> None:
        """Tell a child to stop as the job's next step."""
        told = slot.status == "stopping"  # before a `Halt` took over
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

    def stop_done(self, slot: Slot, exit_: Exit) -> None:
        """Go on after a child that was told to stop is gone."""
        self.do(Disarm(slot.key))
        self.down(slot, exit_)
        job = self.state.job
        if job is not None and job.stopped < len(job.stops) and job.stops[job.stopped] == slot.key:
            self.go_on(replace(job, stopped=job.stopped + 1))
            self.work()

    def down(self, slot: Slot, exit_: Exit) -> None:
        """Note that a child the job wants stopped is down, told or not."""
        job = self.state.job
        self.tell_stopped(slot, exit_, "stop" if job is None else job.why)
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
                    held="" if job is None else job.note,
                )
            )

    def call_off(self, slot: Slot) -> None:
        """Call off a planned restart: the child is stopped now."""
        job = self.state.job
        self.do(Disarm(slot.key))
        self.put(replace(slot, status="stopped", next_at=None, held="" if job is None else job.note))
        self.tell_called_off(slot, "stop" if job is None else job.why)

    def finish_job(self, job: Job) -> None:
        """All stops and starts are done."""
        self.set(job=None)
        if self.state.phase == "stopping":
            self.finish(job.began)
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
        elif job.call is not None and job.stops:
            self.do(Answer(job.call.call, True))

    def stop_all(self, end: Exit, why: Why) -> None:
        """Drop whatever goes on, stop all children in reverse start order, then end (SUP-19)."""
        job, queue = self.state.job, self.state.queue
        self.set(phase="stopping", end=end, job=None, queue=())
        if job is not None and job.call is not None:
            self.do(Answer(job.call.call, error=SupervisorStopping(self.state.path)))
        slots = self.state.slots
        stops = tuple(key for key in reversed(self.state.order) if slots[key].live or slots[key].planned)
        self.set(job=Job(cause="restart", why=why, stops=stops, within=frozenset(stops), began=self.world.now))
        for waiting in queue:  # ends noticed before, calls not served yet
            self.take(waiting)
        self.work()
