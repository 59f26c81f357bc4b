"""The runs an agent works on: claimed from the journal, each on a worker of its own, and handed back at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlld_sdk.actors.core.exits import Killed, Reason
from mlld_sdk.actors.core.ref import ActorRef, Exit
from mlld_sdk.agents.options import AgentOptions
from mlld_sdk.agents.owner import EngineOwner
from mlld_sdk.agents.services import LOOK, LookForWork
from mlld_sdk.base.errors import TaskError
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
class _Over:
    run_id: str
    expired: bool


@dataclass(frozen=True, slots=True)
class _KillWorker:
    ref: ActorRef[Worker]


@dataclass(frozen=True, slots=True)
class _Owner:
    """An incarnation of an agent as its runs see it."""

    agent: EngineOwner

    def stops(self) -> bool:
        return self.agent.services.stops(self.agent.actor_ref)

    def crashes(self) -> bool:
        return self.agent.requests.health.condemned


class Workload:
    """Claims runs for one incarnation of an agent and sees each to its end. Used on the agent's turn only.

    Args:
        agent: The agent, which sends itself the messages that `receive` takes.
        options: Its options; to be set anew when they change.
        code: Works on a run: called with a job and the payload.
    """

    def __init__(self, agent: EngineOwner, options: AgentOptions, code: Callable[[Job, Any], Any]) -> None:
        self.working: dict[ActorRef[Worker], Work] = {}
        self._agent = agent
        self.options = options
        self._code = code
        self._look_again_in = FIRST_LOOK

    def receive(self, message: object) -> object:
        """Take a message about the runs; `NotImplemented` if it is about something else."""
        match message:
            case LookForWork():
                self.look()
            case Exit(ref=ref, reason=reason) if ref in self.working:
                self._worker_ended(ref, reason)
            case _Over():
                self._end_workers(message)
            case _KillWorker(ref=ref):
                if ref in self.working:
                    ref.kill("its run was over and its code went on")
            case _:
                return NotImplemented
        return None

    def hand_back(self) -> None:
        """Hand the runs back to the journal. A run that ends its agent has lost its own worker before."""
        for work in self.working.values():
            work.hand_back()

    def is_left(self) -> bool:
        """Return whether the journal has unfinished runs of this agent that it does not work on."""
        mine = {work.lease.run_id for work in self.working.values()}
        try:
            runs = self._agent.services.journal.runs(
                kind=self._agent.name, states=("pending", "running"), limit=len(mine) + 1
            )
        except JournalError:
            return True  # not known, so look
        return any(run.id not in mine for run in runs)

    def look(self) -> None:
        """Claim runs that wait in the journal, as many as there is room for; none when all above is being stopped."""
        agent = self._agent
        room = self.options.concurrency - len(self.working)
        if room <= 0 or agent.duty.over or agent.services.stops(agent.actor_ref):
            return
        try:
            owner = f"{agent.name}#{agent.actor_ref.epoch}"
            leases = agent.services.journal.claim_unfinished(agent.name, owner, limit=room)
        except JournalError:
            agent.send_after(LONGEST_LOOK, LOOK)  # the journal emits by itself that it is degraded
            return
        begun: set[RunLease] = set()
        try:
            for lease in leases:
                self._begin(lease)
                begun.add(lease)
        except BaseException:  # killed in the middle, or no thread to be had: only this knows of these runs
            for lease in set(leases) - begun:
                self._let_go(lease)
            raise
        if not leases and self._look_again_in < LONGEST_LOOK and self.is_left():
            # The last incarnation is being cleaned up, and its runs are free when that is done.
            agent.send_after(self._look_again_in, LOOK)
            self._look_again_in *= 2

    def _waits(self) -> bool:
        try:
            return self._agent.services.journal.has_claimable(self._agent.name)
        except JournalError:
            return True  # looking finds out why

    def _let_go(self, lease: RunLease) -> None:
        """Release a run that was not begun."""
        try:
            if not lease.over:
                lease.release()
        except JournalError:
            self._agent.services.runs.settle_later(lambda: self._let_go(lease))

    def _begin(self, lease: RunLease) -> None:
        agent = self._agent
        options, services = self.options, agent.services
        job = Job(
            lease,
            agent.new_requests(),
            services=services.runs,
            owner=_Owner(agent),
            breakers=services.breakers_for(agent.actor_ref),
            protected=bool(options.checkpoint),
            attempts=options.step_attempts,
        )
        work = Work(lease, job, self._code, services.runs, alone=options.concurrency == 1)
        name, me = agent.name, agent.actor_ref
        lease.on_lost(lambda _: me.cast(_Over(lease.run_id, expired=False)))
        ref: ActorRef[Worker] = agent.start_link(Worker, work, lambda: services.poke(name))
        # Linked alone, a busy worker would learn of our end only between messages, and it has but one.
        agent.own(ref, close=lambda: ref.kill("its agent ended"))
        self.working[ref] = work
        if lease.run.deadline is not None:
            agent.send_after(max(0.0, lease.run.deadline - services.env.wall()), _Over(lease.run_id, expired=True))
        ref.cast(LOOK)

    def _worker_ended(self, ref: ActorRef[Worker], reason: Reason) -> None:
        del self.working[ref]
        self._agent.disown(ref)
        if reason.is_normal_family or isinstance(reason, Killed):
            if self._agent.duty.over:
                self._agent.duty.look()
            elif self._waits():
                self.look()
        else:
            self._agent.stop(reason)

    def _end_workers(self, over: _Over) -> None:
        """End the code of a run that takes no more steps, if it does not come to an end by itself."""
        for ref, work in list(self.working.items()):
            if work.lease.run_id == over.run_id:
                if over.expired:
                    work.expire(RunDeadlineExceeded(f"run {over.run_id} was not finished by its deadline"))
                self._agent.send_after(CANCEL_GRACE, _KillWorker(ref))
