"""What the runtime needs to know of an actor class, worked out once for each class."""

import inspect
from dataclasses import dataclass
from typing import Any

import pykka

from mlld_sdk.actors.core.mailbox import OVERFLOWS, Overflow
from mlld_sdk.base.errors import ConfigurationError, TaskError

HOOKS = ("on_start", "on_receive", "on_continue", "on_idle", "on_terminate", "on_stop", "on_failure")


@dataclass(frozen=True, slots=True)
class Traits:
    """The options of one actor class, checked, and which hooks it really has."""

    actor_class: type[Any]
    kind: str
    slice: int
    limit: int | None
    overflow: Overflow
    overflow_timeout: float
    answers: tuple[type[Exception], ...]
    threaded: bool
    caller_runs: bool
    urgent_exits: bool
    idle_after: float | None
    like_pykka: bool
    starts: bool
    """Has an `on_start` of its own, so a start has to run it."""
    terminates: bool
    """Has a hook of its own for its end."""
    minds_its_end: bool
    """Has code of its own, or Pykka's, that must run as the actor when it is asked to end."""


_known: dict[type, Traits] = {}


def traits_of(actor_class: type[Any]) -> Traits:
    """Read and check the options of an actor class.

    Raises:
        ConfigurationError: An option has a value that cannot work; the message names it, the value and the range.
    """
    known = _known.get(actor_class)
    if known is None:
        known = _known[actor_class] = _read(actor_class)
    return known


def _read(cls: type[Any]) -> Traits:
    from mlld_sdk.actors.core.actor import Actor

    kind = cls.__qualname__
    answers = tuple(cls.answers)
    _check(isinstance(cls.slice, int) and cls.slice >= 1, kind, "slice", cls.slice, "a whole number from 1")
    _check(
        cls.mailbox_limit is None or (isinstance(cls.mailbox_limit, int) and cls.mailbox_limit >= 1),
        kind,
        "mailbox_limit",
        cls.mailbox_limit,
        "a whole number from 1, or None for no limit",
    )
    _check(cls.overflow in OVERFLOWS, kind, "overflow", cls.overflow, f"one of {', '.join(OVERFLOWS)}")
    _check(cls.overflow_timeout >= 0, kind, "overflow_timeout", cls.overflow_timeout, "0 or more seconds")
    _check(
        all(inspect.isclass(item) and issubclass(item, Exception) for item in answers),
        kind,
        "answers",
        answers,
        "a tuple of subclasses of Exception",
    )
    _check(cls.idle_after is None or cls.idle_after > 0, kind, "idle_after", cls.idle_after, "more than 0 seconds")
    has_async = any(inspect.iscoroutinefunction(getattr(cls, hook, None)) for hook in HOOKS)
    _check(not (has_async and cls.threaded), kind, "threaded", cls.threaded, "False with `async def` hooks")
    _check(not (has_async and cls.caller_runs), kind, "caller_runs", cls.caller_runs, "False with `async def` hooks")
    terminates = (
        cls.on_terminate is not Actor.on_terminate
        or cls.on_stop is not pykka.Actor.on_stop
        or cls.on_failure is not pykka.Actor.on_failure
    )
    return Traits(
        actor_class=cls,
        kind=cls.__name__,
        slice=cls.slice,
        limit=cls.mailbox_limit,
        overflow=cls.overflow,
        overflow_timeout=float(cls.overflow_timeout),
        answers=(*answers, TaskError),
        threaded=bool(cls.threaded),
        caller_runs=bool(cls.caller_runs),
        urgent_exits=bool(cls.urgent_exits),
        idle_after=None if cls.idle_after is None else float(cls.idle_after),
        like_pykka=bool(cls.like_pykka),
        starts=cls.on_start is not Actor.on_start,
        terminates=terminates,
        minds_its_end=terminates or bool(cls.like_pykka) or cls.on_end_request is not Actor.on_end_request,
    )


def _check(holds: bool, kind: str, option: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigurationError(f"{kind}.{option} is {value!r}", hint=f"it must be {allowed}")
