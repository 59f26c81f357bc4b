"""Checking options: one place where a wrong value becomes an error that names it."""

from datetime import timedelta
from math import inf, isfinite

from mlld_sdk.supervision.errors import InvalidOption

Seconds = float | timedelta
"""A duration: float seconds, or a `timedelta`."""


def seconds(option: str, value: object, *, above: float | None = None, infinite: bool = False) -> float:
    """Turn a duration into float seconds.

    Args:
        option: Name for the error.
        value: Number or `timedelta`.
        above: When given, the duration must be greater than this; otherwise it must not be negative.
        infinite: Whether `math.inf` is allowed.

    Raises:
        InvalidOption: The value is not a duration in range.
    """
    allowed = f"seconds {'>' if above is not None else '>='} {above or 0:g}{', or math.inf' if infinite else ''}"
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(option, value, allowed)
    in_range = value > above if above is not None else value >= 0
    if not in_range or not (isfinite(value) or (infinite and value == inf)):
        raise InvalidOption(option, value, allowed)
    return float(value)


def whole(option: str, value: object, *, least: int = 0) -> int:
    """Require an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidOption(option, value, f"a whole number >= {least}")
    return value


def number(option: str, value: object, least: float, most: float) -> float:
    """Require a number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidOption(option, value, f"a number from {least:g} to {most:g}")
    return float(value)


def one_of(option: str, value: object, *choices: str) -> str:
    """Require one of the given words."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidOption(option, value, ", ".join(repr(choice) for choice in choices))
    return value
