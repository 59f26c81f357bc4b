"""Counts of what got lost: late answers, messages without a receiver, events the sink refused."""

from itertools import count


class Counters:
    """Counts what got lost; thread-safe without a lock."""

    __slots__ = ("_dropped", "_late", "_sink_failures")

    def __init__(self) -> None:
        self._sink_failures = count()
        self._late = count()
        self._dropped = count()

    def late(self) -> None:
        """Count an answer that came after the caller had given up."""
        next(self._late)

    def dropped(self) -> None:
        """Count a message that will not be handled."""
        next(self._dropped)

    def sink_failed(self) -> None:
        """Count an event that the sink did not take."""
        next(self._sink_failures)

    @property
    def sink_failures(self) -> int:
        """Events the sink raised at."""
        return _value_of(self._sink_failures)

    @property
    def late_replies(self) -> int:
        """Answers that came after the caller had given up, or after another answer."""
        return _value_of(self._late)

    @property
    def dropped_messages(self) -> int:
        """Messages without an asker that were refused at the end of their actor, or dropped by a full mailbox."""
        return _value_of(self._dropped)


def _value_of(counter: "count[int]") -> int:
    # `next` on a count is atomic and needs no lock; its text is the only way to read without counting.
    return int(repr(counter)[6:-1])
