"""What follows from one child's end, as pure functions of its slot and of its supervisor's state.

`closed_for` is for how many seconds the child's parking breaker keeps it down; `None` when it may start, or has none.

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

import msgspec
from msgspec.structs import replace

from mlld_sdk.supervision.decisions.draft import World
from mlld_sdk.supervision.decisions.slots import MEMORY, Slot
from mlld_sdk.supervision.decisions.state import SupervisorState
from mlld_sdk.supervision.events import BudgetView, Decision, GivenUpFor
from mlld_sdk.supervision.intensity import RestartWindow
from mlld_sdk.supervision.reasons import ChildExit
from mlld_sdk.supervision.spec import Then

STABLE = 5.0
"""Seconds a probe without backoff must live for its breaker to hear a success."""


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
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
    window: RestartWindow
    delay: float | None = None
    budget: BudgetView | None = None
    why: GivenUpFor = "limit"


def after_exit(
    slot: Slot, exit_: ChildExit, state: SupervisorState, world: World, closed_for: float | None = None
) -> Ruling:
    """Judge the end of a running child that had not been told to stop."""
    lived = world.now - slot.since
    streak = 0 if slot.spec.backoff and lived >= slot.spec.backoff.stable else slot.streak
    failures = slot.failures if exit_.expected else remember(slot, world.now, lived)
    slot = replace(slot, status="stopped", child=None, since=world.now, last=exit_, streak=streak, failures=failures)
    if exit_.kind == "escalate":  # J-2
        return Ruling(decision="give_up", slot=slot, window=state.window, why="escalated")
    if not restarts(slot, exit_):
        keeps = state.keeps and slot.spec.restart != "temporary"
        return Ruling(decision="stop" if keeps else "remove", slot=slot, window=state.window)
    if exit_.kind == "wedged" and slot.spec.wedge:
        climbed = climb(slot)
        if climbed is None:  # J-10
            return _end(slot, state, slot.spec.wedge.then, "ladder")
        slot = climbed
    elif slot.wedges and slot.spec.wedge and lived >= slot.spec.wedge.after:
        slot = replace(slot, wedges=0)
    return _plan(slot, state, world, closed_for, charge_now=True)


def remember(slot: Slot, now: float, lived: float) -> tuple[tuple[float, float], ...]:
    """Add a failure to the ones that are remembered."""
    return (*slot.failures[1 - MEMORY :], (now, lived))


def restarts(slot: Slot, exit_: ChildExit) -> bool:
    """Return whether this end of a child leads to a restart (J-2, J-3)."""
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
        rung = wedge.ladder[slot.rung]
        configured = {name: value for name, value in (slot.configured or {}).items() if name not in rung}
        return replace(slot, wedges=0, rung=slot.rung + 1, configured=configured or None)
    return None


def after_failed_start(
    slot: Slot, exit_: ChildExit, state: SupervisorState, world: World, closed_for: float | None = None
) -> Ruling:
    """Judge a start that failed during a restart; failing first starts and calls are not judged, they are answered."""
    failures = remember(slot, world.now, 0.0)
    slot = replace(slot, status="stopped", child=None, since=world.now, last=exit_, failures=failures)
    if exit_.kind == "configuration":  # J-9
        return _end(slot, state, "stop", "configuration")
    if exit_.kind == "escalate":
        return Ruling(decision="give_up", slot=slot, window=state.window, why="escalated")
    return _plan(slot, state, world, closed_for, charge_now=False)


def when_due(slot: Slot, state: SupervisorState, world: World, closed_for: float | None = None) -> Ruling:
    """Judge a planned attempt whose time has come: make it (`restart`), or not after all."""
    if closed_for is not None:
        return _park(slot, state, world.now, closed_for)
    if slot.status == "parked" or slot.charged:
        return Ruling(decision="restart", slot=replace(slot, charged=False), window=state.window)
    return charge(slot, state, world.now)


def charge(slot: Slot, state: SupervisorState, now: float) -> Ruling:
    """Count one attempt (J-5), and rule that it is made unless it is one too many (J-6)."""
    own = slot.spec.budget
    limit = own.limit if own else state.spec.limit
    charged, holds = (slot.window if own else state.window).charge(now, limit)
    slot, window = (replace(slot, window=charged), state.window) if own else (slot, charged)
    view = BudgetView(len(charged.attempts), limit.restarts, limit.within)
    if holds:
        return Ruling(decision="restart", slot=slot, window=window, budget=view)
    return _end(slot, state, own.then if own else "escalate", "limit", window, view)


def _plan(slot: Slot, state: SupervisorState, world: World, closed_for: float | None, *, charge_now: bool) -> Ruling:
    """Plan the next attempt: park, charge and delay, in that order."""
    if closed_for is not None:
        return _park(slot, state, world.now, closed_for)
    if not charge_now:
        ruling = Ruling(decision="restart", slot=slot, window=state.window)
    elif (ruling := charge(slot, state, world.now)).decision != "restart":
        return ruling
    backoff = slot.spec.backoff
    delay = backoff.delay(slot.streak, world.chance) if backoff else 0.0
    at_once = charge_now and delay == 0
    next_at = None if at_once else world.now + delay
    slot = replace(ruling.slot, status="waiting", streak=slot.streak + 1, charged=charge_now, next_at=next_at)
    return replace(ruling, decision="restart" if at_once else "wait", slot=slot, delay=delay)


def _park(slot: Slot, state: SupervisorState, now: float, wait: float) -> Ruling:
    """Keep the child down until its breaker lets it through (J-4)."""
    slot = replace(slot, status="parked", next_at=now + wait, charged=False)
    return Ruling(decision="park", slot=slot, window=state.window, delay=wait)


def _end(
    slot: Slot,
    state: SupervisorState,
    then: Then,
    why: GivenUpFor,
    window: RestartWindow | None = None,
    view: BudgetView | None = None,
) -> Ruling:
    """Stop trying: leave the child down, or give up."""
    window = state.window if window is None else window
    if then == "escalate" or state.grouped:  # J-11
        slot = replace(slot, status="stopped", next_at=None)
        return Ruling(decision="give_up", slot=slot, window=window, budget=view, why=why)
    slot = replace(slot, status="failed", next_at=None)
    return Ruling(decision="fail" if state.keeps else "remove", slot=slot, window=window, budget=view, why=why)
