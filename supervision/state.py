"""What a supervisor knows, as one frozen value."""

from typing import Literal, TypeAlias

import msgspec

from mlld_sdk.supervision.children import SlotMap
from mlld_sdk.supervision.effects import Asked, Input
from mlld_sdk.supervision.exits import ChildExit
from mlld_sdk.supervision.intensity import RestartWindow
from mlld_sdk.supervision.spec import DynamicSpec, SupervisorSpec

Cause: TypeAlias = Literal["init", "restart", "call"]
Why: TypeAlias = Literal["group", "call", "stop", "roll_back", "give_up"]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor is doing: stops, then starts, one at a time.

    Attributes:
        cause: What the starts are for.
        why: What the stops are for.
        stops: Children to stop, in this order.
        starts: Children to start, in this order.
        stopped: How many of the stops are done.
        started: How many of the starts are done.
        within: The stops as a set.
        call: The management call to answer when it is done.
        note: Why somebody wants a child stopped.
        began: When its stops began.
    """

    cause: Cause
    why: Why = "group"
    stops: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    stopped: int = 0
    started: int = 0
    within: frozenset[int] = frozenset()
    call: Asked | None = None
    note: str = ""
    began: float = 0.0

    @property
    def current(self) -> int | None:
        """The child it waits for."""
        if self.stopped < len(self.stops):
            return self.stops[self.stopped]
        return self.starts[self.started] if self.started < len(self.starts) else None


NOBODY = SlotMap()

Phase: TypeAlias = Literal["starting", "running", "stopping", "gone"]


class StaticState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a supervisor with a fixed list of children knows. A snapshot of the tree is a reference to it.

    Attributes:
        path: Where the supervisor stands in its tree.
        spec: Its flags; the list of children in it is what it starts with.
        slots: Its children by key.
        order: Keys in start order.
        names: Keys by name.
        next_key: The next key to be given.
        window: Restart attempts that count towards its limit.
        phase: Where it stands.
        job: What it is doing.
        queue: What waits until the job is done.
        end: The reason to end with, once it stops.
        deadline: Until when, once it stops.
        drain: Whether children handle first what waits for them, once it stops.
        killed: Paths that had to be killed because their time was up, once it stops.
        ready: Whether its own start was answered.
        up_since: When its start was done.
        gave_up: Its last words, when it gave up.
    """

    path: str
    spec: SupervisorSpec
    slots: SlotMap
    order: tuple[int, ...]
    names: dict[str, int]
    next_key: int
    window: RestartWindow = RestartWindow()
    phase: Phase = "starting"
    operation: Operation | None = None
    queue: tuple[Input, ...] = ()
    end: ChildExit | None = None
    deadline: float | None = None
    drain: bool = False
    killed: tuple[str, ...] = ()
    ready: bool = False
    up_since: float = 0.0
    gave_up: str = ""


class DynamicState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a dynamic supervisor knows; fields as in `StaticState`.

    Attributes:
        stopping_since: When it was told to stop.
    """

    path: str
    spec: DynamicSpec
    slots: SlotMap = NOBODY
    next_key: int = 0
    window: RestartWindow = RestartWindow()
    phase: Phase = "starting"
    end: ChildExit | None = None
    deadline: float | None = None
    drain: bool = False
    killed: tuple[str, ...] = ()
    ready: bool = False
    up_since: float = 0.0
    gave_up: str = ""
    stopping_since: float = 0.0
