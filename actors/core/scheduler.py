"""Workers that run actors: few threads for many actors, more when some of them block.

`workers` threads run actors. A worker that is about to block says so (futures do it by themselves, other code with
`with blocking():`) and a spare one takes its place. A handler that blocks without saying so is noticed by the
watcher: when work waits, no worker is idle and none has finished a slice for a tick, the pool doubles. Spares leave
after a while without work. The watcher sleeps whenever there is no work waiting for a busy pool.

When the pool may not grow any more, what never blocks goes on, on a thread in reserve: supervisors, who end what hangs.
"""

import os
import threading
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from mlld_sdk.actors.core.context import context
from mlld_sdk.base.durations import pause

TICK: Final = 0.005
"""Seconds between two looks of the watcher at a pool that has work waiting."""

QUIET_TICKS: Final = 10
"""Ticks without waiting work after which the watcher goes to sleep."""

KEEPALIVE: Final = 2.0
"""Seconds a spare worker waits for work before it leaves."""


class Runnable(Protocol):
    """Something a worker can run: an actor with something to do, or a job."""

    @property
    def never_blocks(self) -> bool:
        """Whether it may run on the thread in reserve."""

    def run(self) -> None:
        """Do one slice of work; never raises."""


class SchedulerThread(threading.Thread):
    """One thread of the pool."""

    def __init__(self, pool: "Scheduler", name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.pool = pool
        self.blocked = 0
        self.counted = False
        """Whether the pool counts it as blocked; changes only under the pool's lock, unlike `blocked`."""
        self.lost = False

    def run(self) -> None:
        """Run actors."""
        self.pool.work(self)

    def enter_blocking(self) -> None:
        """Note that this worker will now wait for something outside: another may run in its place."""
        self.blocked += 1
        if self.blocked == 1:
            self.pool.worker_blocks(self)

    def exit_blocking(self) -> None:
        """Note that this worker goes on."""
        self.blocked -= 1
        if self.blocked == 0:
            self.pool.worker_returns(self)


class Scheduler:
    """The pool of workers and their run queue."""

    def __init__(
        self, name: str, workers: int = 1, max_workers: int = 1024, exhausted: Callable[[int], object] = lambda _: None
    ) -> None:
        self.name = name
        self.workers = workers
        self.max_workers = max_workers
        self._exhausted = exhausted
        self._queue: SimpleQueue[Runnable | None] = SimpleQueue()
        self._lock = threading.RLock()
        self._threads: set[SchedulerThread] = set()
        self._count = 0
        self._blocked = 0
        self._idle = 0
        self._numbers = 0
        self._slices = 0
        self._said_exhausted = False
        self._closed = False
        self._watcher: threading.Thread | None = None
        self._watching = False
        self._reserve: OwnThread | None = None
        self._bell = allocate_lock()
        self._bell.acquire()
        self.peak = 0
        for _ in range(workers):
            self._spawn()

    def schedule(self, item: Runnable) -> None:
        """Queue `item` for the next worker that is free."""
        self._queue.put(item)
        if self._idle == 0 and not self._watching:
            self._watch()

    @property
    def size(self) -> int:
        """How many workers there are now."""
        return self._count

    @property
    def waiting(self) -> int:
        """How many actors wait for a worker."""
        return self._queue.qsize()

    def worker_blocks(self, worker: SchedulerThread) -> None:
        """Start a spare in the place of a worker that waits."""
        with self._lock:
            if worker.lost:
                return
            worker.counted = True
            self._blocked += 1
            if self._idle == 0 and self._count - self._blocked < self.workers:
                self._spawn()

    def worker_returns(self, worker: SchedulerThread) -> None:
        """Count a worker as running again."""
        with self._lock:
            if worker.counted:
                worker.counted = False
                self._blocked -= 1

    def lose(self, thread_id: int) -> None:
        """Write off the worker on that thread: what it runs was killed and may never come back."""
        with self._lock:
            worker = next((thread for thread in self._threads if thread.ident == thread_id), None)
            if worker is None or worker.lost:
                return
            worker.lost = True
            self._count -= 1
            self.worker_returns(worker)
            if self._idle == 0 and self._count - self._blocked < self.workers:
                self._spawn()

    def _spawn(self, most: int | None = None) -> bool:
        with self._lock:
            if self._closed:
                return False
            if self._count >= (most or self.max_workers):
                said, self._said_exhausted = self._said_exhausted, True
                if not said:
                    self._exhausted(self.max_workers)
                return False
            self._count += 1
            self._numbers += 1
            self.peak = max(self.peak, self._count)
            worker = SchedulerThread(self, f"{self.name}-worker-{self._numbers}")
            self._threads.add(worker)
            try:
                # Inside the lock, so that `close` never meets a thread that has not been started.
                worker.start()
            except RuntimeError:  # the system has no more threads: go on with those there are
                self._count -= 1
                self._threads.discard(worker)
                self._exhausted(self._count)
                return False
        return True

    def work(self, worker: SchedulerThread) -> None:
        """Run what is queued on a worker's thread, until it is to leave or is lost."""
        context.worker = worker
        take = self._queue.get_nowait
        empty = self._queue.empty
        item: Runnable | None = None
        try:
            while not worker.lost:
                if empty():
                    item = None  # an idle worker keeps nothing alive
                    item = self._wait()
                else:
                    try:
                        item = take()
                    except Empty:
                        continue
                if item is None:
                    if self._may_leave():
                        return
                    continue
                if not self._watching and self._idle == 0 and not empty():
                    self._watch()
                item.run()
                self._slices += 1
        finally:
            with self._lock:
                self._threads.discard(worker)

    def _wait(self) -> Runnable | None:
        """Wait for work as an idle worker; `None` when there was none for a while, or when it is time to go."""
        with self._lock:
            self._idle += 1
            spare = self._count - self._blocked > self.workers
        try:
            return self._queue.get(True, KEEPALIVE if spare else None)
        except Empty:
            return None
        finally:
            with self._lock:
                self._idle -= 1

    def _may_leave(self) -> bool:
        with self._lock:
            if self._closed:
                self._queue.put(None)  # for the next one
            if self._closed or (self._count - self._blocked > self.workers and self._queue.empty()):
                self._count -= 1
                self._said_exhausted = False
                return True
            return False

    def _watch(self) -> None:
        with self._lock:
            if self._watching or self._closed:
                return
            self._watching = True
            if self._watcher is not None:
                self._bell.release()
                return
            watcher = threading.Thread(target=self._look, name=f"{self.name}-watcher", daemon=True)
            try:
                watcher.start()
            except RuntimeError:  # no more threads, or the interpreter is about to end: there is nothing to grow with
                return
            self._watcher = watcher

    def _look(self) -> None:
        quiet, last = 0, -1
        while not self._closed:
            pause(TICK)
            if self._queue.empty():
                quiet += 1
                last = -1
                if quiet >= QUIET_TICKS:
                    quiet = 0
                    self._sleep()
                continue
            quiet = 0
            if self._slices == last and self._idle == 0:
                running = max(1, self._count - self._blocked)
                for _ in range(min(running, self._queue.qsize())):
                    if not self._spawn():
                        self._use_reserve()
                        break
            last = self._slices

    def _use_reserve(self) -> None:
        """Hand what waits and never blocks to the thread in reserve."""
        waiting: list[Runnable | None] = []
        with suppress(Empty):
            while True:
                waiting.append(self._queue.get_nowait())
        for item in waiting:
            if item is None or not item.never_blocks:
                self._queue.put(item)
                continue
            try:
                with self._lock:
                    if self._reserve is None:
                        self._reserve = OwnThread(f"{self.name}-reserve")
                    self._reserve.schedule(item)
            except RuntimeError:  # the system has no more threads
                self._queue.put(item)

    def _sleep(self) -> None:
        """Sleep until the pool is found busy again."""
        with self._lock:
            self._watching = False
            if self._closed:
                return
        if not self._queue.empty() and self._idle == 0:
            with self._lock:
                if not self._watching:
                    self._watching = True
                    return
        self._bell.acquire()

    def tell_to_end(self) -> list[threading.Thread]:
        """Tell all threads to end, after what they are doing, and return those that do not call this."""
        with self._lock:
            self._closed = True
            threads: list[threading.Thread] = list(self._threads)
            if self._reserve is not None:
                self._reserve.schedule(None)
                threads.append(self._reserve)
            if self._watcher is not None:
                threads.append(self._watcher)
                if not self._watching:
                    self._watching = True
                    self._bell.release()
        self._queue.put(None)
        return [thread for thread in threads if thread is not threading.current_thread()]


class OwnThread(threading.Thread):
    """A thread for one actor whose class asks for it (`threaded = True`): its private run queue."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._queue: SimpleQueue[Runnable | None] = SimpleQueue()
        self.start()

    def schedule(self, item: Runnable | None) -> None:
        """Run `item` on this thread; `None` ends it after what it is doing."""
        self._queue.put(item)

    def run(self) -> None:
        """Run what is scheduled."""
        while (item := self._queue.get()) is not None:
            item.run()


@contextmanager
def blocking() -> Iterator[None]:
    """Allow another worker to run while the code inside waits for something outside (a socket, a lock, a process).

    Not needed around anything of this library. Without it the pool still grows, a few milliseconds later.
    """
    worker = context.worker
    if worker is None:
        yield
        return
    worker.enter_blocking()
    try:
        yield
    finally:
        worker.exit_blocking()


yield_processor: Callable[[], Any] = getattr(os, "sched_yield", lambda: pause(0))
"""Yields the interpreter to another thread, after a full slice."""
