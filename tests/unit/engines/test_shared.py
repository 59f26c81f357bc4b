"""One engine for many requests: who waits for it, when it is given back, and what happens while it retires."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.engines import shared
from mlld_sdk.engines.pool import EnginePool, EnginePoolClosed, NoEngineFree
from mlld_sdk.engines.quota import EngineQuota, EngineQuotaExhausted
from mlld_sdk.engines.shared import SharedEngine, SharedEngines
from mlld_sdk.engines.sources import StillWaiting, WaitingCall
from mlld_sdk.transport.errors import CallCancelled, EngineClosed
from tests.support.eventually import eventually
from tests.unit.engines.test_pool import FakeEngine


class FakeCall:
    def __init__(self, engine: "SharedFake") -> None:
        self.engine = engine

    def when_failed(self, function: Any) -> None:
        """Do nothing: it does not fail."""

    def end(self) -> None:
        self.engine.calls.discard(self)
        if self.engine.retired and not self.engine.calls:
            self.engine.kill()


class SharedFake(FakeEngine):
    """A fake engine that takes many requests at once, as far as `SharedEngines` needs to know."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[FakeCall] = set()
        self.retired = False
        self.shared = False
        self.reaped = 0
        self._lives = True

    @property
    def alive(self) -> bool:
        return self._lives and not self.retired

    @alive.setter
    def alive(self, alive: bool) -> None:
        self._lives = alive

    @property
    def exit(self) -> str | None:
        return None if self._lives else self.ended

    @property
    def is_busy(self) -> bool:
        return bool(self.calls)

    def be_shared(self, shared: bool) -> None:
        assert not self.calls
        self.shared = shared

    def reap_descendants(self) -> None:
        assert not self.calls, "it would kill what requests in flight have started"
        self.reaped += 1

    def retire(self) -> None:
        self.retired = True
        if not self.calls:
            self.kill()

    def submit(self, *_: Any, **__: Any) -> FakeCall:
        assert self.shared
        if not self.alive:
            raise EngineClosed("it takes no more")
        call = FakeCall(self)
        self.calls.add(call)
        return call

    def kill(self) -> None:
        if self._lives:
            self._lives, self.ended = False, "killed"
            self.calls.clear()
            for callback in self._callbacks:
                callback(self)

    def close(self, timeout: float) -> None:
        self.kill()
        self.ended = "closed"


class Wish(WaitingCall):
    """A place in the queue that can be given up."""

    def __init__(self, sharing: SharedEngines, then: Callable[[Any], bool], timeout: float) -> None:
        super().__init__(lambda *_: None, lambda error: error, timeout=timeout)  # type: ignore[arg-type,return-value]
        self._then = then
        self._give_up = sharing._stand_in(self)

    def arrived(self, outcome: Any) -> bool:
        return self._then(outcome)

    def cancel(self) -> bool:
        self.cancel_wanted = True
        return self._give_up()


class Harbour:
    """A pool of such engines, and requests on what is shared of it."""

    def __init__(self, *, size: int = 1, overflow: int = 1, budget: EngineQuota | None = None) -> None:
        self.engines: list[SharedFake] = []
        self.budget = budget or EngineQuota()
        self.pool: EnginePool = EnginePool(self.start, size=size, overflow=overflow, quota=self.budget)
        self.sharing = SharedEngines(self.pool)
        self.scope = self.sharing.scope
        self.outcomes: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def start(self) -> SharedFake:
        self.engines.append(SharedFake())
        return self.engines[-1]

    def ask(self, name: Any, timeout: float = 30.0, send: Callable[[SharedEngine], Any] | None = None) -> Any:
        call = self.sharing._submit("process", {}, None, None)
        if call is not None:
            self._keep(name, call)
            return None
        return Wish(self.sharing, lambda outcome: self._came(name, outcome, send), timeout)

    def _came(self, name: Any, outcome: Any, send: Callable[[SharedEngine], Any] | None) -> bool:
        if isinstance(outcome, BaseException):
            self._keep(name, outcome)
            return True
        try:
            if send is not None:
                send(outcome)
            self._keep(name, outcome.lease.engine.submit())
        except EngineClosed:
            return False
        return True

    def _keep(self, name: Any, outcome: Any) -> None:
        with self._lock:
            assert name not in self.outcomes, f"{name} has two outcomes"
            self.outcomes[name] = outcome

    def of(self, name: Any) -> Any:
        return eventually(lambda: self.outcomes.get(name))

    @property
    def at_rest(self) -> bool:
        status = self.pool.status()
        return (status.busy, status.waiting, self.pool._turns, len(self.sharing._held)) == (0, 0, 0, 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "LINGER", 0.01)


