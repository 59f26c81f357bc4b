"""What the client does on every engine that is there: the same scripts, the same answers."""

import concurrent.futures
import json
import shlex
import threading
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, InvalidRequest, MlldError, TaskError
from mlld_sdk.client.client import Client
from mlld_sdk.client.handles import RequestEnded
from mlld_sdk.scripts.answers import TruncatedResult, TruncationWarning
from mlld_sdk.scripts.labels import trusted, untrusted
from mlld_sdk.scripts.stream_events import CommandOutput, LlmToken, LlmUsage, OutputWritten
from mlld_sdk.transport.errors import CallCancelled, CallTimeout, EngineClosed, ScriptError
from tests.support.clients import EngineUnderTest, Make, client, engine, engine_of, make_client, pid_of, soon

__all__ = ["client", "engine", "make_client"]

LOOP = 'loop(99999, 20ms) until @state.exit [\n  continue\n]\nshow "loop-stopped"\n'


def looping(client: Client, **options: Any) -> Any:
    """Start a script that runs until its state says otherwise, and wait until it does run."""
    handle = client.process_async(
        'output "go" to "state://going"\n' + LOOP, state={"exit": False, "going": None}, **options
    )
    assert handle.next_event(timeout=60) is not None
    return handle


def test_script_text_runs_with_payload_state_and_modules(client: Client) -> None:  # C-10
    assert (
        client.process(
            'import { @mode } from "@config"\nvar @next = @state.count + 1\n'
            "show `mode=@mode count=@next @payload.who`\n",
            payload={"who": "Ada"},
            state={"count": 1},
            dynamic_modules={"@config": {"mode": "process"}},
        )
        == "mode=process count=2 Ada\n"
    )


def test_a_file_runs_and_returns_everything_it_produced(client: Client, tmp_path: Path) -> None:  # C-11 C-20
    script = tmp_path / "run.mld"
    script.write_text(
        'var @next = @state.count + 1\noutput @next to "state://count"\nshow `text=@payload.text count=@next`\n'
        "var @answer = 42\nexport { @answer }\n"
    )
    result = client.execute(script, {"text": "hello"}, state={"count": 0})
    assert result.output == "text=hello count=1\n"
    assert [(write.path, write.value) for write in result.state_writes] == [("count", 1)]
    assert [effect.content for effect in result.effects] == ["text=hello count=1\n"]
    assert result.exports["answer"]["value"] == 42
    assert result.metrics is not None
    assert result.metrics.total_ms > 0
    assert (result.truncated, result.denials, result.events_dropped) == (False, [], 0)


def test_relative_files_belong_to_the_working_directory(make_client: Make, tmp_path: Path) -> None:  # C-12
    (tmp_path / "here.mld").write_text('show "found"\n')
    assert make_client(working_dir=tmp_path).execute("here.mld").output == "found\n"


def test_process_has_a_full_result_too(client: Client) -> None:  # C-20, upstream's P17
    result = client.process_result('output "v" to "state://k"\nshow "shown"\n', state={"k": None})
    assert result.output == "shown\n"
    assert [(write.path, write.value) for write in result.state_writes] == [("k", "v")]
    assert [effect.content for effect in result.effects] == ["shown\n"]


def test_objects_and_booleans_stay_what_they_are_in_state(client: Client) -> None:  # C-23
    result = client.process_result(
        'var @box = {"enabled": true, "nested": {"count": 2}}\nvar @flag = true\n'
        'output @box to "state://box"\noutput @flag to "state://flag"\nshow "ok"\n',
        state={"box": None, "flag": False},
    )
    assert [write.value for write in result.state_writes] == [{"enabled": True, "nested": {"count": 2}}, True]


def test_labels_of_payload_fields_reach_the_script(client: Client) -> None:  # C-7
    assert client.process(
        'show @payload.q.mx.labels.includes("trusted")\nshow @payload.t.mx.labels.includes("untrusted")\n',
        payload={"q": trusted("task"), "t": untrusted("tool output")},
    ).split() == ["true", "true"]


