"""Why an actor ended, as a value.

`Normal` and `Shutdown` are the *normal family*: nothing went wrong. Everything else is abnormal. A reason never
holds an exception or a traceback object, only text, so it can be kept, compared, sent and stored.
"""

import linecache
import traceback
from types import CodeType, TracebackType
from typing import Any, ClassVar

import msgspec

from mlld_sdk.base.secrets import redacted
from mlld_sdk.base.texts import fit, portable, text_of, text_of_failure

TRACE_LIMIT = 8_000
"""A crash keeps at most this many characters of its traceback: the end, where the cause is."""


REASON_LIMIT = 4_000
"""Characters of a reason's text: those of reasons inside reasons add up."""

TRACE_FRAMES = 20
"""... and at most this many frames, the innermost."""


KEPT_FRAMES = 1_000
"""Places in the code whose text is kept: what crashes once mostly crashes there again."""


class Reason(msgspec.Struct, frozen=True):
    """The base of all exit reasons. Other layers may add their own; abnormal unless they say otherwise."""

    is_normal_family: ClassVar[bool] = False
    """Whether this is an ordinary end: no crash report, no restart of a transient child."""

    is_crash: ClassVar[bool] = False
    """Whether an exception caused it."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if (say := cls.__dict__.get("__str__")) is not None:  # it is written by supervisors, which must not fail by it
            cls.__str__ = lambda self: text_of(self, REASON_LIMIT, say=say)  # type: ignore[method-assign]


class Normal(Reason, frozen=True, tag="normal"):
    """The actor was done."""

    is_normal_family: ClassVar[bool] = True

    def __str__(self) -> str:
        return "normal"


class Shutdown(Reason, frozen=True, tag="shutdown"):
    """The actor was asked to end by its parent or its owner.

    Attributes:
        detail: More about it, any plain value.
    """

    detail: Any = None
    is_normal_family: ClassVar[bool] = True

    def __str__(self) -> str:
        return "shutdown" if self.detail is None else f"shutdown: {self.detail}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Shutdown, (portable(self.detail),)


class Crash(Reason, frozen=True, tag="crash"):
    """An exception that was not expected.

    Attributes:
        error: Name of the exception's type.
        message: What the exception said.
        trace: The formatted traceback, its last `TRACE_LIMIT` characters.
    """

    error: str
    message: str = ""
    trace: str = ""
    is_crash: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error


class Killed(Reason, frozen=True, tag="killed"):
    """The actor was killed: no hook of it ran.

    Attributes:
        detail: Why it had to be.
    """

    detail: str = ""

    def __str__(self) -> str:
        return f"killed: {self.detail}" if self.detail else "killed"


class NoProc(Reason, frozen=True, tag="noproc"):
    """There was no such actor: it had ended before, or the name is unknown."""

    def __str__(self) -> str:
        return "no such actor"


class Other(Reason, frozen=True, tag="other"):
    """Any other value given as a reason.

    Attributes:
        value: That value.
    """

    value: Any

    def __str__(self) -> str:
        return str(self.value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Other, (portable(self.value),)


NORMAL = Normal()
SHUTDOWN = Shutdown()
KILLED = Killed()
NOPROC = NoProc()
FORKED = Crash("forked", "this process is a forked copy; its actors run in the original")


def as_reason(value: object) -> Reason:
    """Turn what a user gave as a reason into one: exceptions become crashes, unknown values are wrapped."""
    if isinstance(value, Reason):
        return value
    if isinstance(value, BaseException):
        return crash(value)
    return _WORDS.get(value, Other(value)) if isinstance(value, str) else Other(value)


_WORDS: dict[str, Reason] = {"normal": NORMAL, "shutdown": SHUTDOWN, "killed": KILLED, "noproc": NOPROC}


def reason_of(error: BaseException) -> Reason:
    """Return why an actor ends that an exception left: the reason it carries as `exit_reason`, else a crash."""
    reason = getattr(error, "exit_reason", None)
    return reason if isinstance(reason, Reason) else crash(error)


def crash(error: BaseException) -> Crash:
    """Write an exception down: type, message and formatted trace, with no reference to any frame."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return Crash(name, text_of_failure(error), redacted(_trace_of(error)))


def _trace_of(error: BaseException) -> str:
    try:
        alone = error.__cause__ is None and error.__context__ is None and not isinstance(error, BaseExceptionGroup)
        if alone and not hasattr(error, "__notes__"):
            return fit(_plain_trace(error)[-TRACE_LIMIT:])
        return fit("".join(traceback.format_exception(error, limit=-TRACE_FRAMES))[-TRACE_LIMIT:])
    except BaseException as second:  # noqa: BLE001 - a broken __str__ must not hide the crash it describes
        return f"<its trace could not be made: {type(second).__name__}>"


def _plain_trace(error: BaseException) -> str:
    """Format the trace of an exception that stands alone, much faster than the standard library: restarts count."""
    frames: list[TracebackType] = []
    step = error.__traceback__
    while step is not None:
        frames.append(step)
        step = step.tb_next
    parts = ["Traceback (most recent call last):\n"]
    for step in frames[-TRACE_FRAMES:]:
        code = step.tb_frame.f_code
        known = _frames.get((id(code), step.tb_lasti))
        parts.append(_write_frame(code, step) if known is None else known[1])
    if isinstance(error, _SAY_MORE):
        parts += traceback.format_exception_only(error)
    else:
        text = str(error)
        parts.append(f"{_name_of(error)}: {text}\n" if text else f"{_name_of(error)}\n")
    return "".join(parts)


_frames: dict[tuple[int, int], tuple[CodeType, str]] = {}
"""What was written about places in the code, by id and instruction (to work out the line takes longer than to look it
up here); the code object is kept so that its id stays its own."""


def _write_frame(code: CodeType, step: TracebackType) -> str:
    """Write two lines about a place in the code: where, and the source."""
    number = step.tb_lineno
    text = f'  File "{code.co_filename}", line {number}, in {code.co_name}\n'
    source = linecache.getline(code.co_filename, number, step.tb_frame.f_globals).strip()
    if source:
        text += f"    {source}\n"
    if len(_frames) >= KEPT_FRAMES:
        _frames.clear()
    _frames[id(code), step.tb_lasti] = (code, text)
    return text


_SAY_MORE = (SyntaxError, NameError, AttributeError, ImportError)
"""Exceptions whose last lines say more than type and text."""


def _name_of(error: BaseException) -> str:
    """Name the type of an exception as Python itself does."""
    kind = type(error)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
