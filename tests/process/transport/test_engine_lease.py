"""A thread that comes back for one answer after the other keeps the pipe; nobody else ever waits for it to let go."""

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from mlld_sdk.transport import inline_reader
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import CallCancelled, CallTimeout, EngineDied
from tests.support.engines import do, running
from tests.support.eventually import eventually

FOREVER = 3600.0


def ask(engine: Engine, number: int) -> Call:
    return engine.submit("process", do(("answer", {"n": number})), timeout=60)


def waited_for_often(engine: Engine) -> None:
    """Wait for one answer after the other until this thread has the lease."""
    eventually(lambda: ask(engine, 0).result().payload == {"n": 0} and engine._reader.lent)
    assert not engine._reader.is_watched


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Give an engine whose pipe this thread has, for as long as nobody else is concerned."""
    monkeypatch.setattr(inline_reader, "LEASE", FOREVER)
    with running() as engine:
        waited_for_often(engine)
        yield engine


def test_what_nobody_waits_for_is_late_by_a_lease_at_most(monkeypatch: pytest.MonkeyPatch) -> None:  # T-12
    monkeypatch.setattr(inline_reader, "LEASE", 0.05)
    with running() as engine:
        for _ in range(3):
            waited_for_often(engine)
            calls = [ask(engine, number) for number in range(5)]
            eventually(lambda calls=calls: all(call.done() for call in calls))
            assert [call.result().payload["n"] for call in calls] == [0, 1, 2, 3, 4]


def test_a_window_of_calls_is_answered_on_the_thread_that_waits(engine: Engine) -> None:  # T-8 T-12
    window = deque((number, ask(engine, number)) for number in range(20))
    for later in range(20, 200):
        number, call = window.popleft()
        assert call.result().payload == {"n": number}
        window.append((later, ask(engine, later)))
    assert all(call.result().payload == {"n": number} for number, call in window)
    assert not engine._reader.is_watched  # all the while


def test_who_asks_again_and_again_without_waiting_gets_the_answer(engine: Engine) -> None:  # T-8 T-12
    calls = [ask(engine, number) for number in range(5)]

    def answered() -> bool:
        with contextlib.suppress(TimeoutError):
            return calls[-1].result(0).payload == {"n": 4}
        return False

    eventually(answered)
    assert all(call.done() for call in calls)


def in_a_thread(engine: Engine, calls: list[Call]) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(calls[-1].result, 10).result().payload == {"n": 4}


def with_a_callback(engine: Engine, calls: list[Call]) -> None:
    told = threading.Event()
    calls[-1].add_done_callback(lambda _: told.set())
    assert told.wait(60)


def with_the_standard_library(engine: Engine, calls: list[Call]) -> None:
    assert not concurrent.futures.wait(calls, 10).not_done


def with_asyncio(engine: Engine, calls: list[Call]) -> None:
    async def wait() -> None:
        async with asyncio.timeout(10):
            await asyncio.wrap_future(calls[-1])

    asyncio.run(wait())


def with_a_call_of_its_own(engine: Engine, calls: list[Call]) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: ask(engine, 9).result(60)).result().payload == {"n": 9}


@pytest.mark.parametrize(
    "wait", [in_a_thread, with_a_callback, with_the_standard_library, with_asyncio, with_a_call_of_its_own]
)
def test_a_lease_ends_as_soon_as_anybody_else_waits(
    engine: Engine, wait: Callable[[Engine, list[Call]], None]
) -> None:  # T-12
    calls = [ask(engine, number) for number in range(5)]
    wait(engine, calls)
    eventually(lambda: all(call.done() for call in calls))


def test_a_lease_is_one_threads_alone(engine: Engine) -> None:  # T-12
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(ask, engine, 7).result()
    eventually(call.done)  # although nobody waits for it


def test_a_leased_call_is_withdrawn_expires_and_dies_like_any_other(engine: Engine) -> None:  # T-8 T-15 T-16
    hanging = engine.submit("process", do("hang"), timeout=None)
    unwritten = engine.submit("process", do("hang"), timeout=None)
    assert unwritten.cancel()
    with pytest.raises(CallCancelled):
        unwritten.result(0)
    late = engine.submit("process", do("hang"), timeout=0.05)
    eventually(late.done)
    with pytest.raises(CallTimeout):
        late.result(0)
    os.kill(engine.pid, signal.SIGKILL)
    eventually(hanging.done)
    with pytest.raises(EngineDied):
        hanging.result(0)
