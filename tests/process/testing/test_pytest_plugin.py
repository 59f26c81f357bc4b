"""The fixtures as a user's own project sees them, and the parts behind them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlld_sdk import Agent, Backoff, Pool, Runtime, child, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.base.errors import ConfigurationError, MlldError
from mlld_sdk.base.events import Event
from mlld_sdk.supervision.events import ChildExited, ChildStarted
from mlld_sdk.testing import Chaos, FakeClock, Leaked, Recorder, eventually, leak_check
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineDied

ROOT = Path(__file__).parents[3]

PROJECT = """
import os, subprocess, threading, time
import pytest
from mlld_sdk import Agent, child, one_for_one
from mlld_sdk.supervision.events import ChildExited, ChildStarted

class Reviewer(Agent):
    engine = "embedded"
    def run(self, job, payload):
        return job.process('run sh { sleep 0.5 }\\nshow "reviewed"', idempotent=True)

@pytest.fixture
def tree():
    return one_for_one(child(Reviewer, name="reviewer"))

def test_survives(runtime, chaos, events):
    run = runtime["reviewer"].run()
    events.next(ChildStarted, path="root/reviewer")
    while not chaos.kill("reviewer"):
        pass
    assert events.next(ChildExited).decision == "restart"
    assert events.next(ChildStarted).incarnation == 2
    assert run.result(timeout=60) == "reviewed\\n"

def test_engine(engine):
    assert engine.call("process", {"script": 'show "x"'}, timeout=60).payload["output"] == "x\\n"

def test_time_stands_still(clock, make_runtime, tree):
    runtime = make_runtime(tree)
    assert runtime.env.now() == runtime.env.now()

@pytest.mark.usefixtures("no_leaks")
def test_leaks_a_process():
    subprocess.Popen(["sleep", "5"])

@pytest.mark.usefixtures("no_leaks")
def test_leaks_a_file(tmp_path):
    global kept
    kept = open(tmp_path / "kept", "w")

@pytest.mark.usefixtures("no_leaks")
def test_leaks_a_thread():
    threading.Thread(target=time.sleep, args=(30,), daemon=True, name="forgotten").start()
