"""Values of a script and how they become text: on the page, inside a template, in a shell."""

import math
from typing import Any, NamedTuple

from mlld_sdk.transport.embedded.interpreter.labels import UNKNOWN, Origin
from mlld_sdk.transport.javascript import json_text, number_text, property_order, text_length


class Value(NamedTuple):
    """Plain data (text, number, boolean, None, list, dictionary or a `Function`) and where it came from.

    Attributes:
        data: The value.
        origin: Where it came from.
        text: How it prints, when that is not what `data` would print: the text of a JSON file, a function's `null`.
    """

    data: Any
    origin: Origin = UNKNOWN
    text: str | None = None


NOTHING = Value(None)


def tidy_number(number: float) -> float:
    """Turn a float that is a whole number into an int, so that it prints and compares as one number."""
    return int(number) if math.isfinite(number) and number == int(number) and abs(number) <= 2**53 else number


def is_number(data: Any) -> bool:
    """Say whether `data` is a number; booleans are not."""
    return isinstance(data, (int, float)) and not isinstance(data, bool)


def scalar_text(data: Any) -> str:
    """Print a text, number, boolean or nothing."""
    if isinstance(data, str):
        return data
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "true" if data else "false"
    return number_text(data)


def inline_text(data: Any) -> str:
    """Print a value inside a template: containers as compact JSON."""
    return json_text(data) if isinstance(data, (list, dict)) else scalar_text(data)


def string_of(data: Any) -> str:
    """Turn a value into text as JavaScript's own functions do, which know nothing of JSON."""
    if isinstance(data, list):
        return ",".join("" if item is None else string_of(item) for item in data)
    return "[object Object]" if isinstance(data, dict) else scalar_text(data)


def text_of(value: Value) -> str:
    """Print a value inside a text."""
    return inline_text(value.data) if value.text is None else value.text


def page_text(data: Any) -> str:
    """Print a value on the page: containers as JSON over several lines unless they are trivial, nothing as no text."""
    if data is None:
        return ""
    return pretty_json(data) if isinstance(data, (list, dict)) else scalar_text(data)


def pretty_json(data: Any) -> str:
    """Write JSON as `show` does: one line for what is short and flat, two blanks of indent for the rest."""
    compact = json_text(data)
    if text_length(compact) <= 60 and not _has_structure(data):
        return compact
    if isinstance(data, dict) and len(data) == 1:
        (key,) = data
        if not isinstance(data[key], (list, dict)):
            return "{" + json_text({key: data[key]}, indent=1)[3:-2] + "}"
    return json_text(data, indent=2)


def _has_structure(data: Any) -> bool:
    if isinstance(data, list):
        return len(data) > 1 or any(isinstance(item, (list, dict)) for item in data)
    return isinstance(data, dict) and len(data) > 0


def is_truthy(data: Any) -> bool:
    """Decide a condition: empty text, `"false"`, `"0"`, `"NaN"`, zero, nothing and empty containers are false."""
    if isinstance(data, str):
        return data.lower() not in ("", "false", "0", "nan")
    if isinstance(data, (list, dict)):
        return len(data) > 0
    if isinstance(data, float) and data != data:  # the test for not-a-number
        return False
    return bool(data)


def ordered(data: dict[str, Any]) -> dict[str, Any]:
    """Put the keys of a dictionary into the order a JavaScript object would list them."""
    names = property_order(data)
    return data if names == list(data) else {name: data[name] for name in names}
