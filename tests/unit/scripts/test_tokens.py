"""Model streams: what command line tools print becomes tokens, tool calls and counts, each said once."""

import json
from typing import Any

import pytest

from mlld_sdk.scripts import tokens
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
from mlld_sdk.scripts.tokens import StreamParser


def lines(*messages: dict[str, Any]) -> str:
    return "".join(json.dumps(message) + "\n" for message in messages)


def parse(text: str, piece: int | None = None) -> list[LlmEvent]:
    parser = StreamParser()
    size = piece or max(1, len(text))
    events = [event for start in range(0, len(text), size) for event in parser.feed(text[start : start + size])]
    return events + parser.finish()


def said(events: list[LlmEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, LlmToken))


def anthropic(event: dict[str, Any]) -> dict[str, Any]:
    return {"type": "stream_event", "event": event}


CLAUDE_CODE = lines(
    {"type": "system", "subtype": "init", "model": "m-1"},
    anthropic({"type": "message_start", "message": {"model": "m-1", "usage": {"input_tokens": 12}}}),
    anthropic({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
    anthropic({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm. "}}),
    anthropic({"type": "content_block_stop", "index": 0}),
    *(
        anthropic({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": text}})
        for text in ("Hello", " from", " me.")
    ),
    anthropic(
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t1", "name": "Read"}}
    ),
    anthropic(
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"p'}}
    ),
    anthropic(
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '": "a"}'}}
    ),
    anthropic({"type": "content_block_stop", "index": 2}),
    {
        "type": "assistant",
        "message": {
            "content": [
                {"type": "thinking", "thinking": "Hm. "},
                {"type": "text", "text": "Hello from me."},
                {"type": "tool_use", "id": "t1", "name": "Read", "input": {"p": "a"}},
            ]
        },
    },
    anthropic({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
    anthropic({"type": "message_stop"}),
    {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t1", "content": "body"}]}},
    {
        "type": "result",
        "subtype": "success",
        "result": "Hello from me.",
        "usage": {"input_tokens": 12, "output_tokens": 9, "cache_read_input_tokens": 3},
        "total_cost_usd": 0.001,
    },
)


@pytest.mark.parametrize("piece", [None, 1, 7, 64])
def test_a_claude_code_stream_says_everything_once_wherever_it_is_cut(piece: int | None) -> None:  # C-31 C-32
    assert parse(CLAUDE_CODE, piece) == [
        LlmThinking(text="Hm. "),
        LlmToken(text="Hello"),
        LlmToken(text=" from"),
        LlmToken(text=" me."),
        LlmToolUse(tool_use_id="t1", name="Read", input={"p": "a"}),
        LlmUsage(input_tokens=12, output_tokens=9, model="m-1"),
        LlmToolResult(tool_use_id="t1", content="body"),
        LlmUsage(input_tokens=12, output_tokens=9, cache_read_tokens=3, model="m-1", cost_usd=0.001, final=True),
    ]


def test_whole_messages_without_deltas_are_said_even_if_they_repeat_each_other() -> None:  # C-32
    message = {"type": "assistant", "message": {"content": [{"type": "text", "text": "ok"}]}}
    assert said(parse(lines({"type": "assistant", "message": {"content": "ok then"}}, message, message))) == (
        "ok thenokok"
    )


def test_the_result_line_is_the_answer_only_if_nothing_was_said_before() -> None:  # C-32
    assert said(parse(lines({"type": "result", "result": "only here"}))) == "only here"
    assert said(parse(lines({"type": "text", "text": "a"}, {"type": "result", "result": "a"}))) == "a"


def test_input_of_tools_never_leaks_into_the_answer() -> None:  # C-31
    events = parse(CLAUDE_CODE)
    assert said(events) == "Hello from me."
    assert not any(isinstance(event, CommandOutput) for event in events)


def test_a_tool_call_that_is_never_closed_is_said_at_the_end() -> None:  # C-31
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "X"}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"partial_json": '{"half'}}
    assert parse(lines(start, delta)) == [LlmToolUse(tool_use_id="t", name="X", input='{"half')]


def chunk(**delta: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}


OPENAI = [
    chunk(role="assistant", content=""),
    chunk(reasoning_content="why"),
    chunk(content="Hi"),
    chunk(content=" there"),
    chunk(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"q":'}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {
        "choices": [],
        "model": "o-1",
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
    },
]
OPENAI_SAID = [
    LlmThinking(text="why"),
    LlmToken(text="Hi"),
    LlmToken(text=" there"),
    LlmToolUse(tool_use_id="c1", name="look", input={"q": 1}),
    LlmUsage(input_tokens=5, output_tokens=2, cache_read_tokens=1, model="o-1", final=True),
]


def test_openai_chunks_are_read_as_json_lines() -> None:  # C-31
    assert parse(lines(*OPENAI)) == OPENAI_SAID


@pytest.mark.parametrize("piece", [None, 1, 5])
def test_openai_chunks_are_read_as_an_event_stream(piece: int | None) -> None:  # C-31
    text = "".join(f"data: {json.dumps(message)}\n\n" for message in OPENAI) + ": keep-alive\n\ndata: [DONE]\n\n"
    assert parse(text, piece) == OPENAI_SAID


def test_the_fields_of_an_event_stream_are_neither_output_nor_lost() -> None:  # C-31 C-33
    event = json.dumps({"type": "content_block_delta", "delta": {"text": "Hi"}})
    assert parse(f"event: content_block_delta\nid: 1\ndata: {event}\n\n", 3) == [LlmToken(text="Hi")]
    told = parse("event: nothing of ours\nand more\n")
    assert "".join(event.text for event in told if isinstance(event, CommandOutput)) == (
        "event: nothing of ours\nand more\n"
    )


def test_openai_responses_are_read() -> None:  # C-31
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    response = {"model": "o-2", "usage": {"input_tokens": 1, "output_tokens": 2}}
    assert parse(
        lines(
            {"type": "response.created", "response": {}},
            {"type": "response.output_text.delta", "delta": "Hey"},
            {"type": "response.output_item.done", "item": item},
            {"type": "response.completed", "response": response},
        )
    ) == [
        LlmToken(text="Hey"),
        LlmToolUse(tool_use_id="c", name="f", input={}),
        LlmUsage(input_tokens=1, output_tokens=2, model="o-2", final=True),
    ]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"type": "error", "message": "soft", "code": "E"}, LlmError(message="soft", code="E")),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
            LlmError(message="busy", code="overloaded_error"),
        ),
        ({"error": {"message": "no key", "code": "401"}}, LlmError(message="no key", code="401")),
        ({"type": "result", "is_error": True, "result": "gave up"}, LlmError(message="gave up")),
    ],
)
def test_errors_in_the_stream_are_told(message: dict[str, Any], told: LlmError) -> None:  # C-31
    assert told in parse(lines(message))


