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


class StepHeld(Event, frozen=True, kw_only=True, tag="step.held"):
    """A step waits until its circuit breaker lets it through; told once for each time it waits.

    Attributes:
        run_id: The run.
        agent: Who works on it.
        step: Name of the step.
        breaker: Name of the breaker.
        retry_after: Seconds until it is worth trying again.
    """

    run_id: str
    agent: str
    step: str
    breaker: str
    retry_after: float
