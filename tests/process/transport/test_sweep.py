"""What a SIGKILLed host leaves behind is found at the next boot, and nothing else is."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlld_sdk.transport import sweep
from mlld_sdk.transport.events import OrphansSwept
from mlld_sdk.transport.processes import Mark, processes
from mlld_sdk.transport.sweep import sweep_orphans
from tests.support.engines import Recorder, is_alive, running
from tests.support.eventually import eventually

HOST = """
import json, sys, time
from tests.support.engines import hostile, do
from mlld_sdk.transport.engine import Engine
pids = []
engine = Engine.start(hostile("stubborn"))
take = lambda events: pids.extend(event.body["pid"] for event in events)
engine.call("process", do(("spawn", "group"), ("spawn", "session")), timeout=60, on_events=take)
tmp = engine.call("process", do(("environ", "TMPDIR")), timeout=60).payload["output"]
print(json.dumps({"pids": [engine.pid, *pids], "tmp": tmp}), flush=True)
if sys.argv[1:] == ["after a crash"]:
    engine.submit("process", do(("signal", 9)), timeout=60).exception()
if sys.argv[1:]:
    sys.exit(0)
time.sleep(60)
"""


def host(*args: str) -> tuple[subprocess.Popen[str], dict[str, object]]:
    process = subprocess.Popen([sys.executable, "-c", HOST, *args], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    process.stdout.close()
    return process, told


def test_orphans_of_a_killed_host_are_swept_and_the_living_are_spared() -> None:  # T-37
    dead, left = host()
    living, spared = host()
    told = Recorder()
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait(60)
        with running() as own:
            own.wait_ready(10)
            swept = sweep_orphans(sink=told)  # every host that boots sweeps: another one may have been first
            assert [event.pids for event in told.of(OrphansSwept)] in ([swept.pids], [])
            eventually(lambda: not any(map(is_alive, left["pids"])))
            eventually(lambda: not Path(str(left["tmp"])).exists())
            assert all(map(is_alive, spared["pids"]))
            assert Path(str(spared["tmp"])).exists()
            assert own.call("process", timeout=60).payload == {"output": "ok"}
    finally:
        for process in (dead, living):
            process.kill()
            process.wait(60)
        sweep_orphans()
        eventually(lambda: not any(map(is_alive, spared["pids"])))


def test_a_host_that_was_itself_started_by_an_orphan_spares_itself(monkeypatch: pytest.MonkeyPatch) -> None:  # T-37
    child = subprocess.Popen(["sleep", "60"])
    space = os.readlink("/proc/self/ns/pid")[5:-1]
    related = [entry for entry in processes() if entry.pid in (os.getpid(), os.getppid(), child.pid)]
    killed: list[int] = []
    monkeypatch.setattr(sweep, "processes", lambda: related)
    monkeypatch.setattr(sweep, "mark_of", lambda pid: Mark(space, 999_999_999, 1, "none"))
    monkeypatch.setattr(sweep, "kill_surely", lambda entry: not killed.append(entry.pid))
    try:
        assert sweep_orphans().pids == (child.pid,)
        assert killed == [child.pid]
    finally:
        child.kill()
        child.wait()


IN_A_CONTAINER = """
import os, subprocess, sys
from mlld_sdk.transport.processes import MARKER
from mlld_sdk.transport.sweep import sweep_orphans
space = os.readlink("/proc/self/ns/pid")[5:-1]
child = subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: f"{space}:999999999:1:none"})
print(os.getsid(0), sweep_orphans().pids == (child.pid,), child.wait(60))
"""


def test_what_belongs_to_a_session_led_from_outside_a_container_is_swept_too() -> None:  # T-37
    enter = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("this needs unshare, and leave to make a process namespace")
    ran = subprocess.run([*enter, sys.executable, "-c", IN_A_CONTAINER], capture_output=True, text=True, timeout=120)
    assert ran.stdout.split() == ["0", "True", "-9"], ran.stderr


@pytest.mark.parametrize("when", ["with an engine", "after a crash"])
def test_a_host_that_ends_without_closing_leaves_nothing(when: str) -> None:  # T-29
    process, left = host(when)
    assert process.wait(60) == 0
    eventually(lambda: not any(map(is_alive, left["pids"])))
    assert not Path(str(left["tmp"])).exists()


def test_nothing_to_sweep_is_not_told() -> None:
    sweep_orphans()
    told = Recorder()
    sweep_orphans(sink=told)
    assert told == []


@pytest.mark.parametrize("proc", ["of another namespace", "missing"])
def test_where_proc_tells_nothing_of_us_nothing_is_touched(
    proc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # T-37
    abandoned = tmp_path / f"mlld-otp-{os.readlink('/proc/self/ns/pid')[5:-1]}-{2**22 + 1}-1-0"
    abandoned.mkdir()
    monkeypatch.setattr(sweep.tempfile, "gettempdir", lambda: str(tmp_path))
    readlink = os.readlink

    def elsewhere(path: str) -> str:
        if path != "/proc/self":
            return readlink(path)
        if proc == "missing":
            raise FileNotFoundError(path)
        return str(os.getpid() + 1)

    with monkeypatch.context() as patched:
        patched.setattr(os, "readlink", elsewhere)
        assert sweep_orphans().directories == ()
    assert sweep_orphans().directories == (str(abandoned),)
