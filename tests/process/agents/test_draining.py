"""Requests whose owner is told to end: those taken end by themselves, new ones are refused and told why."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Client, Job, Pool, Runtime, child, circuit_breaker, one_for_one
from mlld_sdk.actors.core.errors import AskTimeout
from mlld_sdk.engines.draining import Draining
from mlld_sdk.runs.errors import OwnerGone
from mlld_sdk.supervision.tree import ShutdownReport
from mlld_sdk.transport.errors import EngineClosed
from tests.support.agents import ENGINES, engine_options
from tests.support.eventually import eventually
from tests.support.trees import Later, attempt

WORK = 'run sh {{ echo >> {0}/begun; while [ ! -f {0}/go ]; do sleep 0.02; done }}\nshow "done"'
"""Leaves a line when it begins, and goes on until it may end."""

KINDS: dict[str, Callable[..., Any]] = {
    "exclusive agent": lambda **options: child(Agent, name="it", **options),
    "shared agent": lambda **options: child(Agent, name="it", isolation="shared", **options),
    "pool": lambda **options: child(Pool, name="it", size=1, **options),
    "client": lambda **options: child(Client, name="it", timeout=60, **options),
    "exclusive client": lambda **options: child(
        Client, name="it", timeout=60, isolation="exclusive", max_engines=1, **options
    ),
}

WAYS: dict[str, Callable[[Any, str], str]] = {
    "process": lambda it, script: it.process(script, timeout=60),
    "process_async": lambda it, script: it.process_async(script, timeout=60).result(60),
    "aio": lambda it, script: asyncio.run(it.aio.process(script, timeout=60)),
}


def tree(kind: str, directory: Path, engine: str = "embedded", **options: Any) -> Any:
    return one_for_one(KINDS[kind](working_dir=directory, **engine_options(engine), **options))


def begun(directory: Path, count: int = 1) -> bool:
    log = directory / "begun"
    return log.exists() and len(log.read_text().splitlines()) >= count


def refuses(it: Any, ask: Callable[[Any, str], str] = WAYS["process"]) -> bool:
    """Return whether it drains, and a new request is refused because of that."""
    return it.status().state.startswith("drain") and isinstance(attempt(lambda: ask(it, 'show "new"')), Draining)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stop_lets_requests_end_and_refuses_new_ones(
    engine: str, kind: str, way: str, tmp_path: Path
) -> None:
    with Runtime(tree(kind, tmp_path, engine), drain_timeout=60) as runtime:
        it = runtime["it"]
        works = Later(lambda: WAYS[way](it, WORK.format(tmp_path)))
        eventually(lambda: begun(tmp_path))
        stop = Later(runtime.stop)
        eventually(lambda: refuses(it, WAYS[way]))
        assert works.running
        assert stop.running
        (tmp_path / "go").touch()
        assert works.result() == "done\n"
        report: ShutdownReport = stop.result()
        assert report.clean
        assert report.cut_off == {}


@pytest.mark.parametrize("kind", ["exclusive agent", "pool"])
def test_requests_that_wait_for_an_engine_get_it_while_their_owner_drains(kind: str, tmp_path: Path) -> None:
    with Runtime(tree(kind, tmp_path), drain_timeout=60) as runtime:
        it = runtime["it"]
        handles = [it.process_async(WORK.format(tmp_path), timeout=60) for _ in range(3)]
        waits = Later(lambda: it.process(WORK.format(tmp_path), timeout=60))
        eventually(lambda: begun(tmp_path) and it.status().engines.waiting == 3)
        stop = Later(runtime.stop)
        eventually(lambda: refuses(it))
        (tmp_path / "go").touch()
        assert [handle.result(60) for handle in handles] == ["done\n"] * 3
        assert waits.result() == "done\n"
        assert stop.result().cut_off == {}


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_not_ended_in_time_is_cut_off_and_the_report_says_so(kind: str, tmp_path: Path) -> None:
    with Runtime(tree(kind, tmp_path), drain_timeout=0.1) as runtime:
        it = runtime["it"]
        handles = [it.process_async(WORK.format(tmp_path), timeout=60) for _ in range(2)]
        eventually(lambda: begun(tmp_path))
        report = runtime.stop()
        assert report.cut_off == {"root/it": 2}
        assert {type(handle.exception(60)) for handle in handles} == {EngineClosed if "client" in kind else OwnerGone}
        assert runtime.stop() is report


def test_a_stop_that_does_not_drain_cuts_off_at_once(tmp_path: Path) -> None:
    with Runtime(tree("exclusive agent", tmp_path), drain_timeout=600) as runtime:
        handle = runtime["it"].process_async(WORK.format(tmp_path), timeout=None)
        eventually(lambda: begun(tmp_path))
        assert runtime.stop(drain=False).cut_off == {"root/it": 1}
        assert isinstance(handle.exception(60), OwnerGone)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_drained_takes_requests_again_when_it_is_resumed(kind: str, tmp_path: Path) -> None:
    with Runtime(tree(kind, tmp_path)) as runtime:
        it = runtime["it"]
        works = Later(lambda: it.process(WORK.format(tmp_path), timeout=60))
        eventually(lambda: begun(tmp_path))
        with pytest.raises(AskTimeout, match=r"root/it has not ended what it has within 0\.01 s, and goes on draining"):
            it.drain(0.01)
        assert refuses(it)
        assert it.status().state == "draining"
        assert not it.wait_until_up(0.01)
        assert runtime.verdict().word == "maintenance"
        drain = Later(lambda: asyncio.run(it.aio.drain(60)))
        (tmp_path / "go").touch()
        assert works.result() == "done\n"
        assert drain.result() is None
        assert it.status().state == "drained"
        assert "drained" in runtime.tree()
        runtime.resume("it")
        assert it.wait_until_up(60)
        assert it.process('show "back"') == "back\n"
        assert not asyncio.run(it.aio.resume())


def test_a_circuit_breaker_hears_nothing_of_requests_that_are_refused_so(tmp_path: Path) -> None:
    breaker = circuit_breaker(failures=1)
    with Runtime(tree("pool", tmp_path, breaker=breaker)) as runtime:
        it = runtime["it"]
        it.process('show "up"')
        it.drain()
        assert all(refuses(it) for _ in range(5))
        it.resume()
        assert it.process('show "up"') == "up\n"


class Asking(Agent):
    """Waits until it may go on, and then asks a pool."""

    def run(self, job: Job, payload: str) -> str:
        job.process(payload, idempotent=True)
        runtime = RUNTIMES[-1]
        return job.step("ask", lambda: runtime["it"].process('show "from a run"', timeout=60)).strip()


RUNTIMES: list[Runtime] = []


def test_a_run_that_has_to_end_may_still_ask_others_while_the_runtime_drains(tmp_path: Path) -> None:
    both = one_for_one(KINDS["pool"](engine="embedded"), child(Asking, name="asking", engine="embedded"))
    with Runtime(both, drain_timeout=60, store=tmp_path / "state.db") as runtime:
        RUNTIMES.append(runtime)
        run = runtime["asking"].run(WORK.format(tmp_path))
        eventually(lambda: begun(tmp_path))
        stop = Later(runtime.stop)
        eventually(lambda: refuses(runtime["it"]))
        outcome = Later(lambda: run.result(timeout=60))
        (tmp_path / "go").touch()
        assert outcome.result() == "from a run"
        assert stop.result().clean


def test_an_incarnation_that_comes_while_the_runtime_stops_takes_no_requests(tmp_path: Path) -> None:
    pair = one_for_one(KINDS["pool"](engine="embedded"), child(Agent, name="other", engine="embedded"))
    with Runtime(pair, drain_timeout=60) as runtime:
        it, other = runtime["it"], runtime["other"]
        works = Later(lambda: it.process(WORK.format(tmp_path), timeout=60))
        eventually(lambda: begun(tmp_path))
        stop = Later(runtime.stop)
        eventually(lambda: refuses(other))
        before = other.ref
        before.kill("to be started anew")
        eventually(lambda: other.ref not in (None, before))
        assert refuses(other)
        (tmp_path / "go").touch()
        assert works.result() == "done\n"
        assert stop.result().cut_off == {}


SERVICE = """\
import sys
from pathlib import Path
from mlld_sdk import Agent, Runtime, child, one_for_one
runtime = Runtime(one_for_one(child(Agent, name="it", engine="embedded")), drain_timeout=600)
runtime.start()
handle = runtime["it"].process_async(sys.argv[1], timeout=None)
handle.add_done_callback(lambda handle: print(type(handle.exception()).__name__, flush=True))
sys.exit(runtime.run_forever())
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_a_second_signal_cuts_off_at_once_what_the_first_lets_end(signals: int, tmp_path: Path) -> None:
    script = WORK.format(tmp_path)
    service = subprocess.Popen([sys.executable, "-c", SERVICE, script], stdout=subprocess.PIPE, text=True)
    eventually(lambda: begun(tmp_path))
    os.kill(service.pid, signal.SIGTERM)
    if signals == 1:
        (tmp_path / "go").touch()
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            service.wait(0.5)
        os.kill(service.pid, signal.SIGTERM)
    said, _ = service.communicate(timeout=60)
    assert said.split() == ["NoneType" if signals == 1 else "EngineClosed"]
    assert service.returncode == (0 if signals == 1 else 75)
