"""What the lower parts of the runtime know of the upper ones: of a cell, of its system, of the thread that runs it.

A file of this room speaks of something that is built on top of it only through these.
"""
# ruff: noqa: D102 - what each operation does is said where it is done

from collections.abc import Callable
from typing import Any, Protocol

from mlld_sdk.actors.core.class_options import Traits
from mlld_sdk.actors.core.counters import Counters
from mlld_sdk.actors.core.errors import ActorDead
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.timers import Timers
from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Event

STARTING, RUNNING, STOPPING, DEAD = range(4)
"""Phases of a cell."""


class Blocker(Protocol):
    """A thread of the scheduler, as code sees it that is about to wait in it."""

    def enter_blocking(self) -> None: ...
    def exit_blocking(self) -> None: ...


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

    def schedule(self, item: Any) -> None: ...
    def emit(self, make: Callable[[float], Event]) -> None: ...
    def callback_failed(self, error: BaseException) -> None: ...
    def has_stopped(self) -> bool: ...
    def forget(self, cell: Any) -> None: ...
    def release(self, cell: Any) -> None: ...


class AnyCell(Protocol):
    """A cell, as the parts below it see it: its mailbox, its runner, references, futures, links and monitors."""

    system: System
    traits: Traits
    mailbox: Any
    runner: Any
    epoch: int
    name: Any
    ref: Any
    parent: Any
    actor: Any
    phase: int
    reason: Reason | None
    ending: Reason | None
    condemned: bool
    overflowing: bool
    links: Any
    monitors: Any
    watching: Any
    waiting: Any
    timers: Any
    deferred: Any
    last_answer: Any

    @property
    def label(self) -> str: ...
    @property
    def path(self) -> str: ...
    def describe(self, message: Any) -> str: ...
    def dead(self) -> ActorDead: ...
    def started(self) -> bool: ...
    def end(self, reason: Reason, error: BaseException | None = None) -> None: ...
    def finish(self, reason: Reason, error: BaseException | None = None) -> bool: ...
    def kill(self, reason: Reason, error: BaseException | None = None) -> bool: ...
    def retire(self, reason: Reason) -> bool: ...
    def overflowed(self) -> None: ...
    def undelivered(self, message: Any) -> None: ...
    def post_system(self, message: Any) -> None: ...
    def signal(self, sender: Any, reason: Reason, *, from_parent: bool = False) -> None: ...
    def notify(self, notice: Any) -> None: ...
    def info(self) -> Any: ...
    def before_waiting(self, future: Any) -> None: ...
    def waits(self, future: Any, wake: Callable[[], object]) -> None: ...
    def waited(self) -> None: ...
    def call_cancelled(self, future: Any) -> None: ...
    def defer(self, future: Any) -> None: ...


class Starter(Protocol):
    """Gets the outcome of a start, exactly once: a future, or a supervisor's note."""

    def try_set(self, ref: Any) -> object: ...
    def try_set_exception(self, error: BaseException) -> object: ...
