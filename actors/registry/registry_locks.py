"""Locks by key: one caller at a time, first come, first served; a holder or waiter that dies is passed over."""

import threading
from collections.abc import Hashable
from typing import Any

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.errors import DeadlockDetected
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.services import Ref, Watches
from mlld_sdk.actors.registry.errors import LockTimeout
from mlld_sdk.actors.registry.registry_rows import KeyRow, Rows
from mlld_sdk.base.durations import seconds


class KeyLocks:
    """The queues of a registry's locks: the first of a key holds it. A key that is not locked costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._watches = Watches(self._lock, self._died)
        self._queues: Rows[Any] = Rows(self._watches.release)

    def enter(self, lock: "KeyLock") -> KeyRow[Any]:
        """Queue up; the value of the place is a future, answered when it is its turn.

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
            place = self._queues.add(lock.key, lock.owner, Future())
            if first is None:
                place.value.try_set()
            return place

    def leave(self, place: KeyRow[Any]) -> None:
        """Give the lock back, or leave the queue; nothing when that has happened already."""
        with self._lock:
            if place in self._queues.owned(place.owner, place.key):
                self._queues.drop(place)
            first = self._queues.holder(place.key)
            if first is not None:
                first.value.try_set()

    def _died(self, ref: Ref) -> None:
        for place in self._queues.of(ref):
            self.leave(place)


class KeyLock:
    """The lock of one key, as its maker takes it; a context manager, for `with` and `async with`, for one or many."""

    def __init__(self, locks: KeyLocks, key: Hashable, timeout: float | None) -> None:
        self.key = key
        self.owner = current_actor()
        self._held: KeyRow[Any] | None = None
        self._locks = locks
        self._timeout = seconds(timeout)

    def __enter__(self) -> None:
        place = self._locks.enter(self)
        try:
            place.value.get(timeout=self._timeout)
        except BaseException as error:
            self._give_up(place, error)
            raise
        self._held = place

    def __exit__(self, *exc: object) -> None:
        if self._held is not None:
            self._locks.leave(self._held)

    async def __aenter__(self) -> None:
        import asyncio

        place = self._locks.enter(self)
        try:
            async with asyncio.timeout(self._timeout):
                await place.value
        except BaseException as error:
            self._give_up(place, error)
            raise
        self._held = place

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__(*exc)

    def _give_up(self, place: KeyRow[Any], error: BaseException) -> None:
        """Leave the queue, and say so when that is because of the time."""
        self._locks.leave(place)
        if isinstance(error, TimeoutError):
            text = f"{self.key!r} was locked for {self._timeout} s"
            raise LockTimeout(text, hint="the holder is slow, or waits for the caller") from None