def test_all_requests_use_one_engine() -> None:
    harbour = Harbour()
    for n in range(100):
        harbour.ask(n)
    assert {harbour.of(n).engine for n in range(100)} == set(harbour.engines)
    assert len(harbour.engines) == 1
    for n in range(100):
        harbour.of(n).end()
    eventually(lambda: harbour.at_rest)


def test_it_is_given_back_soon_after_the_last_request_and_not_before() -> None:
    harbour = Harbour()
    harbour.ask("one")
    call = harbour.of("one")
    looks = 0
    close = SharedEngine.close

    def counted(at: SharedEngine) -> bool:
        nonlocal looks
        looks += 1
        return close(at)

    SharedEngine.close = counted  # type: ignore[method-assign]
    try:
        eventually(lambda: looks > 5)
    finally:
        SharedEngine.close = close  # type: ignore[method-assign]
    assert harbour.pool.status().busy == 1
    call.end()
    eventually(lambda: harbour.at_rest)
    assert (harbour.engines[0].shared, harbour.engines[0].reaped, harbour.pool.status().idle) == (False, 1, 1)


def test_an_engine_that_is_shared_again_and_again_keeps_nothing_of_it() -> None:
    harbour = Harbour()
    harbour.ask(0)
    harbour.of(0).end()
    eventually(lambda: harbour.at_rest)
    before = len(harbour.engines[0]._callbacks)
    for n in range(1, 20):
        harbour.ask(n)
        harbour.of(n).end()
        eventually(lambda: harbour.at_rest)
    assert len(harbour.engines) == 1
    assert len(harbour.engines[0]._callbacks) == before


def test_one_that_retires_takes_no_new_requests_and_others_finish_on_it() -> None:
    harbour = Harbour()
    for n in range(3):
        harbour.ask(n)
        harbour.of(n)
    first = harbour.engines[0]
    first.retire()
    harbour.of(0).end()
    harbour.ask("new")
    assert harbour.of("new").engine is harbour.engines[1]
    assert (first.exit, len(first.calls)) == (None, 2)
    for n in (1, 2):
        harbour.of(n).end()
    assert first.exit == "killed"
    harbour.of("new").end()
    eventually(lambda: harbour.at_rest)


def test_those_who_come_to_one_that_has_just_retired_wait_for_the_next_and_come_first() -> None:
    harbour = Harbour(size=1, overflow=1)
    held = [harbour.pool.lease(1), harbour.pool.lease(1)]
    harbour.ask("first", send=lambda at: None)
    harbour.ask("retires it", send=lambda at: harbour.of("first").engine.retire())
    for n in range(5):
        harbour.ask(n)
    held.pop().give_back()  # arrives at all of them, and is of no use from the second on
    eventually(lambda: "first" in harbour.outcomes)
    harbour.ask("last")
    harbour.of("first").end()
    engines = {harbour.of(n).engine for n in range(5)}
    assert engines.isdisjoint({harbour.of("first").engine})
    harbour.of("last")
    assert [name for name in harbour.outcomes if name != "last"] == ["first", "retires it", 0, 1, 2, 3, 4]
    held.pop().give_back()
    for outcome in harbour.outcomes.values():
        outcome.end()
    eventually(lambda: harbour.at_rest)


def test_one_that_dies_is_given_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "LINGER", 1000.0)
    harbour = Harbour()
    harbour.ask("one")
    harbour.of("one")
    harbour.engines[0].kill()
    eventually(lambda: harbour.at_rest)
    assert harbour.budget.live == 0


def test_a_wish_ends_at_its_deadline_with_what_a_thread_is_told() -> None:
    harbour = Harbour(overflow=0)
    held = harbour.pool.lease(1)
    harbour.ask("patient")
    harbour.ask("late", timeout=0.01)
    harbour.ask("at once", timeout=0.0)
    assert isinstance(harbour.of("late"), NoEngineFree)
    assert isinstance(harbour.of("at once"), NoEngineFree)
    assert harbour.pool.status().waiting == 1
    held.give_back()
    harbour.of("patient").end()
    eventually(lambda: harbour.at_rest)


