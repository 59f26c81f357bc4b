"""Security labels on payload fields: attach them to values, and take payload and labels apart for the wire."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlld_sdk.scripts.types import LabeledValue

DEEPEST = 32
"""How deep labels are looked for; the engine takes values of ten levels."""


def labeled(value: Any, *labels: str) -> LabeledValue:
    """Attach labels to a payload field.

    >>> labeled("text", "pii", " pii ", "untrusted")
    LabeledValue(value='text', labels=('pii', 'untrusted'))
    """
    return LabeledValue(value=value, labels=tuple(clean_labels(labels)))


def trusted(value: Any) -> LabeledValue:
    """Label a payload field `trusted`."""
    return labeled(value, "trusted")


def untrusted(value: Any) -> LabeledValue:
    """Label a payload field `untrusted`."""
    return labeled(value, "untrusted")


def clean_labels(labels: str | Iterable[str] | None) -> list[str]:
    """Trim labels, drop blank and repeated ones, keep their order; `TypeError` for one that is not a string."""
    if labels is None:
        return []
    cleaned: dict[str, None] = {}
    for label in [labels] if isinstance(labels, str) else labels:
        if not isinstance(label, str):
            raise TypeError(f"payload labels must be strings, got {label!r}")
        if label.strip():
            cleaned[label.strip()] = None
    return list(cleaned)


def split_labels(
    payload: Any, payload_labels: Mapping[str, Iterable[str]] | None = None
) -> tuple[Any, dict[str, list[str]] | None]:
    """Take a payload apart into plain values and the labels of its fields, inline labels first.

    The engine labels whole top-level fields only, so a labelled value anywhere deeper is refused rather than sent
    without its labels.

    Raises:
        ValueError: Labels without a dict payload, labels for a field the payload lacks, or a label deeper than the
            top level.
    """
    if isinstance(payload, LabeledValue):
        raise ValueError("only fields of a payload dict can be labeled; wrap the value: {'name': labeled(...)}")  # noqa: TRY004 - upstream's type
    if not isinstance(payload, dict):
        if payload_labels is not None:
            raise ValueError("payload_labels requires payload to be a dict")
        refuse_labels(payload, "payload")
        return payload, None

    plain: dict[str, Any] = {}
    merged: dict[str, list[str]] = {}
    for name, value in payload.items():
        inline = value.labels if isinstance(value, LabeledValue) else ()
        plain[name] = value.value if isinstance(value, LabeledValue) else value
        refuse_labels(plain[name], f"payload[{name!r}]")
        if cleaned := clean_labels(inline):
            merged[name] = cleaned
    for name, labels in (payload_labels or {}).items():
        if name not in plain:
            raise ValueError(f"payload_labels contains unknown field: {name}")
        if cleaned := clean_labels(labels):
            merged[name] = clean_labels([*merged.get(name, ()), *cleaned])
    return plain, merged or None


def refuse_labels(value: Any, where: str, depth: int = 0) -> None:
    """Raise `ValueError` for labeled values where the engine has no labels, so that none is sent without them."""
    if isinstance(value, LabeledValue):
        raise ValueError(f"{where} holds a labeled value, but only top-level payload fields can be labeled")  # noqa: TRY004 - one type for one rule
    if depth > DEEPEST:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            refuse_labels(item, f"{where}[{name!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            refuse_labels(item, f"{where}[{index}]", depth + 1)
