"""From what an engine answered to typed values, in every spelling that engines use.

Pure functions over decoded JSON. Two dialects are spoken: 2.0.5 writes `source`, `filter`, `location` where 2.1.0
writes `from`, `trigger`, `line` and `column`; both are read. `read` fills the dataclasses of `scripts.types` by the
types of their fields; what has the wrong shape is left out rather than guessed.
"""

import functools
import json
import types
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from mlld_sdk.scripts.types import (
    AnalysisError,
    AnalyzeResult,
    Effect,
    Executable,
    ExecuteResult,
    GuardDenial,
    Needs,
    SessionFinalState,
    SessionWrite,
    StateWrite,
    Variable,
)

T = TypeVar("T")

_SPELLINGS: Final = {
    "from_": ("from", "source"),
    "label": ("trigger", "filter", "label"),
    "trigger": ("trigger", "filter", "label"),
}
"""What fields are called on the wire that go by another name than their own, in camel case or as it is."""

_REQUIRED: Final[dict[type, tuple[str, ...]]] = {
    StateWrite: ("path",),
    SessionWrite: ("frame_id", "session_name", "declaration_id", "slot_path", "operation"),
    SessionFinalState: ("frame_id", "declaration_id", "name"),
    GuardDenial: ("operation", "reason"),
}
"""Texts without which an object is no such thing."""


def read(kind: type[T], payload: Any) -> T | None:
    """Make a value of this kind from what the engine sent; `None` if that is no such thing."""
    if not isinstance(payload, dict):
        return None
    value = read_object(kind, payload)
    for name in _REQUIRED.get(kind, ()):
        if not getattr(value, name):
            return None
    return value


def read_object(kind: type[T], payload: dict[str, Any], **given: Any) -> T:
    """Make a value of this kind from an object; `given` has the fields that are not read from it."""
    for name, spellings, fits, read_value, otherwise in _fields_of(kind):  # type: ignore[arg-type] # classes can be hashed
        if name in given:
            continue
        value = None
        for spelling in spellings:
            if (sent := payload.get(spelling)) is not None:
                value = read_value(sent) if read_value is not None else sent if type(sent) in fits else None
                break
        if value is None:
            value = otherwise
        if value is not MISSING:
            given[name] = value
    return kind(**given)


def read_all(kind: type[T], items: Any) -> list[T]:
    """Make values of this kind from a list, without what is no such thing."""
    if not items or not isinstance(items, list):
        return []
    return [value for item in items if (value := read(kind, item)) is not None]


_PLAIN: Final[dict[Any, tuple[tuple[type, ...], Any]]] = {
    Any: ((str, int, float, bool, list, dict), None),
    str: ((str,), ""),
    bool: ((bool,), False),
    int: ((int,), 0),
    float: ((int, float), 0),
    dict: ((dict,), {}),
}
"""Of types whose values are taken as they are: what fits on the wire, and what stands for nothing sent."""

_Field = tuple[str, tuple[str, ...], tuple[type, ...], Callable[[Any], Any] | None, Any]


@functools.cache
def _fields_of(kind: Hashable) -> list[_Field]:
    """List of each field its name, its names on the wire, what fits or what reads it, and what stands for nothing."""
    hints, found = get_type_hints(kind), []
    for field in fields(kind):  # type: ignore[arg-type]
        first, *more = field.name.split("_")
        names = _SPELLINGS.get(field.name, (first + "".join(map(str.title, more)), field.name))
        hint = hints[field.name]
        optional = isinstance(hint, types.UnionType)
        hint = get_args(hint)[0] if optional else hint
        fits, empty = _PLAIN.get(get_origin(hint) or hint, ((), None))
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        otherwise = MISSING if has_default else None if optional else empty
        found.append((field.name, names, fits, _reader(hint), otherwise))
    return found


def _reader(hint: Any) -> Callable[[Any], Any] | None:
    """Return what reads a value of this type, or `None` if it is taken as it is."""
    origin, inside = get_origin(hint) or hint, get_args(hint)
    if hasattr(origin, "__dataclass_fields__"):
        return functools.partial(read, hint)
    if origin is list:
        item: Any = inside[0]
        if hasattr(item, "__dataclass_fields__"):
            return functools.partial(read_all, item)
        item = object if item is Any else get_origin(item) or item
        return lambda sent: [one for one in _list(sent) if isinstance(one, item)]
    if origin is dict and inside[1] is str:
        return lambda sent: {k: v for k, v in sent.items() if isinstance(v, str)} if isinstance(sent, dict) else None
    return None