"""


def test_a_project_gets_the_fixtures_by_installing_the_package(tmp_path: Path) -> None:
    (tmp_path / "test_project.py").write_text(PROJECT)
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "-c",
        os.devnull,
    ]
    done = subprocess.run(
        [*words, "-p", "no:timeout", "-W", "ignore", "test_project.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "6 passed, 3 errors" in done.stdout, done.stdout
    for left in ("child process", "kept", "thread forgotten"):
        assert f"left behind: {left}" in done.stdout or left in done.stdout


class Worker(Agent):
    engine = "embedded"
    timeout = 20.0


class Plain(Actor):
    pass


@pytest.fixture
def tree() -> object:
    return one_for_one(
        child(Worker, name="worker"),
        child(Pool, name="pool", engine="embedded", size=2),
        child(Plain, name="plain"),
        max_restarts=100,
    )


def ask(runtime: Runtime, name: str = "worker", timeout: float = 20.0) -> str:
    """Ask until somebody is there to answer."""
    return eventually(lambda: runtime[name].ref) and runtime[name].process('show "fine"', timeout=timeout)


def dies(runtime: Runtime) -> None:
    with pytest.raises(EngineDied):
        runtime["worker"].process("run sh { sleep 9 }")


def test_killed_engines_cost_one_request_and_one_restart(runtime: Runtime, chaos: Chaos, events: Recorder) -> None:
    assert ask(runtime) == "fine\n"
    killer = threading.Thread(target=lambda: eventually(lambda: chaos.kill("worker")))
    running = threading.Thread(target=dies, args=[runtime])
    running.start()
    eventually(lambda: runtime["worker"].status().engines.busy)
    killer.start()
    killer.join()
    running.join()
    assert events.next(ChildExited, path="root/worker").decision == "restart"
    events.next(ChildStarted, path="root/worker")
    assert ask(runtime) == "fine\n"


def test_a_stopped_engine_answers_when_it_is_resumed(runtime: Runtime, chaos: Chaos) -> None:
    ask(runtime)
    assert chaos.stop("worker") == 1
    with pytest.raises(MlldError):
        runtime["worker"].process('show "too late"', timeout=0.3)
    chaos.resume("worker")
    assert eventually(lambda: ask(runtime)) == "fine\n"


@pytest.mark.parametrize("name", ["worker", "pool"])
def test_garbled_answers_are_no_answers_until_the_engines_are_healed(runtime: Runtime, chaos: Chaos, name: str) -> None:
    ask(runtime, name)
    chaos.garble(name)
    with pytest.raises(MlldError):
        ask(runtime, name, timeout=0.5)
    chaos.heal(name)
    assert eventually(lambda: ask(runtime, name)) == "fine\n"


def test_slow_and_flooding_engines_still_answer(runtime: Runtime, chaos: Chaos) -> None:
    chaos.slow("worker", 0.3)
    with pytest.raises(MlldError):
        ask(runtime, timeout=0.1)
    eventually(lambda: runtime["worker"].ref)
    assert ask(runtime) == "fine\n"
    chaos.flood("worker", "256k", stderr=True)
    assert ask(runtime) == "fine\n"


def test_chaos_says_what_it_cannot_break(runtime: Runtime, chaos: Chaos) -> None:
    with pytest.raises(ConfigurationError, match="no embedded engine"):
        chaos.garble("plain")
    assert chaos.kill("worker") == 0  # it has not started an engine yet


def test_a_killed_actor_is_replaced(runtime: Runtime, chaos: Chaos, events: Recorder) -> None:
    chaos.kill_actor("worker")
    assert events.next(ChildExited, path="root/worker").kind == "killed"
    assert events.next(ChildStarted, path="root/worker").incarnation == 2


class Brittle(Actor):
    def on_receive(self, message: object) -> None:
        raise RuntimeError(message)


def test_time_moves_only_when_told_to(make_runtime: object, clock: FakeClock, events: Recorder) -> None:
    runtime = make_runtime(one_for_one(child(Brittle, name="b", backoff=Backoff(30.0, jitter=0))))  # type: ignore[operator]
    begin = clock.wall()
    events.next(ChildStarted, incarnation=1)
    runtime.place("b").ref().tell("break")
    assert events.next(ChildExited).next_attempt_in == 30.0
    eventually(lambda: runtime.snapshot().children[0].next_in == 30.0)
    clock.advance(29.0)
    assert runtime.snapshot().children[0].state == "waiting"
    clock.advance(1.0)
    assert events.next(ChildStarted).incarnation == 2
    assert clock.wall() - begin == 30.0


class Ticked(Event, frozen=True, kw_only=True, tag="test.ticked_in_plugin_test"):
    n: int


def test_an_event_that_does_not_come_is_told_with_what_came_instead() -> None:
    recorder = Recorder()
    for n in range(3):
        recorder(Ticked(at=0.0, n=n))
    assert recorder.next(Ticked, n=1).n == 1
    with pytest.raises(
        AssertionError, match=r"no Ticked \{'n': 0\} within 0.01 s; there was: test.ticked.*; one came before"
    ):
        recorder.next(Ticked, n=0, within=0.01)
    assert recorder.next(Ticked).n == 2
    threading.Timer(0.05, recorder, [Ticked(at=0.0, n=7)]).start()
    assert recorder.next(Ticked, n=7).n == 7
    assert recorder.names() == ["test.ticked_in_plugin_test"] * 4
    assert len(recorder.of(Ticked)) == 4


def test_the_leak_check_waits_for_what_is_ending_and_names_what_stays() -> None:
    with leak_check():
        threading.Timer(0.1, lambda: None).start()
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="forgotten")
    with pytest.raises(Leaked, match="thread forgotten"), leak_check(within=0.05):
        thread.start()
    gate.set()
    thread.join()


def test_the_engine_fixture_is_an_engine(engine: Engine) -> None:
    assert engine.alive
