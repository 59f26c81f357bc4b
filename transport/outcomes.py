"""Which error a call ends with: pure decisions, from what is known about the engine and the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlld_sdk.base.errors import MlldError
from mlld_sdk.transport.errors import (
    CallCancelled,
    CallTimeout,
    EngineAborted,
    EngineBabbling,
    EngineClosed,
    EngineDied,
    EngineDiedAtStart,
    EngineExit,
    ScriptError,
)

if TYPE_CHECKING:
    from mlld_sdk.transport.call import Call

__all__ = ["ended", "given_up", "not_active", "reported"]

_ABORTED = "StreamExecution aborted"
_WORDS = 200

START = 2.0
"""Seconds after which an engine that has said nothing counts as started: before it answers its first request there is
nothing it would have to say."""


def given_up(call: Call, said: dict[str, Any] | None = None) -> MlldError:
    """Say that this side gave a call up; what the engine said about it is the cause."""
    error: MlldError
    if call._given_up == "timeout":
        waited = call.deadline - call._submitted
        error = CallTimeout(f"{call.method} had no answer within {waited:g} s", hint="raise the timeout of the call")
    else:
        error = CallCancelled(f"{call.method} was cancelled")
    if said is not None:
        error.__cause__ = _script_error(said, None)
    return error


def reported(said: dict[str, Any], call: Call, *, trusted: bool) -> MlldError:
    """Say what the engine reported, under the code it means.

    A live engine says RUNTIME_ERROR for its own aborts, and ABORTED or TIMEOUT for any error with such a word in it.

    Args:
        said: The error on the wire.
        call: The request.
        trusted: The engine's codes can be believed (the extended protocol).
    """
    code, message = said.get("code"), str(said.get("message", ""))
    aborted = message == _ABORTED or (trusted and code == "ABORTED")
    if (aborted and call._has_engine_timeout) or (trusted and code == "TIMEOUT"):
        error: MlldError = CallTimeout(f"{call.method} ran into the engine's own time limit")
    elif aborted:
        error = EngineAborted(f"the engine gave {call.method} up", hint="somebody else ended it; look at its exit")
    else:
        return _script_error(said, "RUNTIME_ERROR" if code in ("ABORTED", "TIMEOUT") else None)
    error.__cause__ = _script_error(said, None)
    return error


def _script_error(said: dict[str, Any], code: str | None) -> ScriptError:
    def text(key: str) -> str | None:
        value = said.get(key)
        return None if value is None else str(value)

    return ScriptError(
        text("message") or "the engine gave no reason",
        code=code or text("code"),
        name=text("name"),
        file_path=text("filePath"),
        stack=text("stack"),
        engine_code=text("code"),
    )


def not_active(target: Call) -> MlldError:
    """Say that a control request came too late, in the engine's own words."""
    return ScriptError(f"{target.method} has ended", code="REQUEST_NOT_FOUND")


def ended(
    label: str,
    why: str,
    *,
    how: EngineExit | None,
    fatal: str | None,
    heard: bool,
    lived: float,
    stderr_tail: str,
    method: str | None,
) -> MlldError:
    """Say that an engine is gone.

    Args:
        label: Its name.
        why: Who ended it: `closed`, `killed`, `cancelled`, `timeout`, `died`.
        how: Its exit, if it is known.
        fatal: What it did that made this side kill it.
        heard: Whether it ever said something in the protocol.
        lived: Seconds from its start to its end.
        stderr_tail: Its last words.
        method: The request that was in flight, or `None` if one is refused now.
    """
    during = f" during {method}" if method else ""
    during_and = f"{during} and" if method else ""
    if fatal is not None:
        return EngineBabbling(f"{label} wrote {fatal}", hint="move bulk data through files, or raise the limit")
    if why in ("closed", "killed"):
        return EngineClosed(f"{label} was {why}{during}", hint="start another engine")
    if why in ("cancelled", "timeout"):
        other = "a cancelled" if why == "cancelled" else "an expired"
        return EngineClosed(f"{label} was ended because of {other} call", hint="start another engine")
    exit_text = str(how) if how else "is ending"
    last = stderr_tail.strip().rsplit("\n", 1)[-1][:_WORDS]
    hint = "raise its memory limit, or run fewer at once" if how and how.out_of_memory else None
    words = f": {last}" if last else ""
    if not heard and lived < START:
        return EngineDiedAtStart(
            f"{label} {exit_text}, {lived:.1f} s after its start,{during_and} before it said anything{words}",
            how=how,
            stderr_tail=stderr_tail,
            hint=hint or "run the command by hand; is this program an engine?",
        )
    silent = "" if heard else f", {lived:.1f} s after its start, with no answer given yet"
    return EngineDied(
        f"{label} {exit_text}{during}{silent}{words}",
        how=how,
        stderr_tail=stderr_tail,
        hint=hint or "restart it; whether the script's effects happened is not known",
    )
