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

from mlld_sdk.base.env import Env
from mlld_sdk.transport.processes import Birth, Mark, born_since, kill_surely, mark_of, process

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


@dataclass(slots=True)
class Burial:
    """A dead engine whose remains are to be removed.

    Attributes:
        mark: What its descendants carry.
        birth: When it was born; its process number is its session's.
        directory: Its TMPDIR.
        patience: Seconds after which the search is given up.
        done: Called once with the numbers of processes that could not be removed (normally none).
    """

    mark: Mark
    birth: Birth
    directory: str
    patience: float
    done: Callable[[tuple[int, ...]], None]
    ordered: float = 0.0


class _Reaper:
    def __init__(self) -> None:
        self._now = Env().now
        self._orders: queue.SimpleQueue[Burial] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="mlld-shared-reaper", daemon=True).start()

    def bury(self, burial: Burial) -> None:
        burial.ordered = self._now()
        self._orders.put(burial)

    def _run(self) -> None:
        waiting: list[Burial] = []
        pause, timeout = _FIRST_PAUSE, None
        while True:
            fresh = self._take(timeout)
            waiting += fresh
            now = self._now()
            left = _remains(waiting)
            for burial in waiting.copy():
                alive = left.get(burial.mark.engine, ())
                if not alive or now >= burial.ordered + burial.patience:
                    waiting.remove(burial)
                    shutil.rmtree(burial.directory, ignore_errors=True)
                    burial.done(tuple(alive))
            pause = _FIRST_PAUSE if fresh else min(pause * 2, _LONGEST_PAUSE)
            timeout = pause if waiting else None

    def _take(self, timeout: float | None) -> list[Burial]:
        """Wait for an order, then take all there are."""
        taken: list[Burial] = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._orders.get(timeout=timeout))
            while True:
                taken.append(self._orders.get_nowait())
        return taken


def _remains(burials: list[Burial]) -> dict[str, list[int]]:
    """Kill every living remainder of these engines and say, for each engine, what was found."""
    found: dict[str, list[int]] = {}
    if not burials:
        return found
    by_session = {burial.birth.pid: burial for burial in burials}
    by_engine = {burial.mark.engine: burial for burial in burials}
    born = born_since(burial.birth for burial in burials)
    table = [entry for entry in born if not entry.is_dead and entry.pid != os.getpid()]
    for entry in table:
        # A session's number is free again when its last member is gone: a process that leads it now is a stranger.
        if entry.pid in by_session:
            del by_session[entry.pid]
    for entry in table:
        mark = mark_of(entry.pid)
        burial = by_engine.get(mark.engine) if mark else by_session.get(entry.session)
        if burial is None or (mark is not None and mark != burial.mark):
            continue
        found.setdefault(burial.mark.engine, []).append(entry.pid)
        started = entry.started
        kill_surely(entry.pid, lambda pid=entry.pid, started=started: _started(pid) == started)  # type: ignore[misc]
    return found


def _started(pid: int) -> int | None:
    entry = process(pid)
    return entry.started if entry else None


_reaper: _Reaper | None = None
_reaper_lock = threading.Lock()


def bury(burial: Burial) -> None:
    """Queue the removal of an engine's remains; returns at once."""
    global _reaper
    with _reaper_lock:
        if _reaper is None:
            _reaper = _Reaper()
        _reaper.bury(burial)


def _after_fork() -> None:
    global _reaper, _reaper_lock
    _reaper, _reaper_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
