"""Agents: actors that own engines and work on durable runs."""

from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from mlld_sdk.actors.core.directives import NO_REPLY
from mlld_sdk.actors.core.exits import Killed, Reason
from mlld_sdk.actors.core.ref import ActorRef, Exit
from mlld_sdk.agents.options import AgentOptions
from mlld_sdk.agents.owner import Configure, Drain, EngineFailed, EngineOwner, OwnerStatus, TakeWork
from mlld_sdk.agents.services import LOOK, LookForWork
from mlld_sdk.base.errors import ConfigurationError, TaskError
from mlld_sdk.journal import RunLease
from mlld_sdk.journal.errors import JournalError
from mlld_sdk.runs.job import Job
from mlld_sdk.runs.worker import Work, Worker

FIRST_LOOK = 0.02
"""Seconds until an agent looks again for runs its predecessor has not let go of yet; doubles up to `LONGEST_LOOK`."""

LONGEST_LOOK = 1.0

CANCEL_GRACE = 5.0
"""Seconds the code of a run that is over gets to come to an end before its worker is killed."""


class RunDeadlineExceeded(TaskError):
    """The run was not finished by its deadline."""

    code = "RUN_DEADLINE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class _Expired:
    run_id: str


@dataclass(frozen=True, slots=True)
class _Lost:
    run_id: str


@dataclass(frozen=True, slots=True)
class _KillWorker:
    ref: ActorRef[Worker]


