"""What happened lately, ready to be asked: the last events, the living engines, and a crash report of every failure.

A view of the one stream and of nothing else: reading it sends no message. It keeps as much as it is told to in memory.
"""

import itertools
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from mlld_sdk.base.events import Event, name_of
from mlld_sdk.telemetry.crash_report import CrashReport, CrashReporter
from mlld_sdk.telemetry.log import fields_of, level_of
from mlld_sdk.transport.events import EngineExited, EngineStarted

KEPT: Final = 10_000
CRASHES: Final = 1_000

STORY: Final = ("child.", "supervisor.", "breaker.", "operator.", "orphans.", "journal.", "engine.exited", "zombie.")
"""Beginnings of the names of events that are kept across restarts; what happened to runs the journal knows anyway."""

CHAPTER: Final = 500
"""Most events of the story that wait to be written down; in a storm the oldest are not."""

TOO_LONG: Final = ("trace", "stderr_tail")
"""Fields that are not repeated in the story; the crash report has them."""

LONGEST: Final = 500
"""Characters of a field of the story."""


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event as data.

    Attributes:
        n: Its number, growing; gaps mean that something was not kept.
        at: Wall-clock seconds.
        name: What happened.
        level: `debug`, `info`, `warning` or `error`.
        fields: The rest of it.
    """

    n: int
    at: float
    name: str
    level: str
    fields: dict[str, Any]


class History:
    """Keeps the last events and crash reports. Attach it to a bus with `bus.attach_inline("history", history)`.

    Args:
        kept: How many events are kept in memory; the oldest go first.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting = 0
        self._n = 0
        self._events: deque[tuple[int, Event | HistoryEntry]] = deque(maxlen=kept)
        self._chapter: deque[tuple[int, Event]] = deque(maxlen=CHAPTER)
        self._crashes: deque[CrashReport] = deque(maxlen=CRASHES)
        self._engines: dict[str, EngineStarted] = {}
        self._reporter = CrashReporter()
        self._uses: dict[type[Event], tuple[bool, bool]] = {}

    def __call__(self, event: Event) -> None:
        """Take an event; quick, and called on the thread that emits it."""
        kind = type(event)
        with self._lock:
            self._n += 1
            self._events.append((self._n, event))
            uses = self._uses.get(kind)
            if uses is None:
                noted = kind is EngineStarted or kind in self._reporter.notes
                uses = self._uses[kind] = (name_of(event).startswith(STORY), noted)
            if uses[0]:
                self._chapter.append((self._n, event))
            if uses[1]:
                self._note(event)
            if self._waiting:
                self._news.notify_all()

    @property
    def last(self) -> int:
        """Number of the newest event."""
        return self._n

    def events(self, after: int = 0, limit: int = 1000) -> list[HistoryEntry]:
        """List events from the number behind `after`, oldest first."""
        with self._lock:
            first = self._events[0][0] if self._events else 0
            found = list(itertools.islice(self._events, max(0, after + 1 - first), max(0, after + 1 - first) + limit))
        return [_entry(n, event) for n, event in found]

    def wait(self, after: int, timeout: float) -> list[HistoryEntry]:
        """List the events behind `after`, waiting for one if there is none yet."""
        with self._news:
            self._waiting += 1
            try:
                self._news.wait_for(lambda: self._n > after, timeout)
            finally:
                self._waiting -= 1
        return self.events(after)

    def crashes(self, path: str | None = None, limit: int = 100) -> list[CrashReport]:
        """List crash reports, newest first; of one place and what is below it, if a path is given."""
        with self._lock:
            found = [
                crash
                for crash in reversed(self._crashes)
                if path is None or crash.path == path or crash.path.startswith(f"{path}/")
            ]
        return found[:limit]

    def crash(self, crash_id: str) -> CrashReport | None:
        """Find a crash report by its id."""
        with self._lock:
            return next((crash for crash in self._crashes if crash.crash_id == crash_id), None)

    def engines(self) -> list[EngineStarted]:
        """List the engines that live, each by the event of its start."""
        with self._lock:
            return sorted(self._engines.values(), key=lambda engine: engine.at)

    def resume(self, story: Iterable[HistoryEntry], crashes: Iterable[CrashReport]) -> None:
        """Take over what an earlier process has kept, before anything else happens."""
        with self._lock:
            self._crashes.extend(crashes)
            for entry in story:
                self._n += 1
                self._events.append((self._n, entry))

    def next_chapter(self) -> list[HistoryEntry]:
        """Take what has happened to the tree since the last time, to be kept; long fields are cut."""
        with self._lock:
            chapter = list(self._chapter)
            self._chapter.clear()
        return [_brief(_entry(n, event)) for n, event in chapter]

    def _note(self, event: Event) -> None:
        if isinstance(event, EngineStarted):
            self._engines[event.engine] = event
            return
        if isinstance(event, EngineExited):
            self._engines.pop(event.engine, None)
        crash = self._reporter.notes[type(event)](event)
        if isinstance(crash, CrashReport):
            self._crashes.append(crash)


def _entry(n: int, event: Event | HistoryEntry) -> HistoryEntry:
    if isinstance(event, HistoryEntry):
        return msgspec.structs.replace(event, n=n)
    return HistoryEntry(n=n, at=event.at, name=name_of(event), level=level_of(event), fields=fields_of(event))


def _brief(entry: HistoryEntry) -> HistoryEntry:
    """Leave out and cut what the crash report tells at length."""
    fields = {
        name: f"{value[:LONGEST]}…" if isinstance(value, str) and len(value) > LONGEST else value
        for name, value in entry.fields.items()
        if name not in TOO_LONG
    }
    return msgspec.structs.replace(entry, fields=fields)
