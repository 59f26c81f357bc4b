"""What can go wrong between stages."""

from mlld_sdk.actors.core.errors import ActorError


class DemandExceeded(ActorError):
    """A producer emitted more events than its consumers asked for; nothing is kept, so nothing was taken."""

    code = "DEMAND_EXCEEDED"
