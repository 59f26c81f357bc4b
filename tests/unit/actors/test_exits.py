"""How an exception is written down: as the standard library does, only faster."""

import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from mlld_sdk.actors.core.exits import crash


class Outer:
    class Inner(Exception):
        pass


def fail(error: BaseException) -> Any:
    raise error


def deep(left: int) -> Any:
    return deep(left - 1) if left else 1 / 0


@pytest.mark.parametrize(
    "action",
    [
        lambda: 1 / 0,
        lambda: deep(2),
        lambda: fail(Outer.Inner("of a class in a class")),
        lambda: fail(KeyError()),
        lambda: fail(ValueError("two\nlines")),
        lambda: fail(OSError(2, "no such thing")),
        lambda: undefined_name,  # type: ignore[name-defined] # noqa: F821
        lambda: [].nothing,  # type: ignore[attr-defined]
        lambda: exec("raise RuntimeError('without source')"),
        lambda: fail(ExceptionGroup("several", [ValueError(1), KeyError("two")])),
    ],
)
def test_the_trace_of_a_crash_is_the_one_python_prints(action: Callable[[], Any]) -> None:
    try:
        action()
    except Exception as error:
        printed = "".join(traceback.format_exception(error))
        written = crash(error).trace
    without_marks = re.compile(r"^[ |]+[\^~]+\n", re.MULTILINE)
    assert without_marks.sub("", written) == without_marks.sub("", printed)
