"""What operators do with plain values, the way mlld does it."""

import math
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.interpreter.values import is_number, is_truthy, scalar_text, tidy_number
from mlld_sdk.transport.javascript import json_text


def to_number(data: Any) -> float:
    """Read a value as a number as JavaScript's `Number()` does; what is none is not-a-number."""
    if isinstance(data, bool):
        return int(data)
    if is_number(data):
        return float(data)
    if data is None:
        return 0
    if isinstance(data, str):
        text = data.strip()
        if not text:
            return 0
        try:
            return (
                float(text)
                if "_" not in text and text.lower().lstrip("+-") not in ("nan", "inf", "infinity")
                else math.nan
            )
        except ValueError:
            return math.nan
    return math.nan


def equal(left: Any, right: Any) -> bool:
    """Compare as mlld's `==` does: numbers and texts that look alike are equal, lists by content, objects never."""
    if isinstance(left, bool) or isinstance(right, bool):
        if isinstance(left, bool) and isinstance(right, bool):
            return left is right
        other = right if isinstance(left, bool) else left
        flag = left if isinstance(left, bool) else right
        return isinstance(other, str) and other == ("true" if flag else "false")
    if left is None or right is None:
        return left is None and right is None
    if is_number(left) and isinstance(right, str):
        return right.strip() != "" and to_number(right) == left
    if isinstance(left, str) and is_number(right):
        return left.strip() != "" and to_number(left) == right
    if isinstance(left, dict) or isinstance(right, dict):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return json_text(left) == json_text(right)
    return (type(left) is type(right) and bool(left == right)) or (
        is_number(left) and is_number(right) and left == right
    )


def compare(operator: str, left: Any, right: Any) -> bool:
    """Compare sizes, as numbers."""
    first, second = to_number(left), to_number(right)
    if operator == "<":
        return first < second
    if operator == ">":
        return first > second
    return first <= second if operator == "<=" else first >= second


def calculate(operator: str, left: Any, right: Any) -> float:
    """Calculate with numbers.

    Raises:
        ScriptError: For texts added with `+`; mlld has templates for that.
    """
    if operator == "+" and isinstance(left, str) and isinstance(right, str):
        first, second = to_number(left), to_number(right)
        if math.isnan(first) or math.isnan(second):
            raise ScriptFailure(
                "Two texts cannot be added with +; put them into one template",
                "STRING_CONCAT_WITH_PLUS",
                "MlldDirectiveError",
            )
    first, second = to_number(left), to_number(right)
    try:
        return tidy_number(_calculated(operator, first, second))
    except OverflowError:
        return math.inf


def _calculated(operator: str, first: float, second: float) -> float:
    if operator == "+":
        return first + second
    if operator == "-":
        return first - second
    if operator == "*":
        return first * second
    if operator == "/":
        if second == 0:
            return (
                math.nan
                if first == 0 or math.isnan(first)
                else math.copysign(math.inf, first) * math.copysign(1, second)
            )
        return first / second
    return math.nan if second == 0 or math.isinf(first) else math.fmod(first, second)


def fits(subject: Any, pattern: Any) -> bool:
    """Decide whether a `when` subject fits a branch's value."""
    if isinstance(pattern, bool):
        return is_truthy(subject) is pattern
    return equal(subject, pattern)


def describe(data: Any) -> str:
    """Name a value in an error: kind and text."""
    if data is None:
        return "object (null)"
    if isinstance(data, str):
        return f"string ({data})"
    if isinstance(data, bool):
        return f"boolean ({scalar_text(data)})"
    return f"number ({scalar_text(data)})" if is_number(data) else "object"
