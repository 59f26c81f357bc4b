"""Workers of a real server on one journal: killed at work, nothing is lost or doubled, and all of them are seen."""

import json
import os
import random
import signal
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlld_sdk.control.client import running
from mlld_sdk.journal import Journal
from tests.support.applications import ROOT, Uvicorn, uvicorn
from tests.support.command_line import command_line
from tests.support.eventually import eventually

APP = """
import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.web import current, health, lifespan

class Writer(Agent):
    engine = "embedded"
    concurrency = 3
    engines = 3

    def run(self, job, payload):
        name = payload["name"]
        return [
            job.process(
                f'run sh {{ echo {name}-{n} >> calls.log; sleep 0.05 }}\\nshow "{name}-{n}"', idempotent=True
            ).strip()
            for n in range(payload["steps"])
        ]

    def on_receive(self, message):
        if message == "die":
            raise RuntimeError("for the test")
        return super().on_receive(message)

tree = one_for_one(child(Writer, name="writer"), max_restarts=0)
app = FastAPI(lifespan=lifespan(tree, store="s.db", name="web", control=True, log="json", exit_on_give_up=True))
app.include_router(health())
Web = Annotated[Runtime, Depends(current)]

@app.post("/runs/{name}")
async def submit(name: str, steps: int, runtime: Web) -> dict[str, Any]:
    run = await runtime.agent("writer").aio.run({"name": name, "steps": steps}, key=name)
    return {"run": run.id, "pid": os.getpid()}

@app.get("/runs/{run_id}")
def look(run_id: str, runtime: Web) -> dict[str, Any]:
    run = runtime.run(run_id)
    return {"state": run.state, "result": run.result(timeout=0) if run.state == "finished" else None}

@app.post("/die")
async def die(runtime: Web) -> int:
    runtime["writer"].ref.tell("die")
    return os.getpid()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def patiently(server: Uvicorn, method: str, path: str) -> Any:
    """Ask until a worker answers: the one that has the connection may be killed."""

    def ask() -> Any:
        try:
            answer = httpx.request(method, f"{server.url}{path}", timeout=60.0)
        except httpx.TransportError:
            return None
        return answer.json() if answer.is_success else None

    return eventually(ask)


def finished(server: Uvicorn, run: str) -> Any:
    """Wait for the end of a run, and return what is said about it then."""

    def look() -> Any:
        told = patiently(server, "GET", f"/runs/{run}")
        return told if told["state"] == "finished" else None

    return eventually(look)


def test_runs_go_on_in_another_worker_when_one_is_killed_and_none_is_lost_or_doubled(folder: Path) -> None:
    names = [f"run{n}" for n in range(18)]
    steps, kills = 5, 3
    calls, chance = folder / "calls.log", random.Random(7)

    def made() -> list[str]:
        return calls.read_text().split() if calls.exists() else []

    with uvicorn(folder, "--log-config", str(ROOT / "examples" / "log.json"), workers=3) as server:
        ids = {name: patiently(server, "POST", f"/runs/{name}?steps={steps}")["run"] for name in names}
        killed = []
        for kill in range(kills):
            eventually(lambda kill=kill: len(made()) >= (kill + 1) * len(names) * steps // (kills + 2))  # type: ignore[misc]
            victim = chance.choice([one.pid for one in running("web")])
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
            eventually(lambda: len(running("web")) == 3)  # uvicorn has started another
            assert patiently(server, "POST", f"/runs/{names[kill]}?steps={steps}")["run"] == ids[names[kill]]
        for name in names:
            found = eventually(
                lambda name=name: (
                    (told := patiently(server, "GET", f"/runs/{ids[name]}"))["state"] == "finished" and told
                )  # type: ignore[misc]
            )
            assert found["result"] == [f"{name}-{n}" for n in range(steps)]
        assert not {one.pid for one in running("web")} & set(killed)
        lines = server.lines()
    assert {line.get("logger") for line in lines} >= {"uvicorn.error", "uvicorn.access", None}
    assert {line["process"] for line in lines} >= {server.process.pid, *killed}
    counts = Counter(made())
    assert counts.keys() == {f"{name}-{n}" for name in names for n in range(steps)}
    repeated = sum(count - 1 for count in counts.values())
    assert repeated <= kills * 3, counts  # what was in flight when its worker was killed, and nothing that was finished
    with Journal.open(folder / "s.db") as journal:
        records = journal.runs(limit=1000)
        assert [record.state for record in records] == ["finished"] * len(names)
        assert journal.verify() == []
    with sqlite3.connect(folder / "s.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_every_worker_is_seen_by_the_command_line_and_by_one_scrape(folder: Path) -> None:
    with uvicorn(folder, workers=3) as server:
        pids = {one.pid for one in running("web")}
        told = json.loads(command_line(folder, "tree", "--json").out)["processes"]
        assert {one["pid"]: one["verdict"]["word"] for one in told} == dict.fromkeys(pids, "healthy")
        ids = [patiently(server, "POST", f"/runs/run{n}?steps=2")["run"] for n in range(12)]
        for run in ids:
            finished(server, run)
        scrape = server.get("/metrics").text
        assert samples(scrape, "mlld_process_up") == {str(pid): 1.0 for pid in pids}
        done = sum(float(value) for value in requests(scrape).values())
        assert done == 12 * 2
        assert requests(server.get("/metrics").text) == requests(scrape)  # whichever worker is met
        stopped = min(pids)
        os.kill(stopped, signal.SIGSTOP)
        try:
            partly = eventually(lambda: 0.0 in samples(text := scraped(server), "mlld_process_up").values() and text)
            assert isinstance(partly, str)
            assert samples(partly, "mlld_process_up") == {str(pid): float(pid != stopped) for pid in pids}
            assert str(stopped) not in requests(partly)
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_a_scrape_leaves_out_a_service_of_the_same_name_with_runs_of_its_own(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "app.py").write_text(APP)
    with uvicorn(folder) as server, uvicorn(folder / "other"):
        [mine] = samples(server.get("/metrics").text, "mlld_process_up")
        assert mine == str(server.process.pid)


def scraped(server: Uvicorn) -> str:
    """Scrape, past the worker that is stopped and may have got the connection."""
    try:
        return httpx.get(f"{server.url}/metrics", timeout=10.0).text
    except httpx.TransportError:
        return ""


def samples(text: str, name: str) -> dict[str, float]:
    """Return the values of a metric by process."""
    from prometheus_client.parser import text_string_to_metric_families

    families = {family.name: family for family in text_string_to_metric_families(text)}
    if name not in families:
        return {}
    return {sample.labels["process"]: sample.value for sample in families[name].samples}


def requests(text: str) -> dict[str, float]:
    """Return how many requests each process has made, if any."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("mlld_request_seconds_count{"):
            labels, _, value = line.partition("} ")
            process = labels.split('process="')[1].split('"')[0]
            found[process] = found.get(process, 0) + float(value)
    return found


def test_a_worker_whose_tree_has_ended_is_replaced(folder: Path) -> None:
    with uvicorn(folder, workers=2) as server:
        before = {one.pid for one in running("web")}
        dead = server.get("/healthz")
        assert dead.status_code == 200
        lost = patiently(server, "POST", "/die")
        assert lost in before
        eventually(lambda: len(now := {one.pid for one in running("web")}) == 2 and lost not in now)
        run = patiently(server, "POST", "/runs/after?steps=1")["run"]
        finished(server, run)
        assert "supervisor.gave_up" in server.said()


def test_a_single_process_whose_tree_has_ended_ends_as_by_sigterm(folder: Path) -> None:
    with uvicorn(folder) as server:
        assert patiently(server, "POST", "/die") == server.process.pid
        assert server.process.wait(60) == -signal.SIGTERM
        assert "Application shutdown complete" in server.said()


def test_the_server_stops_in_order_and_leaves_no_socket(folder: Path) -> None:
    with uvicorn(folder, workers=2):
        pass
    assert not running("web")
    assert not list((folder / "rt").rglob("*.sock"))