class Agent(EngineOwner):
    """An actor that runs mlld scripts on engines of its own.

    Subclass it and define `run`, or declare it as data: `child(Agent, name="digest", script="digest.mld")`. Options are
    those of `AgentOptions`, given to `child(...)` or set as class attributes.

    `run` is called on a thread of its own with a job and what was submitted. It is called again from the top when the
    run is resumed, so keep what must last in steps and not in `self`.

    Failures of a script are answers to its caller. When an engine fails, the agent crashes and its supervisor
    decides; the run goes on with the next incarnation.
    """

    trap_exit = True
    ends_with_its_engine: ClassVar[bool] = True
    Options: ClassVar[type[AgentOptions]] = AgentOptions
    options: AgentOptions

    run: Any = None
    """Define `def run(self, job, payload)` or `async def run(self, job, payload)`; what it returns is the result."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._working: dict[ActorRef[Worker], Work] = {}
        self._draining = False
        self._drained: list[Any] = []
        self._look_again_in = FIRST_LOOK

    def on_start(self) -> None:
        """Take over the pool of this name, and look whether work was left behind."""
        super().on_start()
        if self._work_is_left():
            self.actor_ref.cast(LOOK)

    def on_receive(self, message: Any) -> Any:
        """Take up work, and let nothing of it block this mailbox."""
        match message:
            case LookForWork():
                self._look()
            case Exit(ref=ref, reason=reason) if ref in self._working:
                self._worker_ended(ref, reason)
            case EngineFailed(reason=reason):
                self.stop(reason)
            case Configure():
                super().on_receive(message)
                self._look()
            case Drain():
                return self._drain()
            case TakeWork():
                return self._take_work()
            case _Expired(run_id=run_id):
                for work in self._works_on(run_id).values():
                    work.expire(RunDeadlineExceeded(f"run {run_id} was not finished by its deadline"))
                self._end_workers(run_id)
            case _Lost(run_id=run_id):
                self._end_workers(run_id)
            case _KillWorker(ref=ref):
                if ref in self._working:
                    ref.kill("its run was over and its code went on")
            case _:
                return super().on_receive(message)
        return None

    def on_terminate(self, reason: Reason) -> None:
        """Hand the runs back, in whatever order this incarnation ends."""
        for work in self._working.values():
            if reason.is_normal_family:
                work.hand_back()
            else:
                work.give_up(str(reason))
        super().on_terminate(reason)

    def stuck_for(self) -> float:
        """Say for how long a run has got nothing done, in seconds; supervision asks, from a thread of its own."""
        now = self.services.env.now()
        return max((now - work.job.last_progress for work in list(self._working.values())), default=0.0)

    def off_duty(self) -> str:
        """Say whether it was told to take no more runs, and has none left; called from other threads."""
        return "" if not self._draining else "draining" if self._working else "drained"

    def status(self) -> OwnerStatus:
        """Return what is going on."""
        runs = tuple(work.lease.run_id for work in self._working.values())
        state = self.off_duty() or ("working" if runs or self.engine_pool.status().busy else "idle")
        return msgspec.structs.replace(super().status(), state=state, runs=runs)

    def _look(self) -> None:
        """Claim what waits in the journal, as much as there is room for."""
        room = self.options.concurrency - len(self._working)
        if room <= 0 or self._draining:
            return
        owner = f"{self.name}#{self.actor_ref.epoch}"
        try:
            leases = self.services.journal.claim_unfinished(self.name, owner, limit=room)
        except JournalError:
            self.send_after(LONGEST_LOOK, LOOK)  # the journal says by itself that it is not well
            return
        begun: set[RunLease] = set()
        try:
            for lease in leases:
                self._begin(lease)
                begun.add(lease)
        except BaseException:  # killed in the middle, or no thread to be had: nothing else knows of these runs
            for lease in set(leases) - begun:
                self._let_go(lease)
            raise
        if not leases and self._look_again_in < LONGEST_LOOK and self._work_is_left():
            # The last incarnation is being buried, and its runs are free when that is done.
            self.send_after(self._look_again_in, LOOK)
            self._look_again_in *= 2

    def _work_is_left(self) -> bool:
        mine = {work.lease.run_id for work in self._working.values()}
        try:
            runs = self.services.journal.runs(kind=self.name, states=("pending", "running"), limit=len(mine) + 1)
        except JournalError:
            return True  # it cannot be known, so look
        return any(run.id not in mine for run in runs)

    def _work_waits(self) -> bool:
        try:
            return self.services.journal.has_claimable(self.name)
        except JournalError:
            return True  # looking finds out why

    def _let_go(self, lease: RunLease) -> None:
        """Give back a run that was not begun."""
        try:
            if not lease.over:
                lease.release()
        except JournalError:
            self.services.runs.settle_later(lambda: self._let_go(lease))

    def _begin(self, lease: RunLease) -> None:
        name, services, me = self.name, self.services, self.actor_ref
        job = Job(
            lease,
            self.new_requests(),
            services=services.runs,
            protected=bool(self.options.checkpoint),
            attempts=self.options.step_attempts,
        )
        code = self.run if self.run is not None else self._run_script
        work = Work(lease, job, code, services.runs, alone=self.options.concurrency == 1)
        lease.on_lost(lambda _: me.cast(_Lost(lease.run_id)))
        ref: ActorRef[Worker] = self.start_link(Worker, work, lambda: services.poke(name))
        # Linked alone, a busy worker would learn of our end only between messages, and it has but one.
        self.own(ref, close=lambda: ref.kill("its agent ended"))
        self._working[ref] = work
        if lease.run.deadline is not None:
            self.send_after(max(0.0, lease.run.deadline - services.env.wall()), _Expired(lease.run_id))
        ref.cast(LOOK)

    def _run_script(self, job: Job, payload: object) -> str:
        if self.options.script is None:
            raise ConfigurationError(
                f"{type(self).__name__} has nothing to run", hint="define run(self, job, payload), or give script="
            )
        return job.execute(self.options.script, payload).output

    def _worker_ended(self, ref: ActorRef[Worker], reason: Reason) -> None:
        del self._working[ref]
        self.disown(ref)
        if reason.is_normal_family or isinstance(reason, Killed):
            if self._work_waits():
                self._look()
            self._answer_drained()
        else:
            self.stop(reason)

    def _end_workers(self, run_id: str) -> None:
        """Their job takes no more steps; code that does not come to an end by itself is ended."""
        for ref in self._works_on(run_id):
            self.send_after(CANCEL_GRACE, _KillWorker(ref))

    def _works_on(self, run_id: str) -> dict[ActorRef[Worker], Work]:
        return {ref: work for ref, work in self._working.items() if work.lease.run_id == run_id}

    def _drain(self) -> Any:
        self._draining = True
        self._drained.append(self.reply_to())
        self._answer_drained()
        return NO_REPLY

    def _take_work(self) -> bool:
        was, self._draining = self._draining, False
        waiting, self._drained = self._drained, []
        for reply in waiting:  # those who wait for a drain that was called off
            reply.reply(False)
        self._look()
        return was

    def _answer_drained(self) -> None:
        if self._draining and not self._working:
            waiting, self._drained = self._drained, []
            for reply in waiting:
                reply.reply(True)
