"""What the client gives back: results, analyses, signatures and the values inside them.

Names and fields are those of mlld's own Python SDK (2.0.5, and the 2.1.0 additions), so they are plain mutable
dataclasses. What this library adds stands behind upstream's fields and always has a default. Construct by keyword.
"""

from dataclasses import dataclass, field
from typing import Any

from mlld_sdk.base.secrets import redacted


@dataclass
class StateWrite:
    """One write of a script to `state://`.

    Attributes:
        path: Dotted path of the slot, without `state://`.
        value: The value as the engine sent it. A string stays a string, even if it looks like JSON.
        timestamp: When the engine says it happened (ISO text).
        security: Labels, taint and sources of the value.
        index: Number of the write within its run, when the engine numbers them.
    """

    path: str
    value: Any
    timestamp: str | None = None
    security: dict[str, Any] | None = None
    index: int | None = field(default=None, compare=False)


@dataclass
class SessionWrite:
    """One write to a slot of a session frame (engines from 2.1.0 on)."""

    frame_id: str
    session_name: str
    declaration_id: str
    slot_path: str
    operation: str
    origin_path: str | None = None
    prev: Any = None
    next: Any = None


@dataclass
class SessionFinalState:
    """What a session frame held when the run ended (engines from 2.1.0 on)."""

    frame_id: str
    declaration_id: str
    name: str
    final_state: dict[str, Any] = field(default_factory=dict)
    origin_path: str | None = None


@dataclass
class Metrics:
    """How long a run took inside the engine, in milliseconds.

    Attributes:
        total_ms: All of it.
        parse_ms: Reading and parsing the script.
        evaluate_ms: Running it.
        cache_hit: Whether the parsed script came from the engine's cache; `None` if the engine did not say.
        effect_count: Effects the engine counted, also when it sent fewer.
        state_write_count: State writes the engine counted, also when it sent fewer.
    """

    total_ms: float = 0
    parse_ms: float = 0
    evaluate_ms: float = 0
    cache_hit: bool | None = None
    effect_count: int | None = None
    state_write_count: int | None = None


@dataclass
class Effect:
    """One output of a run.

    Attributes:
        type: `both`, `doc`, `stdout`, `stderr` or `file`.
        content: The text.
        security: Labels, taint and sources of the text.
        path: The file, for effects of type `file`.
    """

    type: str
    content: str | None = None
    security: dict[str, Any] | None = None
    path: str | None = None


@dataclass
class GuardDenial:
    """A guard or policy refused an operation."""

    guard: str | None
    operation: str
    reason: str
    rule: str | None = None
    labels: list[str] = field(default_factory=list)
    args: dict[str, Any] | None = None


@dataclass
class Unanswered:
    """A call of an `llm` function that gave no answer; mlld takes what came of it for one, the cache does not.

    Attributes:
        function: The function, without `@`; empty where the engine does not say.
        command: The program that failed, without its arguments; empty if none did and there was simply no answer.
        returncode: Its exit status; negative: killed by that signal. `None` if no command failed.
        said: The last line it printed, to stderr or else to stdout, with secrets of its environment hidden.
    """

    function: str = ""
    command: str = ""
    returncode: int | None = None
    said: str = ""

    def __post_init__(self) -> None:
        self.said = redacted(self.said)


@dataclass
class TraceEvent:
    """One record of the engine's runtime trace (engines from 2.1.0 on)."""

    ts: str
    level: str
    category: str
    event: str
    scope: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


