"""What one actor learns of another's end: exit notices, down notices and the handles of monitors.

Ordering: an actor's notices arrive in the order things happened, and after everything the dead actor itself sent. A
class with `urgent_exits = True` (a supervisor) gets them in its system lane instead, before any waiting message.
"""

from _thread import RLock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlld_sdk.actors.core.context import fenced, stop_if_fenced
from mlld_sdk.actors.core.exits import NOPROC, NORMAL, Reason

if TYPE_CHECKING:
    from mlld_sdk.actors.core.cell import Cell
    from mlld_sdk.actors.core.ref import ActorRef

topology: Final = RLock()
"""Held for an instant while links, monitors and the fact of an actor's end change. Nothing is called under it."""


class Monitor:
    """The handle of one monitor; after `cancel()` no `Down` of it is seen.

    Attributes:
        ref: Who is watched.
    """

    __slots__ = ("_callback", "_watcher", "cancelled", "first", "ref")

    def __init__(
        self,
        ref: "ActorRef[Any]",
        watcher: "Cell | None",
        callback: "Callable[[Down], object] | None",
        *,
        first: bool = False,
    ) -> None:
        self.ref = ref
        self.first = first
        self._watcher = watcher
        self._callback = callback
        self.cancelled = False

    def cancel(self) -> bool:
        """Stop watching, and drop a notice that has arrived and was not handled yet.

        Returns:
            Whether the monitor was still in place.
        """
        with topology:
            self.cancelled = True
            target = self.ref.cell
            if self._watcher is not None and self._watcher.watching is not None:
                self._watcher.watching.pop(self, None)
            return target.monitors is not None and target.monitors.pop(self, self) is None

    def fire(self, reason: Reason) -> None:
        """Deliver the one notice: to the watcher's mailbox, or to the callback in this thread."""
        if self.cancelled:
            return
        down = Down(self, self.ref, reason)
        if self._watcher is not None:
            self._watcher.notify(down)
        elif self._callback is not None:
            try:
                self._callback(down)
            except BaseException as error:  # noqa: BLE001 - a watcher is never felt by the watched
                self.ref.cell.system.callback_failed(error)


class Exit(msgspec.Struct, frozen=True, gc=False):
    """A linked actor ended, or somebody sent an exit signal, and the receiver traps exits.

    Attributes:
        ref: Who ended or sent it; `None` for a signal from outside any actor.
        reason: Why.
    """

    ref: "ActorRef[Any] | None"
    reason: Reason


class Down(msgspec.Struct, frozen=True, gc=False):
    """A monitored actor ended, or was not there (`NoProc`). Sent exactly once for each monitor.

    Attributes:
        monitor: The handle that `monitor()` returned.
        ref: Who ended.
        reason: Why.
    """

    monitor: Monitor
    ref: "ActorRef[Any]"
    reason: Reason


class Revocable:
    """A message whose sender may take it back while it waits: dropped if `handle.cancelled` by then."""

    __slots__ = ("handle", "message")

    def __init__(self, handle: Any, message: Any) -> None:
        self.handle = handle
        self.message = message


def monitor(
    target: "ActorRef[Any]",
    watcher: "Cell | None",
    callback: Callable[[Down], object] | None = None,
    *,
    first: bool = False,
) -> Monitor:
    """Watch `target`; if it has ended already the notice (with `NoProc`) comes at once.

    Callbacks that are `first` run before anybody else learns of the end: they clean up what was kept for the actor.
    """
    if fenced and not first:  # book-keeping half done must be finished, also by a killed actor's thread
        stop_if_fenced()
    handle = Monitor(target, watcher, callback, first=first)
    cell = target.cell
    with topology:
        alive = cell.reason is None
        if alive:
            if cell.monitors is None:
                cell.monitors = {}
            cell.monitors[handle] = None
            if watcher is not None:
                if watcher.watching is None:
                    watcher.watching = {}
                watcher.watching[handle] = None
    if not alive:
        handle.fire(NOPROC)
    return handle


def link(one: "Cell", other: "Cell") -> None:
    """Tie two actors together; linking twice is linking once. A dead one answers with an exit signal `NoProc`."""
    if one is other or one.parent is other or other.parent is one:
        return
    with topology:
        alive = one.reason is None and other.reason is None
        if alive:
            for mine, theirs in ((one, other), (other, one)):
                if mine.links is None:
                    mine.links = {}
                mine.links[theirs] = False
    if not alive:
        one.signal(other.ref, NOPROC)


def unlink(one: "Cell", other: "Cell") -> bool:
    """Undo `link`; a child and its parent stay tied. Says whether there was a link."""
    if one.parent is other or other.parent is one:
        return False
    with topology:
        if one.links is None or one.links.pop(other, None) is None:
            return False
        if other.links is not None:
            other.links.pop(one, None)
        return True


IGNORED: Final = 0
DELIVERED: Final = 1
DEADLY: Final = 2


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
