"""The runtime when it is stopped from everywhere, used after its end, and awaited on loops that are gone."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, InfrastructureError, Job, Runtime, child, dynamic, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import StartFailed
from mlld_sdk.actors.core.events import ActorCallbackFailed
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, MlldError
from mlld_sdk.control.client import Remote as Client
from mlld_sdk.control.protocol import AskTree, ControlError, socket_path
from mlld_sdk.journal import Journal
from mlld_sdk.journal.errors import JournalClosed
from mlld_sdk.runtime.signals import SignalQueue
from mlld_sdk.transport.memory import kill_count
from tests.support.agents import THINK, Thinker, calls, engine_pid, running
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]


class Waits(Agent):
    """Waits for its gate."""

    engine = "embedded"
    gate = threading.Event()

    def run(self, job: Job, payload: Any) -> Any:
        self.gate.wait(60)
        return payload


def test_many_stops_at_once_are_one_stop(tmp_path: Path) -> None:
    with running(one_for_one(child(Waits, name="agent")), tmp_path) as (runtime, _), ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(lambda _: runtime.stop(), range(4)))
        assert {id(report) for report in reports} == {id(reports[0])}


def test_a_run_that_stops_its_runtime_is_handed_back(tmp_path: Path) -> None:
    stopped = threading.Event()

    class Stops(Agent):
        engine = "embedded"

        def run(self, job: Job, payload: None) -> None:
            if stopped.is_set():
                return
            try:
                runtime.stop(2)
            finally:
                stopped.set()

    with running(one_for_one(child(Stops, name="agent")), tmp_path) as (runtime, _):
        run_id = runtime["agent"].run().id
        assert stopped.wait(60)
    with running(one_for_one(child(Stops, name="agent")), tmp_path) as (runtime, _):
        assert runtime.run(run_id).result(60) is None


def test_an_actor_that_stops_its_runtime_does_not_wedge_it(tmp_path: Path) -> None:
    class Stops(Actor):
        def on_receive(self, message: Any) -> None:
            runtime.stop(2)

    with running(one_for_one(child(Waits, name="agent"), child(Stops, name="stops")), tmp_path) as (runtime, _):
        runtime.services.whereis("root/stops").tell("stop")
        eventually(lambda: runtime.supervisors() == [], within=60)


def test_a_body_that_raises_is_heard_and_everything_is_stopped(tmp_path: Path) -> None:
    def fail() -> None:
        with running(one_for_one(child(Waits, name="agent", eager=True)), tmp_path) as (runtime, _):
            started.append(runtime)
            raise ZeroDivisionError

    started: list[Runtime] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert started[0].stop().clean


def test_handles_say_by_name_that_all_is_over(tmp_path: Path) -> None:
    with running(one_for_one(child(Waits, name="agent")), tmp_path) as (runtime, _):
        agent = runtime["agent"]
        Waits.gate.clear()
        run = agent.run()
        runtime.stop(0.5)
        Waits.gate.set()
    for ask in (agent.run, lambda: agent.process('show "x"'), agent.status, lambda: run.result(1), lambda: run.state):
        with pytest.raises(InfrastructureError):
            ask()


def test_who_waits_for_a_run_hears_of_the_end_of_the_runtime(tmp_path: Path) -> None:
    Waits.gate.clear()

    async def wait_for(run: Any) -> Any:
        return await run

    with running(one_for_one(child(Waits, name="agent")), tmp_path) as (runtime, _), ThreadPoolExecutor(2) as threads:
        run = runtime["agent"].run()
        waits = [threads.submit(run.result, None), threads.submit(lambda: asyncio.run(wait_for(run)))]
        eventually(lambda: runtime.journal.status().waiting == 2)
        runtime.stop(0.2)
        for wait in waits:
            with pytest.raises(JournalClosed):
                wait.result(60)
        Waits.gate.set()


def test_a_loop_that_ends_early_leaves_nobody_waiting(tmp_path: Path) -> None:
    Waits.gate.clear()
    with running(one_for_one(child(Waits, name="agent")), tmp_path) as (runtime, _):
        run = runtime["agent"].run("done")

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(run, 0.05)

        asyncio.run(give_up())
        eventually(lambda: runtime.journal.status().waiting == 0)
        Waits.gate.set()
        assert run.result(60) == "done"


def test_a_runtime_that_did_not_start_is_not_started_again(tmp_path: Path) -> None:
    class Broken(Agent):
        engine = "embedded"

        def on_start(self) -> None:
            raise RuntimeError("not today")

    runtime = Runtime(one_for_one(child(Broken)), store=tmp_path / "s.db")
    with pytest.raises(StartFailed):
        runtime.start()
    with pytest.raises(ConfigurationError, match="before"):
        runtime.start()


def test_an_engine_that_is_stopped_under_a_step_costs_its_deadline(tmp_path: Path) -> None:
    class Asks(Agent):
        def run(self, job: Job, payload: None) -> str:
            return job.execute("think.mld", {"n": "1"}, timeout=4, idempotent=True).output

    spec = one_for_one(child(Asks, name="agent", engine="embedded", working_dir=tmp_path, environ={"PAUSE": "300"}))
    with running(spec, tmp_path) as (runtime, _):
        run = runtime["agent"].run()
        eventually(lambda: calls(tmp_path))
        pid = engine_pid(tmp_path)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(MlldError) as late:
            run.result(60)
        assert late.value.code == "TIMEOUT"
        eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_pausing_and_resuming_from_many_threads_loses_no_run(tmp_path: Path) -> None:
    with running(
        one_for_one(child(Thinker, name="agent", engine="embedded", working_dir=tmp_path, checkpoint=True)), tmp_path
    ) as (runtime, _):
        runs = [runtime["agent"].run({"thoughts": 2, "prefix": f"{n}."}) for n in range(4)]

        def disturb(n: int) -> None:
            for _ in range(3):
                with contextlib.suppress(MlldError):  # somebody else is at it
                    runtime.restart("agent", f"thread {n}")

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(disturb, range(3)))
        with contextlib.suppress(MlldError):
            runtime.resume("agent")
        for n, run in enumerate(runs):
            assert run.result(60) == [f"thought {n}.0", f"thought {n}.1"]


LATE = """
import sys
from mlld_sdk import Agent, Runtime, child, one_for_one

