"""Delivering to a subscriber that may be slower than what it subscribed to.

An outlet never blocks and never keeps messages of its own. As long as the subscriber's mailbox holds fewer than
`limit` messages, they go there. At the limit a gap opens: one `Lagged` marker is queued behind the last message that
got through, later messages are dropped and counted, and once the subscriber has worked down to half of the limit,
`Resumed` says how many were missed and messages flow again. So a slow subscriber holds up no other, costs bounded
memory, and always learns that it missed something; its subscription never ends because of it.
"""

import threading
from typing import Any

import msgspec

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.services import offer, queued
from mlld_sdk.actors.pubsub.events import SubscriberLagged, SubscriberResumed
from mlld_sdk.base.options import whole

LIMIT = 1_000
"""Messages a subscriber's mailbox may hold before a gap opens, unless it asks for another limit."""


class Lagged(msgspec.Struct, frozen=True):
    """From here on, messages of `source` are missing: the receiver was too slow."""

    source: str


class Resumed(msgspec.Struct, frozen=True):
    """Messages of `source` flow again; `missed` of them were dropped since `Lagged`."""

    source: str
    missed: int


class Outlet:
    """The way to one subscriber; `missed` counts what was dropped on it."""

    __slots__ = ("_gap", "_lock", "limit", "missed", "ref", "source")

    def __init__(self, ref: ActorRef[Any], source: str, limit: int = LIMIT) -> None:
        whole("limit", limit, least=1)
        self.ref = ref
        self.source = source
        self.limit = limit if ref.cell.mailbox.limit is None else min(limit, ref.cell.mailbox.limit)
        self.missed = 0
        self._gap = 0
        self._lock = threading.Lock()

    def send(self, message: Any) -> bool:
        """Deliver `message` unless the subscriber is behind; return whether it was delivered."""
        with self._lock:
            if self._gap and not self._resume():
                return self._miss()
            result = "full" if queued(self.ref) >= self.limit else offer(self.ref, message)
            return self._miss() if result == "full" else result == "ok"

    def _miss(self) -> bool:
        self.missed += 1
        self._gap += 1
        if self._gap == 1:
            cell = self.ref.cell
            cell.system.emit(lambda at: SubscriberLagged(at=at, actor=cell.path, source=self.source, limit=self.limit))
            offer(self.ref, Lagged(self.source), beyond_limit=True)
        return False

    def _resume(self) -> bool:
        """Close the gap if the subscriber has caught up."""
        if queued(self.ref) > self.limit // 2:
            return False
        cell, missed = self.ref.cell, self._gap
        cell.system.emit(lambda at: SubscriberResumed(at=at, actor=cell.path, source=self.source, missed=missed))
        offer(self.ref, Resumed(self.source, missed), beyond_limit=True)
        self._gap = 0
        return True
