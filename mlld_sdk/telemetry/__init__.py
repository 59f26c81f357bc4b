"""One stream of truth: every state transition is one event, and everything that shows it is a view of that event.

`bus` carries the events to handlers; `log`, `json_lines`, `prometheus`, `otel` and `elixir` show them to other
programs; `history`, `crash_report` and `places` keep what they say, ready to be asked. Views read events and nothing
else. The runtime, control and programs come in by the modules.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.base.events import Event as Event
    from mlld_sdk.base.events import name_of as name_of
    from mlld_sdk.base.spans import Span as Span
    from mlld_sdk.base.spans import SpanFailed as SpanFailed
    from mlld_sdk.base.spans import SpanStarted as SpanStarted
    from mlld_sdk.base.spans import SpanStopped as SpanStopped
    from mlld_sdk.telemetry.bus import AlreadyAttached as AlreadyAttached
    from mlld_sdk.telemetry.bus import Bus as Bus
    from mlld_sdk.telemetry.bus import HandlerDetached as HandlerDetached
    from mlld_sdk.telemetry.bus import HandlerLagged as HandlerLagged
    from mlld_sdk.telemetry.json_lines import log_json as log_json
else:
    __all__, __getattr__, __dir__ = exports(__name__)
