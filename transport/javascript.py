"""Numbers, texts and objects written as JavaScript writes them, to the byte.

Cache keys, rows and messages are compared with what a JavaScript engine wrote; Python prints some numbers and orders
some keys in other ways.
"""

import json
import math
import struct
from collections.abc import Iterable
from typing import Any


def number_text(value: float) -> str:
    """Print a number as JavaScript does: `1.0` is `1`, `1e-7` has no leading zero in its exponent."""
    if isinstance(value, int) and abs(value) < 10**21:
        return str(value) if abs(value) <= 2**53 else number_text(float(value))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        text = digits.ljust(point, "0") if len(digits) <= point else f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        power = point - 1
        head = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
        text = f"{head}e{'+' if power >= 0 else '-'}{abs(power)}"
    return sign + text


def string_text(value: str) -> str:
    """Quote a string as `JSON.stringify` does: raw except for quotes, control characters and lone surrogates."""
    quoted = json.dumps(value, ensure_ascii=False)
    if any("\ud800" <= char <= "\udfff" for char in quoted):
        return "".join(f"\\u{ord(char):04x}" if "\ud800" <= char <= "\udfff" else char for char in quoted)
    return quoted


def utf16_order(text: str) -> bytes:
    """Return what texts are sorted by in JavaScript: their UTF-16 code units."""
    return text.encode("utf-16-be", "surrogatepass")


def text_length(text: str) -> int:
    """Count a text as JavaScript does, in UTF-16 code units."""
    return len(text) if text.isascii() else len(utf16_order(text)) // 2


def in_units(text: str) -> str:
    """Take a text apart into UTF-16 code units, one character each, so that places in it are JavaScript's."""
    data = utf16_order(text)
    return "".join(map(chr, struct.unpack(f">{len(data) // 2}H", data)))


def from_units(text: str) -> str:
    """Put code units together again; those without a partner stay lone surrogates."""
    return utf16_order(text).decode("utf-16-be", "surrogatepass")


def well_formed(text: str) -> str:
    """Put the replacement character where a surrogate has no partner, as JavaScript does for the world outside."""
    return text if text.isascii() else utf16_order(text).decode("utf-16-be", "replace")


def is_blank(value: Any) -> bool:
    """Return whether a value is null, or a text of nothing but white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_array_index(key: str) -> bool:
    """Return whether a key counts as a place in a list."""
    if not (key.isascii() and key.isdigit() and len(key) <= 10):
        return False
    return (key == "0" or key[0] != "0") and int(key) < 2**32 - 1


def property_order(keys: Iterable[str]) -> list[str]:
    """Put keys into the order a JavaScript object lists them: whole numbers first by size, the rest as inserted."""
    names = list(keys)
    numbers = [name for name in names if is_array_index(name)]
    if not numbers:
        return names
    return sorted(numbers, key=int) + [name for name in names if not is_array_index(name)]


def json_text(value: Any, *, indent: int = 0, sort: bool = False, _pad: str = "") -> str:
    """Write `value` as `JSON.stringify` would, byte for byte.

    Args:
        value: Plain data: strings, numbers, booleans, None, lists and dictionaries.
        indent: Blanks for each level; 0 writes everything on one line without blanks.
        sort: Sort the keys at every level by UTF-16 code units first, as cache keys need it.
    """
    if isinstance(value, str):
        return string_text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        text = number_text(value)
        return "null" if text.endswith(("NaN", "Infinity")) else text
    inner = _pad + " " * indent
    if isinstance(value, (list, tuple)):
        parts = [json_text(item, indent=indent, sort=sort, _pad=inner) for item in value]
        opening, closing = "[", "]"
    elif isinstance(value, dict):
        keys = sorted((str(key) for key in value), key=utf16_order) if sort else [str(key) for key in value]
        colon = ": " if indent else ":"
        parts = [
            f"{string_text(key)}{colon}{json_text(value[key], indent=indent, sort=sort, _pad=inner)}"
            for key in property_order(keys)
        ]
        opening, closing = "{", "}"
    else:
        raise TypeError(f"not plain data: {type(value).__name__}")
    if not parts or not indent:
        return opening + ",".join(parts) + closing
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{_pad}{closing}"