def execute_result(
    payload: dict[str, Any],
    streamed_writes: Sequence[StateWrite] = (),
    streamed_denials: Sequence[GuardDenial] = (),
    streamed_effects: Sequence[Effect] = (),
) -> ExecuteResult:
    """Read the result of a run and complete it with what was seen while it ran.

    The engine's final lists are cut at 200 entries and lack denials that no script handled; the events are not.
    """
    result = read_object(ExecuteResult, payload, output=output_text(payload), truncated=False, truncations=[])
    if streamed_writes:
        result.state_writes = merge_state_writes(result.state_writes, streamed_writes)
    if streamed_denials:
        result.denials = merge_denials(result.denials, streamed_denials)
    if len(result.effects) < len(streamed_effects):
        result.effects = list(streamed_effects)
    return result


def merge_state_writes(final: Sequence[StateWrite], streamed: Sequence[StateWrite]) -> list[StateWrite]:
    """Join the engine's final list with the writes seen as events, each write once and none lost.

    Writes that carry an index are one write if the index is the same; the event is taken, since the final list is cut
    one level higher. Without indices the same value written twice stays two writes: as many as the list that has more.
    """
    if all(write.index is not None for write in (*final, *streamed)):
        by_index = {write.index: write for write in (*final, *streamed)}
        return [by_index[index] for index in sorted(by_index, key=lambda index: index or 0)]
    return _merge(streamed, final, lambda write: f"{write.path}|{_canonical(decoded(write.value))}")


def merge_denials(final: Sequence[GuardDenial], streamed: Sequence[GuardDenial]) -> list[GuardDenial]:
    """Join final and streamed denials: the same denial twice in one list stays twice, once in each list is once."""
    return _merge(
        streamed,
        final,
        lambda one: _canonical([one.guard, one.operation, one.reason, one.rule, sorted(one.labels), one.args]),
    )


def _merge(first: Sequence[T], second: Sequence[T], key: Callable[[T], str]) -> list[T]:
    merged, unmatched = list(first), Counter(map(key, first))
    for item in second:
        if unmatched[key(item)] > 0:
            unmatched[key(item)] -= 1
        else:
            merged.append(item)
    return merged


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


def analyze_result(payload: dict[str, Any], filepath: str) -> AnalyzeResult:
    """Read an analysis; a variable without labels has those of the executable of its name."""
    variables = read_all(Variable, payload.get("variables"))
    labels = {executable.name: executable.labels for executable in read_all(Executable, payload.get("executables"))}
    for variable in variables:
        variable.labels = list(dict.fromkeys(variable.labels or labels.get(variable.name, [])))
    frontmatter = as_object(payload.get("frontmatter"))
    return read_object(
        AnalyzeResult,
        payload,
        filepath=str(payload.get("filepath", filepath)),
        valid=payload.get("valid", True) is True,
        errors=_problems(payload.get("errors")),
        warnings=_problems(payload.get("warnings")),
        needs=_needs(payload.get("needs") or frontmatter.get("needs")),
        variables=variables,
        stats={k: v for k, v in as_object(payload.get("stats")).items() if as_whole(v) is not None},
        truncated=False,
    )


def _needs(payload: Any) -> Needs | None:
    if isinstance(payload, list):  # the front matter's list form names commands
        return Needs(cmd=as_texts(payload))
    if not isinstance(payload, dict):
        return None
    packages = as_object(payload.get("packages"))
    named = {name: as_texts(payload.get(name, packages.get(name))) for name in ("cmd", "node", "py")}
    other = {name: value for name, value in payload.items() if name not in (*named, "packages")}
    return Needs(**named, other=other)


def _problems(items: Any) -> list[AnalysisError]:
    """Read errors or warnings; older engines put the place into `location`, or into its `start`."""
    found = []
    for item in as_objects(items):
        place = as_object(item.get("location"))
        found.append(read_object(AnalysisError, {**(as_object(place.get("start")) or place), **item}))
    return found


def output_text(payload: Any) -> str:
    """Read the text of a `process` result: its output, else its value, else nothing."""
    return as_output(payload.get("output", payload.get("value", "")) if isinstance(payload, dict) else payload)


def as_output(value: Any) -> str:
    """Write an output that is no text as JSON, and nothing as no text."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_texts(value: Any) -> list[str]:
    """Return the texts of a list."""
    return [item for item in _list(value) if isinstance(item, str)]


def as_text(value: Any) -> str | None:
    """Return the value if it is a text."""
    return value if isinstance(value, str) else None


def as_object(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    return [item for item in _list(value) if isinstance(item, dict)]


def as_whole(value: Any) -> int | None:
    """Return the value if it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
