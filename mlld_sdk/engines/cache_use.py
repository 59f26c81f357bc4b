"""Which stored model calls one request has used, so that they can be forgotten."""

from collections.abc import Sequence
from typing import Final

from mlld_sdk.scripts import results
from mlld_sdk.transport.wire import EngineEvent

LOOK_UPS: Final = frozenset({"checkpoint:hit", "checkpoint:miss"})


class CacheUse:
    """The keys of the calls that were served to a request or stored for it, as its engine tells them.

    A request that is made again adds to them. Live engines tell of none.

    Attributes:
        keys: The keys.
    """

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def push(self, events: Sequence[EngineEvent]) -> None:
        """Take events of the request."""
        for event in events:
            if event.type in LOOK_UPS:
                key = results.as_object(event.body.get("checkpoint")).get("key")
                if isinstance(key, str):
                    self.keys.add(key)
