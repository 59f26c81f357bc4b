"""Saying of an option what is wrong with its value: its name, what is allowed, and what was given."""

import difflib
import functools
import types
from collections.abc import Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from mlld_sdk.base.errors import ConfigurationError

_WORDS: Final = {int: "a whole number", float: "a number", str: "text", type(None): "None"}

_LONGEST: Final = 80
"""Characters of a wrong value that are shown."""


_hints_of = functools.cache(get_type_hints)  # for every incarnation of every agent, also right after a crash


def checked(kind: type[msgspec.Struct], values: Mapping[str, Any]) -> None:
    """Refuse values that options of this kind cannot have.

    Raises:
        ConfigurationError: The option does not exist, or its value is of no kind it may have.
    """
    hints = _hints_of(kind)
    for name, value in values.items():
        if name not in kind.__struct_fields__:
            near = difflib.get_close_matches(name, kind.__struct_fields__, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigurationError(
                f"there is no option {name!r}", hint=f"{meant}there are: {', '.join(kind.__struct_fields__)}"
            )
        try:
            msgspec.convert(value, hints[name])
        except msgspec.ValidationError:
            shown = repr(value)
            shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
            raise ConfigurationError(f"{name} must be {allowed(hints[name])}, got {shown}") from None


def allowed(hint: Any) -> str:
    """Say in words what a type allows."""
    words = _alternatives(hint)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _alternatives(hint: Any) -> list[str]:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return [word for one in inside for word in _alternatives(one)]
    if origin is Literal:
        return [repr(one) for one in inside]
    if hint is bool:
        return ["True", "False"]
    if origin is tuple:
        return ["a list of texts"]
    if origin is not None and issubclass(origin, Mapping):
        return ["a mapping of texts to texts"]
    return [_WORDS.get(hint) or f"a {hint.__name__}"]
