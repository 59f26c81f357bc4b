"""What may be given to `job.step`: functions of every kind in an async run, plain ones in the others."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, AsyncJob, Job, child, one_for_one
from mlld_sdk.runs.errors import RunFailed
from tests.support.agents import running


async def twice(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


def plain(n: int) -> int:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    return 2 * n


def awaitable(n: int) -> Awaitable[int]:
    class Later:
        def __await__(self) -> Any:
            return twice(n).__await__()

    return Later()


class Caller:
    async def __call__(self, n: int) -> int:
        return await twice(n)

    async def method(self, n: int) -> int:
        return await twice(n)

    def plain(self, n: int) -> int:
        return plain(n)


ASYNC: dict[str, Callable[..., Any]] = {
    "coroutine function": twice,
    "partial of one": functools.partial(twice, 21),
    "partial of a partial": functools.partial(functools.partial(twice), 21),
    "callable object": Caller(),
    "partial of a callable object": functools.partial(Caller(), 21),
    "method": Caller().method,
}
HIDDEN: dict[str, Callable[..., Any]] = {
    "lambda that returns a coroutine": lambda n: twice(n),
    "function that returns an awaitable": awaitable,
}
PLAIN: dict[str, Callable[..., Any]] = {
    "function": plain,
    "partial of it": functools.partial(plain, 21),
    "method": Caller().plain,
    "built-in": int,
}


@pytest.mark.parametrize("kind", [*ASYNC, *HIDDEN])
def test_an_async_run_awaits_whatever_is_to_be_awaited(kind: str, tmp_path: Path) -> None:
    function = {**ASYNC, **HIDDEN}[kind]

    class Doubles(Agent):
        async def run(self, job: AsyncJob, payload: Any) -> Any:
            given = () if isinstance(function, functools.partial) and function.args else (21,)
            return await job.step("double", function, *given)

    with running(one_for_one(child(Doubles, name="it", engine="embedded")), tmp_path) as (runtime, _):
        assert runtime["it"].run().result(30) == 42
        assert runtime["it"].run().result(30) == 42


@pytest.mark.parametrize("kind", PLAIN)
def test_an_async_run_calls_a_plain_function_beside_its_loop(kind: str, tmp_path: Path) -> None:
    function = PLAIN[kind]

    class Doubles(Agent):
        async def run(self, job: AsyncJob, payload: Any) -> Any:
            given = () if isinstance(function, functools.partial) else (21,)
            return await job.step("double", function, *given)

    with running(one_for_one(child(Doubles, name="it", engine="embedded")), tmp_path) as (runtime, _):
        assert runtime["it"].run().result(30) == (21 if kind == "built-in" else 42)


def test_a_plain_function_that_blocks_does_not_hold_the_loop_up(tmp_path: Path) -> None:
    goes_on = threading.Event()

    class Waits(Agent):
        async def run(self, job: AsyncJob, payload: Any) -> Any:
            waits = asyncio.ensure_future(job.step("wait", goes_on.wait, 30))
            await asyncio.sleep(0)
            goes_on.set()
            return await waits

    with running(one_for_one(child(Waits, name="it", engine="embedded")), tmp_path) as (runtime, _):
        assert runtime["it"].run().result(60) is True


def test_a_plain_function_acts_once_and_answers_from_the_journal_after_a_crash(tmp_path: Path) -> None:
    calls = []

    class Once(Agent):
        async def run(self, job: AsyncJob, payload: Any) -> Any:
            value = await job.step("act", lambda: calls.append("acted") or len(calls))
            await job.process("run sh { [ -e fine ] || { touch fine; kill -9 $PPID; }; }", idempotent=True)
            return value

    tree = one_for_one(child(Once, name="it", engine="embedded", working_dir=tmp_path), max_restarts=5)
    with running(tree, tmp_path) as (runtime, _):
        assert runtime["it"].run().result(60) == 1
    assert calls == ["acted"]


@pytest.mark.parametrize("kind", ASYNC)
def test_a_run_that_is_not_async_refuses_a_coroutine_function_before_anything_is_called(
    kind: str, tmp_path: Path
) -> None:
    function = ASYNC[kind]

    class Doubles(Agent):
        def run(self, job: Job, payload: Any) -> Any:
            return job.step("double", function, 21)

    with running(one_for_one(child(Doubles, name="it", engine="embedded")), tmp_path) as (runtime, _):
        run = runtime["it"].run()
        with pytest.raises(RunFailed) as failed:
            run.result(30)
        assert failed.value.code == "STEP_IS_ASYNC"
        assert "async def run" in str(failed.value)
        assert run.steps() == []


@pytest.mark.parametrize("kind", HIDDEN)
@pytest.mark.filterwarnings("error")
def test_a_coroutine_that_a_run_without_a_loop_gets_from_a_step_is_named_as_such(kind: str, tmp_path: Path) -> None:
    function = HIDDEN[kind]

    class Doubles(Agent):
        def run(self, job: Job, payload: Any) -> Any:
            return job.step("double", function, 21)

    with running(one_for_one(child(Doubles, name="it", engine="embedded")), tmp_path) as (runtime, _):
        with pytest.raises(RunFailed) as failed:
            runtime["it"].run().result(30)
        assert failed.value.code == "STEP_IS_ASYNC"