@dataclass
class Streaming:
    """The engine's own summary of one streamed model call.

    Attributes:
        text: The answer.
        thinking: What the model thought aloud.
        tool_calls: Tool calls as the engine reports them.
        usage: Token counts as the engine reports them.
        errors: Errors the stream carried.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    errors: list[Any] = field(default_factory=list)


@dataclass
class ExecuteResult:
    """Everything a run of a script produced; `execute()` returns it and `process_result()` does.

    Attributes:
        output: The text of the document.
        state_writes: Every write to `state://`, in the order they happened, repeated values included.
        exports: What the script exported (a dict of name to value record, or an empty list).
        effects: Every output, in order.
        denials: Every denial of a guard or policy.
        metrics: Timings; only `execute` has them.
        sessions: Final session frames (engines from 2.1.0 on).
        trace_events: The runtime trace, if one was asked for (engines from 2.1.0 on).
        streaming: Summary of a streamed model call, if the engine made one.
        truncated: Whether the engine cut something out of this result. Never true in strict mode, which raises.
        truncations: Where it was cut, as paths like `output` or `stateWrites[3].value`.
        unanswered: Calls of `llm` functions that gave no answer, the first hundred. Live engines do not tell.
        events_dropped: Events of the run that this client could not keep (its limit is `max_events`), so that
            `state_writes`, `effects` and `denials` may lack what the engine's own final lists lack too.
    """

    output: str
    state_writes: list[StateWrite] = field(default_factory=list)
    exports: Any = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    denials: list[GuardDenial] = field(default_factory=list)
    metrics: Metrics | None = None
    sessions: list[SessionFinalState] = field(default_factory=list)
    trace_events: list[TraceEvent] = field(default_factory=list)
    streaming: Streaming | None = None
    truncated: bool = False
    truncations: list[str] = field(default_factory=list)
    events_dropped: int = 0
    unanswered: list[Unanswered] = field(default_factory=list)


@dataclass
class Executable:
    """An executable that a module defines."""

    name: str
    params: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    language: str | None = None


@dataclass
class Import:
    """An import of a module: where from, what, and under which name."""

    from_: str
    names: list[str] = field(default_factory=list)
    alias: str | None = None
    type: str | None = None


@dataclass
class Guard:
    """A guard that a module defines.

    Attributes:
        name: Its name, `""` if it has none.
        timing: `before` or `after`.
        label: What it watches, under upstream's 2.0.5 name.
        trigger: The same, under upstream's 2.1.0 name.
    """

    name: str
    timing: str
    label: str | None = None
    trigger: str = ""


@dataclass
class Needs:
    """What a module says it needs from the machine."""

    cmd: list[str] = field(default_factory=list)
    node: list[str] = field(default_factory=list)
    py: list[str] = field(default_factory=list)
    other: dict[str, Any] = field(default_factory=dict)


@dataclass
class AnalysisError:
    """One problem of a module."""

    message: str
    line: int | None = None
    column: int | None = None
    code: str | None = None


@dataclass
class Variable:
    """A variable that a module defines."""

    name: str
    type: str = "unknown"
    exported: bool = False
    labels: list[str] = field(default_factory=list)


@dataclass
class AnalyzeResult:
    """What can be said about a module without running it."""

    filepath: str
    valid: bool
    errors: list[AnalysisError] = field(default_factory=list)
    executables: list[Executable] = field(default_factory=list)
    exports: list[str] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)
    needs: Needs | None = None
    warnings: list[AnalysisError] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)
    stats: dict[str, int] = field(default_factory=dict)
    frontmatter: dict[str, Any] | None = None
    truncated: bool = False


@dataclass
class FilesystemStatus:
    """Whether one file is signed, by whom, and whether it still is what was signed."""

    path: str
    relative_path: str
    status: str
    verified: bool
    signer: str | None = None
    labels: list[str] = field(default_factory=list)
    taint: list[str] = field(default_factory=list)
    signed_at: str | None = None
    error: str | None = None


@dataclass
class FileVerifyResult:
    """The answer of `sign`, `verify` and `write_file` about one file."""

    path: str
    relative_path: str
    status: str
    verified: bool
    signer: str | None = None
    signed_at: str | None = None
    hash: str | None = None
    expected_hash: str | None = None
    metadata: dict[str, Any] | None = None
    error: str | None = None


@dataclass
class ContentSignature:
    """The signature of a piece of content that is no file of the project."""

    id: str
    hash: str
    algorithm: str
    signed_by: str
    signed_at: str
    content_length: int
    metadata: dict[str, str] | None = None


@dataclass(frozen=True)
class LabeledValue:
    """A payload field together with its security labels; made by `labeled`, `trusted` and `untrusted`."""

    value: Any
    labels: tuple[str, ...]


@dataclass
class HandleEvent:
    """What `next_event()` returns.

    Attributes:
        type: `state_write`, `session_write`, `guard_denial`, `trace_event`, `dropped` or `complete`.
        state_write: Set for `state_write`.
        session_write: Set for `session_write`.
        guard_denial: Set for `guard_denial`.
        trace_event: Set for `trace_event`.
        dropped: How many events the reader was too slow for, for `dropped`.
    """

    type: str
    state_write: StateWrite | None = None
    guard_denial: GuardDenial | None = None
    session_write: SessionWrite | None = None
    trace_event: TraceEvent | None = None
    dropped: int = 0
