"""Attempts and waits survive SIGKILL: the next process goes on with the same attempt, at the same time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from mlld_sdk.base.env import Env
from mlld_sdk.journal import Journal
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

SERVICE = """
import time

from pathlib import Path
from mlld_sdk import Agent, Retry, Runtime, child, one_for_one

def call():
    with open("calls", "a") as calls:
        calls.write(f"{time.time()}\\n")
    if len(Path("calls").read_text().split()) < 3:
        raise OSError("not yet")
    return "done"

class Worker(Agent):
    engine = "embedded"
    def run(self, job, payload):
        job.sleep(2.0)
        return job.step("call", call, retry=Retry(attempts=3, delay=2.0, factor=1.0, jitter=0, on=OSError))

with Runtime(one_for_one(child(Worker, name="worker")), store="state.db") as runtime:
    run = runtime["worker"].run(key="once", run_id="flaky")
    print(run.result(60), flush=True)
"""


def start(directory: Path, service: str = SERVICE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", service],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_wait_survives_sigkill(tmp_path: Path) -> None:
    (tmp_path / "calls").touch()

    def steps() -> dict[str, tuple[str, int]]:
        with Journal.open(tmp_path / "state.db") as journal:
            return {step.name: (step.state, step.attempts) for step in journal.steps("flaky")}

    def calls() -> list[float]:
        return [float(line) for line in (tmp_path / "calls").read_text().split()]

    began = Env().wall()
    for known in ({"sleep": ("finished", 1)}, {"sleep": ("finished", 1), "call": ("failed", 1)}):
        process = start(tmp_path)
        try:
            eventually(lambda: (tmp_path / "state.db").exists())
            eventually(lambda known=known: known.items() <= steps().items(), within=60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    last = start(tmp_path)
    try:
        said, _ = last.communicate(timeout=100)
    finally:
        last.kill()
        last.wait()
    assert said == "done\n"
    assert steps() == {"sleep": ("finished", 1), "call": ("finished", 3)}
    first, second, third = calls()
    assert first >= began + 2.0
    assert second >= first + 2.0
    assert third >= second + 2.0


SLEEPER = """
from mlld_sdk import Agent, Runtime, child, one_for_one

class Sleeper(Agent):
    engine = "embedded"
    def run(self, job, payload):
        print("working", flush=True)
        job.sleep(3600)

with Runtime(one_for_one(child(Sleeper, name="sleeper")), store="state.db") as runtime:
    runtime["sleeper"].run(key="once", run_id="long").result(600)
"""


def test_a_service_that_is_killed_again_and_again_while_a_run_sleeps_does_not_have_it_parked(
    tmp_path: Path,
) -> None:  # A-12, J-40
    for _ in range(7):
        process = start(tmp_path, SLEEPER)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "working\n"
            eventually(lambda: resting(tmp_path), within=60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    with Journal.open(tmp_path / "state.db") as journal:
        (lease,) = journal.claim_unfinished("root/sleeper", "me", limit=1)
        assert (lease.run.state, lease.run.attempt, lease.run.deaths) == ("running", 8, ())
        lease.release()


def resting(directory: Path) -> bool:
    with Journal.open(directory / "state.db") as journal:
        until = journal.run("long").resting
        return until is not None and until > journal.env.wall()
