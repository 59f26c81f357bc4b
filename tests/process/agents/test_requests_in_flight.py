"""Requests through agents and pools that no thread waits for: in the queue, on the engine, and when all ends."""

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

import pytest

from mlld_sdk import Agent, Pool, Runtime, child, circuit_breaker, one_for_one
from mlld_sdk.agents.handles import Named
from mlld_sdk.agents.services import AgentUnavailable
from mlld_sdk.base.errors import ConfigurationError, TaskError
from mlld_sdk.base.events import name_of
from mlld_sdk.base.spans import SpanFailed, SpanStarted, SpanStopped
from mlld_sdk.engines.draining import Draining
from mlld_sdk.engines.pool import NoEngineFree, Recycle
from mlld_sdk.engines.quota import EngineQuotaExhausted
from mlld_sdk.engines.requests import EngineRequests
from mlld_sdk.errors import TruncatedResult
from mlld_sdk.runs.errors import OwnerGone
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.testing import leak_check
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import CallCancelled, CallTimeout, EngineDied, UnserialisableParams
from tests.support.agents import ENGINES, THINK, engine_options, with_engines
from tests.support.eventually import eventually

LOOP = 'loop(99999, 20ms) until @state.exit [\n  continue\n]\nshow "done"\n'
"""Runs until it is told to exit."""

UNTIL_TOLD: dict[str, Any] = {"state": {"exit": False}}

SUICIDE = "run sh { kill -KILL $PPID; }"

OWNERS = [Agent, Pool]


@contextmanager
def running(
    owner: type, directory: Path, *, engine: str = "embedded", budget: int | None = None, **options: Any
) -> Iterator[tuple[Runtime, Named]]:
    """Run one agent or pool called `it`, with one engine unless it says otherwise."""
    more = {"size": 1} if owner is Pool and "size" not in options else {}
    spec = child(owner, name="it", working_dir=directory, **engine_options(engine), **more, **options)
    tree = one_for_one(spec, max_restarts=20, within=5)
    with Runtime(tree, max_engines=budget, store=directory / "state.db", durability="normal") as runtime:
        yield runtime, runtime.pool("it") if owner is Pool else runtime["it"]


def waiting(it: Named) -> int:
    return it.status().engines.waiting


def at_rest(runtime: Runtime, it: Named) -> bool:
    """Whether no engine is leased or waited for, here or in the budget."""
    status = it.status().engines
    budget = runtime._budget
    return (status.busy, status.waiting, budget.waiting) == (0, 0, 0) and budget.live == status.idle


def begun(it: Named, engine: str = "embedded", **options: Any) -> Any:
    """Begin what runs until it is told to end, and wait until it does."""
    handle = it.process_async('output "on" to "state://on"\n' + LOOP, state={"exit": False, "on": ""}, **options)
    event = handle.next_event(timeout=60)
    assert event is not None
    assert event.type == "state_write", event
    return handle


def end_of(handle: Any, within: float = 20) -> BaseException | None:
    return handle.exception(within)


# Order.


@pytest.mark.parametrize("engine", ENGINES)
def test_those_who_ask_first_are_served_first_threads_and_coroutines_alike(engine: str, tmp_path: Path) -> None:  # P-9
    (tmp_path / "order.mld").write_text("exe @note(n) = sh { echo $n >> order.log }\nrun @note(@payload.n)\n")
    with running(Pool, tmp_path, engine=engine) as (_, it):
        first = begun(it)
        threads, handles = [], []

        async def ask(n: int) -> None:
            await it.aio.execute("order.mld", {"n": n})

        async def ask_all() -> None:
            tasks = []
            for n in range(12):
                if n % 3 == 0:
                    tasks.append(asyncio.create_task(ask(n)))
                    await asyncio.sleep(0)
                elif n % 3 == 1:
                    handles.append(it.execute_async("order.mld", {"n": n}))
                else:
                    threads.append(threading.Thread(target=it.execute, args=("order.mld", {"n": n})))
                    threads[-1].start()
                await asyncio.to_thread(eventually, lambda n=n: waiting(it) == n + 1)
            first.update_state("exit", True)
            await asyncio.gather(*tasks)

        asyncio.run(ask_all())
        for thread in threads:
            thread.join(60)
        for handle in handles:
            handle.result(60)
        assert (tmp_path / "order.log").read_text().split() == [str(n) for n in range(12)]


