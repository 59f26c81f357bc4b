"""What happens under a supervisor, one event for each transition.

OTP's four reports keep their names in `context`: `start_error`, `child_terminated`, `shutdown_error` and `shutdown`.

Numbered, because tests cite them:

- E-1 A child that comes up is one `child.started`.
- E-2 A child whose start declined is one `child.ignored`.
- E-3 A start that failed is one `child.start_failed`, which says what follows.
- E-4 A child that ended by itself is one `child.exited`, which says what follows.
- E-5 A child that was told to stop and is gone is one `child.stopped`, which says whether it had to be killed; so is
  one whose planned restart is called off, and one that was down for good and is now meant to be.
- E-6 A supervisor that comes up, gives up or is gone is one `supervisor.started`, `supervisor.gave_up`,
  `supervisor.stopped`; one changed live is one `supervisor.updated`.
- E-7 A child found stuck is one `child.wedged`; the kill that follows is its own `child.exited`.
- E-8 A breaker that changes its status is one `breaker.opened`, `breaker.half_opened` or `breaker.closed`.
- E-9 A planned restart that came due and was not made after all, because the child's breaker is closed to it or its
  limit is spent, is one `child.put_off`; a limit of the supervisor's is its `supervisor.gave_up`.
"""

from typing import Literal

import msgspec

from mlld_sdk.base.events import Event

Decision = Literal["restart", "wait", "park", "stop", "remove", "fail", "give_up", "shutdown", "roll_back", "refuse"]
"""What a supervisor does about an end.

`restart` starts it again at once, `wait` after a delay, `park` when its breaker allows; `stop` keeps the spec, `remove`
drops it; `fail` leaves it down because trying again is pointless or its own budget is spent; `give_up` ends the
supervisor, `shutdown` too but in good order; `roll_back` undoes the supervisor's own start; `refuse` answers the caller
who wanted the start.
"""

GivenUpFor = Literal["limit", "escalated", "configuration", "ladder"]


class BudgetView(msgspec.Struct, frozen=True):
    """How much of a restart limit is used up."""

    used: int
    limit: int
    within: float


class ChildEvent(Event, frozen=True, kw_only=True):
    """Something about one child.

    Attributes:
        path: Where it stands in the tree, `root/workers/w3`.
        incarnation: Which start of it this is about, counted from 1.
    """

    path: str
    incarnation: int


class ChildStarted(ChildEvent, frozen=True, kw_only=True, tag="child.started"):
    """A child is up.

    Attributes:
        cause: What started it: the supervisor's own start, a restart, or a call.
        took: Seconds its start took.
        rung: Rung of its ladder (0: its own options).
    """

    cause: Literal["init", "restart", "call"]
    took: float = 0.0
    rung: int = 0


class ChildIgnored(ChildEvent, frozen=True, kw_only=True, tag="child.ignored"):
    """A child's start declined: it is not running, and that is no failure.

    Attributes:
        kept: Whether it stays declared.
    """

    kept: bool


class ChildFailure(ChildEvent, frozen=True, kw_only=True):
    """An end or a failed start, with what follows.

    Attributes:
        kind: Family of the reason: `crash`, `killed`, `wedged`, ...
        reason: The reason in one line.
        trace: Formatted traceback, bounded, when there is one.
        decision: What the supervisor does about it.
        next_attempt_in: Seconds until the next start attempt, when one is planned.
        budget: State of the limit that was charged, when one was.
        lived: Seconds it had been up.
        crash_id: Short name of this failure, to find it again.
        blame: Path of the supervisor that decided.
        context: OTP's name of the report.
    """

    kind: str
    reason: str
    trace: str = ""
    decision: Decision
    next_attempt_in: float | None = None
    budget: BudgetView | None = None
    lived: float | None = None
    crash_id: str = ""
    blame: str = ""


class ChildStartFailedEvent(ChildFailure, frozen=True, kw_only=True, tag="child.start_failed"):
    """A child did not start."""

    context: Literal["start_error"] = "start_error"


class ChildExited(ChildFailure, frozen=True, kw_only=True, tag="child.exited"):
    """A child ended that had not been told to."""

    context: Literal["child_terminated"] = "child_terminated"


