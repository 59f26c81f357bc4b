"""The children of a supervisor as values: one `Slot` a child, and a persistent map that holds a hundred thousand.

A supervisor's state is frozen, so that a snapshot is just a reference to it and a decision can be tested without a
thread. Copying a dict on every crash would make a crash cost what the tree weighs; `SlotMap` shares all but the few
short tuples on the way to the slot that changed.
"""

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from mlld_sdk.supervision.exits import Exit
from mlld_sdk.supervision.intensity import Window
from mlld_sdk.supervision.spec import ChildSpec

Status: TypeAlias = Literal["stopped", "starting", "running", "stopping", "waiting", "parked", "failed"]
"""Where a child stands.

`stopped`: declared, not running, and meant so. `waiting`: to be started again, at once or after its delay. `parked`:
to be started when its breaker allows. `failed`: down for good until somebody restarts it.
"""

UNWINDOWED = Window()

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
        held: Why somebody stopped it on purpose; empty when nobody did.
        probing: Whether this incarnation is the probe of a half-open breaker.
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
    window: Window = UNWINDOWED
    charged: bool = False
    last: Exit | None = None
    next_at: float | None = None
    restarts: int = 0
    wedges: int = 0
    rung: int = 0
    overdue: bool = False
    held: str = ""
    probing: bool = False
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
EMPTY: tuple[Any, ...] = (None,) * WIDTH


class SlotMap:
    """A persistent map from whole numbers to slots, iterated in order of the numbers.

    `put` and `drop` return a new map and leave this one alone. Both cost a few tuples of 32, whatever the size.
    """

    __slots__ = ("_count", "_levels", "_root")

    def __init__(self, root: tuple[Any, ...] = EMPTY, levels: int = 0, count: int = 0) -> None:
        self._root = root
        self._levels = levels
        self._count = count

    def __len__(self) -> int:
        return self._count

    def get(self, key: int) -> Slot | None:
        """Find a slot, or `None`."""
        if key >> (BITS * (self._levels + 1)):
            return None
        node: Any = self._root
        for level in range(self._levels, 0, -1):
            node = node[(key >> (BITS * level)) & (WIDTH - 1)]
            if node is None:
                return None
        found: Slot | None = node[key & (WIDTH - 1)]
        return found

    def __getitem__(self, key: int) -> Slot:
        slot = self.get(key)
        if slot is None:
            raise KeyError(key)
        return slot

    def put(self, slot: Slot) -> "SlotMap":
        """Add or replace the slot with this key."""
        root, levels = self._root, self._levels
        while slot.key >> (BITS * (levels + 1)):
            root = (root, *EMPTY[1:])
            levels += 1
        grown = 0 if self.get(slot.key) is not None else 1
        return SlotMap(_put(root, levels, slot.key, slot), levels, self._count + grown)

    def drop(self, key: int) -> "SlotMap":
        """Remove a slot; nothing happens when it is not there."""
        if self.get(key) is None:
            return self
        return SlotMap(_put(self._root, self._levels, key, None), self._levels, self._count - 1)

    def __iter__(self) -> Iterator[Slot]:
        return _walk(self._root, self._levels)


def _put(node: tuple[Any, ...], level: int, key: int, value: Slot | None) -> tuple[Any, ...]:
    at = (key >> (BITS * level)) & (WIDTH - 1)
    below: Any = value
    if level:
        below = _put(node[at] or EMPTY, level - 1, key, value)
        if value is None and below == EMPTY:
            below = None
    return (*node[:at], below, *node[at + 1 :])


def _walk(node: tuple[Any, ...], level: int) -> Iterator[Slot]:
    for below in node:
        if below is not None:
            if level:
                yield from _walk(below, level - 1)
            else:
                yield below
