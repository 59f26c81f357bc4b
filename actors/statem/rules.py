"""How a state machine is declared: states as class attributes, handlers that name the states they may lead to.

The declaration is data. `declaration_of` reads it from a class without making a machine, and refuses at class creation
what cannot be meant: a state that does not exist, no state to begin in. The runtime dispatches by it and the graph
(`graph`) is drawn from it, so a drawing cannot differ from what runs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from mlld_sdk.actors.statem.engine import EVENT_TIMEOUT, STATE_TIMEOUT, Goto, Happening, Kind, TimerKey
from mlld_sdk.actors.statem.engine import Action as Action
from mlld_sdk.base.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])
StateName: TypeAlias = "State | str"
Targets: TypeAlias = "StateName | Iterable[StateName]"

_TAG = "__state_rules__"


@dataclass(frozen=True, slots=True)
class Rule:
    """An event that fits goes to `method`, which may stay or lead to one of `targets`."""

    method: str
    targets: tuple[str, ...]
    kind: Kind | None = None
    pattern: object = object
    timer: TimerKey | None = None

    def fits(self, event: Happening) -> bool:
        """Return whether this rule is for `event`: the timer, or the kind and the type or value of the content."""
        if self.timer is not None or event.timer is not None:
            return self.timer == event.timer
        if self.kind is not None and self.kind != event.kind:
            return False
        if isinstance(self.pattern, type):
            return isinstance(event.content, self.pattern)
        return type(event.content) is type(self.pattern) and event.content == self.pattern

    @property
    def label(self) -> str:
        """Name the event in a drawing: `code`, `Push (call)`, `state_timeout`."""
        if self.timer is not None:
            return str(self.timer)
        if self.pattern is object:
            return f"any {self.kind or 'event'}"
        name = self.pattern.__name__ if isinstance(self.pattern, type) else str(self.pattern)
        return f"{name} ({self.kind})" if self.kind else name


@dataclass(frozen=True, slots=True)
class _Tag:
    state: "State"
    targets: Targets
    kind: Kind | None = None
    pattern: object = object
    timer: TimerKey | None = None
    entry: bool = False


class State:
    """A state, declared as a class attribute of a `StateMachine`; its methods decorate the handlers.

    Args:
        initial: The machine may begin here. With several such states the first is the default, and `init` may choose
            another.
    """

    def __init__(self, *, initial: bool = False) -> None:
        self.name: str = ""
        self.initial = initial

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<state {self.name}>"

    def on(self, pattern: object = object, *, kind: Kind | None = None, to: Targets = ()) -> Callable[[F], F]:
        """Decorate the handler of events whose content is of the type `pattern`, or equals the value `pattern`.

        Args:
            pattern: A class, or a value that must be equal and of the same type; everything when left out.
            kind: Only `call`, `cast`, `info` or `internal`; any of them when left out.
            to: The states the handler may lead to. Staying is always allowed.
        """
        return self._tag(_Tag(self, to, kind, pattern))

    def on_state_timeout(self, *, to: Targets = ()) -> Callable[[F], F]:
        """Decorate the handler of the timeout of this state."""
        return self._tag(_Tag(self, to, timer=STATE_TIMEOUT))

    def on_event_timeout(self, *, to: Targets = ()) -> Callable[[F], F]:
        """Decorate the handler of the timeout that any event ends."""
        return self._tag(_Tag(self, to, timer=EVENT_TIMEOUT))

    def on_timeout(self, name: str, *, to: Targets = ()) -> Callable[[F], F]:
        """Decorate the handler of the named timeout `name`."""
        return self._tag(_Tag(self, to, timer=TimerKey("timeout", name)))

    def enter(self, method: F) -> F:
        """Decorate the method called with the previous state whenever this state is entered."""
        return self._tag(_Tag(self, (), entry=True))(method)

    @staticmethod
    def _tag(tag: _Tag) -> Callable[[F], F]:
        def decorate(method: F) -> F:
            setattr(method, _TAG, (*getattr(method, _TAG, ()), tag))
            return method

        return decorate


anywhere = State()
"""Stands for every state: its handlers are asked after those of the state itself."""
anywhere.name = "*"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a machine class says about itself.

    Attributes:
        name: Name of the class.
        states: Names of the states, in the order written.
        initial: Where the machine may begin, the default first.
        rules: What each state does, its own rules before those for every state.
        entries: The enter method of each state that has one.
    """

    name: str
    states: tuple[str, ...]
    initial: tuple[str, ...]
    rules: dict[str, tuple[Rule, ...]]
    entries: dict[str, str]

    def rule_for(self, state: str, event: Happening) -> Rule | None:
        """Find the rule of an event in a state: the first that fits."""
        return next((rule for rule in self.rules[state] if rule.fits(event)), None)


def declaration_of(machine: type) -> Declaration:
    """Read the declaration of a class, its bases included; a method written again keeps the rules of its base."""
    states: dict[str, State] = {}
    tagged: dict[str, tuple[_Tag, ...]] = {}
    for base in reversed(machine.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, State):
                states[name] = value
            elif callable(value) and hasattr(value, _TAG):
                tagged[name] = getattr(value, _TAG)
    initial = tuple(name for name, state in states.items() if state.initial)
    if not initial:
        raise ConfigurationError(
            f"{machine.__name__} has no state to begin in", hint="declare one of its states with State(initial=True)"
        )

    def known(state: StateName, method: str) -> str:
        name = state if isinstance(state, str) else state.name
        if name not in states or (isinstance(state, State) and states[name] is not state):
            raise ConfigurationError(
                f"{machine.__name__}.{method} speaks of {name!r}, which is no state of {machine.__name__}",
                hint=f"its states are {', '.join(states)}",
            )
        return name

    rules: dict[str, list[Rule]] = {name: [] for name in states}
    shared: list[Rule] = []
    entries: dict[str, str] = {}
    for method, tags in tagged.items():
        for tag in tags:
            everywhere = tag.state is anywhere
            if tag.entry:
                entries |= dict.fromkeys(states if everywhere else [known(tag.state, method)], method)
                continue
            listed: Iterable[StateName] = [tag.targets] if isinstance(tag.targets, State | str) else tag.targets
            targets = tuple(known(target, method) for target in listed)
            rule = Rule(method, targets, tag.kind, tag.pattern, tag.timer)
            (shared if everywhere else rules[known(tag.state, method)]).append(rule)
    every = {name: (*own, *shared) for name, own in rules.items()}
    return Declaration(machine.__name__, tuple(states), initial, every, entries)


def goto(state: StateName, *actions: Action) -> Goto:
    """Change to `state`; the handler's declaration must allow it."""
    return Goto(state if isinstance(state, str) else state.name, actions)
