"""From wanting an engine to holding it: a place in the pool's queue, then leave of the budget, then a start.

An `Order` is that way, and takes no step by itself. It is driven by a thread that waits (`wait_for`), or as an `Errand`
by whatever happens: then nobody waits, and a thousand orders cost no thread.
"""

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar, cast

from mlld_sdk.base.durations import LONGEST_WAIT
from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.engines import background
from mlld_sdk.engines.quota import MEMORY_LOOK, Admission, CancelScope, Signal
from mlld_sdk.transport.errors import ForkedProcess
from mlld_sdk.transport.reactor import ReactorTimer, shared_reactor

if TYPE_CHECKING:
    from mlld_sdk.engines.pool import EngineLease, EnginePool, Leasable, PooledEngine

E = TypeVar("E", bound="Leasable")

Stage = Literal["new", "queued", "served", "over"]

NEVER: Final = float("inf")

A_YEAR: Final = 3e7
"""Seconds that are as good as for ever, and a number the system takes."""

_here = threading.local()
"""Whether this thread takes a step for an errand already."""


class NoEngineFree(InfrastructureError):
    """Every engine of the pool stayed busy until the deadline."""

    code = "NO_ENGINE_FREE"


class Order(Generic[E]):
    """One wish for an engine. Used by one thread at a time.

    Args:
        pool: Where it is placed.
        signal: Makes what is set when `advance` may have something to do, once the order has to wait.
        waits: Whether `advance` may wait for the end of an engine whenever it is called; else only when `is_slow`.

    Attributes:
        stage: How far it has come in the pool; changed by the pool, under its lock.
        since: When it began to wait.
        pooled: The engine it was given; `None` if it was given leave to start one.
        changed: The signal, while it waits.
    """

    __slots__ = ("_admission", "_pool", "_signal", "_waits", "changed", "pooled", "since", "stage")

    def __init__(
        self, pool: "EnginePool[E]", signal: Callable[[], Signal] = threading.Event, *, waits: bool = True
    ) -> None:
        self._pool = pool
        self._signal = signal
        self._waits = waits
        self._admission: Admission | None = None
        self.stage: Stage = "new"
        self.since = 0.0
        self.pooled: PooledEngine[E] | None = None
        self.changed: Signal | None = None

    @property
    def is_slow(self) -> bool:
        """Whether the next `advance` may put an idle engine to sleep and wait for its end."""
        return self._admission is not None

    @property
    def look_after(self) -> float:
        """Seconds after which `advance` may have something to do although nobody said so."""
        return NEVER if self._admission is None else MEMORY_LOOK

    def stand(self, now: float) -> None:
        """Begin to wait in the pool's queue, which it is in from now on."""
        self.stage, self.since, self.changed = "queued", now, self._signal()

    def serve(self, pooled: "PooledEngine[E] | None") -> None:
        """Take an engine, or leave to start one. Whoever gives it calls `tell` when it has let go of its locks."""
        self.stage, self.pooled = "served", pooled

    def tell(self) -> None:
        """Have whoever drives this go on."""
        if self.changed is not None:
            self.changed.set()

    def claim(self) -> bool:
        """Stand in the queue, or have a turn at once; says whether there is a turn. Never blocks."""
        return self.stage == "served" or self._pool._claim(self)

    def advance(self) -> "EngineLease[E] | None":
        """Go as far as can be gone now, which may include starting an engine; gives the lease at the end of the way."""
        if not self.claim():
            return None
        if self.pooled is None:
            permit = self._pool._budget.try_acquire() if self._admission is None else self._admission.advance()
            if permit is None and self._admission is None:
                self.changed = self.changed or self._signal()
                self._admission = self._pool._budget.queue(self.changed)
                if self._waits:
                    permit = self._admission.advance()
                else:
                    self.changed.set()
            if permit is None:
                return None
            self._admission = None
            self.pooled = self._pool._start_one(permit, leased=True)
        self.stage = "over"
        return self._pool._handed_out(self.pooled)

    def leave(self) -> None:
        """Give the wish up, wherever it is; what it was given goes to the next."""
        stage, self.stage = self._pool._left(self), "over"
        if self._admission is not None:
            self._admission.leave()
        if stage == "served":
            self._pool._declined(self.pooled)

    def refusal(self, waited: float) -> InfrastructureError:
        """Say what it waited for in vain."""
        admission = self._admission  # whoever asks need not be who drives it
        if admission is not None:
            return admission.refusal(waited)
        return NoEngineFree(
            f"{self._pool.label}: all {self._pool._turns} engines stayed busy for {waited:g} s",
            hint="raise the size, the overflow or the timeout",
        )


