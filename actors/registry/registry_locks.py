"""Locks by key: one caller at a time, first come, first served; a holder or waiter that dies is passed over."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.errors import AskTimeout, DeadlockDetected
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.services import Watches
from mlld_sdk.actors.registry.errors import LockTimeout
from mlld_sdk.actors.registry.registry_rows import strict

Ref = ActorRef[Any]


class KeyLocks:
    """The queues of a registry's locks. A key that is not locked costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queues: dict[Hashable, OrderedDict[int, KeyLock]] = {}
        self._of_actor: dict[Ref, set[KeyLock]] = {}
        self._watches = Watches(self._lock, self._died)

    def enter(self, lock: "KeyLock") -> Future[None]:
        """Queue up; the future is answered when it is this lock's turn.

        Raises:
            DeadlockDetected: The actor holds this key already and would wait for itself.
            ActorDead: The actor was killed.
        """
        with self._lock:
            queue = self._queues.get(strict(lock.key)) or OrderedDict()
            if lock.owner is not None:
                if queue and next(iter(queue.values())).owner is lock.owner:
                    raise DeadlockDetected([f"{lock.owner.path} (locking {lock.key!r})"])
                self._watches.keep(lock.owner)
                self._of_actor.setdefault(lock.owner, set()).add(lock)
            self._queues[strict(lock.key)] = queue
            queue[id(lock)] = lock
            lock.turn = turn = Future[None]()
            if len(queue) == 1:
                turn.try_set()
        return turn

    def leave(self, lock: "KeyLock") -> None:
        """Return the lock back, or leave the queue; nothing when that has happened already."""
        with self._lock:
            queue = self._queues.get(strict(lock.key))
            if queue is None or queue.pop(id(lock), None) is None:
                return
            if lock.owner is not None:
                mine = self._of_actor[lock.owner]
                mine.discard(lock)
                if not mine:
                    del self._of_actor[lock.owner]
                    self._watches.release(lock.owner)
            if queue:
                following = next(iter(queue.values()))
                assert following.turn is not None
                following.turn.try_set()
            else:
                del self._queues[strict(lock.key)]

    def _died(self, ref: Ref) -> None:
        for lock in list(self._of_actor.get(ref, ())):
            self.leave(lock)


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
        except AskTimeout:
            self._locks.leave(self)
            raise self._too_late() from None
        except BaseException:
            self._locks.leave(self)
            raise

    def __exit__(self, *exc: object) -> None:
        self._locks.leave(self)

    def _too_late(self) -> LockTimeout:
        return LockTimeout(
            f"{self.key!r} was locked for {self._timeout} s", hint="the holder is slow, or waits for the caller"
        )

    async def __aenter__(self) -> None:
        import asyncio

        turn = self._locks.enter(self)
        try:
            async with asyncio.timeout(self._timeout):
                await turn
        except TimeoutError:
            self._locks.leave(self)
            raise self._too_late() from None
        except BaseException:
            self._locks.leave(self)
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._locks.leave(self)
