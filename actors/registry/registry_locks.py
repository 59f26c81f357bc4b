"""Locks by key: one caller at a time, first come, first served; a holder or waiter that dies is passed over."""

import threading
from collections.abc import Hashable
from typing import Any

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.errors import DeadlockDetected
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.services import Ref, Watches
from mlld_sdk.actors.registry.errors import LockTimeout
from mlld_sdk.actors.registry.registry_rows import Rows


class KeyLocks:
    """The queues of a registry's locks: the first of a key holds it. A key that is not locked costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._watches = Watches(self._lock, self._died)
        self._queues: Rows[Any] = Rows(self._watches.release)

    def enter(self, lock: "KeyLock") -> Future[None]:
        """Queue up; the future is answered when it is this lock's turn.

        Raises:
            DeadlockDetected: The actor holds this key already and would wait for itself.
            ActorDead: The actor was killed.
        """
        with self._lock:
            first = self._queues.holder(lock.key)
            if lock.owner is not None:
                if first is not None and first.owner is lock.owner:
                    raise DeadlockDetected([f"{lock.owner.path} (locking {lock.key!r})"])
                self._watches.keep(lock.owner)
            lock.turn = Future()
            self._queues.add(lock.key, lock.owner, lock)
            if first is None:
                lock.turn.try_set()
            return lock.turn

    def leave(self, lock: "KeyLock") -> None:
        """Give the lock back, or leave the queue; nothing when that has happened already."""
        with self._lock:
            for row in self._queues.owned(lock.owner, lock.key):
                if row.value is lock:
                    self._queues.drop(row)
            first = self._queues.holder(lock.key)
            if first is not None:
                first.value.turn.try_set()

    def _died(self, ref: Ref) -> None:
        for row in self._queues.of(ref):
            self.leave(row.value)


class KeyLock:
    """One caller's place in the queue of one key; a context manager, for `with` and `async with`."""

    def __init__(self, locks: KeyLocks, key: Hashable, timeout: float | None) -> None:
        self.key = key
        self.owner = current_actor()
        self.turn: Future[None] | None = None
        self._locks = locks
        self._timeout = timeout

    def __enter__(self) -> None:
        turn = self._locks.enter(self)
        try:
            turn.get(timeout=self._timeout)
        except BaseException as error:
            self._give_up(error)
            raise

    def __exit__(self, *exc: object) -> None:
        self._locks.leave(self)

    async def __aenter__(self) -> None:
        import asyncio

        turn = self._locks.enter(self)
        try:
            async with asyncio.timeout(self._timeout):
                await turn
        except BaseException as error:
            self._give_up(error)
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._locks.leave(self)

    def _give_up(self, error: BaseException) -> None:
        """Leave the queue, and say so when that is because of the time."""
        self._locks.leave(self)
        if isinstance(error, TimeoutError):
            text = f"{self.key!r} was locked for {self._timeout} s"
            raise LockTimeout(text, hint="the holder is slow, or waits for the caller") from None
