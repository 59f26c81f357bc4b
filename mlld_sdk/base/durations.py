"""Durations, deadlines and the clock behind them: what every room that waits for something uses.

A duration is given as seconds or as a `timedelta` and is turned into float seconds once, by `seconds`. Where a user may
leave a limit out, `None` means "no limit"; inside the library that limit is `FOREVER`, also as the moment of a deadline
that never comes. What decides something measures with the `Env` it was given; plain waiting uses `Deadline`.
"""

import math
import threading
import time
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, overload

from mlld_sdk.base.errors import InvalidOption


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""Stands for "what the client was made with", where `None` already means "no limit"."""

Duration = float | timedelta
"""Seconds, or a `timedelta`."""

Timeout = Duration | None | Literal[Default.DEFAULT]
"""A limit of a call: a duration, `None` for no limit, or `DEFAULT`."""

FOREVER: Final = math.inf
"""No limit, as a duration; a deadline that never comes, as a moment."""

LONGEST_WAIT: Final = threading.TIMEOUT_MAX
"""Seconds a lock can be waited for at most."""

_ENDLESS: Final = 1 << 63
"""Seconds that are as good as no end, and more than some clocks can count."""

now = time.monotonic
"""The clock of everything that has no `Env`: seconds since some moment, which never go back."""

pause = time.sleep
"""Stop the calling thread for some seconds."""


@overload
def seconds(duration: None, option: str = ..., *, above: float | None = ..., infinite: bool = ...) -> None: ...
@overload
def seconds(duration: Duration, option: str = ..., *, above: float | None = ..., infinite: bool = ...) -> float: ...
def seconds(
    duration: Duration | None, option: str = "timeout", *, above: float | None = None, infinite: bool = True
) -> float | None:
    """Return a duration as float seconds; `None` stays `None`.

    Args:
        duration: Seconds or a `timedelta`.
        option: Name of the option, for the error.
        above: The duration must be greater than this; unless given, it must not be negative.
        infinite: Whether `math.inf` is allowed.

    Raises:
        InvalidOption: It is no duration, or out of range.
    """
    if duration is None:
        return None
    value: object = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if not isinstance(value, bool) and isinstance(value, int | float):
        in_range = value >= 0 if above is None else value > above or value == above == -FOREVER
        if in_range and (infinite or value < _ENDLESS):
            return float(value) if abs(value) < _ENDLESS else FOREVER if value > 0 else -FOREVER
    least = f"{'>=' if above is None else '>'} {above or 0:g}"
    raise InvalidOption(option, duration, f"seconds {least}{', math.inf' if infinite else ''} or a timedelta")


class Deadline:
    """The moment by which something must have happened, counted from now; a negative duration is over at once.

    Attributes:
        at: That moment on the clock `now`; `FOREVER` without a limit.
    """

    __slots__ = ("at",)

    def __init__(self, within: Duration | None) -> None:
        self.at = FOREVER if within is None else now() + seconds(within, above=-FOREVER)

    @property
    def left(self) -> float:
        """Seconds until then, from 0 to what a lock, an event or a queue can be told to wait."""
        return min(max(self.at - now(), 0.0), LONGEST_WAIT)

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return now() >= self.at
