"""Agents whose requests share one engine: many at once, one that misbehaves among them, and the engine's end."""

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, Runtime, child, circuit_breaker, one_for_one
from mlld_sdk.agents.handles import AgentHandle
from mlld_sdk.agents.services import AgentUnavailable
from mlld_sdk.base.errors import MlldError, TaskError
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.engines.pool import EnginePool
from mlld_sdk.runs.errors import OwnerGone
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.testing import leak_check
from mlld_sdk.transport.errors import CallCancelled, CallTimeout, EngineDied, EngineOverloaded
from tests.support.agents import ENGINES, engine_options, with_engines
from tests.support.engines import is_alive
from tests.support.eventually import eventually

LOOP = 'output "on" to "state://on"\nloop(99999, 20ms) until @state.exit [\n  continue\n]\nshow "done"\n'
"""Says that it runs, and goes on until it is told to exit."""


@contextmanager
def running(
    directory: Path, *, engine: str = "embedded", kind: type[Agent] = Agent, budget: int | None = None, **options: Any
) -> Iterator[tuple[Runtime, AgentHandle, list[Event]]]:
    spec = child(kind, name="it", isolation="shared", working_dir=directory, **engine_options(engine), **options)
    other = child(Agent, name="other", working_dir=directory, **engine_options(engine))
    tree = one_for_one(spec, other, max_restarts=1000, within=5)
    runtime = Runtime(tree, max_engines=budget, store=directory / "state.db", durability="normal")
    with runtime.bus.recording() as seen, runtime:
        yield runtime, runtime["it"], seen


def begun(it: AgentHandle, **options: Any) -> Any:
    """Begin what runs until it is told to end, and wait until it does."""
    handle = it.process_async(LOOP, state={"exit": False, "on": ""}, **options)
    event = handle.next_event(timeout=60)
    assert event is not None
    assert event.type == "state_write", event
    return handle


def engine_of(handle: Any) -> Any:
    return handle._on_engine().engine