def test_a_deadline_that_is_over_before_the_wish_stands_ends_it_all_the_same() -> None:
    harbour = Harbour(overflow=0)
    with harbour.pool.lease(1):
        for n in range(500):
            harbour.ask(n, timeout=0.0)
        eventually(lambda: len(harbour.outcomes) == 500)
        assert {type(outcome) for outcome in harbour.outcomes.values()} == {NoEngineFree}
        eventually(lambda: harbour.pool.status().waiting == 0)
    eventually(lambda: harbour.at_rest)


def test_a_wish_the_budget_never_admits_is_refused_by_name() -> None:
    harbour = Harbour(budget=EngineQuota(1))
    with harbour.pool.lease(1):
        harbour.ask("late", timeout=0.05)
        assert isinstance(harbour.of("late"), EngineQuotaExhausted)
        eventually(lambda: harbour.budget.waiting == 0)
    eventually(lambda: harbour.at_rest)


def test_wishes_that_are_given_up_call_the_order_off() -> None:
    harbour = Harbour(overflow=0)
    held = harbour.pool.lease(1)
    wishes = [harbour.ask(n) for n in range(20)]
    eventually(lambda: harbour.pool.status().waiting == 1)
    assert all(wish.cancel() for wish in wishes)
    eventually(lambda: harbour.pool.status().waiting == 0)
    assert not any(wish.cancel() for wish in wishes)
    held.give_back()
    eventually(lambda: harbour.at_rest)
    assert harbour.outcomes == {}


def test_a_wish_given_up_while_it_comes_to_an_engine_that_retired_does_not_wait_on() -> None:
    harbour = Harbour(overflow=0)
    held = harbour.pool.lease(1)
    wish: Any = None

    def meanwhile(at: SharedEngine) -> None:
        assert not wish.cancel()
        at.lease.engine.retire()

    wish = harbour.ask("one", send=meanwhile)
    held.give_back()
    assert isinstance(harbour.of("one"), CallCancelled)
    eventually(lambda: harbour.at_rest)


def test_the_end_of_the_scope_and_of_the_bay_ends_every_wish() -> None:
    for end, kind in (
        (lambda harbour: harbour.scope.end(InfrastructureError("over")), NoEngineFree),
        (lambda harbour: harbour.pool.close(), EnginePoolClosed),
    ):
        harbour = Harbour(overflow=0)
        held = harbour.pool.lease(1)
        for n in range(20):
            harbour.ask(n)
        end(harbour)
        eventually(lambda harbour=harbour: len(harbour.outcomes) == 20)
        assert {type(outcome) for outcome in harbour.outcomes.values()} == {kind}
        held.give_back()
        eventually(lambda harbour=harbour: harbour.at_rest)


def test_an_engine_that_will_not_start_is_the_outcome_of_all_who_wait() -> None:
    harbour = Harbour()

    def refuse() -> SharedFake:
        raise InfrastructureError("will not start")

    harbour.pool.start_engine = refuse
    for n in range(5):
        harbour.ask(n)
    assert {str(harbour.of(n)) for n in range(5)} == {"will not start"}
    assert len({id(harbour.of(n)) for n in range(5)}) == 5  # each its own, or they would share a traceback
    eventually(lambda: harbour.at_rest)


def test_whoever_waits_elsewhere_gets_the_engine_however_busy_it_is_kept() -> None:
    budget = EngineQuota(1)
    busy, other = Harbour(budget=budget), Harbour(budget=budget)
    busy.ask(0)
    busy.of(0)
    other.ask("one")
    eventually(lambda: budget.waiting == 1)
    for n in range(1, 10_000):  # one is always in flight, but for what somebody else wants
        busy.ask(n)
        if n in busy.outcomes:
            busy.of(n - 1).end()
            threading.Event().wait(0.002)
            continue
        busy.of(n - 1).end()
        break
    else:
        pytest.fail("the other one was never served")
    other.of("one").end()
    busy.of(n).end()
    eventually(lambda: busy.at_rest and other.at_rest)


def test_a_queued_request_goes_back_to_waiting_when_it_was_not_taken() -> None:
    told: list[Callable[[Any], bool]] = []
    tries: list[Any] = []

    def send(engine: Any, left: float | None) -> Any:
        tries.append(engine)
        raise StillWaiting

    call = WaitingCall(send, lambda error: error, timeout=None)
    call.wait_for(lambda call: told.append(call.arrived) or (lambda: True))  # type: ignore[func-returns-value]
    assert told[0]("an engine") is False
    assert (call.done(), call.begun.is_set()) == (False, False)
    assert call.cancel()
    with pytest.raises(CallCancelled):
        call.result(1)