def test_a_failing_script_is_a_task_error_with_all_the_engine_said(
    client: Client, tmp_path: Path
) -> None:  # C-40, upstream's P17
    script = tmp_path / "bad.mld"
    script.write_text("show @nothing_here\n")
    with pytest.raises(ScriptError) as failure:
        client.execute(script)
    assert isinstance(failure.value, TaskError)
    assert "nothing_here" in failure.value.message
    assert failure.value.code
    assert failure.value.file_path is None or failure.value.file_path.endswith("bad.mld")
    with pytest.raises(ScriptError) as failure:
        client.execute(tmp_path / "none.mld")
    assert failure.value.code == "FILE_NOT_FOUND"
    with pytest.raises(ScriptError) as failure:
        client.process("var @x = \n")
    assert failure.value.code == "PARSE_ERROR"
    assert client.process('show "alive"') == "alive\n"


def test_a_run_is_steered_by_its_state(client: Client) -> None:  # C-45
    handle = looping(client)
    handle.update_state("exit", True)
    assert handle.result() == "loop-stopped\n"
    assert handle.wait() == "loop-stopped\n"


def test_a_label_goes_with_a_state_update(client: Client) -> None:  # C-45
    handle = client.process_async(
        'loop(99999, 20ms) until @state.text [\n  continue\n]\nshow @state.text.mx.labels.includes("untrusted")\n',
        state={"text": None},
    )
    handle.update_state("text", "tool output", labels=["untrusted"])
    assert handle.result() == "true\n"


def test_steering_a_run_that_is_over_fails_at_once(client: Client) -> None:  # C-46, upstream's P9
    handle = client.process_async('show "done"', timeout=60)
    assert handle.result() == "done\n"
    sent = engine_of(client).stats.submitted
    with pytest.raises(RequestEnded) as refusal:
        handle.update_state("exit", True)
    assert refusal.value.code == "REQUEST_NOT_FOUND"
    assert engine_of(client).stats.submitted == sent
    assert handle.cancel() is False


def test_a_blank_path_is_refused_before_anything_is_sent(client: Client) -> None:  # C-46
    handle = looping(client)
    for path in ("", "  ", None):
        with pytest.raises(InvalidRequest) as refusal:
            handle.update_state(path, 1)
        assert refusal.value.code == "INVALID_OPTION"
    handle.update_state("exit", True)
    handle.result()


def test_a_run_without_state_cannot_be_updated(client: Client) -> None:  # C-46
    handle = client.process_async("run sh { sleep 0.7 }\n")
    with pytest.raises(MlldError):
        handle.update_state("exit", True)
    handle.result()


def test_a_file_is_written_as_the_running_script(client: Client, tmp_path: Path) -> None:  # C-47
    (tmp_path / "package.json").write_text("{}")
    script = tmp_path / "route.mld"
    script.write_text(LOOP)
    handle = client.execute_async(script, state={"exit": False})
    written = handle.write_file("out.txt", "hello\n")
    handle.update_state("exit", True)
    assert (tmp_path / "out.txt").read_text() == "hello\n"
    assert (written.path, written.verified, written.signer) == (str(tmp_path / "out.txt"), True, "agent:route")
    assert handle.result().output == "loop-stopped\n"


def test_files_and_content_are_signed_and_verified(client: Client, tmp_path: Path) -> None:  # C-25
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "note.txt").write_text("hello\n")
    base = str(tmp_path)
    signed = client.sign("note.txt", identity="user:alice", base_path=base)
    assert (signed.status, signed.verified, signed.signer) == ("verified", True, "user:alice")
    content = client.sign_content("body", "user:alice", signature_id="c-1", base_path=base)
    assert (content.id, content.signed_by, content.content_length) == ("c-1", "user:alice", 4)
    assert [entry.relative_path for entry in client.fs_status("*.txt", base_path=base)] == ["note.txt"]
    (tmp_path / "note.txt").write_text("changed\n")
    assert client.verify("note.txt", base_path=base).status == "modified"


def test_a_module_is_analysed_without_being_run(client: Client, tmp_path: Path) -> None:  # C-24, upstream's E14
    (tmp_path / "lib.mld").write_text("exe @polish(t) = `@t`\nexport { @polish }\n")
    module = tmp_path / "module.mld"
    module.write_text(
        'import { @polish } from "./lib.mld"\n'
        "guard @noLeak before secret = when [\n  * => allow\n]\n"
        "exe net:w @send(value) = `@value`\nexport { @send }\n"
    )
    result = client.analyze(module)
    assert (result.valid, result.errors, result.exports) == (True, [], ["@send"])
    assert [(executable.name, executable.params) for executable in result.executables] == [("@send", ["value"])]
    assert [(found.from_, found.names) for found in result.imports] == [("./lib.mld", ["@polish"])]
    assert [(guard.name, guard.timing, guard.trigger) for guard in result.guards] == [("@noLeak", "before", "secret")]
    assert client.analyze(tmp_path / "none.mld").valid is False


