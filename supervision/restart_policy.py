"""What follows from one child's end, as pure functions of one slot.

How breaker, backoff and budget work together, numbered because tests cite it:

- J-1 A child told to stop is never restarted; its end charges nothing.
- J-2 `StopAgent` ends a child for good and `EscalateFailure` makes the supervisor give up, whatever the spec says.
- J-3 Otherwise the restart type decides: permanent always, transient after a failure, temporary never. An end that
  leads to no restart charges nothing.
- J-4 A child whose breaker `parks` and does not let it through now is parked until the breaker does. Parking charges
  no budget, neither its own nor the supervisor's: the breaker is the judge of a flapping child. The exit itself was
  reported to the breaker before it was asked.
- J-5 Else the attempt is charged once: to the child's own budget if it has one, else to the supervisor's. An end is
  charged when it happens; a failed start is charged when its next attempt comes due.
- J-6 If that is one too many, a child with its own budget is left down (`failed`) or escalates, as its budget says; the
  supervisor's own limit makes it give up. Backoff cannot save it: the charge comes before the delay.
- J-7 Else the attempt is made after the delay of the child's backoff, or at once without one. The delay itself is
  never charged, and grows until the child has lived for the stable period.
- J-8 A probe is the restart of a parked child: it is not charged, has no delay, and if the child lives for the stable
  period the breaker hears a success. If it dies before, the breaker hears a failure and parks it for longer.
- J-9 A restart whose start fails on configuration is not tried again: the child is left down.
- J-10 A child found stuck `times` times in a row climbs one rung of its ladder, and after the last rung fails or
  escalates. Every one of these restarts is charged like any other.
- J-11 Under one_for_all and rest_for_one, where siblings cannot do without each other, no child is left down: wherever
  the rules above say so, the supervisor gives up instead.
"""

import random
from typing import Literal

import msgspec
from msgspec.structs import replace

from mlld_sdk.supervision.children import MEMORY, Slot
from mlld_sdk.supervision.events import BudgetView, Decision
from mlld_sdk.supervision.exits import Exit
from mlld_sdk.supervision.intensity import RestartLimit, Window

