"""State machines: what an actor does with an event depends on the state it is in.

```python
class Door(StateMachine):
    locked = State(initial=True)
    opened = State()

    @locked.on("code", kind="call", to=opened)
    def unlock(self, event):
        return goto(self.opened, event.reply("welcome"), state_timeout(10.0))

    @opened.on_state_timeout(to=locked)
    def relock(self, event):
        return goto(self.locked)
```

A handler gets the event and says what follows: `keep`, `goto`, `repeat` or `stop`, each with actions (`event.reply`,
`postpone`, `next_event`, timeouts). Which states a handler may lead to is declared, so the transition graph is known
without running the machine (`Door.graph()`), and going elsewhere is an error by name. What belongs to the whole
machine is kept in ordinary attributes of `self`.
"""

from typing import Any, ClassVar

import msgspec
from msgspec.structs import replace

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import NO_REPLY, Continue, Stop
from mlld_sdk.actors.core.exits import NORMAL, as_reason
from mlld_sdk.actors.core.ref import Down, Exit
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.actors.statem import engine
from mlld_sdk.actors.statem.engine import Action, EndMachine, EventReply, Goto, Happening, Keep, Kind, Outcome, TimerKey
from mlld_sdk.actors.statem.errors import UndeclaredTransition, UnhandledEvent
from mlld_sdk.actors.statem.events import StateChanged
from mlld_sdk.actors.statem.graph import Graph, graph_from
from mlld_sdk.actors.statem.rules import Declaration, State, declaration_of
from mlld_sdk.base.durations import seconds

BURST = 64
"""Queued events handled in one go before the scheduler gets its turn."""


class _Clock(msgspec.Struct, frozen=True):
    """A clock of this machine has ended."""

    key: TimerKey
    generation: int


