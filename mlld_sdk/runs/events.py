"""What the code of a run tells while it works; the journal tells the rest."""

from mlld_sdk.base.events import Event


class RunProgressed(Event, frozen=True, kw_only=True, tag="run.progressed"):
    """A run said how far it is.

    Attributes:
        run_id: The run.
        agent: Who works on it.
        message: In words.
        fraction: From 0 to 1, if it can be said.
    """

    run_id: str
    agent: str
    message: str
    fraction: float | None = None
