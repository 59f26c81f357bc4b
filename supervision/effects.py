"""What goes into a supervisor's decisions and what comes out: inputs, requests and effects, all frozen values.

The shell turns what happens into inputs and carries effects out in order. Neither side knows threads: a test can be
the shell, and the simulator of the scenario tests is.
"""

from typing import Any, Literal, TypeAlias

import msgspec

from mlld_sdk.base.events import Event
from mlld_sdk.supervision.exits import ChildExit
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec

# -- inputs ------------------------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True):
    """Start the declared children."""


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
    `report`: what a supervisor among the children says about who had to be killed in its own stop.
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
    """Somebody makes a management call.

    Attributes:
        call: Names the call in the answer.
        request: What is wanted.
        caller: Key of the child that asks, if one of the children does.
    """

    call: Any
    request: "ManagementRequest"
    caller: int | None = None


class StopRequested(msgspec.Struct, frozen=True):
    """Stop all children and end.

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

# -- requests ----------------------------------------------------------------------------------------------------------


class StartChild(msgspec.Struct, frozen=True):
    """Add a child and start it; answered with the child, or `None` when it declined."""

    spec: ChildSpec


class RestartChild(msgspec.Struct, frozen=True):
    """Start a declared child that does not run; answered with the child, or `None` when it declined."""

    name: str


class TerminateChild(msgspec.Struct, frozen=True):
    """Stop a child, or give up its planned restart. Static supervisors keep the spec unless it is temporary."""

    name: str
    why: str = ""


class TerminateKey(msgspec.Struct, frozen=True):
    """Stop the child with this key (dynamic supervisors, where names may repeat)."""

    key: int


class DeleteChild(msgspec.Struct, frozen=True):
    """Forget a child that does not run."""

    name: str


class GetSpec(msgspec.Struct, frozen=True):
    """Answered with the complete spec of a child."""

    name: str


class WhichChildren(msgspec.Struct, frozen=True):
    """Answered with a list of `ChildRow`, most recently added first."""


class CountChildren(msgspec.Struct, frozen=True):
    """Answered with a `ChildCounts`."""


class Update(msgspec.Struct, frozen=True):
    """Replace flags and specs of the running supervisor."""

    spec: SupervisorSpec


class UpdateDynamic(msgspec.Struct, frozen=True):
    """Replace the flags of a running dynamic supervisor; its children go on."""

    spec: DynamicSpec


ManagementRequest: TypeAlias = (
    StartChild
    | RestartChild
    | TerminateChild
    | TerminateKey
    | DeleteChild
    | GetSpec
    | WhichChildren
    | CountChildren
    | Update
    | UpdateDynamic
)


class ChildRow(msgspec.Struct, frozen=True):
    """One line of `which_children`.

    Attributes:
        name: Name of the child.
        child: The running incarnation, or `None`.
        status: `running`, `restarting` (it waits or is parked) or `stopped`.
        kind: Worker or supervisor.
    """

    name: str
    child: Any
    status: Literal["running", "restarting", "stopped"]
    kind: Literal["worker", "supervisor"]


class ChildCounts(msgspec.Struct, frozen=True):
    """What `count_children` says: declared, running now, and both kinds whether running or not."""

    specs: int
    active: int
    supervisors: int
    workers: int


# -- effects -----------------------------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Start this incarnation; answered by `Started`, `Ignored` or `FailedToStart`."""

    key: int
    incarnation: int
    spec: ChildSpec
    rung: int


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
    """The timer for this child's `Due` or `Overdue` is not needed any more."""

    key: int


class Forget(msgspec.Struct, frozen=True):
    """A child has left for good: what was kept for it alone is not needed any more."""

    key: int
    spec: ChildSpec


class AnswerCall(msgspec.Struct, frozen=True):
    """Answer a call with a value, or with an error when `error` is given."""

    call: Any
    value: Any = None
    error: Exception | None = None


class Emit(msgspec.Struct, frozen=True):
    """Hand an event to the sink."""

    event: Event


class Ready(msgspec.Struct, frozen=True):
    """The supervisor's own start is done."""


class Finish(msgspec.Struct, frozen=True):
    """The supervisor ends. If it was not `Ready` before, its start has failed.

    Attributes:
        exit: The reason.
        killed: Paths below it that had to be killed because their time was up.
    """

    exit: ChildExit
    killed: tuple[str, ...] = ()


Effect: TypeAlias = Start | RequestStop | Kill | Arm | Disarm | Forget | AnswerCall | Emit | Ready | Finish
