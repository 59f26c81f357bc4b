"""Functions that are given as steps: which of them are to be awaited."""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from mlld_sdk.runs.errors import StepIsAsync


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether it is known before the call that what it returns is to be awaited."""
    while isinstance(function, functools.partial):
        function = function.func
    if type(function) is FunctionType and not function.__dict__:  # the usual case; marks are attributes
        return bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def is_awaitable(value: object) -> bool:
    """Return whether a value is to be awaited."""
    return hasattr(type(value), "__await__")


def called(step: str, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
    """Call a function as a step of a run that has no loop.

    Raises:
        StepIsAsync: What it returned is to be awaited; a coroutine has not begun.
    """
    value = function(*args)
    if is_awaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise StepIsAsync(step)
    return value
