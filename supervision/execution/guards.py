"""The circuit breakers in front of one supervisor's children: they hear of ends and are asked before restarts."""

from collections.abc import Callable

from mlld_sdk.actors.core.timers import Timer, Timers
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.breaker import Breaker, Breakers, Permit
from mlld_sdk.supervision.decisions.restart_policy import STABLE
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.supervision.reasons import ChildExit
from mlld_sdk.supervision.spec import ChildSpec, SupervisorSpec

SHORTEST_PARK = 0.05
"""Seconds a refused child is parked at least."""


class BreakerGuards:
    """The breakers of one supervisor's children; used by that supervisor only."""

    __slots__ = ("_breakers", "_permits", "_resets", "_timers", "_verdicts")

    def __init__(self, breakers: Breakers, timers: Timers) -> None:
        self._breakers = breakers
        self._timers = timers
        self._permits: dict[int, Permit] = {}
        self._verdicts: dict[int, Timer] = {}
        self._resets: dict[int, tuple[Breaker, Callable[[], object]]] = {}

    def of(self, slot: Slot, path: str) -> Breaker | None:
        """Find the breaker in front of a child; `None` also if it contradicts another, for which no start succeeds."""
        if slot.spec.breaker is None:
            return None
        try:
            return self._breakers.get(slot.spec.breaker, path)
        except InvalidOption:
            return None

    def check(self, spec: SupervisorSpec) -> None:
        """Refuse specs whose breakers have the name of one with other settings: breakers live as long as their tree."""
        for child in spec.children:
            if child.breaker is not None and child.breaker.name:
                self._breakers.check(child.breaker, child.breaker.name)

    def tell(self, slot: Slot, path: str, exit_: ChildExit) -> float | None:
        """Report an end to the breaker; return for how many seconds it keeps the child parked, if it does."""
        guard = self.of(slot, path)
        if guard is None:
            return None
        timer = self._verdicts.pop(slot.key, None)
        if timer is not None:
            timer.cancel()
        permit = self._permits.pop(slot.key, None)
        if exit_.expected or slot.status == "stopping":
            if permit is not None:
                permit.withdraw()
        elif permit is not None:
            permit.settle(exit_)
        else:
            guard.report(exit_)
        view = guard.view()
        return view.retry_after if guard.policy.parks and view.status == "open" else None

    def ask(self, slot: Slot, path: str) -> float | None:
        """Ask whether a child may be started now; return for how many seconds it may not."""
        self.forget_reset(slot.key)
        guard = self.of(slot, path)
        if guard is None or not guard.policy.parks:
            return None
        try:
            permit = guard.acquire()
        except BreakerOpen as refused:
            return max(refused.retry_after, SHORTEST_PARK)
        if slot.status == "parked":
            self._permits[slot.key] = permit
        return None

    def child_is_up(self, key: int, spec: ChildSpec) -> None:
        """Report a success to the breaker when a child that was started as its probe has lived long enough (J-8)."""
        permit = self._permits.get(key)
        if permit is not None and spec.breaker is not None:
            stable = min(spec.backoff.stable if spec.backoff else STABLE, spec.breaker.patience() / 2)
            self._verdicts[key] = self._timers.after(stable, permit.settle)

    def on_reset(self, slot: Slot, path: str, closed: Callable[[], object]) -> None:
        """Call `closed()` when the breaker of a parked child is reset by hand."""
        guard = self.of(slot, path) if slot.status == "parked" else None
        if guard is not None:
            guard.on_reset(closed)
            self._resets[slot.key] = (guard, closed)

    def forget_reset(self, key: int) -> None:
        """Undo `on_reset`."""
        known = self._resets.pop(key, None) if self._resets else None
        if known is not None:
            known[0].forget(known[1])

    def close(self) -> None:
        """Undo everything that could still call back."""
        for timer in self._verdicts.values():
            timer.cancel()
        for key in list(self._resets):
            self.forget_reset(key)
