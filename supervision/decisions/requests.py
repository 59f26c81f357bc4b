"""What supervisors can be asked, and the rows and counts they answer with."""

from typing import Any, Literal, TypeAlias

import msgspec

from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec


class StartChild(msgspec.Struct, frozen=True):
    """Add a child and start it; answered with the child, or `None` when it declined."""

    spec: ChildSpec


class RestartChild(msgspec.Struct, frozen=True):
    """Start a declared child that does not run; answered with the child, or `None` when it declined."""

    name: str


class TerminateChild(msgspec.Struct, frozen=True):
    """Stop a child, or give up its planned restart. Static supervisors keep the spec unless it is temporary.

    `child`: its name; under a dynamic supervisor its reference, for which the executor puts in its key.
    """

    child: Any
    why: str = ""


class DeleteChild(msgspec.Struct, frozen=True):
    """Forget a child that does not run."""

    name: str


class GetSpec(msgspec.Struct, frozen=True):
    """Return the complete spec of a child."""

    name: str


class WhichChildren(msgspec.Struct, frozen=True):
    """Return a list of `ChildRow`, most recently added first."""


class CountChildren(msgspec.Struct, frozen=True):
    """Return a `ChildCounts`."""


class Update(msgspec.Struct, frozen=True):
    """Replace the flags of the running supervisor, and the specs of a static one; the children go on."""

    spec: SupervisorSpec | DynamicSpec


ManagementRequest: TypeAlias = (
    StartChild | RestartChild | TerminateChild | DeleteChild | GetSpec | WhichChildren | CountChildren | Update
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
    """Numbers of children: declared, running now, and of both kinds whether running or not."""

    specs: int
    active: int
    supervisors: int
    workers: int
