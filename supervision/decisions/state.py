"""What a supervisor knows, as one frozen value. A snapshot of the tree is a reference to it."""

from collections.abc import Iterator
from typing import ClassVar, Literal, TypeAlias

import msgspec

from mlld_sdk.supervision.decisions.inputs import Asked, Input
from mlld_sdk.supervision.decisions.slots import Slot, SlotMap
from mlld_sdk.supervision.intensity import RestartWindow
from mlld_sdk.supervision.reasons import ChildExit
from mlld_sdk.supervision.spec import DynamicSpec, SupervisorSpec

Cause: TypeAlias = Literal["init", "restart", "call"]
Why: TypeAlias = Literal["group", "call", "stop", "roll_back", "give_up"]
Phase: TypeAlias = Literal["starting", "running", "stopping", "gone"]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor with a fixed list of children is doing: stops, then starts, one at a time.

    Attributes:
        cause: What the starts are for.
        why: What the stops are for.
        stops: Children to stop, in this order.
        starts: Children to start, in this order.
        stopped: How many of the stops are done.
        started: How many of the starts are done.
        within: The stops as a set.
        call: The management call to answer when it is done.
        note: Why a child is stopped on purpose.
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

    @property
    def stopping(self) -> bool:
        """Whether some of its stops are still to be done."""
        return self.stopped < len(self.stops)

    @property
    def current(self) -> int | None:
        """The child it waits for."""
        if self.stopped < len(self.stops):
            return self.stops[self.stopped]
        return self.starts[self.started] if self.started < len(self.starts) else None


class SupervisorState(msgspec.Struct, frozen=True, kw_only=True):
    """What supervisors of both kinds know.

    Attributes:
        path: Where the supervisor stands in its tree.
        spec: Its flags; the list of children in it is what it starts with.
        slots: Its children by key.
        next_key: The next key to be given.
        window: Restart attempts that count towards its limit.
        phase: Where it stands.
        end: The reason to end with, once it stops.
        deadline: Until when, once it stops.
        drain: Whether children handle first what waits for them, once it stops.
        stopping_since: When it was told to stop.
        killed: Paths that had to be killed because their time was up, once it stops.
        ready: Whether its own start was answered.
        up_since: When its start was done.
        gave_up: Its last words, when it gave up.
        queue: What waits until an operation is done; always empty under a dynamic supervisor.
    """

    keeps: ClassVar[bool] = True
    """Whether the spec of a child that will not be restarted is kept."""

    path: str
    spec: SupervisorSpec | DynamicSpec
    slots: SlotMap = SlotMap()
    next_key: int = 0
    window: RestartWindow = RestartWindow()
    phase: Phase = "starting"
    end: ChildExit | None = None
    deadline: float | None = None
    drain: bool = False
    stopping_since: float = 0.0
    killed: tuple[str, ...] = ()
    ready: bool = False
    up_since: float = 0.0
    gave_up: str = ""
    queue: tuple[Input, ...] = ()

    @property
    def grouped(self) -> bool:
        """Whether siblings are restarted together."""
        return self.spec.strategy in ("one_for_all", "rest_for_one")

    def label_of(self, slot: Slot) -> str:
        """Return what a child is called in its path: the name it was given, else that of its class with its key."""
        return slot.spec.name if slot.spec.named else f"{slot.spec.name}-{slot.key}"

    def path_of(self, slot: Slot) -> str:
        """Return where a child stands in the tree."""
        return f"{self.path}/{self.label_of(slot)}"

    def find(self, label: str) -> Slot | None:
        """Find a child by what it is called in its path."""
        name, _, number = label.rpartition("-")
        slot = self.slots.get(int(number)) if number.isdecimal() else None
        return slot if slot is not None and slot.spec.name == name and not slot.spec.named else None

    def in_order(self) -> Iterator[Slot]:
        """Iterate over the children in start order."""
        return iter(self.slots)


class StaticState(SupervisorState, frozen=True, kw_only=True):
    """Everything a supervisor with a fixed list of children knows.

    Attributes:
        order: Keys in start order.
        names: Keys by name.
        operation: What it is doing.
    """

    spec: SupervisorSpec
    order: tuple[int, ...]
    names: dict[str, int]
    operation: Operation | None = None

    def label_of(self, slot: Slot) -> str:
        """Return what a child is called in its path: its name."""
        return slot.spec.name

    def find(self, label: str) -> Slot | None:
        """Find a child by its name."""
        key = self.names.get(label)
        return None if key is None else self.slots.get(key)

    def in_order(self) -> Iterator[Slot]:
        """Iterate over the children in start order."""
        return (self.slots[key] for key in self.order)


class DynamicState(SupervisorState, frozen=True, kw_only=True):
    """Everything a dynamic supervisor knows.

    Attributes:
        names: Keys of the children that were given a name, by that name. It is an index and no part of the value: all
            states of one supervisor share it, and it follows the newest, since a copy would make each start a sixth
            dearer. What it says is checked against `slots`; a state that was left behind may miss a name.
    """

    keeps: ClassVar[bool] = False

    spec: DynamicSpec
    names: dict[str, int]

    def find(self, label: str) -> Slot | None:
        """Find a child by what it is called in its path."""
        key = self.names.get(label)
        if key is not None:
            slot = self.slots.get(key)
            if slot is not None and slot.spec.named and slot.spec.name == label:
                return slot
        return super().find(label)
