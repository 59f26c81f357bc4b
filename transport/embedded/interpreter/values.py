"""Values of a script, where they came from, and how they become text: on the page, inside a template, in a shell."""

import json
import math
from typing import Any, NamedTuple

from mlld_sdk.transport.javascript import json_text, number_text, property_order, text_length


class Origin(NamedTuple):
    """What is known about a value's past.

    Attributes:
        labels: Names a script or a host gave it, such as `llm` or `secret`.
        taint: The labels and, besides, what it passed through, such as `src:sh`.
        sources: The operations it came from.
    """

    labels: tuple[str, ...] = ()
    taint: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.taint or self.sources)

    def plain(self) -> dict[str, list[str]]:
        """Write it as it stands in messages."""
        return {"labels": list(self.labels), "taint": list(self.taint), "sources": list(self.sources)}


UNKNOWN = Origin()


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    if not second or first == second:
        return first
    if not first:
        return second
    return (*first, *(name for name in second if name not in first))


def merge(*origins: Origin) -> Origin:
    """Unite what is known about several values, in order of first mention."""
    merged = UNKNOWN
    for origin in origins:
        if origin is not merged and origin:
            merged = Origin(
                _union(merged.labels, origin.labels),
                _union(merged.taint, origin.taint),
                _union(merged.sources, origin.sources),
            )
    return merged


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

    @property
    def printed(self) -> Any:
        """The text the value prints, or the data if it prints as that."""
        return self.data if self.text is None else self.text


NOTHING = Value(None)


def tidy_number(number: float) -> float:
    """Turn a float that is a whole number into an int, so that it prints and compares as one number."""
    return int(number) if math.isfinite(number) and number == int(number) and abs(number) <= 2**53 else number


def is_number(data: Any) -> bool:
    """Return whether `data` is a number; booleans are not."""
    return isinstance(data, (int, float)) and not isinstance(data, bool)


def kind_of(data: Any) -> str:
    """Return the kind of a value as JavaScript's `typeof` names it."""
    if isinstance(data, str):
        return "string"
    if isinstance(data, bool):
        return "boolean"
    return "number" if is_number(data) else "object"


def describe(data: Any) -> str:
    """Return kind and text of a value for an error; containers have no text."""
    return "object" if isinstance(data, (list, dict, tuple)) else f"{kind_of(data)} ({scalar_text(data)})"


def scalar_text(data: Any) -> str:
    """Return a text, number, boolean or nothing as it prints."""
    if isinstance(data, str):
        return data
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "true" if data else "false"
    return number_text(data)


def inline_text(data: Any) -> str:
    """Return a value as it prints inside a template: containers as compact JSON."""
    return json_text(data) if isinstance(data, (list, dict)) else scalar_text(data)


def string_of(data: Any) -> str:
    """Turn a value into text as JavaScript's own functions do, which know nothing of JSON."""
    if isinstance(data, list):
        return ",".join("" if item is None else string_of(item) for item in data)
    return "[object Object]" if isinstance(data, dict) else scalar_text(data)


def text_of(value: Value) -> str:
    """Return a value as it prints inside a text."""
    return inline_text(value.data) if value.text is None else value.text


def page_text(data: Any) -> str:
    """Return a value as it prints on the page: containers as JSON, over several lines unless trivial."""
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
    """Return whether a condition holds.

    Empty text, `"false"`, `"0"`, `"NaN"`, zero, nothing and empty containers are false.
    """
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


def ended(text: str) -> str:
    """Return a text with a line end."""
    return text if text.endswith("\n") else text + "\n"


def shown_text(data: Any) -> str:
    """Return what `show` shows; a text that is JSON is printed as such."""
    if isinstance(data, str) and data.strip()[:1] in ("{", "["):
        try:
            return pretty_json(json.loads(data))
        except (ValueError, RecursionError):
            return data
    return page_text(data)


def written_text(data: Any) -> str:
    """Return what `output` and `log` write: containers always over several lines."""
    return json_text(data, indent=2) if isinstance(data, (list, dict)) else page_text(data)
