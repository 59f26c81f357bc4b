"""Events as log lines, by structlog. Nothing here configures logging: that is the program's choice."""

import sys
from collections.abc import MutableMapping
from typing import Any, Final

import msgspec
import structlog

from mlld_sdk.base.events import Event, name_of
from mlld_sdk.base.texts import printable
from mlld_sdk.telemetry.bus import Bus

DEBUG: Final = {
    "request.finished",
    "step.started",
    "step.finished",
    "checkpoint.hit",
    "checkpoint.missed",
    "actor.started",
    "span.started",
    "span.stopped",
    "span.failed",
    "step.held",
}
WARNING: Final = {
    "agent.missed",
    "breaker.opened",
    "callback.failed",
    "child.exited",
    "child.put_off",
    "child.start_failed",
    "child.wedged",
    "engine.callback_failed",
    "engine.polluted",
    "journal.exposed",
    "journal.listener_failed",
    "journal.repaired",
    "mailbox.overflowed",
    "message.unhandled",
    "model.unanswered",
    "orphans.swept",
    "resource.close_failed",
    "run.owner_died",
    "step.failed",
    "telemetry.lagged",
    "workers.exhausted",
    "zombie.left",
}
ERROR: Final = {"journal.degraded", "run.damaged", "run.parked", "supervisor.gave_up", "telemetry.handler_detached"}
GIVEN_UP: Final = {"fail", "give_up"}
"""Decisions about a child after which it is not started again."""


def level_of(event: Event) -> str:
    """Return the log level of an event.

    `debug` for routine, `info` for ordinary life, `warning` for what is being handled, `error` for what needs a person.
    """
    name = name_of(event)
    if name == "child.exited" and getattr(event, "kind", "") in ("normal", "shutdown"):
        return "info"
    if name in ERROR or (name in WARNING and getattr(event, "decision", None) in GIVEN_UP):
        return "error"
    if name == "engine.exited":
        expected = getattr(event, "code", None) == 0 or not getattr(event, "in_flight", 0)
        return "info" if expected else "warning"
    return "warning" if name in WARNING else "debug" if name in DEBUG else "info"


def fields_of(event: Event) -> dict[str, Any]:
    """Return an event's fields as plain values, without those that are empty."""
    plain: dict[str, Any] = msgspec.to_builtins(event)
    return {name: value for name, value in plain.items() if value not in (None, "", [], {}) and name != "type"}


def log_events(bus: Bus, logger: Any = None, *, key: str = "log", debug: bool = True) -> None:
    """Write every event as one log line, on a thread of its own.

    Args:
        bus: Where they come from.
        logger: A structlog logger; `structlog.get_logger("mlld_sdk")` by default.
        key: Id to detach by.
        debug: Whether events of level `debug` are written, such as begin and end of each request. Without, requests
            that go well are not even emitted, unless another handler wants them.
    """
    log = logger if logger is not None else structlog.get_logger("mlld_sdk")

    def write(event: Event) -> None:
        fields = fields_of(event)
        if "event" in fields:  # structlog's own word for the name, which an event from elsewhere may use as well
            fields["event_"] = fields.pop("event")
        getattr(log, level_of(event))(name_of(event), **fields)

    bus.attach(key, write, besides=() if debug else DEBUG)


class _Plain:
    """Writes an event in one line that steers no terminal; tracebacks a program logs itself keep their lines."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

    def __call__(self, logger: Any, name: str, fields: MutableMapping[str, Any]) -> str:
        lines = not fields.keys().isdisjoint(("exc_info", "exception", "stack"))
        return printable(self._render(logger, name, fields), lines=lines)


def stderr_logger(*, as_json: bool = False) -> Any:
    """Make a logger for a program that has none of its own: one line an event on stderr, for any settings of structlog.

    Args:
        as_json: Whether a line is a JSON object.
    """
    form: Any = structlog.processors.JSONRenderer(default=str) if as_json else _Plain()
    return structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),  # a line in one piece: others write to the same stream
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper("iso", utc=True), form],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
