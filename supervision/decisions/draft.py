"""One step in the making: the state so far, and the effects collected.

A draft lives inside one call of `decide.step` only; nothing outside ever sees it half done.
"""

import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import force_setattr

from mlld_sdk.base.events import Event
from mlld_sdk.supervision.decisions.effects import AnswerCall, Effect, Emit
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import SupervisorState

S = TypeVar("S", bound=SupervisorState)


class World(msgspec.Struct, frozen=True):
    """The clocks at this step, the source of jitter, and whether events have a listener."""

    now: float
    wall: float
    chance: random.Random
    heard: bool = True


class Draft(msgspec.Struct, Generic[S]):
    """The state of a supervisor during one step, and what is to be done about it.

    Attributes:
        state: Its own copy, which may be changed in place until the step is over.
        world: The circumstances.
        effects: What is to be done, so far.
        do: Adds an effect.
    """

    state: S
    world: World
    effects: list[Effect]
    do: Callable[[Effect], None]

    def set(self, **changes: object) -> None:
        """Replace fields of the state."""
        for name, value in changes.items():
            force_setattr(self.state, name, value)

    def put(self, slot: Slot) -> Slot:
        """Add or replace a slot, and return it."""
        force_setattr(self.state, "slots", self.state.slots.put(slot))
        return slot

    def emit(self, event: Event) -> None:
        """Add the effect that hands out an event."""
        self.effects.append(Emit(event))

    def answer(self, call: object, value: Any = None, *, error: Exception | None = None) -> None:
        """Add the effect that answers a call."""
        self.effects.append(AnswerCall(call, value, error))
