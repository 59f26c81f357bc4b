"""What the runtime needs to know of an actor class, worked out once for each class."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, TypeVar, get_args

import pykka

from mlld_sdk.base.errors import ConfigurationError, TaskError

Hook = TypeVar("Hook", bound=Callable[..., Any])

Overflow = Literal["refuse", "drop_newest", "drop_oldest", "block"]
OVERFLOWS: Final = get_args(Overflow)

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


def default_hook(hook: Hook) -> Hook:
    """Mark a hook that does nothing, so that a class which keeps it is not made to run it."""
    hook.is_default = True  # type: ignore[attr-defined]
    return hook


def _has_own(cls: type[Any], hook: str) -> bool:
    return not getattr(getattr(cls, hook), "is_default", False)


@cache
def traits_of(cls: type[Any]) -> Traits:
    """Read and check the options of an actor class.

    Raises:
        ConfigurationError: An option has a value that cannot work; the message names it, the value and the range.
    """
    answers = tuple(cls.answers)
    limit, after = cls.mailbox_limit, cls.idle_after
    has_async = any(inspect.iscoroutinefunction(getattr(cls, hook, None)) for hook in HOOKS)
    for option, holds, allowed in (
        ("slice", isinstance(cls.slice, int) and cls.slice >= 1, "a whole number from 1"),
        (
            "mailbox_limit",
            limit is None or (isinstance(limit, int) and limit >= 1),
            "a whole number from 1, or None for no limit",
        ),
        ("overflow", cls.overflow in OVERFLOWS, f"one of {', '.join(OVERFLOWS)}"),
        ("overflow_timeout", cls.overflow_timeout >= 0, "0 or more seconds"),
        (
            "answers",
            all(inspect.isclass(item) and issubclass(item, Exception) for item in answers),
            "a tuple of subclasses of Exception",
        ),
        ("idle_after", after is None or after > 0, "more than 0 seconds"),
        ("threaded", not (has_async and cls.threaded), "False with `async def` hooks"),
        ("caller_runs", not (has_async and cls.caller_runs), "False with `async def` hooks"),
    ):
        if not holds:
            raise ConfigurationError(
                f"{cls.__qualname__}.{option} is {getattr(cls, option)!r}", hint=f"it must be {allowed}"
            )
    terminates = (
        _has_own(cls, "on_terminate")
        or cls.on_stop is not pykka.Actor.on_stop
        or cls.on_failure is not pykka.Actor.on_failure
    )
    return Traits(
        actor_class=cls,
        kind=cls.__name__,
        slice=cls.slice,
        limit=limit,
        overflow=cls.overflow,
        overflow_timeout=float(cls.overflow_timeout),
        answers=(*answers, TaskError),
        threaded=bool(cls.threaded),
        caller_runs=bool(cls.caller_runs),
        urgent_exits=bool(cls.urgent_exits),
        idle_after=None if after is None else float(after),
        like_pykka=bool(cls.like_pykka),
        starts=_has_own(cls, "on_start"),
        terminates=terminates,
        minds_its_end=terminates or bool(cls.like_pykka) or _has_own(cls, "on_end_request"),
    )
