"""Topics: subscribers get what is broadcast, as ordinary messages.

No history, no acknowledgement. A subscriber that is slower than a topic does not hold up the others, and loses messages
rather than memory; it is told so (`Lagged`, `Resumed`) and stays subscribed.
"""

import threading
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import Any

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.services import Ref, Watches, acting, find, publish, still_in_effect
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.pubsub.errors import Unsubscribed
from mlld_sdk.actors.pubsub.feed import Feed
from mlld_sdk.actors.pubsub.outlet import LIMIT, Lagged, Outlet, Resumed
from mlld_sdk.actors.registry.registry_rows import Rows

Topic = Hashable
Dispatcher = Callable[[Sequence["Subscription | Listener"], Ref | None, Any], object]
"""Delivers a message in the caller's thread: subscriptions, the broadcaster to leave out (or `None`), the message."""


class Subscription(Outlet):
    """One subscription of one actor.

    Attributes:
        ref: The subscriber.
        topic: What it subscribed to.
        metadata: What it said when it subscribed, for dispatchers.
        missed: How many messages were dropped since it subscribed.
    """

    __slots__ = ("metadata", "topic")

    def __init__(self, ref: Ref, topic: Topic, metadata: Any, limit: int) -> None:
        super().__init__(ref, str(topic), limit)
        self.topic: Topic = topic
        self.metadata: Any = metadata


class Listener(AbstractContextManager["Listener"], AbstractAsyncContextManager["Listener"]):
    """A subscription of code that is no actor; made by `PubSub.listen`, ended by leaving its `with`.

    ```python
    with topics.listen("runs") as runs:
        first = runs.take(timeout=5.0)


    async def follow():
        async with topics.listen("runs") as runs:
            async for message in runs: ...
    ```
    """

    ref = None

    def __init__(self, pubsub: "PubSub", topic: Topic, metadata: Any, limit: int) -> None:
        self.topic = topic
        self.metadata = metadata
        self._pubsub = pubsub
        self._feed: Feed[Any] = Feed(str(topic), limit)

    def send(self, message: Any) -> bool:
        """Deliver to this listener; return whether it was delivered or dropped because the listener is behind."""
        return self._feed.put(message)

    def take(self, *, timeout: float | None = 5.0) -> Any | Lagged | Resumed:
        """Take the next message, waiting up to `timeout` seconds; raises `AskTimeout` when none comes."""
        return self._feed.take(timeout=timeout)

    def close(self) -> None:
        """Unsubscribe; what has arrived can still be taken, after that `take` raises `Unsubscribed`."""
        self._pubsub.remove_listener(self)
        self._feed.end(Unsubscribed(f"this listener of {self.topic!r} was closed"))

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        with suppress(Unsubscribed):
            while True:
                yield await self._feed.take_async()


class PubSub:
    """A space of topics; several may live in one system. All methods are quick and may be called from any thread.

    Args:
        system: The actors it is for.
        name: Its name in that system.
        dispatcher: Delivers a message to the subscriptions of a topic; the default sends to each.
    """

    def __init__(self, system: ActorSystem, name: str = "pubsub", *, dispatcher: Dispatcher | None = None) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._watches = Watches(self._lock, self._died)
        self._subscriptions: Rows[Ref] = Rows(self._watches.release)
        self._listeners: Rows[Listener] = Rows()
        self._dispatch = dispatcher or to_each
        publish(system, self, name)

    @classmethod
    def of(cls, system: ActorSystem, name: str = "pubsub") -> "PubSub":
        """Find the topic space of that name; raises `UnknownName` when there is none."""
        return find(system, cls, name)

    def subscribe(
        self, topic: Topic, metadata: Any = None, *, limit: int = LIMIT, ref: Ref | None = None
    ) -> Subscription:
        """Send the caller what is broadcast on `topic`, once for each time it subscribed.

        Args:
            topic: Any hashable value; compared strictly, as registry keys are.
            metadata: For dispatchers.
            limit: Messages its mailbox may hold before messages of this topic are dropped.
            ref: The subscriber, when it is not the caller.
        """
        owner = acting("subscribing", ref)
        with self._lock:
            self._watches.keep(owner)
            subscription = Subscription(owner, topic, metadata, limit)
            self._subscriptions.add(topic, owner, subscription)
        return subscription

    def unsubscribe(self, topic: Topic, *, ref: Ref | None = None) -> None:
        """End all subscriptions of the caller to `topic`; nothing when there are none."""
        owner = acting("unsubscribing", ref)
        with self._lock:
            for row in self._subscriptions.owned(owner, topic):
                self._subscriptions.drop(row)

    def listen(self, topic: Topic, metadata: Any = None, *, limit: int = LIMIT) -> Listener:
        """Subscribe code that is no actor: a thread (`take`) or a coroutine (`async for`)."""
        still_in_effect()
        listener = Listener(self, topic, metadata, limit)
        with self._lock:
            self._listeners.add(topic, listener, None)
        return listener

    def broadcast(self, topic: Topic, message: Any, *, dispatcher: Dispatcher | None = None) -> None:
        """Send `message` to every subscriber of `topic`; fine when there is none. Never waits for a subscriber."""
        self._send(topic, None, message, dispatcher)

    def broadcast_from(
        self, topic: Topic, message: Any, *, sender: Ref | None = None, dispatcher: Dispatcher | None = None
    ) -> None:
        """Send to every subscriber but one: the caller, or `sender`."""
        self._send(topic, sender or current_actor(), message, dispatcher)

    def subscribers(self, topic: Topic) -> list[Subscription | Listener]:
        """List the subscriptions of a topic, oldest first, actors before listeners."""
        with self._lock:
            rows, listeners = self._subscriptions.under(topic), self._listeners.under(topic)
        return [*(row.value for row in rows), *(row.owner for row in listeners)]

    def _send(self, topic: Topic, sender: Ref | None, message: Any, dispatcher: Dispatcher | None) -> None:
        still_in_effect()
        found = self.subscribers(topic)
        if found:
            (dispatcher or self._dispatch)(found, sender, message)

    def remove_listener(self, listener: Listener) -> None:
        """Forget a listener that was closed."""
        with self._lock:
            for row in self._listeners.of(listener):
                self._listeners.drop(row)

    def _died(self, ref: Ref) -> None:
        for row in self._subscriptions.of(ref):
            self._subscriptions.drop(row)


def to_each(entries: Sequence[Subscription | Listener], sender: Ref | None, message: Any) -> None:
    """Send `message` to every subscription but the sender's own."""
    for entry in entries:
        if sender is None or entry.ref is not sender:
            entry.send(message)
