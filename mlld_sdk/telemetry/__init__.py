"""One stream of truth: every state transition is one event, and everything that shows it is a view of that event.

`bus` carries the events to handlers; `log`, `prometheus`, `otel` and `elixir` show them to other programs; `history`,
`crash_report` and `places` keep what they say, ready to be asked. Views read events and nothing else. The runtime,
control and programs come in by the modules.
"""

from mlld_sdk.base.events import Event, name_of
from mlld_sdk.base.spans import Span, SpanFailed, SpanStarted, SpanStopped

from .bus import AlreadyAttached, Bus, HandlerDetached, HandlerLagged

__all__ = [
    "AlreadyAttached",
    "Bus",
    "Event",
    "HandlerDetached",
    "HandlerLagged",
    "Span",
    "SpanFailed",
    "SpanStarted",
    "SpanStopped",
    "name_of",
]
