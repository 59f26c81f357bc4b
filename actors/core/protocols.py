"""What the lower parts of the runtime know of the upper ones: of a cell, of its system, of the thread that runs it.

A file of this room speaks of something that is built on top of it only through these.
"""

from collections.abc import Callable
from typing import Any, Protocol

from mlld_sdk.actors.core.class_options import Traits
from mlld_sdk.actors.core.counters import Counters
from mlld_sdk.actors.core.errors import ActorDead
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.timers import Timers
from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Event


class Blocker(Protocol):
    """A thread of the scheduler, as code sees it that is about to wait in it."""

    def enter_blocking(self) -> None:
        """Allow another thread to run actors meanwhile."""

    def exit_blocking(self) -> None:
        """Count as running again."""


class System(Protocol):
    """An actor system, as its actors' parts see it."""

    name: str
    id: str
    env: Env
    counters: Counters
    timers: Timers
    loop: Any
    zombies: Any
    now: Callable[[], float]
    listening: bool

    def schedule(self, item: Any) -> None:
        """Bring something to the run queue."""

    def emit(self, make: Callable[[float], Event]) -> None:
        """Pass an event to the sink, if there is one."""

    def callback_failed(self, error: BaseException) -> None:
        """Report what a callback raised."""

    def forget(self, cell: Any) -> None:
        """Drop a dead actor from every table."""

    def release(self, cell: Any) -> None:
        """Close what a dead actor owned."""


class AnyCell(Protocol):
    """A cell, as the parts below it see it: mostly references, futures, links and monitors."""

    system: System
    traits: Traits
    mailbox: Any
    runner: Any
    epoch: int
    name: Any
    ref: Any
    parent: Any
    actor: Any
    reason: Reason | None
    ending: Reason | None
    links: Any
    monitors: Any
    watching: Any
    waiting: Any
    timers: Any
    deferred: Any

    @property
    def label(self) -> str:
        """Its own part of the path."""

    @property
    def path(self) -> str:
        """Names from the root of its tree down, with slashes."""

    def describe(self, message: Any) -> str:
        """Describe a message, the way the class wants it described."""

    def dead(self) -> ActorDead:
        """Make the error for those whose message will not be handled."""

    def end(self, reason: Reason, error: BaseException | None = None) -> None:
        """End in an orderly way."""

    def kill(self, reason: Reason, error: BaseException | None = None) -> bool:
        """End at once."""

    def undelivered(self, message: Any) -> None:
        """Count a message that will not be handled."""

    def post_system(self, message: Any) -> None:
        """Put a message into the system lane."""

    def signal(self, sender: Any, reason: Reason, *, from_parent: bool = False) -> None:
        """Take an exit signal."""

    def retire(self, reason: Reason) -> bool:
        """End here and now, if it is idle and has nothing to do at its end."""

    def notify(self, notice: Any) -> None:
        """Deliver an exit or down notice."""

    def info(self) -> Any:
        """Describe it."""

    def before_waiting(self, future: Any) -> None:
        """Refuse a wait that could not end."""

    def waits(self, future: Any, wake: Callable[[], object]) -> None:
        """Note that it waits."""

    def waited(self) -> None:
        """Note that the wait is over."""

    def call_cancelled(self, future: Any) -> None:
        """Stop what it does for a caller that gave up."""

    def defer(self, future: Any) -> None:
        """Keep a future that is answered later."""


class Starter(Protocol):
    """Gets the outcome of a start, exactly once: a future, or a supervisor's note."""

    def try_set(self, ref: Any) -> object:
        """Take note that the actor is up."""

    def try_set_exception(self, error: BaseException) -> object:
        """Take note that it is not, and why."""
