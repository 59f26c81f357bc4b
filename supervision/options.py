"""Checking options: one place where a wrong value becomes an error that names it."""

from mlld_sdk.base.errors import InvalidOption


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
