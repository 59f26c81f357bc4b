"""One engine for many requests at once, held from a pool for as long as there are any.

The engine is leased with the first request and given back a moment after the last, so that the runtime's budget has it
back. One in which a script may go on unseen, because it was cancelled or ran late, gets no new requests and ends with
its last; the next request finds another.
"""

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from mlld_sdk.base.errors import MlldError
from mlld_sdk.engines import background
from mlld_sdk.engines.orders import A_YEAR, Errand
from mlld_sdk.engines.pool import EngineLease, EnginePool
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import CallCancelled, EngineClosed, EngineDied
from mlld_sdk.transport.reactor import ReactorTimer, shared_reactor

LINGER: Final = 0.1
"""Seconds between two looks whether the engine is still used; taking and giving back costs more than a request."""


class Moored:
    """A shared engine.

    Attributes:
        lease: How it is held.
        asked: Requests sent to it, so that a look can tell whether there were more since the last.
        inside: As many items as threads are about to send a request. They enter, and then look whether it is closed;
            who closes it looks then whether somebody is inside. So nobody waits for a lock to send.
        closed: It takes no more requests.
    """

    __slots__ = ("asked", "closed", "inside", "lease")

    def __init__(self, lease: EngineLease[Engine]) -> None:
        self.lease = lease
        self.asked = 0
        self.inside: list[None] = []
        self.closed = False

    def enter(self) -> bool:
        """Keep it from being given back until `leave`; false if it takes no more requests."""
        self.inside.append(None)
        if self.closed or not self.lease.engine.alive:
            self.inside.pop()
            return False
        return True

    def leave(self) -> None:
        """Let it be given back."""
        self.inside.pop()

    def close(self) -> bool:
        """Take no more requests, unless somebody uses it."""
        if self._is_used:  # else who comes in between would find it closed, and start another
            return False
        self.closed = True
        self.closed = not self._is_used
        return self.closed

    @property
    def _is_used(self) -> bool:
        return bool(self.inside) or self.lease.engine.is_busy


Then = Callable[[Moored | BaseException], bool]
"""Takes the engine, or the error; false if the engine took no more requests at that moment."""


class _Wish:
    """Somebody who waits for the engine."""

    __slots__ = ("deadline", "given_up", "patience", "then", "timeout", "timer")

    def __init__(self, then: Then, timeout: float, patience: CancelScope) -> None:
        self.then = then
        self.timeout = timeout
        self.deadline = shared_reactor().now() + min(timeout, A_YEAR)
        self.patience = patience
        self.timer: ReactorTimer | None = None  # while it stands in the queue
        self.given_up = False


