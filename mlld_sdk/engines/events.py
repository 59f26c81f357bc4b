"""What happens on the way to an engine."""

from mlld_sdk.base.events import Event


class CheckpointLookup(Event, frozen=True, kw_only=True):
    """Base of what happens when a model call is looked up in the cache.

    Attributes:
        agent: Path of the agent or pool whose script made it.
        function: Name of the function.
        key: Its key in the cache.
    """

    agent: str
    function: str
    key: str


class CheckpointHitEvent(CheckpointLookup, frozen=True, kw_only=True, tag="checkpoint.hit"):
    """A model call was answered from the cache; nothing was paid for it again."""


class CheckpointMissedEvent(CheckpointLookup, frozen=True, kw_only=True, tag="checkpoint.missed"):
    """A model call was made, and its answer kept."""
