"""Where a value came from: the labels, taint and sources that travel with values and stand in effects."""

from typing import NamedTuple


class Origin(NamedTuple):
    """What is known about a value's past.

    Attributes:
        labels: Names a script or a host gave it, such as `llm` or `secret`.
        taint: The labels and, besides, what it passed through, such as `src:sh`.
        sources: The operations it came from.
    """

    labels: tuple[str, ...] = ()
    taint: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.taint or self.sources)

    def plain(self) -> dict[str, list[str]]:
        """Write it as it stands in messages."""
        return {"labels": list(self.labels), "taint": list(self.taint), "sources": list(self.sources)}


UNKNOWN = Origin()


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    if not second or first == second:
        return first
    if not first:
        return second
    return (*first, *(name for name in second if name not in first))


def merge(*origins: Origin) -> Origin:
    """Unite what is known about several values, in order of first mention."""
    merged = UNKNOWN
    for origin in origins:
        if origin is not merged and origin:
            merged = Origin(
                _union(merged.labels, origin.labels),
                _union(merged.taint, origin.taint),
                _union(merged.sources, origin.sources),
            )
    return merged