def test_a_pool_of_three_serves_threads_and_handles_side_by_side(tmp_path: Path) -> None:  # P-9
    with running(Pool, tmp_path, size=3) as (runtime, it):
        handles = [it.process_async(f'show "{n}"') for n in range(60)]
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            outputs = list(threads.map(lambda n: it.process(f'show "{n}"'), range(60, 120)))
        assert [handle.result(60) for handle in handles] + outputs == [f"{n}\n" for n in range(120)]
        eventually(lambda: at_rest(runtime, it))
        assert it.status().engines.started == 3


# No thread, no blocking.


def test_a_thousand_requests_that_wait_cost_no_thread(tmp_path: Path) -> None:  # P-9
    with running(Agent, tmp_path) as (runtime, it):
        first = begun(it)
        before = threading.active_count()
        handles = [it.process_async(f'show "{n}"') for n in range(1000)]
        assert waiting(it) == 1000
        assert threading.active_count() <= before + 4  # errands, of which there are few in a process
        for handle in handles[:990]:
            assert handle.cancel()
        for handle in handles[:990]:
            assert isinstance(end_of(handle), CallCancelled)
        first.update_state("exit", True)
        assert [handle.result(60) for handle in handles[990:]] == [f"{n}\n" for n in range(990, 1000)]
        eventually(lambda: at_rest(runtime, it))
        assert it.status().engines.started == 1


def starting_slowly() -> tuple[threading.Event, Any]:
    """Make a twin of `Engine.start` that waits for leave; gives the leave and the twin."""
    may_start, start = threading.Event(), Engine.start

    def slowly(*args: Any, **options: Any) -> Engine:
        assert may_start.wait(60)
        return start(*args, **options)

    return may_start, slowly


@pytest.mark.parametrize("isolation", ["exclusive", "shared"])
def test_an_event_loop_goes_on_while_an_engine_takes_long_to_start(
    isolation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_start, slowly = starting_slowly()

    async def ask() -> list[str]:
        tasks = [asyncio.create_task(it.aio.process(f'show "{n}"')) for n in range(5)]
        for _ in range(10):
            await asyncio.sleep(0)  # would never come back if this loop had to start the engine
        assert not any(task.done() for task in tasks)
        may_start.set()
        return await asyncio.gather(*tasks)

    with running(Agent, tmp_path, isolation=isolation) as (_, it):
        monkeypatch.setattr(Engine, "start", slowly)
        assert asyncio.run(ask()) == [f"{n}\n" for n in range(5)]


def test_an_event_loop_never_waits_for_a_worn_engine_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, close = Engine.submit, Engine.close
    closed: list[threading.Thread] = []

    def answered_at_once(engine: Engine, *args: Any, **options: Any) -> Any:
        call = submit(engine, *args, **options)
        call.exception(60)
        return call

    def noted(engine: Engine, timeout: float = 2.0) -> bool:
        closed.append(threading.current_thread())
        return close(engine, timeout)

    async def ask() -> None:
        await it.aio.process('show "the second use wears it out"')

    with running(Pool, tmp_path, recycle=Recycle(max_leases=2)) as (runtime, it):
        it.process('show "there is an idle one"')
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "submit", answered_at_once)
            patch.setattr(Engine, "close", noted)
            asyncio.run(ask())
            eventually(lambda: closed)
        eventually(lambda: at_rest(runtime, it))
    assert threading.main_thread() not in closed


# Deadlines and cancels.


