"""From an engine's raw events to run events, one reader's fold over the raw stream."""

from collections.abc import Callable, Iterator
from typing import Any

from mlld_sdk.scripts import results
from mlld_sdk.scripts.results import as_object, as_text, as_whole
from mlld_sdk.scripts.stream_events import (
    CheckpointHit,
    CheckpointMissed,
    CommandOutput,
    GuardDenied,
    LlmError,
    LlmEvent,
    LlmThinking,
    LlmToken,
    LlmToolResult,
    LlmToolUse,
    LlmUsage,
    ModelUnanswered,
    OtherEvent,
    OutputWritten,
    ScriptEvent,
    SessionWritten,
    StageChanged,
    StateWritten,
    TraceRecorded,
)
from mlld_sdk.scripts.tokens import StreamParser
from mlld_sdk.scripts.types import Effect, GuardDenial, SessionWrite, StateWrite, TraceEvent, Unanswered

MOST_STREAMS = 256
"""Commands whose output is parsed at once; beyond that the one that has been open longest is closed."""


class Normaliser:
    """Turns raw events into run events. Not thread-safe; its owner feeds it every event, in order.

    Model streams are read from the raw output of commands (`stream:chunk`), which alone tells parallel calls apart. The
    engine's own reading of it (`streaming:*`) is used only while nothing in the raw output was recognised.
    """

    def __init__(self) -> None:
        self._streams: dict[str, StreamParser] = {}
        self._recognised = False

    def feed(self, event: dict[str, Any]) -> Iterator[ScriptEvent]:
        """Read one raw event, which may be worth several run events or none."""
        kind = str(event.get("type", ""))
        if kind == "stream:chunk":
            yield from self._chunk(as_object(event.get("event")))
        elif kind.startswith("streaming:"):
            if not self._recognised:
                yield from _streaming(kind, event)
        elif kind in _READERS:
            if (read := _READERS[kind](event)) is not None:
                yield read
        elif kind.startswith("debug:") or kind in ("execution:complete", "result"):
            return
        else:
            yield OtherEvent(type=kind, data={k: v for k, v in event.items() if k not in ("id", "requestId", "type")})

    def finish(self) -> Iterator[ScriptEvent]:
        """Read the end of the run: what the streams still hold."""
        for parser in self._streams.values():
            yield from parser.finish()
        self._streams.clear()

    def _chunk(self, chunk: dict[str, Any]) -> Iterator[ScriptEvent]:
        text, stream = chunk.get("chunk"), _stream_of(chunk)
        if not isinstance(text, str):
            return
        if chunk.get("source") == "stderr":
            yield CommandOutput(text=text, source="stderr", stream=stream)
            return
        parser = self._streams.get(stream)
        if parser is None:
            if len(self._streams) >= MOST_STREAMS:
                yield from self._streams.pop(next(iter(self._streams))).finish()
            parser = self._streams[stream] = StreamParser(stream)
        yield from parser.feed(text)
        self._recognised = self._recognised or parser.recognised


def _stream_of(chunk: dict[str, Any]) -> str:
    parts = (chunk.get("pipelineId"), chunk.get("stageIndex"), chunk.get("parallelIndex"))
    return "/".join(str(part) for part in parts if part is not None)


def _streaming(kind: str, event: dict[str, Any]) -> Iterator[LlmEvent]:
    match kind.removeprefix("streaming:"):
        case "message" if event.get("chunk"):
            yield LlmToken(text=str(event["chunk"]))
        case "thinking" if event.get("text"):
            yield LlmThinking(text=str(event["text"]))
        case "tool-use":
            # On engines up to 2.0.5 the tool call's id stands where the request's belongs.
            tool_id = event.get("toolUseId", event.get("id"))
            yield LlmToolUse(tool_use_id=str(tool_id or ""), name=str(event.get("name", "")), input=event.get("input"))
        case "tool-result":
            yield LlmToolResult(
                tool_use_id=str(event.get("toolUseId", "")),
                content=event.get("result"),
                is_error=event.get("success") is False,
            )
        case "metadata":
            usage = as_object(event.get("usage"))
            yield LlmUsage(
                input_tokens=as_whole(usage.get("inputTokens")),
                output_tokens=as_whole(usage.get("outputTokens")),
                model=as_text(event.get("model")),
            )
        case "error":
            yield LlmError(message=str(event.get("message", "")), code=as_text(event.get("code")))


def _of(event: type[Any], field: str, kind: type[Any], member: str) -> Callable[[dict[str, Any]], ScriptEvent | None]:
    """Make the reader of raw events that carry one value of this kind."""

    def read_event(raw: dict[str, Any]) -> ScriptEvent | None:
        value = results.read(kind, raw.get(member))
        return None if value is None else event(**{field: value})

    return read_event


def _output_written(event: dict[str, Any]) -> ScriptEvent | None:
    effect = results.read(Effect, event.get("effect"))
    return None if effect is None else OutputWritten(text=effect.content or "", channel=effect.type, path=effect.path)


def _checkpoint(kind: type[CheckpointHit] | type[CheckpointMissed], event: dict[str, Any]) -> ScriptEvent:
    about = as_object(event.get("checkpoint"))
    return kind(
        function=str(about.get("fn", "")), key=str(about.get("key", "")), preview=str(about.get("argsPreview", ""))
    )


def _stage(event: dict[str, Any]) -> ScriptEvent:
    inner = as_object(event.get("event")) or event
    known = {"id", "requestId", "type", "timestamp", "pipelineId", "stageIndex", "parallelIndex", "event"}
    return StageChanged(
        what=str(inner.get("type", "")),
        stage=as_whole(inner.get("stageIndex")),
        stream=_stream_of(inner),
        detail={name: value for name, value in inner.items() if name not in known},
    )


_READERS = {
    "state:write": _of(StateWritten, "write", StateWrite, "write"),
    "session_write": _of(SessionWritten, "write", SessionWrite, "session_write"),
    "guard_denial": _of(GuardDenied, "denial", GuardDenial, "guard_denial"),
    "trace_event": _of(TraceRecorded, "trace", TraceEvent, "traceEvent"),
    "effect": _output_written,
    "llm:unanswered": _of(ModelUnanswered, "call", Unanswered, "unanswered"),
    "checkpoint:hit": lambda event: _checkpoint(CheckpointHit, event),
    "checkpoint:miss": lambda event: _checkpoint(CheckpointMissed, event),
    "stream:progress": _stage,
    "command:start": _stage,
    "command:complete": _stage,
}
