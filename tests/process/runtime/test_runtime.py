"""The runtime: starts whole, stops in order, says how it ended, and leaves its runs to whoever comes next."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, Pool, RunHandle, Runtime, child, dynamic, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import StartFailed
from mlld_sdk.actors.registry.registry import Registry
from mlld_sdk.agents.handles import AgentHandle
from mlld_sdk.agents.pool import PoolHandle
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.events import name_of
from mlld_sdk.journal import Journal
from mlld_sdk.journal.errors import RunNotFound
from mlld_sdk.runtime.end import RuntimeNotRunning
from mlld_sdk.supervision.errors import ChildNotFound, NotSupported
from mlld_sdk.supervision.tree import Place
from tests.support.agents import THINK, Thinker, calls, running
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

SERVICE = """
import signal, sys, threading, time
from mlld_sdk import Agent, Runtime, child, one_for_one

def say_when_ready():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
    sys.stdout.write("ready\\n")  # in one piece, beside the other thread
    sys.stdout.flush()

class Worker(Agent):
    engine = "embedded"
    concurrency = 2
    engines = 2
    def run(self, job, payload):
        sys.stdout.write("working\\n")
        sys.stdout.flush()
        return job.execute("think.mld", {"n": payload}, idempotent=True).output

class Brittle(Agent):
    engine = "embedded"
    def on_start(self):
        super().on_start()
        if sys.argv[1] == "brittle":
            self.send_after(0.2, "die")
    def on_receive(self, message):
        if message == "die":
            raise RuntimeError("as planned")
        return super().on_receive(message)

runtime = Runtime(one_for_one(child(Worker, name="worker"), child(Brittle, name="brittle"), max_restarts=1, within=60),
                  store="state.db", drain_timeout=float(sys.argv[2]))
runtime.start()
runtime["worker"].run("1", key="1")
threading.Thread(target=say_when_ready).start()
sys.exit(runtime.run_forever())
"""


def service(directory: Path, *arguments: str, pause: str) -> subprocess.Popen[str]:
    (directory / "think.mld").write_text(THINK)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PAUSE": pause},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = {process.stdout.readline().strip() for _ in range(2)}
    assert said == {"ready", "working"}
    return process


def end_of(process: subprocess.Popen[str]) -> int:
    try:
        return process.wait(60)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def run_in(directory: Path) -> str:
    with Journal.open(directory / "state.db") as journal:
        return str(journal.runs()[0].state)


def test_a_signal_lets_the_run_end_and_the_exit_status_says_clean(tmp_path: Path) -> None:
    process = service(tmp_path, "sturdy", "20", pause="0.5")
    process.send_signal(signal.SIGTERM)
    assert end_of(process) == 0
    assert run_in(tmp_path) == "finished"


def test_a_run_that_outlasts_the_drain_is_handed_back(tmp_path: Path) -> None:
    process = service(tmp_path, "sturdy", "0.1", pause="300")
    process.send_signal(signal.SIGINT)
    assert end_of(process) == 0
    assert run_in(tmp_path) == "pending"


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    process = service(tmp_path, "sturdy", "60", pause="300")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)  # another one: two of a kind may arrive as one
    assert end_of(process) == 75
    assert run_in(tmp_path) == "pending"


STUCK = """
import threading
from mlld_sdk import Agent, child, one_for_one

def loop(item, job):
    while True:
        threading.Event().wait(0.05)

class Stuck(Agent):
    engine = "embedded"
    def run(self, job, payload):
        print("working", flush=True)
        job.map(loop, [1, 2]) if payload == "branches" else loop(None, None)

