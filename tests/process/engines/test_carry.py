"""What each engine can carry and what it cannot: every cell of the table in docs/engines.md is a test here."""

import json
import shlex
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlld_sdk.client.client import Client
from mlld_sdk.transport.command import resolve
from tests.support.eventually import eventually
from tests.support.raw_engine import (
    BRIDGE,
    EMBEDDED,
    PLAIN_SHELL,
    REAL,
    RawEngine,
    command_of,
    needs_real,
    real_version,
    started,
)

# What the live engine does is said of the released one.
live_only = [*needs_real, pytest.mark.skipif(bool(REAL) and real_version() != (2, 0, 5), reason="said of mlld 2.0.5")]

EACH = [pytest.param("live", marks=live_only), BRIDGE, EMBEDDED]

IN_FULL = [
    pytest.param("live", False, marks=live_only, id="live"),
    pytest.param("bridge", True, marks=needs_real, id="bridge"),
    pytest.param("embedded", True, id="embedded"),
]
"""Each engine, and whether it can do what the test is about."""


@pytest.fixture(scope="module", autouse=True)
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RawEngine]]:
    """Run one engine of each kind for the tests that do not harm it."""
    kinds = ["live", "bridge", "embedded"] if REAL else ["embedded"]
    with ExitStack() as running:
        found = {kind: running.enter_context(started(kind, tmp_path_factory.mktemp(kind))) for kind in kinds}
        for raw in found.values():
            raw.ask("hello")
        yield found


@pytest.fixture
def engine(kind: str, engines: dict[str, RawEngine], tmp_path: Path) -> RawEngine:
    (tmp_path / "package.json").write_text("{}")
    return engines[kind]


@pytest.fixture
def own(kind: str, tmp_path: Path) -> Iterator[RawEngine]:
    """An engine that the test may harm."""
    with started(kind, tmp_path) as raw:
        raw.ask("hello")
        yield raw


def client(kind: str, directory: Path) -> Client:
    (directory / "package.json").write_text("{}")
    if kind == "embedded":
        return Client(engine="embedded", working_dir=directory, timeout=30)
    command, *args = shlex.split(REAL or "mlld")
    return Client(command, args, engine=kind, working_dir=directory, timeout=30, environ=PLAIN_SHELL)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "able"), IN_FULL)
def test_an_introduction(kind: str, able: bool, engine: RawEngine) -> None:  # XP-7
    result = engine.ask("hello").result
    if able:
        assert result["value"]["engine"] == kind
    else:  # which proves just as well that it is there
        assert result["error"]["code"] == "METHOD_NOT_FOUND"


# ---- what a result holds


@pytest.mark.parametrize(("kind", "whole"), IN_FULL)
def test_a_text_of_100_000_characters(kind: str, whole: bool, tmp_path: Path) -> None:
    text = "0123456789" * 10_000
    script = tmp_path / "long.mld"
    script.write_text("show @payload.text\n")
    with client(kind, tmp_path) as mlld:
        result = mlld.execute(script, {"text": text})
        assert (result.output == text + "\n") is whole
        assert result.truncated is not whole  # never in silence


@pytest.mark.parametrize(("kind", "whole"), IN_FULL)
def test_a_list_of_900_and_an_object_of_500(kind: str, whole: bool, tmp_path: Path) -> None:
    state = {"list": list(range(900)), "object": {f"k{number}": number for number in range(500)}}
    script = tmp_path / "wide.mld"
    script.write_text('output @payload.list to "state://list"\noutput @payload.object to "state://object"\n')
    with client(kind, tmp_path) as mlld:
        result = mlld.execute(script, state)
        assert ({write.path: write.value for write in result.state_writes} == state) is whole
        assert result.truncated is not whole


@pytest.mark.parametrize(("kind", "able"), IN_FULL)
def test_metrics_of_script_text(kind: str, able: bool, engine: RawEngine) -> None:
    assert ("metrics" in engine.run('show "x"\n').result) is able


@pytest.mark.parametrize(("kind", "able"), IN_FULL)
def test_the_failures_own_code_from_a_file(kind: str, able: bool, engine: RawEngine, tmp_path: Path) -> None:
    script = tmp_path / "bail.mld"
    script.write_text('bail "enough"\n')
    assert (engine.ask("execute", {"filepath": str(script)}).error["code"] == "BAIL_EXIT") is able


# ---- checkpoints


@pytest.mark.parametrize(("kind", "able"), IN_FULL)
def test_checkpoint_parameters_and_cache_events(kind: str, able: bool, engine: RawEngine, tmp_path: Path) -> None:
    calls, script = tmp_path / "calls", tmp_path / "pipe.mld"
    script.write_text(f'exe llm @ask(p) = sh {{ echo "$p" >> {calls}; echo "re $p" }}\nshow @ask("q")\n')
    for _ in range(2):
        answer = engine.ask("execute", {"filepath": str(script), "checkpoint": True})
    assert (len(calls.read_text().split()) == 1) is able
    assert (answer.cache == [("hit", "q")]) is able


