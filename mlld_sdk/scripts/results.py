"""From what an engine answered to typed values, in every spelling that engines use.

Pure functions over decoded JSON. Two dialects are spoken: 2.0.5 writes `source`, `filter`, `location` where 2.1.0
writes `from`, `trigger`, `line` and `column`; both are read. What has the wrong shape is left out rather than guessed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from mlld_sdk.scripts.types import (
    AnalysisError,
    AnalyzeResult,
    ContentSignature,
    Effect,
    Executable,
    ExecuteResult,
    FilesystemStatus,
    FileVerifyResult,
    Guard,
    GuardDenial,
    Import,
    Metrics,
    Needs,
    SessionFinalState,
    SessionWrite,
    StateWrite,
    Streaming,
    TraceEvent,
    Variable,
)

T = TypeVar("T")


def state_write(payload: Any) -> StateWrite | None:
    """Read one state write; `None` if it is none."""
    match payload:
        case {"path": str(path)} if path:
            index = payload.get("index")
            return StateWrite(
                path=path,
                value=payload.get("value"),
                timestamp=as_text(payload.get("timestamp")),
                security=as_dict(payload.get("security")),
                index=index if isinstance(index, int) and not isinstance(index, bool) else None,
            )
    return None


def session_write(payload: Any) -> SessionWrite | None:
    """Read one session write; `None` if it is none."""
    if not isinstance(payload, dict):
        return None
    names = ("frame_id", "session_name", "declaration_id", "slot_path", "operation")
    texts = {name: text for name in names if (text := as_text(payload.get(name)))}
    if len(texts) < len(names):
        return None
    return SessionWrite(
        **texts, origin_path=as_text(payload.get("origin_path")), prev=payload.get("prev"), next=payload.get("next")
    )


def guard_denial(payload: Any) -> GuardDenial | None:
    """Read one denial; `None` if it is none."""
    match payload:
        case {"operation": str(operation), "reason": str(reason)} if operation and reason:
            return GuardDenial(
                guard=as_text(payload.get("guard")),
                operation=operation,
                reason=reason,
                rule=as_text(payload.get("rule")),
                labels=as_texts(payload.get("labels")),
                args=as_dict(payload.get("args")),
            )
    return None


def trace_event(payload: Any) -> TraceEvent | None:
    """Read one record of the runtime trace; `None` if it is none."""
    if not isinstance(payload, dict):
        return None
    return TraceEvent(
        ts=str(payload.get("ts", "")),
        level=str(payload.get("level", "")),
        category=str(payload.get("category", "")),
        event=str(payload.get("event", "")),
        scope=as_dict(payload.get("scope")) or {},
        data=as_dict(payload.get("data")) or {},
    )


def effect(payload: Any) -> Effect | None:
    """Read one effect; `None` if it is none (such as the marker of a cut list)."""
    if not isinstance(payload, dict):
        return None
    return Effect(
        type=str(payload.get("type", "")),
        content=as_text(payload.get("content")),
        security=as_dict(payload.get("security")),
        path=as_text(payload.get("path")),
    )


def execute_result(
    payload: dict[str, Any],
    streamed_writes: Sequence[StateWrite] = (),
    streamed_denials: Sequence[GuardDenial] = (),
    streamed_effects: Sequence[Effect] = (),
) -> ExecuteResult:
    """Read the result of a run and complete it with what was seen while it ran.

    The engine's final lists are cut at 200 entries and lack denials that no script handled; the events are not.
    """
    effects = _read_all(effect, payload.get("effects"))
    return ExecuteResult(
        output=output_text(payload),
        state_writes=merge_state_writes(_read_all(state_write, payload.get("stateWrites")), streamed_writes),
        exports=payload.get("exports", []),
        effects=effects if len(effects) >= len(streamed_effects) else list(streamed_effects),
        denials=merge_denials(_read_all(guard_denial, payload.get("denials")), streamed_denials),
        metrics=_metrics(payload.get("metrics")),
        sessions=_read_all(_session, payload.get("sessions")),
        trace_events=_read_all(trace_event, payload.get("traceEvents")),
        streaming=_streaming(payload.get("streaming")),
    )


def merge_state_writes(final: Sequence[StateWrite], streamed: Sequence[StateWrite]) -> list[StateWrite]:
    """Join the engine's final list with the writes seen as events, each write once and none lost.

    Writes that carry an index are one write if the index is the same; the event is taken, since the final list is cut
    one level higher. Without indices the same value written twice stays two writes: as many as the list that has more.
    """
    if all(write.index is not None for write in (*final, *streamed)):
        by_index = {write.index: write for write in (*final, *streamed)}
        return [by_index[index] for index in sorted(by_index, key=lambda index: index or 0)]
    return _merge(streamed, final, _write_key)


def merge_denials(final: Sequence[GuardDenial], streamed: Sequence[GuardDenial]) -> list[GuardDenial]:
    """Join final and streamed denials: the same denial twice in one list stays twice, once in each list is once."""
    return _merge(streamed, final, _denial_key)


def _merge(first: Sequence[T], second: Sequence[T], key: Any) -> list[T]:
    merged, unmatched = list(first), Counter(map(key, first))
    for item in second:
        if unmatched[key(item)] > 0:
            unmatched[key(item)] -= 1
        else:
            merged.append(item)
    return merged


def _write_key(write: StateWrite) -> str:
    return f"{write.path}|{_canonical(decoded(write.value))}"


def _denial_key(denial: GuardDenial) -> str:
    return _canonical([
        denial.guard, denial.operation, denial.reason, denial.rule, sorted(denial.labels), denial.args
    ])  # fmt: skip


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def decoded(value: Any) -> Any:
    """Read a string that holds a JSON object or list as that object or list; anything else stays what it is."""
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _metrics(payload: Any) -> Metrics | None:
    if not isinstance(payload, dict):
        return None
    hit = payload.get("cacheHit")
    return Metrics(
        total_ms=_number(payload.get("totalMs")) or 0,
        parse_ms=_number(payload.get("parseMs")) or 0,
        evaluate_ms=_number(payload.get("evaluateMs")) or 0,
        cache_hit=hit if isinstance(hit, bool) else None,
        effect_count=as_whole(payload.get("effectCount")),
        state_write_count=as_whole(payload.get("stateWriteCount")),
    )


def _session(payload: Any) -> SessionFinalState | None:
    match payload:
        case {"frameId": str(frame), "declarationId": str(declaration), "name": str(name)} if (
            frame and declaration and name
        ):
            return SessionFinalState(
                frame_id=frame,
                declaration_id=declaration,
                name=name,
                final_state=as_dict(payload.get("finalState")) or {},
                origin_path=as_text(payload.get("originPath")),
            )
    return None


def _streaming(payload: Any) -> Streaming | None:
    if not isinstance(payload, dict):
        return None
    return Streaming(
        text=as_text(payload.get("text")) or "",
        thinking=as_text(payload.get("thinking")) or "",
        tool_calls=[call for call in _list(payload.get("toolCalls")) if isinstance(call, dict)],
        usage=as_dict(payload.get("usage")) or {},
        errors=_list(payload.get("errors")),
    )


def analyze_result(payload: dict[str, Any], filepath: str) -> AnalyzeResult:
    """Read an analysis."""
    executables = _read_all(_executable, payload.get("executables"))
    labels = {executable.name: executable.labels for executable in executables}
    variables = _read_all(_variable, payload.get("variables"))
    for variable in variables:
        variable.labels = variable.labels or list(labels.get(variable.name, ()))
    return AnalyzeResult(
        filepath=str(payload.get("filepath", filepath)),
        valid=payload.get("valid", True) is True,
        errors=_read_all(_analysis_error, payload.get("errors")),
        executables=executables,
        exports=as_texts(payload.get("exports")),
        imports=_read_all(_import, payload.get("imports")),
        guards=_read_all(_guard, payload.get("guards")),
        needs=_needs(payload.get("needs") or _under(payload.get("frontmatter"), "needs")),
        warnings=_read_all(_analysis_error, payload.get("warnings")),
        variables=variables,
        stats={k: v for k, v in (as_dict(payload.get("stats")) or {}).items() if as_whole(v) is not None},
        frontmatter=as_dict(payload.get("frontmatter")),
    )


def _executable(payload: Any) -> Executable | None:
    if not isinstance(payload, dict):
        return None
    return Executable(
        name=as_text(payload.get("name")) or "",
        params=as_texts(payload.get("params")),
        labels=as_texts(payload.get("labels")),
        language=as_text(payload.get("language")),
    )


def _variable(payload: Any) -> Variable | None:
    if not isinstance(payload, dict):
        return None
    return Variable(
        name=as_text(payload.get("name")) or "",
        type=as_text(payload.get("type")) or "unknown",
        exported=payload.get("exported") is True,
        labels=list(dict.fromkeys(as_texts(payload.get("labels")))),
    )


def _import(payload: Any) -> Import | None:
    if not isinstance(payload, dict):
        return None
    return Import(
        from_=_first_text(payload, "from", "source") or "",
        names=as_texts(payload.get("names")),
        alias=as_text(payload.get("alias")),
        type=as_text(payload.get("type")),
    )


def _guard(payload: Any) -> Guard | None:
    if not isinstance(payload, dict):
        return None
    trigger = _first_text(payload, "trigger", "filter", "label")
    return Guard(
        name=as_text(payload.get("name")) or "",
        timing=as_text(payload.get("timing")) or "",
        label=trigger,
        trigger=trigger or "",
    )


def _needs(payload: Any) -> Needs | None:
    if isinstance(payload, list):  # the front matter's list form names commands
        return Needs(cmd=as_texts(payload))
    if not isinstance(payload, dict):
        return None
    packages = as_dict(payload.get("packages")) or {}
    named = {name: as_texts(payload.get(name, packages.get(name))) for name in ("cmd", "node", "py")}
    other = {name: value for name, value in payload.items() if name not in (*named, "packages")}
    return Needs(**named, other=other)


def _analysis_error(payload: Any) -> AnalysisError | None:
    if not isinstance(payload, dict):
        return None
    place = as_dict(payload.get("location")) or {}
    place = as_dict(place.get("start")) or place
    return AnalysisError(
        message=str(payload.get("message", "")),
        line=as_whole(payload.get("line", place.get("line"))),
        column=as_whole(payload.get("column", place.get("column"))),
        code=as_text(payload.get("code")),
    )


def file_verify_result(payload: dict[str, Any]) -> FileVerifyResult:
    """Read what was said about one file's signature."""
    return FileVerifyResult(
        path=str(payload.get("path", "")),
        relative_path=_first_text(payload, "relativePath", "relative_path") or "",
        status=str(payload.get("status", "")),
        verified=payload.get("verified") is True,
        signer=as_text(payload.get("signer")),
        signed_at=_first_text(payload, "signedAt", "signed_at"),
        hash=as_text(payload.get("hash")),
        expected_hash=_first_text(payload, "expectedHash", "expected_hash"),
        metadata=as_dict(payload.get("metadata")),
        error=as_text(payload.get("error")),
    )


