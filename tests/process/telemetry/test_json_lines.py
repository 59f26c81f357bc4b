"""JSON logs in one call: whatever a process logs, by events or by `logging`, every line of it is one JSON object."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlld_sdk.telemetry.json_lines import JsonLines

ROOT = Path(__file__).parents[3]

PROGRAM = """
import logging, threading, warnings
from mlld_sdk.base.env import Env
from mlld_sdk.supervision.events import SupervisorGaveUp
from mlld_sdk.telemetry import Bus, log_json

handler = logging.StreamHandler()
handler.setFormatter(logging.Formatter("plain %(message)s"))
logging.getLogger("server").addHandler(handler)
logging.getLogger("server").propagate = False
bus = Bus()
log_json(bus)
warnings.warn("an old habit")
try:
    raise ValueError("in two\\nlines")
except ValueError:
    logging.getLogger("app").exception("it failed:\\n%s", "badly")

def emit():
    for n in range(500):
        bus.emit(SupervisorGaveUp(at=0.0, path=f"root/{n}", culprit="root/a", why="limit", reason="x" * 300))

def log(name):
    for n in range(500):
        logging.getLogger(name).error("line %s " + "y" * 300, n)

threads = [threading.Thread(target=emit), *(threading.Thread(target=log, args=(name,)) for name in ("server", "app"))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
bus.close(30)
"""

SERVICE = """
import logging
from mlld_sdk import Agent, child, one_for_one

class Echo(Agent):
    engine = "embedded"
    def on_start(self):
        super().on_start()
        logging.getLogger("app").warning("said by\\nthe program")
        import os, signal
        os.kill(os.getpid(), signal.SIGTERM)

tree = one_for_one(child(Echo, name="echo"))
"""


def lines(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all({"event", "level", "timestamp", "process"} <= line.keys() for line in found)
    return found


def test_every_line_is_an_object_however_many_threads_write_and_whoever_writes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = lines(done.stderr)
    assert [line["path"] for line in said if "path" in line] == [f"root/{n}" for n in range(500)]
    for name in ("server", "app"):
        written = [line["event"] for line in said if line.get("logger") == name and line["event"].startswith("line ")]
        assert [line.split()[1] for line in written] == [str(n) for n in range(500)]
    [failed] = [line for line in said if "exception" in line]
    assert failed["event"] == "it failed:\nbadly"
    assert "ValueError: in two\nlines" in failed["exception"]
    assert any("an old habit" in line["event"] for line in said)
    assert len({line["process"] for line in said}) == 1


def test_a_service_that_logs_json_logs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    done = subprocess.run(
        [sys.executable, "-m", "mlld_sdk", "run", "service.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLLD_OTP_LOG": "json", "MLLD_OTP_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    said = {line["event"]: line for line in lines(done.stderr)}
    assert said["child.started"]["level"] == "info"
    assert said["said by\nthe program"]["logger"] == "app"


def test_a_line_of_an_access_log_has_its_parts() -> None:
    record = logging.LogRecord(
        "uvicorn.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', ("::1", "GET", "/x", "1.1", 200), None
    )
    line = json.loads(JsonLines().format(record))
    assert line["event"] == '::1 - "GET /x HTTP/1.1" 200'
    assert {name: line[name] for name in ("client", "method", "path", "status")} == {
        "client": "::1",
        "method": "GET",
        "path": "/x",
        "status": 200,
    }