@pytest.mark.parametrize("kind", EACH)
def test_finished_calls_are_kept_and_served(kind: str, engine: RawEngine, tmp_path: Path) -> None:
    calls, script = tmp_path / "calls", tmp_path / "served.mld"
    script.write_text(f'resume: auto\nexe llm @ask(p) = sh {{ echo "$p" >> {calls}; echo "re $p" }}\nshow @ask("q")\n')
    for _ in range(2):
        assert engine.ask("execute", {"filepath": str(script)}).output == "re q\n"
    assert calls.read_text().split() == ["q"]


# ---- what scripts do to an engine


@pytest.mark.parametrize(("kind", "able"), IN_FULL)
def test_surviving_a_failing_script(kind: str, able: bool, tmp_path: Path) -> None:
    command = command_of(kind)
    if kind == "live":
        program, *args = shlex.split(REAL or "mlld")
        command = resolve(program, args, survive=False)  # without the Node option the transport gives it
    with started(command, tmp_path) as engine:
        engine.run("show @nowhere\n")
        if able:
            assert engine.run('show "alive"\n').output == "alive\n"
        else:
            assert engine.wait() == 1


@pytest.mark.parametrize(
    ("kind", "able"), [pytest.param("live", False, marks=live_only), pytest.param("bridge", True, marks=needs_real)]
)
def test_a_channel_that_printing_cannot_reach(kind: str, able: bool, engine: RawEngine) -> None:
    forged = json.dumps({"result": {"id": "victim", "output": "forged"}})
    engine.send("process", {"script": f"var @x = js {{ console.log({json.dumps(forged)}); return 1 }}\nshow @x\n"})
    engine.send("process", {"script": 'run sh { sleep 0.5 }\nshow "genuine"\n'}, name="victim")
    assert (engine.answer("victim").output.strip() == "genuine") is able


def test_a_channel_that_printing_cannot_reach_embedded(tmp_path: Path) -> None:
    with started("embedded", tmp_path) as engine:
        forged = json.dumps({"result": {"id": "victim", "output": "forged"}})
        engine.send("process", {"script": f"run sh {{ echo '{forged}'; echo '{forged}' >&2 }}\n"})
        engine.send("process", {"script": 'show "genuine"\n'}, name="victim")
        assert engine.answer("victim").output == "genuine\n"


# ---- control


