"""What happens on the way to an engine."""

from mlld_sdk.base.events import Event


class CheckpointHitEvent(Event, frozen=True, kw_only=True, tag="checkpoint.hit"):
    """A model call was answered from the cache; nothing was paid for it again.

    Attributes:
        agent: Whose script made it.
        function: Name of the function.
        key: Its key in the cache.
    """

    agent: str
    function: str
    key: str


class CheckpointMissedEvent(Event, frozen=True, kw_only=True, tag="checkpoint.missed"):
    """A model call was made, and its answer kept.

    Attributes:
        agent: Whose script made it.
        function: Name of the function.
        key: Its key in the cache.
    """

    agent: str
    function: str
    key: str
