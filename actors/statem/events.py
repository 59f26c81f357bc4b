"""What happens in state machines, as events: one for each transition."""

from mlld_sdk.base.events import Event


class StateChanged(Event, frozen=True, kw_only=True, tag="state.changed"):
    """A state machine went to another state.

    Attributes:
        actor: Its path.
        epoch: Its incarnation.
        old: The state it left.
        new: The state it is in.
        cause: The event that led there, as its declaration names it.
    """

    actor: str
    epoch: int
    old: str
    new: str
    cause: str
