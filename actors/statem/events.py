"""What happens in state machines, as events: one for each transition."""

from mlld_sdk.actors.core.events import ActorEvent


class StateChanged(ActorEvent, frozen=True, kw_only=True, tag="state.changed"):
    """A state machine went to another state.

    Attributes:
        old: The state it left.
        new: The state it is in.
        cause: The event that led there, as its declaration names it.
    """

    old: str
    new: str
    cause: str
