"""What the steps of all supervisors have in common: one step in the making, its effects, and the reports.

A turn lives inside one call of a step function only. It holds the state so far and collects effects; nothing outside
ever sees it half done.
"""

import random
import zlib
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import force_setattr, replace

from mlld_sdk.supervision.children import Slot
from mlld_sdk.supervision.effects import Effect, Emit, Finish, Kill, NoProgress, Overdue, RequestStop, Start
from mlld_sdk.supervision.events import (
    ChildExited,
    ChildPutOff,
    ChildStarted,
    ChildStartFailedEvent,
    ChildStopped,
    ChildWedged,
    Decision,
    SupervisorGaveUp,
    SupervisorStopped,
)
from mlld_sdk.supervision.exits import KILLED, SHUTDOWN, ChildExit
from mlld_sdk.supervision.reasons import GaveUp, Wedged
from mlld_sdk.supervision.restart_policy import PolicyInput, Ruling
from mlld_sdk.supervision.state import Cause, DynamicState, StaticState, Why

S = TypeVar("S", StaticState, DynamicState)

HEAD_START = 0.05
HEAD_START_SHARE = 0.1
"""A supervisor is handed a deadline a little before it is killed itself, at most so many seconds and so much of what is
left: time to kill its own and to say so."""

FailureEvent = type[ChildExited] | type[ChildStartFailedEvent]


class World(msgspec.Struct, frozen=True):
    """The clocks at this step, the source of jitter, and whether anybody listens to events."""

    now: float
    wall: float
    chance: random.Random
    heard: bool = True


