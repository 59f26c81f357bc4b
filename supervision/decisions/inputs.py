"""What a supervisor decides about: everything that can happen to it, as frozen values."""

from typing import Any, TypeAlias

import msgspec

from mlld_sdk.supervision.decisions.requests import ManagementRequest
from mlld_sdk.supervision.exits import ChildExit


class Begin(msgspec.Struct, frozen=True):
    """The supervisor itself starts: its declared children are to be started."""


class Started(msgspec.Struct, frozen=True):
    """A start finished: the child is up."""

    key: int
    incarnation: int
    child: Any


class Ignored(msgspec.Struct, frozen=True):
    """A start finished: the child does not want to run, which is no failure."""

    key: int
    incarnation: int


class FailedToStart(msgspec.Struct, frozen=True):
    """A start finished: it failed.

    `holder`: the actor that has the child's registered name already, when that is why.
    """

    key: int
    incarnation: int
    exit: ChildExit
    closed_for: float | None = None
    holder: Any = None


class Ended(msgspec.Struct, frozen=True):
    """An incarnation that had come up ended.

    `closed_for`: seconds until its parking breaker, which has heard of this end, lets it start; `None`: now.
    `report`: paths below a supervisor among the children that had to be killed in its own stop.
    """

    key: int
    incarnation: int
    exit: ChildExit
    closed_for: float | None = None
    report: tuple[str, ...] = ()


class Due(msgspec.Struct, frozen=True):
    """The planned start attempt number `incarnation` of a child has come due."""

    key: int
    incarnation: int
    closed_for: float | None = None


class Overdue(msgspec.Struct, frozen=True):
    """A child that was told to stop has had its time."""

    key: int
    incarnation: int


class AllOverdue(msgspec.Struct, frozen=True):
    """Every child of a dynamic supervisor that was told to stop and whose time is over by now has had it."""


class NoProgress(msgspec.Struct, frozen=True):
    """A child has had work and finished nothing for `idle` seconds."""

    key: int
    incarnation: int
    idle: float


class Asked(msgspec.Struct, frozen=True):
    """A management call arrived.

    Attributes:
        call: Names the call in the answer.
        request: What is wanted.
        caller: Key of the child that asks, if one of the children does.
    """

    call: Any
    request: ManagementRequest
    caller: int | None = None


class StopRequested(msgspec.Struct, frozen=True):
    """The supervisor is to stop all children and end.

    Attributes:
        exit: The reason to end with.
        deadline: Monotonic instant at which whatever is left is killed; `None` leaves it to the children's specs.
        drain: Whether children handle first what waits for them.
    """

    exit: ChildExit
    deadline: float | None = None
    drain: bool = False


Input: TypeAlias = (
    Begin | Started | Ignored | FailedToStart | Ended | Due | Overdue | AllOverdue | NoProgress | Asked | StopRequested
)
