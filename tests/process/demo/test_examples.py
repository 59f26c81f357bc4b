"""Every example runs as it stands, in a copy of its folder, on the embedded engine."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mlld_sdk.control.protocol import is_listening
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns(".*", "__pycache__", "*.log")
    )
    (tmp_path / ".git").mkdir()  # as in a checkout, where commands of scripts run at the root of the project
    return tmp_path


def environ(folder: Path) -> dict[str, str]:
    own = {"MLLD_ENGINE": "embedded", "PYTHONPATH": str(ROOT), "MLLD_OTP_RUNTIME_DIR": str(folder / "rt")}
    return {**os.environ, **own}


def run(folder: Path, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=folder,
        env=environ(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=environ(folder), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_supervised_agent_recovers(folder: Path) -> None:
    said = run(folder, "examples/supervised_agent.py")
    assert str([f"section {n}" for n in range(5)]) in said
    assert "attempts: 2" in said
    assert "restarts 1" in said


def test_three_analyses_pay_once(folder: Path) -> None:
    assert "3 expensive calls for 3 analyses" in run(folder, "examples/fork_analyses.py")


def test_a_pool_works_through_its_load(folder: Path) -> None:
    assert "100 done, 0 failed" in run(folder, "examples/pool.py")


def test_a_pipeline_resumes_where_it_was_killed(folder: Path) -> None:
    pipeline = ["examples/resume_pipeline.py", "--seconds", "0.05"]
    run(folder, *pipeline, "--die-after", "25", status=-signal.SIGKILL)
    said = run(folder, *pipeline)
    finished = re.search(r"(\d+) of 30 steps were finished already", said)
    assert finished is not None
    assert int(finished[1]) >= 25
    assert "section 29" in said


def test_an_asyncio_service_answers_several_clients(folder: Path) -> None:
    with started(folder, "examples/asyncio_service.py", "--port", "0") as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[-1])
        clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(3)]
        for number, client in enumerate(clients):
            client.sendall(f"topic {number}\n".encode())
        for number, client in enumerate(clients):
            with client, client.makefile() as answers:
                client.settimeout(20)
                assert answers.readline() == f"review of notes of topic {number}\n"


def test_a_fastapi_service_reviews_with_two_workers(folder: Path) -> None:
    words = ("examples.fastapi_service:app", "--workers", "2", "--uds", "web", "--log-config", "examples/log.json")
    with started(folder, "-m", "uvicorn", *words):
        transport = httpx.HTTPTransport(uds=str(folder / "web"))
        with httpx.Client(transport=transport, base_url="http://service", timeout=60.0) as client:
            eventually(lambda: is_listening(folder / "web"))
            assert client.get("/readyz").json()["status"] == "ready"
            submitted = client.post("/reviews/1", json="safety")
            assert submitted.status_code == 202
            run = submitted.json()["run"]
            assert client.post("/reviews/1", json="safety").json()["run"] == run
            eventually(lambda: client.get(f"/runs/{run}").json()["state"] == "finished")
            assert client.get(f"/runs/{run}").json()["result"] == "review of notes of safety"
            assert client.get("/runs/none").status_code == 404
            assert "mlld_process_up" in client.get("/metrics").text


def test_the_service_file_is_operated_from_the_command_line(folder: Path) -> None:
    with started(folder, "-m", "mlld_sdk", "run", "examples/service.py", "--store", "state.db", "--quiet"):
        eventually(lambda: list((folder / "rt").rglob("service.*.sock")), within=60)
        assert "HEALTHY" in run(folder, "-m", "mlld_sdk", "tree")
        submitted = run(folder, "-m", "mlld_sdk", "runs", "submit", "reviewer", '{"topic": "safety"}').strip()
        eventually(lambda: "review of notes of safety" in run(folder, "-m", "mlld_sdk", "runs", "show", submitted), 20)
