"""What texts, lists and objects can do: `.length`, `.split(...)`, `.includes(...)` and their like."""

import math
import re
from collections.abc import Callable
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptFailure, field_failure, interpreter_failure
from mlld_sdk.transport.embedded.interpreter.operators import same, to_number
from mlld_sdk.transport.embedded.interpreter.values import is_number, kind_of, scalar_text, string_of, tidy_number
from mlld_sdk.transport.javascript import from_units, in_units, text_length, utf16_order

LONGEST_KEY = 10
LONGEST_TEXT = 2**29 - 24
BLANKS = "\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))


def _index(args: list[Any], position: int, default: int) -> int:
    if len(args) <= position or args[position] is None:
        return default
    number = to_number(args[position])
    if math.isnan(number):
        return 0
    return int(max(-LONGEST_TEXT - 1, min(number, LONGEST_TEXT + 1)))


def _text(args: list[Any], position: int = 0) -> str:
    return string_of(args[position]) if len(args) > position else ""


def _slice(data: Any, args: list[Any]) -> Any:
    return data[_index(args, 0, 0) : _index(args, 1, len(data))]


def _substring(data: str, args: list[Any]) -> str:
    first, second = (min(max(_index(args, at, default), 0), len(data)) for at, default in ((0, 0), (1, len(data))))
    return data[min(first, second) : max(first, second)]


def _replace(data: str, args: list[Any], times: int = 1) -> str:
    wanted, pattern = _text(args), _text(args, 1)
    if "$" not in pattern:
        return data.replace(wanted, pattern, times)

    def filled(found: re.Match[str]) -> str:
        """Write out the replacement, in which `$&` and its like stand for parts of the text."""
        meant = {"$": "$", "&": found.group(), "`": data[: found.start()], "'": data[found.end() :]}
        return re.sub(r"\$([$&`'])", lambda sign: meant[sign[1]], pattern)

    return re.sub(re.escape(wanted), filled, data, count=max(times, 0))


def _repeat(data: str, args: list[Any]) -> str:
    times = _index(args, 0, 0)
    if times < 0:
        raise ScriptFailure(f"Invalid count value: {string_of(args[0])}", name="RangeError")
    _refuse_longer(len(data) * times)
    return data * times


def _refuse_longer(length: int) -> None:
    if length > LONGEST_TEXT:
        raise ScriptFailure("Invalid string length", name="RangeError")


def _position(data: Any, args: list[Any]) -> int:
    if isinstance(data, str):
        return data.find(_text(args))
    return next((at for at, item in enumerate(data) if args and same(item, args[0])), -1)


def _join(data: list[Any], args: list[Any]) -> str:
    separator = _text(args) if args else ","
    return separator.join("" if item is None else string_of(item) for item in data)


BOTH: dict[str, Callable[[Any, list[Any]], Any]] = {
    "includes": lambda data, args: _position(data, args) >= 0,
    "indexOf": _position,
    "slice": _slice,
    "length": lambda data, _: len(data),
}

TEXT: dict[str, Callable[[Any, list[Any]], Any]] = BOTH | {
    "toUpperCase": lambda data, _: data.upper(),
    "toLowerCase": lambda data, _: data.lower(),
    "trim": lambda data, _: data.strip(BLANKS),
    "startsWith": lambda data, args: data.startswith(_text(args)),
    "endsWith": lambda data, args: data.endswith(_text(args)),
    "split": lambda data, args: data.split(_text(args)) if _text(args) else list(data),
    "substring": _substring,
    "replace": _replace,
    "replaceAll": lambda data, args: _replace(data, args, -1),
    "repeat": _repeat,
    "padStart": lambda data, args: _padding(data, args) + data,
    "padEnd": lambda data, args: data + _padding(data, args),
}

LIST: dict[str, Callable[[Any, list[Any]], Any]] = BOTH | {
    "join": _join,
    "concat": lambda data, args: data + [item for arg in args for item in (arg if isinstance(arg, list) else [arg])],
    "reverse": lambda data, _: data[::-1],
    "sort": lambda data, _: sorted(data, key=lambda item: utf16_order(string_of(item))),
}


WHOLE = frozenset(("toUpperCase", "toLowerCase", "trim"))
"""Methods that look at characters rather than at places."""


def _padding(data: str, args: list[Any]) -> str:
    missing = _index(args, 0, 0) - len(data)
    filler = _text(args, 1) if len(args) > 1 else " "
    if missing <= 0 or not filler:
        return ""
    _refuse_longer(len(data) + missing)
    return (filler * (missing // len(filler) + 1))[:missing]


def _is_narrow(data: str, args: list[Any]) -> bool:
    """Whether characters and code units are the same here."""
    return all(text.isascii() or max(text, default="") <= "\uffff" for text in (data, *args) if isinstance(text, str))


def call_method(data: Any, name: str, args: list[Any]) -> Any:
    """Call a method of a text or a list.

    Raises:
        ScriptFailure: When values of this kind have no such method.
    """
    table = TEXT if isinstance(data, str) else LIST if isinstance(data, list) else {}
    method = table.get(name)
    if method is None:
        raise interpreter_failure(f"Cannot call .{name}() on {kind_of(data)}")
    if isinstance(data, str) and name not in WHOLE and not _is_narrow(data, args):
        result = method(in_units(data), [in_units(arg) if isinstance(arg, str) else arg for arg in args])
        if isinstance(result, str):
            result = from_units(result)
        elif isinstance(result, list):
            result = [from_units(piece) for piece in result]
    else:
        result = method(data, args)
    return tidy_number(result) if is_number(result) else result


def read_field(data: Any, key: Any) -> Any:
    """Read a field or an element; what is not there is nothing."""
    if isinstance(data, dict):
        name = key if isinstance(key, str) else scalar_text(key)
        if name in data:
            return data[name]
        return len(data) if name == "length" else None
    if isinstance(data, list):
        if key == "length":
            return len(data)
        if is_number(key) or (
            isinstance(key, str) and key.isascii() and key.lstrip("-").isdigit() and len(key) <= LONGEST_KEY
        ):
            at = int(key)
            return data[at] if 0 <= at < len(data) and at == float(key) else None
        return None
    if data is None:
        return None
    if isinstance(data, str) and key == "length":
        return text_length(data)
    raise field_failure(f'Cannot access field "{scalar_text(key)}" on non-object value ({kind_of(data)})')
