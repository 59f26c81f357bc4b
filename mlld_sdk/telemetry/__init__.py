"""One stream of truth: every state transition is one event, and everything that shows it is a view of that event."""

from .bus import AlreadyAttached, Bus, HandlerDetached, Lagged

__all__ = ["AlreadyAttached", "Bus", "HandlerDetached", "Lagged"]
