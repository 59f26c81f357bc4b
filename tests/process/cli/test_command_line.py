"""The command line against a live runtime, as an operator uses it: in crash, backoff, drain, and after it is gone."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.base.events import name_of
from mlld_sdk.base.folders import FolderNotPrivate
from mlld_sdk.cli.main import span
from mlld_sdk.control import protocol
from mlld_sdk.control.client import Remote, running
from mlld_sdk.control.protocol import AskTree, ControlError, RuntimeProcess, socket_path, sockets
from tests.support.command_line import command_line
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

SERVICE = """
from mlld_sdk import Agent, Backoff, Pool, child, circuit_breaker, one_for_one, wedge

class Worker(Agent):
    engine = "embedded"
    checkpoint = True
    def run(self, job, payload):
        if payload == "die":
            import os, signal
            job.process('run sh { kill -9 $PPID }', idempotent=False)
        return [job.process(f'run sh {{ sleep 0.1 }}\\nshow "thought {n}"', idempotent=True) for n in range(payload)]

class Flaky(Agent):
    engine = "embedded"
    def on_receive(self, message):
        if message == "die":
            raise RuntimeError("flaky as ever")
        return super().on_receive(message)

class Stuck(Agent):
    engine = "embedded"
    def run(self, job, payload):
        return job.process("run sh { sleep 300 }", idempotent=True)

