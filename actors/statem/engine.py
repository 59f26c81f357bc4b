"""What a state machine does next, as pure functions: queue, postponed events, timers and the order between them.

Nothing here calls user code, sends or waits. The shell (`statem`) hands in the event and what the user's callback
answered; it gets back the next `Machine` and the effects to carry out, in order. One turn has two halves, because the
enter callback of the new state runs in between:

1. `reply_effects` and `enters`: replies leave first; then the shell calls the enter callback, if one is due;
2. `settle`: postpone, requeue what was postponed, put inserted events in front, then timers.

Queues are linked pairs `(event, rest)`, so that putting in front costs the same with one event waiting as with a
million.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

Kind = Literal["call", "cast", "info", "internal", "state_timeout", "event_timeout", "timeout"]
"""Where an event comes from. `timeout` is a named (generic) timeout; the name is in `Happening.timer`."""


class TimerKey(msgspec.Struct, frozen=True):
    """Which timer is meant: the one of the state, the one of the next event, or one with a name."""

    kind: Literal["state_timeout", "event_timeout", "timeout"]
    name: str = ""

    def __str__(self) -> str:
        return f"timeout {self.name!r}" if self.kind == "timeout" else self.kind


STATE_TIMEOUT = TimerKey("state_timeout")
EVENT_TIMEOUT = TimerKey("event_timeout")


class Happening(msgspec.Struct, frozen=True, eq=False):
    """One event on its way to a state.

    Attributes:
        kind: Where it comes from.
        content: What was sent, inserted, or given to the timer.
        source: The open question of a call, to be answered with `reply`; `None` otherwise.
        timer: The timer that fired, for the three kinds of timeout.
    """

    kind: Kind
    content: object = None
    source: object = None
    timer: TimerKey | None = None

    def reply(self, value: object) -> "EventReply":
        """Answer this call with `value`; to be returned among the actions."""
        if self.kind != "call":
            raise TypeError(f"only a call can be answered, not a {self.kind}")
        return EventReply(self.source, value)


class EventReply(msgspec.Struct, frozen=True, eq=False):
    """Answer a call, now or from a later state."""

    source: object
    value: object


class Postpone(msgspec.Struct, frozen=True):
    """Keep the current event for the next state."""


class NextEvent(msgspec.Struct, frozen=True, eq=False):
    """Handle this event before anything that waits."""

    content: object
    kind: Kind = "internal"


class SetTimer(msgspec.Struct, frozen=True, eq=False):
    """Start a timer, or start it afresh: after `delay` seconds, or at the instant `at` of the machine's clock."""

    key: TimerKey
    delay: float = 0.0
    content: object = None
    at: float | None = None


class CancelTimer(msgspec.Struct, frozen=True):
    """Forget a timer; nothing happens when it is not running."""

    key: TimerKey


class UpdateTimer(msgspec.Struct, frozen=True, eq=False):
    """Change what a running timer will say; one that is not running fires at once."""

    key: TimerKey
    content: object


Action: TypeAlias = EventReply | Postpone | NextEvent | SetTimer | CancelTimer | UpdateTimer


class Keep(msgspec.Struct, frozen=True, eq=False):
    """Stay in the state."""

    actions: tuple[Action, ...] = ()


class Repeat(msgspec.Struct, frozen=True, eq=False):
    """Stay in the state, but run its enter callback once more."""

    actions: tuple[Action, ...] = ()


class Goto(msgspec.Struct, frozen=True, eq=False):
    """Change to the state of this name. The same name as now is no change."""

    state: str
    actions: tuple[Action, ...] = ()


class EndMachine(msgspec.Struct, frozen=True, eq=False):
    """End the machine for `reason`, after these replies."""

    reason: object
    actions: tuple[Action, ...] = ()


Outcome: TypeAlias = Keep | Repeat | Goto | EndMachine


class StartClock(msgspec.Struct, frozen=True):
    """Run a clock; when it ends, `fired` is called with the same key and `generation`."""

    key: TimerKey
    delay: float
    at: float | None
    generation: int


class StopClock(msgspec.Struct, frozen=True):
    """The clock of this key and generation is not needed any more."""

    key: TimerKey
    generation: int


Effect: TypeAlias = EventReply | StartClock | StopClock | EndMachine
"""What the shell has to carry out."""


Chain: TypeAlias = "tuple[Happening, Chain] | None"


class Running(msgspec.Struct, frozen=True, eq=False):
    """A timer that has not fired: which start it belongs to, and what it will say."""

    generation: int
    content: object


class Machine(msgspec.Struct, frozen=True, eq=False):
    """Everything the order of events depends on.

    Attributes:
        state: Name of the state.
        queue: Events to handle before the mailbox is looked at, first one outside.
        postponed: Events waiting for another state, youngest outside.
        timers: The timers that are running.
        immediate: Timers of zero delay, in the order they were set.
        generation: How many timers were started; a firing of an older start of the same timer is nothing.
    """

    state: str
    queue: Chain = None
    postponed: Chain = None
    timers: Mapping[TimerKey, Running] = {}
    immediate: tuple[TimerKey, ...] = ()
    generation: int = 0

    def __repr__(self) -> str:
        return f"<machine in {self.state}>"  # the chains may be long and deep


