"""Circuit breakers of what steps call: a model provider, a payment service, another agent.

Each step goes through the breaker it names, else through the one its agent was declared with. Which errors a breaker
is told of, and which say nothing about what it guards, is decided in `runs.failures`.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import msgspec

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.options import check_class
from mlld_sdk.runs.failures import is_news
from mlld_sdk.supervision.breaker import Breaker, BreakerPolicy, Breakers, Permit

MOST_NAMES: Final = 1_000
"""Breakers that the steps of one incarnation of an agent may name."""

StepBreaker: TypeAlias = BreakerPolicy | Literal[False] | None
"""The breaker of one step: a policy with a name, none (`False`), or the agent's (`None`)."""


class StepWait(msgspec.Struct, frozen=True, kw_only=True):
    """A step that waits until its circuit breaker lets it through.

    Attributes:
        run_id: The run.
        step: Name of the step.
        breaker: Name of the breaker.
        retry_after: Seconds until it is tried again at the latest.
    """

    run_id: str
    step: str
    breaker: str
    retry_after: float


class StepGuard:
    """The breaker in front of one step, and what that step does while it is open."""

    __slots__ = ("breaker", "fails")

    def __init__(self, breaker: Breaker, policy: BreakerPolicy) -> None:
        self.breaker = breaker
        self.fails = policy.when_open == "fail"

    def tell(self, permit: Permit, error: BaseException) -> None:
        """Report a failed attempt, if it says anything about what the breaker guards."""
        if is_news(error, self.breaker.name):
            permit.settle(error)
        else:
            permit.withdraw()


class StepBreakers:
    """The breakers of one agent's steps, and which steps wait for them. Thread-safe.

    Args:
        breakers: Those of the tree.

    Attributes:
        own: The one the agent was declared with.
    """

    def __init__(self, breakers: Breakers) -> None:
        self.own: StepGuard | None = None
        self._breakers = breakers
        self._named: dict[str, int] = {}
        self._waits: dict[int, StepWait] = {}
        self._lock = threading.Lock()

    def of(self, declared: StepBreaker) -> StepGuard | None:
        """Find the breaker of a step.

        Raises:
            InvalidOption: It has no name, or its name stands for one with other settings.
        """
        if declared is None:
            return self.own
        if declared is False:
            return None
        check_class("breaker", declared, BreakerPolicy)
        if not declared.name:
            raise InvalidOption("breaker", declared, "circuit_breaker(...) with a name, by which steps share it")
        with self._lock:
            if len(self._named) >= MOST_NAMES and declared.name not in self._named:
                raise InvalidOption("breaker", declared.name, f"one of at most {MOST_NAMES} names")
            guard = StepGuard(self._breakers.get(declared, declared.name), declared)
            self._named.setdefault(declared.name, 0)
        return guard

    @contextlib.contextmanager
    def waiting(self, wait: StepWait) -> Iterator[None]:
        """Show a step as waiting inside this block."""
        with self._lock:
            self._waits[id(wait)] = wait
        try:
            yield
        finally:
            with self._lock:
                del self._waits[id(wait)]

    def waits(self) -> tuple[StepWait, ...]:
        """List the steps that wait now, with the time that is left."""
        with self._lock:
            waits = list(self._waits.values())
        return tuple(msgspec.structs.replace(one, retry_after=self._left(one.breaker)) for one in waits)

    def by_name(self) -> dict[str, int]:
        """Return the breakers that were used, and how many steps wait for each now."""
        with self._lock:
            waits = Counter(one.breaker for one in self._waits.values()) if self._waits else {}
            return self._named | waits

    def _left(self, name: str) -> float:
        known = self._breakers.find(name)
        return 0.0 if known is None else known.view().retry_after
