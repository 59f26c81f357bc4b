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
        inside: As many items as threads are about to send a request. They enter, and then look whether it is closed;
            who closes it looks then whether somebody is inside. So nobody waits for a lock to send.
        closed: It takes no more requests.
    """

    __slots__ = ("asked", "closed", "inside", "lease")

    def __init__(self, lease: Lease[Engine]) -> None:
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
        self.closed = True
        self.closed = not self.inside and not self.lease.engine.is_busy
        return self.closed


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

    def order(
        self, then: Callable[[Moored | BaseException], object], timeout: float, patience: Patience
    ) -> "SharedOrder":
        """Have `then` called with the engine, which is kept meanwhile, or the error; on any thread, this one too."""
        wish = _Wish(then, timeout)
        clock = shared_reactor()
        wish.timer = clock.call_at(clock.now() + min(timeout, A_YEAR), lambda: self._late(wish))
        try:
            with self._lock:
                at = self._moored
                if at is None or not at.enter():
                    at = None
                    if self._errand is None:
                        self._errand = self._bay.order(self._arrived, A_YEAR, patience)
                    self._wishes[wish] = None
        except BaseException:
            wish.timer.cancel()
            raise
        if at is not None:  # it has come in this moment
            wish.timer.cancel()
            try:
                then(at)
            finally:
                at.leave()
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
        at.inside.append(None)
        try:
            for wish in self._all_wishes(at):
                wish.then(at)
        finally:
            at.leave()
            self._look_again(at)

    def _all_wishes(self, at: Moored | None = None) -> list[_Wish]:
        """Take everybody who waits, for an engine that has come or for none."""
        with self._lock:
            wishes, self._wishes, self._errand = list(self._wishes), {}, None
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
            self._wishes.pop(wish, None)
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
            self._look_again(at)
            return
        with self._lock:
            self._held.discard(at)
            self._moored = None if self._moored is at else self._moored
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
