"""A run that takes the process down with it: it is found and parked, and nobody else pays for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlld_sdk import Agent, Job, Runtime, child, one_for_one
from mlld_sdk.journal import Journal
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]
KIND = "root/worker"
FIRST_DEATHS = 2
"""Deaths of processes after which those that may have been the cause are tried one at a time."""


class Manager:
    """Starts services again that die, as a service manager does, until all runs have come to rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal.open(folder / "state.db", durability="normal")
        self.deaths: list[int] = []

    def submit(self, name: str, kind: str = "work", seconds: float = 0.5, agent: str = KIND) -> None:
        payload = {"name": name, "kind": kind, "seconds": seconds}
        self.journal.submit(agent, payload, run_id=name)

    def start(self, agent: str = "worker") -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.support.poison_service", str(self.folder), agent]
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONFAULTHANDLER": ""})

    def keep_running(self, *agents: str, at_most: int = 20) -> None:
        """Run a service for each of these agents, each again when it dies, until they end by themselves."""
        running = [(agent, self.start(agent)) for agent in agents]
        try:
            while running:
                eventually(lambda: any(service.poll() is not None for _, service in running), within=120)
                for agent, service in [one for one in running if one[1].poll() is not None]:
                    running.remove((agent, service))
                    if service.returncode != 0:
                        self.deaths.append(service.returncode)
                        assert len(self.deaths) <= at_most, self.said()
                        running.append((agent, self.start(agent)))
        finally:
            for _, service in running:
                service.kill()
                service.wait()

    def said(self) -> list[str]:
        log = self.folder / "said.log"
        return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []

    def states(self) -> dict[str, str]:
        return {run.id: run.state for run in self.journal.runs(limit=1000)}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.journal.close()


def test_the_run_that_kills_is_parked_and_its_neighbours_end_with_their_results(manager: Manager) -> None:  # J-40, J-43
    for name in ("a", "b", "c"):
        manager.submit(name, seconds=1.5)
    manager.submit("waits", kind="wait", seconds=8.0)
    manager.submit("boom", kind="boom")
    manager.keep_running("worker")
    assert manager.deaths == [-signal.SIGSEGV] * 5
    assert manager.states() == {**dict.fromkeys(["a", "b", "c", "waits"], "finished"), "boom": "parked"}
    for name in ("a", "b", "c"):
        outcome = manager.journal.outcome(name)
        assert outcome is not None
        assert outcome.value == [f"{name}0 done", f"{name}1 done"]
        assert manager.journal.run(name).deaths == ()
    assert manager.journal.run("waits").deaths == manager.journal.run("waits").suspected == ()
    [letter] = manager.journal.dead_letters()
    assert letter.error.code == "RUN_POISONED"
    assert len(letter.deaths) == 5


def test_others_go_on_while_suspects_are_tried(manager: Manager) -> None:  # J-44
    manager.submit("boom", kind="boom")
    manager.submit("long", seconds=2.0)
    for _ in range(FIRST_DEATHS):
        assert manager.start().wait(60) == -signal.SIGSEGV
    for n in range(6):
        manager.submit(f"new{n}x", seconds=0.1)
    manager.keep_running("worker")
    assert manager.states() == {"boom": "parked", "long": "finished", **{f"new{n}x": "finished" for n in range(6)}}
    assert manager.said().count("boom-boom") == 5


def test_two_that_kill_are_both_found(manager: Manager) -> None:  # J-43, J-44
    for name in ("a", "b"):
        manager.submit(name, seconds=0.7)
    for name in ("boom1", "boom2"):
        manager.submit(name, kind="boom")
    manager.keep_running("worker")
    assert manager.states() == {"a": "finished", "b": "finished", "boom1": "parked", "boom2": "parked"}
    assert manager.journal.run("a").deaths == manager.journal.run("b").deaths == ()


def test_two_services_on_one_store_try_suspects_one_at_a_time_between_them(manager: Manager) -> None:  # J-44
    for agent in ("worker", "other"):
        for name in ("a", "b"):
            manager.submit(f"{agent}-{name}", seconds=0.7, agent=f"root/{agent}")
        manager.submit(f"{agent}-boom", kind="boom", agent=f"root/{agent}")
    manager.keep_running("worker", "other")
    states = manager.states()
    assert {name: state for name, state in states.items() if "boom" in name} == {
        "worker-boom": "parked",
        "other-boom": "parked",
    }
    assert {state for name, state in states.items() if "boom" not in name} == {"finished"}
    assert all(manager.journal.run(name).deaths == () for name in states if "boom" not in name)


def test_two_services_that_share_the_runs_of_one_agent_find_the_one_that_kills(manager: Manager) -> None:  # J-43, J-44
    names = [f"run{n}x" for n in range(6)]
    for name in names:
        manager.submit(name, seconds=0.7)
    manager.submit("boom", kind="boom")
    manager.keep_running("worker", "worker")
    assert manager.states() == {**dict.fromkeys(names, "finished"), "boom": "parked"}
    assert all(manager.journal.run(name).deaths == () for name in names)
    assert manager.deaths == [-signal.SIGSEGV] * 5


def test_a_service_that_is_killed_once_takes_everything_up_again_at_once(manager: Manager) -> None:  # J-44
    for name in ("a", "b", "c"):
        manager.submit(name, seconds=2.0)
    service = manager.start()
    eventually(lambda: len(manager.said()) == 3)
    service.kill()
    service.wait()
    manager.keep_running("worker")
    assert {word.partition("-")[0] for word in manager.said()[3:6]} == {"begin"}  # side by side
    assert set(manager.states().values()) == {"finished"}


def test_an_engine_that_is_killed_again_and_again_costs_only_the_run_whose_step_was_on_it(tmp_path: Path) -> None:
    class Two(Agent):  # J-43
        engine = "embedded"
        concurrency = 2
        engines = 2

        def run(self, job: Job, payload: str) -> str:
            if payload == "kills":
                eventually(lambda: runtime.run("long").steps())
                return job.process("run sh { kill -9 $PPID }", idempotent=True)
            job.step("wait", lambda: eventually(lambda: runtime.run("kills").state == "parked"), idempotent=True)
            return "unharmed"

    tree = one_for_one(child(Two, name="two"), max_restarts=100)
    with Runtime(tree, store=tmp_path / "state.db", durability="normal") as runtime:
        kills = runtime["two"].run("kills", run_id="kills")
        assert runtime["two"].run("long", run_id="long").result(timeout=60) == "unharmed"
        assert runtime.run("long").record().deaths == ()
        assert len(kills.record().deaths) == 5
