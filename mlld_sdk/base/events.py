"""What happened, as values: the base of every event and the way events leave a layer.

A layer declares its own events as subclasses of `Event` in its module `events` and hands each to the `Sink` it was
given, exactly once for each transition. Log lines, metrics, the command line and tests are views of that one stream;
no layer writes logs of its own.
"""

from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. Subclasses are named in the past tense and tagged `noun.verb`.

    Attributes:
        at: Wall-clock seconds since the epoch.
    """

    at: float


def name_of(event: Event) -> str:
    """Return the event's name, its tag: `agent.restarted`, `engine.exited`."""
    return str(event.__struct_config__.tag)


Sink = Callable[[Event], None]
"""Takes one event. Must not block and must not raise; the bus wraps what users attach so that neither can be felt."""


def discard(event: Event) -> None:
    """Drop an event: the sink of a layer without listeners."""


def is_listened(sink: Sink) -> bool:
    """Whether every single request is to be told, and not only those that fail.

    A sink whose attribute `listened` is false has no listener for it: requests may be so many that telling costs more
    than making them.
    """
    return getattr(sink, "listened", True)
