"""What can go wrong with topics and groups; each is an `ActorError`."""

from mlld_sdk.actors.core.errors import ActorError


class Unsubscribed(ActorError):
    """The listener was closed; there is nothing more to take."""

    code = "UNSUBSCRIBED"


class NotJoined(ActorError):
    """None of the actors was a member of the group."""

    code = "NOT_JOINED"
