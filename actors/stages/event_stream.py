"""The events of a producer for code that is no actor: threads and coroutines, with the same demand."""

from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import Any

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.errors import ActorDead
from mlld_sdk.actors.core.ref import Down
from mlld_sdk.actors.core.services import Ref, offer, spawn
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.pubsub.feed import Feed
from mlld_sdk.actors.stages.demand import Window
from mlld_sdk.actors.stages.producers import MOST, Consumer
from mlld_sdk.base.options import whole


class _Pump(Consumer):
    """Moves events from a producer into the feed of an `EventStream`; asks only when the reader does."""

    def __init__(self, producer: Ref, feed: Feed[Any], most: int, partition: Hashable) -> None:
        super().__init__()
        self._producer = producer
        self._feed = feed
        self._most = most
        self._partition = partition

    def on_start(self) -> None:
        """Subscribe, and ask for as much as the feed can hold."""
        self.subscribe_to(self._producer, most=self._most, partition=self._partition, manual=True)
        self.ask(self._producer, self._most)

    def on_events(self, events: list[Any], _: Ref) -> None:
        """Put them into the feed; there is room, for no more was asked for."""
        for event in events:
            self._feed.put(event)

    def on_message(self, message: Any) -> None:
        """Pass on what the reader asks for."""
        if self._producer in self._upstream.sources:
            self.ask(self._producer, message)


class _Ended(Exception):
    """There are no more events, and all is well."""


class EventStream(AbstractContextManager["EventStream"], AbstractAsyncContextManager["EventStream"]):
    """The events of a producer for code that is no actor; leaving `with` or `async with` ends the subscription.

    At most `most` events are on their way or waiting here, so a slow reader slows the producer down. Iterating ends
    when the producer ends normally, and raises `ActorDead` when it ends otherwise.

    ```python
    with EventStream(system, producer, most=10) as events:
        for event in events: ...
    ```

    Args:
        system: The system of the producer.
        producer: Where the events come from.
        most: Events on their way or waiting at most.
        partition: Which events, of a producer that deals by partition.
        timeout: Seconds a `for` waits for the next event before it raises `AskTimeout`; `None` for no limit.
    """

    def __init__(
        self,
        system: ActorSystem,
        producer: Ref,
        *,
        most: int = MOST,
        partition: Hashable = None,
        timeout: float | None = 30.0,
    ) -> None:
        self._feed: Feed[Any] = Feed(str(producer), whole("most", most, least=1))
        self._window = Window(most, most // 2)
        self._window.first()
        self._timeout = timeout
        self._pump = spawn(system, _Pump, (producer, self._feed, most, partition), parent=current_actor())
        self._pump.monitor(self._ended)

    def close(self) -> None:
        """Take no more events."""
        self._pump.stop(block=False)

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        with suppress(_Ended):
            while True:
                yield self._feed.take(timeout=self._timeout)
                self._handled()

    async def __aiter__(self) -> AsyncIterator[Any]:
        with suppress(_Ended):
            while True:
                yield await self._feed.take_async()
                self._handled()

    def _ended(self, down: Down) -> None:
        reason = down.ref.reason or down.reason
        normal = reason.is_normal_family
        self._feed.end(_Ended() if normal else ActorDead(f"the producer ended: {reason}", reason=reason))

    def _handled(self) -> None:
        if count := self._window.handled(1):
            offer(self._pump, count, beyond_limit=True)
