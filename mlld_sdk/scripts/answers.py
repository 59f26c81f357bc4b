"""From an engine's reply to what a call returns, and what is said when the engine cut something out of it."""

import warnings
from collections.abc import Sequence
from typing import Any

import msgspec

from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.scripts import results
from mlld_sdk.scripts.stream import EventHistory
from mlld_sdk.scripts.types import ExecuteResult, Unanswered
from mlld_sdk.transport.errors import AnswerUnreadable
from mlld_sdk.transport.truncation import find_cuts
from mlld_sdk.transport.wire import EngineReply

NEVER_CUT = 3900
"""Texts shorter than this cannot have been cut by the live engine."""


class TruncatedResult(InfrastructureError):
    """Strict mode: the script ran, and the live engine cut something out of its result. Use the bridge, or write files.

    Attributes:
        cuts: Where something is missing.
        result: What did arrive.
    """

    code = "TRUNCATED"

    def __init__(self, cuts: Sequence[str], result: Any) -> None:
        super().__init__(
            f"the engine cut something out of the result, at {', '.join(cuts[:3])}{' ...' if len(cuts) > 3 else ''}",
            hint='use engine="bridge", which cuts nothing, or let the script write the text to a file',
        )
        self.cuts: list[str] = list(cuts)
        self.result = result


class TruncationWarning(UserWarning):
    """The text `process` returns lacks its middle, because the live engine cut it out. `strict=True` raises instead."""


class UnansweredWarning(UserWarning):
    """A command failed inside an `llm` function, or the function came to nothing, and the script went on without."""


class _Text(msgspec.Struct, gc=False):
    output: Any = msgspec.UNSET
    value: Any = msgspec.UNSET
    unanswered: Any = None


def output_of(reply: EngineReply, *, may_be_cut: bool, strict: bool) -> str:
    """Return the output of a run and nothing else, which need not decode the rest.

    An `UnansweredWarning` tells of calls of `llm` functions that gave no answer.

    Raises:
        TruncatedResult: It was cut, and `strict`. Otherwise a `TruncationWarning` says so.
    """
    try:
        text = reply.decode(_Text)
        output = text.value if text.output is msgspec.UNSET else text.output
        if output is msgspec.UNSET:
            raise _without_output()
        if text.unanswered:
            warn_of_unanswered(results.read_all(Unanswered, text.unanswered))
    except msgspec.ValidationError:
        output = reply.payload
    if type(output) is not str:
        output = results.as_output(output)
    if may_be_cut and len(output) > NEVER_CUT and find_cuts(output, "output"):
        if strict:
            raise TruncatedResult(["output"], output)
        warn_of_cut()
    return output


def warn_of_unanswered(calls: Sequence[Unanswered]) -> None:
    """Warn of calls of `llm` functions that gave no answer."""
    for call in calls:
        ended = call.returncode is not None
        what = f"{call.command} ended with {call.returncode}" if ended else "it gave nothing"
        said = f": {call.said}" if call.said else ""
        warnings.warn(f"@{call.function} has no answer: {what}{said}", UnansweredWarning, stacklevel=4)


def warn_of_cut() -> None:
    """Warn that an output lacks its middle."""
    warnings.warn("the engine cut the middle out of the output", TruncationWarning, stacklevel=4)


def result_of(reply: EngineReply, history: EventHistory, *, may_be_cut: bool, strict: bool) -> ExecuteResult:
    """Return everything a run produced, completed from its events.

    Raises:
        TruncatedResult: Something was cut, and `strict`. Otherwise the result is marked.
    """
    payload = mapping(reply.payload, "the run")
    if payload.keys().isdisjoint(("output", "value")):
        raise _without_output()
    result = results.execute_result(payload, history.state_writes(), history.denials(), history.effects())
    result.events_dropped = history.dropped
    if may_be_cut:
        result.truncations = [cut.path for cut in find_cuts(_values_of(result, payload))]
        result.truncated = bool(result.truncations)
        if strict and result.truncated:
            raise TruncatedResult(result.truncations, result)
    return result


def sizes(reply: EngineReply) -> dict[str, int]:
    """Return how much a run gave; nothing, if the answer is none, which the reader of the answer is told."""
    try:
        payload = reply.payload
        return {
            "output_size": len(payload.get("output") or ""),
            "state_write_count": len(payload.get("stateWrites") or ()),
        }
    except Exception:  # noqa: BLE001 - an engine may answer anything, and a request that is over has to end
        return {}


def mapping(payload: Any, method: str) -> dict[str, Any]:
    """Refuse an answer that is no object where only an object can be one."""
    if not isinstance(payload, dict):
        raise wrong_answer(method, payload)
    return payload


def wrong_answer(method: str, payload: Any) -> InfrastructureError:
    """Make the error of an answer that is none to this method."""
    return InfrastructureError(
        f"the engine answered {method} with {type(payload).__name__}, which is no answer to that",
        code="TRANSPORT_ERROR",
    )


def _without_output() -> AnswerUnreadable:
    return AnswerUnreadable("the engine's answer to the run has no output", hint="is this program an mlld engine?")


def _values_of(result: ExecuteResult, payload: dict[str, Any]) -> dict[str, Any]:
    """Gather what a script's author would miss if it were cut, after the events have filled what they could."""
    values: dict[str, Any] = {
        "output": result.output,
        "exports": result.exports,
        "stateWrites": [{"value": write.value} for write in result.state_writes],
        "effects": [{"content": effect.content} for effect in result.effects],
        "denials": payload.get("denials", []),
        "streaming": payload.get("streaming"),
    }
    for name, kept in (("stateWrites", len(result.state_writes)), ("effects", len(result.effects))):
        sent = payload.get(name)
        if isinstance(sent, list) and len(sent) > kept:
            values[name] = sent
    return values
