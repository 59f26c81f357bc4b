"""Circuit breakers: stop hammering what is broken, and find out carefully when it works again.

```
            too many failures                    its time is over
  closed ───────────────────────▶ open ───────────────────────▶ half-open
    ▲                              ▲                               │  │
    └──────────────────────────────┼───── enough probes went well ─┘  │
                                   └───────────── one probe failed ───┘
```

The rules are pure functions over a frozen `Circuit`; `Breaker` is the thin shell that callers share between threads.

- Closed: everything passes. It opens on `failures` failures in a row within `within` seconds, or when at least
  `minimum` results of the last `within` seconds hold `rate` or more failures.
- Open: every call is refused at once with the time to wait. That time grows with every opening in a row.
- Half-open: at most `probes` calls are on their way at any time, the rest is refused. `successes` good ones close the
  breaker, one bad one opens it again. A probe that never reports counts as bad after `probe_timeout`, so a caller that
  died cannot hold the breaker half-open for ever.
- A result belongs to the period in which its call was let through: a call from before the breaker opened that fails
  late says nothing about the probes and is not counted.
- `trip` holds the breaker open until `reset`, whatever the clock says.
- What is called while the same thread or task has leave of a breaker already is part of that call: it passes, and only
  the outer call is reported.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from math import inf
from typing import Final, Literal, Self, TypeVar

import msgspec

from mlld_sdk.base.durations import Duration, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InvalidOption, TaskError
from mlld_sdk.base.events import Sink, discard
from mlld_sdk.base.options import check_callable, checked, number, one_of, whole
from mlld_sdk.base.texts import text_of, text_of_error
from mlld_sdk.supervision.errors import BreakerNotFound, BreakerOpen
from mlld_sdk.supervision.events import BreakerClosed, BreakerHalfOpened, BreakerOpened

T = TypeVar("T")

Status = Literal["closed", "open", "half_open"]

WINDOW: Final = 30.0
"""Seconds both rules look back unless the policy says otherwise."""

PATIENCE: Final = 30.0
STEP_PATIENCE: Final = 600.0
"""Seconds the result of a probe is waited for, and that of a step, unless the policy says otherwise."""

BUCKETS = 10
"""Parts a rate window is cut into; results leave the window one part at a time."""

Buckets = tuple[tuple[int, int, int], ...]
"""Results by time: number of the part, good ones, bad ones."""


def infrastructure_failure(failure: object) -> bool:
    """Count everything but a task that failed by itself, which says nothing about what runs it; an outage does."""
    return failure is not None and (not isinstance(failure, TaskError) or failure.outage)


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, for how long, and how it tries again. Build it with `circuit_breaker(...)`."""

    name: str = ""
    failures: int | None = 5
    rate: float | None = None
    minimum: int = 10
    within: float | None = None
    open_for: float = 10.0
    growth: float = 2.0
    longest: float = 300.0
    probes: int = 1
    successes: int = 1
    probe_timeout: float | None = None
    parks: bool = False
    when_open: Literal["wait", "fail"] = "wait"
    counts: Callable[[object], bool] | None = None

    def patience(self, *, for_step: bool = False) -> float:
        """Return for how long the result of a probe is waited for."""
        if self.probe_timeout is not None:
            return self.probe_timeout
        return STEP_PATIENCE if for_step else PATIENCE


