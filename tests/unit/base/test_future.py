"""The lazy future does what the standard one does, and each outcome reaches each listener exactly once."""

import asyncio
import concurrent.futures
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest

from mlld_sdk.base.durations import seconds
from mlld_sdk.base.future import LazyFuture


class Quiet(LazyFuture[Any]):
    def __init__(self) -> None:
        self.complaints: list[Exception] = []

    def _callback_failed(self, error: Exception) -> None:
        self.complaints.append(error)


def finished(result: Any = None, error: BaseException | None = None) -> Quiet:
    future = Quiet()
    future.finish(result, error)
    return future


def test_the_private_names_of_the_standard_library_are_still_there() -> None:
    standard: concurrent.futures.Future[None] = concurrent.futures.Future()
    for name in ("_condition", "_state", "_result", "_exception", "_waiters"):
        assert hasattr(standard, name)


def test_a_result_and_an_error_come_out() -> None:
    assert finished(5).result() == 5
    assert finished(5).exception() is None
    error = ValueError("x")
    assert finished(error=error).exception(0) is error
    with pytest.raises(ValueError, match="x"):
        finished(error=error).result()
    future = Quiet()
    assert (future.done(), future.running(), future.cancelled()) == (False, True, False)
    future.finish(None, None)
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)


def test_nothing_is_built_for_a_future_nobody_waits_for() -> None:
    assert set(vars(finished(5))) == {"complaints", "_result", "is_over"}


@pytest.mark.parametrize("limit", [0, 0.001, timedelta(milliseconds=1)])
def test_waiting_ends_in_time_and_can_be_repeated(limit: Any) -> None:
    future = Quiet()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            future.result(limit)
    assert future._sleepers == []
    future.finish(1, None)
    assert future.result(limit) == 1


def test_many_waiters_are_woken() -> None:
    future = Quiet()
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(future.result(10))) for _ in range(5)]
    for thread in threads:
        thread.start()
    future.finish(3, None)
    for thread in threads:
        thread.join(60)
    assert got == [3] * 5


def test_callbacks_run_once_in_order_whether_early_or_late_and_a_raising_one_disturbs_nobody() -> None:
    future = Quiet()
    seen: list[int] = []
    future.add_done_callback(lambda _: seen.append(1))
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: seen.append(2))
    future.finish(0, None)
    future.add_done_callback(lambda _: seen.append(3))
    assert seen == [1, 2, 3]
    assert [type(error) for error in future.complaints] == [ZeroDivisionError]


def test_the_standard_functions_work_on_it() -> None:
    early, late, failed = finished(1), Quiet(), finished(error=ValueError("x"))
    done, rest = concurrent.futures.wait([early, late, failed], timeout=0)
    assert (done, rest) == ({early, failed}, {late})
    timer = threading.Timer(0.01, late.finish, (2, None))
    timer.start()
    done, rest = concurrent.futures.wait([early, late, failed], timeout=10)
    assert (done, rest) == ({early, late, failed}, set())
    assert set(concurrent.futures.as_completed([early, late, failed], timeout=10)) == {early, late, failed}
    first, second = Quiet(), Quiet()
    timers = [threading.Timer(0.01, second.finish, (2, None)), threading.Timer(0.01, first.finish, (1, ValueError()))]
    completed = concurrent.futures.as_completed([first, second], timeout=10)
    for timer, due in zip(timers, (second, first), strict=True):
        timer.start()
        assert next(completed) is due
    assert list(completed) == []
    done, _ = concurrent.futures.wait([first, second], return_when="FIRST_EXCEPTION")
    assert first in done
    for timer in timers:
        timer.join()


def test_asyncio_can_wait_for_it() -> None:
    future = Quiet()

    async def both() -> Any:
        threading.Timer(0.01, future.finish, (7, None)).start()
        return await asyncio.wrap_future(future)

    assert asyncio.run(both()) == 7


def test_no_listener_is_ever_forgotten_or_called_twice_in_a_race() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(100):
            future = Quiet()
            seen: list[int] = []
            start = threading.Barrier(4)

            def finish(future: Quiet = future, start: threading.Barrier = start) -> None:
                start.wait()
                future.finish(1, None)

            def listen(future: Quiet = future, start: threading.Barrier = start, seen: list[int] = seen) -> None:
                start.wait()
                for _ in range(3):
                    future.add_done_callback(lambda _: seen.append(1))

            def wait(future: Quiet = future, start: threading.Barrier = start, seen: list[int] = seen) -> None:
                start.wait()
                seen.append(future.result(50))

            def stand(future: Quiet = future, start: threading.Barrier = start, seen: list[int] = seen) -> None:
                start.wait()
                seen.extend(len(group) for group in [concurrent.futures.wait([future], timeout=50)[0]])

            threads = [threading.Thread(target=one) for one in (finish, listen, wait, stand)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)  # less than the timeouts, so that being awakened only by one is not enough
            assert seen == [1] * 5
    finally:
        sys.setswitchinterval(interval)


def test_durations_are_seconds() -> None:
    assert (seconds(1.5), seconds(timedelta(milliseconds=1500))) == (1.5, 1.5)
