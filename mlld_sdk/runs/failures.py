"""What an error inside a run means: its answer, or the end of this ownership of it. Pure decisions (A-40, A-41).

An error is an answer if another owner of the run would meet it, too: something the run has called did not answer, or
said no. It ends the ownership if it is about the owner itself or the journal: the next owner goes on with the run.
"""

from typing import Final, Protocol

from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.journal.errors import JournalError, LeaseHeld, LeaseLost, WaitTimeout
from mlld_sdk.runs.errors import OwnerGone
from mlld_sdk.scripts.answers import TruncatedResult
from mlld_sdk.transport.errors import CallTimeout, EngineOverloaded

OF_OWN_ENGINES: Final = (CallTimeout, TruncatedResult, EngineOverloaded)
"""What the run's own engines may say without having failed: too slow, too long, too much at once."""

OF_OTHER_RUNS: Final = (WaitTimeout, LeaseHeld, LeaseLost)
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