class StateMachine(Actor):
    """An actor that is always in one of its declared states.

    Calls, casts and other messages become events; so do timeouts and what handlers insert. Everything inserted,
    retried or immediately due is handled before the next message. An event without a handler ends the machine with
    `UnhandledEvent`; give `anywhere` a handler for those that may come at any time.
    """

    declaration: ClassVar[Declaration]
    """What the class says about itself, read when it was made."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if any(isinstance(value, State) for base in cls.__mro__ for value in vars(base).values()):
            cls.declaration = declaration_of(cls)

    @classmethod
    def graph(cls) -> Graph:
        """Show the states and the ways between them; nothing is run."""
        return graph_from(cls.declaration)

    @property
    def state(self) -> str:
        """The name of the state it is in."""
        return self._machine.state

    @property
    def postponed(self) -> int:
        """How many events wait for another state."""
        return len(engine.waiting(self._machine)[1])

    def on_init(self) -> Any:
        """Prepare the machine; override it.

        Returns:
            Nothing, to begin in the default initial state; `keep(...)` with actions to begin with; `goto(state, ...)`
            to begin in another state declared initial; `stop(reason)`; or what `on_start` may return to decline.
        """

    def on_start(self) -> Any:
        """Begin in the initial state, with its enter method."""
        self._machine = engine.Machine(self.declaration.initial[0])
        self._clocks: dict[TimerKey, Timer] = {}
        outcome = self.on_init()
        if outcome is not None and not isinstance(outcome, Keep | Goto | EndMachine):
            return outcome
        outcome = outcome or Keep()
        if isinstance(outcome, Goto):
            if outcome.state not in self.declaration.initial:
                raise UndeclaredTransition(
                    f"{self.declaration.name} began in {outcome.state!r}, which is not declared initial",
                    hint=f"declared are {', '.join(self.declaration.initial)}",
                )
            self._machine = replace(self._machine, state=outcome.state)
        return self._finish(None, outcome, enter=self._machine.state) or self._drain()

    def on_receive(self, message: Any) -> Any:
        """Turn a message into an event, handle it, and then everything that is due before the next message."""
        if isinstance(message, _Clock):
            self._machine, event = engine.fired(self._machine, message.key, message.generation)
            if event is None:
                return None
            self._clocks.pop(message.key, None)
        else:
            current = self._cell.runner.current
            asked = current is not None and current[1] is not None
            kind: Kind = "info" if isinstance(message, Exit | Down) else "call" if asked else "cast"
            event = Happening(kind, message, self.reply_to() if kind == "call" else None)
        return self._turn(event) or self._drain() or NO_REPLY

    def on_continue(self, _: Any) -> Stop | None:
        """Go on with what is queued, after the scheduler had its turn."""
        return self._drain()

    def _drain(self) -> Stop | None:
        for _ in range(BURST):
            self._machine, event = engine.pull(self._machine)
            if event is None:
                return None
            stopped = self._turn(event)
            if stopped is not None:
                return stopped
        # Not returned: that would answer the current call.
        self._cell.runner.pending = Continue()
        return None

    def _turn(self, event: Happening) -> Stop | None:
        self._machine, effects = engine.arrive(self._machine)
        self._carry_out(effects)
        rule = self.declaration.rule_for(self.state, event)
        if rule is None:
            what = str(event.timer) if event.timer is not None else f"{event.kind} {event.content!r:.200}"
            raise UnhandledEvent(
                f"{self.declaration.name} has no handler for {what} in state {self.state!r}",
                hint="declare one with @<state>.on(...) or, for every state, @anywhere.on(...)",
            )
        outcome = _outcome(getattr(self, rule.method)(event), rule.method)
        if isinstance(outcome, Goto) and outcome.state not in {self.state, *rule.targets}:
            raise UndeclaredTransition(
                f"{self.declaration.name}.{rule.method} went from {self.state!r} to {outcome.state!r}",
                hint=f"declare it with to=; declared are {', '.join(rule.targets) or 'none'}",
            )
        if isinstance(outcome, Goto) and outcome.state != self.state:
            cell, old, new = self._cell, self.state, outcome.state
            cell.system.emit(
                lambda at: StateChanged(at=at, actor=cell.path, epoch=cell.epoch, old=old, new=new, cause=rule.label)
            )
        return self._finish(event, outcome, enter=engine.enters(self._machine, outcome))

    def _finish(self, event: Happening | None, outcome: Outcome, *, enter: str | None) -> Stop | None:
        self._carry_out(engine.reply_effects(outcome.actions))
        entered: tuple[Action, ...] = ()
        if enter is not None and not isinstance(outcome, EndMachine):
            before, self._machine = self._machine, replace(self._machine, state=enter)
            result = self._enter(before.state)
            self._carry_out(engine.reply_effects(result.actions))
            self._machine = before
            if isinstance(result, EndMachine):
                outcome = result
            else:
                entered = result.actions
        self._machine, effects = engine.settle(self._machine, event, outcome, entered)
        return self._carry_out(effects)

    def _enter(self, previous: str) -> Keep | EndMachine:
        method = self.declaration.entries.get(self.state)
        if method is None:
            return Keep()
        result = _outcome(getattr(self, method)(previous), method)
        if not isinstance(result, Keep | EndMachine):
            raise UndeclaredTransition(
                f"{self.declaration.name}.{method} tried to change the state it enters",
                hint="an enter method may only keep or stop; insert the decision as a zero state_timeout",
            )
        forbidden = [action for action in result.actions if isinstance(action, engine.Postpone | engine.NextEvent)]
        if forbidden:
            raise TypeError(f"{method} enters a state: it can neither postpone nor insert events")
        return result

    def _carry_out(self, effects: list[engine.Effect]) -> Stop | None:
        for effect in effects:
            match effect:
                case EventReply(source, value):
                    source.reply(value)  # type: ignore[attr-defined]  # the engine carries it without looking
                case engine.StartClock(key, delay, at, generation):
                    wait = delay if at is None else max(0.0, at - self.system.env.now())
                    self._clocks[key] = self.send_after(wait, _Clock(key, generation))
                case engine.StopClock(key):
                    self._clocks.pop(key).cancel()
                case EndMachine(reason):
                    return Stop(as_reason(reason))
        return None


def _outcome(answer: object, method: str) -> Outcome:
    if answer is None:
        return Keep()
    if isinstance(answer, Keep | engine.Repeat | Goto | EndMachine):
        return answer
    raise TypeError(f"{method} answered {answer!r:.200}; a handler returns keep, goto, repeat, stop or nothing")


# -- what handlers return ----------------------------------------------------------------------------------------------


def keep(*actions: Action) -> Keep:
    """Stay in the state."""
    return Keep(actions)


def repeat(*actions: Action) -> engine.Repeat:
    """Stay in the state and run its enter method again. What is postponed stays postponed."""
    return engine.Repeat(actions)


def stop(reason: object = NORMAL, *replies: EventReply) -> EndMachine:
    """End the machine for `reason`, after these replies; calls not answered get the reason."""
    return EndMachine(reason, replies)


def postpone() -> engine.Postpone:
    """Keep the current event and handle it again, before younger ones, once the state has changed."""
    return engine.Postpone()


def next_event(content: object, *, kind: Kind = "internal") -> engine.NextEvent:
    """Handle this event before everything that waits; several in the order given."""
    return engine.NextEvent(content, kind)


def state_timeout(delay: float = 0.0, content: object = None, *, at: float | None = None) -> engine.SetTimer:
    """Get a timeout after `delay` seconds (or at `at` of the machine's clock) unless the state changes before."""
    return engine.SetTimer(engine.STATE_TIMEOUT, seconds(delay, "delay"), content, at)


def event_timeout(delay: float = 0.0, content: object = None, *, at: float | None = None) -> engine.SetTimer:
    """Get a timeout after `delay` seconds unless any event comes before."""
    return engine.SetTimer(engine.EVENT_TIMEOUT, seconds(delay, "delay"), content, at)


def timeout(name: str, delay: float = 0.0, content: object = None, *, at: float | None = None) -> engine.SetTimer:
    """Get a timeout after `delay` seconds whatever happens; the same name again starts it afresh."""
    return engine.SetTimer(TimerKey("timeout", name), seconds(delay, "delay"), content, at)


def cancel_state_timeout() -> engine.CancelTimer:
    """Call the state timeout off."""
    return engine.CancelTimer(engine.STATE_TIMEOUT)


def cancel_event_timeout() -> engine.CancelTimer:
    """Call the event timeout off."""
    return engine.CancelTimer(engine.EVENT_TIMEOUT)


def cancel_timeout(name: str) -> engine.CancelTimer:
    """Call a named timeout off."""
    return engine.CancelTimer(TimerKey("timeout", name))


def update_state_timeout(content: object) -> engine.UpdateTimer:
    """Change what the running state timeout will say; one that is not running fires at once."""
    return engine.UpdateTimer(engine.STATE_TIMEOUT, content)


def update_timeout(name: str, content: object) -> engine.UpdateTimer:
    """Change what a running named timeout will say; one that is not running fires at once."""
    return engine.UpdateTimer(TimerKey("timeout", name), content)