def wait_for(order: Order[E], timeout: float, patience: CancelScope, now: Callable[[], float]) -> "EngineLease[E]":
    """Drive an order on this thread until there is a lease, the time has passed, or there is nothing to wait for."""
    deadline = now() + timeout
    try:
        lease = order.advance()
        if lease is None:
            changed = cast("threading.Event", order.changed)
            patience.tell(changed)
            try:
                while lease is None:
                    left = deadline - now()
                    if left <= 0 or patience.over is not None:
                        raise order.refusal(timeout)
                    changed.wait(min(left, order.look_after, LONGEST_WAIT))
                    changed.clear()
                    lease = order.advance()
            finally:
                patience.forget(changed)
    except BaseException:
        order.leave()
        raise
    return lease


class Errand(Generic[E]):
    """An order that is seen to on the threads for errands, whenever something has changed.

    Args:
        pool: Where the order is placed.
        then: Called once, on such a thread, with the lease or the error; not after `cancel`.
        timeout: Seconds it may take.
        patience: Whether there is anything to wait for.

    Raises:
        EnginePoolClosed: There is nothing to order any more.
    """

    def __init__(
        self,
        pool: "EnginePool[E]",
        then: "Callable[[EngineLease[E] | BaseException], object]",
        timeout: float,
        patience: CancelScope,
    ) -> None:
        self._order: Order[E] = Order(pool, lambda: self, waits=False)
        self._then: Callable[[EngineLease[E] | BaseException], object] | None = then
        self._timeout = timeout
        self._patience = patience
        self._process = os.getpid()
        self._now = shared_reactor().now
        self._deadline = self._now() + timeout
        self._stepping = threading.Lock()
        self._ending = threading.Lock()
        self._timer: ReactorTimer | None = None
        with self._stepping:
            if self._order.claim():
                self.set()
            else:  # in its place in the queue from this moment
                self._look_again(timeout)
            patience.tell(self)  # before a step may end it, and have it forgotten

    def set(self) -> None:
        """Have the next step taken: here if an engine has come, else on a thread that may wait for one."""
        if self._order.pooled is None or self._stepping.locked() or getattr(_here, "stepping", False):
            self._step_elsewhere()
            return
        _here.stepping = True  # what takes this engine may give it back at once, to the next, and so on: not in here
        try:
            self._step()
        finally:
            _here.stepping = False

    def cancel(self) -> bool:
        """Give the order up; false if it has come to its end, and `then` has been or is being told."""
        if self._take_then() is None:
            return False
        self._step_elsewhere()  # whoever cancels does not pass on what it was given
        return True

    def refusal(self, waited: float) -> InfrastructureError:
        """Say what it waits for in vain."""
        return self._order.refusal(waited)

    def _step_elsewhere(self) -> None:
        (background.run_patiently if self._order.is_slow else background.run)(self._step)

    def _take_then(self) -> "Callable[[EngineLease[E] | BaseException], object] | None":
        with self._ending:
            then, self._then = self._then, None
            return then

    def _step(self) -> None:
        with self._stepping:
            if self._order.stage == "over":
                return
            outcome = self._outcome()
            if outcome is None:
                return
            self._patience.forget(self)
            self._look_again(None)
        then = self._take_then()
        if then is not None:
            then(outcome)
        elif not isinstance(outcome, BaseException):
            outcome.give_back()

    def _outcome(self) -> "EngineLease[E] | BaseException | None":
        if os.getpid() != self._process:  # it is the parent that waits, and will be served
            return ForkedProcess("the order belongs to the process this one was forked from")
        try:
            lease = None if self._then is None else self._order.advance()
            if lease is None:
                left = self._deadline - self._now()
                if self._then is None or left <= 0 or self._patience.over is not None:
                    raise self._order.refusal(self._timeout)
                self._look_again(min(left, self._order.look_after))
        except BaseException as error:  # noqa: BLE001 - it is the outcome, for whoever ordered
            self._order.leave()
            return error
        return lease

    def _look_again(self, delay: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay is None else shared_reactor().call_at(self._now() + min(delay, A_YEAR), self.set)