def test_next_event_tells_writes_then_the_end_once(client: Client) -> None:  # C-37
    handle = client.process_async(
        'output "ping" to "state://pending"\nloop(600, 20ms) until @state.result [\n  continue\n]\n'
        "show @state.result\n",
        state={"pending": None, "result": None},
    )
    event = handle.next_event(timeout=60)
    assert event is not None
    assert (event.type, event.state_write.path, event.state_write.value) == ("state_write", "pending", "ping")
    assert handle.next_event(timeout=0.01) is None
    handle.update_state("result", "pong")
    assert handle.next_event(timeout=60).type == "complete"
    assert handle.next_event(timeout=0.01) is None
    assert handle.result() == "pong\n"
    assert [write.value for write in handle.full_result().state_writes] == ["ping"]


GUARDED = (
    "guard @blocker before op:exe = when [\n"
    '  @mx.op.name == "send" => deny "not authorized"\n  * => allow\n]\n'
    'exe @send(value) = when [\n  denied => "blocked"\n  * => @value\n]\nshow @send("hello")\n'
)


def test_a_denial_is_an_event_and_part_of_the_result_once(client: Client, engine: EngineUnderTest) -> None:  # C-22 C-37
    handle = client.process_async(GUARDED)
    try:
        event = handle.next_event(timeout=60)
    except ScriptError:
        assert engine.kind == "embedded"
        pytest.skip("the embedded engine has no guards")
    assert event is not None
    assert event.type == "guard_denial"
    assert (event.guard_denial.guard, event.guard_denial.operation) == ("blocker", "send")
    assert event.guard_denial.args == {"value": "hello"}
    assert handle.next_event(timeout=60).type == "complete"
    assert handle.result() == "blocked\n"
    assert len(handle.full_result().denials) == 1


def test_a_failed_run_still_shows_what_it_had_produced(client: Client) -> None:  # C-38
    handle = client.process_async('output "v" to "state://k"\nshow "before"\nshow @nothing_here\n', state={"k": None})
    with pytest.raises(ScriptError):
        handle.result()
    partial = handle.partial_result()
    assert [write.value for write in partial.state_writes] == ["v"]
    assert partial.output == "before\n"
    events = list(handle.events())
    assert events[-1].kind == "run.failed"
    assert events[-1].infrastructure is False
    assert handle.next_event(timeout=60).type == "state_write"
    with pytest.raises(ScriptError):
        handle.next_event(timeout=60)
    assert handle.next_event(timeout=0.01) is None


def test_250_writes_are_all_there_whoever_read_them_before(client: Client) -> None:  # C-22, upstream's P5
    script = "\n".join(f'output "v{number}" to "state://k{number}"' for number in range(250)) + '\nshow "done"\n'
    handle = client.process_async(script, state={"x": 1})
    seen = []
    while (event := handle.next_event()) is not None and event.type == "state_write":
        seen.append(event.state_write.value)
    assert seen == [f"v{number}" for number in range(250)]
    assert [write.value for write in handle.full_result().state_writes] == seen


def test_writing_one_two_one_reports_one_two_one(client: Client) -> None:  # C-22, upstream's P6
    result = client.process_result(
        'output "1" to "state://x"\noutput "2" to "state://x"\noutput "1" to "state://x"\nshow @state.x\n',
        state={"x": "0"},
    )
    assert [write.value for write in result.state_writes] == ["1", "2", "1"]
    assert result.output == "1\n"


def test_a_string_that_looks_like_json_stays_a_string(client: Client) -> None:  # C-23, upstream's P7
    text = '{"a": 1}'
    result = client.process_result('output @payload.s to "state://s"\nshow "k"\n', payload={"s": text}, state={"s": ""})
    assert [write.value for write in result.state_writes] == [text]