tree = one_for_one(
    child(Worker, name="worker"),
    child(Pool, name="pool", engine="embedded", size=1),
    child(Flaky, name="flaky", backoff=Backoff(30, jitter=0)),
    child(Stuck, name="stuck", wedge=wedge(0.5, times=1, then="stop")),
    max_restarts=100,
)
runtime_options = {"drain_timeout": 0.5}
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a service; gives a function that runs the command line against it."""
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    (tmp_path / "service.py").write_text(SERVICE)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mlld_sdk"]
    process = subprocess.Popen(
        [*command, "run", "service.py", "--store", "state.db", "--quiet"], cwd=tmp_path, env=environ
    )

    def say(*words: str, status: int | None = 0) -> str:
        said = command_line(tmp_path, *words)
        assert status is None or said.status == status, said.out + said.err
        return said.out if said.status in (0, 3) else said.err

    say.shell = lambda given: (
        subprocess.run(  # type: ignore[attr-defined]
            [*command, "shell"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True, input=given, check=True
        ).stdout
    )
    say.process = process  # type: ignore[attr-defined]
    try:
        eventually(lambda: (process.poll() is None or pytest.fail("the service ended")) and running("service"))
        yield say
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_an_operator_sees_what_crashed_why_and_what_follows(service: Any, tmp_path: Path) -> None:
    assert "HEALTHY" in service("tree")
    assert service("crashes") == "none\n"
    run = service("runs", "submit", "worker", '"die"').strip()
    eventually(lambda: run in service("runs", "ls", "--state", "parked"))
    why = service("why", "worker")
    assert "SIGKILL" in why
    assert "decision  restart by service" in why
    assert run in why
    crash = service("crashes").split()[1]
    assert crash in service("why", crash)
    shown = service("runs", "show", run)
    assert "parked" in shown
    assert "interrupted" in shown
    assert "was in flight when its owner died" in shown
    assert "is cancelled" in service("runs", "cancel", run, "--reason", "pointless")
    assert json.loads(service("crashes", "--json"))["crashes"][0]["engine"]["exit"] == "SIGKILL"


def test_runs_are_handed_in_watched_and_cancelled(service: Any) -> None:
    run = service("runs", "submit", "worker", "3", "--key", "k").strip()
    assert service("runs", "submit", "worker", "3", "--key", "k").strip() == run
    eventually(lambda: "thought 2" in service("runs", "show", run))
    assert f"{run}   service/worker   finished" in service("runs", "show", run)
    assert "no run" in service("runs", "show", "nonsense", status=1)
    assert "no JSON" in service("runs", "submit", "worker", "{", status=1)
    assert "step.finished" in service("events", "--last", "50")
    assert "worker" in service("top")


def test_a_place_is_paused_with_a_reason_and_resumed(service: Any) -> None:
    service("pause", "worker", "--reason", "new model tonight")
    tree = service("tree")
    assert "new model tonight" in tree
    assert "MAINTENANCE" in tree
    run = service("runs", "submit", "worker", "1").strip()
    service("resume", "worker")
    eventually(lambda: "finished" in service("runs", "show", run))
    service("restart", "worker", "--reason", "just because")
    assert "operator.acted" in service("events", "--last", "500")
    service("drain", "worker")


def test_a_reason_may_be_left_out_and_a_place_that_is_paused_says_so_all_the_same(service: Any) -> None:
    service("pause", "worker")
    assert "MAINTENANCE" in service("tree")
    assert "no reason was given" in service("tree")
    service("resume", "worker", "--reason", "it was a mistake")
    service("restart", "worker")
    assert "HEALTHY" in service("tree")


def test_a_wedged_agent_is_named(service: Any) -> None:
    service("runs", "submit", "stuck", "null")
    eventually(lambda: "wedged" in service("why", "stuck"))
    assert "nothing finished for" in service("why", "stuck")


def test_the_shell_runs_commands_and_mlld(service: Any) -> None:
    said = service.shell('runs ls\npool> show "from the shell"\nnonsense\ntree\n')
    assert "from the shell" in said
    assert "one_for_one" in said


def test_the_shell_remembers_what_earlier_lines_have_defined(service: Any) -> None:
    said = service.shell(
        "pool> var @word = 'first'\n"
        "pool> show `word: @word`\n"
        "pool> var @word = 'second'\n"
        "pool> exe @twice(text) = `@text @text`\n"
        "pool> show @twice(@word)\n"
        "pool> var @broken = @nothing.at(all\n"
        "pool> show `still @word`\n"
        "worker> show `of another: @word`\n"
        "forget\n"
        "pool> show `forgotten: @word`\n"
        "help\n"
        "help events\n"
    )
    assert "word: first" in said
    assert "second second" in said
    assert "still second" in said
    assert "of another: second" not in said
    assert "forgotten: second" not in said
    assert "run again in front of" in said
    assert "--limit" in said


def test_the_number_of_events_is_limited(service: Any) -> None:
    assert len(service("events", "--limit", "2").splitlines()) == 2


def test_a_runtime_that_was_killed_leaves_a_socket_that_its_successor_removes(service: Any, tmp_path: Path) -> None:
    service.process.kill()
    service.process.wait()
    assert not running("service")
    assert sockets() == [RuntimeProcess("service", service.process.pid)]
    assert "no runtime answers" in service("tree", status=1)
    again = subprocess.Popen(
        [sys.executable, "-m", "mlld_sdk", "run", "service.py", "--store", "state.db", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        eventually(lambda: "HEALTHY" in service("tree", status=None))
    finally:
        again.send_signal(signal.SIGTERM)
        assert again.wait(60) == 0
    assert not sockets()


def test_crashes_are_remembered_by_the_next_life_of_the_service(tmp_path: Path) -> None:
    class Mortal(Agent):
        engine = "embedded"

        def on_receive(self, message: Any) -> Any:
            if message == "die":
                raise RuntimeError("remember me")
            return super().on_receive(message)

    tree = one_for_one(child(Mortal, name="mortal"))
    with Runtime(tree, store=tmp_path / "s.db") as runtime:
        runtime["mortal"].ref.tell("die")
        eventually(lambda: runtime.history.crashes())
        eventually(lambda: any(event.name == "crash" for event in runtime.journal.events(limit=1000)))
        first = runtime.history.crashes()
    with Runtime(tree, store=tmp_path / "s.db") as runtime:
        assert runtime.history.crashes() == first
        assert runtime.history.crashes("root/mortal")[0].reason == "RuntimeError: remember me"


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    with Runtime(one_for_one(child(Agent, name="a", engine="embedded")), control=True) as runtime:
        yield runtime


def test_the_socket_is_private(runtime: Runtime) -> None:
    path = socket_path("root")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_others_may_write_into_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path))
    socket_path("x").parent.mkdir()
    socket_path("x").parent.chmod(0o777)
    with pytest.raises(FolderNotPrivate, match="not private"):
        Runtime(one_for_one(child(Agent, engine="embedded")), control=True).start()


def test_two_runtimes_of_one_name_in_one_process_do_not_share_a_socket(runtime: Runtime) -> None:
    with pytest.raises(ControlError, match="another runtime of this name is running in this process"):
        Runtime(one_for_one(child(Agent, engine="embedded")), control=True).start()
    with Remote("root") as remote:
        assert remote.ask(AskTree())["verdict"]["word"] == "healthy"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"ask":"nothing"}', b'{"ask":"why"}', b'{"ask":"events","after":"x"}', b"\xff"]
)
def test_a_malformed_request_is_refused_and_the_next_one_answered(runtime: Runtime, body: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path("root")))
        connection.sendall(struct.pack(">I", len(body)) + body)
        answer = protocol.decode_answer(protocol.receive(connection) or b"")
        assert answer.code == "MALFORMED"
        protocol.send(connection, AskTree())
        assert protocol.decode_answer(protocol.receive(connection) or b"").code is None


def test_an_oversized_or_broken_frame_ends_its_connection_only(runtime: Runtime) -> None:
    for bytes_ in (struct.pack(">I", protocol.MAX_FRAME + 1), struct.pack(">I", 100) + b"short"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_path("root")))
            connection.sendall(bytes_)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    with Remote("root") as remote:
        assert remote.ask(AskTree())["tree"]["name"] == "root"


def test_another_user_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.control.protocol.peer_of", lambda connection: (1, os.getuid() + 1))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path("root")))
        answer = protocol.decode_answer(protocol.receive(connection) or b"")
    assert answer.code == "WRONG_USER"
    assert "another user" in answer.message


def test_what_an_operator_does_is_an_event(runtime: Runtime) -> None:
    with runtime.bus.recording() as seen, Remote("root") as remote:
        remote.ask(protocol.Operate(what="pause", path="a", reason="because"))
        remote.ask(protocol.Operate(what="resume", path="a", reason=""))
    acted = [event for event in seen if name_of(event) == "operator.acted"]
    assert [(event.what, event.subject, event.reason) for event in acted] == [
        ("pause", "a", "because"),
        ("resume", "a", ""),
    ]


def test_spans_of_time_are_read_in_words() -> None:
    assert [span(text) for text in ("90", "90s", "5m", "1h", "2d")] == [90, 90, 300, 3600, 172800]


def test_a_file_without_a_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "mlld_sdk", "run", str(tmp_path / "empty.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no `tree`" in done.stderr
