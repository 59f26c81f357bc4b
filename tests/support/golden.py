"""Replaying recorded conversations with the real engine against another engine.

`tests/golden/README.md` tells the format. A replay sends every recorded line at the moment the recording had it: as
soon as everything recorded before it has arrived. What came is normalised as the recording was and compared.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "golden"
DEADLINE = 60.0
TIMES = frozenset(("timestamp", "createdAt", "modifiedAt", "signedAt", "ts"))
DURATIONS = frozenset(("durationMs", "totalMs", "parseMs", "evaluateMs"))
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Normaliser:
    """Replaces what differs from run to run by the placeholders of the recordings."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pipelines: dict[str, str] = {}

    def text(self, value: str) -> str:
        value = ISO.sub("<ts>", value.replace(self._folder, "<dir>"))
        return UUID.sub("<uuid>", value)

    def __call__(self, value: Any, key: str | None = None) -> Any:
        if key in TIMES and isinstance(value, (int, float, str)):
            return "<ts>"
        if key in DURATIONS and isinstance(value, (int, float)):
            return "<ms>"
        if key == "stack" and isinstance(value, str):
            return "<stack>"
        if key == "pipelineId" and isinstance(value, str):
            return self._pipelines.setdefault(value, f"<pipeline-{len(self._pipelines) + 1}>")
        if isinstance(value, dict):
            return {self.text(name): self(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        return self.text(value) if isinstance(value, str) else value


def is_debug(line: Any) -> bool:
    """Say whether a message is one of those the embedded engine does not send."""
    return isinstance(line, dict) and str(line.get("event", {}).get("type", "")).startswith("debug:")


def recorded(name: str) -> list[dict[str, Any]]:
    """Read a recording without its debug events."""
    lines = [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if not is_debug(line.get("line"))]


class Replay:
    """One conversation with one engine command."""

    def __init__(self, name: str, folder: Path, command: list[str], survive: list[str]) -> None:
        self.lines = recorded(name)
        self.head = self.lines[0]
        self.folder = folder
        self._command = [*command, *(survive if self.head["node_flags"] else [])]
        self._normalise = Normaliser(str(folder))
        self._came: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._ended = False
        folder.mkdir(parents=True, exist_ok=True)
        for script in self.head["scripts"]:
            shutil.copy(GOLDEN / "scripts" / script, folder)
        (folder / "mlld-config.json").write_text("{}\n")
        self.process = self._spawn()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            self._command,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._ended = False
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()
        return process

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            text = raw.decode("utf-8", "replace").rstrip("\n")
            try:
                message = json.loads(text)
            except ValueError:
                message = None
            if is_debug(message):
                continue
            entry = (
                {"dir": "out", "line": self._normalise(message)}
                if isinstance(message, dict)
                else {"dir": "out", "raw": self._normalise.text(text)}
            )
            with self._changed:
                self._came.append(entry)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _wait_for(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._came) >= count or self._ended, DEADLINE)

    def run(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Play the whole conversation; give what came and what was recorded."""
        expected = 0
        self._together = b""
        exits: list[dict[str, Any]] = []
        observed: list[dict[str, Any]] = []
        for position, line in enumerate(self.lines[1:], start=1):
            if line["dir"] == "out":
                expected += 1
                continue
            self._wait_for(expected)
            if line["dir"] == "in":
                self._send(line, position)
            elif line["dir"] == "exit":
                exits.append(self._exit())
            elif line["action"] == "observe":
                observed.append(self._observe(line))
            else:
                self._control(line)
        wanted = [line for line in self.lines[1:] if line["dir"] == "out"]
        tail_wanted = [
            *({"code": line["code"], "signal": line["signal"]} for line in self.lines[1:] if line["dir"] == "exit"),
            *(
                {key: line[key] for key in ("calls", "cache") if key in line}
                for line in self.lines[1:]
                if line.get("action") == "observe"
            ),
        ]
        return [*self._came, *exits, *observed], [*wanted, *tail_wanted]

    def _send(self, line: dict[str, Any], position: int) -> None:
        data = line["raw"].encode("utf-8", "surrogatepass") if "raw" in line else self._localised(line["line"])
        if self._is_early_control(line, position):
            self._send_until_accepted(data, line["line"]["id"])
            return
        follower = self.lines[position + 1] if position + 1 < len(self.lines) else {}
        if follower.get("dir") == "in" and not self._is_early_control(follower, position + 1):
            self._together += data + b"\n"  # lines without an answer between them were sent in one write
            return
        data, self._together = self._together + data, b""
        self._write(data)

    def _localised(self, message: dict[str, Any]) -> bytes:
        text = json.dumps(message, ensure_ascii=False).replace("<dir>", str(self.folder))
        return text.encode("utf-8", "surrogatepass")

    def _write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data + b"\n")
        self.process.stdin.flush()

    def _is_early_control(self, line: dict[str, Any], position: int) -> bool:
        """Say whether the recorder waited for a debug event before it sent this: the target must be active."""
        message = line.get("line", {})
        if message.get("method") not in ("state:update", "file:write"):
            return False
        answer = next(
            (
                later["line"]["result"]
                for later in self.lines[position:]
                if later["dir"] == "out" and later.get("line", {}).get("result", {}).get("id") == message.get("id")
            ),
            {},
        )
        return "error" not in answer

    def _send_until_accepted(self, data: bytes, request_id: Any) -> None:
        """Send again as long as the target is not active yet, as a client has to with the real engine."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and self._refused(data, request_id):
            pass

    def _refused(self, data: bytes, request_id: Any) -> bool:
        """Send a line and say whether it was answered REQUEST_NOT_FOUND; that answer is forgotten."""
        with self._changed:
            start = len(self._came)
        self._write(data)
        with self._changed:
            self._changed.wait_for(lambda: self._answer(start, request_id) is not None or self._ended, DEADLINE)
            answer = self._answer(start, request_id)
            if answer is None or self._code(answer) != "REQUEST_NOT_FOUND":
                return False
            del self._came[answer]
            return True

    def _code(self, position: int) -> str | None:
        return self._came[position]["line"]["result"].get("error", {}).get("code")

    def _answer(self, start: int, request_id: Any) -> int | None:
        for position in range(start, len(self._came)):
            if self._came[position].get("line", {}).get("result", {}).get("id") == request_id:
                return position
        return None

    def _exit(self) -> dict[str, Any]:
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return {"code": code if code >= 0 else None, "signal": -code if code < 0 else None}

    def _observe(self, line: dict[str, Any]) -> dict[str, Any]:
        log = self.folder / "calls.log"
        wanted = len(line["calls"])
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            calls = log.read_text().splitlines() if log.exists() else []
            if len(calls) >= wanted:
                break
            time.sleep(0.01)
        seen: dict[str, Any] = {"calls": calls}
        if "cache" in line:
            cache = Path(line["cache"]["dir"].replace("<dir>", str(self.folder)))
            rows = [json.loads(row) for row in (cache / "llm-cache.jsonl").read_text().splitlines()]
            results = {path.name: json.loads(path.read_text()) for path in sorted((cache / "results").iterdir())}
            seen["cache"] = {
                "dir": line["cache"]["dir"],
                "rows": self._normalise(rows),
                "results": self._normalise(results),
            }
        return seen

    def _control(self, line: dict[str, Any]) -> None:
        action = line["action"]
        if action == "close_stdin":
            assert self.process.stdin is not None
            self.process.stdin.close()
        elif action == "signal":
            os.kill(self.process.pid, line["signal"])
        elif action == "kill":
            self._wait_for_call("start 4")
            os.kill(self.process.pid, signal.SIGKILL)
        elif action == "spawn":
            self._normalise = Normaliser(str(self.folder))
            self._normalise._pipelines["pipeline"] = "<pipeline-1>"
            self.process = self._spawn()
        elif action == "edit" and "llm-cache" in line["what"]:
            index = self.folder / ".mlld/checkpoints/llm_auto/llm-cache.jsonl"
            rows = [json.loads(row) for row in index.read_text().splitlines()]
            index.write_text("".join(json.dumps(row) + "\n" for row in rows if row["argsPreview"] != "two"))
        elif action == "edit":
            with (self.folder / "note.txt").open("a") as file:
                file.write("changed\n")
        else:
            raise AssertionError(f"unknown action in a recording: {action}")

    def _wait_for_call(self, call: str) -> None:
        log = self.folder / "calls.log"
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if log.exists() and call in log.read_text().splitlines():
                return
            time.sleep(0.005)
        raise AssertionError(f"{call!r} never started")

    def close(self) -> None:
        """End the engine and what it left behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(DEADLINE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
