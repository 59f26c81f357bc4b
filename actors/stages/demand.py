"""The arithmetic of demand: how many events a consumer still wants, and who gets the next ones. Pure data.

A producer may only emit what was asked for. `Window` is the consumer's half: when to ask again, and for how
many. The producer's half is a mapping from each consumer to how many it wants; the three ways to deal events out are
functions from that and a batch to the shares.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Literal, TypeVar

S = TypeVar("S", bound=Hashable)
E = TypeVar("E")

Dealing = Literal["demand", "broadcast", "partition"]


class Window:
    """How much one consumer has asked of one producer.

    It asks for `most` at once and asks again as soon as no more than `least` are outstanding, so the producer can work
    ahead while the consumer works through what it has, and never further than `most`.
    """

    def __init__(self, most: int, least: int) -> None:
        self.most = most
        self.least = least
        self.outstanding = 0

    def first(self) -> int:
        """Return how many to ask for at the beginning."""
        self.outstanding = self.most
        return self.most

    def handled(self, count: int) -> int:
        """Note that `count` events were worked through; return how many to ask for now (perhaps none)."""
        self.outstanding -= count
        if self.outstanding > self.least:
            return 0
        ask, self.outstanding = self.most - self.outstanding, self.most
        return ask


def open_demand(wanted: Mapping[S, int], dealing: Dealing) -> int:
    """Return how many events a producer may emit now without anything having to be kept.

    Dealt by demand: as many as all want together. Broadcast: as many as the least eager wants, for each gets every
    event. Partitioned: as many as the least eager wants too, because the next events may be for any partition.
    """
    if not wanted:
        return 0
    return sum(wanted.values()) if dealing == "demand" else min(wanted.values())


def deal_by_demand(wanted: Mapping[S, int], events: Sequence[E]) -> dict[S, list[E]]:
    """Send each event to one subscriber, in batches, the most eager first."""
    rest = iter(events)
    eager_first = sorted(wanted.items(), key=lambda item: -item[1])
    return {subscriber: share for subscriber, count in eager_first if (share := list(islice(rest, count)))}


def deal_to_all(wanted: Mapping[S, int], events: Sequence[E]) -> dict[S, list[E]]:
    """Send every event to every subscriber."""
    return {subscriber: list(events) for subscriber in wanted} if events else {}


def deal_by_partition(
    partitions: Mapping[S, Hashable], events: Sequence[E], partition_of: Callable[[E], Hashable]
) -> dict[S, list[E]]:
    """Send each event to the subscriber of its partition; an event of no partition is a mistake of the producer."""
    owners = {partition: subscriber for subscriber, partition in partitions.items()}
    shares: dict[S, list[E]] = {}
    for event in events:
        partition = partition_of(event)
        if partition not in owners:
            raise ValueError(f"an event belongs to partition {partition!r}, and there is no such partition")
        shares.setdefault(owners[partition], []).append(event)
    return shares
