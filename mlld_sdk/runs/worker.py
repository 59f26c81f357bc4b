"""Working on a run: claim to outcome, on a thread of its own, so that the agent's mailbox never waits for a script."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import ActorKilled
from mlld_sdk.base.errors import InfrastructureError, MlldError
from mlld_sdk.base.loops import from_any_thread
from mlld_sdk.journal import RunLease
from mlld_sdk.journal.errors import JournalError, JournalRefusal, LeaseLost
from mlld_sdk.runs.async_job import AsyncJob, LoopBridge
from mlld_sdk.runs.errors import JobCancelled, OwnerGone
from mlld_sdk.runs.failures import what_ends
from mlld_sdk.runs.handles import occupied, within_run
from mlld_sdk.runs.job import NEEDS_A_LOOK, Job
from mlld_sdk.runs.state import RunServices

ASYNC_STEPS = 64
"""Steps an `async def run` may have under way at once; more wait their turn."""


class Work:
    """One run being worked on, and every way that can end. Thread-safe.

    Attributes:
        lease: Ownership of the run.
        job: What the code of the run holds.
    """

    def __init__(
        self, lease: RunLease, job: Job, run: Callable[[Any, Any], Any], services: RunServices, *, alone: bool
    ) -> None:
        self.lease = lease
        self.job = job
        self._run = run
        self._services = services
        self._alone = alone
        self._settling = threading.Lock()
        self._stops = False
        lease.on_lost(lambda lost: job.shared.seal(JobCancelled(lost.message)))

    def perform(self) -> None:
        """Run the code and write down how it ended. Raises only if the agent has to be restarted."""
        try:
            value = self._call()
        except ActorKilled:
            raise
        except BaseException as error:  # noqa: BLE001 - the run's own code may raise anything, an exit too
            self._settle(partial(self._failed, error))
        else:
            self._settle(partial(self._finished, value))
        broken = self.job.shared.broken
        # A journal that fails is no fault of the agent's, and restarting the agent would not mend it.
        if isinstance(broken, InfrastructureError) and not isinstance(broken, JournalError | OwnerGone):
            raise broken

    def hand_back(self) -> None:
        """Stop working in good order: the run is free to be taken up again."""
        self._stops = True  # before the code wakes, whose end is no death then
        self.job.shared.seal(OwnerGone("the agent stops"))
        self._settle(self.lease.release)

    def give_up(self, reason: str) -> None:
        """Report that its worker is dead. The run is free to be taken up again, unless it killed too many workers."""
        self.job.shared.seal(OwnerGone(reason))
        self._settle(lambda: self.lease.abandon(reason))

    def expire(self, error: MlldError) -> None:
        """Fail the run because its deadline has passed."""
        self._settle(lambda: self.lease.fail_run(error))
        self.job.shared.seal(JobCancelled(error.message, code=error.code))

    def _call(self) -> Any:
        within_run.set(True)
        if self._alone:
            occupied.set(self.lease.run.kind)
        payload = self.lease.input
        if not inspect.iscoroutinefunction(self._run):
            return self._run(self.job, payload)
        with ThreadPoolExecutor(ASYNC_STEPS, thread_name_prefix=self.lease.run_id) as steps, asyncio.Runner() as runner:
            return runner.run(self._awaited(LoopBridge(steps, runner.get_loop()), payload))

    async def _awaited(self, bridge: LoopBridge, payload: Any) -> Any:
        code = asyncio.current_task()
        assert code is not None
        self.job.shared.interrupting(from_any_thread(code.cancel))
        try:
            return await self._run(AsyncJob(self.job, bridge), payload)
        finally:
            self.job.shared.interrupting(None)
            self.job.shared.wake()  # for steps that are waited for no more
            await bridge.close()

    def _finished(self, value: Any) -> None:
        if self.job.shared.broken is not None:  # the code swallowed what ended the job; its word does not count
            self._failed(self.job.shared.broken)
            return
        try:
            self.lease.finish_run(value)
        except JournalRefusal as refused:
            self.lease.fail_run(refused)

    def _failed(self, error: BaseException) -> None:
        shared = self.job.shared
        ends = shared.broken or what_ends(error, shared.owner)
        if isinstance(ends, InfrastructureError):
            shared.seal(ends)
            if self._stops or shared.owner.stops():
                self.lease.release()
            else:
                self.lease.abandon(str(ends))
        elif isinstance(ends or error, NEEDS_A_LOOK):
            self.lease.park_run(ends or error)
        else:
            self.lease.fail_run(ends or error)

    def _settle(self, write: Callable[[], Any]) -> None:
        """Write the end of this ownership, once; if the journal fails, as soon as it works again."""
        with self._settling:
            if self.lease.over:
                return
            try:
                write()
            except LeaseLost:
                pass  # the run has another owner, which goes on from what was finished
            except JournalError as error:
                self.job.shared.seal(error)
                self._services.settle_later(lambda: self._settle(write))


class Worker(Actor):
    """Works on one run and ends with it. Linked to its agent: neither outlives the other."""

    threaded: ClassVar[bool] = True

    def __init__(self, work: Work, freed: Callable[[], None]) -> None:
        """Make a worker; `freed` is called when it was ended before the run was, which is free to be taken up again."""
        super().__init__()
        self._work = work
        self._freed = freed

    def on_start(self) -> None:
        """Register that the run is given up, however this worker ends."""
        self.own(self, close=self._release)

    def on_receive(self, message: Any) -> None:  # noqa: ARG002 - any message is the signal
        """Work."""
        self._work.perform()
        self.stop()

    def _release(self) -> None:
        was_over = self._work.lease.over
        self._work.give_up("its worker was ended")
        if not was_over:
            self._freed()
