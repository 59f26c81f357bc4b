"""Run events: bounded, typed, seen by every reader, and still in the result."""

import asyncio
import concurrent.futures
import json
import threading
from typing import Any

import pytest

from mlld_sdk.scripts.normalise import Normaliser
from mlld_sdk.scripts.stream import EventHistory, RunLog, ScriptEvents
from mlld_sdk.scripts.stream_events import (
    CheckpointHit,
    CheckpointMissed,
    CommandOutput,
    EventsDropped,
    LlmError,
    LlmThinking,
    LlmToken,
    LlmToolResult,
    LlmToolUse,
    LlmUsage,
    OtherEvent,
    OutputWritten,
    ScriptCompleted,
    ScriptEvent,
    ScriptStarted,
    StageChanged,
    StateWritten,
)
from mlld_sdk.scripts.types import StateWrite
from mlld_sdk.transport.wire import EngineEvent


def raw(kind: str, **fields: Any) -> EngineEvent:
    line = json.dumps({"event": {"id": 7, "type": kind, **fields}}).encode()
    return EngineEvent(type=kind, id=7, line=line)


def write(value: Any, index: int = 0) -> EngineEvent:
    return raw("state:write", write={"path": "x", "value": value, "index": index})


def chunk(text: str, pipeline: str = "p1", source: str = "stdout", **more: Any) -> EngineEvent:
    return raw("stream:chunk", event={"type": "CHUNK", "pipelineId": pipeline, "chunk": text, "source": source, **more})


def told(*events: EngineEvent) -> list[ScriptEvent]:
    normaliser = Normaliser()
    return [run_event for event in events for run_event in normaliser.feed(event.body)] + list(normaliser.finish())


def test_every_event_of_a_run_has_a_type() -> None:  # C-30
    names = {"frame_id": "f", "session_name": "s", "declaration_id": "d", "slot_path": "p", "operation": "set"}
    kinds = [
        event.kind
        for event in told(
            write(1),
            raw("session_write", session_write=names),
            raw("guard_denial", guard_denial={"operation": "o", "reason": "r"}),
            raw("trace_event", traceEvent={"event": "e"}),
            raw("effect", effect={"type": "stderr", "content": "log"}),
            raw("checkpoint:hit", checkpoint={"fn": "ask", "key": "k", "argsPreview": "one"}),
            raw("checkpoint:miss", checkpoint={"fn": "ask"}),
            raw("stream:progress", event={"type": "STAGE_START", "pipelineId": "p", "stageIndex": 2, "x": 1}),
            raw("command:start", command="c", stageIndex=0, pipelineId="p"),
            raw("brand:new", data=1),
        )
    ]
    assert kinds == [
        "state.written",
        "session.written",
        "guard.denied",
        "trace.recorded",
        "output.written",
        "checkpoint.hit",
        "checkpoint.missed",
        "stage.changed",
        "stage.changed",
        "other",
    ]
    assert {type(event) for event in told(raw("checkpoint:hit"), raw("checkpoint:miss"))} == {
        CheckpointHit,
        CheckpointMissed,
    }
    assert told(raw("stream:progress", event={"type": "STAGE_START", "stageIndex": 2, "x": 1})) == [
        StageChanged(what="STAGE_START", stage=2, stream="2", detail={"x": 1})
    ]
    assert told(raw("brand:new", data=1)) == [OtherEvent(type="brand:new", data={"data": 1})]


def test_debug_events_and_repeated_results_are_not_told() -> None:  # C-30, upstream's E12
    assert told(raw("debug:variable:create", variable={}), raw("execution:complete", result={})) == []


def test_parallel_model_calls_are_told_apart() -> None:  # C-31
    def token(text: str) -> str:
        return json.dumps({"type": "text", "text": text}) + "\n"

    assert told(chunk(token("a1")), chunk(token("b1")[:9], "p2"), chunk(token("a2")), chunk(token("b1")[9:], "p2")) == [
        LlmToken(text="a1", stream="p1"),
        LlmToken(text="a2", stream="p1"),
        LlmToken(text="b1", stream="p2"),
    ]


def test_the_engines_own_reading_is_used_only_when_the_raw_output_says_nothing() -> None:  # C-32
    streaming = [
        raw("streaming:thinking", text="hm"),
        raw("streaming:message", chunk="hello"),
        raw("streaming:message", chunk=""),
        # on 2.0.5 the tool call's id stands where the request's id belongs (upstream's E6)
        EngineEvent(
            type="streaming:tool-use",
            line=b'{"event":{"id":"tool-1","type":"streaming:tool-use","name":"Read","input":{"path":"a"}}}',
        ),
        raw("streaming:tool-result", toolUseId="tool-1", result="body", success=False),
        raw("streaming:metadata", usage={"inputTokens": 1, "outputTokens": 2}, model="m"),
        raw("streaming:error", message="soft", code="E"),
    ]
    assert told(*streaming) == [
        LlmThinking(text="hm"),
        LlmToken(text="hello"),
        LlmToolUse(tool_use_id="tool-1", name="Read", input={"path": "a"}),
        LlmToolResult(tool_use_id="tool-1", content="body", is_error=True),
        LlmUsage(input_tokens=1, output_tokens=2, model="m"),
        LlmError(message="soft", code="E"),
    ]
    assert told(chunk('{"type":"text","text":"hello"}\n'), *streaming) == [LlmToken(text="hello", stream="p1")]


