"""What can be known of an actor from outside: its address, and what it is doing."""

from typing import Literal

import msgspec

from mlld_sdk.actors.core.exits import Reason


class Address(msgspec.Struct, frozen=True):
    """Where an actor is, as data that can be stored or sent.

    Attributes:
        path: Names from the root of its tree, with slashes.
        system: Id of its actor system.
        epoch: Number of this incarnation: unique in its system, growing.
    """

    path: str
    system: str
    epoch: int


class ActorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor is doing, seen from outside; taking it sends no message and does not wait.

    Attributes:
        path: Names from the root of its tree down.
        epoch: Its incarnation.
        kind: Its class.
        state: What it is doing with its life.
        reason: Why it ended, if it did.
        parent: Path of its parent.
        queued: Ordinary messages waiting.
        queued_system: System messages waiting.
        handled: Messages handled so far; two looks give a current rate.
        rate: Messages a second over its whole life.
        current: What it is handling, in the words of `describe_message`; `None` when it handles nothing.
        current_for: Seconds since it began with that.
        waiting_for: Path of the actor whose answer it is blocked on.
        links: How many actors it is linked to, children and parent too.
        children: How many of them are its children.
        monitors: How many monitors watch it.
        traps_exits: Whether exit signals become messages.
        up: Seconds since it was made.
        zombie: It was killed and its last handler still runs.
    """

    path: str
    epoch: int
    kind: str
    state: Literal["starting", "running", "suspended", "stopping", "dead"]
    reason: Reason | None
    parent: str | None
    queued: int
    queued_system: int
    handled: int
    rate: float
    current: str | None
    current_for: float | None
    waiting_for: str | None
    links: int
    children: int
    monitors: int
    traps_exits: bool
    up: float
    zombie: bool