class ChildStopped(ChildEvent, frozen=True, kw_only=True, tag="child.stopped"):
    """A child was told to stop, or to give up waiting for a restart, and is down.

    Attributes:
        cause: Why it was told: a group restart, a call, or the supervisor's own end.
        kind: Family of the reason it ended with.
        reason: The reason in one line.
        killed: Whether it had to be killed, because its spec says so or because its time was up.
        overdue: Whether its time was up.
        took: Seconds it took.
        context: `shutdown_error` when it ended with a reason that is not expected of an ordered stop.
    """

    cause: Literal["group", "call", "stop", "roll_back", "give_up"]
    kind: str
    reason: str
    killed: bool = False
    overdue: bool = False
    took: float = 0.0
    context: Literal["", "shutdown_error"] = ""


class ChildPutOff(ChildEvent, frozen=True, kw_only=True, tag="child.put_off"):
    """A planned restart came due and was not made.

    Attributes:
        decision: What follows: `park` until its breaker allows, `fail` or `remove` because its own budget is spent.
        reason: How it ended last, in one line.
        next_attempt_in: Seconds until it is tried again, when it is.
        budget: State of the limit that was charged, when one was.
    """

    decision: Decision
    reason: str
    next_attempt_in: float | None = None
    budget: BudgetView | None = None


class ChildWedged(ChildEvent, frozen=True, kw_only=True, tag="child.wedged"):
    """A child has work and finishes nothing; it is being killed.

    Attributes:
        idle: Seconds without progress.
        times: How many times in a row on this rung.
        rung: The rung it was on.
    """

    idle: float
    times: int
    rung: int


class SupervisorEvent(Event, frozen=True, kw_only=True):
    """Something about a supervisor itself.

    Attributes:
        path: Where it stands in the tree.
    """

    path: str


class SupervisorStarted(SupervisorEvent, frozen=True, kw_only=True, tag="supervisor.started"):
    """All its children have started or declined.

    Attributes:
        children: How many it has.
        strategy: `one_for_one`, `one_for_all`, `rest_for_one` or `dynamic`.
    """

    children: int
    strategy: str


class SupervisorGaveUp(SupervisorEvent, frozen=True, kw_only=True, tag="supervisor.gave_up"):
    """It stops because restarting did not help.

    Attributes:
        culprit: Path of the child whose end was one too many.
        why: `limit` exceeded, `escalated` by the child, `configuration` that retrying cannot mend, or the `ladder` of a
            stuck child came to its end.
        reason: The culprit's last reason.
        budget: State of the limit that was exceeded, when one was.
        context: OTP's name of the report.
    """

    culprit: str
    why: GivenUpFor
    reason: str
    budget: BudgetView | None = None
    context: Literal["shutdown"] = "shutdown"


class SupervisorStopped(SupervisorEvent, frozen=True, kw_only=True, tag="supervisor.stopped"):
    """It is gone, and all its children with it.

    Attributes:
        kind: Family of the reason it ends with.
        reason: The reason in one line.
        killed: Paths of the children that had to be killed because their time was up.
        took: Seconds from the first stop to the last.
    """

    kind: str
    reason: str
    killed: tuple[str, ...] = ()
    took: float = 0.0


class SupervisorUpdated(SupervisorEvent, frozen=True, kw_only=True, tag="supervisor.updated"):
    """Its flags and specs were replaced while it runs.

    Attributes:
        replaced: Children whose spec changed; those that run go on as they are.
        added: Children that are new, not started yet.
    """

    replaced: tuple[str, ...]
    added: tuple[str, ...]


class BreakerEvent(Event, frozen=True, kw_only=True):
    """Something about a circuit breaker.

    Attributes:
        breaker: Its name; the path of the child it stands in front of, if it has no other.
    """

    breaker: str


class BreakerOpened(BreakerEvent, frozen=True, kw_only=True, tag="breaker.opened"):
    """Calls are refused from now on.

    Attributes:
        cause: What opened it.
        retry_after: Seconds until calls are let through to try; `None` when only `reset` opens the way again.
    """

    cause: str
    retry_after: float | None


class BreakerHalfOpened(BreakerEvent, frozen=True, kw_only=True, tag="breaker.half_opened"):
    """It has been open for its time, a few probes may pass."""


class BreakerClosed(BreakerEvent, frozen=True, kw_only=True, tag="breaker.closed"):
    """Calls pass again, or the child behind the breaker has left for good."""