def test_stderr_and_plain_output_of_commands_are_told_as_such() -> None:  # C-33
    assert told(chunk("warning\n", source="stderr"), chunk("plain\n", stageIndex=0)) == [
        CommandOutput(text="warning\n", source="stderr", stream="p1"),
        CommandOutput(text="plain\n", stream="p1/0"),
    ]


def finished(log: RunLog) -> RunLog:
    """Let the run of the log be over."""
    assert log._call is not None
    log._call.set_result(None)
    return log


def new_log(**limits: int) -> RunLog:
    log = RunLog(**limits)
    call: concurrent.futures.Future[None] = concurrent.futures.Future()
    log._call, log._method = call, "process"
    return log


def test_every_reader_sees_every_event_and_the_result_still_has_them() -> None:  # C-34, upstream's P5 and P8
    log = new_log()
    log.push([write(1, 0), write(2, 1)])
    finished(log)
    first, second = list(ScriptEvents(log)), list(ScriptEvents(log))
    assert first == second
    assert [event.kind for event in first] == ["run.started", "state.written", "state.written", "run.completed"]
    assert [event.seq for event in first] == [1, 2, 3, 4]
    assert log.state_writes() == [StateWrite("x", 1), StateWrite("x", 2)]


def test_two_threads_reading_one_run_starve_neither() -> None:  # C-34, upstream's P8
    log, seen = new_log(), []
    threads = [threading.Thread(target=lambda: seen.append(list(ScriptEvents(log)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(100):
        log.push([write(number, number)])
    finished(log)
    for thread in threads:
        thread.join(60)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert len(seen[0]) == 102


@pytest.mark.parametrize("decode_early", [True, False])
def test_a_slow_reader_is_told_how_many_events_it_missed(decode_early: bool) -> None:  # C-35, upstream's P16
    log = new_log(max_events=10)
    reader = ScriptEvents(log)
    log.push([write(number, number) for number in range(5)])
    if decode_early:
        assert reader.next(0) == ScriptStarted(seq=1, method="process")
        assert reader.next(0).write.value == 0  # type: ignore[union-attr]
    for number in range(5, 100):
        log.push([write(number, number)])
        if decode_early:
            ScriptEvents(log).next(0)
    finished(log)
    events = list(reader)
    assert isinstance(events[0], EventsDropped)
    written = [event.write.value for event in events if isinstance(event, StateWritten)]
    assert written == list(range(100 - len(written), 100))
    assert 9 <= len(written) <= 10
    assert events[0].count + len(written) == (99 if decode_early else 101)
    assert events[-1].kind == "run.completed"
    assert [event.seq for event in events] == list(range(events[0].seq, 103))


def test_raw_events_are_bounded_in_bytes_too() -> None:  # C-35
    log = new_log(max_events=1000, max_bytes=10_000)
    log.push([write("y" * 4000, number) for number in range(5)])
    events = list(ScriptEvents(finished(log)))
    assert events[:2] == [ScriptStarted(seq=1, method="process"), EventsDropped(seq=4, count=3)]
    assert len(events) == 5
    assert (len(log.state_writes()), log.dropped) == (2, 3)


def test_events_that_were_read_are_bounded_in_bytes_too() -> None:  # C-35
    log = new_log(max_bytes=10_000)
    reader = ScriptEvents(log)
    assert reader.next(0) is not None
    for number in range(50):
        log.push([write("y" * 2000, number)])
        assert isinstance(reader.next(0), StateWritten)
    kept = [event for event in ScriptEvents(finished(log)) if isinstance(event, StateWritten)]
    assert 2 <= len(kept) <= 4
    assert [event.kind for event in reader] == ["run.completed"]


def test_a_history_keeps_only_what_belongs_to_the_result_and_counts_the_rest() -> None:  # C-35
    history = EventHistory(max_events=2)
    history.push([chunk("x"), write(1, 0), raw("effect", effect={"type": "both", "content": "a"}), write(2, 1)])
    assert (len(history.state_writes()), len(history.effects()), history.dropped) == (1, 1, 1)


def test_an_event_that_cannot_be_read_does_not_end_the_reading() -> None:  # C-30
    log = new_log()
    log.push([EngineEvent(type="odd", line=b'{"event": {"type"'), write(1)])
    kinds = [event.kind for event in ScriptEvents(finished(log))]
    assert kinds == ["run.started", "other", "state.written", "run.completed"]


def test_a_reader_with_a_deadline_gets_nothing_when_nothing_comes() -> None:  # C-36
    stream = ScriptEvents(log := new_log())
    assert stream.next(0.01) == ScriptStarted(seq=1, method="process")
    assert stream.next(0.01) is None
    assert ScriptEvents(finished(log)).next(0.01) is not None
    assert stream.next(None) == ScriptCompleted(seq=2)
    assert stream.next(None) is None
    assert list(stream) == []


def test_coroutines_read_the_same_events_without_a_thread() -> None:  # C-36 C-71
    async def read() -> list[str]:
        log = new_log()
        stream = ScriptEvents(log)
        assert await stream.anext(0.01) == ScriptStarted(seq=1, method="process")
        assert await stream.anext(0.01) is None
        loop = asyncio.get_running_loop()
        feeder = loop.run_in_executor(None, lambda: (log.push([write(1), write(2, 1)]), finished(log)))
        kinds = [event.kind async for event in stream]
        await feeder
        assert not log._wakers
        return kinds

    assert asyncio.run(read()) == ["state.written", "state.written", "run.completed"]


def test_output_events_say_where_the_text_went() -> None:  # C-30
    assert told(raw("effect", effect={"type": "file", "content": "x", "path": "/f"})) == [
        OutputWritten(text="x", channel="file", path="/f")
    ]
