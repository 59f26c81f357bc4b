"""Counts of what got lost: late answers, messages without a receiver, events the sink refused."""

from collections.abc import Callable
from itertools import count


class Counters:
    """Counts what got lost; thread-safe without a lock. Call `late`, `dropped` or `sink_failed` to count one more."""

    def __init__(self) -> None:
        self._late, self._dropped, self._sink_failures = count(), count(), count()
        self.late: Callable[[], int] = self._late.__next__
        self.dropped: Callable[[], int] = self._dropped.__next__
        self.sink_failed: Callable[[], int] = self._sink_failures.__next__

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
