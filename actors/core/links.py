"""Links between actors, and what an exit signal does to its receiver."""

from typing import Any, Final

import msgspec

from mlld_sdk.actors.core import pykka_compat
from mlld_sdk.actors.core.context import topology
from mlld_sdk.actors.core.exits import NOPROC, NORMAL, Reason
from mlld_sdk.actors.core.protocols import AnyCell
from mlld_sdk.actors.core.ref import Down, Monitor
from mlld_sdk.actors.core.system_messages import EndInTurn, IdleNow


class Revocable(msgspec.Struct, eq=False):
    """A message whose sender may take it back while it waits: dropped if `handle.cancelled` by then."""

    handle: Any
    message: Any


SPECIAL: Final = frozenset({Down, Revocable, IdleNow, EndInTurn, *pykka_compat.MESSAGES})
"""Classes of messages that are not simply handed to `on_receive`."""


def link(one: AnyCell, other: AnyCell) -> None:
    """Tie two actors together; linking twice is linking once. A dead one answers with an exit signal `NoProc`."""
    if one is other or one.parent is other or other.parent is one:
        return
    with topology:
        alive = one.reason is None and other.reason is None
        if alive:
            for mine, theirs in ((one, other), (other, one)):
                mine.links = mine.links or {}
                mine.links[theirs] = False
    if not alive:
        one.signal(other.ref, NOPROC)


def unlink(one: AnyCell, other: AnyCell) -> bool:
    """Undo `link`; a child and its parent stay tied. Returns whether there was a link."""
    if one.parent is other or other.parent is one:
        return False
    with topology:
        if one.links is None or one.links.pop(other, None) is None:
            return False
        if other.links is not None:
            other.links.pop(one, None)
        return True


def sever(cell: AnyCell) -> tuple[list[AnyCell], list[Monitor]]:
    """Take a dead cell out of all links and monitors; return the cells linked to it and those who watch it.

    Called with `topology` held.
    """
    links, monitors, watching = list(cell.links or ()), list(cell.monitors or ()), cell.watching or ()
    cell.links = cell.monitors = cell.watching = None
    for other in (cell.parent, *links):
        if other is not None and other.links is not None:
            other.links.pop(cell, None)
    for handle in watching:
        watched = handle.ref.cell
        if watched.monitors is not None:
            watched.monitors.pop(handle, None)
    return links, monitors


IGNORED, DELIVERED, DEADLY = range(3)


def effect_of(reason: Reason, *, traps: bool, from_parent: bool) -> int:
    """Decide what an exit signal does to its receiver. Pure; clauses LNK-3, LNK-4 and LNK-9.

    The parent's is always deadly: an actor does not outlive its parent. Else who traps exits gets a message, and who
    does not dies of it, unless the reason is `normal`.
    """
    if from_parent:
        return DEADLY
    if traps:
        return DELIVERED
    return IGNORED if reason == NORMAL else DEADLY
