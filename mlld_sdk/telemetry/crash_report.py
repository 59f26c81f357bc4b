"""Crash reports: what the events around a failure say about it, put together in one record."""

from collections import deque
from collections.abc import Callable
from signal import Signals
from typing import Any, Final

import msgspec

from mlld_sdk.actors.core.events import ActorExited
from mlld_sdk.base.events import Event
from mlld_sdk.engines.events import CheckpointMissedEvent
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
from mlld_sdk.telemetry.recent import Recent
from mlld_sdk.transport.events import EngineExited

STDERR_LINES: Final = 20
REMEMBERED: Final = 1_000
"""Engines, actors, agents and runs of which the last events are remembered; the oldest are forgotten first."""


class EngineEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine ended that a failure is about.

    Attributes:
        engine: Its label.
        pid: Its process.
        exit: The exit in words: `exit 1`, `SIGKILL`.
        out_of_memory: Whether there is evidence that memory ran out.
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
        checkpoint: When it last asked a model, calls served from the cache aside, wall-clock seconds.
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


class CrashReporter:
    """Remembers what may become part of a crash report, and makes one of each failure. Not thread-safe.

    Attributes:
        notes: What is done with an event, by the classes of events there is a use for; a failure gives a crash report.
    """

    def __init__(self) -> None:
        self._engine_ends: Recent[str, tuple[float, EngineEnd]] = Recent(REMEMBERED)
        self._actor_ends: Recent[str, ActorExited] = Recent(REMEMBERED)
        self._kept: Recent[str, float] = Recent(REMEMBERED)
        self._last_step: Recent[str, float] = Recent(REMEMBERED)
        self._wedged: dict[str, float] = {}
        self._lost: deque[OwnerDied] = deque(maxlen=100)
        self.notes: dict[type[Event], Callable[[Any], object]] = {
            EngineExited: lambda event: self._engine_ends.update({event.engine: (event.at, _end_of(event))}),
            OwnerDied: self._lost.append,
            StepFinished: lambda event: self._last_step.update({event.run_id: event.at}),
            # What its supervisor makes of the end of an actor comes next.
            ActorExited: lambda event: event.normal or self._actor_ends.update({event.actor: event}),
            CheckpointMissedEvent: lambda event: self._kept.update({event.agent: event.at}),
            ChildWedged: lambda event: self._wedged.update({event.path: event.idle}),
            ChildStarted: lambda event: self._wedged.pop(event.path, None),
            ChildExited: self._report,
            ChildStartFailedEvent: self._report,
            SupervisorGaveUp: gave_up,
        }

    def _report(self, event: ChildFailure) -> CrashReport | None:
        if event.kind in ("normal", "shutdown"):
            return None
        lost = [one for one in self._lost if event.at - one.at < 1.0 and one.owner.rpartition("#")[0] == event.path]
        runs = tuple(one.run_id for one in lost)
        end = self._actor_ends.pop(event.path, None)
        return CrashReport(
            **msgspec.structs.asdict(event),
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
        for label, (at, end) in reversed(self._engine_ends.items()):
            if event.at - at > 2.0:
                return None
            if label.rpartition("-")[0] == event.path:
                return end
        return None


def _end_of(event: EngineExited) -> EngineEnd:
    words = f"exit {event.code}" if event.signal is None else Signals(event.signal).name
    lines = tuple(event.stderr_tail.splitlines()[-STDERR_LINES:])
    return EngineEnd(
        engine=event.engine, pid=event.pid, exit=words, out_of_memory=event.out_of_memory, stderr_tail=lines
    )


def gave_up(event: SupervisorGaveUp) -> CrashReport:
    """Make the crash report of a supervisor that gave up."""
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