def test_reading_events_and_waiting_for_the_result_from_two_threads_starves_neither(
    client: Client,
) -> None:  # C-34, upstream's P8
    handle = client.process_async(LOOP + 'output "x" to "state://end"\n', state={"exit": False, "end": None})
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        events = [threads.submit(lambda: [event.kind for event in handle.events()]) for _ in range(2)]
        result = threads.submit(handle.result)
        handle.update_state("exit", True)
        assert result.result(60) == "loop-stopped\n"
        assert events[0].result(60) == events[1].result(60)
    assert "state.written" in events[0].result()


def test_model_streams_reach_the_user_as_tokens(
    client: Client, engine: EngineUnderTest, tmp_path: Path
) -> None:  # C-31, upstream's E13
    feed = tmp_path / "feed.ndjson"
    deltas = [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}} for text in ("Hi", " you")]
    whole = {"type": "assistant", "message": {"content": [{"type": "text", "text": "Hi you"}]}}
    end = {"type": "result", "result": "Hi you", "usage": {"input_tokens": 3, "output_tokens": 2}}
    feed.write_text("".join(json.dumps(line) + "\n" for line in (*deltas, whole, end)))
    handle = client.process_async(f"run sh {{ cat {shlex.quote(str(feed))}; echo plain text }}\n")
    events = list(handle.events())
    if engine.kind == "live" and not any(isinstance(event, LlmToken | CommandOutput) for event in events):
        pytest.skip("this mlld switches streaming off in its live engine")
    assert [event.text for event in events if isinstance(event, LlmToken)] == ["Hi", " you"]
    assert [event.output_tokens for event in events if isinstance(event, LlmUsage)] == [2]
    assert "".join(event.text for event in events if isinstance(event, CommandOutput)) == "plain text\n"


def test_events_come_while_the_script_runs(client: Client) -> None:  # C-30
    handle = looping(client)
    stream = handle.events()
    kinds = [stream.next(30).kind for _ in range(2)]
    assert kinds == ["run.started", "state.written"]
    assert handle.running()
    handle.update_state("exit", True)
    rest = list(stream)
    assert any(isinstance(event, OutputWritten) and event.text == "loop-stopped\n" for event in rest)
    assert rest[-1].kind == "run.completed"


def test_a_cancelled_run_ends_as_aborted_whatever_it_was(client: Client, tmp_path: Path) -> None:  # C-41, upstream's E8
    script = tmp_path / "loop.mld"
    script.write_text(LOOP)
    execute = client.execute_async(script, state={"exit": False})
    for handle in (looping(client), execute):
        assert handle.cancel() is True
        with pytest.raises(CallCancelled) as ended:
            handle.result()
        assert ended.value.code == "ABORTED"
        assert handle.cancelled()
        assert list(handle.events())[-1].kind == "run.cancelled"
        assert handle.cancel() is False


def test_a_deadline_counts_from_the_call_and_names_itself(client: Client) -> None:  # C-8 C-42
    client.process('show "warm"')
    handle = client.process_async(LOOP, state={"exit": False}, timeout=0.5)
    soon(handle.done)  # nobody waits for it, and it ends all the same
    with pytest.raises(CallTimeout) as late:
        handle.result()
    assert late.value.code == "TIMEOUT"
    assert isinstance(late.value, InfrastructureError)
    with pytest.raises(CallTimeout):
        client.process(LOOP, state={"exit": False}, timeout=0.5)
    assert client.process('show "next"') == "next\n"


def test_no_deadline_really_means_none(make_client: Make) -> None:  # C-8
    client = make_client(timeout=1.0)
    client.process('show "warm"', timeout=60)
    assert client.process('run sh { sleep 1.3 }\nshow "patient"\n', timeout=None) == "patient\n"


def test_waiting_for_a_result_can_have_a_limit_of_its_own(client: Client) -> None:  # C-43
    handle = looping(client)
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        handle.exception(timeout=0.01)
    assert not handle.done()
    handle.update_state("exit", True)
    assert handle.exception() is None


def test_close_wakes_every_waiter_at_once_also_one_without_a_deadline(make_client: Make) -> None:  # C-14, upstream's P2
    client = make_client(timeout=None)
    handles = [looping(client) for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(handle.exception) for handle in handles]
        client.close()
        for waiter in waiting:
            assert isinstance(waiter.result(60), EngineClosed)
    assert client.process('show "again"') == "again\n"