tree = one_for_one(child(Stuck, name="stuck"))
runtime_options = {"store": "state.db", "drain_timeout": 0.2}
"""


@pytest.mark.parametrize("payload", ["code", "branches"])
def test_code_that_does_not_end_is_no_end_in_order_and_does_not_keep_the_process(tmp_path: Path, payload: str) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    with Journal.open(tmp_path / "state.db") as journal:
        journal.submit("stuck/stuck", payload)
    process = subprocess.Popen(
        [sys.executable, "-m", "mlld_sdk", "run", "stuck.py", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLLD_OTP_RUNTIME_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline().strip() == "working"
        process.send_signal(signal.SIGTERM)
        assert end_of(process) == 75
        assert "could not be ended and still ran: stuck/stuck/Worker" in process.stderr.read()
    finally:
        process.stderr.close()
    assert run_in(tmp_path) == "pending"


def test_a_killed_worker_whose_code_goes_on_is_seen_until_it_ends(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()

    class Stuck(Agent):
        def run(self, job: Job, payload: Any) -> None:
            entered.set()
            gate.wait(60)

    with running(one_for_one(child(Stuck, name="stuck", engine="embedded")), tmp_path) as (runtime, _):
        runtime["stuck"].run()
        assert entered.wait(60)  # a run is `running` when it is claimed, and its code a moment later
        runtime.restart("stuck", "a look at what is left")
        eventually(lambda: "zombies 1" in runtime.tree())
        assert runtime.system.zombies.count() == 1
        gate.set()
        eventually(lambda: "zombies" not in runtime.tree())


def test_a_root_that_gives_up_ends_the_program_with_a_failure(tmp_path: Path) -> None:
    process = service(tmp_path, "brittle", "1", pause="300")
    assert end_of(process) == 1
    assert run_in(tmp_path) == "pending"


def test_places_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    class Plain(Actor):
        pass

    tree = one_for_one(
        child(Thinker, name="a", engine="embedded"),
        one_for_one(
            child(Thinker, name="b", engine="embedded"), child(Pool, name="p", engine="embedded"), name="below"
        ),
        one_for_one(child(Thinker, name="b", engine="embedded"), child(Plain, name="plain"), name="beside"),
    )
    with running(tree, tmp_path) as (runtime, _):
        assert isinstance(runtime["a"], AgentHandle)
        assert runtime["a"].name == "root/a"
        assert isinstance(runtime["p"], PoolHandle)
        assert runtime["below/b"].name == "root/below/b"
        assert isinstance(runtime["plain"], Place)
        assert {agent.name for agent in runtime.agents()} == {"root/a", "root/below/b", "root/beside/b"}
        with pytest.raises(ChildNotFound, match="ambiguous"):
            runtime["b"]
        with pytest.raises(ChildNotFound):
            runtime["nobody"]
        with pytest.raises(ConfigurationError, match="no pool"):
            runtime.pool("a")
    with pytest.raises(RuntimeNotRunning, match="has been stopped"):
        runtime["a"]


def test_agents_come_and_go_under_a_dynamic_supervisor(tmp_path: Path) -> None:
    with running(one_for_one(dynamic(name="sessions")), tmp_path) as (runtime, _):
        sessions = runtime.place("sessions").supervisor()
        ref = sessions.start_child(child(Thinker, name="guest", engine="embedded", working_dir=tmp_path))
        handle = runtime[ref.path]
        assert handle.run({"thoughts": 1}).result(60) == ["thought 0"]
        sessions.terminate_child(ref)
        with pytest.raises(ChildNotFound):
            runtime[ref.path]


def test_what_is_not_kept_when_it_is_stopped_is_neither_paused_nor_restarted(tmp_path: Path) -> None:  # SUP-60
    with running(one_for_one(dynamic(name="crowd")), tmp_path) as (runtime, _):
        ref = runtime.place("crowd").supervisor().start_child(child(Quiet, name="S1", restart="permanent"))
        for operate in (runtime.pause, runtime.restart):
            with pytest.raises(NotSupported, match="dynamic supervisor"):
                operate("S1", "to see")
        assert runtime.place("S1").ref() is ref


class Quiet(Actor):
    """Does nothing."""


class Fetcher(Thinker):
    """Thinks, as what `Thinker` does, under a class of its own."""


def test_what_is_registered_takes_runs_and_requests_and_is_found_by_its_names(tmp_path: Path) -> None:
    embedded: dict[str, Any] = {"engine": "embedded", "working_dir": tmp_path}
    tree = one_for_one(
        child(Thinker, name="static", register="known", **embedded),
        child(Pool, name="engines", register="shared", size=1, **embedded),
        dynamic(name="guests"),
    )
    with running(tree, tmp_path) as (runtime, _):
        desks = Registry(runtime.system, "desks", keys="unique")
        guests = runtime.place("guests").supervisor()
        guests.start_child(child(Fetcher, name="by-name", register="second", **embedded))
        guests.start_child(child(Fetcher, name="by-via", register=desks.via("third"), **embedded))
        guests.start_child(child(Fetcher, name="by-pair", register=desks.via(("desk", 4)), **embedded))
        names: list[tuple[Any, str]] = [
            ("static", "root/static"),
            ("known", "root/static"),
            ("by-name", "root/guests/by-name"),
            ("second", "root/guests/by-name"),
            ("by-via", "root/guests/by-via"),
            ("third", "root/guests/by-via"),
            (("desk", 4), "root/guests/by-pair"),
        ]
        for name, path in names:
            agent = runtime.agent(name)
            assert (agent.name, agent.ref.path) == (path, path)  # type: ignore[union-attr]
            assert agent.process('show "here"').strip() == "here"
            assert agent.run({"thoughts": 1}).result(60) == ["thought 0"]
        pool = runtime.pool("shared")
        assert pool.name == "root/engines"
        assert pool.process('show "here"').strip() == "here"
        with pool.checkout(30) as engine:
            assert engine.process('show "mine"').strip() == "mine"
        first = runtime.agent("known").ref
        assert first is not None
        first.kill("to see who comes")
        eventually(lambda: runtime.agent("known").ref not in (None, first))
        assert runtime.agent("known").run({"thoughts": 1}).result(60) == ["thought 0"]


def test_a_name_is_looked_up_at_each_supervisor_and_not_at_each_child(tmp_path: Path) -> None:
    with running(one_for_one(dynamic(name="crowd"), child(Quiet, name="plain")), tmp_path) as (runtime, _):
        crowd = runtime.place("crowd").supervisor()
        crowd.start_children([child(Quiet, name=f"one-{n}") for n in range(2_000)])
        calls: list[str] = []
        sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
        try:
            runtime["one-1999"]
        finally:
            sys.setprofile(None)
        assert len(calls) < 50
        runtime["crowd/one-3"].ref().kill("gone")
        eventually(lambda: is_missing(runtime, "one-3"))
        assert runtime["one-4"].path == "root/crowd/one-4"


def is_missing(runtime: Runtime, name: str) -> bool:
    try:
        runtime[name]
    except ChildNotFound:
        return True
    return False


def test_a_tree_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Agent):
        def on_start(self) -> None:
            raise RuntimeError("not today")

    before = set(threading.enumerate())
    with pytest.raises(StartFailed, match="not today"):
        Runtime(
            one_for_one(child(Thinker, engine="embedded", eager=True), child(Broken)), store=tmp_path / "s.db"
        ).start()
    shared = {"mlld-shared-io", "mlld-shared-reaper"}  # the process's own, whichever test starts them
    eventually(lambda: {thread.name for thread in set(threading.enumerate()) - before} <= shared)


def test_a_runtime_that_does_not_run_says_so(tmp_path: Path) -> None:
    runtime = Runtime(one_for_one(child(Thinker, engine="embedded")))
    with pytest.raises(RuntimeNotRunning):
        runtime["thinker"]
    with runtime:
        assert runtime.verdict().word == "healthy"
        assert "thinker" in runtime.tree()
    first = runtime.stop()
    assert first.clean
    assert runtime.stop() is first
    with pytest.raises(ConfigurationError, match="before"):
        runtime.start()


def test_another_process_hands_in_runs_and_takes_their_results(tmp_path: Path) -> None:
    with running(one_for_one(child(Thinker, name="a", engine="embedded", working_dir=tmp_path)), tmp_path) as (
        runtime,
        _,
    ):
        other = (
            "from mlld_sdk.journal import Journal; from mlld_sdk import RunHandle\n"
            "journal = Journal.open('state.db')\n"
            "run = journal.submit('root/a', {'thoughts': 2}, run_id='from-outside')\n"
            "print(RunHandle(journal, run.id).result(60)); journal.close()"
        )
        done = subprocess.run(
            [sys.executable, "-c", other],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == "['thought 0', 'thought 1']\n", done.stderr
        attached = runtime.run("from-outside")
        assert isinstance(attached, RunHandle)
        assert attached.state == "finished"
        with pytest.raises(RunNotFound):
            runtime.run("never-was")


def test_two_services_on_one_store_share_the_work_and_never_a_run(tmp_path: Path) -> None:
    tree = one_for_one(child(Thinker, name="a", engine="embedded", working_dir=tmp_path))
    with running(tree, tmp_path) as (first, _), running(tree, tmp_path) as (second, _):
        runs = [(first, second)[n % 2]["a"].run({"thoughts": 2, "prefix": f"{n}."}) for n in range(12)]
        for n, run in enumerate(runs):
            assert run.result(60) == [f"thought {n}.0", f"thought {n}.1"]
    made = calls(tmp_path)
    assert len(made) == len(set(made)) == 24


def test_two_thousand_declared_agents_cost_no_process_until_they_work(tmp_path: Path) -> None:
    class Idle(Agent):
        engine = "embedded"

        def run(self, job: Job, payload: Any) -> str:
            return job.process('show "worked"')

    tree = one_for_one(*(child(Idle, name=f"a{n}") for n in range(2000)))
    with running(tree, tmp_path, max_engines=2) as (runtime, seen):
        assert [name_of(event) for event in seen].count("engine.started") == 0
        runs = [runtime[f"a{n}"].run() for n in (0, 500, 1000, 1999)]
        assert {run.result(60) for run in runs} == {"worked\n"}
        assert [name_of(event) for event in seen].count("engine.started") == 4
        assert threading.active_count() < 40
