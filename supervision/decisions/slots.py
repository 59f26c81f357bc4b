"""The children of a supervisor as values: one `Slot` a child, and a persistent map that holds a hundred thousand.

A supervisor's state is frozen, so that a snapshot is just a reference to it and a decision can be tested without a
thread. Copying a dict on every crash would make a crash cost what the tree weighs; `SlotMap` shares all but the few
short lists on the way to the slot that changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from mlld_sdk.supervision.intensity import RestartWindow
from mlld_sdk.supervision.reasons import ChildExit
from mlld_sdk.supervision.spec import ChildSpec

Status: TypeAlias = Literal["stopped", "starting", "running", "stopping", "waiting", "parked", "failed"]
"""Where a child stands.

`stopped`: declared, not running, and meant so. `waiting`: to be started again, at once or after its delay. `parked`:
to be started when its breaker allows. `failed`: down for good until it is restarted by hand.
"""

MEMORY = 5
"""Failures of one child that are remembered, to tell flapping from bad luck."""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One child's place under its supervisor; it outlives the incarnations that fill it.

    Attributes:
        key: Its number under this supervisor, never used twice.
        spec: What to run.
        status: Where it stands.
        incarnation: How many starts were attempted.
        child: The running incarnation, opaque here.
        since: When the status was entered (monotonic).
        streak: Attempts in a row without a stable period between them.
        window: Attempts that count towards its own budget.
        charged: Whether the planned attempt has been counted already.
        last: How it ended last.
        next_at: When the next attempt is due (monotonic), when it is known.
        restarts: Automatic restarts that succeeded.
        wedges: Times in a row it was found stuck on this rung.
        rung: Rung of its ladder, 0 is its own options.
        overdue: Whether it is being killed because its time to stop was up.
        held: Why it was stopped on purpose; else empty.
        configured: Options it was given while it ran, for its next incarnations; `None` without any.
        calls: Management calls that wait for it (dynamic supervisors).
        failures: Its last failures, oldest first: when, and how long it had lived. At most `MEMORY`.
    """

    key: int
    spec: ChildSpec
    status: Status = "stopped"
    incarnation: int = 0
    child: Any = None
    since: float = 0.0
    streak: int = 0
    window: RestartWindow = RestartWindow()
    charged: bool = False
    last: ChildExit | None = None
    next_at: float | None = None
    restarts: int = 0
    wedges: int = 0
    rung: int = 0
    overdue: bool = False
    held: str = ""
    configured: Mapping[str, Any] | None = None
    calls: tuple[Any, ...] = ()
    failures: tuple[tuple[float, float], ...] = ()

    @property
    def live(self) -> bool:
        """Whether there is an incarnation that has to be stopped."""
        return self.status in ("starting", "running", "stopping")

    @property
    def planned(self) -> bool:
        """Whether a start attempt is planned."""
        return self.status in ("waiting", "parked")


BITS = 5
WIDTH = 1 << BITS
MASK = WIDTH - 1
EMPTY: list[Any] = [None] * WIDTH


class SlotMap(msgspec.Struct, frozen=True, eq=False):
    """A persistent map from whole numbers to slots, iterated in order of the numbers.

    `put` and `drop` return a new map and leave this one alone. Both copy one short list for each level of a tree that
    is 32 wide, whatever the size. No list is changed once it is part of a map.
    """

    _root: list[Any] = msgspec.field(default_factory=lambda: EMPTY)
    _shift: int = 0
    count: int = 0

    @classmethod
    def of(cls, slots: Sequence[Slot]) -> "SlotMap":
        """Build the map of slots whose keys are 0, 1, 2 and so on."""
        level: list[Any] = list(slots)
        shift = -BITS
        while len(level) > 1 or shift < 0:
            parts = [level[at : at + WIDTH] for at in range(0, len(level), WIDTH)]
            level = [part + EMPTY[len(part) :] for part in parts]
            shift += BITS
            if not level:
                return cls()
        return cls(level[0], shift, len(slots))

    def __len__(self) -> int:
        return self.count

    def get(self, key: int) -> Slot | None:
        """Find a slot, or `None`."""
        shift = self._shift
        if key >> (shift + BITS):
            return None
        node: Any = self._root
        while shift:
            node = node[(key >> shift) & MASK] or EMPTY
            shift -= BITS
        found: Slot | None = node[key & MASK]
        return found

    def __getitem__(self, key: int) -> Slot:
        slot = self.get(key)
        if slot is None:
            raise KeyError(key)
        return slot

    def put(self, slot: Slot) -> "SlotMap":
        """Add or replace the slot with this key."""
        key = slot.key
        root, shift = self._root, self._shift
        while key >> (shift + BITS):
            root = [root, *EMPTY[1:]]
            shift += BITS
        node = top = root.copy()
        level = shift
        while level:
            at = (key >> level) & MASK
            below = (node[at] or EMPTY).copy()
            node[at] = below
            node = below
            level -= BITS
        at = key & MASK
        grown = node[at] is None
        node[at] = slot
        return SlotMap(top, shift, self.count + grown)

    def drop(self, key: int) -> "SlotMap":
        """Remove a slot; nothing happens when it is not there."""
        if self.get(key) is None:
            return self
        return SlotMap(_drop(self._root, self._shift, key) or EMPTY, self._shift, self.count - 1)

    def __iter__(self) -> Iterator[Slot]:
        return _walk(self._root, self._shift)


def _drop(node: list[Any], shift: int, key: int) -> list[Any] | None:
    """Copy a node without this key; `None` when nothing is left of it."""
    at = (key >> shift) & MASK
    copy = node.copy()
    copy[at] = _drop(node[at], shift - BITS, key) if shift else None
    return None if copy == EMPTY else copy


def _walk(node: list[Any], shift: int) -> Iterator[Slot]:
    for below in node:
        if below is not None:
            if shift:
                yield from _walk(below, shift - BITS)
            else:
                yield below
