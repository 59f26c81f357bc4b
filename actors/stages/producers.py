"""Event producers and consumers joined by demand: a producer emits only what a consumer has asked for.

```python
class Numbers(Producer):
    def on_start(self):
        self.next = 0

    def on_demand(self, count):
        first, self.next = self.next, self.next + count
        return range(first, self.next)

class Printer(Consumer):
    def on_start(self, source):
        self.subscribe_to(source, most=10)

    def on_events(self, events, producer):
        for event in events: print(event)
```

Nothing is kept between stages: whatever is on its way was asked for, so memory is bounded by the demand of the
consumers and a slow consumer slows its producer down. What a consumer was given and had not handled when it ended is
lost with it, like any message.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import islice
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import msgspec

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import Stop
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.ref import Down, Monitor
from mlld_sdk.actors.core.services import Ref, offer
from mlld_sdk.actors.stages.demand import Dealing, Window, deal_by_demand, deal_by_partition, deal_to_all, open_demand
from mlld_sdk.actors.stages.errors import DemandExceeded
from mlld_sdk.base.errors import ConfigurationError, InvalidOption
from mlld_sdk.base.options import one_of, whole

WhenProducerEnds = Literal["stop", "stop_if_abnormal", "stay"]

MOST = 1_000
"""Events a consumer has on their way to it at most, unless it says otherwise."""


class _Subscribe(msgspec.Struct, frozen=True):
    consumer: Ref
    most: int
    partition: Any


class _Ask(msgspec.Struct, frozen=True):
    consumer: Ref
    count: int


class _Cancel(msgspec.Struct, frozen=True):
    consumer: Ref


class _Events(msgspec.Struct, frozen=True):
    producer: Ref
    events: list[Any]


class _Refused(msgspec.Struct, frozen=True):
    producer: Ref
    why: str


class _Downstream:
    """The consumers of a stage: who they are, how many events each wants, and which get the next ones."""

    def __init__(self, stage: "_Emitting", least_most: int) -> None:
        if (one_of("dealing", stage.dealing, *get_args(Dealing)) == "partition") != bool(stage.partitions):
            raise InvalidOption("partitions", stage.partitions, 'given if dealing is "partition", and only then')
        self._stage = stage
        self._least_most = least_most
        self.wanted: dict[Ref, int] = {}
        self._partitions: dict[Ref, Hashable] = {}
        self._monitors: dict[Ref, Monitor] = {}

    @property
    def demand(self) -> int:
        """How many events may be emitted now."""
        if len(self._partitions) < len(self._stage.partitions):
            return 0
        return open_demand(self.wanted, self._stage.dealing)

    def send(self, batch: Sequence[Any]) -> None:
        """Send events to the consumers; there is demand for them."""
        match self._stage.dealing:
            case "demand":
                shares = deal_by_demand(self.wanted, batch)
            case "broadcast":
                shares = deal_to_all(self.wanted, batch)
            case "partition":
                shares = deal_by_partition(self._partitions, batch, self._stage.partition_of)
        for consumer, share in shares.items():
            self.wanted[consumer] -= len(share)
            offer(consumer, _Events(self._stage.actor_ref, share), beyond_limit=True)

    def handle(self, message: Any) -> bool:
        """Handle what consumers send; return whether it was that."""
        match message:
            case _Subscribe():
                self._add(message)
            case _Ask(consumer, count):
                if consumer in self.wanted:
                    self.wanted[consumer] += count
            case _Cancel(consumer):
                self._drop(consumer)
            case Down(ref=ref) if ref in self.wanted:
                self._drop(ref)
            case _:
                return False
        return True

    def _add(self, message: _Subscribe) -> None:
        partitions, problem = self._stage.partitions, None
        if message.most < self._least_most:
            problem = f"it needs most >= {self._least_most}"
        elif partitions and message.partition in self._partitions.values():
            problem = f"partition {message.partition!r} has a consumer"
        elif partitions and message.partition not in partitions:
            problem = f"there is no partition {message.partition!r}"
        if problem is not None:
            offer(message.consumer, _Refused(self._stage.actor_ref, problem), beyond_limit=True)
            return
        self._monitors[message.consumer] = self._stage.monitor(message.consumer)
        self._partitions[message.consumer] = message.partition
        self.wanted[message.consumer] = 0

    def _drop(self, consumer: Ref) -> None:
        if consumer in self.wanted:
            self._monitors.pop(consumer).cancel()
            del self.wanted[consumer], self._partitions[consumer]


class _Stage(Actor):
    """What all stages have in common."""

    def on_message(self, message: Any) -> Any:
        """Handle any message that is not about events or demand, as `on_receive` of an actor does."""


class _Emitting(_Stage):
    """A stage that gives events out."""

    dealing: ClassVar[Dealing] = "demand"
    """Who gets an event: the consumer that wants most (`demand`), all of them (`broadcast`), or the consumer of the
    event's partition (`partition`)."""

    partitions: ClassVar[tuple[Hashable, ...]] = ()
    """For `dealing = "partition"`: all there are. Nothing is asked for until each has its consumer."""

    def __init__(self, least_most: int = 1) -> None:
        super().__init__()
        self._downstream = _Downstream(self, least_most)

    def partition_of(self, event: Any) -> Hashable:
        """Return to which partition an event belongs; for `dealing = "partition"`."""
        raise NotImplementedError

    @property
    def demand(self) -> int:
        """How many events may be emitted now."""
        return self._downstream.demand

    def emit(self, events: Iterable[Any]) -> None:
        """Send events to the consumers.

        Raises:
            DemandExceeded: They are more than `demand`; none was given out.
        """
        room = self.demand
        batch = events if isinstance(events, Sequence) else list(islice(events, room + 1))
        if len(batch) > room:
            raise DemandExceeded(
                f"{type(self).__name__} emitted more events than the {room} that were asked for",
                hint="emit no more than self.demand; what is left over stays where it comes from",
            )
        if batch:
            self._downstream.send(batch)


