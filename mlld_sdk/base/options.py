"""Checking options: one place where a wrong value becomes an error that says what is allowed and what was given."""

import difflib
import functools
import types
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Final, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from mlld_sdk.base.errors import InvalidOption, UnknownOption
from mlld_sdk.base.texts import fit

_WORDS: Final = {int: "a whole number", float: "a number", str: "text", type(None): "None"}

P = ParamSpec("P")
T = TypeVar("T")

_SLIP: Final = 0.82
"""From which likeness to an option's name on another name counts as a slip of the pen."""

_hints_of = functools.cache(get_type_hints)  # for every incarnation of every agent, also right after a crash


def checked(kind: type[msgspec.Struct], values: Mapping[str, Any]) -> None:
    """Refuse values that options of this kind cannot have, as `UnknownOption` or `InvalidOption`."""
    hints = _hints_of(kind)
    for name, value in values.items():
        if name not in kind.__struct_fields__:
            raise unknown(name, value, kind.__struct_fields__)
        if not _fits(value, hints[name]):
            raise InvalidOption(name, value, allowed(hints[name]))


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value is of a type: of a class of structs when it is an object, not a mapping of its fields."""
    structs = tuple(one for one in get_args(hint) or (hint,) if isinstance(one, type(msgspec.Struct)))
    if structs and isinstance(value, Mapping | msgspec.Struct):
        return isinstance(value, structs)
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def unknown(option: str, value: object, known: Iterable[str], where: str = "there are") -> UnknownOption:
    """Make the error for an option that does not exist, with the name that was probably meant."""
    names = list(known)
    near = difflib.get_close_matches(option, names, n=1)
    meant = f"did you mean `{near[0]}`? " if near else ""
    return UnknownOption(option, value, f"{meant}{where}: {', '.join(names)}")


def refuse_misspelt(kind: type, options: Iterable[str]) -> None:
    """Refuse attributes that a class defines and whose names are slips of an option's, as `UnknownOption`.

    What a base defines too is meant, and so is what can be called: options are plain values.
    """
    known = list(options)
    for name, value in vars(kind).items():
        if name.startswith("_") or name in known or hasattr(type(value), "__get__") or isinstance(value, type):
            continue
        near = difflib.get_close_matches(name, known, 1, _SLIP)
        if near and near[0][0] == name[0] and not any(name in vars(base) for base in kind.__mro__[1:]):
            own = f"if it is {kind.__name__}'s own, call it `_{name}` or define it in a base of its own"
            raise UnknownOption(name, value, f"did you mean `{near[0]}`? {own}")


def refuse_unknown(options: Mapping[str, object], known: type) -> None:
    """Raise `UnknownOption` for the first option that this class of options does not name."""
    for option, value in options.items():
        if option not in known.__annotations__:
            raise unknown(option, value, known.__annotations__)


def whole(option: str, value: object, *, least: int = 0) -> int:
    """Return an integer of at least `least`, or raise `InvalidOption`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidOption(option, value, f"a whole number of at least {least}")
    return value


def number(option: str, value: object, least: float, most: float) -> float:
    """Return a number from `least` to `most`, or raise `InvalidOption`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidOption(option, value, f"a number from {least:.12g} to {most:.12g}")
    return float(value)


def text(option: str, value: object, *, most: float = inf, empty: bool = False) -> str:
    """Return a text of at most so many characters, and not an empty one unless told so, or raise `InvalidOption`."""
    if not isinstance(value, str) or not (value or empty) or len(value) > most:
        least = 0 if empty else 1
        size = "" if most == inf else f" of {least} to {most:g} characters"
        raise InvalidOption(option, value, f"text{size}" if size or empty else "a text that is not empty")
    return value


def path_part(option: str, value: object) -> str:
    """Return a text that can stand between the slashes of a path, or raise `InvalidOption`."""
    if not isinstance(value, str) or not value or "/" in value or fit(value) != value:
        raise InvalidOption(option, value, "a text that is not empty and holds no '/' and no half of a surrogate pair")
    return value


def truth(option: str, value: object) -> bool:
    """Return `True` or `False`, or raise `InvalidOption` for what only counts as one of them."""
    if not isinstance(value, bool):
        raise InvalidOption(option, value, "True or False")
    return value


def check_callable(option: str, value: Callable[P, T]) -> Callable[P, T]:
    """Return what can be called, or raise `InvalidOption`."""
    if not callable(value):
        raise InvalidOption(option, value, "a function, or something else that can be called")
    return value


def one_of(option: str, value: object, *choices: str) -> str:
    """Return one of the given words, or raise `InvalidOption`."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidOption(option, value, f"one of {', '.join(map(repr, choices))}")
    return value


def check_class(option: str, value: object, kind: type) -> None:
    """Refuse a value that is neither `None` nor of a class, as `InvalidOption`."""
    if value is not None and not isinstance(value, kind):
        raise InvalidOption(option, value, f"None or {kind.__module__.rpartition('.')[0]}.{kind.__name__}")


def allowed(hint: Any) -> str:
    """Return in words what a type allows."""
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
