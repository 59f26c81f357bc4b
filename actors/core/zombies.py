"""Killed actors whose last handler has not come back.

A thread cannot be killed, and a coroutine may swallow its cancellation. What can be done is done: the incarnation is
fenced, so nothing it does has an effect, what it owned is closed, and the pool gets another worker. What is left is
counted and listed here until it ends.
"""

import sys
import threading
import traceback
from _thread import get_ident
from collections.abc import Callable
from types import FrameType

import msgspec

from mlld_sdk.actors.core.cell import Cell
from mlld_sdk.actors.core.context import fenced, topology
from mlld_sdk.actors.core.events import ZombieEnded, ZombieLeft
from mlld_sdk.actors.core.protocols import System


class Zombie(msgspec.Struct, frozen=True, kw_only=True):
    """A thread or a coroutine that still runs for a killed actor.

    Attributes:
        actor: Path of the actor.
        epoch: Its incarnation.
        kind: Its class.
        age: Seconds since the kill.
        thread: Name or number of the thread; of the event loop's, for a coroutine.
        stack: Where it is now.
    """

    actor: str
    epoch: int
    kind: str
    age: float
    thread: str
    stack: str


class Zombies:
    """The zombies of one system."""

    def __init__(self, system: System, lose_thread: Callable[[int], None]) -> None:
        self._system = system
        self._lose_thread = lose_thread
        self._since: dict[Cell, tuple[float, int | None]] = {}
        self._none = threading.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._since)

    def add_if_running(self, cell: Cell) -> None:
        """Fence a killed actor that is in one of its handlers, and list it unless that is on this very stack.

        A coroutine is cancelled, and listed by `add_coroutine` if that does not end it.
        """
        with topology:
            thread = cell.runner.thread
            if thread is not None or cell.runner.task is not None:
                fenced.add(cell)
            if thread is None or thread == get_ident():
                return
            self._list(cell, thread)
        self._lose_thread(thread)
        self._tell_of(cell, _thread_name(thread))

    def add_coroutine(self, cell: Cell) -> None:
        """List a killed actor whose coroutine goes on, on this very thread, although it was cancelled."""
        with topology:
            self._list(cell, None)
        self._tell_of(cell, threading.current_thread().name)

    def _list(self, cell: Cell, thread: int | None) -> None:
        self._since[cell] = (self._system.now(), thread)
        self._none.clear()

    def _tell_of(self, cell: Cell, thread: str) -> None:
        self._system.emit(lambda at: ZombieLeft(at=at, actor=cell.path, epoch=cell.epoch, thread=thread))

    def ended(self, cell: Cell) -> None:
        """Take an actor off the list: its handler came back."""
        with topology:
            entry = self._since.pop(cell, None)
            fenced.discard(cell)
            if not self._since:
                self._none.set()
        if entry is not None:
            after = self._system.now() - entry[0]
            self._system.emit(lambda at: ZombieEnded(at=at, actor=cell.path, epoch=cell.epoch, after=after))

    def wait_until_gone(self, timeout: float) -> bool:
        """Wait until there are none; return whether that was so in time."""
        return self._none.wait(timeout)

    def count(self, path: str | None = None) -> int:
        """Count the zombies of incarnations of one path, or all of them."""
        with topology:
            return sum(path is None or cell.path == path for cell in self._since)

    def ages(self, path: str) -> list[float]:
        """Return for how many seconds the zombies at a path and below it have been running."""
        if not self._since:
            return []
        now, below = self._system.now(), f"{path}/"
        with topology:
            return [now - at for cell, (at, _) in self._since.items() if f"{cell.path}/".startswith(below)]

    def list(self) -> list[Zombie]:
        """Describe each zombie, with the stack of its thread or coroutine as it is now."""
        with topology:
            found = list(self._since.items())
        frames = sys._current_frames()  # noqa: SLF001 - documented
        now = self._system.now()
        return [
            Zombie(
                actor=cell.path,
                epoch=cell.epoch,
                kind=cell.traits.kind,
                age=now - since,
                thread="event loop" if thread is None else _thread_name(thread),
                stack=_stack_of(cell, frames.get(thread or 0)),
            )
            for cell, (since, thread) in found
        ]


def _stack_of(cell: Cell, frame: FrameType | None) -> str:
    if frame is not None:
        return "".join(traceback.format_stack(frame, 12))
    task = cell.runner.task
    return "" if task is None else "".join(line for one in task.get_stack() for line in traceback.format_stack(one, 1))


def _thread_name(ident: int) -> str:
    return next((thread.name for thread in threading.enumerate() if thread.ident == ident), str(ident))
