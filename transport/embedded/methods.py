"""What texts, lists and objects can do: `.length`, `.split(...)`, `.includes(...)` and their like."""

from collections.abc import Callable
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptError
from mlld_sdk.transport.embedded.values import inline_text, is_number, scalar_text, tidy_number


def _index(args: list[Any], position: int, default: int) -> int:
    if len(args) <= position or args[position] is None:
        return default
    data = args[position]
    return int(data) if is_number(data) else default


def _text(args: list[Any], position: int = 0) -> str:
    return inline_text(args[position]) if len(args) > position else ""


def _slice(data: Any, args: list[Any]) -> Any:
    return data[_index(args, 0, 0) : _index(args, 1, len(data))]


def _substring(data: str, args: list[Any]) -> str:
    first, second = (min(max(_index(args, at, default), 0), len(data)) for at, default in ((0, 0), (1, len(data))))
    return data[min(first, second) : max(first, second)]


def _replace(data: str, args: list[Any]) -> str:
    return data.replace(_text(args), _text(args, 1), 1)


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and left == right if not (is_number(left) and is_number(right)) else left == right


def _position(data: Any, args: list[Any]) -> int:
    if isinstance(data, str):
        return data.find(_text(args))
    return next((at for at, item in enumerate(data) if args and _same(item, args[0])), -1)


def _includes(data: Any, args: list[Any]) -> bool:
    return _position(data, args) >= 0


def _split(data: str, args: list[Any]) -> list[str]:
    separator = _text(args)
    return list(data) if separator == "" else data.split(separator)


def _join(data: list[Any], args: list[Any]) -> str:
    separator = _text(args) if args else ","
    return separator.join("" if item is None else inline_text(item) for item in data)


def _sorted(data: list[Any], _: list[Any]) -> list[Any]:
    return sorted(data, key=inline_text)


TEXT: dict[str, Callable[[Any, list[Any]], Any]] = {
    "toUpperCase": lambda data, _: data.upper(),
    "toLowerCase": lambda data, _: data.lower(),
    "trim": lambda data, _: data.strip(),
    "includes": _includes,
    "startsWith": lambda data, args: data.startswith(_text(args)),
    "endsWith": lambda data, args: data.endswith(_text(args)),
    "indexOf": _position,
    "split": _split,
    "slice": _slice,
    "substring": _substring,
    "replace": _replace,
    "replaceAll": lambda data, args: data.replace(_text(args), _text(args, 1)),
    "repeat": lambda data, args: data * max(_index(args, 0, 0), 0),
    "padStart": lambda data, args: _padding(data, args) + data,
    "padEnd": lambda data, args: data + _padding(data, args),
    "length": lambda data, _: len(data),
}

LIST: dict[str, Callable[[Any, list[Any]], Any]] = {
    "includes": _includes,
    "indexOf": _position,
    "join": _join,
    "slice": _slice,
    "concat": lambda data, args: data + [item for arg in args for item in (arg if isinstance(arg, list) else [arg])],
    "reverse": lambda data, _: data[::-1],
    "sort": _sorted,
    "length": lambda data, _: len(data),
}


def _padding(data: str, args: list[Any]) -> str:
    missing = _index(args, 0, 0) - len(data)
    filler = _text(args, 1) if len(args) > 1 else " "
    return (filler * missing)[:missing] if missing > 0 and filler else ""


def call_method(data: Any, name: str, args: list[Any]) -> Any:
    """Call a method of a text or a list.

    Raises:
        ScriptError: When values of this kind have no such method.
    """
    table = TEXT if isinstance(data, str) else LIST if isinstance(data, list) else {}
    method = table.get(name)
    if method is None:
        raise ScriptError(f"Cannot call .{name}() on {kind_of(data)}", "INTERPRETATION_FAILED", "MlldInterpreterError")
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
        if is_number(key) or (isinstance(key, str) and key.lstrip("-").isdigit()):
            at = int(key)
            return data[at] if 0 <= at < len(data) else None
        return None
    if data is None:
        return None
    if isinstance(data, str):
        if key == "length":
            return len(data)
        if is_number(key):
            at = int(key)
            return data[at] if 0 <= at < len(data) else None
    raise _no_field(key, data)


def _no_field(key: Any, data: Any) -> ScriptError:
    return ScriptError(
        f'Cannot access field "{scalar_text(key)}" on non-object value ({kind_of(data)})',
        "FIELD_ACCESS_ERROR",
        "FieldAccessError",
    )


def kind_of(data: Any) -> str:
    """Name the kind of a value as JavaScript's `typeof` does."""
    if isinstance(data, str):
        return "string"
    if isinstance(data, bool):
        return "boolean"
    if is_number(data):
        return "number"
    return "object"
