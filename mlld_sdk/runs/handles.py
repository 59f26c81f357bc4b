"""Handles to runs: they name the work and not its owner, so they outlive process, actor and service."""

import asyncio
from collections.abc import Callable, Generator
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import Any

from mlld_sdk.base.loops import from_any_thread, settle
from mlld_sdk.journal import ErrorRecord, EventRecord, Journal, Outcome, RunRecord, StepRecord
from mlld_sdk.journal.errors import RunParked
from mlld_sdk.runs.errors import RunCancelled, RunFailed, WaitsForItself

RESULT_TIMEOUT = 600.0

occupied: ContextVar[str | None] = ContextVar("occupied", default=None)
"""The agent that can do nothing else before the code that asks has come to its end."""

within_run: ContextVar[bool] = ContextVar("within_run", default=False)
"""Whether the code that asks is that of a run."""


class RunHandle:
    """One run, wherever and by whomever it is worked on. Get one from `agent.run(...)` or `runtime.run(id)`.

    It holds nothing but the run's name and the journal: handles to one run may be made anywhere, at any time, as long
    as retention keeps the run.

    Attributes:
        id: Name of the run.
    """

    def __init__(self, journal: Journal, run_id: str) -> None:
        self.id = run_id
        self._journal = journal

    def result(self, timeout: float | timedelta | None = RESULT_TIMEOUT) -> Any:
        """Wait for the run to end, through crashes and restarts, and return its result.

        Args:
            timeout: Seconds to wait here; the run goes on if they pass. `None` waits for ever.

        Raises:
            RunFailed: It ended with an error.
            RunCancelled: It was cancelled.
            RunParked: It cannot go on before an operator has looked at it.
            WaitTimeout: It has not ended in time.
            RuntimeGaveUp: The root of the runtime gave up before the run had ended, so nobody here works on it.
            JournalClosed: The runtime was stopped.
            WaitsForItself: It cannot end before the caller does.
        """
        return _value_of(self.outcome(timeout))

    def outcome(self, timeout: float | timedelta | None = RESULT_TIMEOUT) -> Outcome:
        """Wait as `result` does, and return how it ended instead of raising."""
        self._refuse_to_wait_for_oneself()
        return self._journal.wait(self.id, timeout, inside=within_run.get())

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run. What it has under way on engines is killed; code that runs is asked, then ended.

        Raises:
            RunEnded: It has ended already.
        """
        self._journal.cancel(self.id, reason)

    def retry(self, *, rerun_interrupted: bool = False) -> None:
        """Put a parked, failed or cancelled run back into the queue; what it finished stays finished.

        Args:
            rerun_interrupted: Also repeat steps that were not declared harmless to repeat.
        """
        self._journal.retry(self.id, rerun_interrupted=rerun_interrupted)

    def record(self) -> RunRecord:
        """Read the run's record: state, attempts, owner, deaths."""
        return self._journal.run(self.id)

    @property
    def state(self) -> str:
        """`pending`, `running`, `finished`, `failed`, `cancelled` or `parked`."""
        return self._journal.run(self.id).state

    def steps(self) -> list[StepRecord]:
        """List the run's steps so far, in order."""
        return self._journal.steps(self.id)

    def notes(self, after: int = 0) -> list[EventRecord]:
        """List the receipts the run's code has written, from the number behind `after`."""
        return self._journal.events(run_id=self.id, after=after)

    def add_done_callback(self, function: Callable[[Outcome], None]) -> Callable[[], None]:
        """Call `function` once when the run has ended, at once if it has; returns what withdraws it."""
        return self._journal.on_outcome(self.id, function)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._settled().__await__()

    def _refuse_to_wait_for_oneself(self) -> None:
        agent = occupied.get()
        if agent is None:
            return
        run = self._journal.run(self.id)
        if run.kind == agent and run.state == "pending":
            raise WaitsForItself(f"run {self.id} waits for {agent}, which is busy with the run that waits for it")

    async def _settled(self) -> Any:
        await asyncio.to_thread(self._refuse_to_wait_for_oneself)
        over: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        tell = from_any_thread(partial(settle, over))
        begin = partial(self._journal.on_outcome, self.id, tell, partial(tell, None), inside=within_run.get())
        registered = asyncio.ensure_future(asyncio.to_thread(begin))
        try:
            await asyncio.shield(registered)
            outcome = await over
            if outcome is None:
                outcome = await asyncio.to_thread(self._journal.last_look, self.id)
            return _value_of(outcome)
        finally:
            over.cancel()
            registered.add_done_callback(_withdraw)

    def __repr__(self) -> str:
        return f"<run {self.id}>"


def _withdraw(registered: "asyncio.Future[Callable[[], None]]") -> None:
    if not registered.cancelled() and registered.exception() is None:
        registered.result()()


def _value_of(outcome: Outcome) -> Any:
    error = outcome.error or ErrorRecord(code="UNKNOWN", message="no error was recorded")
    match outcome.state:
        case "finished":
            return outcome.value
        case "failed":
            raise RunFailed(outcome.run_id, error)
        case "cancelled":
            raise RunCancelled(outcome.run_id, outcome.error)
        case "parked":
            raise RunParked(outcome.run_id, error.message)
