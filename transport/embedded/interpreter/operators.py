"""What operators do with plain values, the way mlld does it."""

import math
import operator
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.interpreter.values import is_number, is_truthy, scalar_text, tidy_number
from mlld_sdk.transport.javascript import json_text

COMPARISONS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
CALCULATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def to_number(data: Any) -> float:
    """Return a value as JavaScript's `Number()` reads it; what is no number is not-a-number."""
    if data is None or isinstance(data, (bool, int, float)):
        return 0.0 if data is None else float(data)
    text = data.strip() if isinstance(data, str) else "_"
    if not text:
        return 0
    if "_" in text or text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return math.nan
    try:
        return float(text)
    except ValueError:
        return math.nan


def equal(left: Any, right: Any) -> bool:
    """Compare as mlld's `==` does: numbers and texts that look alike are equal, lists by content, objects never."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, bool):
            return one is other if isinstance(other, bool) else other == scalar_text(one)
        if one is None:
            return other is None
        if is_number(one) and isinstance(other, str):
            return other.strip() != "" and to_number(other) == one
        if isinstance(one, dict):
            return False
    if isinstance(left, list) and isinstance(right, list):
        return json_text(left) == json_text(right)
    return same(left, right)


def same(left: Any, right: Any) -> bool:
    """Compare as JavaScript's `===` does, and lists by content."""
    return (type(left) is type(right) or (is_number(left) and is_number(right))) and bool(left == right)


def compare(sign: str, left: Any, right: Any) -> bool:
    """Compare sizes, as numbers."""
    return bool(COMPARISONS[sign](to_number(left), to_number(right)))


def calculate(sign: str, left: Any, right: Any) -> float:
    """Calculate with numbers.

    Raises:
        ScriptFailure: For texts added with `+`; mlld has templates for that.
    """
    first, second = to_number(left), to_number(right)
    if sign == "+" and isinstance(left, str) and isinstance(right, str) and (math.isnan(first) or math.isnan(second)):
        advice = "Two texts cannot be added with +; put them into one template"
        raise ScriptFailure(advice, "STRING_CONCAT_WITH_PLUS", "MlldDirectiveError")
    try:
        return tidy_number(_calculated(sign, first, second))
    except OverflowError:
        return math.inf


def _calculated(sign: str, first: float, second: float) -> float:
    if sign in CALCULATIONS:
        return float(CALCULATIONS[sign](first, second))
    if sign == "%":
        return math.nan if second == 0 or math.isinf(first) else math.fmod(first, second)
    if second != 0:
        return first / second
    return math.nan if first == 0 or math.isnan(first) else math.copysign(math.inf, first) * math.copysign(1, second)


def fits(subject: Any, pattern: Any) -> bool:
    """Return whether a `when` subject fits a branch's value."""
    return is_truthy(subject) is pattern if isinstance(pattern, bool) else equal(subject, pattern)