def circuit_breaker(
    name: str = "",
    *,
    failures: int | None = 5,
    rate: float | None = None,
    minimum: int = 10,
    within: Duration | None = None,
    open_for: Duration = 10.0,
    growth: float = 2.0,
    longest: Duration = 300.0,
    probes: int = 1,
    successes: int = 1,
    probe_timeout: Duration | None = None,
    parks: bool = False,
    when_open: Literal["wait", "fail"] = "wait",
    counts: Callable[[object], bool] | None = None,
) -> BreakerPolicy:
    """Declare a circuit breaker.

    Args:
        name: Breakers of one name in one tree are one breaker. Empty: the child's own.
        failures: Failures in a row, within `within`, that open it. `None` turns this rule off.
        rate: Share of failures among the results within `within` that opens it. `None` turns this rule off.
        minimum: Results the rate rule needs before it judges.
        within: Length of the window of both rules. By default 30 seconds; but failures of steps in a row do not grow
            old, since a model may take minutes to fail, and every attempt says how it went.
        open_for: How long it stays open the first time.
        growth: Factor from one opening to the next when the probes keep failing.
        longest: Upper bound of that time when it grows.
        probes: Calls let through at the same time when half-open.
        successes: Good probes that close it.
        probe_timeout: A probe without a result for so long counts as bad; by default after 30 seconds, a step of a run
            after ten minutes.
        parks: Whether an open breaker also keeps its child from being restarted (see `decide`).
        when_open: What a step of a run does while it is open: `wait` until it is let through, without using up an
            attempt, or `fail` with `BreakerOpen`. Requests are refused in any case.
        counts: Given the exception or the exit reason, says whether it is a failure of what the breaker guards. By
            default, `infrastructure_failure` decides about requests and ends; of steps, all failures count that are
            ones of what they have called.

    Raises:
        InvalidOption: A value is out of range, or both rules are off.
    """
    one_of("when_open", when_open, "wait", "fail")
    if failures is None and rate is None:
        raise InvalidOption("failures", failures, "a whole number >= 1 unless `rate` is given")
    checked(BreakerPolicy, {"name": name, "parks": parks})
    if counts is not None:
        check_callable("counts", counts)
    shortest = seconds(open_for, "open_for", above=0, infinite=False)
    return BreakerPolicy(
        name=name,
        failures=None if failures is None else whole("failures", failures, least=1),
        rate=None if rate is None else number("rate", rate, 0, 1),
        minimum=whole("minimum", minimum, least=1),
        within=None if within is None else seconds(within, "within", above=0, infinite=False),
        open_for=shortest,
        growth=number("growth", growth, 1, 1000),
        longest=max(seconds(longest, "longest", above=0, infinite=False), shortest),
        probes=whole("probes", probes, least=1),
        successes=whole("successes", successes, least=1),
        probe_timeout=None
        if probe_timeout is None
        else seconds(probe_timeout, "probe_timeout", above=0, infinite=False),
        parks=parks,
        when_open=when_open,
        counts=counts,
    )


class Circuit(msgspec.Struct, frozen=True):
    """Everything a breaker remembers.

    Attributes:
        status: Closed, open or half-open.
        period: Number of the current period; results of calls from older ones do not count.
        failed_at: When the failures in a row happened, oldest first (closed).
        buckets: Results by time (closed, with a rate).
        until: When it may be tried again (open); `None` while tripped by hand.
        openings: Openings in a row.
        probes: When each of the probes on their way counts as bad (half-open).
        good: Good probes so far (half-open).
        cause: What opened it, in words.
    """

    status: Status = "closed"
    period: int = 0
    failed_at: tuple[float, ...] = ()
    buckets: Buckets = ()
    until: float | None = None
    openings: int = 0
    probes: tuple[float, ...] = ()
    good: int = 0
    cause: str = ""


def advance(policy: BreakerPolicy, circuit: Circuit, now: float) -> Circuit:
    """Return it as of now: an open one whose time is over becomes half-open; overdue probes count as bad."""
    if circuit.status == "open" and circuit.until is not None and now >= circuit.until:
        return Circuit("half_open", circuit.period + 1, openings=circuit.openings, cause=circuit.cause)
    if circuit.status == "half_open" and any(now > due for due in circuit.probes):
        return opened(policy, circuit, now, "a probe never reported")
    return circuit


def admit(policy: BreakerPolicy, circuit: Circuit, now: float, due: float | None = None) -> tuple[Circuit, bool]:
    """Decide about one call, which as a probe counts as bad at `due`; `circuit` must have been advanced to `now`."""
    if circuit.status == "closed":
        return circuit, True
    if circuit.status == "half_open" and len(circuit.probes) < policy.probes:
        return msgspec.structs.replace(circuit, probes=(*circuit.probes, now if due is None else due)), True
    return circuit, False


def retry_after(policy: BreakerPolicy, circuit: Circuit, now: float) -> float:
    """Return how long a refused caller should wait: the rest of its time, or of a probe's time."""
    if circuit.status == "open":
        return policy.longest if circuit.until is None else max(circuit.until - now, 0.0)
    if circuit.probes:
        return max(min(circuit.probes) - now, 0.0)
    return 0.0