class Sharing:
    """Has everybody's requests made on the same engine of a pool."""

    def __init__(self, pool: EnginePool[Engine]) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._moored: Moored | None = None  # takes new requests
        self._held: set[Moored] = set()
        self._wishes: dict[_Wish, None] = {}  # in the order they came
        self._errand: Errand[Engine] | None = None  # while anybody waits

    def submit(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> Call | None:
        """Send a request to the engine; `None`, and nothing was sent, if there is none."""
        at = self._moored
        if at is None or not at.enter():
            return None
        try:
            at.asked += 1
            return at.lease.engine.submit(method, params, timeout=timeout, on_events=on_events)
        except (EngineClosed, EngineDied):  # it went in this moment
            return None
        finally:
            at.leave()

    def order(self, then: Then, timeout: float, patience: CancelScope) -> "SharedOrder":
        """Have `then` called with the engine, which is kept meanwhile, or the error; on any thread, this one too."""
        wish = _Wish(then, timeout, patience)
        with self._lock:
            at = self._moored
            if at is None or not at.enter():
                at = None
                self._stand(wish)
        if at is not None:  # it has come in this moment
            self._serve([wish], at)
        return SharedOrder(self, wish)

    def kill(self, because: Callable[[], MlldError]) -> None:
        """Kill the engine, and those that only finish what they have; requests end with errors made by `because`."""
        with self._lock:
            held = list(self._held)
        for at in held:
            at.lease.engine.kill(because)

    def _arrived(self, outcome: EngineLease[Engine] | BaseException) -> None:
        if isinstance(outcome, BaseException):
            for wish in self._all_wishes():
                wish.then(copy.copy(outcome))
            return
        at = Moored(outcome)
        at.lease.engine.be_shared(True)
        at.inside.append(None)
        wishes = self._all_wishes(at)
        if not wishes:  # they have given up, or have another
            background.run(_put_back, outcome)
            return
        outcome.when_gone(lambda: self._look(at, 0))
        try:
            self._serve(wishes, at)
        finally:
            self._look_again(at)

    def _serve(self, wishes: list[_Wish], at: Moored) -> None:
        """Give an engine that was entered to those who waited; it may be retired by one and then takes no others."""
        try:
            left = [wish for wish in wishes if not wish.then(at)]
        finally:
            at.leave()
        if left:
            self._stand_again(left)

    def _stand(self, wish: _Wish) -> None:
        """Put a wish last, and order an engine if it is the first. Called with the lock held."""
        if self._errand is None:
            self._errand = self._pool.order(self._arrived, A_YEAR, wish.patience)
        self._wishes[wish] = None
        wish.timer = shared_reactor().call_at(wish.deadline, partial(self._late, wish))

    def _stand_again(self, wishes: list[_Wish]) -> None:
        """Have those who were not served wait on, before all others."""
        refused: dict[_Wish, MlldError] = {}
        with self._lock:
            later, self._wishes = self._wishes, {}
            for wish in wishes:
                try:
                    if wish.given_up:
                        raise CallCancelled("the run was cancelled before an engine was free")
                    self._stand(wish)
                except MlldError as error:
                    refused[wish] = error
            self._wishes.update(later)
        for wish, why in refused.items():
            wish.then(why)

    def _all_wishes(self, at: Moored | None = None) -> list[_Wish]:
        """Take everybody who waits, for an engine that has come or for none."""
        with self._lock:
            wishes, self._wishes, self._errand = list(self._wishes), {}, None
            if at is not None and wishes:
                self._moored = at
                self._held.add(at)
        for wish in wishes:
            if wish.timer is not None:
                wish.timer.cancel()
        return wishes

    def _late(self, wish: _Wish) -> None:
        with self._lock:
            errand = self._errand
        if errand is None:  # it was served in this moment
            return
        # What it waited for is known to the order; it is asked before the wish is taken back, which may end the order.
        why = errand.refusal(wish.timeout)
        if self._take(wish):
            background.run(wish.then, why)

    def _take(self, wish: _Wish, *, for_good: bool = False) -> bool:
        """Take a wish back; the last one calls the errand off. False if it has been served or refused.

        Args:
            wish: Whose.
            for_good: It is not to stand again either, should it just now be served and not be taken.
        """
        errand = None
        with self._lock:
            stood = wish in self._wishes
            self._wishes.pop(wish, None)
            wish.given_up = wish.given_up or for_good
            if stood and not self._wishes:
                errand, self._errand = self._errand, None
        if errand is not None:
            errand.cancel()
        if wish.timer is not None:
            wish.timer.cancel()
        return stood

    def _look_again(self, at: Moored) -> None:
        asked = at.asked
        shared_reactor().call_at(shared_reactor().now() + LINGER, lambda: self._look(at, asked))

    def _look(self, at: Moored, asked: int) -> None:
        """Give the engine back if it has ended, or nothing is in flight and nothing was asked since the last look."""
        if at.lease.engine.exit is None and (at.asked != asked or not at.close()):
            if self._pool.owes():  # others have waited long enough: who comes now waits behind them
                with self._lock:
                    self._moored = None if self._moored is at else self._moored
            self._look_again(at)
            return
        with self._lock:
            self._held.discard(at)
            self._moored = None if self._moored is at else self._moored
        background.run(_put_back, at.lease)


def _put_back(lease: EngineLease[Engine]) -> None:
    engine = lease.engine
    if engine.alive:
        engine.reap_descendants()
        engine.be_shared(False)
    lease.give_back(broken=not engine.alive)


class SharedOrder:
    """A wish that can be given up."""

    def __init__(self, sharing: Sharing, wish: _Wish) -> None:
        self._sharing = sharing
        self._wish = wish

    def cancel(self) -> bool:
        """Give it up; false if it was served or refused."""
        return self._sharing._take(self._wish, for_good=True)
