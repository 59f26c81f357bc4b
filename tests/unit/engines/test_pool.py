"""The engine pool: exclusive leases, first come first served, nothing leaked whatever breaks."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError
from mlld_sdk.engines.pool import EnginePool, EnginePoolClosed, NoEngineFree, Recycle
from mlld_sdk.engines.quota import EngineQuota, EngineQuotaExhausted
from tests.support.eventually import eventually


class FakeEngine:
    def __init__(self) -> None:
        self.alive = True
        self.ended = ""
        self.size = 0
        self._callbacks: list[Callable[[FakeEngine], None]] = []

    def add_exit_callback(self, function: "Callable[[FakeEngine], None]") -> None:
        self._callbacks.append(function)

    def close(self, timeout: float) -> None:
        self._end("closed")

    def kill(self) -> None:
        self._end("killed")

    def rss(self) -> int:
        return self.size

    def _end(self, how: str) -> None:
        if self.alive:
            self.alive, self.ended = False, how
            for callback in self._callbacks:
                callback(self)


class Yard:
    """Starts fake engines and remembers them."""

    def __init__(self) -> None:
        self.engines: list[FakeEngine] = []
        self.fails = False

    def start(self) -> FakeEngine:
        if self.fails:
            raise InfrastructureError("will not start")
        self.engines.append(FakeEngine())
        return self.engines[-1]

    @property
    def alive(self) -> int:
        return sum(engine.alive for engine in self.engines)


@pytest.fixture
def yard() -> Yard:
    return Yard()


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_an_engine_is_started_when_needed_and_used_again(yard: Yard) -> None:
    pool = EnginePool(yard.start)
    with pool.lease(1) as lease:
        first = lease.engine
    with pool.lease(1) as lease:
        assert lease.engine is first
    assert len(yard.engines) == 1


def test_no_two_holders_ever_share_an_engine(yard: Yard) -> None:
    pool = EnginePool(yard.start, size=3, overflow=2)
    held: set[int] = set()
    lock = threading.Lock()
    most = 0

    def work(n: int) -> None:
        nonlocal most
        with pool.lease(30) as lease:
            with lock:
                assert id(lease.engine) not in held
                held.add(id(lease.engine))
                most = max(most, len(held))
            if n % 17 == 0:
                lease.engine.kill()
            with lock:
                held.remove(id(lease.engine))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(2000)))
    assert most <= 5
    status = pool.status()
    assert (status.busy, status.waiting) == (0, 0)
    assert status.idle == yard.alive <= 3
    assert status.started - status.retired == status.idle


def test_waiters_are_served_in_the_order_they_came(yard: Yard) -> None:  # P-1
    pool = EnginePool(yard.start)
    first = pool.lease(1)
    order: list[int] = []

    def wait(n: int) -> None:
        with pool.lease(10):
            order.append(n)

    threads = []
    for n in range(5):
        threads.append(threading.Thread(target=wait, args=(n,)))
        threads[-1].start()
        eventually(lambda n=n: pool.status().waiting == n + 1)
    first.give_back()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_waiter_whose_deadline_passes_is_told_and_leaves_no_trace(yard: Yard) -> None:
    pool = EnginePool(yard.start, label="agents")
    with pool.lease(1):
        with pytest.raises(NoEngineFree, match="agents"):
            pool.lease(0.01)
        assert pool.status().waiting == 0
    with pool.lease(1):
        pass


def test_an_overflow_engine_is_retired_when_it_comes_back(yard: Yard) -> None:
    pool = EnginePool(yard.start, size=1, overflow=1)
    one, two = pool.lease(1), pool.lease(1)
    one.give_back()
    two.give_back()
    assert yard.alive == 1
    assert pool.status().idle == 1


def test_a_crashed_engine_costs_its_own_lease_only_and_is_replaced(yard: Yard) -> None:
    pool = EnginePool(yard.start)
    lease = pool.lease(1)
    lease.engine.kill()
    lease.give_back()
    with pool.lease(1) as fresh:
        assert fresh.engine is not lease.engine
        assert fresh.engine.alive


def test_an_engine_that_dies_while_idle_is_forgotten(yard: Yard) -> None:
    pool = EnginePool(yard.start)
    pool.lease(1).give_back()
    yard.engines[0].kill()
    assert pool.status().idle == 0
    with pool.lease(1) as lease:
        assert lease.engine is yard.engines[1]


def test_an_exception_in_the_block_breaks_the_engine_because_its_state_is_unknown(yard: Yard) -> None:
    pool = EnginePool(yard.start)
    with pytest.raises(ZeroDivisionError), pool.lease(1):
        raise ZeroDivisionError
    assert yard.engines[0].ended == "killed"


def test_a_spare_is_ready_before_it_is_needed(yard: Yard) -> None:
    pool = EnginePool(yard.start, spares=1)
    lease = pool.lease(1)
    eventually(lambda: pool.status().idle == 1)
    spare = yard.engines[1]
    lease.give_back(broken=True)
    with pool.lease(1) as second:
        assert second.engine is spare


def test_a_spare_that_will_not_start_does_not_fail_the_lease(yard: Yard) -> None:
    pool = EnginePool(yard.start, spares=1)
    pool.warm()
    yard.fails = True
    yard.engines[1].kill()
    with pool.lease(1) as lease:
        assert lease.engine is yard.engines[0]


def test_an_engine_that_will_not_start_fails_the_lease_and_passes_the_turn_on(yard: Yard) -> None:
    pool = EnginePool(yard.start)
    yard.fails = True
    with pytest.raises(InfrastructureError, match="will not start"):
        pool.lease(1)
    yard.fails = False
    with pool.lease(1):
        pass


def test_a_worn_engine_is_replaced(yard: Yard) -> None:
    pool = EnginePool(yard.start, recycle=Recycle(max_leases=2, max_rss=1000))
    pool.lease(1).give_back()
    pool.lease(1).give_back()
    assert yard.engines[0].ended == "closed"
    lease = pool.lease(1)
    lease.engine.size = 1001
    lease.give_back()
    assert lease.engine.ended == "closed"


def test_idle_engines_go_to_sleep(yard: Yard) -> None:
    clock = Clock()
    pool = EnginePool(yard.start, size=2, env=Env(now=clock))
    one, two = pool.lease(1), pool.lease(1)
    one.give_back()
    clock.time += 50
    two.give_back()
    assert pool.sleep_idle(30) == 1
    assert (one.engine.alive, two.engine.alive) == (False, True)


def test_the_budget_puts_engines_to_sleep_when_their_time_has_come(yard: Yard) -> None:
    clock = Clock()
    env = Env(now=clock)
    budget = EngineQuota(env=env)
    short, never = (EnginePool(yard.start, quota=budget, idle_after=after, env=env) for after in (10, None))
    short.lease(1).give_back()
    never.lease(1).give_back()
    clock.time += 9
    budget.sleep_idle()
    assert yard.alive == 2
    clock.time += 1
    budget.sleep_idle()
    assert [engine.alive for engine in yard.engines] == [False, True]
    assert budget.live == 1


def test_closing_refuses_those_who_wait_and_ends_every_engine(yard: Yard) -> None:
    pool = EnginePool(yard.start)
    lease = pool.lease(1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.lease, 10)
        eventually(lambda: pool.status().waiting == 1)
        pool.close()
        with pytest.raises(EnginePoolClosed):
            waiting.result()
    lease.give_back()
    assert yard.alive == 0
    with pytest.raises(EnginePoolClosed):
        pool.lease(1)


def test_resizing_serves_waiters_and_retires_surplus(yard: Yard) -> None:
    pool = EnginePool(yard.start)
    first = pool.lease(1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.lease, 10)
        eventually(lambda: pool.status().waiting == 1)
        pool.resize(2)
        second = waiting.result()
    first.give_back()
    second.give_back()
    assert pool.status().idle == 2
    pool.resize(1)
    assert pool.status().idle == 1 == yard.alive


def test_the_budget_puts_the_longest_idle_engine_of_another_bay_to_sleep(yard: Yard) -> None:
    budget = EngineQuota(2)
    pools = [EnginePool(yard.start, quota=budget) for _ in range(3)]
    pools[0].lease(1).give_back()
    pools[1].lease(1).give_back()
    with pools[2].lease(1):
        assert [engine.alive for engine in yard.engines] == [False, True, True]
    assert budget.live == 2


def test_thousands_of_bays_share_a_few_engines(yard: Yard) -> None:
    budget = EngineQuota(4)
    pools = [EnginePool(yard.start, quota=budget) for _ in range(1000)]
    most = 0

    def work(n: int) -> None:
        nonlocal most
        with pools[n % 1000].lease(30):
            most = max(most, budget.live)  # counting the engines themselves takes longer than one of them lives

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(3000)))
    assert most <= 4
    assert budget.live == yard.alive <= 4
    assert budget.waiting == 0


def test_a_start_the_budget_never_admits_is_refused_by_name(yard: Yard) -> None:
    budget = EngineQuota(1)
    busy, other = EnginePool(yard.start, quota=budget), EnginePool(yard.start, quota=budget)
    with busy.lease(1):
        with pytest.raises(EngineQuotaExhausted, match="all 1 engines"):
            other.lease(0.01)
        assert budget.waiting == 0


def test_short_memory_admits_one_engine_and_no_more(yard: Yard) -> None:
    free = 100
    budget = EngineQuota(min_free_memory=1000, free_memory=lambda: free)
    pool = EnginePool(yard.start, size=2, quota=budget)
    with pool.lease(1):
        with pytest.raises(EngineQuotaExhausted, match="memory"):
            pool.lease(0.01)
        free = 2000
        with pool.lease(1):
            assert yard.alive == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [({"size": 0}, "size"), ({"overflow": -1}, "overflow"), ({"spares": -1}, "spares")],
)
def test_a_wrong_option_is_refused_by_name(yard: Yard, options: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        EnginePool(yard.start, **options)


def test_nobody_waits_for_the_spare_that_replaces_the_one_taken(yard: Yard) -> None:
    gate = threading.Event()
    slow: list[bool] = []

    def start() -> FakeEngine:
        if slow:
            gate.wait(60)
        return yard.start()

    pool = EnginePool(start, size=1, spares=1)
    pool.lease(1).give_back()
    slow.append(True)
    with pool.lease(0.5):  # takes the idle one; its replacement is held up
        assert pool.status().busy == 1
        gate.set()
        eventually(lambda: pool.status().idle == 1)
