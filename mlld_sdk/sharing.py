"""One engine for many requests at once, held from a bay for as long as there are any.

The engine is leased with the first request and given back a moment after the last, so that the runtime's budget has it
back. One in which a script may go on unseen, because it was cancelled or ran late, gets no new requests and ends with
its last; the next request finds another.
"""

import copy
import threading
from collections.abc import Callable
from typing import Any, Final

from mlld_sdk import errands
from mlld_sdk.bay import EngineBay, Lease
from mlld_sdk.engine_budget import Patience
from mlld_sdk.errors import MlldError
from mlld_sdk.orders import Errand
from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineClosed, EngineDied
from mlld_sdk.transport.reactor import Timer, shared_reactor

LINGER: Final = 0.1
"""Seconds between two looks whether the engine is still used; taking and giving back costs more than a request."""

A_YEAR: Final = 3e7
"""Seconds that are as good as for ever, and a number the system takes."""


class Moored:
    """A shared engine.

    Attributes:
        lease: How it is held.
        asked: Requests sent to it, so that a look can tell whether there were more since the last.
    """

    __slots__ = ("asked", "lease")

    def __init__(self, lease: Lease[Engine]) -> None:
        self.lease = lease
        self.asked = 0


class _Wish:
    """Somebody who waits for the engine."""

    __slots__ = ("then", "timeout", "timer")

    def __init__(self, then: Callable[[Moored | BaseException], object], timeout: float) -> None:
        self.then = then
        self.timeout = timeout
        self.timer: Timer | None = None


class Sharing:
    """Has everybody's requests made on the same engine of a bay."""

    def __init__(self, bay: EngineBay[Engine]) -> None:
        self._bay = bay
        self._lock = threading.Lock()
        self._moored: Moored | None = None  # takes new requests
        self._held: set[Moored] = set()
        self._wishes: set[_Wish] = set()
        self._errand: Errand[Engine] | None = None  # while anybody waits

    def submit(self, method: str, params: Any, timeout: float | None, on_events: OnEvents | None) -> Call | None:
        """Send a request to the engine; `None`, and nothing was sent, if there is none."""
        with self._lock:
            at = self._moored
            if at is None or not at.lease.engine.alive:
                return None
            at.asked += 1
            try:
                return at.lease.engine.submit(method, params, timeout=timeout, on_events=on_events)
            except (EngineClosed, EngineDied):  # it went in this moment
                return None

    def submit_to(
        self, at: Moored, method: str, params: Any, timeout: float | None, on_events: OnEvents | None
    ) -> Call:
        """Send a request to the engine that was waited for, or say how it ended."""
        with self._lock:
            at.asked += 1
            return at.lease.engine.submit(method, params, timeout=timeout, on_events=on_events)

    def order(
        self, then: Callable[[Moored | BaseException], object], timeout: float, patience: Patience
    ) -> "SharedOrder":
        """Have `then` called with the engine or the error, on another thread or on this one."""
        wish = _Wish(then, timeout)
        clock = shared_reactor()
        wish.timer = clock.call_at(clock.now() + min(timeout, A_YEAR), lambda: self._late(wish))
        try:
            with self._lock:
                at = self._moored
                if at is None or not at.lease.engine.alive:
                    at = None
                    if self._errand is None:
                        self._errand = self._bay.order(self._arrived, A_YEAR, patience)
                    self._wishes.add(wish)
        except BaseException:
            wish.timer.cancel()
            raise
        if at is not None:  # it has come in this moment
            wish.timer.cancel()
            then(at)
        return SharedOrder(self, wish)

    def kill(self, because: Callable[[], MlldError]) -> None:
        """Kill the engine, and those that only finish what they have; requests end with errors made by `because`."""
        with self._lock:
            held = list(self._held)
        for at in held:
            at.lease.engine.kill(because)

    def _arrived(self, outcome: Lease[Engine] | BaseException) -> None:
        if isinstance(outcome, BaseException):
            for wish in self._all_wishes():
                wish.then(copy.copy(outcome))
            return
        at = Moored(outcome)
        at.lease.engine.be_shared(True)
        at.lease.engine.add_exit_callback(lambda _: self._look(at, 0))
        for wish in self._all_wishes(at):
            wish.then(at)
        self._look_again(at)

    def _all_wishes(self, at: Moored | None = None) -> set[_Wish]:
        """Take everybody who waits, for an engine that has come or for none."""
        with self._lock:
            wishes, self._wishes, self._errand = self._wishes, set(), None
            if at is not None:
                self._moored = at
                self._held.add(at)
        for wish in wishes:
            if wish.timer is not None:
                wish.timer.cancel()
        return wishes

    def _late(self, wish: _Wish) -> None:
        with self._lock:
            errand = self._errand
        # What it waited for is known to the order; it is asked before the wish is taken back, which may end the order.
        why = None if errand is None else errand.refusal(wish.timeout)
        if self._take(wish) and why is not None:
            errands.run(wish.then, why)

    def _take(self, wish: _Wish) -> bool:
        """Take a wish back; the last one calls the errand off. False if it has been served or refused."""
        errand = None
        with self._lock:
            stood = wish in self._wishes
            self._wishes.discard(wish)
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
        engine = at.lease.engine
        with self._lock:
            used = engine.exit is None and (engine.is_busy or at.asked != asked)
            if not used:
                self._held.discard(at)
                self._moored = None if self._moored is at else self._moored
        if used:
            self._look_again(at)
        else:
            errands.run(_put_back, at.lease)


def _put_back(lease: Lease[Engine]) -> None:
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
        return self._sharing._take(self._wish)