def test_handles_are_futures_of_the_standard_library(client: Client) -> None:  # C-44
    handles = [client.process_async(f'show "{number}"') for number in range(5)]
    done, pending = concurrent.futures.wait(handles, timeout=30)
    assert (len(done), pending) == (5, set())
    assert {handle.result() for handle in concurrent.futures.as_completed(handles, timeout=60)} == {
        f"{number}\n" for number in range(5)
    }
    called = threading.Event()
    handles[0].add_done_callback(lambda handle: called.set() if handle is handles[0] else None)
    assert called.wait(60)
    failing = client.process_async("show @nothing_here")
    done, _ = concurrent.futures.wait([failing], timeout=30)
    assert isinstance(failing.exception(), ScriptError)
    assert next(iter(done)) is failing


@pytest.mark.parametrize("text", ["héllo 世界\u2028 \x00 end", "x" * 100_000])
def test_text_of_any_kind_and_length_comes_back_or_is_marked(
    make_client: Make, engine: EngineUnderTest, text: str
) -> None:  # C-50 C-51, upstream's E3
    client = make_client()
    result = client.process_result("show @payload.t", payload={"t": text})
    if result.truncated:
        assert engine.kind == "live"
        assert "output" in result.truncations
        with pytest.warns(TruncationWarning):
            assert len(client.process("show @payload.t", payload={"t": text})) <= 4000
        with pytest.raises(TruncatedResult) as cut:
            client.process("show @payload.t", payload={"t": text}, strict=True)
        assert cut.value.code == "TRUNCATED"
        with pytest.raises(TruncatedResult) as cut:
            make_client(strict=True).process_result("show @payload.t", payload={"t": text})
        assert cut.value.result.truncated
    else:
        assert result.output == text + "\n"


def test_long_lists_and_wide_objects_come_back_or_are_marked(
    client: Client, engine: EngineUnderTest
) -> None:  # C-51, upstream's E4
    values = {
        "list": list(range(300)),
        "object": {f"k{number}": number for number in range(150)},
        "deep": {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}},
        "env": {"A": "1"},
    }
    script = "".join(f'output @payload.{name} to "state://{name}"\n' for name in values) + 'show "k"\n'
    result = client.process_result(script, payload=values, state={})
    arrived = {write.path: write.value for write in result.state_writes}
    if engine.kind == "live":
        lost = {name for name in values if arrived[name] != values[name]}
        marked = {
            int(path.split("[")[1].split("]")[0]) for path in result.truncations if path.startswith("stateWrites")
        }
        assert {list(values)[place] for place in marked} == lost
        assert result.truncated == bool(lost)
    else:
        assert arrived == values
        assert not result.truncated


def test_finished_model_calls_are_served_again_when_asked(make_client: Make, tmp_path: Path) -> None:  # C-9
    script, calls = tmp_path / "ask.mld", tmp_path / "calls"
    script.write_text(
        f'exe llm @ask(q) = sh {{ echo call >> {shlex.quote(str(calls))}; echo "answer to $q" }}\n'
        'var @a = @ask("one")\nshow @a\n'
    )
    client = make_client(working_dir=tmp_path)
    counts = []
    for options in ({}, {"resume": True}, {}, {"resume": "@ask"}, {"fresh": True}, {"checkpoint": True}):
        assert client.execute(script, **options).output == "answer to one\n"
        counts.append(calls.read_text().count("call"))
    assert counts == [1, 1, 2, 3, 4, 4]


def test_a_client_in_a_with_block_is_closed_at_its_end(engine: EngineUnderTest) -> None:  # C-14, upstream's P18
    with engine.client() as client:
        assert client.process('show "in"') == "in\n"
        assert pid_of(client) is not None
    assert pid_of(client) is None


def test_values_without_a_json_form_are_refused_and_nothing_is_left_pending(
    client: Client,
) -> None:  # C-6, upstream's P12
    client.process('show "warm"')
    for wrong in (object(), float("nan"), float("inf"), {(1, 2): 3}):
        with pytest.raises(ConfigurationError):
            client.process("show @payload.a", payload={"a": wrong})
    assert engine_of(client).stats.in_flight == 0
    assert client.process("show @payload.a", payload={"a": "fine"}) == "fine\n"
