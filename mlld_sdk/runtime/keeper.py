"""Keeping the history across restarts of the program, in the bounded ring of the journal.

Crash reports are written down at once, and what happened to the tree a second later at most.
"""

import contextlib
from typing import Final

import msgspec

from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Event
from mlld_sdk.base.texts import fit_all
from mlld_sdk.journal import Journal
from mlld_sdk.supervision.events import SupervisorGaveUp
from mlld_sdk.telemetry.crash_report import CrashReport, gave_up
from mlld_sdk.telemetry.history import CRASHES, History, HistoryEntry

REMEMBERED: Final = 5_000
"""Newest records of the journal's ring that are taken over at the start."""

FAILURES: Final = ("child.exited", "child.start_failed", "supervisor.gave_up")
"""Events that make a crash report."""


class HistoryKeeper:
    """Writes a history into a journal, and takes it over from there.

    It is a handler of events as well: called with one of `FAILURES`, on a thread that may wait for a disk, it writes
    the crash report of that failure.
    """

    def __init__(self, history: History, journal: Journal) -> None:
        self._history = history
        self._journal = journal

    def __call__(self, event: Event) -> None:
        """Write down the crash report of a failure, if it is one."""
        name = gave_up(event).crash_id if isinstance(event, SupervisorGaveUp) else getattr(event, "crash_id", "")
        crash = self._history.crash(name) if name else None
        if crash is not None:
            self._journal.append_event("crash", fit_all(msgspec.to_builtins(crash)))

    def remember(self) -> None:
        """Take over the crash reports and the story that an earlier process has kept."""
        crashes: list[CrashReport] = []
        story: list[HistoryEntry] = []
        with contextlib.suppress(MlldError):  # a journal that cannot be read says so by itself
            after = max(0, self._journal.last_event() - REMEMBERED)
            while records := self._journal.events(after=after, limit=CRASHES):
                after = records[-1].n
                for record in records:
                    if not isinstance(record.data, msgspec.Raw):
                        continue
                    with contextlib.suppress(msgspec.MsgspecError):  # kept by a version that knew other fields
                        if record.name == "crash":
                            crashes.append(msgspec.json.decode(record.data, type=CrashReport))
                        elif record.name == "story":
                            story += msgspec.json.decode(record.data, type=list[HistoryEntry])
        self._history.resume(story, crashes)

    def write_down(self) -> None:
        """Write down what has happened to the tree since the last time; the runtime does so once a second.

        Raises:
            JournalError: The journal takes nothing; what was to be written is lost, and stays in memory.
        """
        chapter = self._history.next_chapter()
        if chapter:
            self._journal.append_event("story", fit_all(msgspec.to_builtins(chapter)))
