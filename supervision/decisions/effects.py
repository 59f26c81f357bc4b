"""What a supervisor has decided to do: frozen values that the executor carries out, in order.

Decisions know no threads, so a test can be the executor, and the simulator of the scenario tests is.
"""

from typing import Any, TypeAlias

import msgspec

from mlld_sdk.base.events import Event
from mlld_sdk.supervision.decisions.inputs import Due
from mlld_sdk.supervision.reasons import ChildExit
from mlld_sdk.supervision.spec import ChildSpec


class ChildEffect(msgspec.Struct, frozen=True):
    """Something to do about one incarnation of a child."""

    key: int
    incarnation: int


class Start(ChildEffect, frozen=True):
    """Start this incarnation; `Started`, `Ignored` or `FailedToStart` follows."""

    spec: ChildSpec
    rung: int
    label: str


class RequestStop(ChildEffect, frozen=True):
    """Ask an incarnation to end; `Ended` follows, or `Overdue` when it still runs at the instant `due`.

    A supervisor among the children gets it as `StopRequested`, with this `deadline`.
    """

    due: float
    deadline: float | None
    drain: bool


class LimitStops(msgspec.Struct, frozen=True):
    """Kill the children that were asked to end and still run at this instant."""

    due: float


class Kill(ChildEffect, frozen=True):
    """End an incarnation now, whatever it does; `Ended` follows."""

    exit: ChildExit


class Arm(msgspec.Struct, frozen=True):
    """Feed `then` back after `delay` seconds. `delay` 0: behind whatever waits already."""

    delay: float
    then: Due


class Disarm(msgspec.Struct, frozen=True):
    """Cancel the timer for this child's `Due`."""

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


Effect: TypeAlias = ChildEffect | LimitStops | Arm | Disarm | Forget | AnswerCall | Emit | Ready | Finish
