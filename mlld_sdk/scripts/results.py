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
    Effect,
    ExecuteResult,
    GuardDenial,
    Metrics,
    SessionFinalState,
    SessionWrite,
    StateWrite,
    Streaming,
    TraceEvent,
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
    effects = read_all(effect, payload.get("effects"))
    return ExecuteResult(
        output=output_text(payload),
        state_writes=merge_state_writes(read_all(state_write, payload.get("stateWrites")), streamed_writes),
        exports=payload.get("exports", []),
        effects=effects if len(effects) >= len(streamed_effects) else list(streamed_effects),
        denials=merge_denials(read_all(guard_denial, payload.get("denials")), streamed_denials),
        metrics=_metrics(payload.get("metrics")),
        sessions=read_all(_session, payload.get("sessions")),
        trace_events=read_all(trace_event, payload.get("traceEvents")),
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


def output_text(payload: Any) -> str:
    """Read the text of a `process` result: its output, else its value, else nothing."""
    return as_output(payload.get("output", payload.get("value", "")) if isinstance(payload, dict) else payload)


def as_output(value: Any) -> str:
    """Write an output that is no text as JSON, and nothing as no text."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def read_all(read: Any, items: Any) -> list[Any]:
    """Read each item of a list and leave out what cannot be read."""
    return [value for item in _list(items) if (value := read(item)) is not None]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_texts(value: Any) -> list[str]:
    """Keep the texts of a list."""
    return [item for item in _list(value) if isinstance(item, str)]


def as_text(value: Any) -> str | None:
    """Keep a text, and nothing else."""
    return value if isinstance(value, str) else None


def as_dict(value: Any) -> dict[str, Any] | None:
    """Keep an object, and nothing else."""
    return value if isinstance(value, dict) else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_whole(value: Any) -> int | None:
    """Keep a whole number, and nothing else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
