"""Several processes of one runtime: each has its own socket; the command line shows and operates all of them."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.base.folders import private_folder
from mlld_sdk.control.client import Remote, running
from mlld_sdk.control.protocol import (
    AskWho,
    ControlError,
    RuntimeProcess,
    is_listening,
    socket_folder,
    sockets,
)
from tests.support.command_line import Said, command_line
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

SERVICE = """
from mlld_sdk import Agent, Runtime, child, one_for_one

class Echo(Agent):
    engine = "embedded"
    def run(self, job, payload):
        return payload

tree = one_for_one(child(Echo, name="echo"))
runtime_options = {"drain_timeout": 0.5}
"""

FORKS = """
import os, sys
from service import Runtime, tree

with Runtime(tree, name="parent", control=True):
    child = os.fork()
    if child == 0:
        os.close(1)
        sys.stdin.read()
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), 9)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    (tmp_path / "service.py").write_text(SERVICE)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    begun: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mlld_sdk", "run", "service.py", "--quiet", *words]
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True)
        begun.append(process)
        return process

    try:
        yield begin
    finally:
        for process in begun:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in begun:
            process.wait(60)


def listen(*processes: subprocess.Popen[str]) -> None:
    eventually(lambda: {one.pid for one in running("service")} == {process.pid for process in processes})


def test_what_several_processes_say_is_shown_with_the_process_that_says_it(folder: Path, start: Start) -> None:
    first, second = start("--store", "s.db"), start("--store", "s.db")
    listen(first, second)
    said = command_line(folder, "tree")
    assert said.status == 0
    assert said.out.count("HEALTHY") == 2
    assert f"service (process {first.pid})\nHEALTHY" in said.out
    assert f"service (process {second.pid})\nHEALTHY" in said.out
    told = json.loads(command_line(folder, "tree", "--json").out)["processes"]
    assert {one["pid"]: one["verdict"]["word"] for one in told} == {first.pid: "healthy", second.pid: "healthy"}
    assert command_line(folder, "top").out.count("runs: none") == 2
    assert command_line(folder, "crashes").out.count("none") == 2
    assert command_line(folder, "why", "echo").out.count("service/echo: running") == 2
    one = command_line(folder, "tree", "--pid", str(second.pid))
    assert one.out.startswith("HEALTHY")
    assert one.out.count("HEALTHY") == 1


def test_runs_in_one_store_are_handed_in_and_seen_through_any_process(folder: Path, start: Start) -> None:
    listen(start("--store", "s.db"), start("--store", "./s.db"))
    run = command_line(folder, "runs", "submit", "echo", "3").out.strip()
    eventually(lambda: "finished" in command_line(folder, "runs", "show", run).out)


def test_runs_in_two_stores_need_a_process_to_be_named(folder: Path, start: Start) -> None:
    first, second = start("--store", "a.db"), start("--store", "b.db")
    listen(first, second)
    said = command_line(folder, "runs", "ls")
    assert said.status == 1
    assert str(first.pid) in said.err
    assert "--pid" in said.err
    assert command_line(folder, "runs", "ls", "--pid", str(first.pid)).status == 0


def test_a_place_is_paused_in_the_process_that_is_named_or_in_all(folder: Path, start: Start) -> None:
    first, second = start("--store", "s.db"), start("--store", "s.db")
    listen(first, second)
    said = command_line(folder, "pause", "echo", "--reason", "maintenance tonight")
    assert said.status == 1
    assert "--pid" in said.err
    assert "MAINTENANCE" not in command_line(folder, "tree").out
    assert command_line(folder, "pause", "echo", "--reason", "why", "--pid", str(first.pid)).status == 0
    assert command_line(folder, "tree", "--pid", str(first.pid)).out.startswith("MAINTENANCE")
    assert command_line(folder, "tree", "--pid", str(second.pid)).out.startswith("HEALTHY")
    assert command_line(folder, "resume", "echo", "--pid", str(first.pid)).status == 0
    both = command_line(folder, "pause", "echo", "--reason", "why", "--pid", "all")
    assert both.out.count("pause: echo") == 2
    assert command_line(folder, "tree").out.count("MAINTENANCE") == 2
    assert command_line(folder, "resume", "echo", "--pid", "nonsense").status == 2


def test_a_process_that_does_not_answer_is_named_beside_those_that_do(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlld_sdk.control.client.LOOK_TIMEOUT", 1.0)
    first, second = start("--store", "s.db"), start("--store", "s.db")
    listen(first, second)
    second.send_signal(signal.SIGSTOP)
    said = eventually(lambda: (found := command_line(folder, "tree")).status == 1 and found)
    assert isinstance(said, Said)
    assert "HEALTHY" in said.out
    assert f"(process {second.pid}) has not answered" in said.out


def dead() -> int:
    """Return the id of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    return gone.pid


def left_by(name: str, pid: int) -> RuntimeProcess:
    process = RuntimeProcess(name, pid)
    private_folder(process.path.parent)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(process.path))
    return process


def test_sockets_of_dead_processes_are_removed_and_those_of_living_ones_stay(folder: Path, start: Start) -> None:
    living = start()
    listen(living)
    living.send_signal(signal.SIGSTOP)  # it lives, and accepts nothing
    gone = left_by("service", dead()), left_by("other", dead())
    reused = left_by("reused", os.getpid())  # what another program has the id of by now is not listed, and left alone
    second = start()
    listen(living, second)
    assert not any(one.path.exists() for one in gone)
    assert reused.path.exists()
    assert reused not in running()


def test_several_that_start_at_once_over_dead_sockets_all_listen(folder: Path, start: Start) -> None:
    gone = [left_by("service", dead()) for _ in range(5)]
    listen(*(start("--store", "s.db") for _ in range(4)))
    assert not any(one.path.exists() for one in gone)
    for process in running("service"):
        with Remote(process.name, pid=process.pid) as remote:
            assert remote.ask(AskWho())["pid"] == process.pid
    assert socket_folder().stat().st_mode & 0o777 == 0o700


def test_a_folder_that_somebody_holds_is_not_waited_for_without_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlld_sdk.control.server.TURN", 0.05)
    private_folder(socket_folder())
    held = os.open(socket_folder(), os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        runtime = Runtime(one_for_one(child(Agent, name="a", engine="embedded")), control=True)
        with pytest.raises(ControlError, match="another process has held the folder"):
            runtime.start()
    finally:
        os.close(held)


def test_a_forked_child_does_not_keep_the_socket_of_its_parent_alive(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        os.kill(int(process.stdout.readline()), 0)
        process.wait(60)
        assert [one.pid for one in sockets()] == [process.pid]
        assert not is_listening(sockets()[0].path)
    finally:
        process.stdin.close()
        process.stdout.close()