@pytest.mark.parametrize("owner", OWNERS)
def test_a_deadline_covers_the_waiting_and_the_running(owner: type, tmp_path: Path) -> None:
    with running(owner, tmp_path) as (runtime, it):
        first = begun(it)
        in_queue = it.process_async('show "late"', timeout=0.05)
        assert isinstance(end_of(in_queue), NoEngineFree)
        with pytest.raises(NoEngineFree):
            it.process('show "late"', timeout=0.05)
        assert waiting(it) == 0
        both = it.process_async(LOOP, **UNTIL_TOLD, timeout=2)
        first.update_state("exit", True)
        assert first.result(60) == "done\n"
        assert isinstance(end_of(both), CallTimeout)
        assert it.process('show "fine"') == "fine\n"
        eventually(lambda: at_rest(runtime, it))


def test_a_deadline_covers_waiting_for_the_budget(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    specs = [child(Agent, name=name, engine="embedded", working_dir=tmp_path) for name in ("busy", "other")]
    with Runtime(one_for_one(*specs), max_engines=1) as runtime:
        first = begun(runtime["busy"])
        with pytest.raises(EngineQuotaExhausted):
            runtime["other"].process_async('show "late"', timeout=0.1).result(60)
        waits = runtime["other"].process_async('show "in time"', timeout=60)
        eventually(lambda: runtime._budget.waiting == 1)
        first.update_state("exit", True)
        assert waits.result(60) == "in time\n"  # the idle engine of the first went to sleep for it
        assert runtime._budget.live == 1


@pytest.mark.parametrize(("owner", "engine"), [(Pool, "embedded"), *with_engines(Agent)])
def test_a_request_is_cancelled_in_every_state(owner: type, engine: str, tmp_path: Path) -> None:
    with running(owner, tmp_path, engine=engine) as (runtime, it):
        at_start = it.process_async(LOOP, **UNTIL_TOLD)
        assert at_start.cancel()
        assert isinstance(end_of(at_start), CallCancelled)
        assert not at_start.cancel()
        first = begun(it)
        queued = it.process_async('show "never"')
        assert queued.request_id is None
        assert queued.running()
        assert queued.cancel()
        assert isinstance(end_of(queued), CallCancelled)
        assert (queued.cancelled(), queued.cancel()) == (True, False)
        assert first.request_id is not None
        assert first.cancel()
        assert isinstance(end_of(first), CallCancelled)
        over = it.process_async('show "fine"')
        assert over.result(60) == "fine\n"
        assert not over.cancel()
        eventually(lambda: at_rest(runtime, it))


def test_cancels_at_every_moment_leave_no_engine_and_no_place(tmp_path: Path) -> None:  # P-9
    with running(Pool, tmp_path, size=2, budget=2) as (runtime, it):
        handles = []
        for n in range(300):
            handles.append(it.process_async(f'show "{n}"'))
            if n % 2:
                handles[n - n % 7 if n > 7 else n].cancel()
        for n, handle in enumerate(handles):
            error = end_of(handle)
            assert error is None or isinstance(error, CallCancelled)
            if error is None:
                assert handle.result() == f"{n}\n"
        eventually(lambda: at_rest(runtime, it))


@pytest.mark.parametrize("caches", [False, True], ids=["plain", "with files to look at first"])
def test_a_task_that_is_cancelled_cancels_its_request(caches: bool, tmp_path: Path) -> None:
    (tmp_path / "loop.mld").write_text(LOOP)

    async def ask() -> None:
        async def one() -> None:
            await it.aio.execute("loop.mld", **UNTIL_TOLD)

        tasks = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)  # begun by now, or a thread is about to
        if not caches:
            await asyncio.to_thread(eventually, lambda: it.status().engines.busy == 1)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        await asyncio.to_thread(eventually, lambda: at_rest(runtime, it))

    with running(Agent, tmp_path, checkpoint=caches) as (runtime, it):
        asyncio.run(ask())
        assert it.process('show "fine"') == "fine\n"