def good(policy: BreakerPolicy, circuit: Circuit, now: float, due: float = inf) -> Circuit:
    """Take in a success of the current period, of the probe that was due then."""
    if circuit.status == "half_open":
        if circuit.good + 1 >= policy.successes:
            return Circuit(period=circuit.period + 1)
        return msgspec.structs.replace(circuit, good=circuit.good + 1, probes=_without(circuit.probes, due))
    if circuit.status == "open":
        return circuit
    return msgspec.structs.replace(circuit, failed_at=(), buckets=_count(policy, circuit, now, 1, 0))


def bad(policy: BreakerPolicy, circuit: Circuit, now: float, cause: str, *, of_step: bool = False) -> Circuit:
    """Take in a failure of the current period."""
    if circuit.status == "half_open":
        return opened(policy, circuit, now, cause)
    if circuit.status == "open":
        return circuit
    buckets = _count(policy, circuit, now, 0, 1)
    failed_at: tuple[float, ...] = ()
    if policy.failures is not None:
        window = policy.within or (inf if of_step else WINDOW)
        recent = (at for at in (*circuit.failed_at, now) if now - at <= window)
        failed_at = tuple(recent)[-policy.failures :]
        if len(failed_at) >= policy.failures:
            return opened(policy, circuit, now, cause)
    if policy.rate is not None:
        fine, failed = sum(bucket[1] for bucket in buckets), sum(bucket[2] for bucket in buckets)
        if fine + failed >= policy.minimum and failed / (fine + failed) >= policy.rate:
            return opened(policy, circuit, now, cause)
    return msgspec.structs.replace(circuit, failed_at=failed_at, buckets=buckets)


def opened(policy: BreakerPolicy, circuit: Circuit, now: float, cause: str) -> Circuit:
    """Open the breaker, for longer each time in a row."""
    open_for = min(policy.open_for * policy.growth ** min(circuit.openings, 60), policy.longest)
    return Circuit("open", circuit.period + 1, until=now + open_for, openings=circuit.openings + 1, cause=cause)


def tripped(circuit: Circuit, cause: str) -> Circuit:
    """Open the breaker until it is reset by hand."""
    return Circuit("open", circuit.period + 1, openings=circuit.openings, cause=cause)


def _by_hand(circuit: Circuit) -> bool:
    """Return whether only `reset` opens the way again."""
    return circuit.status == "open" and circuit.until is None


def _without(probes: tuple[float, ...], due: float) -> tuple[float, ...]:
    """Take one probe out, the one that is due then if it is known."""
    at = probes.index(due) if due in probes else 0
    return (*probes[:at], *probes[at + 1 :])