class _Source(NamedTuple):
    """What a consumer remembers of one producer."""

    window: Window
    monitor: Monitor
    when_it_ends: WhenProducerEnds
    manual: bool


class _Upstream:
    """The producers of a stage, and what it has asked of each."""

    def __init__(
        self, stage: "_Receiving", take: Callable[[list[Any], Ref], object], begin: Callable[[], object] | None = None
    ) -> None:
        self._stage = stage
        self._take = take
        self._begin = begin
        self.sources: dict[Ref, _Source] = {}

    def add(self, producer: Ref, source: _Source, partition: Hashable) -> None:
        """Subscribe to a producer and ask it for the first events."""
        self.sources[producer] = source
        offer(producer, _Subscribe(self._stage.actor_ref, source.window.most, partition), beyond_limit=True)
        if self._begin is not None:
            self._begin()
        elif not source.manual:
            self.ask(producer, source.window.first())

    def ask(self, producer: Ref, count: int) -> None:
        """Ask a producer for more events."""
        offer(producer, _Ask(self._stage.actor_ref, count), beyond_limit=True)

    def handle(self, message: Any) -> tuple[bool, Any]:
        """Handle what producers send; return whether it was that, and what follows for the stage."""
        match message:
            case _Events(producer, events):
                if producer in self.sources:
                    self._take(events, producer)
                return True, None
            case _Refused(producer, why):
                raise ConfigurationError(f"{producer} refused {self._stage.actor_ref}: {why}")
            case Down(ref=ref) if ref in self.sources:
                source = self.sources.pop(ref)
                told = self._stage.on_producer_end(ref, message.reason)
                ends = source.when_it_ends == "stop" or (
                    source.when_it_ends == "stop_if_abnormal" and not message.reason.is_normal_family
                )
                return True, told if told is not None or not ends else Stop(message.reason)
        return False, None


class _Receiving(_Stage):
    """A stage that takes events in."""

    _upstream: _Upstream

    def subscribe_to(
        self,
        producer: Ref,
        *,
        most: int = MOST,
        least: int | None = None,
        partition: Hashable = None,
        when_it_ends: WhenProducerEnds = "stop",
        manual: bool = False,
    ) -> None:
        """Take events from `producer` from now on. Called by the stage itself, for instance in `on_start`.

        Args:
            producer: A `Producer` or `ProducerConsumer`.
            most: Events on their way to this consumer at most.
            least: Ask for more as soon as no more than so many are outstanding; half of `most` when left out.
            partition: Which events, of a producer that deals by partition.
            when_it_ends: End too (`stop`), only after an abnormal end (`stop_if_abnormal`), or go on (`stay`).
            manual: Ask for nothing by itself; `ask` does.
        """
        least = whole("most", most, least=1) // 2 if least is None else least
        if whole("least", least) >= most:
            raise InvalidOption("least", least, f"less than most ({most})")
        one_of("when_it_ends", when_it_ends, *get_args(WhenProducerEnds))
        if producer in self._upstream.sources:
            raise ConfigurationError(f"{self.actor_ref} is subscribed to {producer} already")
        source = _Source(Window(most, least), self.monitor(producer), when_it_ends, manual)
        self._upstream.add(producer, source, partition)

    def unsubscribe_from(self, producer: Ref) -> None:
        """Take no more events from `producer`; those on their way are dropped."""
        source = self._upstream.sources.pop(producer, None)
        if source is not None:
            source.monitor.cancel()
            offer(producer, _Cancel(self.actor_ref), beyond_limit=True)

    def ask(self, producer: Ref, count: int) -> None:
        """Ask for `count` more events; for a subscription made with `manual=True`.

        Raises:
            DemandExceeded: More than `most` would be outstanding.
        """
        window = self._upstream.sources[producer].window
        if window.outstanding + count > window.most:
            raise DemandExceeded(f"asked for {count} with {window.outstanding} of {window.most} outstanding")
        window.outstanding += count
        self._upstream.ask(producer, count)

    def on_producer_end(self, producer: Ref, reason: Reason) -> Any:
        """Run when a producer has ended and all its events are handled; may return `Stop`."""