class Slow(Agent):
    engine = "embedded"
    def run(self, job, payload):
        first = job.execute("think.mld", {"n": "first"}, idempotent=True).output
        return first + job.execute("think.mld", {"n": "second"}, idempotent=True).output

with Runtime(one_for_one(child(Slow, name="agent")), store="state.db") as runtime:
    runtime["agent"].run(run_id="contested")
    try:
        print(runtime.run("contested").result(60), flush=True)
    except BaseException as error:
        print(repr(error), flush=True)
    sys.stdin.readline()
"""


def test_a_round_that_fails_is_told_and_the_next_one_comes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails() -> None:
        monkeypatch.setattr(kill_count, "look", lambda: None)
        raise RuntimeError("once")

    with Runtime(one_for_one(child(Waits, name="agent")), store=tmp_path / "s.db") as runtime:
        with runtime.bus.recording() as events:
            monkeypatch.setattr(kill_count, "look", fails)
            eventually(lambda: any("once" in one.error for one in events if isinstance(one, ActorCallbackFailed)))
        Waits.gate.set()
        with Journal.open(tmp_path / "s.db") as beside:
            run = beside.submit("root/agent", 1)
            assert beside.wait(run.id, 60).state == "finished"


def test_a_start_without_threads_for_its_rounds_says_so_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuses(thread: threading.Thread) -> None:
        if thread.name.endswith("-rounds"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuses)
    runtime = Runtime(one_for_one(child(Waits, name="agent")))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        runtime.start()
    assert runtime.bus.handlers() == []


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_nothing_is_kept_for_the_successor_of_one_that_gets_none(end: str) -> None:
    with Runtime(one_for_one(dynamic(name="crowd"))) as runtime:
        ref = runtime.place("crowd").supervisor().start_child(child(Waits, name="guest", spares=1))
        runtime["guest"].process("show `x`")
        engines = [one.pid for one in runtime.history.engines()]
        assert engines
        getattr(ref, end)()
        eventually(lambda: not runtime.services.engine_pools() and not runtime.services.requests)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engines))


def test_an_owner_that_slept_through_its_lease_acts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "think.mld").write_text(THINK)
    late = subprocess.Popen(
        [sys.executable, "-c", LATE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PAUSE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: calls(tmp_path) == ["first"], within=60)
        os.kill(late.pid, signal.SIGSTOP)
        with Journal.open(tmp_path / "state.db") as journal:
            run = journal.run("contested")
            assert run.owner is not None
            clock = journal.env.now
            monkeypatch.setattr(journal, "env", Env(now=lambda: clock() + run.owner.ttl + 1))
            [lease] = journal.claim_unfinished("root/agent", "successor")
            os.kill(late.pid, signal.SIGCONT)
            lease.finish_run("by the successor")
        out, _ = late.communicate("\n", timeout=60)
        assert out.strip() == "by the successor"
    finally:
        late.kill()
        late.communicate()
    assert calls(tmp_path) == ["first"]


def test_the_control_socket_outlives_a_shortage_of_files_and_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    with running(one_for_one(child(Waits, name="agent")), tmp_path, control=True, name="short") as (runtime, _):
        early = socket.socket(socket.AF_UNIX)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (early.fileno() + 1, hard))
        try:
            early.connect(str(socket_path("short")))
            assert runtime.verdict().word == "healthy"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            early.close()
        with Client("short") as client:
            assert "agent" in client.ask(AskTree())["text"]
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == "control-client":
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ControlError), Client("short") as refused:
                refused.ask(AskTree())
        with Client("short") as client:
            assert "agent" in client.ask(AskTree())["text"]


def test_a_word_said_after_the_end_goes_into_nobody_elses_file(tmp_path: Path) -> None:
    words = SignalQueue()
    number = words.wake
    words.close()
    with (tmp_path / "mine").open("wb", buffering=0) as mine:
        os.dup2(mine.fileno(), number)
        try:
            words.put("late")
        finally:
            if number != mine.fileno():
                os.close(number)
    assert (tmp_path / "mine").read_bytes() == b""
