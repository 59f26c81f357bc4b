"""Waiting in tests without guessing how long: for a condition, or for one event of a runtime after the other."""

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from mlld_sdk.base.durations import Deadline, pause
from mlld_sdk.base.events import Event, name_of

E = TypeVar("E", bound=Event)
T = TypeVar("T")

PATIENCE: Final = 10.0
"""Seconds that waiting in tests lasts unless something else is said."""


def eventually(check: Callable[[], T], within: float = PATIENCE) -> T:
    """Return the first true value of `check`, asked every few milliseconds.

    Raises:
        AssertionError: It was not true within that many seconds.
    """
    deadline = Deadline(within)
    while True:
        value = check()
        if value:
            return value
        assert not deadline.is_over, f"not so within {within:g} s"
        pause(0.005)


class Recorder:
    """Keeps every event, and lets a test wait for one. Attach it with `bus.attach_inline("recorder", recorder)`."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._seen = 0
        self._news = threading.Condition()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        with self._news:
            self._events.append(event)
            self._news.notify_all()

    @property
    def all(self) -> list[Event]:
        """Everything so far."""
        with self._news:
            return list(self._events)

    def of(self, *kinds: type[E]) -> list[E]:
        """List the events of these classes so far."""
        return [event for event in self.all if isinstance(event, kinds)]

    def names(self) -> list[str]:
        """List the names of the events so far."""
        return [name_of(event) for event in self.all]

    def next(self, kind: type[E], *, within: float = PATIENCE, **fields: Any) -> E:
        """Return the next event of a class whose fields are as given, waiting for it if need be.

        Each call goes on behind the event the last one returned, so a story can be followed step by step.

        Args:
            kind: Class of the event.
            within: Seconds to wait.
            **fields: Values that fields must have.

        Raises:
            AssertionError: There was none in that time; says what there was instead.
        """
        deadline, at = Deadline(within), self._seen
        with self._news:
            while self._news.wait_for(lambda: at < len(self._events), deadline.left):  # noqa: B023 - asked at once
                event = self._events[at]
                at += 1
                if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items()):
                    self._seen = at
                    return event
            since = ", ".join(name_of(event) for event in self._events[self._seen :][-20:]) or "nothing"
            asked = f"{kind.__name__} {fields}" if fields else kind.__name__
            before = any(isinstance(event, kind) for event in self._events[: self._seen])
            passed = "; one came before the event that was asked for last" if before else ""
            raise AssertionError(f"no {asked} within {within:g} s; there was: {since}{passed}")