def at_rest(runtime: Runtime, it: AgentHandle) -> bool:
    status = it.status().engines
    return (status.busy, status.waiting, runtime._budget.waiting) == (0, 0, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_hundred_requests_at_once_use_one_engine(engine: str, tmp_path: Path) -> None:
    async def ask() -> list[str]:
        return await asyncio.gather(*(it.aio.process(f'show "{n}"') for n in range(50)))

    with running(tmp_path, engine=engine) as (runtime, it, seen):
        handles = [it.process_async(f'show "{n}"') for n in range(50)]
        assert asyncio.run(ask()) == [f"{n}\n" for n in range(50)]
        assert [handle.result(60) for handle in handles] == [f"{n}\n" for n in range(50)]
        assert it.process('show "and a thread"') == "and a thread\n"
        eventually(lambda: at_rest(runtime, it))
    assert [name_of(event) for event in seen].count("engine.started") == 1


def test_more_requests_than_it_takes_are_refused_at_once_and_all_others_answered(tmp_path: Path) -> None:
    with running(tmp_path) as (runtime, it, _):
        it.process('show "it is there"')
        handles, refused = [], 0
        for n in range(3000):
            try:
                handles.append((n, it.process_async(f'show "{n}"')))
            except EngineOverloaded:
                refused += 1
        assert refused > 0
        assert all(handle.result(60) == f"{n}\n" for n, handle in handles)
        eventually(lambda: at_rest(runtime, it))


@pytest.mark.parametrize(("how", "engine"), [("late", "embedded"), *with_engines("cancelled")])
def test_one_that_is_taken_back_or_late_disturbs_no_other_and_retires_the_engine(
    how: str, engine: str, tmp_path: Path
) -> None:
    with running(tmp_path, engine=engine) as (runtime, it, _):
        stays = begun(it)
        leaves = begun(it, **({"timeout": 1.5} if how == "late" else {}))
        first = engine_of(stays)
        assert engine_of(leaves) is first
        if how == "cancelled":
            assert leaves.cancel()
        assert isinstance(leaves.exception(60), CallCancelled if how == "cancelled" else CallTimeout)
        fresh = begun(it)  # waits for nobody
        assert engine_of(fresh) is not first
        assert first.pid is not None
        assert is_alive(first.pid)
        stays.update_state("exit", True)
        assert stays.result(60) == "done\n"
        eventually(lambda: not is_alive(first.pid))
        fresh.update_state("exit", True)
        assert fresh.result(60) == "done\n"
        eventually(lambda: at_rest(runtime, it))


def test_requests_that_come_while_the_engine_retires_are_all_answered(tmp_path: Path) -> None:
    with running(tmp_path, engines=2) as (runtime, it, _):
        handles = []
        for n in range(200):
            handles.append(it.process_async(f'show "{n}"'))
            if n % 20 == 7:
                handles[-1].cancel()
        for n, handle in enumerate(handles):
            error = handle.exception(60)
            if n % 20 == 7 and error is not None:
                assert isinstance(error, CallCancelled)
            else:
                assert handle.result() == f"{n}\n"
        eventually(lambda: at_rest(runtime, it))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_script_that_fails_disturbs_no_other(engine: str, tmp_path: Path) -> None:
    with running(tmp_path, engine=engine) as (runtime, it, _):
        stays = begun(it)
        first = engine_of(stays)
        with pytest.raises(TaskError):
            it.process(
                'exe @f() = js { throw new Error("no") }\nshow @f()' if engine != "embedded" else "show @nobody()"
            )
        after = it.process_async('show "fine"')
        assert after.result(60) == "fine\n"
        # What a failed script leaves behind in the live engine nobody knows; the others end it.
        assert (engine_of(after) is first) == (engine != "live")
        stays.update_state("exit", True)
        assert stays.result(60) == "done\n"
        assert it.ref is not None
        eventually(lambda: at_rest(runtime, it))


def test_the_engine_goes_to_whoever_waits_for_it_soon_after_the_last_request(tmp_path: Path) -> None:
    with running(tmp_path, budget=1) as (runtime, it, _):
        handle = begun(it)
        first = engine_of(handle)
        other = runtime["other"].process_async('show "at last"')
        eventually(lambda: runtime._budget.waiting == 1)
        late = it.process_async('show "behind it"')
        handle.update_state("exit", True)
        assert handle.result(60) == "done\n"  # was not in flight when it was taken away
        assert other.result(60) == "at last\n"
        assert late.result(60) == "behind it\n"
        assert not is_alive(first.pid)
        eventually(lambda: at_rest(runtime, it))


def test_runs_have_engines_of_their_own(tmp_path: Path) -> None:
    class Asks(Agent):
        def run(self, job: Job, payload: Any) -> str:
            return job.process('run sh { echo "$PPID"; sleep 0.3; }').strip()

    with running(tmp_path, kind=Asks, concurrency=1) as (runtime, it, _):
        handle = begun(it)
        runs = [it.run({"n": n}) for n in range(2)]
        shared = int(it.process('run sh { echo "$PPID" }'))
        assert shared == engine_of(handle).pid
        assert shared not in {int(run.result(60)) for run in runs}
        handle.update_state("exit", True)
        assert handle.result(60) == "done\n"
        eventually(lambda: at_rest(runtime, it))


def test_an_idle_shared_engine_goes_to_sleep(tmp_path: Path) -> None:
    with running(tmp_path, hibernate_after=0.1) as (runtime, it, _):
        assert it.process('show "fine"') == "fine\n"
        eventually(lambda: runtime._budget.live == 0)
        assert at_rest(runtime, it)
        assert it.process('show "awake"') == "awake\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_death_of_the_engine_ends_all_on_it_once_and_crashes_the_agent_once(
    engine: str, tmp_path: Path
) -> None:
    with leak_check(), running(tmp_path, engine=engine) as (runtime, it, seen):
        before = it.ref
        handles = [begun(it) for _ in range(20)]
        told: list[Any] = []
        for handle in handles:
            handle.add_done_callback(told.append)
        os.kill(engine_of(handles[0]).pid, signal.SIGKILL)
        assert {type(handle.exception(60)) for handle in handles} == {EngineDied}
        eventually(lambda: it.ref not in (None, before))
        assert it.process('show "back"') == "back\n"
        eventually(lambda: at_rest(runtime, it))
        assert sorted(map(id, told)) == sorted(map(id, handles))
        exits = [event for event in seen if name_of(event) == "child.exited"]
        assert len(exits) == 1
        failed = [event for event in seen if name_of(event) == "span.failed"]
        assert len(failed) == 20


