"""Pools: exclusive engines in order, failures that cost their own request only, and limits that hold under load."""

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import ExecuteResult, InfrastructureError, Pool, PoolHandle, Runtime, child, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.base.errors import ConfigurationError, TaskError
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.errors import NoEngineFree, PoolTakesNoRuns
from tests.support.agents import ENGINES, calls, engine_options, engine_pid, running
from tests.support.eventually import eventually


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    """Run a pool; gives its handle, its runtime and every event."""
    opened = []

    def start(engine: str = "embedded", **options: Any) -> tuple[PoolHandle, Runtime, list[Event]]:
        given = {**engine_options(engine), "working_dir": tmp_path, **options}
        context = running(one_for_one(child(Pool, name="pool", **given), max_restarts=20, within=5), tmp_path)
        runtime, seen = context.__enter__()
        opened.append(context)
        return runtime.pool("pool"), runtime, seen

    yield start
    for context in opened:
        context.__exit__(None, None, None)


def test_a_pool_says_that_it_takes_no_runs(make: Any) -> None:
    pool, _, _ = make()
    with pytest.raises(PoolTakesNoRuns, match=r"pools take requests, agents take runs.*process, execute") as caught:
        pool.run({"topic": "safety"}, key="7")
    assert isinstance(caught.value, ConfigurationError)
    with pytest.raises(PoolTakesNoRuns):
        asyncio.run(pool.aio.run("x"))


@pytest.mark.parametrize("engine", ENGINES)
def test_many_callers_share_few_engines(make: Any, engine: str, tmp_path: Path) -> None:  # P-1
    pool, _, seen = make(engine, size=2)
    with ThreadPoolExecutor(8) as threads:
        outputs = list(threads.map(lambda n: pool.execute("think.mld", {"n": str(n)}).output, range(20)))
    assert outputs == [f"thought {n}\n" for n in range(20)]
    assert [name_of(event) for event in seen].count("engine.started") <= 2
    assert len(calls(tmp_path)) == 20


def test_a_crashed_worker_costs_its_own_request_only(make: Any, tmp_path: Path) -> None:  # P-2
    pool, _, seen = make(size=3, environ={"PAUSE": "0.2"})

    def ask(n: int) -> str:
        try:
            return pool.execute("think.mld", {"n": str(n)}).output.strip()
        except InfrastructureError:
            return "lost"

    with ThreadPoolExecutor(3) as threads:
        outputs = threads.map(ask, range(12))
        eventually(lambda: len(calls(tmp_path)) >= 4)
        os.kill(engine_pid(tmp_path), signal.SIGKILL)
        results = list(outputs)
    assert results.count("lost") == 1
    assert "child.exited" not in [name_of(event) for event in seen]


def test_a_pool_whose_engines_all_fail_crashes_and_comes_back(make: Any) -> None:  # P-2
    pool, _, seen = make(size=1, command_args=["--misbehave", "die-at-request=1"])
    for _ in range(5):
        with pytest.raises(InfrastructureError):
            pool.process('show "x"')
    eventually(lambda: [name_of(event) for event in seen].count("child.started") == 2)


def test_a_failing_script_is_answered_and_its_engine_is_used_again(make: Any) -> None:
    pool, _, seen = make(size=1)
    with pytest.raises(TaskError):
        pool.process("show @nobody_defined_this")
    assert pool.process('show "fine"') == "fine\n"
    assert [name_of(event) for event in seen].count("engine.started") == 1


def test_overflow_engines_come_and_go(make: Any) -> None:  # P-4
    pool, _, _ = make(size=1, overflow=2)
    held = [pool.checkout() for _ in range(3)]
    assert pool.status().engines.busy == 3
    with pytest.raises(NoEngineFree):
        pool.checkout(timeout=0.05)
    for checkout in held:
        checkout.checkin()
    eventually(lambda: pool.status().engines.idle == 1)


def test_a_checkout_holds_one_engine_for_several_requests(make: Any) -> None:  # P-3
    pool, _, _ = make(size=1)
    with pool.checkout() as engine:
        assert engine.process('show "one"') == "one\n"
        assert engine.process('show "two"') == "two\n"
        with pytest.raises(NoEngineFree):
            pool.process('show "three"', timeout=0.05)
    assert pool.process('show "three"') == "three\n"


def test_the_death_of_an_owner_gives_its_engine_back_as_broken(make: Any) -> None:  # P-3
    pool, runtime, _ = make(size=1)

    class Owner(Actor):
        def on_receive(self, message: Any) -> Any:
            pool.checkout()
            return True

    owner = runtime.system.start(Owner)
    assert owner.ask("take it", timeout=60)
    with pytest.raises(NoEngineFree):
        pool.checkout(timeout=0.05)
    owner.kill("on purpose")
    with pool.checkout(timeout=60):
        assert pool.status().engines.started == 2


def test_map_keeps_the_order_and_draws_no_more_than_it_can_work_on(make: Any) -> None:  # P-5
    pool, _, _ = make(size=3)
    drawn: list[int] = []

    def payloads() -> Iterator[dict[str, str]]:
        for n in itertools.count():
            drawn.append(n)
            yield {"n": str(n)}

    results = pool.map("think.mld", payloads())
    first = [next(results) for _ in range(4)]
    assert [result.output for result in first if isinstance(result, ExecuteResult)] == [
        f"thought {n}\n" for n in range(4)
    ]
    assert len(drawn) <= 4 + 3
    results.close()


def test_map_yields_a_failure_in_its_place(make: Any, tmp_path: Path) -> None:  # P-5
    (tmp_path / "picky.mld").write_text("show @payload.name\n")
    pool, _, _ = make(size=2)
    results = list(pool.map("picky.mld", [{"name": "a"}, "no dict", {"name": "c"}]))
    assert [result.output for result in (results[0], results[2])] == ["a\n", "c\n"]
    assert isinstance(results[1], Exception)


def test_a_pool_changes_its_size_while_it_works(make: Any) -> None:  # P-6
    pool, _, _ = make(size=1)
    first = pool.checkout()
    waiting: list[Any] = []
    thread = threading.Thread(target=lambda: waiting.append(pool.checkout(timeout=60)))
    thread.start()
    eventually(lambda: pool.status().engines.waiting == 1)
    pool.resize(2)
    thread.join(60)
    assert pool.status().engines.busy == 2
    waiting[0].checkin()
    first.checkin()
    pool.resize(1)
    eventually(lambda: pool.status().engines.idle == 1)
