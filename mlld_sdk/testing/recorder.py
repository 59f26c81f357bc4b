"""Every event of a runtime, kept for a test that waits for one after the other."""

import threading
from typing import Any, TypeVar

from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.testing.waiting import PATIENCE

E = TypeVar("E", bound=Event)


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
        deadline = Deadline(within)
        at = self._seen
        with self._news:
            while True:
                while at < len(self._events):
                    event = self._events[at]
                    at += 1
                    if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items()):
                        self._seen = at
                        return event
                left = deadline.left
                if left <= 0:
                    since = ", ".join(name_of(event) for event in self._events[self._seen :][-20:]) or "nothing"
                    asked = f"{kind.__name__} {fields}" if fields else kind.__name__
                    before = any(isinstance(event, kind) for event in self._events[: self._seen])
                    passed = "; one came before the event that was asked for last" if before else ""
                    raise AssertionError(f"no {asked} within {within:g} s; there was: {since}{passed}")
                self._news.wait(left)
