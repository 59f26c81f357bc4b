"""The doctor finds what is broken, for real, and says what to do about it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.base.env import Env
from mlld_sdk.cli import doctor
from mlld_sdk.journal import Journal

ROOT = Path(__file__).parents[3]


def say(directory: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlld_sdk", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLLD_OTP_RUNTIME_DIR": str(directory), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_doctor_reports_engines_and_machine_for_people_and_programs(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "state.db"):
        pass
    done = say(tmp_path, "doctor", "--store", "state.db", "--json", MLLD_ENGINE="embedded")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert {"store", "socket", "node", "files", "processes", "memory", "leftovers", "clock"} == set(checks)
    assert checks["store"]["finding"] == "ok"
    assert found["engines"]["default"] == "embedded"
    assert not list(tmp_path.glob("mlld-otp-*"))  # nothing was made by looking
    text = say(tmp_path, "doctor", MLLD_ENGINE="embedded").stdout
    assert "embedded  usable" in text
    assert "clock     ok" in text


def test_an_engine_that_is_wanted_and_does_not_work_is_a_failure(tmp_path: Path) -> None:
    done = say(tmp_path, "doctor", MLLD_ENGINE="live", PATH="/nowhere")
    assert done.returncode == 1
    assert "live      unusable" in done.stdout


def test_a_store_that_cannot_be_kept_is_a_problem(tmp_path: Path) -> None:
    assert doctor.check_store(tmp_path / "new.db").finding == "ok"
    assert not (tmp_path / "new.db").exists()
    missing = doctor.check_store(tmp_path / "no" / "state.db")
    assert (missing.finding, missing.hint) == ("problem", "make it")
    (tmp_path / "torn.db").write_bytes(b"this is no database" * 100)
    assert "cannot be read" in doctor.check_store(tmp_path / "torn.db").found
    assert "takes no files" in doctor.check_store(Path("/proc/state.db")).found


def test_a_socket_folder_others_may_write_into_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path))
    assert doctor.check_socket_folder().finding == "ok"
    folder = tmp_path / f"mlld-otp-{os.getuid()}"
    folder.mkdir(mode=0o700)
    assert doctor.check_socket_folder().finding == "ok"
    folder.chmod(0o777)
    assert doctor.check_socket_folder().finding == "problem"


def test_few_open_files_are_a_warning() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        check = doctor.check_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert check.finding == "warning"
    assert "256" in check.found
    assert "LimitNOFILE" in str(check)


def test_a_node_that_is_too_old_or_missing_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "none on PATH" in doctor.check_node().found
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v14.1.0\n")
    node.chmod(0o755)
    assert doctor.check_node().finding == "warning"
    node.write_text("#!/bin/sh\necho v22.0.0\n")
    assert doctor.check_node().finding == "ok"


def test_clocks_that_make_no_sense_are_a_problem() -> None:
    assert doctor.check_clock(Env()).finding == "ok"
    assert doctor.check_clock(Env(wall=lambda: 0.0)).finding == "problem"
    ticks = iter(range(2000, 0, -1))
    assert doctor.check_clock(Env(now=lambda: float(next(ticks)))).finding == "problem"


def test_config_says_what_a_service_would_run_with(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(
        "from mlld_sdk import Agent, child, one_for_one\n"
        "tree = one_for_one(child(Agent, name='a', engine='embedded'))\n"
        "runtime_options = {'drain_timeout': 7.0, 'store': 'code.db'}\n"
    )
    done = say(tmp_path, "config", "service.py", "--json", MLLD_OTP_STORE="env.db")
    settings = {one["name"]: one for one in json.loads(done.stdout)["settings"]}
    assert (settings["store"]["value"], settings["store"]["source"]) == ("env.db", "environment")
    assert (settings["drain_timeout"]["value"], settings["drain_timeout"]["source"]) == (7.0, "code")
    refused = say(tmp_path, "config", MLLD_OTP_LOUD="1")
    assert refused.returncode == 1
    assert "there is no setting MLLD_OTP_LOUD" in refused.stderr


def test_a_service_takes_its_settings_from_the_environment_and_logs_as_told(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(
        "import os, signal, threading, time\n"
        "from mlld_sdk import Agent, child, one_for_one\n"
        "def end_when_heard():\n"
        "    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "class Ends(Agent):\n"
        "    engine = 'embedded'\n"
        "    def on_start(self):\n"
        "        super().on_start()\n"
        "        threading.Thread(target=end_when_heard).start()\n"
        "tree = one_for_one(child(Ends, name='ends'))\n"
        "runtime_options = {'store': 'code.db'}\n"
    )
    done = say(tmp_path, "run", "service.py", MLLD_OTP_STORE="env.db", MLLD_OTP_LOG="json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "env.db").exists()
    assert not (tmp_path / "code.db").exists()
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    started = next(line for line in lines if line["event"] == "child.started")
    assert (started["level"], started["path"]) == ("info", "service/ends")
    assert "debug" not in {line["level"] for line in lines}
    everything = say(tmp_path, "run", "service.py", MLLD_OTP_LOG="json", MLLD_OTP_LOG_LEVEL="debug").stderr
    assert "actor.started" in {json.loads(line)["event"] for line in everything.splitlines()}
    assert say(tmp_path, "run", "service.py", MLLD_OTP_LOG="off").stderr == ""