def reply_effects(actions: Iterable[Action]) -> list[Effect]:
    """Pick the replies: they leave before anything else of the turn happens."""
    return [action for action in actions if isinstance(action, EventReply)]


def enters(machine: Machine, outcome: Outcome) -> str | None:
    """Return which state has to be entered because of `outcome`, or `None`."""
    if isinstance(outcome, Goto) and outcome.state != machine.state:
        return outcome.state
    return machine.state if isinstance(outcome, Repeat) else None


def arrive(machine: Machine) -> tuple[Machine, list[Effect]]:
    """Note that an event is about to be handled: whatever it is, it ends the wait of the event timeout."""
    return _timers(machine, [CancelTimer(EVENT_TIMEOUT)]) if EVENT_TIMEOUT in machine.timers else (machine, [])


def settle(
    machine: Machine, event: Happening | None, outcome: Outcome, entered: Sequence[Action] = ()
) -> tuple[Machine, list[Effect]]:
    """Finish a turn: `outcome` is what the callback said about `event`, `entered` what the enter callback added.

    Replies are not among the effects (they left in the first half). After an `EndMachine` nothing is queued and every
    clock is stopped.
    """
    if isinstance(outcome, EndMachine):
        clocks = _timers(machine, [CancelTimer(key) for key in machine.timers])[1]
        return replace(machine, queue=None), [*clocks, outcome]
    changed = isinstance(outcome, Goto) and outcome.state != machine.state
    queue, postponed = machine.queue, machine.postponed
    if event is not None and any(isinstance(action, Postpone) for action in outcome.actions):
        postponed = (event, postponed)
    if changed:
        while postponed is not None:
            queue, postponed = (postponed[0], queue), postponed[1]
    inserted = [action for action in outcome.actions if isinstance(action, NextEvent)]
    for action in reversed(inserted):
        queue = (Happening(action.kind, action.content), queue)
    state = outcome.state if isinstance(outcome, Goto) else machine.state
    machine = replace(machine, state=state, queue=queue, postponed=postponed)
    machine, stopped = _timers(machine, [CancelTimer(STATE_TIMEOUT)] if changed else [])
    machine, clocks = _timers(machine, [*outcome.actions, *entered])
    return machine, [*stopped, *clocks]


def pull(machine: Machine) -> tuple[Machine, Happening | None]:
    """Take the event to handle before the mailbox is looked at: a queued one, else an immediate timeout, else none."""
    if machine.queue is not None:
        event, rest = machine.queue
        return replace(machine, queue=rest), event
    if machine.immediate:
        return _expire(machine, machine.immediate[0])
    return machine, None


def fired(machine: Machine, key: TimerKey, generation: int) -> tuple[Machine, Happening | None]:
    """Turn the end of a clock into its event, or into nothing when the timer was cancelled or set again meanwhile."""
    running = machine.timers.get(key)
    if running is None or running.generation != generation:
        return machine, None
    return _expire(machine, key)


def waiting(machine: Machine) -> tuple[list[Happening], list[Happening]]:
    """List the queued and the postponed events, oldest first."""
    return _listed(machine.queue), _listed(machine.postponed)[::-1]


def _listed(chain: Chain) -> list[Happening]:
    found = []
    while chain is not None:
        event, chain = chain
        found.append(event)
    return found


def _expire(machine: Machine, key: TimerKey) -> tuple[Machine, Happening]:
    timers = dict(machine.timers)
    running = timers.pop(key)
    immediate = tuple(other for other in machine.immediate if other != key)
    return replace(machine, timers=timers, immediate=immediate), Happening(key.kind, running.content, timer=key)


def _timers(machine: Machine, actions: Iterable[Action]) -> tuple[Machine, list[Effect]]:
    """Carry out the timer actions; for one timer the last action counts, at the place of that last action."""
    wanted: dict[TimerKey, SetTimer | CancelTimer | UpdateTimer] = {}
    for action in actions:
        if isinstance(action, SetTimer | CancelTimer | UpdateTimer):
            wanted.pop(action.key, None)
            wanted[action.key] = action
    if not wanted:
        return machine, []
    timers, immediate, generation = dict(machine.timers), list(machine.immediate), machine.generation
    effects: list[Effect] = []
    for key, action in wanted.items():
        running = timers.get(key)
        if isinstance(action, UpdateTimer) and running is not None:
            timers[key] = replace(running, content=action.content)
            continue
        if running is not None:
            del timers[key]
            if key in immediate:
                immediate.remove(key)
            else:
                effects.append(StopClock(key, running.generation))
        if isinstance(action, CancelTimer):
            continue
        generation += 1
        at, delay = (action.at, action.delay) if isinstance(action, SetTimer) else (None, 0.0)
        timers[key] = Running(generation, action.content)
        if at is None and delay <= 0:
            immediate.append(key)
        else:
            effects.append(StartClock(key, delay, at, generation))
    return replace(machine, timers=timers, immediate=tuple(immediate), generation=generation), effects