@pytest.mark.parametrize(("kind", "able"), IN_FULL)
def test_stopping_a_cancelled_script(kind: str, able: bool, own: RawEngine, tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    sent = own.send("process", {"script": f"loop(endless, 30ms) [\n  run sh {{ echo t >> {ticks} }}\n]\n"})
    eventually(lambda: ticks.exists() and len(ticks.read_text()) > 4)
    own.send("cancel", name=sent)
    assert own.answer(sent).error["code"] == "ABORTED"
    own.run("run sh { sleep 0.1 }\n")  # one operation may have been in flight
    after = ticks.read_text()
    own.run("run sh { sleep 0.7 }\n")
    assert (ticks.read_text() == after) is able


@pytest.mark.parametrize(("kind", "able"), IN_FULL)
def test_a_timeout_for_script_text(kind: str, able: bool, engine: RawEngine) -> None:
    answer = engine.run("run sh { sleep 1 }\n", timeoutMs=100)
    assert (answer.result.get("error", {}).get("code") == "TIMEOUT") is able


@pytest.mark.parametrize(("kind", "able"), IN_FULL)
def test_a_cancel_sent_with_the_request(kind: str, able: bool, engine: RawEngine) -> None:
    request = {"method": "process", "id": "hasty", "params": {"script": 'run sh { sleep 0.3 }\nshow "ran"\n'}}
    engine.send_line(json.dumps(request) + "\n" + json.dumps({"method": "cancel", "id": "hasty"}))
    assert (engine.answer("hasty").error["code"] == "ABORTED") is able  # the live engine says: not found
    if not able:
        assert engine.answer("hasty").output.strip() == "ran"


@pytest.mark.parametrize("kind", EACH)
def test_state_updates_reach_a_running_script(kind: str, engine: RawEngine, tmp_path: Path) -> None:
    up = tmp_path / "up"
    script = f"run sh {{ touch {up} }}\nloop(9999, 20ms) until @state.stop [\n  let @x = 1\n]\nshow `@state.stop`\n"
    sent = engine.send("process", {"script": script, "state": {"stop": False}})
    eventually(up.exists)
    update = engine.ask("state:update", {"requestId": sent, "path": "stop", "value": True})
    assert update.result["path"] == "stop"
    assert "true" in engine.answer(sent).output


# ---- streaming, tools, signatures


@pytest.mark.parametrize(
    ("kind", "able"), [pytest.param("live", False, marks=live_only), pytest.param("bridge", True, marks=needs_real)]
)
def test_tool_use_events_that_name_their_request(kind: str, able: bool, engine: RawEngine, tmp_path: Path) -> None:
    line = json.dumps({"type": "tool_use", "name": "Read", "id": "tool-1", "input": {}})
    (tmp_path / "model.py").write_text(f"print({line!r}, flush=True)\n")
    script = (
        f"exe @llm() = stream cmd {{ {sys.executable} {tmp_path}/model.py }}"
        ' with { streamFormat: "claude-code" }\nvar @x = @llm()\nshow "end"\n'
    )
    sent = engine.send("process", {"script": script}, name="mine")
    [use] = engine.answer(sent).of_type("streaming:tool-use")
    assert (use["id"] == "mine") is able


@pytest.mark.parametrize("kind", EACH)
def test_output_of_commands_as_it_comes(kind: str, engine: RawEngine) -> None:
    answer = engine.run("run sh { echo one; echo two }\n")
    assert "".join(event["event"]["chunk"] for event in answer.of_type("stream:chunk")) == "one\ntwo\n"


@pytest.mark.parametrize(
    ("kind", "able"), [pytest.param("live", False, marks=live_only), pytest.param("bridge", True, marks=needs_real)]
)
def test_tool_servers_that_end_with_their_run(kind: str, able: bool, engine: RawEngine, tmp_path: Path) -> None:
    server, pid = tmp_path / "server.py", tmp_path / "pid"
    server.write_text(
        textwrap.dedent(f"""\
            import json, os, pathlib, sys
            pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))
            schema = {{"type": "object", "properties": {{}}}}
            for line in sys.stdin:
                asked = json.loads(line)
                said = {{
                    "initialize": {{"protocolVersion": "2024-11-05", "capabilities": {{"tools": {{}}}},
                                   "serverInfo": {{"name": "t", "version": "1"}}}},
                    "tools/list": {{"tools": [{{"name": "ping", "description": "p", "inputSchema": schema}}]}},
                    "tools/call": {{"content": [{{"type": "text", "text": "pong"}}]}},
                }}.get(asked.get("method"), {{}})
                if asked.get("id") is not None:
                    print(json.dumps({{"jsonrpc": "2.0", "id": asked["id"], "result": said}}), flush=True)
            """)
    )
    script = 'import tools from mcp "tools" as @t\nshow @t.ping()\n'
    assert engine.run(script, mcpServers={"tools": f"{sys.executable} {server}"}).output.strip() == "pong"
    process = Path("/proc") / pid.read_text()
    if able:
        eventually(lambda: not process.exists())
    else:
        engine.run("run sh { sleep 0.3 }\n")
        assert process.exists()


@pytest.mark.parametrize("kind", EACH)
def test_signatures_and_status(kind: str, engine: RawEngine, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello\n")
    asked = {"path": str(tmp_path / "note.txt"), "basePath": str(tmp_path)}
    assert engine.ask("sig:sign", {**asked, "identity": "user:tester"}).result["status"] == "verified"
    (tmp_path / "note.txt").write_text("changed\n")
    assert engine.ask("sig:verify", asked).result["status"] == "modified"
    assert engine.ask("sig:sign-content", {"content": "x", "identity": "a", "id": "n"}).value["id"] == "n"
    assert [entry["relativePath"] for entry in engine.ask("fs:status", {"basePath": str(tmp_path)}).value] == [
        "note.txt"
    ]


@pytest.mark.parametrize("kind", EACH)
def test_files_written_for_a_running_script(kind: str, engine: RawEngine, tmp_path: Path) -> None:
    up, script = tmp_path / "up", tmp_path / "route.mld"
    script.write_text(f"run sh {{ touch {up} }}\nloop(9999, 20ms) until @state.stop [\n  let @x = 1\n]\n")
    sent = engine.send("execute", {"filepath": str(script), "state": {"stop": False}})
    eventually(up.exists)
    written = engine.ask("file:write", {"requestId": sent, "path": "made/out.txt", "content": "café"}).result
    assert (written["verified"], written["signer"]) == (True, "agent:route")
    engine.ask("state:update", {"requestId": sent, "path": "stop", "value": True})
    engine.answer(sent)
    assert (tmp_path / "made" / "out.txt").read_text() == "café"


@pytest.mark.parametrize("kind", EACH)
def test_analysis(kind: str, engine: RawEngine, tmp_path: Path) -> None:
    script = tmp_path / "some.mld"
    script.write_text('exe llm @ask(p) = cmd { echo "@p" }\nvar @title = "x"\nexport { @ask }\n')
    result = engine.ask("analyze", {"filepath": str(script)}).result
    assert result["valid"] is True
    assert [(found["name"], found["labels"]) for found in result["executables"]] == [("@ask", ["llm"])]


# ---- the language


@pytest.mark.parametrize(
    ("kind", "able"),
    [
        pytest.param("live", True, marks=needs_real),
        pytest.param("bridge", True, marks=needs_real),
        pytest.param("embedded", False),
    ],
)
def test_the_whole_language(kind: str, able: bool, engine: RawEngine) -> None:
    answer = engine.run("var @x = js { return 1 + 1 }\nshow @x\n")
    if able:
        assert answer.output == "2\n"
    else:  # by name, never a wrong answer
        assert answer.error["code"] == "UNSUPPORTED_CONSTRUCT"
        assert "real engine" in answer.error["message"]