# What is asked.


@pytest.mark.parametrize("isolation", ["exclusive", "shared"])
def test_a_request_asks_what_was_given_when_it_was_begun(
    isolation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_start, slowly = starting_slowly()

    payload = {"n": 0, "text": "\ud800 and null", "nothing": None}
    with running(Agent, tmp_path, isolation=isolation) as (_, it), monkeypatch.context() as patch:
        patch.setattr(Engine, "start", slowly)
        handles = []
        for n in range(5):
            payload["n"] = n
            handles.append(it.process_async("show @payload.n", payload=payload))
        for wrong in (object(), float("nan")):  # said at once, not when there is an engine
            with pytest.raises(UnserialisableParams):
                it.process_async('show "x"', payload={"n": wrong})
        may_start.set()
        assert [handle.result(60) for handle in handles] == [f"{n}\n" for n in range(5)]


@pytest.mark.parametrize("owner", OWNERS)
def test_what_cannot_be_sent_costs_no_engine(owner: type, tmp_path: Path) -> None:
    with running(owner, tmp_path) as (_, it):
        it.process('show "one is idle"')
        for ask in (it.process, it.process_async):
            for _ in range(3):
                with pytest.raises(UnserialisableParams):
                    ask('show "x"', payload={"n": object()})
                assert it.process('show "fine"') == "fine\n"
        assert it.status().engines.started == 1


# The owner ends.


@contextmanager
def one_runs_and_three_wait(it: Named) -> Iterator[list[Any]]:
    handles = [begun(it), *(it.process_async('show "never"') for _ in range(3))]
    eventually(lambda: waiting(it) == 3)
    yield handles


ENDS = {
    "killed": lambda runtime: runtime["it"].ref.kill("on purpose"),
    "paused": lambda runtime: runtime.pause("it", "on purpose"),
    "restarted": lambda runtime: runtime.restart("it", "on purpose"),
    "its supervisor killed": lambda runtime: runtime.place("root").ref().kill("on purpose"),
    "runtime stopped": lambda runtime: runtime.stop(drain=False),
}


@pytest.mark.parametrize("isolation", ["exclusive", "shared"])
@pytest.mark.parametrize("how", ENDS)
def test_the_end_of_an_agent_ends_its_requests_by_name_and_leaves_nothing(
    how: str, isolation: str, tmp_path: Path
) -> None:
    with leak_check(), running(Agent, tmp_path, isolation=isolation) as (runtime, it):
        if isolation == "exclusive":
            handles = [begun(it), *(it.process_async('show "never"') for _ in range(3))]
            eventually(lambda: waiting(it) == 3)
        else:
            handles = [begun(it) for _ in range(4)]
        ENDS[how](runtime)
        for handle in handles:
            assert isinstance(end_of(handle), OwnerGone), handle
        assert {handle.exception().code for handle in handles} == {"AGENT_GONE"}


@pytest.mark.parametrize("owner", OWNERS)
def test_who_comes_as_it_ends_is_told_the_same(
    owner: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(owner, tmp_path) as (runtime, it):
        said = EngineRequests._said

        def ends_just_then(requests: EngineRequests, *what: Any) -> Any:
            runtime.pause("it", "on purpose")
            eventually(lambda: it.ref is None)
            return said(requests, *what)

        for ask in (it.process_async, it.process):
            monkeypatch.setattr(EngineRequests, "_said", ends_just_then)
            with pytest.raises(OwnerGone):
                ask('show "too late"')
            monkeypatch.setattr(EngineRequests, "_said", said)
            runtime.resume("it")


def test_the_end_of_a_pool_ends_its_requests(tmp_path: Path) -> None:  # P-7
    with running(Pool, tmp_path) as (runtime, it), one_runs_and_three_wait(it) as handles:
        runtime.pause("it", "on purpose")
        for handle in handles:
            assert isinstance(end_of(handle), OwnerGone)
        with pytest.raises(AgentUnavailable):
            it.process_async('show "too late"')
        runtime.resume("it")
        assert it.process_async('show "back"').result(60) == "back\n"


def test_a_pool_that_drains_finishes_what_runs_and_what_waits_and_refuses_what_comes(tmp_path: Path) -> None:  # P-8
    with running(Pool, tmp_path) as (_, it), one_runs_and_three_wait(it) as handles:
        drained = threading.Thread(target=it.drain, args=(60,))
        drained.start()
        eventually(lambda: it.status().state == "draining")
        with pytest.raises(Draining):
            it.process_async('show "too late"')
        handles[0].update_state("exit", True)
        assert [handle.result(60) for handle in handles] == ["done\n", *["never\n"] * 3]
        drained.join(60)
        assert not drained.is_alive()


def test_new_options_leave_what_is_under_way_alone(tmp_path: Path) -> None:
    with running(Agent, tmp_path) as (runtime, it), one_runs_and_three_wait(it) as handles:
        it.configure(timeout=0.1)
        late = it.process_async('show "late"')
        assert isinstance(end_of(late), NoEngineFree)
        handles[0].update_state("exit", True)
        assert [handle.result(60) for handle in handles] == ["done\n", *["never\n"] * 3]
        eventually(lambda: at_rest(runtime, it))


# The engine ends.


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_is_killed_ends_the_request_on_it_and_its_agent_with_those_that_wait(
    engine: str, tmp_path: Path
) -> None:
    with running(Agent, tmp_path, engine=engine) as (runtime, it), one_runs_and_three_wait(it) as handles:
        first = it.ref
        os.kill(handles[0]._on_engine().engine.pid, signal.SIGKILL)
        assert isinstance(end_of(handles[0]), EngineDied)
        for handle in handles[1:]:
            assert isinstance(end_of(handle), OwnerGone)
        eventually(lambda: it.ref not in (None, first))
        assert it.process_async('show "back"').result(60) == "back\n"
        eventually(lambda: at_rest(runtime, it))


def test_an_engine_of_a_pool_that_is_killed_costs_its_own_request_only(tmp_path: Path) -> None:  # P-2
    with running(Pool, tmp_path, size=2) as (runtime, it):
        before = it.ref
        handles = [it.process_async(SUICIDE if n % 10 == 3 else f'show "{n}"') for n in range(40)]
        for n, handle in enumerate(handles):
            if n % 10 == 3:
                assert isinstance(end_of(handle), EngineDied)
            else:
                assert handle.result(60) == f"{n}\n"
        assert it.ref is before
        eventually(lambda: at_rest(runtime, it))


# Circuit breakers.


def guard_of(runtime: Runtime) -> Any:
    guard = runtime.place("root/it").breaker()
    assert guard is not None
    return guard


def test_an_open_breaker_refuses_at_once(tmp_path: Path) -> None:
    with running(Pool, tmp_path, breaker=circuit_breaker(open_for=60)) as (runtime, it):
        guard_of(runtime).trip("on purpose")
        for ask in (it.process_async, it.execute_async):
            with pytest.raises(BreakerOpen):
                ask("show 1")

        async def ask() -> None:
            with pytest.raises(BreakerOpen):
                await it.aio.process("show 1")

        asyncio.run(ask())


@pytest.mark.parametrize("in_queue", [False, True])
def test_failures_successes_and_what_was_taken_back_are_counted_once(in_queue: bool, tmp_path: Path) -> None:
    with running(Pool, tmp_path, breaker=circuit_breaker(failures=3, within=60)) as (runtime, it):
        guard = guard_of(runtime)

        def end(script: str, **options: Any) -> BaseException | None:
            first = begun(it) if in_queue else None
            handle = it.process_async(script, **options)
            if first is not None:
                first.update_state("exit", True)
            return end_of(handle)

        def failures() -> int:
            return guard.view().failures

        assert isinstance(end(SUICIDE), EngineDied)
        eventually(lambda: failures() == 1)
        assert isinstance(end(SUICIDE), EngineDied)
        eventually(lambda: failures() == (1 if in_queue else 2))  # what was held before it went well
        for handle in (it.process_async(LOOP, **UNTIL_TOLD) for _ in range(4)):
            handle.cancel()
            assert isinstance(end_of(handle), CallCancelled)
        for ask in (it.process_async, it.process):
            for wrong in ({"payload": object()}, {"mode": 5}):
                with pytest.raises(ConfigurationError):
                    ask('show "x"', **wrong)
        assert failures() == (1 if in_queue else 2)
        assert isinstance(end("show @nobody_defined_this"), TaskError)
        eventually(lambda: failures() == 0)
        assert end('show "fine"') is None


def test_a_probe_that_cannot_begin_or_is_cancelled_lets_the_next_through(tmp_path: Path) -> None:
    with running(Pool, tmp_path, breaker=circuit_breaker(failures=1, open_for=0.05, probe_timeout=600)) as (
        runtime,
        it,
    ):
        guard = guard_of(runtime)
        assert isinstance(end_of(it.process_async(SUICIDE)), EngineDied)
        eventually(lambda: guard.view().status != "closed")
        eventually(lambda: guard.view().status == "half_open")
        with pytest.raises(ConfigurationError):
            it.process_async('show "x"', payload=object())
        probe = begun(it)
        with pytest.raises(BreakerOpen):
            it.process_async('show "too early"')
        probe.cancel()
        assert isinstance(end_of(probe), CallCancelled)
        assert eventually(lambda: _attempt(it)) == "fine\n"
        eventually(lambda: guard.view().status == "closed")


def _attempt(it: Named) -> str | None:
    try:
        return it.process_async('show "fine"').result(60)
    except BreakerOpen:
        return None


def test_an_agents_engine_that_fails_is_counted_once_by_its_crash(tmp_path: Path) -> None:
    with running(Agent, tmp_path, breaker=circuit_breaker(failures=5, within=60)) as (runtime, it):
        guard = guard_of(runtime)
        first = it.ref
        handles = [it.process_async(SUICIDE), *(it.process_async('show "never"') for _ in range(20))]
        assert isinstance(end_of(handles[0]), EngineDied)
        assert {type(end_of(handle)) for handle in handles[1:]} == {OwnerGone}
        eventually(lambda: it.ref not in (None, first))
        assert (guard.view().status, guard.view().failures) == ("closed", 1)


# Watching and steering.


@pytest.mark.parametrize(("in_queue", "engine"), [(False, "embedded"), *with_engines(True)])
def test_handles_of_agents_tell_and_steer_like_those_of_clients(
    engine: str, in_queue: bool, tmp_path: Path
) -> None:
    (tmp_path / "loop.mld").write_text('output "on" to "state://on"\n' + LOOP)
    with running(Agent, tmp_path, engine=engine) as (_, it):
        first = begun(it) if in_queue else None
        handle = it.execute_async("loop.mld", state={"exit": False, "on": ""})
        events = handle.events()
        told: list[Any] = []
        reader = threading.Thread(target=lambda: told.extend(events))
        reader.start()
        assert handle.partial_result().output == ""
        if first is not None:
            first.update_state("exit", True)
        event = handle.next_event(timeout=60)
        assert event is not None
        assert event.type == "state_write"
        assert event.state_write.value == "on"
        assert [write.value for write in handle.partial_result().state_writes] == ["on"]
        handle.write_file("out.txt", "hello\n")
        assert (tmp_path / "out.txt").read_text() == "hello\n"
        handle.update_state("exit", True)
        result = handle.full_result(60)
        assert result.output == "done\n"
        assert [write.value for write in result.state_writes if write.path == "on"] == ["on"]
        completed = handle.next_event(timeout=60)
        assert completed is not None
        assert completed.type == "complete"
        reader.join(60)
        assert {type(event).__name__ for event in told} >= {"StateWritten", "ScriptCompleted"}
        with pytest.raises(Exception, match="active"):
            handle.update_state("exit", True)


def test_a_queued_request_that_fails_ends_its_events_too(tmp_path: Path) -> None:
    with running(Pool, tmp_path) as (_, it):
        first = begun(it)
        queued = it.process_async('show "never"')
        with pytest.raises(TimeoutError):
            queued.result(0)
        assert queued.next_event(timeout=0.01) is None
        queued.cancel()
        with pytest.raises(CallCancelled):
            queued.next_event(timeout=60)
        assert [type(event).__name__ for event in queued.events()] == ["ScriptStarted", "ScriptCancelled"]
        first.cancel()
        end_of(first)


@pytest.mark.parametrize("isolation", ["exclusive", "shared"])
def test_cached_calls_are_told_of_requests_without_a_thread_too(isolation: str, tmp_path: Path) -> None:
    (tmp_path / "think.mld").write_text(THINK)
    with (
        running(Agent, tmp_path, checkpoint=True, isolation=isolation) as (runtime, it),
        runtime.bus.recording() as seen,
    ):
        for _ in range(2):
            assert it.execute_async("think.mld", {"n": 1}).result(60).output == "thought 1\n"
        assert (tmp_path / "calls.log").read_text().count("\n") == 1
        kinds = [name_of(event) for event in seen if name_of(event).startswith("checkpoint.")]
        assert kinds == ["checkpoint.missed", "checkpoint.hit"]


# Spans.


def spans(seen: list[Any]) -> dict[str, list[Any]]:
    """Sort what was told of spans by span."""
    found: dict[str, list[Any]] = {}
    for event in list(seen):
        if isinstance(event, SpanStarted | SpanStopped | SpanFailed):
            found.setdefault(event.span, []).append(event)
    return found


@pytest.mark.parametrize("isolation", ["exclusive", "shared"])
def test_each_request_is_told_once_when_it_begins_and_once_when_it_ends(
    isolation: str, tmp_path: Path
) -> None:  # TEL-4
    with running(Agent, tmp_path, isolation=isolation) as (runtime, it), runtime.bus.recording() as seen:
        handles = [it.process_async(f'show "{n}"') for n in range(20)]
        handles += [it.process_async("show @nobody_defined_this") for _ in range(5)]
        cancelled = [it.process_async(LOOP, **UNTIL_TOLD) for _ in range(5)]
        for handle in handles:
            handle.exception(60)
        for handle in cancelled:
            handle.cancel()
            handle.exception(60)
        for n in range(5):
            it.process(f'show "{n}"')
        eventually(lambda: all(len(told) == 2 for told in spans(seen).values()))
        ends = [told[1] for told in spans(seen).values()]
    assert [type(told[0]) for told in spans(seen).values()] == [SpanStarted] * 35
    assert sum(isinstance(end, SpanStopped) for end in ends) == 25
    codes = sorted(end.code for end in ends if isinstance(end, SpanFailed))
    assert len(codes) == 10
    assert codes.count("ABORTED") == 5


def test_where_nobody_listens_only_failures_are_told(tmp_path: Path) -> None:  # TEL-4
    seen: list[Any] = []
    with running(Pool, tmp_path) as (runtime, it):
        runtime.bus.attach("failures", seen.append, events=[SpanFailed])
        assert not runtime.bus.listened
        assert it.process_async('show "fine"').result(60) == "fine\n"
        assert it.process('show "fine"') == "fine\n"
        first = begun(it)
        queued = it.process_async("show @nobody_defined_this")
        first.update_state("exit", True)
        assert isinstance(end_of(queued), TaskError)
        with pytest.raises(TaskError):
            it.process("show @nobody_defined_this")
        eventually(lambda: len(seen) == 2)
        history = [told.name for told in runtime.history.events()]
    assert {type(event) for event in seen} == {SpanFailed}
    assert not {"span.started", "span.stopped"} & set(history)
    assert history.count("span.failed") == 2


def test_listeners_may_come_and_go_while_requests_are_in_flight(tmp_path: Path) -> None:  # TEL-4
    with running(Agent, tmp_path, isolation="shared") as (runtime, it):
        unheard = begun(it)
        with runtime.bus.recording("first") as first:
            heard = begun(it)
        with runtime.bus.recording("second") as second:
            for handle in (unheard, heard):
                handle.update_state("exit", True)
                assert handle.result(60) == "done\n"
            told = eventually(lambda: spans(second))
        assert [[type(event) for event in each] for each in spans(first).values()] == [[SpanStarted]]
        # The end of what was begun when somebody listened, and nothing of what nobody was told of.
        assert [[type(event) for event in each] for each in told.values()] == [[SpanStopped]]
        assert list(told) == list(spans(first))
        stop = threading.Event()

        def come_and_go() -> None:
            while not stop.is_set():
                with runtime.bus.recording("restless"):
                    stop.wait(0.001)

        restless = threading.Thread(target=come_and_go)
        restless.start()
        try:
            handles = [it.process_async(f'show "{n}"') for n in range(300)]
            assert [handle.result(60) for handle in handles] == [f"{n}\n" for n in range(300)]
        finally:
            stop.set()
            restless.join(60)


# Strict mode.


@pytest.mark.parametrize(("in_queue", "engine"), [(False, "embedded"), *with_engines(True)])
def test_strict_requests_are_refused_a_cut_result_here_too(in_queue: bool, engine: str, tmp_path: Path) -> None:
    (tmp_path / "long.mld").write_text("show @payload.t")
    with running(Pool, tmp_path, engine=engine) as (_, it):
        first = begun(it) if in_queue else None
        handles = [it.execute_async("long.mld", {"t": "x" * 9000}, strict=strict) for strict in (False, True)]
        if first is not None:
            first.update_state("exit", True)
        assert handles[0].result(60).truncated == (engine == "live")
        assert isinstance(end_of(handles[1]), TruncatedResult if engine == "live" else NoneType)


# The process ends or forks.

HOST = """
import os, sys, threading, time
from mlld_sdk import Agent, Pool, Runtime, child, one_for_one
tree = one_for_one(
    child(Pool, name="pool", engine="embedded", size=1),
    child(Agent, name="agent", engine="embedded", isolation="shared"),
)
runtime = Runtime(tree)
runtime.start()
pool, agent = runtime.pool("pool"), runtime["agent"]
LOOP = 'output "on" to "state://on"\\nloop(99999, 20ms) until @state.exit [\\n  continue\\n]\\nshow "done"\\n'
STATE = {"exit": False, "on": ""}
handles = [pool.process_async(LOOP, state=STATE), agent.process_async(LOOP, state=STATE)]
for handle in handles:
    assert handle.next_event(timeout=60).type == "state_write"
handles += [pool.process_async('show "1"') for _ in range(50)]
handles += [agent.process_async(LOOP, state=STATE) for _ in range(50)]
"""


def host(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HOST + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "runtime.stop(drain=False)", "runtime.stop()", "os._exit(0)"])
def test_an_interpreter_ends_whatever_is_queued_or_in_flight(end: str) -> None:
    host(end)


def test_a_forked_child_is_told_at_once_and_the_parent_not_disturbed() -> None:
    said = host(
        """
        child = os.fork()
        if child == 0:
            ends = {type(handle.exception(60)).__name__ for handle in handles}
            print(sorted(ends), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert not any(handle.done() for handle in handles)
        handles[0].update_state("exit", True)
        assert [handle.result(60) for handle in handles[2:52]] == ["1\\n"] * 50
        print("served", flush=True)
        runtime.stop(drain=False)
        """
    )
    assert said.splitlines() == ["['ForkedProcess']", "served"]
