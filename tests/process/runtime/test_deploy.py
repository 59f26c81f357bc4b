"""Deploying a new version of a service over an old one: real processes, ended in every way a deployment ends one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, Runtime, child, one_for_one
from mlld_sdk.errors import RunParked
from mlld_sdk.journal import Journal
from mlld_sdk.runs.handles import RunHandle
from mlld_sdk.testing import FakeClock
from tests.support.command_line import command_line
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]
AGENT = "service/report"

HEAD = """
from pathlib import Path
from mlld_sdk import Agent, child, one_for_one

HERE = Path(__file__).resolve().parents[1]

def fetch(topic):
    with (HERE / "fetched.log").open("a") as log:
        log.write(topic + "\\n")
    return f"facts about {topic}"

WAIT = 'run sh { touch begun; while [ ! -e go ]; do sleep 0.02; done }'

class Report(Agent):
    engine = "embedded"
    working_dir = str(HERE)
    concurrency = 4
"""

TAIL = """
tree = one_for_one(child(Report))
runtime_options = {"store": str(HERE / "state.db"), "durability": "normal", "drain_timeout": 0.3}
"""

V1 = """
    def run(self, job, topic):
        facts = job.step("fetch", fetch, topic)
        job.process(WAIT, idempotent=True)
        return "v1: " + facts
"""

V2 = """
    def run(self, job, topic):
        facts = job.step("fetch", fetch, topic)
        job.process(WAIT, idempotent=True)
        return job.step("sign", lambda: "v2: " + facts + ", signed")  # a new step, behind all that there were
"""

BROKEN = """
    def run(self, job, topic):
        topic = job.step("tidy", topic.strip)  # a new step, in front of those that runs have finished
        facts = job.step("fetch", fetch, topic)
        job.process(WAIT, idempotent=True)
        return "broken: " + facts
