"""One at a time, first come first served: how threads of one engine take turns as JavaScript callbacks would.

The real engine runs everything on one thread and switches only where something waits. Scripts here run on threads, but
hold a `Turn` while they compute and hand it on while they wait for a child or a timer, so that the order of events,
checkpoint rows and counters is the same.
"""

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """A fair lock: whoever waits longest goes next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self) -> None:
        """Wait until it is our turn."""
        with self._lock:
            if not self._held:
                self._held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()

    def hand_on(self) -> None:
        """Let the next one go."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def yield_(self) -> None:
        """Let everybody who waits go first."""
        if self._waiting:
            self.hand_on()
            self.take()

    def pause(self) -> "ReleasedLock":
        """Hand the turn on for as long as a `with` block waits for something."""
        return ReleasedLock(self)


class ReleasedLock:
    """The waiting part of a script."""

    def __init__(self, turn: FairLock) -> None:
        self._turn = turn

    def __enter__(self) -> None:
        self._turn.hand_on()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn.take()
