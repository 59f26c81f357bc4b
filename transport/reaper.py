"""Making sure that nothing of a dead engine lives on: its shells, its servers, even those that left its group.

Killing a process group reaches everything but a process that began a session of its own. Such a one still carries the
engine's mark in its environment, so the reaper looks through the process table for it. One thread does this for all
engines of the process, off the I/O thread, because looking takes milliseconds.
"""

import contextlib
import os
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mlld_sdk.base.durations import Deadline
from mlld_sdk.transport.child import Child
from mlld_sdk.transport.processes import born_since, kill_surely, mark_of

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


@dataclass(slots=True, eq=False)
class Burial:
    """A dead engine whose remains are to be removed.

    Attributes:
        child: Its process, reaped by now. Descendants carry its mark, or are of its session.
        deadline: When the search is given up.
        done: Called once when nothing is left, or the search was given up.
    """

    child: Child
    deadline: Deadline
    done: Callable[[], None]


def _run(orders: queue.SimpleQueue[Burial]) -> None:
    waiting: list[Burial] = []
    pause, timeout = _FIRST_PAUSE, None
    while True:
        fresh: list[Burial] = []
        with contextlib.suppress(queue.Empty):  # wait for an order, then take all there are
            fresh.append(orders.get(timeout=timeout))
            while True:
                fresh.append(orders.get_nowait())
        waiting += fresh
        left = _remains(waiting)
        for burial in waiting.copy():
            if burial not in left or burial.deadline.is_over:
                waiting.remove(burial)
                shutil.rmtree(burial.child.directory, ignore_errors=True)
                burial.done()
        pause = _FIRST_PAUSE if fresh else min(pause * 2, _LONGEST_PAUSE)
        timeout = pause if waiting else None


def _remains(burials: list[Burial]) -> set[Burial]:
    """Kill every living remainder of these engines, and say of which there were some."""
    table = [entry for entry in born_since(one.child.birth for one in burials) if not entry.is_dead]
    # A session's number is free again when its last member is gone: a process that leads it now is a stranger.
    led = {entry.pid for entry in table}
    by_session = {one.child.pid: one for one in burials if one.child.pid not in led}
    by_engine = {one.child.mark.engine: one for one in burials}
    found = set()
    for entry in table:
        if entry.pid == os.getpid():
            continue
        mark = mark_of(entry.pid)
        burial = by_engine.get(mark.engine) if mark else by_session.get(entry.session)
        if burial is not None and mark in (None, burial.child.mark):
            found.add(burial)
            kill_surely(entry)
    return found


_orders: queue.SimpleQueue[Burial] | None = None
_orders_lock = threading.Lock()


def bury(burial: Burial) -> None:
    """Queue the removal of an engine's remains; returns at once."""
    global _orders
    with _orders_lock:
        if _orders is None:
            _orders = queue.SimpleQueue()
            threading.Thread(target=_run, args=(_orders,), name="mlld-shared-reaper", daemon=True).start()
        _orders.put(burial)


def _after_fork() -> None:
    global _orders, _orders_lock
    _orders, _orders_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
