"""One at a time, first come first served: how threads of one engine take turns as JavaScript callbacks would.

The real engine runs everything on one thread and switches only where something waits. Scripts here run on threads, but
hold a `FairLock` while they compute and hand it on while they wait for a child or a timer, so that the order of events,
checkpoint rows and counters is the same.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class FairLock:
    """A lock that goes to the thread that has waited longest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self) -> None:
        """Wait until the lock is ours."""
        with self._lock:
            if not self._held:
                self._held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()

    def hand_on(self) -> None:
        """Pass the lock to the next thread, or release it."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def yield_(self) -> None:
        """Wait behind all threads that wait already."""
        if self._waiting:
            self.hand_on()
            self.take()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock in a `with` block."""
        self.take()
        try:
            yield
        finally:
            self.hand_on()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Hand the lock on for as long as a `with` block waits for something."""
        self.hand_on()
        try:
            yield
        finally:
            self.take()
