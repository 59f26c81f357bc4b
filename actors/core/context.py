"""Which actor's code is running in this thread.

Kept apart because futures, mailboxes and the scheduler all need it and none of them should know the others.
"""

import threading
from _thread import RLock
from contextvars import ContextVar
from typing import Final

from mlld_sdk.actors.core.errors import ActorKilled
from mlld_sdk.actors.core.protocols import AnyCell, Blocker


class _Context(threading.local):
    """Per thread: the actor being run, the worker it runs on, how deep callers run slices of others."""

    cell: AnyCell | None = None
    worker: Blocker | None = None
    depth: int = 0
    on_loop: bool = False


context = _Context()

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