STABLE = 5.0
"""Seconds a probe without backoff must live for its breaker to hear a success."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What a judgement depends on besides the child.

    Attributes:
        now: Monotonic seconds.
        limit: The supervisor's limit.
        window: Its attempts so far.
        chance: Source of jitter.
        grouped: Whether siblings are restarted with the child.
        keeps: Whether the supervisor keeps the spec of a child that will not be restarted (a dynamic one does not).
        closed_for: Seconds until the child's parking breaker lets it start; `None` when it may start, or has none.
    """

    now: float
    limit: RestartLimit
    window: Window
    chance: random.Random
    grouped: bool = False
    keeps: bool = True
    closed_for: float | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one child.

    Attributes:
        decision: In one word.
        slot: The child's slot after it.
        window: The supervisor's attempts after it.
        delay: Seconds until the next attempt, when the decision plans one.
        budget: State of the limit that was charged, when one was.
        why: Why the supervisor gives up, when it does.
    """

    decision: Decision
    slot: Slot
    window: Window
    delay: float | None = None
    budget: BudgetView | None = None
    why: Literal["limit", "escalated", "configuration", "ladder"] = "limit"


def after_exit(slot: Slot, exit_: Exit, scene: Scene) -> Judgement:
    """Judge the end of a running child that nobody had told to stop."""
    lived = scene.now - slot.since
    streak = 0 if slot.spec.backoff and lived >= slot.spec.backoff.stable else slot.streak
    slot = replace(
        slot,
        status="stopped",
        child=None,
        since=scene.now,
        last=exit_,
        streak=streak,
        next_at=None,
        overdue=False,
        failures=slot.failures if exit_.expected else remember(slot, scene.now, lived),
    )
    if exit_.kind == "escalate":  # J-2
        return Judgement(decision="give_up", slot=slot, window=scene.window, why="escalated")
    if not restarts(slot, exit_):
        keeps = scene.keeps and slot.spec.restart != "temporary"
        return Judgement(decision="stop" if keeps else "remove", slot=slot, window=scene.window)
    if exit_.kind == "wedged" and slot.spec.wedge:
        climbed = climb(slot)
        if climbed is None:  # J-10
            return _end(slot, scene, slot.spec.wedge.then, "ladder")
        slot = climbed
    elif slot.wedges and slot.spec.wedge and lived >= slot.spec.wedge.after:
        slot = replace(slot, wedges=0)
    return _plan(slot, scene, charge_now=True)


def remember(slot: Slot, now: float, lived: float) -> tuple[tuple[float, float], ...]:
    """Add a failure to the ones that are remembered."""
    return (*slot.failures[1 - MEMORY :], (now, lived))


def restarts(slot: Slot, exit_: Exit) -> bool:
    """Say whether this end of a child leads to a restart (J-2, J-3)."""
    if exit_.kind == "stop" or slot.spec.restart == "temporary":
        return False
    return slot.spec.restart == "permanent" or not exit_.expected


def climb(slot: Slot) -> Slot | None:
    """Count one more time stuck, and step up the ladder when it is due; `None` past the last rung (J-10)."""
    wedge = slot.spec.wedge
    assert wedge is not None
    if slot.wedges + 1 < wedge.times:
        return replace(slot, wedges=slot.wedges + 1)
    if slot.rung < len(wedge.ladder):
        return replace(slot, wedges=0, rung=slot.rung + 1)
    return None


def after_failed_start(slot: Slot, exit_: Exit, scene: Scene) -> Judgement:
    """Judge a start that failed during a restart; failing first starts and calls are not judged, they are answered."""
    slot = replace(
        slot,
        status="stopped",
        child=None,
        since=scene.now,
        last=exit_,
        charged=False,
        failures=remember(slot, scene.now, 0.0),
    )
    if exit_.kind == "configuration":  # J-9
        return _end(slot, scene, "stop", "configuration")
    if exit_.kind == "escalate":
        return Judgement(decision="give_up", slot=slot, window=scene.window, why="escalated")
    return _plan(slot, scene, charge_now=False)


def when_due(slot: Slot, scene: Scene) -> Judgement:
    """Judge a planned attempt whose time has come: make it (`restart`), or not after all."""
    if scene.closed_for is not None:
        return _park(slot, scene)
    if slot.status == "parked" or slot.charged:
        probing = slot.status == "parked"
        return Judgement(decision="restart", slot=replace(slot, probing=probing, charged=False), window=scene.window)
    slot, window, view, outcome = charge(slot, scene)
    if outcome is not None:
        return _end(slot, scene, outcome, "limit", window, view)
    return Judgement(decision="restart", slot=slot, window=window, budget=view)


def charge(slot: Slot, scene: Scene) -> tuple[Slot, Window, BudgetView, Literal["stop", "escalate"] | None]:
    """Count one attempt (J-5).

    Returns:
        The slot and the supervisor's window after it, the state of the limit that was charged, and what follows when
        it was one too many.
    """
    own = slot.spec.budget
    limit = own.limit if own else scene.limit
    charged, holds = (slot.window if own else scene.window).charge(scene.now, limit)
    view = BudgetView(len(charged.attempts), limit.restarts, limit.within)
    if own:
        return replace(slot, window=charged), scene.window, view, None if holds else own.then
    return slot, charged, view, None if holds else "escalate"


def _plan(slot: Slot, scene: Scene, *, charge_now: bool) -> Judgement:
    """Plan the next attempt: park, charge and delay, in that order."""
    if scene.closed_for is not None:
        return _park(slot, scene)
    window, view = scene.window, None
    if charge_now:
        slot, window, view, outcome = charge(slot, scene)
        if outcome is not None:
            return _end(slot, scene, outcome, "limit", window, view)
    backoff = slot.spec.backoff
    delay = backoff.delay(slot.streak, scene.chance) if backoff else 0.0
    at_once = charge_now and delay == 0
    slot = replace(
        slot,
        status="waiting",
        streak=slot.streak + 1,
        charged=charge_now,
        next_at=None if at_once else scene.now + delay,
        probing=False,
    )
    return Judgement(decision="restart" if at_once else "wait", slot=slot, window=window, delay=delay, budget=view)


def _park(slot: Slot, scene: Scene) -> Judgement:
    """Keep the child down until its breaker lets it through (J-4)."""
    wait = scene.closed_for or 0.0
    slot = replace(slot, status="parked", next_at=scene.now + wait, charged=False, probing=False)
    return Judgement(decision="park", slot=slot, window=scene.window, delay=wait)


def _end(
    slot: Slot,
    scene: Scene,
    then: Literal["stop", "escalate"],
    why: Literal["limit", "configuration", "ladder"],
    window: Window | None = None,
    view: BudgetView | None = None,
) -> Judgement:
    """Stop trying: leave the child down, or give up."""
    window = scene.window if window is None else window
    if then == "escalate" or scene.grouped:  # J-11
        slot = replace(slot, status="stopped", next_at=None)
        return Judgement(decision="give_up", slot=slot, window=window, budget=view, why=why)
    slot = replace(slot, status="failed", next_at=None)
    return Judgement(decision="fail" if scene.keeps else "remove", slot=slot, window=window, budget=view, why=why)
