"""Futures: what they promise beyond Pykka's own."""

import asyncio
import concurrent.futures
import threading
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import AskCancelled, AskTimeout
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.system import ActorSystem
from tests.support.actors import Gate, Puppet, boom, seen_by


def test_a_callback_runs_exactly_once_before_or_after_the_answer() -> None:
    calls: list[str] = []
    future: Future[str] = Future()
    future.on_done(lambda f: calls.append(f"early {f.get()}"))
    assert calls == []
    future.set("x")
    future.on_done(lambda f: calls.append(f"late {f.get()}"))
    assert calls == ["early x", "late x"]


def test_only_the_first_answer_counts() -> None:
    future: Future[int] = Future()
    assert future.try_set(1)
    assert not future.try_set(2)
    assert not future.try_set_exception(ValueError())
    assert not future.cancel()
    assert (future.get(), future.exception(), future.done) == (1, None, True)


def test_many_threads_racing_to_answer_one_future_have_one_winner() -> None:
    for _ in range(200):
        future: Future[int] = Future()
        wins: list[int] = []
        calls: list[int] = []
        start = threading.Barrier(4)

        def race(number: int, future: Future[int] = future, wins: list[int] = wins, start: Any = start) -> None:
            start.wait(60)
            if future.try_set(number):
                wins.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        future.on_done(lambda f, calls=calls: calls.append(f.get()))
        for thread in threads:
            thread.join()
        assert wins == calls == [future.get()]


def test_many_waiters_are_all_woken() -> None:
    future: Future[str] = Future()
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(future.get(timeout=10))) for _ in range(5)]
    for thread in threads:
        thread.start()
    future.set("x")
    for thread in threads:
        thread.join(60)
    assert got == ["x"] * 5


def test_a_wait_that_timed_out_can_be_repeated() -> None:
    future: Future[str] = Future()
    with pytest.raises(AskTimeout):
        future.get(timeout=0)
    with pytest.raises(AskTimeout):
        future.exception()
    future.set("x")
    assert future.get(timeout=0) == "x"
    assert future._hooks == []


def test_an_exception_needs_to_be_one() -> None:
    future: Future[str] = Future()
    with pytest.raises(ValueError, match="needs an exception"):
        future.set_exception()
    future.set_exception((ValueError, None, None))
    assert isinstance(future.exception(), ValueError)


def test_a_cancelled_request_that_still_waits_is_not_executed(system: ActorSystem) -> None:
    ref, gate = system.start(Puppet), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    future = ref.request("never")
    assert future.cancel()
    assert not future.cancel()
    assert future.cancelled
    gate.open.set()
    assert seen_by(ref) == []
    with pytest.raises(AskCancelled):
        future.get()


def test_the_standard_librarys_futures_can_wait_for_ours(system: ActorSystem) -> None:
    ref = system.start(Puppet)
    assert ref.request("x").to_concurrent().result(10) == "x"
    with pytest.raises(Exception, match="boom"):
        system.start(Puppet).request(boom).to_concurrent().result(10)
    gate = Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    ours = ref.request("never")
    bridge = ours.to_concurrent()
    assert bridge.cancel()
    assert ours.cancelled
    gate.open.set()
    done, _ = concurrent.futures.wait([ref.request("y").to_concurrent()], 10)
    assert {future.result() for future in done} == {"y"}


def test_awaiting_never_blocks_the_loop(system: ActorSystem) -> None:
    ref, gate = system.start(Puppet), Gate()

    async def main() -> tuple[str, int]:
        ticks = 0
        future = ref.request(gate)

        async def tick() -> None:
            nonlocal ticks
            while not future.done:
                ticks += 1
                if ticks == 20:
                    gate.open.set()
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        answer = await future
        await ticking
        return answer, ticks

    answer, ticks = asyncio.run(main())
    assert answer == "through"
    assert ticks >= 20


def test_awaiting_raises_what_was_answered_and_works_when_answered_already(system: ActorSystem) -> None:
    ref = system.start(Puppet)

    async def main() -> Any:
        with pytest.raises(ZeroDivisionError):
            await ref.ask(lambda me: 1 / 0, block=False)
        done: Future[str] = Future()
        done.set("x")
        return await done

    assert asyncio.run(main()) == "x"


def test_cancelling_an_await_cancels_the_call(system: ActorSystem) -> None:
    ref, gate = system.start(Puppet), Gate()
    ref.tell(gate)
    assert gate.entered.wait(60)
    future = ref.request("never")

    async def main() -> None:
        async with asyncio.timeout(0.01):
            await future

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert future.cancelled
    gate.open.set()
    assert seen_by(ref) == []


def test_cancelling_a_call_cancels_the_coroutine_that_serves_it(system: ActorSystem) -> None:
    began, cancelled = threading.Event(), threading.Event()

    class Async(Actor):
        async def on_receive(self, message: Any) -> Any:
            if message != "wait":
                return message
            began.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    ref = system.start(Async)
    future = ref.request("wait")
    assert began.wait(60)
    future.cancel()
    assert cancelled.wait(60)
    assert ref.ask("alive", timeout=10) == "alive"


def test_derived_futures_can_be_awaited_and_called_back_without_a_thread(system: ActorSystem) -> None:
    ref, gate = system.start(Puppet), Gate()
    calls: list[Any] = []
    first = ref.request(gate)
    second = ref.request(2)
    joined = first.join(second).map(lambda pair: f"{pair[0]} {pair[1]}")
    joined.on_done(lambda f: calls.append(f.get(timeout=0)))
    assert calls == []

    async def main() -> Any:
        asyncio.get_running_loop().call_later(0.01, gate.open.set)
        return await joined

    assert asyncio.run(main()) == "through 2"
    ref.ask("x")
    assert calls == ["through 2"]


def test_a_get_hook_of_unknown_making_blocks_a_helper_and_not_the_loop() -> None:
    gate = threading.Event()
    future: Future[str] = Future()
    future.set_get_hook(lambda _: "hooked" if gate.wait(10) else "late")

    async def main() -> str:
        asyncio.get_running_loop().call_soon(gate.set)
        return await future

    assert asyncio.run(main()) == "hooked"


def test_a_callback_that_raises_without_an_actor_reaches_the_threads_excepthook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    future: Future[str] = Future()
    future.on_done(boom)
    future.set("x")
    assert [args.exc_type for args in seen] == [ValueError]