class Step(Generic[S]):
    """One step in the making."""

    keeps = True
    """Whether the spec of a child that will not be restarted is kept."""

    def __init__(self, state: S, world: World) -> None:
        self.state: S = replace(state)  # its own: nobody else sees it before the step is over
        self.world = world
        self.effects: list[Effect] = []

    @property
    def grouped(self) -> bool:
        """Whether siblings are restarted together."""
        return False

    # -- small change --------------------------------------------------------------------------------------------------

    def set(self, **changes: Any) -> None:
        """Replace fields of the state."""
        for name, value in changes.items():
            force_setattr(self.state, name, value)

    def put(self, slot: Slot) -> Slot:
        """Replace a slot."""
        force_setattr(self.state, "slots", self.state.slots.put(slot))
        return slot

    def do(self, effect: Effect) -> None:
        """Add an effect."""
        self.effects.append(effect)

    def label_of(self, slot: Slot) -> str:
        """Say what a child is called under this supervisor."""
        return slot.spec.name

    def path_of(self, slot: Slot) -> str:
        """Say where a child stands in the tree."""
        return f"{self.state.path}/{self.label_of(slot)}"

    def find(self, key: int, incarnation: int) -> Slot | None:
        """Find a slot if this is still its incarnation; what comes from an older one is nothing."""
        slot = self.state.slots.get(key)
        return slot if slot is not None and slot.incarnation == incarnation else None

    def policy_input(self, closed_for: float | None = None) -> PolicyInput:
        """Describe the circumstances of a judgement."""
        return PolicyInput(
            now=self.world.now,
            limit=self.state.spec.limit,
            window=self.state.window,
            chance=self.world.chance,
            grouped=self.grouped,
            keeps=self.keeps,
            closed_for=closed_for,
        )

    # -- starting and stopping one child -------------------------------------------------------------------------------

    def start(self, slot: Slot) -> None:
        """Start the next incarnation of a child."""
        incarnation = slot.incarnation + 1
        self.put(
            replace(
                slot,
                status="starting",
                incarnation=incarnation,
                since=self.world.now,
                next_at=None,
                overdue=False,
            )
        )
        self.do(Start(slot.key, incarnation, slot.spec, slot.rung))

    def mark_running(self, slot: Slot, child: Any, cause: Cause) -> Slot:
        """Note that a start has succeeded."""
        spec = slot.spec
        if spec.restart == "temporary" and (spec.args or spec.kwargs):  # SUP-10: it may be big, and is not needed again
            spec = replace(spec, args=(), kwargs={})
        took = self.world.now - slot.since
        slot = self.put(
            replace(
                slot,
                spec=spec,
                status="running",
                child=child,
                since=self.world.now,
                held="",
                calls=(),
                restarts=slot.restarts + (cause == "restart"),
            )
        )
        if self.world.heard:
            started = ChildStarted(
                at=self.world.wall,
                path=self.path_of(slot),
                incarnation=slot.incarnation,
                cause=cause,
                took=took,
                rung=slot.rung,
            )
            self.do(Emit(started))
        return slot

    def tell_to_stop(self, slot: Slot, due: float | None) -> None:
        """Ask a child that is `stopping` to end before `due`, or kill it when its spec says so (SUP-20)."""
        if slot.spec.shutdown == "kill":
            self.do(Kill(slot.key, slot.incarnation, KILLED))
        else:
            if due is not None and slot.spec.kind == "supervisor":
                due -= min(HEAD_START, HEAD_START_SHARE * max(due - self.world.now, 0.0))
            self.do(RequestStop(slot.key, slot.incarnation, due, self.state.drain))

    def stop_due(self, slot: Slot) -> float:
        """Say at which instant a child that is `stopping` has had its time: its own, or its supervisor's."""
        limit = slot.spec.shutdown
        latest = self.state.deadline
        due = float("inf") if limit == "kill" else slot.since + limit
        return due if latest is None or due < latest else latest

    def on_overdue(self, overdue: Overdue) -> None:
        """A child had its time to stop."""
        slot = self.find(overdue.key, overdue.incarnation)
        if slot is not None and slot.status == "stopping" and not slot.overdue:
            self.put(replace(slot, overdue=True))
            self.do(Kill(slot.key, slot.incarnation, KILLED))

    def on_no_progress(self, silent: NoProgress) -> None:
        """A child makes no progress: it is killed, and its end is judged like any other."""
        slot = self.find(silent.key, silent.incarnation)
        if slot is None or slot.status != "running":
            return
        self.do(
            Emit(
                ChildWedged(
                    at=self.world.wall,
                    path=self.path_of(slot),
                    incarnation=slot.incarnation,
                    idle=silent.idle,
                    times=slot.wedges + 1,
                    rung=slot.rung,
                )
            )
        )
        reason = Wedged(silent.idle)
        self.do(Kill(slot.key, slot.incarnation, ChildExit("wedged", str(reason), reason=reason)))

    # -- giving up and ending ------------------------------------------------------------------------------------------

    def gave_up(self, slot: Slot, ruling: Ruling, exit_: ChildExit) -> ChildExit:
        """Report that restarting did not help, and say with which reason the supervisor ends (SUP-42, SUP-43)."""
        culprit = self.path_of(slot)
        self.do(
            Emit(
                SupervisorGaveUp(
                    at=self.world.wall,
                    path=self.state.path,
                    culprit=culprit,
                    why=ruling.why,
                    reason=str(exit_),
                    budget=ruling.budget,
                )
            )
        )
        reason = GaveUp(self.state.path, culprit, ruling.why, str(exit_))
        self.set(gave_up=str(reason))
        if self.state.spec.give_up_as == "shutdown":
            return SHUTDOWN
        return ChildExit("gave_up", str(reason), exit_.trace, reason)

    def finish(self, began: float) -> None:
        """Nothing is left below: end."""
        end = self.state.end or SHUTDOWN
        self.set(phase="gone")
        self.do(
            Emit(
                SupervisorStopped(
                    at=self.world.wall,
                    path=self.state.path,
                    kind=end.kind,
                    reason=str(end),
                    killed=self.state.killed,
                    took=self.world.now - began,
                )
            )
        )
        self.do(Finish(end, self.state.killed))

    # -- reports -------------------------------------------------------------------------------------------------------

    def tell_stopped(self, slot: Slot, exit_: ChildExit, cause: Why) -> None:
        """Report that a child that was to be stopped is down, and how (SUP-22); note who had to be killed."""
        if slot.overdue:
            self.set(killed=(*self.state.killed, self.path_of(slot)))
        if not self.world.heard:
            return
        told = slot.status == "stopping"
        brutal = told and slot.spec.shutdown == "kill"
        fine = exit_.kind == "shutdown" or (brutal and exit_.kind == "killed")
        if slot.spec.restart != "permanent" or self.state.drain:
            fine = fine or exit_.expected
        self.do(
            Emit(
                ChildStopped(
                    at=self.world.wall,
                    path=self.path_of(slot),
                    incarnation=slot.incarnation,
                    cause=cause,
                    kind=exit_.kind,
                    reason=str(exit_),
                    killed=slot.overdue or brutal,
                    overdue=slot.overdue,
                    took=self.world.now - slot.since if told else 0.0,
                    context="" if fine else "shutdown_error",
                )
            )
        )

    def tell_called_off(self, slot: Slot, cause: Why, why: str = "its restart was called off") -> None:
        """Report that a child which does not run is not meant to any more."""
        self.do(
            Emit(
                ChildStopped(
                    at=self.world.wall,
                    path=self.path_of(slot),
                    incarnation=slot.incarnation,
                    cause=cause,
                    kind=slot.last.kind if slot.last else "shutdown",
                    reason=why,
                )
            )
        )

    def tell_put_off(self, slot: Slot, exit_: ChildExit, ruling: Ruling) -> None:
        """Report that a planned restart came due and was not made; one that stays parked is nothing new."""
        if ruling.decision not in ("park", "fail", "remove") or slot.status == ruling.slot.status:
            return
        self.do(
            Emit(
                ChildPutOff(
                    at=self.world.wall,
                    path=self.path_of(slot),
                    incarnation=slot.incarnation,
                    decision=ruling.decision,
                    reason=str(exit_),
                    next_attempt_in=ruling.delay if ruling.decision == "park" else None,
                    budget=ruling.budget,
                )
            )
        )

    def tell_failure(
        self,
        event: FailureEvent,
        slot: Slot,
        exit_: ChildExit,
        decision: Decision,
        ruling: Ruling | None = None,
        lived: float | None = None,
    ) -> None:
        """Report an end or a failed start, with what follows."""
        if not self.world.heard:
            return
        path = self.path_of(slot)
        self.do(
            Emit(
                event(
                    at=self.world.wall,
                    path=path,
                    incarnation=slot.incarnation,
                    kind=exit_.kind,
                    reason=str(exit_),
                    trace=exit_.trace,
                    decision=decision,
                    next_attempt_in=None if ruling is None or slot.next_at is None else ruling.delay,
                    budget=None if ruling is None else ruling.budget,
                    lived=lived,
                    crash_id=crash_id(path, slot.incarnation, self.world.wall),
                    blame=self.state.path,
                )
            )
        )


def crash_id(path: str, incarnation: int, wall: float) -> str:
    """Make a short name for a failure that is easy to search for and the same wherever it is shown."""
    return f"{zlib.crc32(f'{path}#{incarnation}@{wall!r}'.encode()):08x}"
