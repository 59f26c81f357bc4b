"""What happens to subscribers, as events: one for each transition."""

from mlld_sdk.base.events import Event


class SubscriberLagged(Event, frozen=True, kw_only=True, tag="subscriber.lagged"):
    """A subscriber is behind: messages for it are dropped from here on.

    Attributes:
        actor: The subscriber's path.
        source: What it subscribed to.
        limit: Messages that may wait for it.
    """

    actor: str
    source: str
    limit: int


class SubscriberResumed(Event, frozen=True, kw_only=True, tag="subscriber.resumed"):
    """A subscriber caught up: messages reach it again.

    Attributes:
        actor: The subscriber's path.
        source: What it subscribed to.
        missed: How many messages it missed.
    """

    actor: str
    source: str
    missed: int
