"""From what a model's command line tool prints to tokens, tool calls and token counts.

A streamed command's output reaches us as it was printed, cut at arbitrary places. `StreamParser` takes those pieces
and finds in them, line by line, the dialects model tools print: Claude Code's stream-json, Anthropic's and OpenAI's
streaming events, as plain JSON lines or as `data:` lines of an event stream. All else is command output.
Nothing is said twice: a complete message that repeats what its deltas have said is skipped.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from mlld_sdk.scripts.results import as_object, as_objects, as_text
from mlld_sdk.scripts.stream_events import (
    CommandOutput,
    LlmError,
    LlmEvent,
    LlmThinking,
    LlmToken,
    LlmToolResult,
    LlmToolUse,
    LlmUsage,
)

LONGEST_LINE = 1 << 20
"""Characters of an unfinished line that are kept before they are given up as plain output."""

_FIELDS = ("data:", "event:", "id:", "retry:", ":")
"""How the lines of an event stream begin."""

REMEMBERED = 1 << 20
"""Characters of streamed text that are kept to recognise a repetition."""


class StreamParser:
    """Reads the output of one command. Not thread-safe.

    Attributes:
        recognised: Whether any line so far was one of a model.
    """

    def __init__(self, stream: str = "") -> None:
        self.recognised = False
        self._stream = stream
        self._line = ""
        self._held = ""
        self._heard = {"text": "", "thinking": ""}  # the last of it, to recognise a repetition
        self._spoke = False
        self._tools: dict[Any, dict[str, Any]] = {}
        self._tool_ids: dict[str, None] = {}
        self._usage: dict[str, Any] = {}

    def feed(self, text: str) -> list[LlmEvent]:
        """Take the next piece of output and return what became complete with it."""
        events: list[LlmEvent] = []
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            events += self._read_line(line, "\n")
        if self._line and (len(self._line) > LONGEST_LINE or not self._may_be_ours(self._line)):
            rest, self._line = self._line, ""
            events += self._plain(rest)
        return events

    def finish(self) -> list[LlmEvent]:
        """Take the end of the output: an unfinished last line, and tool calls that were never closed."""
        rest, self._line = self._line, ""
        return [*self._read_line(rest, ""), *self._plain(""), *self._close_tools()]

    def _may_be_ours(self, line: str) -> bool:
        """Return whether an unfinished line may become one that is read here, so that it must wait for its end."""
        start = line.lstrip()
        return any(start.startswith(field) or field.startswith(start) for field in ("{", *_FIELDS))

    def _read_line(self, line: str, end: str) -> list[LlmEvent]:
        text = line.strip()
        if text.startswith("data:"):
            text = text[5:].strip()
        elif self.recognised and (not text or text.startswith(_FIELDS)):
            return []
        elif text.startswith(_FIELDS) and len(self._held) < LONGEST_LINE:
            self._held += line + end  # the head of an event stream, or plain output: the next line tells
            return []
        if self.recognised and text == "[DONE]":
            return self._close_tools()
        if text.startswith("{"):
            try:
                message = json.loads(text)
            except (ValueError, RecursionError):
                return self._plain(line + end)
            events = self._read_message(message)
            if events is not None:
                self.recognised = True
                self._held = ""
                return events
        return self._plain(line + end)

    def _plain(self, text: str) -> list[LlmEvent]:
        text, self._held = self._held + text, ""
        return [CommandOutput(text=text, stream=self._stream)] if text else []

    def _read_message(self, message: dict[str, Any]) -> list[LlmEvent] | None:
        """Read one JSON object; `None` if no model tool prints such a thing."""
        kind = message.get("type")
        if isinstance(kind, str):
            if kind.startswith("response."):
                return list(self._openai_response(kind, message))
            read = self._READERS.get(kind)
            return None if read is None else list(read(self, message))
        if isinstance(message.get("choices"), list):
            return list(self._openai_chunk(message))
        if isinstance(message.get("error"), dict):
            return list(self._on_error(message))
        return None

    # What was said, thought and called, in any dialect.

    def _say(self, text: Any, kind: str = "text") -> Iterator[LlmEvent]:
        if isinstance(text, str) and text:
            if kind == "thinking":
                yield LlmThinking(text=text, stream=self._stream)
            else:
                self._spoke = True
                yield LlmToken(text=text, stream=self._stream)

    def _say_piece(self, text: Any, kind: str) -> Iterator[LlmEvent]:
        if isinstance(text, str):
            self._heard[kind] = (self._heard[kind] + text)[-REMEMBERED:]
            yield from self._say(text, kind)

    def _call(self, tool_use_id: Any, name: Any, tool_input: Any) -> Iterator[LlmEvent]:
        known = str(tool_use_id or "")
        if known and known in self._tool_ids:
            return
        if known:
            self._tool_ids[known] = None
            if len(self._tool_ids) > 1000:
                del self._tool_ids[next(iter(self._tool_ids))]
        yield LlmToolUse(tool_use_id=known, name=str(name or ""), input=_json_or_text(tool_input), stream=self._stream)

    def _answer(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        yield LlmToolResult(
            tool_use_id=str(message.get("tool_use_id", "")),
            content=message.get("content"),
            is_error=message.get("is_error") is True,
            stream=self._stream,
        )

    def _count(self, usage: Any, *, final: bool = False, **more: Any) -> Iterator[LlmEvent]:
        found = as_object(usage)
        cached = as_object(found.get("prompt_tokens_details")).get("cached_tokens")
        for name, value in {
            "input_tokens": found.get("input_tokens", found.get("prompt_tokens")),
            "output_tokens": found.get("output_tokens", found.get("completion_tokens")),
            "cache_read_tokens": found.get("cache_read_input_tokens", cached),
            **more,
        }.items():
            fits = isinstance(value, str) if name == "model" else isinstance(value, int | float)
            if fits and not isinstance(value, bool):
                self._usage[name] = value
        if found:
            yield LlmUsage(**self._usage, final=final, stream=self._stream)

    def _open_tool(self, key: Any, tool_use_id: Any, name: Any, tool_input: Any) -> None:
        if len(self._tools) < 1000:
            self._tools[key] = {"id": tool_use_id, "name": name, "input": tool_input, "json": ""}

    def _more_input(self, key: Any, text: Any) -> None:
        tool = self._tools.get(key)
        if tool is not None and isinstance(text, str) and len(tool["json"]) < LONGEST_LINE:
            tool["json"] += text

    def _close_tool(self, key: Any) -> Iterator[LlmEvent]:
        tool = self._tools.pop(key, None)
        if tool is not None:
            yield from self._call(tool["id"], tool["name"], tool["json"] or tool["input"])

    def _close_tools(self) -> list[LlmEvent]:
        return [event for key in list(self._tools) for event in self._close_tool(key)]

    # Messages that take more than a line to read: Anthropic's streaming events, and Claude Code's own lines.

    def _on_message_start(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        yield from self._close_tools()
        self._heard = dict.fromkeys(self._heard, "")
        start = as_object(message.get("message"))
        list(self._count(start.get("usage"), model=start.get("model")))  # the first count is of the input alone

    def _on_content_block_start(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        block, index = as_object(message.get("content_block")), _place(message.get("index"))
        if block.get("type") == "tool_use":
            yield from self._close_tool(index)
            self._open_tool(index, block.get("id"), block.get("name"), block.get("input"))
        elif (kind := block.get("type")) in ("text", "thinking"):
            yield from self._say_piece(block.get(kind), kind)

    def _on_content_block_delta(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        delta = as_object(message.get("delta"))
        for kind in self._heard:
            yield from self._say_piece(delta.get(kind), kind)
        self._more_input(_place(message.get("index")), delta.get("partial_json"))

    def _on_assistant(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        yield from self._close_tools()
        whole = as_object(message.get("message"))
        list(self._count(None, model=whole.get("model")))
        content = whole.get("content")
        for block in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            match block:
                case {"type": "text" as kind, "text": str(text)} | {"type": "thinking" as kind, "thinking": str(text)}:
                    if text in self._heard[kind]:
                        self._heard[kind] = self._heard[kind].replace(text, "", 1)
                    else:
                        yield from self._say(text, kind)
                case {"type": "tool_use"}:
                    yield from self._call(block.get("id"), block.get("name"), block.get("input"))

    def _on_user(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        for block in as_objects(as_object(message.get("message")).get("content")):
            if block.get("type") == "tool_result":
                yield from self._answer(block)

    def _on_result(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        yield from self._close_tools()
        result = message.get("result")
        if message.get("is_error") is True:
            yield LlmError(message=str(result or message.get("subtype", "failed")), stream=self._stream)
        elif not self._spoke:
            yield from self._say(result)
        yield from self._count(
            message.get("usage"), final=True, model=message.get("model"), cost_usd=message.get("total_cost_usd")
        )

    def _on_error(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        error = as_object(message.get("error")) or message
        code = error.get("code", error.get("type") if error is not message else None)
        yield LlmError(message=str(error.get("message", "")), code=as_text(code), stream=self._stream)

    # OpenAI: chat completions, and the events of the responses interface.

    def _openai_chunk(self, message: dict[str, Any]) -> Iterator[LlmEvent]:
        for choice in as_objects(message["choices"]):
            delta = as_object(choice.get("delta")) or as_object(choice.get("message"))
            yield from self._say(delta.get("reasoning_content", delta.get("reasoning")), "thinking")
            yield from self._say(delta.get("content"))
            for place, call in enumerate(as_objects(delta.get("tool_calls"))):
                key = (_place(choice.get("index", 0)), _place(call.get("index", place)))
                function = as_object(call.get("function"))
                if key not in self._tools:
                    self._open_tool(key, call.get("id"), function.get("name"), None)
                self._more_input(key, function.get("arguments"))
            if choice.get("finish_reason"):
                yield from self._close_tools()
        yield from self._count(message.get("usage"), final=True, model=message.get("model"))

    def _openai_response(self, kind: str, message: dict[str, Any]) -> Iterator[LlmEvent]:
        response = as_object(message.get("response"))
        match kind:
            case "response.output_text.delta":
                yield from self._say(message.get("delta"))
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                yield from self._say(message.get("delta"), "thinking")
            case "response.output_item.done":
                item = as_object(message.get("item"))
                if item.get("type") == "function_call":
                    yield from self._call(item.get("call_id"), item.get("name"), item.get("arguments"))
            case "response.completed" | "response.incomplete":
                yield from self._count(response.get("usage"), final=True, model=response.get("model"))
            case "response.failed":
                yield from self._on_error(response)

    _READERS: ClassVar[dict[str, Callable[[Any, dict[str, Any]], Iterable[LlmEvent]]]] = {
        # Anthropic's streaming events, also inside Claude Code's `stream_event`.
        "stream_event": lambda self, message: self._read_message(as_object(message.get("event"))) or (),
        "message_start": _on_message_start,
        "content_block_start": _on_content_block_start,
        "content_block_delta": _on_content_block_delta,
        "content_block_stop": lambda self, message: self._close_tool(_place(message.get("index"))),
        "message_delta": lambda self, message: [*self._close_tools(), *self._count(message.get("usage"))],
        "message_stop": lambda self, _message: self._close_tools(),
        "ping": lambda _self, _message: (),
        # Claude Code's own lines, and the plain ones some tools print.
        "system": lambda self, message: self._count(None, model=message.get("model")),
        "assistant": _on_assistant,
        "user": _on_user,
        "result": _on_result,
        "text": lambda self, message: self._say(message.get("text")),
        "thinking": lambda self, message: self._say(message.get("thinking", message.get("text")), "thinking"),
        "tool_use": lambda self, message: self._call(message.get("id"), message.get("name"), message.get("input")),
        "tool_result": lambda self, message: self._answer(message),
        "error": _on_error,
    }
    """What reads the messages of each `type`."""


def _json_or_text(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _place(value: Any) -> int | str:
    """Return the place of a block or a call as a key, though a tool may print anything there."""
    return value if isinstance(value, int | str) else repr(value)
