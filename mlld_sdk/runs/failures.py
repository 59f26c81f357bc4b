"""What an error inside a run means: its answer, or the end of this ownership of it. Pure decisions (A-40 to A-43).

An error is an answer if another owner of the run would meet it, too: something the run has called did not answer, or
said no. It ends the ownership if it is about the owner itself or the journal: the next owner goes on with the run.
"""

import concurrent.futures
from typing import Final, Protocol

from mlld_sdk.actors.core.errors import AskCancelled
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError
from mlld_sdk.engines.pool import NoEngineFree
from mlld_sdk.engines.quota import EngineQuotaExhausted
from mlld_sdk.journal.errors import (
    JournalError,
    JournalRefusal,
    LeaseHeld,
    LeaseLost,
    RunInQuarantine,
    RunParked,
    WaitTimeout,
)
from mlld_sdk.runs.errors import JobCancelled, OwnerGone, RunCancelled
from mlld_sdk.scripts.answers import TruncatedResult
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.transport.errors import CallCancelled, CallTimeout, EngineOverloaded

OF_OWN_ENGINES: Final = (CallTimeout, TruncatedResult, EngineOverloaded)
"""What the run's own engines may say without having failed: too slow, too long, too much at once."""

OF_OTHER_RUNS: Final = (WaitTimeout, LeaseHeld, LeaseLost, RunInQuarantine)
"""What a journal that works says about another run."""


class Owner(Protocol):
    """The agent that works on a run."""

    def stops(self) -> bool:
        """Whether it is being stopped in order, perhaps after others that its runs rely on."""

    def crashes(self) -> bool:
        """Whether an engine of its own has failed, so that it is about to crash, if it has not yet."""


def what_ends(error: BaseException, owner: Owner, *, on_own_engine: bool = False) -> InfrastructureError | None:
    """Return what ends the ownership of a run after an error inside it; `None` if the error is an answer.

    Args:
        error: What was raised in a step or between steps.
        owner: The agent.
        on_own_engine: Whether it came from a step on an engine of the agent.
    """
    if not isinstance(error, InfrastructureError):
        return None
    if isinstance(error, JournalError):
        return None if isinstance(error, OF_OTHER_RUNS) else error
    if hasattr(error, "exit_reason"):  # it asks for the end of the actor
        return error
    if on_own_engine and isinstance(error, OF_OWN_ENGINES):
        return None
    if owner.stops():  # what the run relies on may have been stopped first
        return OwnerGone("the agent stops")
    return error if on_own_engine or owner.crashes() else None


NO_NEWS: Final = (
    CallCancelled,
    AskCancelled,
    RunCancelled,
    JobCancelled,
    concurrent.futures.CancelledError,
    ConfigurationError,
    TruncatedResult,
    NoEngineFree,
    EngineQuotaExhausted,
    EngineOverloaded,
)
"""Errors that say nothing about what a step has called: it was taken back, was wrong, or was never sent."""


def is_news(error: BaseException, breaker: str) -> bool:
    """Decide whether a failed attempt of a step says anything about what the breaker of that name guards."""
    if not isinstance(error, Exception) or isinstance(error, NO_NEWS):
        return False
    if isinstance(error, JournalError | JournalRefusal):
        return isinstance(error, WaitTimeout | RunParked)
    return not (isinstance(error, BreakerOpen) and error.breaker == breaker)
