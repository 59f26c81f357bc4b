"""The same events under the names the Elixir SDK of mlld uses, for programs that run both and have one dashboard.

| Elixir event | told when | measurements | metadata |
|---|---|---|---|
| `[:mlld, :process, :start]`, also `:execute` and `:analyze` | `span.started` of that name | `system_time` | `request_id`, `agent`, `filepath`, `mode` |
| `[:mlld, :process, :stop]`, ... | `span.stopped` | `duration` | the same, `output_size`, `state_write_count` |
| `[:mlld, :process, :exception]`, ... | `span.failed` | `duration` | the same, `code`, `reason`, `kind` |
| `[:mlld, :transport, :restart]` | `engine.started` in the place of one that had died | `count` | `command`, `reason` |
| `[:mlld, :cache, :hit]` | `checkpoint.hit` | - | `key`, `function`, `agent` |
| `[:mlld, :cache, :miss]` | `checkpoint.missed` | - | `key`, `function`, `agent` |
| `[:telemetry, :handler, :failure]` | `telemetry.handler_detached` | - | `handler_id`, `event_name`, `reason` |

Times are nanoseconds, as the BEAM's native unit usually is. What stands in the metadata and is not known is left out.
"""  # noqa: E501 - a table

from collections.abc import Callable
from typing import Any, Final

import msgspec

from mlld_sdk.base.events import Event, Sink
from mlld_sdk.base.spans import SpanFailed, SpanStarted, SpanStopped
from mlld_sdk.engines.events import CheckpointHitEvent, CheckpointMissedEvent
from mlld_sdk.telemetry.bus import HandlerDetached
from mlld_sdk.telemetry.recent import Recent
from mlld_sdk.transport.events import EngineExited, EngineStarted

REQUESTS: Final = ("process", "execute", "analyze")

OWNERS: Final = 10_000
"""Owners of engines that are remembered to count their restarts; the oldest are forgotten first."""


class ElixirEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as Elixir's `:telemetry` would execute it.

    Attributes:
        name: `("mlld", "process", "start")` for `[:mlld, :process, :start]`.
        measurements: Numbers.
        metadata: The rest.
    """

    name: tuple[str, ...]
    measurements: dict[str, int]
    metadata: dict[str, Any]

    def __str__(self) -> str:
        return f"[{', '.join(f':{part}' for part in self.name)}]"


def elixir_names(handler: Callable[[ElixirEvent], object]) -> Sink:
    """Make a handler for `bus.attach` that hands on what the Elixir SDK would have emitted, under its names.

    ```python no-run
    runtime.bus.attach("elixir", elixir_names(lambda event: print(event, event.measurements)))
    ```
    """
    translate = Translator()

    def handle(event: Event) -> None:
        found = translate(event)
        if found is not None:
            handler(found)

    return handle


class Translator:
    """Translates events one by one; remembers which engines died, to know a start from a restart."""

    def __init__(self) -> None:
        self._died: Recent[str, str] = Recent(OWNERS)
        self._restarts: Recent[str, int] = Recent(OWNERS)

    def __call__(self, event: Event) -> ElixirEvent | None:
        """Return the event under its Elixir name, or `None` when the Elixir SDK has none for it."""
        match event:
            case SpanStarted() | SpanStopped() | SpanFailed() if event.name in REQUESTS:
                return _request(event)
            case EngineExited(reason="died"):
                ending = f"exit {event.code}" if event.signal is None else f"signal {event.signal}"
                self._died[_owner(event.engine)] = ending
            case EngineStarted():
                return self._restart(event)
            case CheckpointHitEvent() | CheckpointMissedEvent():
                what = "hit" if isinstance(event, CheckpointHitEvent) else "miss"
                about = {"key": event.key, "function": event.function, "agent": event.agent}
                return ElixirEvent(name=("mlld", "cache", what), measurements={}, metadata=about)
            case HandlerDetached():
                about = {"handler_id": event.handler, "event_name": event.during, "reason": event.error}
                return ElixirEvent(name=("telemetry", "handler", "failure"), measurements={}, metadata=about)
        return None

    def _restart(self, event: EngineStarted) -> ElixirEvent | None:
        owner = _owner(event.engine)
        reason = self._died.pop(owner, None)
        if reason is None:
            return None
        count = self._restarts[owner] = self._restarts.get(owner, 0) + 1
        return ElixirEvent(
            name=("mlld", "transport", "restart"),
            measurements={"count": count},
            metadata={"command": event.command, "reason": reason},
        )


def _request(event: SpanStarted | SpanStopped | SpanFailed) -> ElixirEvent:
    about = {"request_id": event.span, **{name: value for name, value in event.fields.items() if value is not None}}
    match event:
        case SpanStarted():
            what, measured = "start", {"system_time": int(event.at * 1e9)}
        case SpanStopped():
            what, measured = "stop", {"duration": int(event.seconds * 1e9)}
            about |= event.results
        case SpanFailed():
            what, measured = "exception", {"duration": int(event.seconds * 1e9)}
            about |= {"code": event.code, "reason": event.reason, "kind": event.kind}
    return ElixirEvent(name=("mlld", event.name, what), measurements=measured, metadata=about)


def _owner(engine: str) -> str:
    """Return whose engine it is: labels are the owner's name and a number."""
    return engine.rpartition("-")[0]
