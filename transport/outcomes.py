"""Which error a call ends with: pure decisions, from what is known about the engine and the call."""

from typing import Any

from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.secrets import redacted
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.errors import (
    CallCancelled,
    CallTimeout,
    CommandFailed,
    EngineAborted,
    EngineBabbling,
    EngineClosed,
    EngineDied,
    EngineDiedAtStart,
    ForkedProcess,
    ScriptError,
)

_ABORTED = "StreamExecution aborted"
_WORDS = 200

START = 2.0
"""Seconds after which an engine that has said nothing counts as started: before it answers its first request there is
nothing it would have to say."""


def given_up(call: Call, said: dict[str, Any] | None = None) -> MlldError:
    """Make the error of a call this side has given up; what the engine said about it is the cause."""
    error: MlldError
    if call.given_up == "timeout":
        waited = call.deadline - call.submitted
        error = CallTimeout(f"{call.method} had no answer within {waited:g} s", hint="raise the timeout of the call")
    else:
        error = CallCancelled(f"{call.method} was cancelled")
    if said is not None:
        error.__cause__ = _script_error(said, None)
    return error


def reported(said: dict[str, Any], call: Call, *, trusted: bool) -> MlldError:
    """Make the error the engine has reported, with the code it means.

    A live engine says RUNTIME_ERROR for its own aborts, and ABORTED or TIMEOUT for any error with such a word in it;
    one that speaks the extended protocol can be `trusted`.
    """
    code, message = said.get("code"), str(said.get("message", ""))
    aborted = message == _ABORTED or (trusted and code == "ABORTED")
    if (aborted and call.has_engine_timeout) or (trusted and code == "TIMEOUT"):
        error: MlldError = CallTimeout(f"{call.method} ran into the engine's own time limit")
    elif aborted:
        error = EngineAborted(
            f"the engine gave {call.method} up", hint="it does so when another program signals it; look at its exit"
        )
    else:
        return _script_error(said, "RUNTIME_ERROR" if code in ("ABORTED", "TIMEOUT") else None)
    error.__cause__ = _script_error(said, None)
    return error


def _script_error(said: dict[str, Any], code: str | None) -> ScriptError:
    def text(key: str) -> str | None:
        value = said.get(key)
        return None if value is None else redacted(str(value))

    unanswered = said.get("unanswered")
    if said.get("code") == CommandFailed.code and isinstance(unanswered, dict):
        return CommandFailed(text("message") or "a command failed", file_path=text("filePath"), unanswered=unanswered)
    return ScriptError(
        text("message") or "the engine gave no reason",
        code=code or text("code"),
        name=text("name"),
        file_path=text("filePath"),
        stack=text("stack"),
        engine_code=text("code"),
    )


def not_active(target: Call) -> MlldError:
    """Make the error of a control request that came too late, in the engine's own words."""
    return ScriptError(f"{target.method} has ended", code="REQUEST_NOT_FOUND")


def ended(core: EngineCore, call: Call) -> MlldError:
    """Make the error of a call that was in flight when its engine ended."""
    if call.given_up is not None:
        return given_up(call)
    return refusal(core, call) if core.because is None else core.because()


def refusal(core: EngineCore, call: Call | None = None) -> MlldError:
    """Make the error that tells of the engine's end to a call that was in flight, or is refused now (`None`)."""
    label, why, how = core.label, core.ending or "closed", core.exit
    during = f" during {call.method}" if call else ""
    if why == "forked":
        return ForkedProcess(f"{label} belongs to the process this one was forked from", hint="start an engine here")
    if core.fatal is not None:
        return EngineBabbling(f"{label} wrote {core.fatal}", hint="move bulk data through files, or raise the limit")
    if why in ("closed", "killed"):
        return EngineClosed(f"{label} was {why}{during}", hint="start another engine")
    if why in ("cancelled", "timeout"):
        other = "a cancelled" if why == "cancelled" else "an expired"
        return EngineClosed(f"{label} was ended because of {other} call", hint="start another engine")
    exit_text = str(how) if how else "is ending"
    last = core.stderr.text.strip().rsplit("\n", 1)[-1][:_WORDS]
    words = f": {last}" if last else ""
    lived = f"{core.lived:.1f} s after its start"
    hint = "raise its memory limit, or run fewer at once" if how and how.out_of_memory else None
    if not core.heard and core.lived < START:
        return EngineDiedAtStart(
            f"{label} {exit_text}, {lived},{f'{during} and' if during else ''} before it said anything{words}",
            how=how,
            stderr_tail=core.stderr.text,
            hint=hint or "run the command by hand; is this program an engine?",
        )
    silent = "" if core.heard else f", {lived}, with no answer given yet"
    return EngineDied(
        f"{label} {exit_text}{during}{silent}{words}",
        how=how,
        stderr_tail=core.stderr.text,
        hint=hint or "restart it; whether the script's effects happened is not known",
    )
