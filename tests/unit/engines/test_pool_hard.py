"""The engine pool and the budget under interruptions, crowds and neighbours."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mlld_sdk.base.durations import FOREVER
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.engines.pool import EnginePool, NoEngineFree
from mlld_sdk.engines.quota import CancelScope, EngineQuota, EngineQuotaExhausted
from tests.support.eventually import eventually
from tests.unit.engines.test_pool import Clock, FakeEngine, Yard


class Interrupted(BaseException):
    """What Ctrl-C does, by another signal."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Give what interrupts the main thread wherever it waits."""

    def handle(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handle)
    main = threading.main_thread().ident
    assert main is not None
    yield lambda: signal.pthread_kill(main, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    def watch() -> None:
        eventually(condition)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_interrupted_wait_for_an_engine_keeps_no_place_in_the_queue(interrupt: Callable[[], None]) -> None:
    yard = Yard()
    pool: EnginePool = EnginePool(yard.start)
    held = pool.lease(1)
    watcher = when(lambda: pool.status().waiting == 1, interrupt)
    with pytest.raises(Interrupted):
        pool.lease(20)
    watcher.join()
    assert pool.status().waiting == 0
    held.give_back()
    pool.lease(1).give_back()


def test_an_interrupted_wait_for_the_budget_keeps_no_permit(interrupt: Callable[[], None]) -> None:
    budget, yard = EngineQuota(1), Yard()
    pool: EnginePool = EnginePool(yard.start, size=2, quota=budget)
    first = pool.lease(1)
    watcher = when(lambda: budget.waiting == 1, interrupt)
    with pytest.raises(Interrupted):
        pool.lease(20)
    watcher.join()
    first.give_back(broken=True)
    assert (budget.waiting, budget.live, pool.status().busy) == (0, 0, 0)
    pool.lease(1).give_back()


@pytest.mark.parametrize("where", ["pool", "budget"])
def test_whoever_is_told_to_stop_waiting_leaves_the_queue_at_once(where: str) -> None:
    budget = EngineQuota(1)
    yard = Yard()
    pool: EnginePool = EnginePool(yard.start, size=1 if where == "pool" else 2, quota=budget)
    held, scope = pool.lease(1), CancelScope()
    queued = (lambda: pool.status().waiting) if where == "pool" else (lambda: budget.waiting)
    watcher = when(lambda: queued() == 1, lambda: scope.end(RuntimeError("enough")))
    with pytest.raises((NoEngineFree, EngineQuotaExhausted)):
        pool.lease(20, scope)
    watcher.join()
    assert queued() == 0
    with pytest.raises((NoEngineFree, EngineQuotaExhausted)):
        pool.lease(20, scope)
    held.give_back()
    pool.lease(1).give_back()


def test_a_crowd_that_leases_at_once_starts_no_more_spares_than_asked() -> None:
    yard, slow = Yard(), threading.Event()

    def start() -> FakeEngine:
        slow.wait(0.01)
        return yard.start()

    pool: EnginePool = EnginePool(start, size=8, spares=1)
    with ThreadPoolExecutor(8) as threads:
        leases = list(threads.map(lambda _: pool.lease(5), range(8)))
    eventually(lambda: pool.status().idle == 1)
    for lease in leases:
        lease.give_back()
    assert pool.status().started <= 9


def test_a_busy_neighbour_starves_nobody_of_the_budget() -> None:
    budget = EngineQuota(1)
    yards = Yard(), Yard()
    busy: EnginePool = EnginePool(yards[0].start, quota=budget)
    other: EnginePool = EnginePool(yards[1].start, quota=budget)
    over = threading.Event()

    def keep_busy() -> None:
        while not over.is_set():
            with busy.lease(20):
                over.wait(0.001)

    with ThreadPoolExecutor(3) as threads:
        for _ in range(3):
            threads.submit(keep_busy)
        eventually(lambda: busy.status().waiting == 2)
        try:
            for _ in range(3):
                with other.lease(10):
                    assert budget.live == 1
        finally:
            over.set()


def test_an_idle_engine_is_not_put_to_sleep_only_because_starts_are_staggered() -> None:
    clock = Clock()
    budget = EngineQuota(stagger=5, env=Env(now=clock))
    yards = Yard(), Yard()
    warm: EnginePool = EnginePool(yards[0].start, quota=budget, env=Env(now=clock))
    warm.lease(1).give_back()
    with pytest.raises(EngineQuotaExhausted, match="staggered"):
        EnginePool(yards[1].start, quota=budget, env=Env(now=clock)).lease(0)
    assert warm.status().idle == 1


def test_one_lease_given_back_by_many_is_given_back_once() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yard = Yard()
        pool: EnginePool = EnginePool(yard.start, size=2)
        with ThreadPoolExecutor(4) as threads:
            for _ in range(100):
                lease, start = pool.lease(5), threading.Barrier(4)

                def give_back(lease: Any = lease, start: threading.Barrier = start) -> None:
                    start.wait(60)
                    lease.give_back()

                for call in [threads.submit(give_back) for _ in range(4)]:
                    call.result(5)
                assert (pool.status().busy, pool.status().idle) == (0, 1)
    finally:
        sys.setswitchinterval(interval)


def test_a_thread_that_cannot_be_had_for_a_spare_costs_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    yard = Yard()
    pool: EnginePool = EnginePool(yard.start, spares=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool.lease(1).give_back()
    pool.lease(1).give_back()


def test_a_spare_that_cannot_be_started_any_more_fails_no_thread() -> None:
    yard, asked = Yard(), threading.Event()

    def start() -> FakeEngine:
        if yard.engines:
            asked.set()
            raise ConfigurationError("the working directory is gone")
        return yard.start()

    pool: EnginePool = EnginePool(start, size=1, spares=1)
    with pool.lease(1):
        assert asked.wait(60)
    pool.lease(1).give_back()


def test_an_engine_is_put_to_sleep_or_stays_idle_whatever_the_quota_does_meanwhile() -> None:
    class Wanted:
        """A slot that the quota begins to put to sleep, too, as soon as its time has been looked at."""

        def __init__(self) -> None:
            self.looks = iter((0.0,))

        @property
        def idle_since(self) -> float:
            return next(self.looks, FOREVER)

        @idle_since.setter
        def idle_since(self, since: float) -> None: ...

    class Slow(FakeEngine):
        def close(self, timeout: float) -> None:
            self.ended = "closing"

    pool: EnginePool = EnginePool(Slow)
    pool.lease(1).give_back()
    pool._idle[0].slot = Wanted()  # type: ignore[assignment]
    assert pool.sleep_idle(0) == 1
    assert pool.lease_now() is None
