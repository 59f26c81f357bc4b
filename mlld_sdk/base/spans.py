"""Spans: work that begins and ends, told as two events that belong together.

Requests of agents, pools and clients are spans named `process`, `execute` and `analyze`; programs make spans of their
own with `bus.span(...)`. Without a listener a span costs next to nothing.
"""

import itertools
import os
import traceback
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Event, Sink
from mlld_sdk.base.secrets import redacted
from mlld_sdk.base.texts import text_of_failure

_numbers = itertools.count(1)

REQUESTS: Final = frozenset({"request.finished", "span.started", "span.stopped"})
"""What is told of a request that goes well, where there is a listener."""

Fields = dict[str, Any] | Callable[[], dict[str, Any]]
"""What is known about a span when it begins, or makes that when it is told."""

TRACE_LIMIT: Final = 8_000
"""Characters of a traceback that are kept; the last ones."""


class SpanEvent(Event, frozen=True, kw_only=True):
    """Something about a span.

    Attributes:
        span: Tells it apart from every other span of this machine.
        name: What is done: `process`, `execute`, `analyze`, or a program's own word.
        fields: What was known about it when it began.
    """

    span: str
    name: str
    fields: dict[str, Any] = msgspec.field(default_factory=dict)


class SpanStarted(SpanEvent, frozen=True, kw_only=True, tag="span.started"):
    """A span began."""


class SpanStopped(SpanEvent, frozen=True, kw_only=True, tag="span.stopped"):
    """A span ended as it should.

    Attributes:
        seconds: How long it took.
        results: What was noted about it while it lasted, and at its end.
    """

    seconds: float
    results: dict[str, Any] = msgspec.field(default_factory=dict)


class SpanFailed(SpanEvent, frozen=True, kw_only=True, tag="span.failed"):
    """A span ended with an exception, which went on to the caller.

    Attributes:
        seconds: How long it took.
        kind: Name of the exception's class.
        code: The error's code, or the same name when it has none.
        reason: The error in one line.
        trace: Its traceback, cut at the front; empty for the library's own errors, which need no more than a line.
    """

    seconds: float
    kind: str
    code: str
    reason: str
    trace: str = ""


class Span:
    """One span under way. Usable in a `with` block, or ended by `stop` or `fail`; the first end counts.

    Attributes:
        id: Its id.
        name: What is done.
        is_told: Whether it is told that it began and how it ended, not only that it failed.
    """

    __slots__ = ("_began", "_env", "_fields", "_open", "_results", "_sink", "id", "is_told", "name")

    def __init__(self, sink: Sink, env: Env, name: str, fields: Fields, began: float | None = None) -> None:
        """Begin it; with the moment when it began (`Env.now`), it is told only if it fails."""
        self.id: str = ""
        self.name: str = name
        self.is_told: bool = began is None
        self._sink = sink
        self._env = env
        self._fields = fields
        self._results: dict[str, Any] = {}
        self._open = True
        self._began = env.now() if began is None else began
        if self.is_told:
            sink(SpanStarted(at=env.wall(), **self._facts()))

    def note(self, **results: Any) -> None:
        """Note something that is to be told at the end."""
        if self.is_told:
            self._results.update(results)

    def stop(self, **results: Any) -> None:
        """End it well."""
        if self._open:
            self._open = False
            if self.is_told:
                at, took = self._env.wall(), self._env.now() - self._began
                self._sink(SpanStopped(at=at, **self._facts(), seconds=took, results={**self._results, **results}))

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        if self._open:
            self._open = False
            kind, known = type(error).__name__, error if isinstance(error, MlldError) else None
            self._sink(
                SpanFailed(
                    at=self._env.wall(),
                    **self._facts(),
                    seconds=self._env.now() - self._began,
                    kind=kind,
                    code=known.code if known else kind,
                    reason=text_of_failure(known.message if known else error),
                    trace="" if known else redacted("".join(traceback.format_exception(error)))[-TRACE_LIMIT:],
                )
            )

    def _facts(self) -> dict[str, Any]:
        self.id = self.id or f"{os.getpid():x}-{next(_numbers):x}"
        self._fields = self._fields() if callable(self._fields) else self._fields
        return {"span": self.id, "name": self.name, "fields": self._fields}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.stop()
        else:
            self.fail(error)


def request_span(
    sink: Sink, env: Env, method: str, params: dict[str, Any], who: dict[str, Any], began: float | None = None
) -> Span:
    """Begin the span of a request to an engine: which script, in which mode; never its payload."""
    return Span(sink, env, method, partial(_request_fields, params, who), began)


def _request_fields(params: dict[str, Any], who: dict[str, Any]) -> dict[str, Any]:
    path = params.get("filepath") or params.get("filePath")
    return {**who, "filepath": path, "mode": params.get("mode")} if path or "mode" in params else who
