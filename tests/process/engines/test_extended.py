"""What bridge and embedded share: docs/extended-protocol.md, clause by clause, on both."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.raw_engine import EXTENDED, RawEngine, started

ASK = 'exe llm @ask(p) = sh {{ echo "$p" >> {calls}; echo "answer to $p" }}\n'


@pytest.fixture(scope="module", params=EXTENDED)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawEngine]:
    with started(request.param, tmp_path_factory.mktemp("engine")) as raw:
        raw.ask("hello")
        yield raw


@pytest.fixture(params=EXTENDED)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RawEngine]:
    """An engine that a test may harm."""
    with started(request.param, tmp_path) as raw:
        raw.ask("hello")
        yield raw


class Pipeline:
    """A script of llm calls that write down that they were made, and its cache."""

    def __init__(self, directory: Path, *prompts: str, header: str = "") -> None:
        self.calls_file = directory / "calls"
        self.script = directory / "pipe.mld"
        self.root = directory / "cache"
        self.write(*prompts, header=header)

    def write(self, *prompts: str, header: str = "") -> None:
        asks = [f'var @a{number} = @ask("{prompt}")\n' for number, prompt in enumerate(prompts)]
        shows = [f"show @a{number}\n" for number in range(len(prompts))]
        self.script.write_text(header + ASK.format(calls=self.calls_file) + "".join(asks + shows))

    def run(self, engine: RawEngine, **params: object) -> list[str]:
        """Run it and return the calls that were really made."""
        before = self.calls
        answer = engine.ask("execute", {"filepath": str(self.script), "checkpointRoot": str(self.root), **params})
        assert "error" not in answer.result, answer.error
        made = self.calls[len(before) :]
        if answer.cache:
            assert [preview for kind, preview in answer.cache if kind == "miss"] == made  # XP-21
        return made

    def error(self, engine: RawEngine, **params: object) -> str:
        answer = engine.ask("execute", {"filepath": str(self.script), "checkpointRoot": str(self.root), **params})
        code: str = answer.error["code"]
        return code

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().split() if self.calls_file.exists() else []

    def rows(self, name: str = "pipe") -> list[dict[str, object]]:
        index = self.root / name / "llm-cache.jsonl"
        return [json.loads(line) for line in index.read_text().splitlines()] if index.exists() else []


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    (tmp_path / "package.json").write_text("{}")
    return Pipeline(tmp_path, "one", "two", "three")


# ---- hello and requests


def test_hello_says_who_the_engine_is(engine: RawEngine) -> None:  # XP-6
    hello = engine.ask("hello").value
    assert hello["engine"] in ("bridge", "embedded")
    assert hello["protocol"] == 1
    assert {"full-values", "checkpoint", "checkpoint-events", "survives-failures", "metrics"} <= set(hello["features"])
    assert hello["mlld"].startswith("2.")


def test_hello_is_answered_while_a_script_runs(engine: RawEngine) -> None:  # XP-6
    running = engine.send("process", {"script": 'run sh { sleep 5 }\nshow "done"\n'})
    hello = engine.ask("hello", within=4)
    assert hello.value["protocol"] == 1
    engine.send("cancel", name=running)
    assert engine.answer(running, within=4).error["code"] == "ABORTED"


@pytest.mark.parametrize("line", ["null", "42", '"text"', "[1]", "true"])
def test_json_that_is_no_object_is_refused_and_harmless(engine: RawEngine, line: str) -> None:  # XP-29
    engine.send_line(line)
    message = engine.read()
    assert message == {"result": {"id": None, "error": message["result"]["error"]}}  # type: ignore[index]
    assert message["result"]["error"]["code"] == "INVALID_REQUEST"  # type: ignore[index]
    assert engine.run('show "alive"').output == "alive\n"


def test_a_line_that_is_no_json_is_refused_and_harmless(engine: RawEngine) -> None:
    engine.send_line('{"method": "process", ')
    assert engine.read()["result"]["error"]["code"] == "INVALID_JSON"  # type: ignore[index]
    assert engine.run('show "alive"').output == "alive\n"


@pytest.mark.parametrize("method", ["frobnicate", "toString", "__proto__", "constructor"])
def test_an_unknown_method_is_refused_by_name(engine: RawEngine, method: str) -> None:
    error = engine.ask(method).error
    assert error["code"] == "METHOD_NOT_FOUND"
    assert method in error["message"]


def test_a_second_request_under_an_active_id_is_refused_at_once(engine: RawEngine) -> None:  # XP-27
    engine.send("process", {"script": 'run sh { sleep 0.3 }\nshow "first"\n'}, name="same")
    engine.send("process", {"script": 'show "second"\n'}, name="same")
    assert engine.answer("same").error["code"] == "REQUEST_IN_PROGRESS"
    assert engine.answer("same").output.strip() == "first"


def test_end_of_file_ends_the_engine_with_every_request_answered(own: RawEngine) -> None:  # XP-5
    running = own.send("process", {"script": 'run sh { sleep 300 }\nshow "done"\n'})
    own.ask("hello")
    own.end_requests()
    assert own.answer(running).error["code"] == "ABORTED"
    assert own.wait() == 0


def test_sigterm_ends_the_engine_with_every_request_answered(own: RawEngine) -> None:  # XP-5
    running = own.send("process", {"script": 'run sh { sleep 300 }\nshow "done"\n'})
    own.ask("hello")
    own.process.terminate()
    assert own.answer(running).error["code"] == "ABORTED"
    assert own.wait() == 0


# ---- values


def test_a_text_of_100_000_characters_arrives_whole_everywhere(engine: RawEngine) -> None:  # XP-9
    text = "0123456789" * 10_000
    script = 'show @payload.text\nvar @kept = @payload.text\noutput @kept to "state://text"\nexport { @kept }\n'
    answer = engine.run(script, payload={"text": text})
    assert answer.output == text + "\n"
    assert answer.of_type("effect")[0]["effect"]["content"] == text + "\n"
    assert answer.result["effects"][0]["content"] == text + "\n"
    assert answer.of_type("state:write")[0]["write"]["value"] == text
    assert answer.result["stateWrites"][0]["value"] == text
    assert text in json.dumps(answer.result["exports"]["kept"]["value"])


def test_an_answer_of_several_megabytes_is_one_line(engine: RawEngine, tmp_path: Path) -> None:  # XP-1
    big = tmp_path / "big.txt"
    big.write_text("x" * 8_000_000)
    answer = engine.run(f"var @big = <{big}>\nshow @big\n", within=50)
    assert len(answer.output) == 8_000_001


def test_long_lists_wide_objects_and_deep_nesting_arrive_whole(engine: RawEngine) -> None:  # XP-9
    deep: object = "bottom"
    for _ in range(7):
        deep = {"down": deep}
    state = {"list": list(range(900)), "object": {f"k{number}": number for number in range(500)}, "deep": deep}
    script = "\n".join(f'output @payload.{name} to "state://{name}"' for name in state) + "\n"
    answer = engine.run(script, payload=state)
    assert answer.output == "\n"
    assert {write["path"]: write["value"] for write in answer.result["stateWrites"]} == state
    assert {event["write"]["path"]: event["write"]["value"] for event in answer.of_type("state:write")} == state


def test_three_hundred_effects_arrive_whole(engine: RawEngine) -> None:  # XP-9
    answer = engine.run("".join(f'show "line {number}"\n' for number in range(300)))
    assert [effect["content"] for effect in answer.result["effects"]] == [f"line {number}\n" for number in range(300)]


def test_one_value_under_two_names_arrives_twice(engine: RawEngine) -> None:  # XP-9
    script = 'var @one = @payload.o\noutput @one to "state://a"\noutput @one to "state://b"\n'
    answer = engine.run(script, payload={"o": {"list": [1, 2, 3]}})
    assert [write["value"] for write in answer.result["stateWrites"]] == [{"list": [1, 2, 3]}] * 2
    assert "[Circular]" not in json.dumps(answer.result)


def test_no_key_name_is_special(engine: RawEngine) -> None:  # XP-10
    names = ("env", "environment", "fileSystem", "baseValue", "pathContext")
    state = {name: {"mine": name} for name in names}
    answer = engine.run('output @payload.all to "state://all"\n', payload={"all": state})
    assert answer.result["stateWrites"][0]["value"] == state


def test_every_line_is_valid_utf8_even_with_half_a_surrogate_pair(engine: RawEngine) -> None:  # XP-11
    sent = engine.send("process", {"script": "show @payload.text\n", "payload": {"text": "half \ud83d café 😀"}})
    while True:
        line = engine.read_line()
        assert line is not None
        message = json.loads(line.decode("utf-8"))
        if message.get("result", {}).get("id") == sent:
            break
    assert message["result"]["output"] == "half \ud83d café 😀\n"


# ---- checkpoints


def test_entries_are_written_and_not_served_by_default(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-13
    assert pipeline.run(engine) == ["one", "two", "three"]
    assert pipeline.run(engine) == ["one", "two", "three"]
    assert len(pipeline.rows()) == 6


def test_checkpoint_true_writes_and_serves(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-13
    assert pipeline.run(engine, checkpoint=True) == ["one", "two", "three"]
    assert pipeline.run(engine, checkpoint=True) == []


@pytest.mark.parametrize("off", [{"checkpoint": False}, {"noCheckpoint": True}])
def test_checkpoint_false_neither_writes_nor_serves(  # XP-13 XP-14 XP-21
    engine: RawEngine, pipeline: Pipeline, off: dict[str, bool]
) -> None:
    pipeline.run(engine)
    rows = pipeline.rows()
    answer = engine.ask("execute", {"filepath": str(pipeline.script), "checkpointRoot": str(pipeline.root), **off})
    assert answer.cache == []
    assert pipeline.calls == ["one", "two", "three"] * 2
    assert pipeline.rows() == rows


@pytest.mark.parametrize(("header", "second"), [("resume: auto\n", []), ("resume: never\n", ["one", "two"])])
def test_the_scripts_own_header_is_obeyed(  # XP-13
    engine: RawEngine, pipeline: Pipeline, header: str, second: list[str]
) -> None:
    pipeline.write("one", "two", header=header)
    assert pipeline.run(engine) == ["one", "two"]
    assert pipeline.run(engine) == second
    if second:
        assert pipeline.rows() == []


def test_parameters_win_over_the_header(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-13
    pipeline.write("one", "two", header="resume: never\n")
    assert pipeline.run(engine, checkpoint=True) == ["one", "two"]
    assert pipeline.run(engine, checkpoint=True) == []
    pipeline.write("one", "two", header="resume: auto\n")
    assert pipeline.run(engine, checkpoint=False) == ["one", "two"]


def test_fresh_clears_the_cache_first(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-15
    pipeline.run(engine)
    pipeline.write("two", "four")
    assert pipeline.run(engine, fresh=True) == ["two", "four"]
    assert sorted(str(row["argsPreview"]) for row in pipeline.rows()) == ["four", "two"]


def test_fresh_serves_what_the_run_itself_wrote(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-15
    pipeline.write("one", "two", "one")
    assert pipeline.run(engine, fresh=True) == ["one", "two"]


def test_resume_true_serves_the_finished_calls(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-16
    pipeline.run(engine)
    pipeline.write("one", "two", "three", "four")
    assert pipeline.run(engine, resume=True) == ["four"]
    assert pipeline.run(engine, resume=True) == []


@pytest.mark.parametrize(
    ("target", "again"),
    [
        ("@ask", ["one", "two", "three"]),
        ("@ask:1", ["two"]),
        ('@ask("t")', ["two", "three"]),
        ('@ask("nothing begins so")', []),
        ("@other", []),
    ],
)
def test_resume_drops_exactly_what_it_names(  # XP-16
    engine: RawEngine, pipeline: Pipeline, target: str, again: list[str]
) -> None:
    pipeline.run(engine)
    assert pipeline.run(engine, resume=target) == again
    assert pipeline.run(engine, resume=True) == []


def test_resume_from_a_named_checkpoint_repeats_what_stands_behind_it(  # XP-16
    engine: RawEngine, pipeline: Pipeline
) -> None:
    pipeline.script.write_text(
        ASK.format(calls=pipeline.calls_file)
        + 'var @a = @ask("one")\ncheckpoint "middle"\nvar @b = @ask("two")\nvar @c = @ask("three")\nshow @c\n'
    )
    pipeline.run(engine)
    assert pipeline.run(engine, resume="middle") == ["two", "three"]
    assert pipeline.error(engine, resume="elsewhere") == "CHECKPOINT_NOT_FOUND"


def test_a_fork_copies_what_is_missing_and_keeps_it(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-17
    pipeline.run(engine)
    pipeline.write("one", "two", "five")
    assert pipeline.run(engine, checkpointName="child", fork="pipe") == ["five"]
    assert pipeline.run(engine, checkpointName="child", resume=True) == []
    assert {row["argsPreview"] for row in pipeline.rows("child")} == {"one", "two", "three", "five"}
    assert len(pipeline.rows("pipe")) == 3


def test_a_fork_leaves_the_caches_own_entries_alone(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-17
    pipeline.run(engine, checkpointName="child")
    pipeline.run(engine)
    [own_row] = [row for row in pipeline.rows("child") if row["argsPreview"] == "one"]
    result = pipeline.root / "child" / "results" / f"{str(own_row['key']).replace(':', '-')}.json"
    result.write_text('{"version":1,"value":"mine"}\n')
    pipeline.run(engine, checkpointName="child", fork="pipe")
    assert json.loads(result.read_text())["value"] == "mine"


def test_fresh_fork_and_resume_apply_in_this_order(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-18
    pipeline.run(engine)
    pipeline.write("one", "two", "six")
    pipeline.run(engine, checkpointName="child")
    assert pipeline.run(engine, checkpointName="child", fresh=True, fork="pipe", resume='@ask("two")') == ["two", "six"]


def test_a_fork_of_a_cache_that_is_not_there_is_refused(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-17
    assert pipeline.error(engine, fork="nowhere") == "CHECKPOINT_NOT_FOUND"
    assert pipeline.calls == []


@pytest.mark.parametrize(
    "params",
    [
        {"checkpoint": "yes"},
        {"noCheckpoint": 1},
        {"fresh": "true"},
        {"resume": 3},
        {"resume": ""},
        {"resume": "@ask:"},
        {"resume": '@ask:1("t")'},
        {"resume": "@ask(unquoted)"},
        {"fork": ""},
        {"fork": "../elsewhere"},
        {"checkpointName": "a/b"},
        {"checkpointRoot": 7},
        {"checkpoint": False, "resume": True},
        {"noCheckpoint": True, "fork": "pipe"},
        {"noCheckpoint": True, "fresh": True},
        {"noCheckpoint": True, "checkpoint": True},
    ],
)
def test_a_wrong_checkpoint_parameter_is_refused_before_anything_runs(  # XP-12 XP-14 XP-16
    engine: RawEngine, pipeline: Pipeline, params: dict[str, object]
) -> None:
    assert pipeline.error(engine, **params) == "INVALID_REQUEST"
    assert pipeline.calls == []


def test_process_has_a_cache_only_under_a_path_or_a_name(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-12
    script = pipeline.script.read_text()
    root = str(pipeline.root)
    assert engine.run(script, checkpointRoot=root).cache == []
    for asked in ({"checkpoint": True}, {"fresh": True}, {"resume": True}, {"fork": "pipe"}):
        refused = engine.ask("process", {"script": script, "checkpointRoot": root, **asked})
        assert refused.error["code"] == "INVALID_REQUEST"
    named = {"checkpointRoot": root, "checkpointName": "by-name", "checkpoint": True}
    assert {kind for kind, _ in engine.run(script, **named).cache} == {"miss"}
    assert {kind for kind, _ in engine.run(script, **named).cache} == {"hit"}
    assert len(pipeline.rows("by-name")) == 3


def test_the_cache_lies_below_the_working_directory_unless_told(own: RawEngine, tmp_path: Path) -> None:  # XP-12
    pipeline = Pipeline(tmp_path, "one")
    own.ask("execute", {"filepath": str(pipeline.script)})
    kept = ".mlld" if own.ask("hello").value["mlld"] == "2.0.5" else ".llm"
    assert (tmp_path / kept / "checkpoints" / "pipe" / "llm-cache.jsonl").exists()


@pytest.mark.parametrize(
    ("path", "name"),
    [("flow.mld", "flow"), ("flow.mld.md", "flow"), ("deep/index.mld", "deep"), ("deep/main.mld", "deep")],
)
def test_a_cache_is_named_after_its_script(  # XP-12
    engine: RawEngine, tmp_path: Path, pipeline: Pipeline, path: str, name: str
) -> None:
    script = tmp_path / path
    params = {"filePath": str(script), "mode": "strict", "checkpointRoot": str(pipeline.root)}
    engine.run(pipeline.script.read_text(), **params)
    assert len(pipeline.rows(name)) == 3


def test_a_torn_last_row_is_cut_off_before_the_run(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-19
    pipeline.run(engine)
    index = pipeline.root / "pipe" / "llm-cache.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[: -len(whole.splitlines(keepends=True)[-1]) // 2])
    assert pipeline.run(engine, resume=True) == ["three"]
    assert pipeline.run(engine, resume=True) == []
    assert len(pipeline.rows()) == 3  # every line can be read again


def test_cache_events_name_function_key_and_first_argument(engine: RawEngine, pipeline: Pipeline) -> None:  # XP-21
    params = {"filepath": str(pipeline.script), "checkpointRoot": str(pipeline.root), "checkpoint": True}
    first, second = engine.ask("execute", params), engine.ask("execute", params)
    assert first.cache == [("miss", "one"), ("miss", "two"), ("miss", "three")]
    assert second.cache == [("hit", "one"), ("hit", "two"), ("hit", "three")]
    rows = {row["key"]: row for row in pipeline.rows()}
    for event in first.of_type("checkpoint:miss") + second.of_type("checkpoint:hit"):
        assert rows[event["checkpoint"]["key"]]["fn"] == event["checkpoint"]["fn"] == "ask"
        assert isinstance(event["timestamp"], int | float)


def test_a_miss_is_announced_before_the_body_runs(engine: RawEngine, tmp_path: Path) -> None:  # XP-21
    gate = tmp_path / "gate"
    script = f'exe llm @ask(p) = sh {{ while [ ! -e {gate} ]; do sleep 0.02; done; echo "$p" }}\nshow @ask("x")\n'
    sent = engine.send("process", {"script": script, "checkpointName": "gated"})
    event = engine.read()["event"]  # type: ignore[index]
    assert event["type"] == "checkpoint:miss"
    gate.touch()
    assert engine.answer(sent).output == "x\n"


# ---- events


def test_every_event_carries_the_request_under_two_names_and_none_is_debug(  # XP-20
    engine: RawEngine, pipeline: Pipeline
) -> None:
    script = pipeline.script.read_text() + 'run sh { echo chunk }\noutput "x" to "state://k"\n'
    sent = engine.send("process", {"script": script, "filePath": str(pipeline.script)}, name="request-77")
    answer = engine.answer(sent)
    types = [event["type"] for event in answer.events]
    assert {"checkpoint:miss", "effect", "state:write", "execution:complete"} <= set(types)
    assert types[-1] == "execution:complete"
    for event in answer.events:
        assert event["id"] == event["requestId"] == "request-77"
        assert not event["type"].startswith("debug:")


@pytest.mark.parametrize("kind", EXTENDED)
def test_an_inherited_wish_for_silence_is_not_obeyed(kind: str, tmp_path: Path) -> None:  # XP-30
    with started(kind, tmp_path, {"MLLD_NO_STREAM": "true", "MLLD_NO_STREAMING": "true"}) as engine:
        answer = engine.run("run sh { echo chunk }\n")
        assert [event["event"]["chunk"] for event in answer.of_type("stream:chunk")] == ["chunk\n"]
        assert answer.output == "chunk\n"


# ---- failures


def test_a_failing_script_ends_its_request_and_nothing_else(engine: RawEngine) -> None:  # XP-22
    bystander = engine.send("process", {"script": 'run sh { sleep 0.3 }\nshow "unharmed"\n'})
    failing = engine.send("process", {"script": "show @nowhere\n"})
    assert engine.answer(failing).error["message"] == "Variable not found: nowhere"
    assert engine.answer(bystander).output.strip() == "unharmed"
    assert engine.process.poll() is None


def test_a_failure_has_the_interpreters_own_code_for_both_methods(engine: RawEngine, tmp_path: Path) -> None:  # XP-23
    script = tmp_path / "bail.mld"
    script.write_text('bail "enough"\n')
    for answer in (engine.run(script.read_text()), engine.ask("execute", {"filepath": str(script)})):
        assert answer.error["code"] == "BAIL_EXIT"
        assert answer.error["message"] == "enough"
        assert answer.error["name"]


def test_words_in_a_message_do_not_make_a_code(engine: RawEngine) -> None:  # XP-23
    assert engine.run("show @abort_me\n").error["code"] == "RUNTIME_ERROR"
    assert engine.run("show @timeout_me\n").error["code"] == "RUNTIME_ERROR"


def test_a_script_that_is_not_there_and_one_that_cannot_be_read(engine: RawEngine, tmp_path: Path) -> None:
    assert engine.ask("execute", {"filepath": str(tmp_path / "nowhere.mld")}).error["code"] == "FILE_NOT_FOUND"
    assert engine.run('var @x = "').error["code"] == "PARSE_ERROR"


def test_a_cancelled_request_is_aborted_and_falls_silent(engine: RawEngine, tmp_path: Path) -> None:  # XP-24 XP-25
    ticks = tmp_path / "ticks"
    sent = engine.send("process", {"script": f"loop(endless, 30ms) [\n  run sh {{ echo t >> {ticks} }}\n]\n"})
    eventually(lambda: ticks.exists() and len(ticks.read_text()) > 4)
    engine.send("cancel", name=sent)
    assert engine.answer(sent).error["code"] == "ABORTED"
    engine.send("hello", name="mark")
    assert engine.answer("mark").events == []


def test_a_cancelled_script_stops_at_its_next_operation(engine: RawEngine, tmp_path: Path) -> None:  # XP-24
    assert "cancel-at-steps" in engine.ask("hello").value["features"]
    gate, late = tmp_path / "gate", tmp_path / "late"
    first = f"touch {gate}.up; while [ ! -e {gate} ]; do sleep 0.02; done; touch {gate}.down"
    script = f"run sh {{ {first} }}\nrun sh {{ touch {late} }}\n"
    sent = engine.send("process", {"script": script})
    eventually(Path(f"{gate}.up").exists)
    engine.send("cancel", name=sent)
    assert engine.answer(sent).error["code"] == "ABORTED"
    gate.touch()
    if engine.ask("hello").value["engine"] == "bridge":  # the operation in flight runs to its end
        eventually(Path(f"{gate}.down").exists)
    assert engine.run('show "after"').output == "after\n"
    assert not late.exists()


def test_a_request_cancelled_at_once_never_starts(engine: RawEngine, tmp_path: Path) -> None:  # XP-26
    marker = tmp_path / "ran"
    request = {"method": "process", "id": "x", "params": {"script": f"run sh {{ touch {marker} }}\n"}}
    engine.send_line(json.dumps(request) + "\n" + json.dumps({"method": "cancel", "id": "x"}))
    assert engine.answer("x").error["code"] == "ABORTED"
    assert engine.run('show "next"').output == "next\n"
    assert not marker.exists()


def test_a_cancel_of_nothing_is_refused(engine: RawEngine) -> None:  # XP-26
    engine.send("cancel", name="nobody")
    assert engine.answer("nobody").error["code"] == "REQUEST_NOT_FOUND"


def test_a_state_update_sent_with_the_request_is_not_too_early(engine: RawEngine) -> None:  # XP-26
    sent = engine.send(
        "process",
        {"script": 'loop(9999, 20ms) until @state.stop [\n  let @x = 1\n]\nshow "stopped"\n', "state": {"stop": False}},
    )
    update = engine.send("state:update", {"requestId": sent, "path": "stop", "value": True})
    assert engine.answer(update).result == {"id": update, "requestId": sent, "path": "stop"}
    assert engine.answer(sent).output == "stopped\n"
    late = engine.ask("state:update", {"requestId": sent, "path": "stop", "value": True})
    assert late.error["code"] == "REQUEST_NOT_FOUND"


@pytest.mark.parametrize("method", ["process", "execute"])
def test_a_timeout_is_a_timeout_for_both_methods(engine: RawEngine, tmp_path: Path, method: str) -> None:  # XP-24
    script = tmp_path / "slow.mld"
    script.write_text("run sh { sleep 300 }\n")
    params = {"filepath": str(script)} if method == "execute" else {"script": script.read_text()}
    assert engine.ask(method, {**params, "timeoutMs": 150}, within=10).error["code"] == "TIMEOUT"
    assert engine.run('show "next"').output == "next\n"


@pytest.mark.parametrize("timeout", [0, -1, 2147483648, "100", True])
def test_a_timeout_that_cannot_be_meant_is_refused(engine: RawEngine, timeout: object) -> None:  # XP-24
    assert engine.run('show "x"', timeoutMs=timeout).result["error"]["code"] == "INVALID_REQUEST"


def test_metrics_are_part_of_both_results(engine: RawEngine, tmp_path: Path) -> None:  # XP-28
    script = tmp_path / "one.mld"
    script.write_text('show "one"\n')
    for answer in (engine.run(script.read_text()), engine.ask("execute", {"filepath": str(script)})):
        metrics = answer.result["metrics"]
        assert set(metrics) >= {"totalMs", "parseMs", "evaluateMs", "cacheHit", "effectCount", "stateWriteCount"}
        assert metrics["effectCount"] == 1


def test_scripts_of_two_requests_do_not_wait_for_each_other(engine: RawEngine) -> None:
    slow = engine.send("process", {"script": 'run sh { sleep 300 }\nshow "slow"\n'})
    quick = engine.run('show "quick"', within=30)
    assert quick.output == "quick\n"
    engine.send("cancel", name=slow)
    assert engine.answer(slow).error["code"] == "ABORTED"
