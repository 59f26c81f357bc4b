"""What can go wrong in a state machine."""

from mlld_sdk.actors.core.errors import ActorError


class UnhandledEvent(ActorError):
    """A state got an event for which it declares no handler."""

    code = "UNHANDLED_EVENT"


class UndeclaredTransition(ActorError):
    """A handler led to a state that its declaration does not name."""

    code = "UNDECLARED_TRANSITION"