def test_an_engine_that_dies_before_it_has_a_request_crashes_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_out = EnginePool.hand_out

    def stillborn(pool: Any, pooled: Any) -> Any:
        os.kill(pooled.engine.pid, signal.SIGKILL)
        eventually(lambda: pooled.engine.exit is not None)
        return handed_out(pool, pooled)

    with running(tmp_path) as (_, it, _):
        first = it.ref
        with monkeypatch.context() as patch:
            patch.setattr(EnginePool, "hand_out", stillborn)
            assert isinstance(it.process_async('show "x"').exception(60), EngineDied)
        eventually(lambda: it.ref not in (None, first))
        assert it.process('show "back"') == "back\n"


def test_the_breaker_counts_one_death_as_one_failure(tmp_path: Path) -> None:
    with running(tmp_path, breaker=circuit_breaker(failures=3, within=60)) as (runtime, it, _):
        guard = runtime.place("root/it").breaker()
        assert guard is not None
        handles = [begun(it) for _ in range(10)]
        before = it.ref
        os.kill(engine_of(handles[0]).pid, signal.SIGKILL)
        for handle in handles:
            assert isinstance(handle.exception(60), EngineDied)
        eventually(lambda: it.ref not in (None, before))
        assert (guard.view().status, guard.view().failures) == ("closed", 1)


def test_requests_from_many_threads_among_deaths_and_cancels_are_each_answered_once(tmp_path: Path) -> None:
    wrong: list[str] = []
    answered = [0] * 16
    begun, enough = time.monotonic(), threading.Event()

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        while not enough.is_set():
            n = chance.randrange(10**9)
            try:
                if chance.random() < 0.3:
                    output = it.process(f'show "{n}"', timeout=60)
                else:
                    handle = it.process_async(f'show "{n}"', timeout=60)
                    told: list[Any] = []
                    handle.add_done_callback(told.append)
                    if chance.random() < 0.05:
                        handle.cancel()
                    try:
                        output = handle.result(60)
                    finally:
                        eventually(lambda told=told: told)
                        if len(told) != 1:
                            wrong.append(f"told {len(told)} times")
                if output != f"{n}\n":
                    wrong.append(f"{n} got {output!r}")
            except (EngineDied, OwnerGone, CallCancelled):
                pass
            except (AgentUnavailable, BreakerOpen):
                time.sleep(0.002)  # nobody is there for a moment, and nothing tells when
            except (MlldError, TimeoutError) as error:
                wrong.append(repr(error))
            answered[seed] += 1

    with leak_check(), running(tmp_path, engines=2) as (runtime, it, _):
        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        chance = random.Random(99)
        killed = 0
        while (time.monotonic() < begun + 3 or killed < 3 or min(answered) < 6) and time.monotonic() < begun + 60:
            time.sleep(0.05)
            requests = runtime._services.requests.get("root/it") if runtime._services is not None else None
            engine = None if requests is None else requests.source.engine
            if engine is not None and chance.random() < 0.4:
                killed += engine.alive
                engine._core.child.signal_group(signal.SIGKILL)
        enough.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []
        assert killed > 2
        assert min(answered) > 5

        def rests() -> bool:
            try:
                return at_rest(runtime, it) and it.status().engines.idle == runtime._budget.live
            except AgentUnavailable:  # the last death is being seen to
                return False

        eventually(rests)
