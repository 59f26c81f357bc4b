"""Spans for OpenTelemetry: requests to engines and every `bus.span` become spans of a tracer. Extra: `otel`."""

from collections import OrderedDict
from typing import Any, Final

from mlld_sdk.base.errors import ExtraMissing
from mlld_sdk.base.events import Event
from mlld_sdk.base.spans import SpanFailed, SpanStarted, SpanStopped
from mlld_sdk.telemetry.bus import Bus

OPEN: Final = 10_000
"""Spans that may be under way at once; beyond it the oldest are ended as they are."""

SECOND: Final = 1_000_000_000


def export_spans(bus: Bus, tracer: Any = None, *, key: str = "otel") -> None:
    """Make an OpenTelemetry span of each of ours, with the same begin and end; on a thread of its own.

    ```python no-run
    export_spans(runtime.bus)
    ```

    Args:
        bus: Where the events come from.
        tracer: Makes the spans; `opentelemetry.trace.get_tracer("mlld_sdk")` unless given.
        key: Id to detach by.

    Raises:
        ExtraMissing: opentelemetry-api is not installed.
    """
    try:
        from opentelemetry import trace
    except ImportError as error:
        raise ExtraMissing("the export of spans", "opentelemetry-api", "otel") from error
    exporter = _Exporter(tracer or trace.get_tracer("mlld_sdk"), trace)
    bus.attach(key, exporter, events=[SpanStarted, SpanStopped, SpanFailed])


class _Exporter:
    def __init__(self, tracer: Any, trace: Any) -> None:
        self._tracer = tracer
        self._trace = trace
        self._open: OrderedDict[str, Any] = OrderedDict()

    def __call__(self, event: Event) -> None:
        match event:
            case SpanStarted():
                attributes = {"mlld.span": event.span, **_plain(event.fields)}
                self._open[event.span] = self._tracer.start_span(
                    event.name, start_time=int(event.at * SECOND), attributes=attributes
                )
                if len(self._open) > OPEN:
                    self._open.popitem(last=False)[1].end()
            case SpanStopped() | SpanFailed() if span := self._open.pop(event.span, None):
                if isinstance(event, SpanFailed):
                    span.set_attributes({"error.type": event.kind, "mlld.code": event.code})
                    span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, event.reason))
                else:
                    span.set_attributes(_plain(event.results))
                span.end(end_time=int(event.at * SECOND))


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Name fields as attributes; what is no plain value is written as text."""
    return {
        f"mlld.{name}": value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in fields.items()
        if value is not None
    }
