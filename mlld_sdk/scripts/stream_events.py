"""What a reader of `handle.events()` sees: one struct for each thing that can happen in a run.

They are frozen, keyword-only and tagged (`event.kind`), so they can be matched, compared and written as JSON as they
are. `seq` counts from 1 within a run and never repeats; a gap is announced by `EventsDropped`.
"""

from typing import Any

import msgspec

from mlld_sdk.scripts.types import GuardDenial, SessionWrite, StateWrite, TraceEvent, Unanswered


class ScriptEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """One thing that happened in a run.

    Attributes:
        seq: Its number in the run.
    """

    seq: int = 0

    @property
    def kind(self) -> str:
        """Name of the kind of event, such as `llm.token`."""
        return str(self.__struct_config__.tag)


class ScriptStarted(ScriptEvent, frozen=True, kw_only=True, tag="run.started"):
    """The run was submitted; it has no id yet if it waits for an engine."""

    method: str
    request_id: int | None = None


class LlmEvent(ScriptEvent, frozen=True, kw_only=True):
    """Something a model call streamed.

    Attributes:
        stream: Tells parallel model calls of one run apart; `""` when the engine does not say which call it was.
    """

    stream: str = ""


class LlmToken(LlmEvent, frozen=True, kw_only=True, tag="llm.token"):
    """A piece of the answer."""

    text: str


class LlmThinking(LlmEvent, frozen=True, kw_only=True, tag="llm.thinking"):
    """A piece of what the model thinks aloud."""

    text: str


class LlmToolUse(LlmEvent, frozen=True, kw_only=True, tag="llm.tool_use"):
    """The model calls a tool, with its whole input (as text if it is no JSON)."""

    tool_use_id: str
    name: str
    input: Any = None


class LlmToolResult(LlmEvent, frozen=True, kw_only=True, tag="llm.tool_result"):
    """What a tool answered."""

    tool_use_id: str
    content: Any = None
    is_error: bool = False


class LlmUsage(LlmEvent, frozen=True, kw_only=True, tag="llm.usage"):
    """Tokens spent so far; `final` when the call is over and these are its totals."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cost_usd: float | None = None
    model: str | None = None
    final: bool = False


class LlmError(LlmEvent, frozen=True, kw_only=True, tag="llm.error"):
    """The model call reported an error in its stream."""

    message: str
    code: str | None = None


class CommandOutput(LlmEvent, frozen=True, kw_only=True, tag="command.output"):
    """A command of the script wrote something that is no model stream."""

    text: str
    source: str = "stdout"


class StageChanged(LlmEvent, frozen=True, kw_only=True, tag="stage.changed"):
    """A pipeline or one of its stages started, succeeded, failed or was aborted.

    Attributes:
        what: The engine's word for it: `PIPELINE_START`, `STAGE_SUCCESS`, `command:start` and so on.
        stage: Number of the stage, if it is about one.
        detail: What else the engine said.
    """

    what: str
    stage: int | None = None
    detail: dict[str, Any] = {}


class OutputWritten(ScriptEvent, frozen=True, kw_only=True, tag="output.written"):
    """The script produced output.

    Attributes:
        text: The text.
        channel: `both`, `doc`, `stdout`, `stderr` (logs) or `file`.
        path: The file, for `file`.
    """

    text: str
    channel: str
    path: str | None = None


class StateWritten(ScriptEvent, frozen=True, kw_only=True, tag="state.written"):
    """The script wrote to `state://`."""

    write: StateWrite


class SessionWritten(ScriptEvent, frozen=True, kw_only=True, tag="session.written"):
    """The script wrote to a session slot."""

    write: SessionWrite


class GuardDenied(ScriptEvent, frozen=True, kw_only=True, tag="guard.denied"):
    """A guard or policy refused an operation."""

    denial: GuardDenial


class TraceRecorded(ScriptEvent, frozen=True, kw_only=True, tag="trace.recorded"):
    """The runtime trace has a new record."""

    trace: TraceEvent


class CheckpointHit(ScriptEvent, frozen=True, kw_only=True, tag="checkpoint.hit"):
    """A stored answer was served; the function did not run."""

    function: str
    key: str = ""
    preview: str = ""


class CheckpointMissed(ScriptEvent, frozen=True, kw_only=True, tag="checkpoint.missed"):
    """There was no stored answer to serve; the function runs."""

    function: str
    key: str = ""
    preview: str = ""


class ModelUnanswered(ScriptEvent, frozen=True, kw_only=True, tag="model.unanswered"):
    """A call of an `llm` function gave no answer: a command in it failed, or it came to nothing."""

    call: Unanswered


class OtherEvent(ScriptEvent, frozen=True, kw_only=True, tag="other"):
    """Something this version of the library has no word for, as the engine said it."""

    type: str
    data: dict[str, Any] = {}


class EventsDropped(ScriptEvent, frozen=True, kw_only=True, tag="events.dropped"):
    """The reader, or the whole client, was too slow: this many events before the next one are gone."""

    count: int


class ScriptCompleted(ScriptEvent, frozen=True, kw_only=True, tag="run.completed"):
    """The run is over and has a result. Always the last event, as are the next two."""


class ScriptFailed(ScriptEvent, frozen=True, kw_only=True, tag="run.failed"):
    """The run is over and failed.

    Attributes:
        code: Stable name of the failure.
        message: What happened.
        infrastructure: True if what runs the script failed rather than the script.
    """

    code: str
    message: str
    infrastructure: bool


class ScriptCancelled(ScriptEvent, frozen=True, kw_only=True, tag="run.cancelled"):
    """The run was cancelled."""


LAST_EVENTS = (ScriptCompleted, ScriptFailed, ScriptCancelled)
"""The kinds of event that end a run."""
