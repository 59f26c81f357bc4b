"""What happened lately, ready to be asked: the last events, and a crash report for every failure.

A view of the one stream and of nothing else: reading it messages nobody. It keeps as much as it is told to in memory.
With a journal the story goes on after a restart of the program: crash reports are written down at once, and what
happened to the tree (`STORY`) a second later at most, into the journal's bounded ring.
"""

import contextlib
import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from signal import Signals
from typing import Any, Final

import msgspec

from mlld_sdk.actors.core.events import ActorExited
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.engines.checkpoint_params import CheckpointMissedEvent
from mlld_sdk.journal import Journal
from mlld_sdk.journal.events import OwnerDied, StepFinished
from mlld_sdk.supervision.events import (
    BudgetView,
    ChildExited,
    ChildFailure,
    ChildStarted,
    ChildStartFailedEvent,
    ChildWedged,
    SupervisorGaveUp,
)
from mlld_sdk.telemetry.log import fields_of, level_of
from mlld_sdk.transport.events import EngineExited, EngineStarted

KEPT: Final = 10_000
CRASHES: Final = 1_000
STDERR_LINES: Final = 20
ENGINES_REMEMBERED: Final = 1_000

STORY: Final = ("child.", "supervisor.", "breaker.", "operator.", "orphans.", "journal.", "engine.exited", "zombie.")
"""Beginnings of the names of events that are kept across restarts; what happened to runs the journal knows anyway."""

CHAPTER: Final = 500
"""Most events of the story that wait to be written down; in a storm the oldest are not."""

REMEMBERED: Final = 5_000
"""Newest records of the journal's ring that are taken over at the start."""

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


class EngineEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine ended that a failure is about.

    Attributes:
        engine: Its label.
        pid: Its process.
        exit: The exit in words: `exit 1`, `SIGKILL`.
        out_of_memory: Whether it looks like memory ran out.
        stderr_tail: Its last words, at most `STDERR_LINES` lines.
    """

    engine: str
    pid: int
    exit: str
    out_of_memory: bool = False
    stderr_tail: tuple[str, ...] = ()


class CrashReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about one failure, put together from the events around it.

    Attributes:
        crash_id: Short name, to find it again.
        at: Wall-clock seconds.
        path: Who failed.
        incarnation: Which start of it.
        context: `start_error`, `child_terminated` or `limit_exceeded`.
        kind: Family of the reason.
        reason: In one line.
        trace: Formatted traceback, if there was one.
        decision: What the supervisor did about it.
        next_attempt_in: Seconds until the next start, when one was planned.
        budget: State of the restart limit that was charged.
        lived: Seconds it had been up.
        blame: The supervisor that decided.
        wedged_for: Seconds without progress, if that is why it was killed.
        engine: How its engine ended, if one did within a moment before.
        runs: Runs that lost their owner with it.
        last_step: When it last finished a step, wall-clock seconds.
        last_message: What its actor was handling, as its class describes messages.
        queued: Messages that waited for it and were refused.
        checkpoint: When it last kept an answer in the cache of finished model calls, wall-clock seconds.
    """

    crash_id: str
    at: float
    path: str
    incarnation: int
    context: str
    kind: str
    reason: str
    trace: str = ""
    decision: str = ""
    next_attempt_in: float | None = None
    budget: BudgetView | None = None
    lived: float | None = None
    blame: str = ""
    wedged_for: float | None = None
    engine: EngineEnd | None = None
    runs: tuple[str, ...] = ()
    last_step: float | None = None
    last_message: str = ""
    queued: int = 0
    checkpoint: float | None = None


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """A living engine, as far as events tell.

    Attributes:
        engine: Its label.
        pid: Its process.
        command: What runs.
        since: Wall-clock seconds of its start.
    """

    engine: str
    pid: int
    command: str
    since: float