"""

Deploy = Callable[..., "subprocess.Popen[str]"]


def finished(run: RunHandle) -> int:
    """Count the steps a run has finished; that it sleeps is one that is written down before it does."""
    return sum(step.state == "finished" for step in run.steps())


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploy]:
    """Start a version of the service, and return its process when it takes work."""
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path))
    processes: list[subprocess.Popen[str]] = []

    def start(code: str, drain: float = 0.3) -> subprocess.Popen[str]:
        folder = tmp_path / f"release-{len(processes)}"
        folder.mkdir()
        (folder / "service.py").write_text(HEAD + code + TAIL.replace("0.3", str(drain)))
        process = subprocess.Popen(
            [sys.executable, "-m", "mlld_sdk", "run", "service.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        pid = str(process.pid)
        eventually(lambda: process.poll() is not None or command_line(tmp_path, "tree", "--pid", pid).status == 0)
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state.db", durability="normal") as journal:
        yield journal


def end(process: "subprocess.Popen[str]", how: signal.Signals) -> int:
    process.send_signal(how)
    return process.wait(60)


def in_the_middle(journal: Journal, folder: Path, topic: str) -> RunHandle:
    """Submit a run, and return when it is behind its first step and in its second."""
    (folder / "begun").unlink(missing_ok=True)
    run = RunHandle(journal, journal.submit(AGENT, topic).id)
    eventually((folder / "begun").exists)
    return run


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_new_version_goes_on_where_the_old_one_was_ended(
    how: signal.Signals, deploy: Deploy, journal: Journal, tmp_path: Path
) -> None:  # D-1 D-2 D-3
    old = deploy(V1)
    run = in_the_middle(journal, tmp_path, "bees")
    status = end(old, how)
    assert status == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    if how is signal.SIGTERM:
        assert run.state == "pending"  # handed back
    (tmp_path / "go").touch()
    deploy(V2)
    assert run.result(timeout=60) == "v2: facts about bees, signed"
    assert (tmp_path / "fetched.log").read_text() == "bees\n"  # once
    assert [step.name for step in run.steps()] == ["fetch", "process", "sign"]


def test_runs_that_end_in_the_time_to_drain_end_with_the_old_version(
    deploy: Deploy, journal: Journal, tmp_path: Path
) -> None:  # D-1
    old = deploy(V1, drain=60.0)
    run = in_the_middle(journal, tmp_path, "bees")
    old.send_signal(signal.SIGTERM)
    late = RunHandle(journal, journal.submit(AGENT, "ants").id)
    eventually(lambda: "MAINTENANCE" in command_line(tmp_path, "tree").out or old.poll() is not None)
    (tmp_path / "go").touch()
    assert run.result(timeout=60) == "v1: facts about bees"
    assert old.wait(60) == 0
    deploy(V2)
    assert late.result(timeout=60).endswith("facts about ants, signed")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_two_versions_share_one_journal_and_each_keeps_its_own_runs(
    how: signal.Signals, deploy: Deploy, journal: Journal, tmp_path: Path
) -> None:  # D-7
    old = deploy(V1)
    first = in_the_middle(journal, tmp_path, "bees")
    owner = first.record().owner
    new = deploy(V2)
    second = in_the_middle(journal, tmp_path, "ants")  # either may take it up
    assert first.record().owner is not None
    assert first.record().owner.session == owner.session  # type: ignore[union-attr]
    end(old, how)
    (tmp_path / "go").touch()
    assert first.result(timeout=60) == "v2: facts about bees, signed"
    assert second.result(timeout=60) == "v2: facts about ants, signed"
    assert sorted((tmp_path / "fetched.log").read_text().split()) == ["ants", "bees"]
    assert new.poll() is None


def test_a_version_that_does_not_fit_parks_the_run_and_the_old_one_finishes_it(
    deploy: Deploy, journal: Journal, tmp_path: Path
) -> None:  # D-4 D-5 D-6
    old = deploy(V1)
    run = in_the_middle(journal, tmp_path, "bees")
    end(old, signal.SIGTERM)
    (tmp_path / "go").touch()
    broken = deploy(BROKEN)
    fresh = RunHandle(journal, journal.submit(AGENT, " ants ").id)
    assert fresh.result(timeout=60) == "broken: facts about ants"  # new runs are none the worse for it
    eventually(lambda: run.state == "parked")
    said = command_line(tmp_path, "runs", "ls", "--state", "parked")
    assert (said.status, said.out.count("run-")) == (0, 1)
    assert run.id in said.out
    shown = command_line(tmp_path, "runs", "show", run.id)
    assert "STEP_MISMATCH" in shown.out
    assert 'fetch(["step","fetch",["bees"]])' in shown.out.replace(" ", "").replace("\n", "")
    assert "tidy" in shown.out
    end(broken, signal.SIGTERM)
    deploy(V1)
    assert run.state == "parked"  # until somebody says so
    assert command_line(tmp_path, "runs", "retry", run.id).status == 0
    assert run.result(timeout=60) == "v1: facts about bees"
    assert (tmp_path / "fetched.log").read_text().split() == ["bees", "ants"]


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ('job.step("fetch", fetch, topic)', True),
        ('job.step("fetch", lambda topic: "other facts", topic)', True),  # what a step does is not compared
        ('job.step("fetch", fetch, topic, idempotent=True)', True),
        ('job.step("get", fetch, topic)', False),
        ('job.step("fetch", fetch, topic.upper())', False),
        ('job.process("show `facts`")', False),
    ],
)
def test_a_finished_step_is_compared_by_place_name_and_question(change: str, fits: bool, tmp_path: Path) -> None:  # D-4
    def fetch(topic: str) -> str:
        return f"facts about {topic}"

    def version(first: str) -> type[Agent]:
        class Report(Agent):
            engine = "embedded"

            def run(self, job: Job, topic: str) -> str:
                facts = eval(first, {"job": job, "fetch": fetch, "topic": topic})
                job.sleep(3600)
                return str(facts)

        return Report

    clock = FakeClock()
    options: dict[str, Any] = {"store": tmp_path / "state.db", "durability": "normal", "env": clock.env}
    with Runtime(one_for_one(child(version('job.step("fetch", fetch, topic)'))), **options) as runtime:
        run = runtime["report"].run("bees")
        eventually(lambda: finished(run) == 2)
        runtime.stop(drain=False)
    clock.advance(3600)
    with Runtime(one_for_one(child(version(change))), **options) as runtime:
        run = runtime.run(run.id)
        if fits:
            assert run.result(timeout=60) == "facts about bees"
        else:
            with pytest.raises(RunParked, match="has recorded fetch"):
                run.result(timeout=60)


def test_what_an_engine_was_asked_is_compared_and_not_what_its_script_says(tmp_path: Path) -> None:  # D-4
    class Reader(Agent):
        engine = "embedded"
        working_dir = str(tmp_path)

        def run(self, job: Job, payload: Any) -> str:
            read = job.execute("facts.mld").output.strip()
            job.sleep(3600)
            return read

    clock, script = FakeClock(), tmp_path / "facts.mld"
    options: dict[str, Any] = {"store": tmp_path / "state.db", "durability": "normal", "env": clock.env}
    script.write_text("show `old facts`")
    with Runtime(one_for_one(child(Reader)), **options) as runtime:
        run = runtime["reader"].run()
        eventually(lambda: finished(run) == 2)
        runtime.stop(drain=False)
    script.write_text("show `new facts`")
    clock.advance(3600)
    with Runtime(one_for_one(child(Reader)), **options) as runtime:
        assert runtime.run(run.id).result(timeout=60) == "old facts"
        fresh = runtime["reader"].run()
        eventually(lambda: finished(fresh) == 2)
        clock.advance(3600)
        assert fresh.result(timeout=60) == "new facts"


def test_a_run_that_is_past_the_end_of_the_old_code_ends_as_the_old_code_says(tmp_path: Path) -> None:  # D-6
    class Old(Agent):
        engine = "embedded"

        def run(self, job: Job, topic: str) -> str:
            return job.step("fetch", lambda topic: f"facts about {topic}", topic)

    class New(Old):
        def run(self, job: Job, topic: str) -> str:
            facts = super().run(job, topic)
            job.step("sign", lambda: "signed")
            job.sleep(3600)
            return facts + ", signed"

    clock = FakeClock()
    options: dict[str, Any] = {"store": tmp_path / "state.db", "durability": "normal", "env": clock.env}
    with Runtime(one_for_one(child(New, name="a")), **options) as runtime:
        run = runtime["a"].run("bees")
        eventually(lambda: finished(run) == 3)
        runtime.stop(drain=False)
    clock.advance(3600)
    with Runtime(one_for_one(child(Old, name="a")), **options) as runtime:
        run = runtime.run(run.id)
        assert run.result(timeout=60) == "facts about bees"
        assert len(run.steps()) == 3


def test_a_run_of_another_name_is_not_taken_up_and_said_to_wait(tmp_path: Path) -> None:
    class Report(Agent):
        engine = "embedded"

        def run(self, job: Job, topic: str) -> str:
            return topic

    with Journal.open(tmp_path / "state.db", durability="normal") as journal:
        run = RunHandle(journal, journal.submit("root/old", "bees").id)
        with Runtime(
            one_for_one(child(Report, name="new")), store=tmp_path / "state.db", durability="normal"
        ) as runtime:
            eventually(lambda: "no agent root/old is in this tree" in runtime.tree())
            assert run.state == "pending"
