"""One stream of truth: every state transition is one event, and everything that shows it is a view of that event."""

from mlld_sdk.base.spans import Span, SpanFailed, SpanStarted, SpanStopped

from .bus import AlreadyAttached, Bus, HandlerDetached, HandlerLagged

__all__ = [
    "AlreadyAttached",
    "Bus",
    "HandlerDetached",
    "HandlerLagged",
    "Span",
    "SpanFailed",
    "SpanStarted",
    "SpanStopped",
]
