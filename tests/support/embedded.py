"""An embedded engine process under a test's hands: raw lines in, raw lines out."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

COMMAND = [sys.executable, "-m", "mlld_sdk.transport.embedded", "live", "--stdio"]
DEADLINE = 60.0


class Embedded:
    """One engine. Whatever it started dies with the `with` block."""

    def __init__(self, folder: Path, *flags: str, **environment: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [*COMMAND, *flags],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def send(self, method: str, request_id: Any = 1, params: Any = None) -> None:
        """Send one request."""
        self.write(json.dumps({"method": method, "id": request_id, "params": params}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def line(self, within: float = DEADLINE) -> bytes | None:
        """Read one line; None at the end, TimeoutError when nothing comes."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + within
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def messages(self, request_id: Any, within: float = DEADLINE) -> list[dict[str, Any]]:
        """Read messages up to the result of a request."""
        seen: list[dict[str, Any]] = []
        while (line := self.line(within)) is not None:
            seen.append(json.loads(line))
            if seen[-1].get("result", {}).get("id") == request_id:
                return seen
        raise AssertionError(f"the engine ended without an answer to {request_id}; it said {seen}")

    def ask(self, method: str, params: Any = None, request_id: Any = 1) -> dict[str, Any]:
        """Send a request and give its result."""
        self.send(method, request_id, params)
        return self.messages(request_id)[-1]["result"]

    def until_event(self, kind: str) -> dict[str, Any]:
        """Read messages up to an event of this type."""
        while (line := self.line()) is not None:
            message = json.loads(line)
            if message.get("event", {}).get("type") == kind:
                return message["event"]
        raise AssertionError(f"no {kind}")

    def close_requests(self) -> None:
        """End the requests."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_code(self) -> int:
        """Wait for the end."""
        return self.process.wait(DEADLINE)


def descendants(pid: int) -> list[int]:
    """List the processes below a process."""
    found, wave = [], [pid]
    while wave:
        parents, wave = wave, []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent in parents:
                wave.append(int(entry.name))
        found += wave
    return found


def is_running(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
