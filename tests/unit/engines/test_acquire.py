"""Acquires of engines that no thread waits for: first come first served, and nothing left behind however they end."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.engines.background import THREADS
from mlld_sdk.engines.pool import Acquire, EngineLease, EnginePool, EnginePoolClosed, NoEngineFree
from mlld_sdk.engines.quota import CancelScope, EngineQuota, EngineQuotaExhausted
from mlld_sdk.engines.sources import WaitingCall
from mlld_sdk.transport.errors import CallCancelled
from tests.support.eventually import eventually
from tests.unit.engines.test_pool import FakeEngine, Yard


class Outcomes:
    """Orders engines, keeps what came, in order, and checks that each is told once."""

    def __init__(self, pool: EnginePool) -> None:
        self.pool = pool
        self.scope = CancelScope(1 << 20)
        self.came: list[tuple[Any, Any]] = []
        self._told: set[Any] = set()
        self._lock = threading.Lock()

    def order(self, name: Any, timeout: float = 30.0, then: Callable[[Any], object] | None = None) -> Acquire:
        def told(outcome: Any) -> None:
            with self._lock:
                assert name not in self._told, f"{name} was told twice"
                self._told.add(name)
                self.came.append((name, outcome))
            if then is not None:
                then(outcome)

        return self.pool.acquire(told, timeout, self.scope)

    @property
    def names(self) -> list[Any]:
        return [name for name, _ in self.came]

    def of(self, name: Any) -> Any:
        return next(outcome for each, outcome in self.came if each == name)


def at_rest(pool: EnginePool, budget: EngineQuota, yard: Yard) -> bool:
    """Whether nothing is leased, promised or waited for, and every permit is that of an idle engine."""
    status = pool.status()
    return (status.busy, status.waiting, budget.waiting, pool._turns) == (
        0,
        0,
        0,
        0,
    ) and budget.live == status.idle == yard.alive == status.started - status.retired


@pytest.fixture
def yard() -> Yard:
    return Yard()


@pytest.fixture
def budget() -> EngineQuota:
    return EngineQuota()


def test_an_order_that_finds_an_idle_engine_has_it(yard: Yard) -> None:
    pool: EnginePool = EnginePool(yard.start)
    pool.lease(1).give_back()
    outcomes = Outcomes(pool)
    outcomes.order("one", then=EngineLease.give_back)
    eventually(lambda: outcomes.names == ["one"])
    assert outcomes.of("one").engine is yard.engines[0]


def test_there_is_nothing_to_order_from_a_closed_bay(yard: Yard) -> None:
    pool: EnginePool = EnginePool(yard.start)
    pool.close()
    with pytest.raises(EnginePoolClosed):
        Outcomes(pool).order("one")


@pytest.mark.parametrize("size", [1, 3])
def test_threads_and_orders_stand_in_one_queue(size: int, yard: Yard, budget: EngineQuota) -> None:  # P-9
    pool: EnginePool = EnginePool(yard.start, size=size, quota=budget)
    held = [pool.lease(1) for _ in range(size)]
    order: list[int] = []
    outcomes = Outcomes(pool)

    def served(n: int, lease: EngineLease) -> None:
        order.append(n)
        lease.give_back()

    threads = []
    for n in range(30):
        if n % 3 == 0:
            threads.append(threading.Thread(target=lambda n=n: served(n, pool.lease(30))))
            threads[-1].start()
        else:
            outcomes.order(n, then=lambda lease, n=n: served(n, lease))
        eventually(lambda n=n: pool.status().waiting == n + 1)
    first = held.pop()
    first.give_back()  # one engine goes from hand to hand, however many there are
    for thread in threads:
        thread.join(60)
    eventually(lambda: len(order) == 30)
    assert order == list(range(30))
    for lease in held:
        lease.give_back()
    eventually(lambda: at_rest(pool, budget, yard))


def test_none_starves_while_others_keep_coming(yard: Yard, budget: EngineQuota) -> None:  # P-9
    pool: EnginePool = EnginePool(yard.start, size=2, quota=budget)
    outcomes = Outcomes(pool)
    stop = threading.Event()

    def greedy() -> None:
        while not stop.is_set():
            pool.lease(30).give_back()

    threads = [threading.Thread(target=greedy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for n in range(200):
            outcomes.order(n, then=EngineLease.give_back)
        eventually(lambda: len(outcomes.came) == 200)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    eventually(lambda: at_rest(pool, budget, yard))


def test_an_order_whose_deadline_passes_is_told_what_a_thread_is_told(yard: Yard, budget: EngineQuota) -> None:
    pool: EnginePool = EnginePool(yard.start, quota=budget, label="agents")
    outcomes = Outcomes(pool)
    with pool.lease(1):
        outcomes.order("late", timeout=0.01)
        eventually(lambda: outcomes.names == ["late"])
        assert isinstance(outcomes.of("late"), NoEngineFree)
        assert "agents" in str(outcomes.of("late"))
        assert pool.status().waiting == 0
    eventually(lambda: at_rest(pool, budget, yard))


def test_an_order_the_budget_never_admits_is_refused_by_name(yard: Yard) -> None:
    budget = EngineQuota(1)
    busy: EnginePool = EnginePool(yard.start, quota=budget)
    other: EnginePool = EnginePool(yard.start, quota=budget)
    outcomes = Outcomes(other)
    with busy.lease(1):
        outcomes.order("late", timeout=0.05)
        eventually(lambda: outcomes.names == ["late"])
        assert isinstance(outcomes.of("late"), EngineQuotaExhausted)
        assert (budget.waiting, other.status().waiting, other._turns) == (0, 0, 0)


def test_an_order_gets_the_budget_of_an_engine_that_is_idle_elsewhere(yard: Yard) -> None:
    budget = EngineQuota(1)
    idle: EnginePool = EnginePool(yard.start, quota=budget)
    other: EnginePool = EnginePool(yard.start, quota=budget)
    idle.lease(1).give_back()
    outcomes = Outcomes(other)
    outcomes.order("one", then=EngineLease.give_back)
    eventually(lambda: outcomes.names == ["one"])
    assert [engine.alive for engine in yard.engines] == [False, True]


def test_engines_that_do_not_want_to_end_hold_up_those_who_wait_for_that_and_nobody_else(yard: Yard) -> None:  # P-9
    may_end = threading.Event()

    class Stubborn(FakeEngine):
        def close(self, timeout: float) -> None:
            assert may_end.wait(60)
            super().close(timeout)

    budget = EngineQuota(THREADS)
    stubborn: list[EnginePool] = [EnginePool(Stubborn, quota=budget) for _ in range(THREADS)]
    wanting: list[EnginePool] = [EnginePool(yard.start, quota=budget) for _ in range(THREADS)]
    elsewhere: EnginePool = EnginePool(yard.start)
    for pool in stubborn:
        pool.lease(1).give_back()
    held_up = [Outcomes(pool) for pool in wanting]
    for outcomes in held_up:
        outcomes.order("one", then=EngineLease.give_back)
    eventually(lambda: not any(pool.status().idle for pool in stubborn))  # each has begun to put one to sleep
    free = Outcomes(elsewhere)
    free.order("one", then=EngineLease.give_back)
    eventually(lambda: free.names == ["one"])
    assert not any(outcomes.came for outcomes in held_up)
    may_end.set()
    eventually(lambda: all(outcomes.names == ["one"] for outcomes in held_up))


def test_an_engine_that_will_not_start_fails_the_order_and_passes_the_turn_on(yard: Yard, budget: EngineQuota) -> None:
    pool: EnginePool = EnginePool(yard.start, quota=budget)
    outcomes = Outcomes(pool)
    yard.fails = True
    outcomes.order("failed")
    eventually(lambda: outcomes.names == ["failed"])
    assert isinstance(outcomes.of("failed"), InfrastructureError)
    yard.fails = False
    outcomes.order("fine", then=EngineLease.give_back)
    eventually(lambda: at_rest(pool, budget, yard) and outcomes.names[1:] == ["fine"])


def test_closing_the_bay_refuses_every_order(yard: Yard, budget: EngineQuota) -> None:
    pool: EnginePool = EnginePool(yard.start, quota=budget)
    outcomes = Outcomes(pool)
    held = pool.lease(1)
    for n in range(20):
        outcomes.order(n)
    pool.close()
    eventually(lambda: len(outcomes.came) == 20)
    assert {type(outcome) for _, outcome in outcomes.came} == {EnginePoolClosed}
    held.give_back()
    eventually(lambda: at_rest(pool, budget, yard))


@pytest.mark.parametrize("where", ["pool", "budget"])
def test_the_end_of_the_scope_ends_every_order(where: str, yard: Yard) -> None:
    budget = EngineQuota(1)
    pool: EnginePool = EnginePool(yard.start, size=1 if where == "pool" else 2, quota=budget)
    outcomes = Outcomes(pool)
    held = pool.lease(1)
    for n in range(20):
        outcomes.order(n)
    eventually(lambda: budget.waiting == 1 if where == "budget" else pool.status().waiting == 20)
    outcomes.scope.end(InfrastructureError("it ended"))
    eventually(lambda: len(outcomes.came) == 20)
    assert all(isinstance(outcome, InfrastructureError) for _, outcome in outcomes.came)
    eventually(lambda: pool.status().waiting == budget.waiting == 0)
    held.give_back()
    eventually(lambda: at_rest(pool, budget, yard))


def test_an_order_made_when_the_scope_is_over_ends_at_once(yard: Yard, budget: EngineQuota) -> None:
    pool: EnginePool = EnginePool(yard.start, quota=budget)
    outcomes = Outcomes(pool)
    outcomes.scope.end(InfrastructureError("it ended"))
    held = pool.lease(1)
    outcomes.order("late")
    eventually(lambda: outcomes.names == ["late"])
    held.give_back()
    for idle in range(2):  # there may be an engine to be had at once; then it is had
        outcomes.order(idle, then=lambda outcome: outcome.give_back() if isinstance(outcome, EngineLease) else None)
    eventually(lambda: len(outcomes.came) == 3 and at_rest(pool, budget, yard))


def test_what_is_over_is_not_kept_by_whoever_could_end_it(yard: Yard, budget: EngineQuota) -> None:
    pool: EnginePool = EnginePool(yard.start, size=2, quota=budget)
    outcomes = Outcomes(pool)
    for n in range(3000):
        outcomes.order(n, then=EngineLease.give_back)
    eventually(lambda: len(outcomes.came) == 3000)
    eventually(lambda: not outcomes.scope._waiters)


def test_a_cancelled_order_is_told_nothing_and_leaves_the_queue(yard: Yard, budget: EngineQuota) -> None:
    pool: EnginePool = EnginePool(yard.start, quota=budget)
    outcomes = Outcomes(pool)
    held = pool.lease(1)
    order = outcomes.order("one")
    assert order.cancel()
    assert not order.cancel()
    eventually(lambda: pool.status().waiting == 0)
    held.give_back()
    eventually(lambda: at_rest(pool, budget, yard))
    assert outcomes.came == []


@pytest.mark.parametrize("limit", [None, 1, 2], ids=["boundless", "one engine", "two engines"])
@pytest.mark.parametrize("how", ["cancelled", "expired", "either"])
def test_an_order_that_ends_at_the_moment_it_is_served_leaks_nothing(  # P-9
    how: str, limit: int | None, yard: Yard
) -> None:
    budget = EngineQuota(limit)
    pool: EnginePool = EnginePool(yard.start, size=3, quota=budget)
    other: EnginePool = EnginePool(yard.start, size=1, quota=budget)
    chance = random.Random(7)
    outcomes = Outcomes(pool)
    answered = threading.Semaphore(0)

    def came(outcome: Any) -> None:
        if isinstance(outcome, EngineLease):
            outcome.give_back(broken=chance.random() < 0.05)
        answered.release()

    withdrawn = 0
    for n in range(1200):
        timeout = chance.choice([0.0, 1e-5, 1e-4, 1e-3]) if how != "cancelled" else 30.0
        order = outcomes.order(n, timeout=timeout, then=came)
        if n % 50 == 0:
            other.lease(20).give_back()
        if how != "expired" and chance.random() < 0.5:
            if chance.random() < 0.5:
                time.sleep(0)  # lets another thread have its turn
            withdrawn += order.cancel()
    for _ in range(1200 - withdrawn):
        assert answered.acquire(timeout=20)
    eventually(
        lambda: pool.status().waiting == pool.status().busy == budget.waiting == pool._turns == other._turns == 0
    )
    assert budget.live == yard.alive == pool.status().idle + other.status().idle
    assert len(outcomes.came) == 1200 - withdrawn
    if limit is not None:
        assert yard.alive <= limit


def test_a_thousand_orders_cost_no_thread(yard: Yard, budget: EngineQuota) -> None:  # P-9
    pool: EnginePool = EnginePool(yard.start, quota=budget)
    outcomes = Outcomes(pool)
    outcomes.order("first", then=EngineLease.give_back)  # whatever is made once for the process is there afterwards
    eventually(lambda: outcomes.names == ["first"])
    held = pool.lease(1)
    before = threading.active_count()
    for n in range(1000):
        outcomes.order(n, then=EngineLease.give_back)
    assert pool.status().waiting == 1000
    assert threading.active_count() <= before + 3  # of the few that all orders of the process share
    held.give_back()
    eventually(lambda: len(outcomes.came) == 1001)
    assert outcomes.names[1:] == list(range(1000))
    assert len(yard.engines) == 1


def test_orders_threads_and_deaths_side_by_side_lose_nothing(yard: Yard) -> None:  # P-9
    budget = EngineQuota(4)
    pools: list[EnginePool] = [EnginePool(yard.start, size=2, overflow=1, quota=budget) for _ in range(3)]
    outcomes = [Outcomes(pool) for pool in pools]
    ended = threading.Semaphore(0)

    def use(chance: random.Random, lease: EngineLease) -> None:
        if chance.random() < 0.1:
            lease.engine.kill()
        lease.give_back(broken=chance.random() < 0.1)

    def work(seed: int) -> int:
        chance, withdrawn = random.Random(seed), 0
        for n in range(150):
            which = chance.randrange(3)
            if chance.random() < 0.3:
                use(chance, pools[which].lease(30))
                ended.release()
                continue
            order = outcomes[which].order((seed, n), then=lambda lease: (use(chance, lease), ended.release()))
            if chance.random() < 0.3 and order.cancel():
                withdrawn += 1
                ended.release()
        return withdrawn

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    for _ in range(8 * 150):
        assert ended.acquire(timeout=20)
    eventually(lambda: all(pool._turns == pool.status().waiting == pool.status().busy == 0 for pool in pools))
    eventually(lambda: budget.waiting == 0 and budget.live == yard.alive == sum(pool.status().idle for pool in pools))
    assert yard.alive <= 4


def test_a_bay_of_one_never_has_two_engines_when_one_comes_back_as_the_next_is_wanted(
    yard: Yard, budget: EngineQuota
) -> None:
    pool: EnginePool = EnginePool(yard.start, quota=budget)
    outcomes = Outcomes(pool)

    def hammer(seed: int) -> None:
        for n in range(300):
            if seed % 2:
                pool.lease(30).give_back()
            else:
                outcomes.order((seed, n), then=EngineLease.give_back)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(hammer, range(4)))
    eventually(lambda: len(outcomes.came) == 600 and at_rest(pool, budget, yard))
    assert len(yard.engines) == 1


def test_a_queued_request_whose_sending_fails_in_an_unforeseen_way_ends_with_that() -> None:
    def send(_: Any, left: float | None) -> Any:
        raise RecursionError("too deep")

    told: list[Callable[[Any], object]] = []
    call = WaitingCall(send, lambda error: error, timeout=None)
    call.wait_for(lambda call: told.append(call.arrived) or (lambda: False))  # type: ignore[func-returns-value]
    told[0]("an engine")
    with pytest.raises(RecursionError):
        call.result(1)
    assert call.begun.is_set()


def test_a_queued_request_is_cancelled_in_the_queue() -> None:
    call = WaitingCall(lambda *_: None, lambda error: error, timeout=None)  # type: ignore[arg-type,return-value]
    call.wait_for(lambda _: lambda: True)
    assert call.cancel()
    with pytest.raises(CallCancelled):
        call.result(1)
    assert not call.cancel()
