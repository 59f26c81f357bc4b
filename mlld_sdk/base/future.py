"""A `concurrent.futures.Future` that costs next to nothing until a thread waits for it.

The standard future makes a condition (a lock and a queue) when it is born. Most calls are answered before a thread
waits, or are only ever given a callback, so this one makes its condition when a function of the standard library asks
for it (`concurrent.futures.wait`, `as_completed`), and waits with one bare lock otherwise.

This module is the only one that knows the private names of `concurrent.futures`; `tests/unit/base/test_future.py`
holds them to what is used here.
"""

import concurrent.futures
import os
import threading
from _thread import allocate_lock
from collections.abc import Callable
from concurrent.futures._base import FINISHED, RUNNING
from typing import Any, Generic, TypeVar

from mlld_sdk.base.durations import FOREVER, LONGEST_WAIT, Duration, seconds

T = TypeVar("T")

_condition_lock = threading.Lock()


def _after_fork() -> None:
    global _condition_lock
    _condition_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class LazyFuture(concurrent.futures.Future[T], Generic[T]):
    """A future whose outcome is set once by `finish`, from any thread.

    The thread that sets it runs the callbacks. Nothing here relies on a lock for that: outcome first, then callbacks
    are taken from the list one by one; one that is added meanwhile is run by the thread that takes it, only once.
    """

    # Class attributes stand in for what the standard class sets up in every instance.
    is_over = False
    _published = False
    _result: T | None = None
    _exception: BaseException | None = None
    _lazy_condition: threading.Condition | None = None
    _lazy_waiters: list[Any] | None = None
    _callbacks: list[Callable[[Any], object]] | None = None
    _failure_callbacks: list[Callable[[Any], object]] | None = None
    _sleepers: list[Any] | None = None
    # Whether a thread waits or there is a callback; set before the state is looked at, read after the state is set.
    _attended = False

    def __init__(self) -> None:
        """Do nothing: see the class attributes."""

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        with _condition_lock:
            if self._lazy_condition is None:
                self._lazy_waiters = []
                self._lazy_condition = threading.Condition()
                self._attended = True
                self._published = self.is_over
                self._listened_to()
            return self._lazy_condition

    @property
    def _state(self) -> str:  # type: ignore[override]
        """What the standard functions see: it changes only while the condition is held, as they rely on."""
        if self._lazy_condition is None:
            return FINISHED if self.is_over else RUNNING
        return FINISHED if self._published else RUNNING

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        assert self._lazy_waiters is not None  # the condition was asked for first
        return self._lazy_waiters

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.is_over

    def running(self) -> bool:
        """Whether there is no outcome yet."""
        return not self.is_over

    def cancelled(self) -> bool:
        """Always false: a cancelled call ends with an error that says so."""
        return False

    def result(self, timeout: Duration | None = None) -> T:
        """Wait for the outcome and return it, or raise it. `TimeoutError` if there is none in time."""
        if not self.is_over:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642 - the traceback must not keep the future
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: Duration | None = None) -> BaseException | None:
        """Wait for the outcome and return its error, or `None` if it is a good one."""
        if not self.is_over:
            self._wait(timeout)
        return self._exception

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call the function with this future once there is an outcome; at once if there is one."""
        self.when_over(fn)
        if not self.is_over:
            self._listened_to()

    def when_over(self, fn: Callable[[Any], object]) -> None:
        """Do the same for what is not urgent: the outcome is not looked for sooner because of it."""
        if self._callbacks is None:
            with _condition_lock:
                if self._callbacks is None:
                    self._callbacks = []
        self._callbacks.append(fn)
        self._attended = True
        if self.is_over:
            self._run(self._callbacks)

    def when_failed(self, fn: Callable[[Any], object]) -> None:
        """Call the function with this future if it fails, at once if it has: like `when_over`, at no cost otherwise."""
        callbacks = self._failure_callbacks
        if callbacks is None:
            callbacks = self._failure_callbacks = []
        callbacks.append(fn)
        if self.is_over:
            self._mourn(callbacks)

    def _mourn(self, callbacks: list[Callable[[Any], object]]) -> None:
        if self._exception is not None:
            self._run(callbacks)
        self._failure_callbacks = None  # a callback often holds the call: no cycle for the collector

    def _wait(self, timeout: Duration | None) -> None:
        lock = allocate_lock()
        lock.acquire()
        if self._sleepers is None:
            with _condition_lock:
                if self._sleepers is None:
                    self._sleepers = []
        sleepers = self._sleepers
        sleepers.append(lock)
        self._attended = True
        if self.is_over:
            return
        limit = LONGEST_WAIT if timeout is None else min(max(0.0, seconds(timeout, above=-FOREVER)), LONGEST_WAIT)
        if not lock.acquire(timeout=limit) and not self.is_over:
            try:
                sleepers.remove(lock)
            except ValueError:  # just now awakened
                return
            raise TimeoutError

    def finish(self, result: T | None, error: BaseException | None) -> None:
        """Set the outcome, wake the waiting threads, run the callbacks. Must be called once only."""
        if error is not None:
            self._exception = error
        self._result = result
        self.is_over = True
        if self._failure_callbacks is not None:
            self._mourn(self._failure_callbacks)
        if self._attended:
            self._wake(error)

    def _wake(self, error: BaseException | None) -> None:
        sleepers = self._sleepers
        while sleepers:
            try:
                sleepers.pop().release()
            except IndexError:
                break
        if self._lazy_condition is not None:
            with self._lazy_condition:
                self._published = True
                for waiter in self._waiters:
                    if error is None:
                        waiter.add_result(self)
                    else:
                        waiter.add_exception(self)
                self._lazy_condition.notify_all()
        if self._callbacks:
            self._run(self._callbacks)

    def _run(self, callbacks: list[Callable[[Any], object]]) -> None:
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:
                return
            try:
                callback(self)
            except BaseException as error:  # a callback's trouble is not the future's, `sys.exit` included
                self._callback_failed(error)
                if isinstance(error, KeyboardInterrupt):
                    raise

    def _listened_to(self) -> None:
        """Take note that a callback, or a function of the standard library, waits for the outcome."""

    def _callback_failed(self, error: BaseException) -> None:
        """Report a callback that raised, by default as Python reports the end of a thread."""
        args = (type(error), error, error.__traceback__, threading.current_thread())
        threading.excepthook(threading.ExceptHookArgs(args))
