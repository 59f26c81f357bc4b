"""A bounded buffer from which one thread or coroutine takes what actors put in.

When it is full, what comes is dropped and counted, and the reader finds `Lagged` and `Resumed` at the place of the gap.
"""

import threading
from collections import deque
from typing import Generic, TypeVar

from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.pubsub.outlet import Lagged, Resumed
from mlld_sdk.base.options import whole

T = TypeVar("T")


class Feed(Generic[T]):
    """What has arrived and was not taken yet.

    Args:
        source: What the markers of a gap call it.
        limit: Items kept at most.
    """

    def __init__(self, source: str, limit: int) -> None:
        self._source = source
        self._limit = whole("limit", limit, least=1)
        self._items: deque[T | Lagged | Resumed] = deque()
        self._lock = threading.Lock()
        self._arrival: Future[None] = Future()
        self._missed = 0
        self._end: BaseException | None = None

    def put(self, item: T) -> bool:
        """Add an item unless the buffer is full; return whether it was added. Never blocks."""
        with self._lock:
            if self._end is not None:
                return False
            if self._missed and len(self._items) <= self._limit // 2:
                self._items.append(self._resumed())
            if self._missed or len(self._items) >= self._limit:
                if not self._missed:
                    self._items.append(Lagged(self._source))
                self._missed += 1
                return False
            self._items.append(item)
            self._arrival.try_set()
        return True

    def end(self, error: BaseException) -> None:
        """End the feed: the reader still gets what is there, and `error` is raised after that."""
        with self._lock:
            self._end = self._end or error
            self._arrival.try_set()

    def take(self, *, timeout: float | None) -> T | Lagged | Resumed:
        """Take the oldest item, waiting up to `timeout` seconds for one; raises `AskTimeout` when none comes."""
        while (waiting := self._arrival_or_none()) is not None:
            waiting.get(timeout=timeout)
        return self._pop()

    async def take_async(self) -> T | Lagged | Resumed:
        """Take the oldest item, awaiting one."""
        while (waiting := self._arrival_or_none()) is not None:
            await waiting
        return self._pop()

    def _arrival_or_none(self) -> Future[None] | None:
        """Return what to wait for, or `None` when there is something to take."""
        with self._lock:
            if self._items or self._missed:
                return None
            if self._end is not None:
                raise self._end
            if self._arrival.done:
                self._arrival = Future()
            return self._arrival

    def _pop(self) -> T | Lagged | Resumed:
        with self._lock:
            return self._items.popleft() if self._items else self._resumed()

    def _resumed(self) -> Resumed:
        resumed, self._missed = Resumed(self._source, self._missed), 0
        return resumed
