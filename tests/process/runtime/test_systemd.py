"""systemd hears when the service is ready, how it is and when it stops, and is fed only while things move."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlld_sdk import Runtime, child, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.runtime.systemd import Progress, SystemdNotifier, notify, watchdog_interval
from mlld_sdk.transport.reactor import shared_reactor
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

SERVICE = """
from mlld_sdk import Agent, child, one_for_one
tree = one_for_one(child(Agent, name="idle", engine="embedded"))
"""


class Idle(Actor):
    pass


class Listener:
    """What systemd would hear."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.heard: list[str] = []

    def lines(self) -> list[str]:
        while True:
            try:
                self.heard += self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.heard


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    listener = Listener(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield listener
    listener.socket.close()


def test_a_service_says_ready_feeds_the_watchdog_and_says_that_it_stops(systemd: Listener, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MLLD_OTP_RUNTIME_DIR": str(tmp_path), "WATCHDOG_USEC": "300000"}
    words = [sys.executable, "-m", "mlld_sdk", "run", "service.py", "--quiet"]
    process = subprocess.Popen(words, cwd=tmp_path, env=environ)
    try:
        eventually(lambda: systemd.lines().count("WATCHDOG=1") >= 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    said = systemd.lines()
    assert said[0] == "READY=1"
    assert said[1].startswith("STATUS=HEALTHY")
    assert said.count("READY=1") == said.count("STOPPING=1") == 1
    assert "WATCHDOG=1" not in said[said.index("STOPPING=1") :]


def test_without_systemd_nothing_is_said_and_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with Runtime(one_for_one(child(Idle, name="idle"))) as runtime, SystemdNotifier(runtime) as notifier:
        assert notifier._thread is None
        notifier.stopping()


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens/here"])
def test_an_address_that_leads_nowhere_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


def test_abstract_addresses_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0mlld-otp-test")
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@mlld-otp-test")
        assert notify("READY=1", "STATUS=fine")
        assert listener.recv(100) == b"READY=1\nSTATUS=fine"


def test_the_watchdog_is_only_for_the_process_it_was_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_interval() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_interval() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "0")
    assert watchdog_interval() is None


def test_a_runtime_that_moves_has_made_progress() -> None:
    with Runtime(one_for_one(child(Idle, name="idle"))) as runtime:
        progress = Progress(runtime)
        assert progress.missing(5.0) == ""
        progress.close()


def test_an_io_thread_that_is_stuck_is_no_progress(systemd: Listener, monkeypatch: pytest.MonkeyPatch) -> None:  # SD-2
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    gate = threading.Event()
    with Runtime(one_for_one(child(Idle, name="idle"))) as runtime, SystemdNotifier(runtime):
        eventually(lambda: "WATCHDOG=1" in systemd.lines())
        shared_reactor().call_soon(lambda: gate.wait(60))
        eventually(lambda: "STATUS=the I/O thread does not turn" in systemd.lines())
        fed = systemd.lines().count("WATCHDOG=1")
        said = len(systemd.lines())
        eventually(lambda: len(systemd.lines()) > said + 1)
        assert systemd.lines().count("WATCHDOG=1") == fed
        gate.set()
        eventually(lambda: systemd.lines().count("WATCHDOG=1") > fed)


def test_a_stuck_agent_is_no_reason_to_restart_the_service(systemd: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    class Stuck(Actor):
        def on_receive(self, message: object) -> None:
            gate.wait(60)

    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    with Runtime(one_for_one(child(Stuck, name="stuck"))) as runtime, SystemdNotifier(runtime):
        runtime.place("stuck").ref().tell("hang")
        eventually(lambda: systemd.lines().count("WATCHDOG=1") > 3)
        gate.set()


def test_a_supervisor_that_is_stuck_and_a_journal_that_is_gone_are_no_progress() -> None:  # SD-3, SD-4
    gate = threading.Event()
    entered = threading.Event()

    def hangs(event: object) -> None:
        if type(event).__name__ == "ChildExited":
            entered.set()
            gate.wait(60)

    runtime = Runtime(one_for_one(child(Idle, name="idle")))
    runtime.bus.attach_inline("hangs", hangs)  # in the thread of the supervisor, as only the library itself may
    with runtime:
        progress = Progress(runtime)
        runtime.place("idle").ref().kill("by the test")
        assert entered.wait(60)
        assert "has been at one message" in eventually(lambda: progress.missing(0.1))
        gate.set()
        eventually(lambda: progress.missing(5.0) == "")
        runtime.journal.close()
        assert "journal" in progress.missing(5.0)
        progress.close()


def test_a_tree_that_has_just_ended_has_a_status_too(systemd: Listener) -> None:
    with Runtime(one_for_one(child(Idle, name="idle"))) as runtime:
        runtime.supervisor.ref.kill("by the test")
        assert runtime.wait(60)
        with SystemdNotifier(runtime) as notifier:
            notifier.stopping()
    assert systemd.lines()[1].startswith("STATUS=GAVE UP")
    assert "killed: by the test" in systemd.lines()[1]


def test_a_runtime_whose_tree_has_ended_is_not_fed(systemd: Listener, monkeypatch: pytest.MonkeyPatch) -> None:  # SD-5
    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    with Runtime(one_for_one(child(Idle, name="idle"))) as runtime, SystemdNotifier(runtime):
        eventually(lambda: "WATCHDOG=1" in systemd.lines())
        runtime.supervisor.ref.kill("by the test")
        eventually(lambda: any(line.startswith("STATUS=the tree gave up at") for line in systemd.lines()))
        assert systemd.lines()[-1] != "WATCHDOG=1"