def _count(policy: BreakerPolicy, circuit: Circuit, now: float, fine: int, failed: int) -> Buckets:
    if policy.rate is None:
        return ()
    number = int(now / (policy.within or WINDOW) * BUCKETS)
    kept = tuple(bucket for bucket in circuit.buckets if bucket[0] > number - BUCKETS)
    if kept and kept[-1][0] == number:
        _, ok, bad_ones = kept[-1]
        return (*kept[:-1], (number, ok + fine, bad_ones + failed))
    return (*kept, (number, fine, failed))


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker as a value, for snapshots and pages.

    Attributes:
        name: Its name.
        status: Closed, open or half-open.
        retry_after: Duration until a refused caller should try again; 0 when calls pass.
        by_hand: Whether it was tripped by hand and only `reset` opens the way again.
        cause: What opened it.
        failures: Failures in a row while closed.
        openings: Openings in a row.
        passed: Calls let through since the start.
        refused: Calls refused since the start.
    """

    name: str
    status: Status
    retry_after: float = 0.0
    by_hand: bool = False
    cause: str = ""
    failures: int = 0
    openings: int = 0
    passed: int = 0
    refused: int = 0


class Permit:
    """The right to make one call, and the duty to report how it went. Only the first report counts.

    As a context manager it reports by itself: an exception the policy counts is a failure, anything else a success.
    """

    __slots__ = ("_breaker", "_due", "_of_step", "_period")

    def __init__(self, owner: "Breaker | None", period: int, due: float = inf, *, of_step: bool = False) -> None:
        self._breaker = owner
        self._period = period
        self._due = due
        self._of_step = of_step

    def withdraw(self) -> None:
        """Report nothing: the call was not made, or its end is reported elsewhere; another probe may pass instead."""
        owner, self._breaker = self._breaker, None
        if owner is not None:
            owner.withdraw(self._period, self._due)

    def settle(self, failure: object = None) -> None:
        """Report what went wrong, if anything did; whether it counts is up to the policy."""
        owner, self._breaker = self._breaker, None
        if owner is not None:
            owner.report(failure, self._period, self._due, of_step=self._of_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, failure: BaseException | None, _trace: object) -> None:
        self.settle(failure)


_inside: "ContextVar[tuple[Breaker, ...]]" = ContextVar("inside", default=())
"""The breakers that what runs here has leave of already."""


class Breaker:
    """One circuit breaker, shared by any number of threads.

    No user code runs under its lock except the policy's `counts`, and no lock is taken to let a call through while
    the breaker is closed.
    """

    def __init__(self, policy: BreakerPolicy, env: Env | None = None, sink: Sink = discard) -> None:
        self.policy = policy
        self.name: str = policy.name
        self._env = env or Env()
        self._sink = sink
        self._lock = threading.Lock()
        self._circuit = Circuit()
        self._passed = 0
        self._refused = 0
        self._watchers: tuple[Callable[[], object], ...] = ()
        self._waiting: set[Callable[[], object]] = set()

    def acquire(self, *, for_step: bool = False) -> Permit:
        """Ask for one call.

        Args:
            for_step: Whether it is an attempt of a step of a run, which counts and takes time in its own way.

        Raises:
            BreakerOpen: Not now; `retry_after` says when.
        """
        circuit = self._circuit
        if self in _inside.get():
            return Permit(None, circuit.period)
        if circuit.status == "closed":
            self._passed += 1
            return Permit(self, circuit.period, of_step=for_step)
        with self._lock:
            now = self._env.now()
            self._become(advance(self.policy, self._circuit, now))
            due = now + self.policy.patience(for_step=for_step)
            circuit, passes = admit(self.policy, self._circuit, now, due)
            self._become(circuit)
            if passes:
                self._passed += 1
                return Permit(self, circuit.period, due, of_step=for_step)
            self._refused += 1
            wait = retry_after(self.policy, circuit, now)
        raise BreakerOpen(self.name, wait, by_hand=_by_hand(circuit))

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` if the breaker lets it through, and report how it went.

        Raises:
            BreakerOpen: The function was not called.
        """
        with self.acquire():
            return function()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Make what is called in this block part of one call, for which there is a permit."""
        token = _inside.set((*_inside.get(), self))
        try:
            yield
        finally:
            _inside.reset(token)

    def report(self, failure: object, period: int | None = None, due: float = inf, *, of_step: bool = False) -> None:
        """Take in one result: `None` is a success, anything else is shown to the policy's `counts`.

        Args:
            failure: The exception or exit reason, or `None`.
            period: Period of the call's permit; `None` means the current one (an exit was noticed).
            due: When that call counts as bad, if it is a probe.
            of_step: Whether it is about a step of a run: if the policy has no `counts`, every failure counts then.
        """
        circuit = self._circuit
        counts = self.policy.counts
        if counts is None:
            counted = failure is not None and (of_step or infrastructure_failure(failure))
        else:
            counted = failure is not None and counts(failure)
        if not counted and circuit.status == "closed" and not circuit.failed_at and self.policy.rate is None:
            return
        with self._lock:
            now = self._env.now()
            self._become(advance(self.policy, self._circuit, now))
            if period is not None and period != self._circuit.period:
                return
            if counted:
                self._become(bad(self.policy, self._circuit, now, _words(failure), of_step=of_step))
            else:
                self._become(good(self.policy, self._circuit, now, due))

    def withdraw(self, period: int, due: float = inf) -> None:
        """Take back a call that was let through in this period and says nothing."""
        with self._lock:
            if period == self._circuit.period and self._circuit.probes:
                self._become(msgspec.structs.replace(self._circuit, probes=_without(self._circuit.probes, due)))

    def trip(self, cause: str = "tripped by hand") -> None:
        """Hold the breaker open until `reset`."""
        with self._lock:
            self._become(tripped(self._circuit, cause))

    def reset(self) -> None:
        """Close the breaker and forget every failure."""
        self.retire()
        for closed in self._watchers:
            closed()

    def retire(self) -> None:
        """Close the breaker because what it guarded is gone."""
        with self._lock:
            self._become(Circuit(period=self._circuit.period + 1))

    def on_reset(self, closed: Callable[[], object]) -> None:
        """Call `closed()`, which must be quick, whenever the breaker is reset by hand."""
        with self._lock:
            self._watchers = (*self._watchers, closed)

    def forget(self, closed: Callable[[], object]) -> None:
        """Undo `on_reset`."""
        with self._lock:
            self._watchers = tuple(known for known in self._watchers if known is not closed)

    @contextlib.contextmanager
    def telling(self, changed: Callable[[], object]) -> Iterator[None]:
        """Call `changed()`, which must be quick, whenever a call may be let through that was refused before."""
        with self._lock:
            self._waiting.add(changed)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(changed)

    def view(self) -> BreakerView:
        """Describe the breaker as it is now; takes no part in its life (no probe is used up)."""
        now = self._env.now()
        circuit = advance(self.policy, self._circuit, now)
        return BreakerView(
            name=self.name,
            status=circuit.status,
            retry_after=0.0 if admit(self.policy, circuit, now)[1] else retry_after(self.policy, circuit, now),
            by_hand=_by_hand(circuit),
            cause=circuit.cause,
            failures=len(circuit.failed_at),
            openings=circuit.openings,
            passed=self._passed,
            refused=self._refused,
        )

    def _become(self, circuit: Circuit) -> None:
        """Take over the next circuit; a change of status is one event."""
        before, self._circuit = self._circuit, circuit
        if circuit is not before:
            for changed in self._waiting:
                changed()
        if circuit.status == before.status and not (circuit.status == "open" and circuit.period != before.period):
            return
        at = self._env.wall()
        if circuit.status == "open":
            wait = None if circuit.until is None else circuit.until - self._env.now()
            self._sink(BreakerOpened(at=at, breaker=self.name, cause=circuit.cause, retry_after=wait))
        elif circuit.status == "half_open":
            self._sink(BreakerHalfOpened(at=at, breaker=self.name))
        else:
            self._sink(BreakerClosed(at=at, breaker=self.name))


def _words(failure: object) -> str:
    """Name a failure in a bounded text."""
    return text_of_error(failure, 200) if isinstance(failure, BaseException) else text_of(failure, 200)


class Breakers:
    """The breakers of one tree by name, made when they are first asked for."""

    def __init__(self, env: Env | None = None, sink: Sink = discard) -> None:
        self._env = env or Env()
        self._sink = sink
        self._lock = threading.Lock()
        self._known: dict[str, Breaker] = {}

    def get(self, policy: BreakerPolicy, own_name: str) -> Breaker:
        """Find or make the breaker of `policy`; one without a name is named `own_name`.

        Raises:
            InvalidOption: A breaker of that name exists with other settings.
        """
        name = policy.name or own_name
        with self._lock:
            known = self._known.get(name)
            if known is None:
                named = msgspec.structs.replace(policy, name=name)
                known = self._known[name] = Breaker(named, self._env, self._sink)
        self.check(policy, name)
        return known

    def check(self, policy: BreakerPolicy, name: str) -> None:
        """Refuse a policy whose settings are not those of the breaker of this name, if there is one.

        What children and steps make of an open breaker (`parks`, `when_open`) is their own matter.
        """
        known = self._known.get(name)
        if known is None:
            return
        own = msgspec.structs.replace(known.policy, name=policy.name, parks=policy.parks, when_open=policy.when_open)
        if own != policy:
            raise InvalidOption("breaker", name, "declared with the same settings wherever this name is used")

    def __getitem__(self, name: str) -> Breaker:
        """Find a breaker by its name; raises `BreakerNotFound`."""
        known = self._known.get(name)
        if known is None:
            raise BreakerNotFound(name)
        return known

    def find(self, name: str) -> Breaker | None:
        """Find the breaker of that name, if it was ever asked for."""
        return self._known.get(name)

    def views(self) -> list[BreakerView]:
        """Describe all breakers, by name."""
        with self._lock:
            known = sorted(self._known.values(), key=lambda breaker: breaker.name)
        return [one.view() for one in known]

    def forget(self, name: str) -> None:
        """Drop a breaker whose last user is gone; one that is not closed is told to be."""
        with self._lock:
            known = self._known.pop(name, None)
        if known is not None:
            known.retire()
