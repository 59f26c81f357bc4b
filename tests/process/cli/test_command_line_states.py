"""The command line against a live service in the states an operator is called for."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.control.client import running
from tests.support.command_line import command_line
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

SERVICE = """
import os
from mlld_sdk import Agent, Backoff, child, budget, circuit_breaker, one_for_one

class Worker(Agent):
    engine = "embedded"
    def run(self, job, payload):
        if payload == "die":
            job.process('run sh { kill -9 $PPID }', idempotent=True)
        if payload == "wait":
            job.process('run sh { until [ -e ' + os.getcwd() + '/gate ]; do sleep 0.1; done }', idempotent=True)
        return job.process('run sh { sleep 1 }\\nshow "done"', idempotent=True)

tree = one_for_one(
    child(Worker, name="patient", backoff=Backoff(30, jitter=0), step_attempts=50),
    child(Worker, name="guarded", breaker=circuit_breaker(failures=1, open_for=60, parks=True)),
    child(Worker, name="spent", budget=budget(0, within=60)),
    child(Worker, name="busy"),
    max_restarts=100,
)
runtime_options = {"drain_timeout": 0.5}
"""


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    (tmp_path / "service.py").write_text(SERVICE)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mlld_sdk"]
    process = subprocess.Popen([*command, "run", "service.py", "--quiet"], cwd=tmp_path, env=environ)

    def run(*words: str, status: int | None = 0) -> str:
        said = command_line(tmp_path, *words)
        assert status is None or said.status == status, said.out + said.err
        return said.out

    def apart(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*command, *words], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)

    run.apart = apart  # type: ignore[attr-defined]
    try:
        eventually(lambda: running("service"))
        yield run
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_child_in_backoff_says_when_it_is_tried_again(say: Any) -> None:
    say("runs", "submit", "patient", '"die"')
    eventually(lambda: "backoff" in say("tree"))
    assert "RECOVERING" in say("tree")
    waits = re.search(r"next ([\d.]+)s", say("tree"))
    assert waits is not None
    assert 0 < float(waits[1]) <= 30
    assert "decision  wait by service, next start after 30.0 s" in say("why", "patient")


def test_an_open_breaker_makes_the_tree_degraded_and_the_status_3(say: Any) -> None:
    say("runs", "submit", "guarded", '"die"')
    eventually(lambda: '"state":"parked"' in say("tree", "--json", status=None))
    text = say("tree", status=3)
    assert "DEGRADED" in text
    assert "breaker open" in text
    assert "decision  park" in say("why", "guarded")


def test_a_child_that_is_down_for_good_is_a_place_given_up_and_can_be_started_again(say: Any) -> None:
    run = say("runs", "submit", "spent", '"die"').strip()
    eventually(lambda: '"failed"' in say("tree", "--json", status=None))
    assert "GAVE UP" in say("tree", status=3)
    assert "decision  fail by service" in say("why", "spent")
    say("runs", "cancel", run)
    say("restart", "spent", "--reason", "the cause is mended")
    eventually(lambda: '"failed"' not in say("tree", "--json", status=None))


def test_a_drained_agent_finishes_and_takes_no_more(say: Any, tmp_path: Path) -> None:
    first = say("runs", "submit", "busy", '"wait"').strip()
    eventually(lambda: "running" in say("runs", "show", first))
    with say.apart("drain", "busy") as drain:
        eventually(lambda: "draining" in say("tree"))
        (tmp_path / "gate").touch()
        assert drain.wait(60) == 0
    assert "finished" in say("runs", "show", first)
    second = say("runs", "submit", "busy", "2").strip()
    assert "pending" in say("runs", "show", second)
    text = say("tree")
    assert "MAINTENANCE" in text
    assert f"service/busy: drained: it takes no more work until it is resumed; waiting: {second}" in text
    assert "drained   up" in text
    assert "drained" in say("top")
    say("resume", "busy")
    assert "HEALTHY" in say("tree")
    eventually(lambda: "finished" in say("runs", "show", second))


def test_a_draining_agent_is_seen_and_can_be_resumed_before_it_is_drained(say: Any, tmp_path: Path) -> None:
    first = say("runs", "submit", "busy", '"wait"').strip()
    eventually(lambda: "running" in say("runs", "show", first))
    with say.apart("drain", "busy") as drain:
        eventually(lambda: "draining" in say("tree"))
        say("resume", "busy")
        drain.wait(60)
    (tmp_path / "gate").touch()
    assert "HEALTHY" in say("tree")
    say("resume", "busy", status=1)  # it takes work already


def test_one_file_runs_twice_under_two_names(say: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlld_sdk", "run", "service.py", "--quiet"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    second = subprocess.Popen([*command, "--name", "second"], cwd=tmp_path, env=environ)
    try:
        eventually(lambda: running("second"))
        assert say("tree", "--runtime", "second").startswith("HEALTHY")
        assert "second  " in say("tree", "--runtime", "second")
        assert "service  " in say("tree", "--runtime", "service")
    finally:
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0


def test_events_are_followed_as_they_happen(say: Any) -> None:
    follower, seen = say.apart("events", "--follow", "--json", "--last", "0"), threading.Event()

    def act() -> None:
        while not seen.is_set():  # what happened before it listened is not told
            say("pause", "busy", "--reason", "seen live")

    operator = threading.Thread(target=act)
    operator.start()
    try:
        for line in follower.stdout:
            event = json.loads(line)
            if event["name"] == "operator.acted":
                assert event["fields"]["reason"] == "seen live"
                break
        else:
            pytest.fail("the stream ended")
    finally:
        seen.set()
        operator.join(60)
        follower.kill()
        follower.wait()
        follower.stdout.close()


def test_every_looking_command_speaks_json(say: Any) -> None:
    for words in (["tree"], ["top"], ["why", "busy"], ["crashes"], ["runs", "ls"], ["config"]):
        assert json.loads(say(*words, "--json")) is not None
    for line in say("events", "--json").splitlines():
        assert json.loads(line)["name"]
