"""What working on runs needs of the runtime around it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Sink
from mlld_sdk.journal import Journal


@dataclass(frozen=True, slots=True)
class RunServices:
    """The journal and what goes with it.

    Attributes:
        journal: The runs.
        env: Clocks and chance.
        sink: Takes events.
    """

    journal: Journal
    env: Env
    sink: Sink
    _unsettled: deque[Callable[[], None]] = field(default_factory=deque)

    def settle_later(self, write: Callable[[], None]) -> None:
        """Keep the end of a run's ownership until the journal takes it; `write` may come back here."""
        self._unsettled.append(write)

    def settle_again(self) -> None:
        """Try once to write what could not be written."""
        for _ in range(len(self._unsettled)):
            self._unsettled.popleft()()
