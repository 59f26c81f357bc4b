"""Spans: something that begins and ends, told as two events that belong together.

Requests of agents, pools and clients are spans named `process`, `execute` and `analyze`; programs make spans of their
own with `bus.span(...)`. Where nobody listens a span costs next to nothing.
"""

import contextlib
import itertools
import os
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Event, Sink, discard, is_listened

_numbers = itertools.count(1)

REQUESTS: Final = frozenset({"request.finished", "span.started", "span.stopped"})
"""What is told of a request that goes well, where somebody listens."""

TRACE_LIMIT: Final = 8_000
"""Characters of a traceback that are kept; the last ones."""


class SpanEvent(Event, frozen=True, kw_only=True):
    """Something about a span.

    Attributes:
        span: Tells it apart from every other span of this machine.
        name: What is done: `process`, `execute`, `analyze`, or a program's own word.
        fields: What was said about it when it began.
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
        results: What was said about it while it lasted, and at its end.
    """

    seconds: float
    results: dict[str, Any] = msgspec.field(default_factory=dict)


class SpanFailed(SpanEvent, frozen=True, kw_only=True, tag="span.failed"):
    """A span ended with an exception, which went on to whoever asked.

    Attributes:
        seconds: How long it took.
        kind: Name of the exception's class.
        code: The error's code, or the same name when it has none.
        reason: The error in one line.
        trace: Its traceback, cut at the front; empty for the library's own errors, which say all in one line.
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
        is_told: Whether what is noted about it reaches anybody.
    """

    __slots__ = ("_began", "_env", "_fields", "_open", "_results", "_sink", "id", "name")

    is_told: ClassVar[bool] = True

    def __init__(self, sink: Sink, env: Env, name: str, fields: dict[str, Any]) -> None:
        self.id = _new_id()
        self.name = name
        self._sink = sink
        self._env = env
        self._fields = fields
        self._results: dict[str, Any] = {}
        self._open = True
        self._began = env.now()
        sink(SpanStarted(at=env.wall(), span=self.id, name=name, fields=fields))

    def note(self, **results: Any) -> None:
        """Say something that is to be told at the end."""
        self._results.update(results)

    def stop(self, **results: Any) -> None:
        """End it well."""
        if self._open:
            self._open = False
            env = self._env
            self._sink(
                SpanStopped(
                    at=env.wall(),
                    span=self.id,
                    name=self.name,
                    fields=self._fields,
                    seconds=env.now() - self._began,
                    results={**self._results, **results},
                )
            )

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        if self._open:
            self._open = False
            known = isinstance(error, MlldError)
            kind = type(error).__name__
            self._sink(
                SpanFailed(
                    at=self._env.wall(),
                    span=self.id,
                    name=self.name,
                    fields=self._fields,
                    seconds=self._env.now() - self._began,
                    kind=kind,
                    code=error.code if isinstance(error, MlldError) else kind,
                    reason=error.message if isinstance(error, MlldError) else str(error),
                    trace="" if known else "".join(traceback.format_exception(error))[-TRACE_LIMIT:],
                )
            )

    @contextlib.contextmanager
    def handing_over(self) -> Iterator[None]:
        """Fail it if the block does, which hands the work to somebody who will end the span."""
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.stop()
        else:
            self.fail(error)


class _Silent(Span):
    """A span that nobody listens to."""

    __slots__ = ()

    is_told = False

    def __init__(self) -> None:
        self.id = self.name = ""

    def note(self, **results: Any) -> None:
        pass

    def stop(self, **results: Any) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        pass


SILENT: Final[Span] = _Silent()


class _Failing(Span):
    """A span that is told only if it fails."""

    __slots__ = ("_params", "_who")

    is_told = False

    def __init__(
        self, sink: Sink, env: Env, name: str, params: dict[str, Any], who: dict[str, Any], began: float
    ) -> None:
        self.name = name
        self._sink = sink
        self._env = env
        self._params = params
        self._who = who
        self._open = True
        self._began = began

    def note(self, **results: Any) -> None:
        pass

    def stop(self, **results: Any) -> None:  # noqa: ARG002 - as in the class above
        self._open = False

    def fail(self, error: BaseException) -> None:
        if not self._open:
            return
        self.id = _new_id()
        self._fields = _request_fields(self._params, self._who)
        super().fail(error)


def _new_id() -> str:
    return f"{os.getpid():x}-{next(_numbers):x}"


def span(sink: Sink, env: Env, name: str, fields: dict[str, Any]) -> Span:
    """Begin a span, unless the sink is `discard`."""
    return SILENT if sink is discard else Span(sink, env, name, fields)


def begin_request(sink: Sink, env: Env, method: str, params: dict[str, Any], who: dict[str, Any]) -> Span:
    """Begin the span of a request to an engine: which script, in which mode; never its payload.

    Where the sink says that nobody listens (`Bus.listened`), it is told only if it fails.
    """
    if sink is discard:
        return SILENT
    if not is_listened(sink):
        return _Failing(sink, env, method, params, who, env.now())
    return Span(sink, env, method, _request_fields(params, who))


def failed_request(
    sink: Sink, env: Env, method: str, params: dict[str, Any], who: dict[str, Any], began: float
) -> Span:
    """Make the span of a request that nobody listened to and that has failed, to be told now."""
    return SILENT if sink is discard else _Failing(sink, env, method, params, who, began)


def _request_fields(params: dict[str, Any], who: dict[str, Any]) -> dict[str, Any]:
    path = params.get("filepath") or params.get("filePath")
    return {**who, "filepath": path, "mode": params.get("mode")} if path or "mode" in params else who
