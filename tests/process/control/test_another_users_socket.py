"""Sockets another user listens at: nothing is sent to them, and nothing that comes from them is believed."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio import CapacityLimiter

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.base.folders import FolderNotPrivate, private_folder
from mlld_sdk.cli.doctor import check_runtimes, check_socket_folder
from mlld_sdk.control.client import Remote, running
from mlld_sdk.control.protocol import socket_folder, socket_path, sockets
from mlld_sdk.web.metrics import metrics_text
from tests.support.command_line import command_line

NOBODY = 65534

SPOOF = f"""
import os, socket, sys
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
folder = sys.argv[1]
os.makedirs(folder, 0o700, exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(f"{{folder}}/service.{{os.getpid()}}.sock")
listener.listen()
print(f"{{folder}}/service.{{os.getpid()}}.sock", flush=True)
while True:
    client, _ = listener.accept()
    heard = client.recv(1 << 16)
    print(heard, flush=True)
    if heard == b"end":
        break
"""

VISIT = f"""
import os, socket, sys
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
client = socket.socket(socket.AF_UNIX)
client.settimeout(60)
client.connect(sys.argv[1])
said = b""
while piece := client.recv(1 << 16):
    said += piece
print(said[4:].decode())
"""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")

COMMANDS = (
    ("tree",),
    ("tree", "--json"),
    ("evaluate", "worker", "var @token = 'canary'"),
    ("runs", "submit", "worker", '"canary"'),
    ("pause", "worker", "--reason", "canary", "--pid", "all"),
)


@dataclass(frozen=True)
class Spoof:
    """A listener of another user.

    Attributes:
        process: The process it is in.
        path: Its socket.
    """

    process: "subprocess.Popen[str]"
    path: Path

    def heard(self) -> set[str]:
        """Return what it was sent until now."""
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self._there()))
            last.sendall(b"end")
        assert self.process.stdout is not None
        return {line.strip() for line in self.process.stdout} - {repr(b"end")}

    def _there(self) -> Path:
        return self.path if self.path.exists() else socket_folder() / self.path.name


@contextlib.contextmanager
def spoof(folder: Path) -> Iterator[Spoof]:
    """Let another user listen in a folder, which is made if it is not there."""
    process = subprocess.Popen([sys.executable, "-c", SPOOF, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Spoof(process, Path(process.stdout.readline().strip()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder where everybody may make folders, as the temporary directory is, for the sockets."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@as_root
def test_nothing_is_sent_to_a_socket_in_a_folder_that_another_user_has_made(public: Path) -> None:
    with spoof(socket_folder()) as other:
        asked = [*COMMANDS, ("tree", "--runtime", "service", "--pid", str(other.process.pid))]
        for words in asked:
            said = command_line(public, *words)
            assert said.status == 1
            assert "is not private to this user" in said.err
            assert "MLLD_OTP_RUNTIME_DIR" in said.err
        assert other.heard() <= {repr(b"")}


@as_root
def test_nothing_is_sent_to_another_users_socket_in_a_folder_of_ones_own(public: Path) -> None:
    private_folder(socket_folder())
    with spoof(public / "theirs") as other:
        other.path.rename(socket_folder() / other.path.name)
        for words in COMMANDS:
            said = command_line(public, *words)
            assert said.status == 1
            assert "belongs to another user (id 65534)" in said.err
        assert other.heard() <= {repr(b"")}


@as_root
def test_the_doctor_tells_of_a_folder_that_another_user_has_made(public: Path) -> None:
    with spoof(socket_folder()):
        check = check_socket_folder()
        assert check.finding == "problem"
        assert "not private" in check.found
        assert check_runtimes() == []


@as_root
def test_a_runtime_exports_its_metrics_while_another_user_has_the_folder(public: Path) -> None:
    pytest.importorskip("prometheus_client")

    async def scrape(runtime: Runtime) -> bytes:
        return await metrics_text(runtime, CapacityLimiter(1))

    with spoof(socket_folder()), Runtime(one_for_one(child(Agent, name="a", engine="embedded"))) as runtime:
        assert f'process="{os.getpid()}"' in asyncio.run(scrape(runtime)).decode()


def test_a_folder_others_may_write_into_is_not_trusted_by_a_client_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path))
    with Runtime(one_for_one(child(Agent, name="a", engine="embedded")), control=True):
        assert len(running("root")) == 1
        socket_folder().chmod(0o777)
        for look in (lambda: running("root"), lambda: Remote("root"), lambda: Remote("root", pid=os.getpid())):
            with pytest.raises(FolderNotPrivate, match="not private"):
                look()
        socket_folder().chmod(0o700)
        assert len(sockets()) == 1


@as_root
def test_another_user_who_gets_as_far_as_the_socket_is_sent_away_without_having_asked(public: Path) -> None:
    with Runtime(one_for_one(child(Agent, name="a", engine="embedded")), control=True):
        socket_folder().chmod(0o755)
        socket_path("root").chmod(0o777)
        visit = [sys.executable, "-c", VISIT, str(socket_path("root"))]
        said = subprocess.run(visit, capture_output=True, text=True, timeout=120, check=True).stdout
        assert "WRONG_USER" in said
        assert "another user" in said
