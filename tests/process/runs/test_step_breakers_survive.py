"""A service that is killed while its runs wait for a breaker goes on with them, with a breaker that is closed again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from mlld_sdk.journal import Journal
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

SERVICE = """
from pathlib import Path
from mlld_sdk import Agent, Retry, Runtime, child, circuit_breaker, one_for_one

def ask():
    with open("calls", "a") as calls:
        calls.write("called\\n")
    if Path("down").exists():
        raise OSError("503")
    return "answered"

class Asks(Agent):
    engine = "embedded"
    def run(self, job, payload):
        return job.step("ask", ask, retry=Retry(attempts=50, delay=0))

model = circuit_breaker("model", failures=2, open_for=600, longest=600)
runtime = Runtime(one_for_one(child(Asks, name="asks", breaker=model)), store="state.db")
runtime.bus.attach("test", lambda event: print("held", flush=True), events=["step.held"])
with runtime:
    print(runtime["asks"].run(key="once", run_id="asks").result(600), flush=True)
"""


def start(directory: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def resting(directory: Path) -> bool:
    with Journal.open(directory / "state.db") as journal:
        until = journal.run("asks").resting
        return until is not None and until > journal.env.wall()


def test_a_service_killed_again_and_again_while_its_run_waits_for_a_breaker_has_it_answered(
    tmp_path: Path,
) -> None:
    (tmp_path / "down").touch()
    for _ in range(6):
        process = start(tmp_path)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            eventually(lambda: resting(tmp_path))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    (tmp_path / "down").unlink()
    last = start(tmp_path)
    try:
        said, _ = last.communicate(timeout=100)
    finally:
        last.kill()
        last.wait()
    assert said == "answered\n"
    assert len((tmp_path / "calls").read_text().split()) == 6 * 2 + 1
    with Journal.open(tmp_path / "state.db") as journal:
        assert journal.run("asks").deaths == ()
        assert [(step.state, step.attempts) for step in journal.steps("asks")] == [("finished", 13)]
