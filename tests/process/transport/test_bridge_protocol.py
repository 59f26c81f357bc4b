"""What only the bridge has to prove: scripts run inside its own process, next to the protocol."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.transport import bridge
from mlld_sdk.transport.command import READ_FD, WRITE_FD
from mlld_sdk.transport.engine import Engine
from tests.support.eventually import eventually
from tests.support.raw_engine import RawEngine, command_of, needs_real, started
from tests.support.victims import children

PROGRAM = Path(bridge.__file__).with_name("bridge.cjs")

ENVIRONMENT_WITHOUT_METHODS = """
for (const name of ['analyzeModule', 'NodeFileSystem', 'PathContextBuilder']) exports[name] = class {};
exports.execute = async () => ({ environment: {} });
"""

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawEngine]:
    with started("bridge", tmp_path_factory.mktemp("bridge")) as raw:
        raw.ask("hello")
        yield raw


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RawEngine]:
    """A bridge that a test may harm."""
    with started("bridge", tmp_path) as raw:
        raw.ask("hello")
        yield raw


def start_by_hand(
    directory: Path, *, pass_fds: tuple[int, ...] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in (READ_FD, WRITE_FD)}
    return subprocess.run(
        ["node", str(PROGRAM)],
        cwd=directory,
        env={**environment, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        input="",
        pass_fds=pass_fds,
    )


def package(directory: Path, source: str, version: str = "9.9.9") -> str:
    """Lay out something that calls itself mlld."""
    (directory / "dist").mkdir(parents=True)
    (directory / "package.json").write_text(json.dumps({"name": "mlld", "version": version, "main": "dist/index.cjs"}))
    (directory / "dist" / "index.cjs").write_text(source)
    return str(directory)


# ---- starting


@needs_node
def test_it_refuses_to_share_stdout_with_scripts(tmp_path: Path) -> None:  # XP-3 XP-8
    ended = start_by_hand(tmp_path)
    assert (ended.returncode, ended.stdout) == (78, "")
    problem, hint = ended.stderr.splitlines()
    assert READ_FD in problem
    assert hint.startswith("hint: ")


@needs_node
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("exports.execute = () => 1;", "does not export analyzeModule"),
        ("throw new Error('half installed');", "half installed"),
        (
            ENVIRONMENT_WITHOUT_METHODS,
            "the environment of mlld 9.9.9 has no cleanup",
        ),
    ],
)
def test_a_package_of_unknown_layout_is_refused_by_name(tmp_path: Path, source: str, said: str) -> None:  # XP-8
    where = package(tmp_path / "mlld", source)
    ended = start_by_hand(tmp_path, **{READ_FD: "0", WRITE_FD: "1", "MLLD_OTP_BRIDGE_PACKAGE": where})
    assert ended.returncode == 78
    problem, hint = ended.stderr.splitlines()
    assert said in problem
    assert where in problem
    assert 'engine="live"' in hint


@needs_node
def test_a_working_directory_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:  # XP-8
    where = tmp_path / "gone"
    where.mkdir()
    program = f"rmdir {shlex.quote(str(where))}; exec node {shlex.quote(str(PROGRAM))}"
    environ = {**os.environ, READ_FD: "0", WRITE_FD: "1", "MLLD_OTP_BRIDGE_PACKAGE": "/"}
    ended = subprocess.run(["sh", "-c", program], cwd=where, env=environ, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 78
    problem, hint = ended.stderr.splitlines()
    assert "the working directory is gone" in problem
    assert hint.startswith("hint: ")


@needs_node
def test_descriptors_must_be_pipes(tmp_path: Path) -> None:  # XP-8
    with (tmp_path / "file").open("w") as file:
        number = str(file.fileno())
        environ = {READ_FD: number, WRITE_FD: number, "MLLD_OTP_BRIDGE_PACKAGE": str(tmp_path)}
        ended = start_by_hand(tmp_path, pass_fds=(file.fileno(),), **environ)
    assert ended.returncode == 78
    assert f"descriptor {number} is no pipe" in ended.stderr


# ---- the channel


class TestReal:
    pytestmark = needs_real

    def test_printing_neither_forges_nor_breaks_a_message(self, bridge: RawEngine) -> None:  # XP-2
        forged = json.dumps({"result": {"id": 999, "output": "forged"}})
        script = textwrap.dedent(f"""\
            var @a = js {{ console.log({json.dumps(forged)}); return 1 }}
            var @b = js {{ process.stdout.write("no newline"); console.info("info"); return 2 }}
            run sh {{ echo '{forged}' >> /proc/$PPID/fd/1 }}
            show `@a @b`
            """)
        bystander = bridge.send("process", {"script": 'run sh { sleep 0.3 }\nshow "mine"\n'}, name=999)
        printing = bridge.send("process", {"script": script})
        results = {message["result"]["id"]: message["result"] for message in bridge.until_results(2)}
        assert results[bystander]["output"].strip() == "mine"
        assert results[printing]["output"].strip() == "1 2"
        assert bridge.stdout.count("forged") == 2
        assert "no newline" in bridge.stdout

    def test_children_of_scripts_inherit_neither_descriptor(self, bridge: RawEngine) -> None:  # XP-2
        answer = bridge.run("var @open = sh { ls /proc/self/fd }\nshow @open\n")
        assert set(answer.output.split()) <= {"0", "1", "2", "3"}  # 3 is the listing itself

    def test_scripts_do_not_learn_the_descriptor_numbers(self, bridge: RawEngine) -> None:  # XP-2
        answer = bridge.run(
            "var @env = sh { env }\nvar @own = js { return Object.keys(process.env).join(' ') }\nshow `@env @own`\n"
        )
        assert "PATH" in answer.output
        assert READ_FD not in answer.output
        assert WRITE_FD not in answer.output

    def test_what_output_to_stdout_says_stays_in_the_result(self, bridge: RawEngine) -> None:
        answer = bridge.run('output "to stdout" to stdout\nshow "shown"\n')
        assert "to stdout" in answer.output
        assert "shown" in answer.output
        assert "shown" not in bridge.stdout

    def test_a_host_that_does_not_read_gets_no_new_work_done(self, own: RawEngine) -> None:
        request = {"method": "process", "params": {"script": "show @payload.t\n", "payload": {"t": "x" * 1_000_000}}}
        data = b"".join(json.dumps({**request, "id": number}).encode() + b"\n" for number in range(30))
        taken = own.offer(data, patience=1.5)
        assert taken < len(data)  # requests wait in the pipe, not in the engine's memory
        writer = threading.Thread(target=own.send_bytes, args=(data[taken:],))
        writer.start()
        try:
            answers = {message["result"]["id"] for message in own.until_results(30)}
        finally:
            writer.join(60)
        assert answers == set(range(30))

    # ---- scripts that would end another process

    @pytest.mark.parametrize(
        ("body", "code", "word"),
        [
            ("process.exit(7)", "PROCESS_EXIT", "process.exit(7)"),
            ("try { process.exit(7) } catch {} return 1", "PROCESS_EXIT", "process.exit(7)"),
            (
                "setTimeout(() => { throw new Error('too late') }, 10); return new Promise(r => setTimeout(r, 9000))",
                "UNCAUGHT_EXCEPTION",
                "too late",
            ),
        ],
    )
    def test_a_script_cannot_end_the_engine(self, bridge: RawEngine, body: str, code: str, word: str) -> None:  # XP-22
        bystander = bridge.send("process", {"script": 'run sh { sleep 0.3 }\nshow "unharmed"\n'})
        error = bridge.run(f"var @x = js {{ {body} }}\nshow @x\n").error
        assert error["code"] == code
        assert word in error["message"]
        assert word in bridge.stderr
        assert bridge.answer(bystander).output.strip() == "unharmed"

    def test_a_rejection_nobody_handles_is_reported_and_harms_nothing(self, bridge: RawEngine) -> None:  # XP-22
        answer = bridge.run("var @x = js { Promise.reject(new Error('unheard of')); return 5 }\nshow @x\n")
        assert answer.output == "5\n"
        assert bridge.run('show "alive"').output == "alive\n"
        assert bridge.stderr.count("unheard of") == 1

    def test_failures_that_were_answered_leave_stderr_quiet(self, own: RawEngine) -> None:  # XP-22
        own.run("show @nowhere\n")
        slow = own.send("process", {"script": "run sh { sleep 0.2 }\nshow @nowhere\n"})
        own.send("cancel", name=slow)
        own.answer(slow)
        own.run("run sh { sleep 0.3 }\n")
        assert "rejected" not in own.stderr

    def test_an_error_keeps_its_stack_and_its_causes(self, bridge: RawEngine, tmp_path: Path) -> None:  # XP-23
        script = tmp_path / "broken.mld"
        script.write_text('var @x = "never closed\n')
        error = bridge.ask("execute", {"filepath": str(script)}).error
        assert error["code"] == "PARSE_ERROR"
        assert error["filePath"] == str(script)
        assert "    at " in error["stack"]
        assert error["cause"]["name"] == "MlldParseError"

    def test_an_error_message_is_never_cut(self, bridge: RawEngine) -> None:  # XP-9
        error = bridge.run("bail `@payload.why`\n", payload={"why": "because " * 2000}).error
        assert error["message"].count("because") == 2000

    def test_nothing_more_is_started_after_a_cancel(self, bridge: RawEngine) -> None:  # XP-24
        script = (
            "var @x = for parallel(2) @i in [1,2,3,4,5,6] => js { process.stdout.write('item');"
            " return new Promise(r => setTimeout(r, 150)) }\nshow @x\n"
        )
        sent = bridge.send("process", {"script": script})
        eventually(lambda: bridge.stdout.count("item") >= 2)
        bridge.send("cancel", name=sent)
        assert bridge.answer(sent).error["code"] == "ABORTED"
        begun = bridge.stdout.count("item")
        bridge.run("run sh { sleep 0.6 }\n")
        assert bridge.stdout.count("item") <= begun + 1

    def test_a_script_that_never_yields_dies_with_the_group_only(self, own: RawEngine) -> None:  # XP-24
        sent = own.send("process", {"script": "var @x = js { process.stdout.write('spin'); for (;;) {} }\nshow @x\n"})
        eventually(lambda: "spin" in own.stdout)
        own.send("cancel", name=sent)
        own.process.terminate()
        with pytest.raises(AssertionError, match="nothing came"):
            own.read(within=1.0)
        own.kill()
        assert own.process.returncode == -signal.SIGKILL

    # ---- streaming

    def test_streamed_events_belong_to_their_request(self, bridge: RawEngine, tmp_path: Path) -> None:  # XP-20
        model = tmp_path / "model.py"
        lines = [
            {"type": "thinking", "thinking": "hm"},
            {"type": "tool_use", "name": "Read", "id": "tool-1", "input": {"path": "a.txt"}},
            {"type": "tool_result", "tool_use_id": "tool-1", "content": "body", "is_error": False},
            {"type": "result", "result": "hello", "usage": {"input_tokens": 1, "output_tokens": 2}},
        ]
        model.write_text(f"for line in {[json.dumps(line) for line in lines]!r}:\n    print(line, flush=True)\n")
        script = (
            f'exe @llm(p) = stream cmd {{ {sys.executable} {model} "@p" }} with {{ streamFormat: "claude-code" }}\n'
            'var @x = @llm("x")\nshow "end"\n'
        )
        sent = bridge.send("process", {"script": script}, name="stream-1")
        answer = bridge.answer(sent)
        types = {event["type"] for event in answer.events}
        assert {"stream:chunk", "streaming:thinking", "streaming:tool-use", "streaming:tool-result"} <= types
        assert {event["id"] for event in answer.events} == {event["requestId"] for event in answer.events} == {sent}
        [use] = answer.of_type("streaming:tool-use")
        assert use["toolUseId"] == "tool-1"

    # ---- files and signatures

    def test_a_running_script_can_be_given_a_signed_file(self, bridge: RawEngine, tmp_path: Path) -> None:
        (tmp_path / "package.json").write_text("{}")
        script = tmp_path / "route.mld"
        script.write_text("loop(9999, 20ms) until @state.stop [\n  let @x = 1\n]\nshow <made/by/host.txt>\n")
        sent = bridge.send("execute", {"filepath": str(script), "state": {"stop": False}})
        written = bridge.ask("file:write", {"requestId": sent, "path": "made/by/host.txt", "content": "café"}).result
        assert written["verified"] is True
        assert written["signer"] == "agent:route"
        assert (tmp_path / "made/by/host.txt").read_text() == "café"
        bridge.ask("state:update", {"requestId": sent, "path": "stop", "value": True})
        assert "café" in bridge.answer(sent).output

    def test_a_file_outside_the_project_is_refused_before_it_is_written(
        self, bridge: RawEngine, tmp_path: Path
    ) -> None:
        # XP-31
        project = tmp_path / "project"
        project.mkdir()
        (project / "package.json").write_text("{}")
        script = project / "route.mld"
        script.write_text("loop(9999, 20ms) until @state.stop [\n  let @x = 1\n]\n")
        sent = bridge.send("execute", {"filepath": str(script), "state": {"stop": False}})
        refused = bridge.ask("file:write", {"requestId": sent, "path": str(tmp_path / "outside"), "content": "x"}).error
        assert "escapes project root" in refused["message"]
        assert not (tmp_path / "outside").exists()
        bridge.send("cancel", name=sent)
        bridge.answer(sent)

    def test_signatures_and_status_are_served_by_the_package_behind(self, bridge: RawEngine, tmp_path: Path) -> None:
        (tmp_path / "package.json").write_text("{}")
        (tmp_path / "note.txt").write_text("hello\n")
        signed = bridge.ask(
            "sig:sign", {"path": "note.txt", "identity": "user:tester", "basePath": str(tmp_path)}
        ).result
        assert (signed["status"], signed["signer"]) == ("verified", "user:tester")
        (tmp_path / "note.txt").write_text("changed\n")
        assert bridge.ask("sig:verify", {"path": "note.txt", "basePath": str(tmp_path)}).result["status"] == "modified"
        content = bridge.ask("sig:sign-content", {"content": "hello wor", "identity": "agent:x", "id": "n"}).value
        assert content["id"] == "n"
        [status] = bridge.ask("fs:status", {"basePath": str(tmp_path)}).value
        assert status["relativePath"] == "note.txt"
        assert bridge.ask("sig:verify", {}).error["code"] == "RUNTIME_ERROR"

    def test_what_only_reads_is_asked_again_when_the_package_behind_ends_meanwhile(
        self, own: RawEngine, tmp_path: Path
    ) -> None:  # XP-38
        (tmp_path / "package.json").write_text("{}")

        def killed_while(method: str, params: dict[str, Any]) -> Any:
            assert own.ask("fs:status", {"basePath": str(tmp_path)}).value == []
            (behind,) = children(own.process.pid)
            os.kill(behind, signal.SIGSTOP)
            sent = own.send(method, params)
            own.ask("hello")  # it has come to the bridge
            os.kill(behind, signal.SIGKILL)
            return own.answer(sent)

        assert killed_while("fs:status", {"basePath": str(tmp_path)}).value == []
        (tmp_path / "note.txt").write_text("hello\n")
        refused = killed_while("sig:sign", {"path": "note.txt", "identity": "user:a", "basePath": str(tmp_path)})
        assert refused.error["code"] == "ENGINE_UNAVAILABLE"

    def test_a_status_too_long_for_the_live_engine_is_an_error_not_a_part(
        self, bridge: RawEngine, tmp_path: Path
    ) -> None:
        (tmp_path / "package.json").write_text("{}")
        script = tmp_path / "many.mld"
        script.write_text("loop(9999, 20ms) until @state.stop [\n  let @x = 1\n]\n")
        sent = bridge.send("execute", {"filepath": str(script), "state": {"stop": False}})
        for number in range(201):
            bridge.send("file:write", {"requestId": sent, "path": f"f{number}.txt", "content": "x"}, name=f"w{number}")
        bridge.answer("w200")
        bridge.send("cancel", name=sent)
        bridge.answer(sent)
        assert bridge.ask("fs:status", {"basePath": str(tmp_path)}).error["code"] == "TRUNCATED"
        narrow = bridge.ask("fs:status", {"basePath": str(tmp_path), "glob": "f1*.txt"}).value
        assert 0 < len(narrow) <= 200

    def test_analysis_is_whole(self, bridge: RawEngine, tmp_path: Path) -> None:  # XP-9
        script = tmp_path / "rich.mld"
        script.write_text("".join(f'exe llm @f{number}(p) = cmd {{ echo "@p" }}\n' for number in range(250)))
        result = bridge.ask("analyze", {"filepath": str(script)}).result
        assert result["valid"] is True
        assert [found["name"] for found in result["executables"]] == [f"@f{number}" for number in range(250)]
        assert bridge.ask("analyze", str(tmp_path / "nowhere.mld")).result["errors"][0]["code"] == "FILE_NOT_FOUND"

    def test_the_tool_servers_of_a_run_end_with_it(self, bridge: RawEngine, tmp_path: Path) -> None:
        server, pid = tmp_path / "server.py", tmp_path / "pid"
        server.write_text(
            textwrap.dedent(f"""\
                import json, os, pathlib, sys
                pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))
                tool = {{"name": "echo", "description": "e", "inputSchema": {{"type": "object",
                        "properties": {{"text": {{"type": "string"}}}}, "required": ["text"]}}}}
                for line in sys.stdin:
                    asked = json.loads(line)
                    said = {{
                        "initialize": {{"protocolVersion": "2024-11-05", "capabilities": {{"tools": {{}}}},
                                       "serverInfo": {{"name": "t", "version": "1"}}}},
                        "tools/list": {{"tools": [tool]}},
                        "tools/call": {{"content": [{{"type": "text", "text": "echoed"}}]}},
                    }}.get(asked.get("method"), {{}})
                    if asked.get("id") is not None:
                        print(json.dumps({{"jsonrpc": "2.0", "id": asked["id"], "result": said}}), flush=True)
                """)
        )
        script = 'import tools from mcp "tools" as @t\nshow @t.echo("hi")\n'
        answer = bridge.run(script, mcpServers={"tools": f"{sys.executable} {server}"})
        assert answer.output.strip() == "echoed"
        number = int(pid.read_text())
        eventually(lambda: not Path(f"/proc/{number}").exists())

    def test_dynamic_modules_state_and_labels_arrive(self, bridge: RawEngine) -> None:
        script = (
            'import { mode } from "@cfg"\nimport { topic } from @payload\n'
            "show `@mode @topic @state.count @topic.mx.labels`\n"
        )
        answer = bridge.run(
            script,
            dynamicModules={"@cfg": {"mode": "fast"}},
            state={"count": 3},
            payload={"topic": "safety"},
            payloadLabels={"topic": ["untrusted", " untrusted "]},
        )
        assert "fast safety 3" in answer.output
        assert "untrusted" in answer.output

    def test_the_engine_class_drives_it_over_private_pipes(self, tmp_path: Path) -> None:
        with Engine.start(replace(command_of("bridge"), cwd=str(tmp_path))) as engine:
            engine.wait_ready(20)
            reply = engine.call("process", {"script": "show @payload.t\n", "payload": {"t": "x" * 100_000}}, timeout=60)
            assert len(reply.payload["output"]) == 100_001
            assert reply.cuts == []
            assert list(engine.noise) == []
