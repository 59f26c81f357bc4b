"""Timers: one thread and one heap for all actors of a system.

Cancelling marks the timer and leaves it in the heap, which is O(1); a heap that is mostly cancelled is rebuilt. The
thread is started by the first timer and leaves when it has had nothing to do for a while.
"""

import heapq
import threading
from _thread import allocate_lock
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import inf

from mlld_sdk.base.durations import LONGEST_WAIT
from mlld_sdk.base.env import Env

LINGER = 2.0
"""Seconds the thread stays after its last timer."""


@dataclass(eq=False, repr=False, slots=True)
class Timer:
    """The handle of one timer."""

    due: float
    action: Callable[[], object] | None
    heap: "TimerHeap"

    def cancel(self) -> float | None:
        """Call it off; return the seconds that were left, or `None` when it had fired or was cancelled before."""
        return self.heap.cancel(self)


class TimerHeap:
    """Which timer is next. Knows no thread; a caller says what time it is."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._cancelled = 0
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def add(self, delay: float, action: Callable[[], object]) -> Timer:
        """Add a timer."""
        timer = Timer(self._now() + max(0.0, delay), action, self)
        with self._lock:
            heapq.heappush(self._heap, (timer.due, next(self._order), timer))
        return timer

    def cancel(self, timer: Timer) -> float | None:
        """Mark a timer as cancelled; give the seconds it had left."""
        with self._lock:
            if timer.action is None:
                return None
            timer.action = None
            self._cancelled += 1
            if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
                self._heap = [item for item in self._heap if item[2].action is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0
        return max(0.0, timer.due - self._now())

    def take_due(self) -> list[Callable[[], object]]:
        """Take the actions whose time has come, in order of their time."""
        now = self._now()
        actions: list[Callable[[], object]] = []
        with self._lock:
            while self._heap and (self._heap[0][0] <= now or self._heap[0][2].action is None):
                timer = heapq.heappop(self._heap)[2]
                if timer.action is None:
                    self._cancelled -= 1
                else:
                    actions.append(timer.action)
                    timer.action = None
        return actions

    def clear(self) -> None:
        """Drop all timers; a handle then says that its timer is over."""
        with self._lock:
            for _, _, timer in self._heap:
                timer.action = None
            self._heap.clear()
            self._cancelled = 0

    def next_in(self) -> float | None:
        """Seconds until the next timer is due, `None` without one."""
        with self._lock:
            while self._heap and self._heap[0][2].action is None:
                heapq.heappop(self._heap)
                self._cancelled -= 1
            return max(0.0, self._heap[0][0] - self._now()) if self._heap else None


class Timers:
    """Runs quick callables at their time, in one thread that exists only while there are timers."""

    def __init__(self, env: Env, failed: Callable[[BaseException], object], thread_name: str) -> None:
        self._now = env.now
        self._real = env.real
        self._heap = TimerHeap(env.now)
        self._failed = failed
        self._name = thread_name
        self._bell = allocate_lock()
        self._bell.acquire()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._looks_at = inf
        """When the thread will look at the heap by itself; as long as it is awake, every new timer rings."""
        self._closed = False
        self._unwatch = env.watch(self._moved)

    def __len__(self) -> int:
        return len(self._heap)

    def after(self, delay: float, action: Callable[[], object]) -> Timer:
        """Run `action()` after `delay` seconds of the env's clock. It must be quick and must not block."""
        timer = self._heap.add(delay, action)
        # Most timers are limits that are called off long before they are due: no reason to wake a thread that will
        # look in time.
        if not self._now() < self._looks_at <= timer.due:
            self.wake()
        return timer

    def wake(self) -> None:
        """Look at the clock again: there is an earlier timer."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads, or the interpreter is about to end: try at the next
                    self._failed(error)
                    return
                self._thread = thread
            self._ring()

    def close(self, timeout: float) -> None:
        """Drop all timers and end the thread."""
        self._unwatch()
        with self._lock:
            self._closed = True
            thread = self._thread
            self._ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self._heap.clear()

    def _ring(self) -> None:
        # A lock used as a bell: ringing twice is ringing once. Only the timer thread acquires it.
        if self._bell.locked():
            try:
                self._bell.release()
            except RuntimeError:
                return  # rung by another thread in between

    def _fire(self) -> None:
        """Run what is due."""
        for action in self._heap.take_due():
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - one bad callback must not stop all timers
                self._failed(error)

    def _moved(self) -> None:
        """Run what a test has made due, on its thread: when it goes on, that has happened."""
        if not self._closed:
            self._fire()

    def _run(self) -> None:
        while True:
            self._fire()
            left = self._heap.next_in()
            pause = LINGER if left is None else min(self._real(left), LONGEST_WAIT)
            self._looks_at = self._now() + pause
            rung = self._bell.acquire(True, pause)
            self._looks_at = inf  # before the heap is looked at: who adds from now on rings
            with self._lock:
                if self._closed or (not rung and left is None and not len(self._heap)):
                    self._thread = None
                    return