def test_what_no_model_prints_is_command_output_and_arrives_at_once() -> None:  # C-33
    parser = StreamParser()
    assert parser.feed("compiling") == [CommandOutput(text="compiling")]
    assert parser.feed(' ...\n{"ready": true}\n{broken\n') == [
        CommandOutput(text=" ...\n"),
        CommandOutput(text='{"ready": true}\n'),
        CommandOutput(text="{broken\n"),
    ]
    assert not parser.recognised


def test_a_line_without_end_is_given_up_as_output_beyond_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:  # C-33
    monkeypatch.setattr(tokens, "LONGEST_LINE", 100)
    parser = StreamParser()
    assert parser.feed("{" + "x" * 50) == []
    assert parser.feed("x" * 50) == [CommandOutput(text="{" + "x" * 100)]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "stream_event"},
        {"type": "stream_event", "event": "text"},
        {"type": "assistant", "message": None},
        {"type": "assistant", "message": {"content": [None, 7, {"type": "text"}]}},
        {"type": "content_block_delta", "delta": []},
        {"type": "message_delta", "usage": "many"},
        {"type": "user", "message": {"content": "hi"}},
        {"choices": [None, {"delta": {"tool_calls": ["x", {"function": None}]}}]},
        {"choices": [{"delta": {"content": 7}}], "usage": {"prompt_tokens": True}},
        {"type": "response.completed"},
        {"type": "result"},
    ],
)
def test_malformed_messages_never_raise(message: dict[str, Any]) -> None:  # C-31
    assert not any(isinstance(event, LlmToken) for event in parse(lines(message)))


@pytest.mark.parametrize(
    "message",
    [
        {"type": "content_block_start", "index": [], "content_block": {"type": "tool_use", "id": "t", "name": "n"}},
        {"choices": [{"index": {}, "delta": {"tool_calls": [{"index": [], "id": "t", "function": {"name": "n"}}]}}]},
        {"type": "tool_use", "id": "t", "name": "n", "input": "[" * 100_000},
    ],
)
def test_what_only_looks_like_a_model_harms_no_reader(message: dict[str, Any]) -> None:
    events = parse(lines(message, {"type": "text", "text": "after"}))
    assert [event.name for event in events if isinstance(event, LlmToolUse)] == ["n"]
    assert said(events) == "after"
