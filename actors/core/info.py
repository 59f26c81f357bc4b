"""A look at an actor from outside: no message is sent, nobody is waited for."""

from typing import TYPE_CHECKING, Literal

import msgspec

from mlld_sdk.actors.core.context import fenced
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.incarnation import RUNNING, STARTING

if TYPE_CHECKING:
    from mlld_sdk.actors.core.cell import Cell


class Address(msgspec.Struct, frozen=True):
    """Where an actor is, as data that can be stored or sent.

    Attributes:
        path: Names from the root of its tree, with slashes.
        system: Id of its actor system.
        epoch: Number of this incarnation: unique in its system, growing.
    """

    path: str
    system: str
    epoch: int


class ActorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A look at an actor from outside; taking it sends no message and waits for nobody.

    Attributes:
        path: Names from the root of its tree down.
        epoch: Its incarnation.
        kind: Its class.
        state: What it is doing with its life.
        reason: Why it ended, if it did.
        parent: Path of its parent.
        queued: Ordinary messages waiting.
        queued_system: System messages waiting.
        handled: Messages handled so far; two looks give a current rate.
        rate: Messages a second over its whole life.
        current: What it is handling, in the words of `describe_message`; `None` when it handles nothing.
        current_for: Seconds since it began with that.
        waiting_for: Path of the actor whose answer it is blocked on.
        links: How many actors it is linked to, children and parent too.
        children: How many of them are its children.
        monitors: How many monitors watch it.
        traps_exits: Whether exit signals become messages.
        up: Seconds since it was made.
        zombie: It was killed and its last handler still runs.
    """

    path: str
    epoch: int
    kind: str
    state: Literal["starting", "running", "suspended", "stopping", "dead"]
    reason: Reason | None
    parent: str | None
    queued: int
    queued_system: int
    handled: int
    rate: float
    current: str | None
    current_for: float | None
    waiting_for: str | None
    links: int
    children: int
    monitors: int
    traps_exits: bool
    up: float
    zombie: bool


def look_at(cell: "Cell") -> ActorInfo:
    """Take a look at an actor."""
    now = cell.system.now()
    queued, queued_system = cell.queued()
    up = max(now - cell.born, 1e-9)
    current = cell.current if cell.thread is not None or cell.task is not None else None
    busy = current is not None or (cell.thread is not None and cell.phase != RUNNING)
    waiting = cell.waiting
    awaited = waiting[0]._target if waiting is not None else None
    links = cell.links
    return ActorInfo(
        path=cell.path,
        epoch=cell.epoch,
        kind=cell.traits.kind,
        state=state_of(cell),
        reason=cell.reason,
        parent=None if cell.parent is None else cell.parent.path,
        queued=queued,
        queued_system=queued_system,
        handled=cell.handled,
        rate=cell.handled / up,
        current=None if current is None else cell.describe(current[0]),
        current_for=max(0.0, now - cell.since) if busy else None,
        waiting_for=None if awaited is None else awaited.path,
        links=len(links or ()) + (cell.parent is not None and cell.reason is None),
        children=sum(list((links or {}).values())),
        monitors=len(cell.monitors or ()),
        traps_exits=cell.traps_exits(),
        up=up,
        zombie=cell in fenced,
    )


def state_of(cell: "Cell") -> Literal["starting", "running", "suspended", "stopping", "dead"]:
    """Put the phase of a cell into a word."""
    if cell.reason is not None:
        return "dead"
    if cell.ending is not None:
        return "stopping"
    if cell.phase == STARTING:
        return "starting"
    return "suspended" if cell.suspended else "running"
