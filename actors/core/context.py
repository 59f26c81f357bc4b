"""Which actor's code is running in this thread.

Kept apart because futures, mailboxes and the scheduler all need it and none of them should know the others.
"""

import os
import threading
from _thread import RLock
from contextvars import ContextVar
from typing import Final

from mlld_sdk.actors.core.errors import ActorKilled
from mlld_sdk.actors.core.protocols import AnyCell, Blocker


class _Context(threading.local):
    """Per thread: the actor being run, the worker it runs on, how deep callers run slices of others.

    Attributes:
        own_only: Whether no slice of another actor may run here: an event loop must not block, and into the main thread
            signal handlers raise what would count as the crash of whoever runs there.
    """

    cell: AnyCell | None = None
    worker: Blocker | None = None
    depth: int = 0
    on_loop: bool = False
    own_only: bool = False

    def __init__(self) -> None:
        self.own_only = threading.current_thread() is threading.main_thread()


context = _Context()


def _forked() -> None:
    context.own_only = True  # the thread that forks is the main thread of the copy


os.register_at_fork(after_in_child=_forked)

topology: Final = RLock()
"""Held for an instant while links, monitors and the fact of an actor's end change, or a mailbox gets its system lane or
a blocked sender. Nothing is called under it; but the garbage collector may run a `__del__`, and that may send too."""

async_cell: ContextVar[AnyCell | None] = ContextVar("async_cell", default=None)
"""The actor whose coroutine is running; a thread cannot tell on a loop shared by many."""

fenced: set[AnyCell] = set()
"""Killed actors whose last handler still runs somewhere. Empty nearly always, so that a look costs nothing."""


def current_cell() -> AnyCell | None:
    """Return the cell of the actor whose code calls this."""
    if context.on_loop:
        return async_cell.get()
    return context.cell


def stop_if_fenced() -> None:
    """Raise `ActorKilled` when the caller is the rest of a killed actor; only needed when `fenced` is not empty."""
    cell = current_cell()
    if cell in fenced:
        raise ActorKilled(f"{cell.path} was killed: nothing it still does has an effect")