def filesystem_status(payload: dict[str, Any]) -> FilesystemStatus:
    """Read one entry of `fs_status`."""
    return FilesystemStatus(
        path=str(payload.get("path", "")),
        relative_path=_first_text(payload, "relativePath", "relative_path") or "",
        status=str(payload.get("status", "")),
        verified=payload.get("verified") is True,
        signer=as_text(payload.get("signer")),
        labels=as_texts(payload.get("labels")),
        taint=as_texts(payload.get("taint")),
        signed_at=_first_text(payload, "signedAt", "signed_at"),
        error=as_text(payload.get("error")),
    )


def content_signature(payload: dict[str, Any]) -> ContentSignature:
    """Read the signature of a piece of content."""
    metadata = as_dict(payload.get("metadata"))
    return ContentSignature(
        id=str(payload.get("id", "")),
        hash=str(payload.get("hash", "")),
        algorithm=str(payload.get("algorithm", "")),
        signed_by=_first_text(payload, "signedBy", "signed_by") or "",
        signed_at=_first_text(payload, "signedAt", "signed_at") or "",
        content_length=as_whole(payload.get("contentLength", payload.get("content_length"))) or 0,
        metadata=None if metadata is None else {k: v for k, v in metadata.items() if isinstance(v, str)},
    )


def _first_text(payload: dict[str, Any], *names: str) -> str | None:
    return next((payload[name] for name in names if isinstance(payload.get(name), str)), None)


def _under(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def output_text(payload: Any) -> str:
    """Read the text of a `process` result: its output, else its value, else nothing."""
    return as_output(payload.get("output", payload.get("value", "")) if isinstance(payload, dict) else payload)


def as_output(value: Any) -> str:
    """Write an output that is no text as JSON, and nothing as no text."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _read_all(read: Any, items: Any) -> list[Any]:
    return [value for item in _list(items) if (value := read(item)) is not None]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_texts(value: Any) -> list[str]:
    """Return the texts of a list."""
    return [item for item in _list(value) if isinstance(item, str)]


def as_text(value: Any) -> str | None:
    """Return the value if it is a text."""
    return value if isinstance(value, str) else None


def as_dict(value: Any) -> dict[str, Any] | None:
    """Return the value if it is an object."""
    return value if isinstance(value, dict) else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_whole(value: Any) -> int | None:
    """Return the value if it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