class History:
    """Keeps the last events and crash reports. Attach it to a bus with `bus.attach_inline("history", history)`.

    Args:
        kept: How many events are kept in memory; the oldest go first.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._events: deque[tuple[int, Event | HistoryEntry]] = deque(maxlen=kept)
        self._chapter: deque[tuple[int, Event]] = deque(maxlen=CHAPTER)
        self._crashes: deque[CrashReport] = deque(maxlen=CRASHES)
        self._engines: dict[str, EngineView] = {}
        self._ends: OrderedDict[str, tuple[float, EngineEnd]] = OrderedDict()
        self._wedged: dict[str, float] = {}
        self._actor_ends: dict[str, ActorExited] = {}
        self._kept: dict[str, float] = {}
        self._lost: deque[tuple[float, str, str]] = deque(maxlen=100)
        self._last_step: dict[str, float] = {}
        self._n = 0
        self._waiting = 0
        self._notes: dict[type[Event], Callable[[Any], None]] = {
            EngineStarted: self._engine_started,
            EngineExited: self._engine_exited,
            OwnerDied: self._owner_died,
            ActorExited: self._actor_exited,
            CheckpointMissedEvent: self._answer_kept,
            StepFinished: self._step_finished,
            ChildWedged: self._child_wedged,
            ChildStarted: self._child_started,
            ChildExited: self._child_failed,
            ChildStartFailedEvent: self._child_failed,
            SupervisorGaveUp: self._supervisor_gave_up,
        }
        self._is_story: dict[type[Event], bool] = {}
        self._news = threading.Condition(self._lock)

    def __call__(self, event: Event) -> None:
        """Take an event; quick, and called by whoever emits it."""
        with self._lock:
            self._n += 1
            self._events.append((self._n, event))
            kind = type(event)
            story = self._is_story.get(kind)
            if story is None:
                story = self._is_story[kind] = name_of(event).startswith(STORY)
            if story:
                self._chapter.append((self._n, event))
            note = self._notes.get(kind)
            if note is not None:
                note(event)
            if self._waiting:
                self._news.notify_all()

    # -- asking -------------------------------------------------------------------------------------------------------

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

    def engines(self) -> list[EngineView]:
        """List the engines that live."""
        with self._lock:
            return sorted(self._engines.values(), key=lambda engine: engine.since)

    # -- keeping ------------------------------------------------------------------------------------------------------

    def remember(self, journal: Journal) -> None:
        """Take over the crash reports and the story an earlier life of the program has kept."""
        try:
            after = max(0, _last_number(journal) - REMEMBERED)
        except MlldError:
            return  # a journal that cannot be read says so by itself
        while True:
            try:
                records = journal.events(after=after, limit=CRASHES)
            except MlldError:
                return
            for record in records:
                if record.name == "crash" and isinstance(record.data, msgspec.Raw):
                    with contextlib.suppress(msgspec.MsgspecError):  # kept by a version that knew other fields
                        self._crashes.append(msgspec.json.decode(record.data, type=CrashReport))
                if record.name == "story" and isinstance(record.data, msgspec.Raw):
                    with contextlib.suppress(msgspec.MsgspecError):
                        self._resume(msgspec.json.decode(record.data, type=list[HistoryEntry]))
            if len(records) < CRASHES:
                return
            after = records[-1].n

    def write_down(self, journal: Journal) -> None:
        """Write down what has happened to the tree since the last time; the runtime does so once a second.

        Raises:
            JournalError: The journal takes nothing; what was to be written is lost, and stays in memory.
        """
        with self._lock:
            chapter = list(self._chapter)
            self._chapter.clear()
        if chapter:
            journal.append_event("story", msgspec.to_builtins([_brief(_entry(n, event)) for n, event in chapter]))

    def keeper(self, journal: Journal) -> Callable[[Event], None]:
        """Make a handler that keeps each crash report in the journal; attach it with a thread of its own."""

        def keep(event: Event) -> None:
            name = _gave_up(event).crash_id if isinstance(event, SupervisorGaveUp) else getattr(event, "crash_id", "")
            crash = self.crash(name) if name else None
            if crash is not None:
                journal.append_event("crash", msgspec.to_builtins(crash))

        return keep

    # -- inside -------------------------------------------------------------------------------------------------------

    def _engine_started(self, event: EngineStarted) -> None:
        self._engines[event.engine] = EngineView(
            engine=event.engine, pid=event.pid, command=event.command, since=event.at
        )

    def _engine_exited(self, event: EngineExited) -> None:
        self._engines.pop(event.engine, None)
        self._ends[event.engine] = (event.at, _end_of(event))
        while len(self._ends) > ENGINES_REMEMBERED:
            self._ends.popitem(last=False)

    def _owner_died(self, event: OwnerDied) -> None:
        self._lost.append((event.at, event.owner, event.run_id))

    def _step_finished(self, event: StepFinished) -> None:
        _remember(self._last_step, event.run_id, event.at)

    def _actor_exited(self, event: ActorExited) -> None:
        if not event.normal:  # what its supervisor makes of it comes next
            _remember(self._actor_ends, event.actor, event)

    def _answer_kept(self, event: CheckpointMissedEvent) -> None:
        _remember(self._kept, event.agent, event.at)

    def _child_wedged(self, event: ChildWedged) -> None:
        self._wedged[event.path] = event.idle

    def _child_started(self, event: ChildStarted) -> None:
        self._wedged.pop(event.path, None)

    def _child_failed(self, event: ChildFailure) -> None:
        if event.kind not in ("normal", "shutdown"):
            self._crashes.append(self._report(event))

    def _supervisor_gave_up(self, event: SupervisorGaveUp) -> None:
        self._crashes.append(_gave_up(event))

    def _resume(self, chapter: list[HistoryEntry]) -> None:
        with self._lock:
            for told in chapter:
                self._n += 1
                self._events.append((self._n, told))

    def _report(self, event: ChildFailure) -> CrashReport:
        runs = tuple(
            run for at, owner, run in self._lost if event.at - at < 1.0 and owner.rpartition("#")[0] == event.path
        )
        end = self._actor_ends.pop(event.path, None)
        return CrashReport(
            crash_id=event.crash_id,
            at=event.at,
            path=event.path,
            incarnation=event.incarnation,
            context=str(getattr(event, "context", "")),
            kind=event.kind,
            reason=event.reason,
            trace=event.trace,
            decision=event.decision,
            next_attempt_in=event.next_attempt_in,
            budget=event.budget,
            lived=event.lived,
            blame=event.blame,
            wedged_for=self._wedged.get(event.path),
            engine=self._engine_end(event),
            runs=runs,
            last_message=end.last_message if end else "",
            queued=end.queued if end else 0,
            checkpoint=self._kept.get(event.path),
            last_step=max((self._last_step[run] for run in runs if run in self._last_step), default=None),
        )

    def _engine_end(self, event: ChildFailure) -> EngineEnd | None:
        """Find the engine of this child that ended in the moment before."""
        for label, (at, end) in reversed(self._ends.items()):
            if event.at - at > 2.0:
                return None
            if label.rpartition("-")[0] == event.path:
                return end
        return None


def _remember(kept: dict[str, Any], key: str, value: Any) -> None:
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > ENGINES_REMEMBERED:
        del kept[next(iter(kept))]


def _last_number(journal: Journal) -> int:
    """Find the number of the newest record of the common stream, which has no gaps at its end."""
    low, high = 0, 1
    while journal.events(after=high - 1, limit=1):
        low, high = high, high * 2
    while low < high - 1:
        middle = (low + high) // 2
        if journal.events(after=middle - 1, limit=1):
            low = middle
        else:
            high = middle
    return low


def _entry(n: int, event: Event | HistoryEntry) -> HistoryEntry:
    if isinstance(event, HistoryEntry):
        return msgspec.structs.replace(event, n=n)
    return HistoryEntry(n=n, at=event.at, name=name_of(event), level=level_of(event), fields=fields_of(event))


def _brief(told: HistoryEntry) -> HistoryEntry:
    """Leave out and cut what the crash report tells at length."""
    fields = {
        name: f"{value[:LONGEST]}…" if isinstance(value, str) and len(value) > LONGEST else value
        for name, value in told.fields.items()
        if name not in TOO_LONG
    }
    return msgspec.structs.replace(told, fields=fields)


def _end_of(event: EngineExited) -> EngineEnd:
    words = f"exit {event.code}" if event.signal is None else Signals(event.signal).name
    lines = tuple(event.stderr_tail.splitlines()[-STDERR_LINES:])
    return EngineEnd(
        engine=event.engine, pid=event.pid, exit=words, out_of_memory=event.out_of_memory, stderr_tail=lines
    )


def _gave_up(event: SupervisorGaveUp) -> CrashReport:
    return CrashReport(
        crash_id=f"gave-up-{event.path}-{event.at:.3f}",
        at=event.at,
        path=event.path,
        incarnation=0,
        context="limit_exceeded",
        kind="gave_up",
        reason=f"{event.culprit}: {event.reason}",
        decision=event.why,
        budget=event.budget,
        blame=event.path,
    )