class Producer(_Emitting):
    """A source of events. Override `on_demand`; messages that are not about demand go to `on_message`."""

    def on_demand(self, count: int) -> Iterable[Any]:
        """Return up to `count` events now.

        Fewer than asked for means that there are no more at present: the rest of the demand stays open, `self.demand`
        shows it, and `self.emit` serves it later. More is an error.
        """
        raise NotImplementedError

    def on_receive(self, message: Any) -> Any:
        """Serve demand; pass everything else on."""
        before = self.demand
        if not self._downstream.handle(message):
            return self.on_message(message)
        if self.demand > before:
            self.emit(self.on_demand(self.demand))
        return None


class Consumer(_Receiving):
    """An end of events. Override `on_events`; messages that are not about events go to `on_message`."""

    def __init__(self) -> None:
        super().__init__()
        self._upstream = _Upstream(self, self._take_events)

    def on_events(self, events: list[Any], producer: Ref) -> None:
        """Handle events; when it returns, they count as handled."""
        raise NotImplementedError

    def on_receive(self, message: Any) -> Any:
        """Handle events and ask for more; pass everything else on."""
        mine, then = self._upstream.handle(message)
        return then if mine else self.on_message(message)

    def _take_events(self, events: list[Any], producer: Ref) -> None:
        self.on_events(events, producer)
        source = self._upstream.sources.get(producer)
        if source is None:
            return
        if source.manual:
            source.window.outstanding -= len(events)
        elif count := source.window.handled(len(events)):
            self._upstream.ask(producer, count)


class ProducerConsumer(_Receiving, _Emitting):
    """A stage in between. Override `on_events`; it asks its one producer for what its consumers ask of it."""

    expansion: ClassVar[int] = 1
    """Into how many events one may be turned at most. Nothing is asked for until so many are wanted."""

    def __init__(self) -> None:
        super().__init__(self.expansion)
        self._upstream = _Upstream(self, self._take_events, self._move_on)
        self._on_the_way = 0
        self._held: deque[Any] = deque()

    def on_events(self, events: list[Any], producer: Ref) -> Iterable[Any]:
        """Turn events into others, at most `expansion` for each."""
        raise NotImplementedError

    def on_receive(self, message: Any) -> Any:
        """Pass demand up and events down; pass everything else on."""
        mine, then = self._upstream.handle(message)
        if not mine and not self._downstream.handle(message):
            return self.on_message(message)
        self._move_on()
        return then

    def _take_events(self, events: list[Any], producer: Ref) -> None:
        self._on_the_way -= len(events)
        made = list(self.on_events(events, producer))
        if len(made) > len(events) * self.expansion:
            raise DemandExceeded(
                f"{type(self).__name__} made {len(made)} events of {len(events)}",
                hint=f"say so with `expansion`; it is {self.expansion}",
            )
        self._held.extend(made)

    def _move_on(self) -> None:
        """Emit what is held, and ask for what is wanted beyond it.

        Something is held only when the consumer that had asked for it has ended meanwhile.
        """
        if len(self._upstream.sources) > 1:
            raise ConfigurationError(f"{type(self).__name__} has a producer already", hint="put one stage behind each")
        ready = [self._held.popleft() for _ in range(min(self.demand, len(self._held)))]
        self.emit(ready)
        for producer, source in self._upstream.sources.items():
            wanted = (self.demand - len(self._held)) // self.expansion
            room = min(wanted, source.window.most) - self._on_the_way
            if room > 0:
                self._on_the_way += room
                self._upstream.ask(producer, room)
