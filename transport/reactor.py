"""The one thread that waits: for the output of every engine, for their deaths, for deadlines."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import selectors
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from mlld_sdk.base.durations import FOREVER
from mlld_sdk.base.env import Env

_IDLE = 3600.0
_COMPACT_FROM = 64


class Inhabitant(Protocol):
    """Something that lives on a reactor and has to be ended before it."""

    def kill(self) -> None:
        """End now."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended."""


class ReactorTimer:
    """A function that will be called at a time, unless cancelled before; `None` when that is over."""

    __slots__ = ("_reactor", "function")

    def __init__(self, reactor: Reactor, function: Callable[[], object]) -> None:
        self._reactor = reactor
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Forget it. Harmless when it has fired."""
        if self.function is not None:
            self.function = None
            self._reactor.cancelled += 1

    def fire(self) -> None:
        """Call the function, unless it was cancelled; the reactor does."""
        function, self.function = self.function, None
        if function is None:
            self._reactor.cancelled -= 1
        else:
            function()


class _Epoll:
    """The kernel's list of descriptors, without the bookkeeping of `selectors`: it is changed on every lone call."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.watch_read = lambda fd: self._epoll.register(fd, select.EPOLLIN)
        self.watch_write = lambda fd: self._epoll.register(fd, select.EPOLLOUT)
        self.forget = self._epoll.unregister
        self.close = self._epoll.close

    def wait(self, timeout: float) -> list[int]:
        return [fd for fd, _ in self._epoll.poll(timeout, 256)]


class _Selector:
    """The same through `selectors`, for systems without epoll."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.watch_read = lambda fd: self._selector.register(fd, selectors.EVENT_READ)
        self.watch_write = lambda fd: self._selector.register(fd, selectors.EVENT_WRITE)
        self.forget = self._selector.unregister
        self.close = self._selector.close

    def wait(self, timeout: float) -> list[int]:
        return [key.fd for key, _ in self._selector.select(timeout)]


class Reactor:
    """An I/O thread. Most programs never see it: engines share one.

    Functions handed to it run on its thread, one after the other. They must not block; one that raises is reported to
    `threading.excepthook` and the thread goes on.

    Attributes:
        inhabitants: What has to be ended before the thread.
        dirty: Called when it is about to sleep, so that many writes become one.
        is_closed: The thread has ended or is about to.
    """

    def __init__(
        self, *, name: str = "mlld-shared-io", env: Env | None = None, portable: bool = not hasattr(select, "epoll")
    ) -> None:
        self.env = env or Env()
        self.awake = False
        self.inhabitants: set[Inhabitant] = set()
        self.dirty: deque[Callable[[], None]] = deque()
        self.now = self.env.now
        self._poller: _Epoll | _Selector = _Selector() if portable else _Epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, ReactorTimer]] = []
        self._timer_lock = threading.Lock()
        self._sequence = itertools.count()
        self.cancelled = 0
        self._rung = False
        self._sleeping_until = 0.0
        self.is_closed = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.watch_read(self._wake_read, self._woken)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self.ident = self._thread.ident
        _reactors.add(self)

    def watch_read(self, fd: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor has something to read."""
        self._handlers[fd] = handler
        self._poller.watch_read(fd)

    def watch_write(self, fd: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor takes something."""
        self._handlers[fd] = handler
        self._poller.watch_write(fd)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor. Harmless when it is not watched."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.forget(fd)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run the function on the reactor's thread. Callable from any thread."""
        self._calls.append(function)
        self.wake()

    def call_at(self, when: float, function: Callable[[], object]) -> ReactorTimer:
        """Run the function on the reactor's thread when `Env.now` has reached `when`. Callable from any thread."""
        timer = ReactorTimer(self, function)
        with self._timer_lock:
            if self.cancelled > _COMPACT_FROM and self.cancelled * 2 > len(self._timers):
                self._timers = [entry for entry in self._timers if entry[2].function is not None]
                heapq.heapify(self._timers)
                self.cancelled = 0
            heapq.heappush(self._timers, (when, next(self._sequence), timer))
        if when < self._sleeping_until:
            self.wake()
        return timer

    def close(self, timeout: float = 5.0) -> None:
        """Kill the engines that are left, wait for their end, then end the thread and wait for it."""
        for inhabitant in list(self.inhabitants):
            inhabitant.kill()
        for inhabitant in list(self.inhabitants):
            inhabitant.wait(timeout)
        self.is_closed = True
        self.wake()
        if threading.get_ident() != self.ident:
            self._thread.join(timeout)

    def abandon(self) -> None:
        """In a forked child: give up descriptors that belong to the parent's thread."""
        if not self.is_closed:
            self.is_closed = True
            self._handlers.clear()
            self._release()

    def wake(self) -> None:
        """Make the thread look at its queues. Nothing queued before is missed."""
        # It looks once more between saying that it sleeps and sleeping; and when it has been rung it will look anyway.
        if not self.awake and not self._rung:
            self._rung = True
            try:
                os.write(self._wake_write, b"\0")
            except OSError:  # full: it will wake anyway; closed: there is no thread to wake
                return

    def _woken(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return

    def _run(self) -> None:
        handlers, wait = self._handlers, self._poller.wait
        while not self.is_closed:
            while self.dirty:
                self._guarded(self.dirty.popleft())
            pause = self._until_next_timer()
            self.awake = False
            if self._calls or self.dirty or self.is_closed:
                pause = 0.0
            ready = wait(pause)
            self.awake = True
            self._rung = False
            for fd in ready:
                handler = handlers.get(fd)
                if handler is not None:
                    self._guarded(handler)
            while self._calls:
                self._guarded(self._calls.popleft())
            self._run_due_timers()
        self._release()

    def _release(self) -> None:
        self._poller.close()
        fds = (self._wake_read, self._wake_write)
        self._wake_read = self._wake_write = -1
        for fd in fds:
            os.close(fd)

    def _until_next_timer(self) -> float:
        with self._timer_lock:
            when = self._sleeping_until = self._timers[0][0] if self._timers else FOREVER
        return min(max(0.0, when - self.now()), _IDLE)

    def _run_due_timers(self) -> None:
        while True:
            with self._timer_lock:
                if not self._timers or self._timers[0][0] > self.now():
                    return
                timer = heapq.heappop(self._timers)[2]
            self._guarded(timer.fire)

    def _guarded(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException:  # noqa: BLE001 - one engine's trouble, `sys.exit` too, must not end the thread of all
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))


_reactors: weakref.WeakSet[Reactor] = weakref.WeakSet()
_shared: Reactor | None = None
_shared_lock = threading.Lock()


def shared_reactor() -> Reactor:
    """Return the process-wide reactor, started when first needed."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Reactor()
        return _shared


def _after_fork() -> None:
    global _shared, _shared_lock
    _shared, _shared_lock = None, threading.Lock()
    for reactor in list(_reactors):
        reactor.abandon()


os.register_at_fork(after_in_child=_after_fork)
