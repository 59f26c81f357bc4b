"""What a supervisor decides about: everything that can happen to it, as frozen values."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from mlld_sdk.supervision.decisions.requests import ManagementRequest
from mlld_sdk.supervision.reasons import ChildExit


class Begin(msgspec.Struct, frozen=True):
    """The supervisor itself starts: its declared children are to be started."""


class ChildInput(msgspec.Struct, frozen=True):
    """Something about one incarnation of a child; it is ignored when there is a later one."""

    key: int
    incarnation: int


class Started(ChildInput, frozen=True):
    """A start finished: the child is up."""

    child: Any


class Ignored(ChildInput, frozen=True):
    """A start finished: the child does not want to run, which is no failure."""


class FailedToStart(ChildInput, frozen=True):
    """A start finished: it failed.

    `holder`: the actor that has the child's registered name already, when that is why.
    """

    exit: ChildExit
    closed_for: float | None = None
    holder: Any = None


class Ended(ChildInput, frozen=True):
    """An incarnation that had come up ended.

    `closed_for`: seconds until its parking breaker, which has heard of this end, lets it start; `None`: now.
    `report`: paths below a supervisor among the children that had to be killed in its own stop.
    """

    exit: ChildExit
    closed_for: float | None = None
    report: tuple[str, ...] = ()


class Due(ChildInput, frozen=True):
    """The planned start attempt number `incarnation` of a child has come due."""

    closed_for: float | None = None


class Overdue(ChildInput, frozen=True):
    """A child that was told to stop has had its time."""


class NoProgress(ChildInput, frozen=True):
    """A child has had work and finished nothing for `idle` seconds."""

    idle: float


class Configured(ChildInput, frozen=True):
    """A child was given other options while it runs, which its next incarnations are to have, too."""

    options: Mapping[str, Any]


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


Input: TypeAlias = Begin | ChildInput | Asked | StopRequested
