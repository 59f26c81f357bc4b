"""An engine process spoken to in bare protocol lines, to see what really is on the wire."""

import fcntl
import itertools
import json
import os
import re
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.transport.command import READ_FD, WRITE_FD, EngineCommand, bridge_command, embedded_command, resolve
from mlld_sdk.transport.mlld_package import find_package

REAL = os.environ.get("MLLD_COMMAND")

PLAIN_SHELL = {"SHELL": "/bin/sh"}
"""mlld asks the user's login shell about each new command, and what that shell's profile does may take seconds."""

needs_real = [pytest.mark.real, pytest.mark.skipif(not REAL, reason="set MLLD_COMMAND to the real mlld")]

LIVE = pytest.param("live", marks=needs_real)
BRIDGE = pytest.param("bridge", marks=needs_real)
EMBEDDED = pytest.param("embedded")

ALL = [LIVE, BRIDGE, EMBEDDED]
EXTENDED = [BRIDGE, EMBEDDED]


def command_of(engine: str, *switches: str) -> EngineCommand:
    """Make the command of an engine, on the mlld that MLLD_COMMAND names."""
    if engine == "embedded":
        return embedded_command(*switches)
    command, *args = shlex.split(REAL or "mlld")
    if engine == "bridge":
        return bridge_command(command, args)
    return resolve(command, args)


def real_version() -> tuple[int, ...]:
    """Give the version of the mlld that MLLD_COMMAND names."""
    command, *args = shlex.split(REAL or "mlld")
    return tuple(int(number) for number in re.findall(r"\d+", find_package(command, args).version)[:3])


def nameless_log() -> int:
    """Open a file without a name that several processes may append to."""
    number, name = tempfile.mkstemp()
    os.unlink(name)
    fcntl.fcntl(number, fcntl.F_SETFL, os.O_APPEND)
    return number


class Answer:
    """What one request was answered with."""

    def __init__(self, result: dict[str, Any], events: list[dict[str, Any]]) -> None:
        self.result = result
        self.events = events

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.result["error"]
        return error

    @property
    def output(self) -> str:
        assert "error" not in self.result, self.result["error"]
        output: str = self.result["output"]
        return output

    @property
    def value(self) -> Any:
        assert "error" not in self.result, self.result["error"]
        return self.result["value"]

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] in types]

    @property
    def cache(self) -> list[tuple[str, str]]:
        """The cache events: ("hit" or "miss", first argument)."""
        found = self.of_type("checkpoint:hit", "checkpoint:miss")
        return [(event["type"].partition(":")[2], event["checkpoint"]["argsPreview"]) for event in found]


class RawEngine:
    """A child process in a session of its own. Every wait has a deadline; leaving the `with` block kills the group."""

    def __init__(self, command: EngineCommand, cwd: Path, environ: Mapping[str, str] | None = None) -> None:
        environment = {**os.environ, **PLAIN_SHELL, **command.environ, **(environ or {})}
        self.printed, self.complaints = nameless_log(), nameless_log()
        ask_read, self._ask = os.pipe()
        self._answers, answer_write = os.pipe()
        if command.private_fds:
            environment |= {READ_FD: str(ask_read), WRITE_FD: str(answer_write)}
            plumbing: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": self.printed,
                "pass_fds": (ask_read, answer_write),
            }
        else:
            plumbing = {"stdin": ask_read, "stdout": answer_write}
        self.process = subprocess.Popen(
            command.argv, cwd=cwd, env=environment, stderr=self.complaints, start_new_session=True, **plumbing
        )
        os.close(ask_read)
        os.close(answer_write)
        self._buffer = bytearray()
        self._ids = itertools.count(1)

    def send_line(self, line: str) -> None:
        self.send_bytes(line.encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._ask, view) :]

    def offer(self, data: bytes, patience: float) -> int:
        """Write as much as the engine takes, until it has taken nothing for `patience` seconds; return how much."""
        os.set_blocking(self._ask, False)
        taken = 0
        while taken < len(data) and select.select([], [self._ask], [], patience)[1]:
            taken += os.write(self._ask, data[taken : taken + 65536])
        os.set_blocking(self._ask, True)
        return taken

    def send(self, method: str, params: Any = None, *, name: Any = None) -> Any:
        """Send a request under this id, or the next number, and return the id."""
        request_id = next(self._ids) if name is None else name
        message = {"method": method, "id": request_id}
        self.send_line(json.dumps(message if params is None else {**message, "params": params}))
        return request_id

    def read(self, within: float = 60.0) -> dict[str, Any] | None:
        """Read the next message; `None` at the end of the answers."""
        line = self.read_line(within)
        return None if line is None else json.loads(line)

    def read_line(self, within: float = 60.0) -> bytes | None:
        deadline = time.monotonic() + within
        searched = 0
        while (newline := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            left = deadline - time.monotonic()
            assert left > 0, f"nothing came within {within} s; stderr: {self.stderr[-2000:]}"
            if select.select([self._answers], [], [], left)[0]:
                block = os.read(self._answers, 1 << 20)
                if not block:
                    return None
                self._buffer += block
        line = bytes(self._buffer[:newline])
        del self._buffer[: newline + 1]
        return line

    def answer(self, request_id: Any, within: float = 60.0) -> Answer:
        """Read until the result of this request is there."""
        events = []
        while True:
            message = self.read(within)
            assert message is not None, f"the engine ended; stderr: {self.stderr[-2000:]}"
            result = message.get("result")
            if isinstance(result, dict) and result.get("id") == request_id:
                return Answer(result, events)
            if "event" in message:
                events.append(message["event"])

    def until_results(self, count: int, within: float = 60.0) -> list[dict[str, Any]]:
        """Read messages until so many results have come; return the results' messages. Every line must be a message."""
        results: list[dict[str, Any]] = []
        while len(results) < count:
            message = self.read(within)
            assert message is not None, f"the engine ended; stderr: {self.stderr[-2000:]}"
            if "result" in message:
                results.append(message)
        return results

    def ask(self, method: str, params: Any = None, within: float = 60.0) -> Answer:
        return self.answer(self.send(method, params), within)

    def run(self, script: str, within: float = 60.0, **params: Any) -> Answer:
        return self.ask("process", {"script": script, **params}, within)

    def end_requests(self) -> None:
        """Close the request channel: the engine sees the end of file."""
        if self._ask >= 0:
            os.close(self._ask)
            self._ask = -1

    def kill(self) -> None:
        """SIGKILL the whole group, as a host that must be certain does, and wait."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def wait(self, within: float = 60.0) -> int:
        return self.process.wait(within)

    @property
    def stdout(self) -> str:
        """What was printed (only with private descriptors: else stdout is the protocol)."""
        return self._text(self.printed)

    @property
    def stderr(self) -> str:
        return self._text(self.complaints)

    def _text(self, file: int) -> str:
        return os.pread(file, 1 << 20, 0).decode(errors="replace")

    def close(self) -> None:
        self.kill()
        self.end_requests()
        os.close(self._answers)
        os.close(self.printed)
        os.close(self.complaints)


@contextmanager
def started(engine: str | EngineCommand, cwd: Path, environ: Mapping[str, str] | None = None) -> Iterator[RawEngine]:
    """Run an engine for the length of a block."""
    (cwd / "package.json").write_text("{}")  # makes this directory the project root
    raw = RawEngine(command_of(engine) if isinstance(engine, str) else engine, cwd, environ)
    try:
        yield raw
    finally:
        raw.close()


def numbered(text: str) -> list[int]:
    """Read the numbers in a text, in order."""
    return [int(number) for number in re.findall(r"\d+", text)]
