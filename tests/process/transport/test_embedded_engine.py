"""The embedded engine as a process: well behaved by default, with the real engine's habits when asked."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.embedded import Embedded, descendants, is_running
from tests.support.eventually import eventually

SLOW = 'show "go"\nrun sh { sleep 300; echo never > late.txt }\nshow "after"'
ASKS = 'exe llm @ask(p) = sh { echo "$p" >> calls.log; echo "answer to $p" }\n'


def test_hello_names_the_engine_and_its_features(tmp_path: Path) -> None:  # XP-6
    with Embedded(tmp_path) as engine:
        value = engine.ask("hello")["value"]
        assert (value["engine"], value["protocol"], value["mlld"]) == ("embedded", 1, "2.0.5")
        assert {"full-values", "checkpoint", "checkpoint-events", "survives-failures"} <= set(value["features"])


def test_a_long_answer_arrives_whole(tmp_path: Path) -> None:  # XP-9
    with Embedded(tmp_path) as engine:
        result = engine.ask("process", {"script": "show @payload.text", "payload": {"text": "x" * 300_000}})
        assert len(result["output"]) == 300_001


def test_a_failing_script_leaves_the_engine_and_its_neighbours_alone(tmp_path: Path) -> None:  # XP-22
    with Embedded(tmp_path) as engine:
        engine.send("process", 1, {"script": "run sh { sleep 0.3; echo done }"})
        assert engine.ask("process", {"script": "show @nope"}, 2)["error"]["code"] == "RUNTIME_ERROR"
        assert engine.messages(1)[-1]["result"]["output"] == "done\n"


def test_a_cancel_is_answered_when_the_script_and_its_children_are_gone(tmp_path: Path) -> None:
    with Embedded(tmp_path) as engine:
        engine.send("process", 1, {"script": SLOW})
        engine.until_event("effect")
        eventually(lambda: descendants(engine.process.pid) != [], within=60)
        children = descendants(engine.process.pid)
        engine.send("cancel", 1)
        assert engine.messages(1)[-1]["result"]["error"]["code"] == "ABORTED"
        eventually(lambda: not any(is_running(pid) for pid in children), within=60)
        assert engine.ask("process", "show `still here`", 2)["output"] == "still here\n"
    assert not (tmp_path / "late.txt").exists()


def test_a_cancel_reaches_every_item_of_a_parallel_loop(tmp_path: Path) -> None:
    script = 'exe @w(n) = sh { sleep 300 }\nshow "go"\nvar @r = for parallel(3) @i in [0, 1, 2, 3] => @pick(@i)\n'
    script = script.replace("var @r", 'exe @pick(n) = when [ @n == 0 => "first" * => @w(@n) ]\nvar @r')
    with Embedded(tmp_path) as engine:
        engine.send("process", 1, {"script": script})
        eventually(lambda: len(descendants(engine.process.pid)) >= 3, within=60)
        engine.send("cancel", 1)
        assert engine.messages(1)[-1]["result"]["error"]["code"] == "ABORTED"
        eventually(lambda: descendants(engine.process.pid) == [], within=60)


def test_a_timeout_stops_the_script_too(tmp_path: Path) -> None:  # XP-24
    with Embedded(tmp_path) as engine:
        result = engine.ask("process", {"script": SLOW, "timeoutMs": 300})
        assert result["error"]["code"] == "TIMEOUT"
        eventually(lambda: descendants(engine.process.pid) == [], within=60)


def test_control_messages_work_from_the_moment_the_request_was_read(tmp_path: Path) -> None:  # XP-26
    script = 'loop(endless, 20ms) until @state.stop [\n  continue\n]\nshow "stopped by @state.by"'
    with Embedded(tmp_path) as engine:
        request = {"method": "process", "id": 1, "params": {"script": script, "state": {"stop": False}}}
        updates = [
            {"method": "state:update", "id": 2, "params": {"requestId": 1, "path": "by", "value": "host"}},
            {"method": "state:update", "id": 3, "params": {"requestId": 1, "path": "stop", "value": True}},
        ]
        engine.write(b"".join(json.dumps(line).encode() + b"\n" for line in [request, *updates]))
        assert engine.messages(1)[-1]["result"]["output"] == "stopped by host\n"


def test_every_event_carries_the_request_and_nothing_debugs(tmp_path: Path) -> None:  # XP-20
    with Embedded(tmp_path) as engine:
        engine.send("process", "r", {"script": ASKS + 'show @ask("x")', "filePath": str(tmp_path / "s.mld")})
        events = [message["event"] for message in engine.messages("r")[:-1]]
        assert [event["type"] for event in events] == [
            "checkpoint:miss",
            "stream:chunk",
            "effect",
            "execution:complete",
        ]
        assert all(event["id"] == event["requestId"] == "r" for event in events)


def test_checkpoint_parameters_do_what_they_say(tmp_path: Path) -> None:  # XP-13 to XP-18
    script = tmp_path / "pipe.mld"
    script.write_text(ASKS + 'var @r = for @p in ["a", "b"] => @ask(@p)\nshow @r\n')

    def calls_of(engine: Embedded, **params: object) -> list[str]:
        (tmp_path / "calls.log").write_text("")
        assert "output" in engine.ask("execute", {"filepath": str(script), **params})
        return (tmp_path / "calls.log").read_text().split()

    with Embedded(tmp_path) as engine:
        assert calls_of(engine) == ["a", "b"]
        assert calls_of(engine) == ["a", "b"]
        assert calls_of(engine, checkpoint=True) == []
        assert calls_of(engine, checkpoint=False) == ["a", "b"]
        assert calls_of(engine, resume='@ask("b")') == ["b"]
        assert calls_of(engine, resume="@ask") == ["a", "b"]
        assert calls_of(engine, fresh=True) == ["a", "b"]
        assert calls_of(engine, resume=True, checkpointName="other", fork="pipe") == []
        assert calls_of(engine, resume=True, checkpointName="other") == []
        refused = engine.ask("execute", {"filepath": str(script), "fork": "nobody"})
        assert refused["error"]["code"] == "CHECKPOINT_NOT_FOUND"
        refused = engine.ask("execute", {"filepath": str(script), "fresh": "yes"})
        assert refused["error"]["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize("parallel", ["", " parallel(2)"])
def test_a_killed_pipeline_resumes_without_repeating_finished_calls(tmp_path: Path, parallel: str) -> None:
    script = tmp_path / "pipe.mld"
    body = f'var @r = for{parallel} @p in ["a", "b", "c", "d", "e", "f"] => @ask(@p)\nshow @r\n'
    script.write_text('exe llm @ask(p) = sh { echo "$p" >> calls.log; sleep 0.1; echo "A $p" }\n' + body)
    log = tmp_path / "calls.log"
    with Embedded(tmp_path, "--misbehave", "die-after-step=3,die-with=KILL") as engine:
        engine.send("execute", 1, {"filepath": str(script)})
        assert engine.exit_code() == -signal.SIGKILL
    finished = [json.loads(row)["argsPreview"] for row in _index(tmp_path, "pipe")]
    assert len(finished) == 3
    log.write_text("")
    with Embedded(tmp_path) as engine:
        result = engine.ask("execute", {"filepath": str(script), "resume": True})
    assert json.loads(result["output"]) == [f"A {name}" for name in "abcdef"]
    assert sorted(log.read_text().split()) == sorted(set("abcdef") - set(finished))


def _index(folder: Path, name: str) -> list[str]:
    return (folder / ".mlld" / "checkpoints" / name / "llm-cache.jsonl").read_text().splitlines()


def test_a_torn_last_row_is_cut_off_before_the_next_run(tmp_path: Path) -> None:  # XP-19
    script = tmp_path / "pipe.mld"
    script.write_text(ASKS + 'show @ask("a")\nshow @ask("b")\n')
    with Embedded(tmp_path) as engine:
        engine.ask("execute", {"filepath": str(script)})
        index = tmp_path / ".mlld" / "checkpoints" / "pipe" / "llm-cache.jsonl"
        index.write_bytes(index.read_bytes()[:-20])
        (tmp_path / "calls.log").write_text("")
        engine.ask("execute", {"filepath": str(script), "resume": True})
        assert (tmp_path / "calls.log").read_text().split() == ["b"]
        assert [json.loads(row)["argsPreview"] for row in _index(tmp_path, "pipe")] == ["a", "b"]


def test_what_is_outside_the_subset_is_refused_by_name_before_anything_runs(tmp_path: Path) -> None:
    with Embedded(tmp_path) as engine:
        result = engine.ask("process", {"script": 'show "before"\nvar @x = js { return 1 }'})
        assert result["error"]["code"] == "UNSUPPORTED_CONSTRUCT"
        assert "js" in result["error"]["message"]
        assert "real engine" in result["error"]["message"]


def test_the_end_of_requests_ends_the_engine_and_its_children(tmp_path: Path) -> None:  # XP-5
    with Embedded(tmp_path) as engine:
        engine.send("process", 1, {"script": SLOW})
        engine.until_event("effect")
        eventually(lambda: descendants(engine.process.pid) != [], within=60)
        children = descendants(engine.process.pid)
        engine.close_requests()
        assert engine.messages(1)[-1]["result"]["error"]["code"] == "ABORTED"
        assert engine.exit_code() == 0
        eventually(lambda: not any(is_running(pid) for pid in children), within=60)


def test_sigterm_ends_the_engine_politely(tmp_path: Path) -> None:  # XP-5
    with Embedded(tmp_path) as engine:
        engine.send("process", 1, {"script": SLOW})
        engine.until_event("effect")
        engine.process.terminate()
        assert engine.messages(1)[-1]["result"]["error"]["code"] == "ABORTED"
        assert engine.exit_code() == 0


def test_private_descriptors_keep_the_protocol_off_stdout(tmp_path: Path) -> None:  # XP-2
    request_out, request_in = os.pipe()
    answer_out, answer_in = os.pipe()
    for number in (request_out, answer_in):
        os.set_inheritable(number, True)
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "mlld_sdk.transport.embedded", "live", "--stdio"],
        {**os.environ, "MLLD_ENGINE_REQUEST_FD": str(request_out), "MLLD_ENGINE_RESPONSE_FD": str(answer_in)},
    )
    os.close(request_out)
    os.close(answer_in)
    script = "run sh { echo fd: $(ls /proc/self/fd | wc -l) $MLLD_ENGINE_REQUEST_FD. }"
    os.write(request_in, json.dumps({"method": "process", "id": 1, "params": script}).encode() + b"\n")
    answers = b""
    while b'"result":{"id"' not in answers:
        answers += os.read(answer_out, 65536)
    os.close(request_in)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(answer_out)
    result = json.loads(answers.decode().splitlines()[-1])["result"]
    assert result["output"].startswith("fd: ")
    assert result["output"].endswith(" .\n")


# --- like the real one ----------------------------------------------------------------------------------------------


def test_like_the_real_one_it_knows_no_hello(tmp_path: Path) -> None:  # XP-7
    with Embedded(tmp_path, "--like-real") as engine:
        assert engine.ask("hello")["error"]["code"] == "METHOD_NOT_FOUND"


def test_like_the_real_one_it_dies_of_a_failing_script(tmp_path: Path) -> None:
    with Embedded(tmp_path, "--like-real") as engine:
        assert engine.ask("process", "show @nope")["error"]["code"] == "RUNTIME_ERROR"
        assert engine.exit_code() == 1


def test_like_the_real_one_a_cancelled_script_runs_on_as_a_ghost(tmp_path: Path) -> None:
    script = 'show "go"\nrun sh { sleep 0.2 }\noutput "ghost" to "ghost.txt"'
    params = {"script": script, "filePath": str(tmp_path / "g.mld")}
    with Embedded(tmp_path, MLLD_EMBEDDED_LIKE_REAL="1", MLLD_EMBEDDED_SURVIVE="1") as engine:
        engine.send("process", 1, params)
        engine.until_event("effect")
        engine.send("cancel", 1)
        assert engine.messages(1)[-1]["result"]["error"]["code"] == "ABORTED"
        eventually(lambda: (tmp_path / "ghost.txt").exists(), within=60)


def test_like_the_real_one_it_cuts_long_texts(tmp_path: Path) -> None:
    with Embedded(tmp_path, "--like-real") as engine:
        result = engine.ask("process", {"script": "show @payload.text", "payload": {"text": "x" * 20_000}})
        assert "[truncated 33 chars]" in result["output"]
        assert len(result["output"]) < 4000


def test_like_the_real_one_it_ignores_checkpoint_parameters(tmp_path: Path) -> None:
    (tmp_path / "s.mld").write_text(ASKS + 'show @ask("a")\n')
    with Embedded(tmp_path, "--like-real") as engine:
        for request_id in (1, 2):
            engine.ask("execute", {"filepath": "s.mld", "checkpoint": True, "resume": True}, request_id)
    assert (tmp_path / "calls.log").read_text().split() == ["a", "a"]


def test_start_time_and_memory_are_worth_knowing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.mld").write_text(ASKS + 'show @ask("a")\n')
    starts = []
    for _ in range(3):
        begin = time.monotonic()
        with Embedded(tmp_path) as engine:
            engine.ask("hello")
            starts.append(time.monotonic() - begin)
            engine.ask("execute", {"filepath": "s.mld"})
            status = Path(f"/proc/{engine.process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    with capsys.disabled():
        print(f"\nembedded engine: first answer after {min(starts) * 1000:.0f} ms, peak {peak:.1f} MiB")
    assert peak > 0


def test_a_text_too_long_for_an_environment_still_reaches_a_shell(tmp_path: Path) -> None:
    script = 'exe @size(p) = sh { echo "${#p}" }\nshow @size(@payload.text)'
    with Embedded(tmp_path) as engine:
        result = engine.ask("process", {"script": script, "payload": {"text": "it's " * 80_000}})
        assert result["output"] == "400000\n"


def test_it_ends_with_its_children_when_nobody_reads_its_answers(tmp_path: Path) -> None:  # XP-5
    with Embedded(tmp_path) as engine:
        engine.send("process", 1, {"script": SLOW})
        engine.until_event("effect")
        eventually(lambda: descendants(engine.process.pid) != [], within=60)
        children = descendants(engine.process.pid)
        assert engine.process.stdout is not None
        engine.process.stdout.close()
        engine.send("hello", 2)
        assert engine.exit_code() == 0
        eventually(lambda: not any(is_running(pid) for pid in children), within=60)


def test_an_endless_loop_without_a_pause_can_be_cancelled_and_blocks_nobody(tmp_path: Path) -> None:
    with Embedded(tmp_path) as engine:
        engine.send("process", 1, {"script": 'show "go"\nloop(endless) [\n  continue\n]'})
        engine.until_event("effect")
        assert engine.ask("process", "show `meanwhile`", 2)["output"] == "meanwhile\n"
        engine.send("cancel", 1)
        assert engine.messages(1)[-1]["result"]["error"]["code"] == "ABORTED"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("analyze", {"filepath": "a\0b"}),
        ("analyze", {"filepath": "a\ud800b"}),
        ("sig:sign", {"path": "a\0b"}),
        ("sig:sign-content", {"content": "text", "identity": "me", "id": "a\0"}),
        ("state:update", {"requestId": 1, "path": "list.²", "value": 0}),
        ("state:update", {"requestId": 1, "path": "list.99999999999999999999999", "value": 0}),
        ("state:update", {"requestId": 1, "path": "list.9999999999", "value": 0}),
        ("state:update", {"requestId": 1, "path": "list.999999999", "value": 0}),
        ("file:write", {"requestId": 1, "path": "a\0b", "content": "text"}),
    ],
)
def test_a_request_that_cannot_be_served_costs_nobody_else_anything(
    tmp_path: Path, method: str, params: dict[str, object]
) -> None:
    (tmp_path / "slow.mld").write_text("run sh { sleep 0.5; echo done }")
    with Embedded(tmp_path) as engine:
        engine.send("execute", 1, {"filepath": "slow.mld", "state": {"list": [1]}})
        answer = engine.ask(method, params, 2)
        assert answer.get("requestId") == 1 or answer["error"]["code"] == "RUNTIME_ERROR"
        assert engine.messages(1)[-1]["result"]["output"] == "done\n"


def test_a_working_directory_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    with Embedded(tmp_path / "gone") as engine:
        assert "hello" in json.dumps(engine.ask("process", 'show "hello"'))
        (tmp_path / "gone").rmdir()
        assert engine.ask("process", 'show "hello"', 2)["error"]["message"].startswith("ENOENT: ")
        assert engine.ask("hello", None, 3)["value"]["engine"] == "embedded"
