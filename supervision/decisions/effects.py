"""What a supervisor has decided to do: frozen values that the executor carries out, in order.

Decisions know no threads, so a test can be the executor, and the simulator of the scenario tests is.
"""

from typing import Any, TypeAlias

import msgspec

from mlld_sdk.base.events import Event
from mlld_sdk.supervision.decisions.inputs import AllOverdue, Due, Overdue
from mlld_sdk.supervision.exits import ChildExit
from mlld_sdk.supervision.spec import ChildSpec


class Start(msgspec.Struct, frozen=True):
    """Start this incarnation; `Started`, `Ignored` or `FailedToStart` follows."""

    key: int
    incarnation: int
    spec: ChildSpec
    rung: int
    label: str


class RequestStop(msgspec.Struct, frozen=True):
    """Ask an incarnation to end; `Ended` follows. A supervisor among the children gets it as `StopRequested`."""

    key: int
    incarnation: int
    deadline: float | None
    drain: bool


class Kill(msgspec.Struct, frozen=True):
    """End an incarnation now, whatever it does; `Ended` follows."""

    key: int
    incarnation: int
    exit: ChildExit


class Arm(msgspec.Struct, frozen=True):
    """Feed `then` back after `delay` seconds. `delay` 0: behind whatever waits already."""

    delay: float
    then: Due | Overdue | AllOverdue


class Disarm(msgspec.Struct, frozen=True):
    """Cancel the timer for this child's `Due` or `Overdue`."""

    key: int


class Forget(msgspec.Struct, frozen=True):
    """Drop the breaker of the child at this path: it has left for good, or has another one from now on."""

    path: str


class AnswerCall(msgspec.Struct, frozen=True):
    """Answer a call with a value, or with an error when `error` is given."""

    call: Any
    value: Any = None
    error: Exception | None = None


class Emit(msgspec.Struct, frozen=True):
    """Hand an event to the sink."""

    event: Event


class Ready(msgspec.Struct, frozen=True):
    """Report that the supervisor's own start is done."""


class Finish(msgspec.Struct, frozen=True):
    """End the supervisor. If it was not `Ready` before, its start has failed.

    Attributes:
        exit: The reason.
        killed: Paths below it that had to be killed because their time was up.
    """

    exit: ChildExit
    killed: tuple[str, ...] = ()


Effect: TypeAlias = Start | RequestStop | Kill | Arm | Disarm | Forget | AnswerCall | Emit | Ready | Finish
