"""One stream of truth: every state transition is one event, and everything that shows it is a view of that event."""

from .bus import AlreadyAttached, Bus, HandlerDetached, Lagged
from .spans import Span, SpanFailed, SpanStarted, SpanStopped

__all__ = ["AlreadyAttached", "Bus", "HandlerDetached", "Lagged", "Span", "SpanFailed", "SpanStarted", "SpanStopped"]
