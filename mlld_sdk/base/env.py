"""The outside world as one value: clocks and randomness.

Nothing in the library reads a clock or rolls a die by itself; it asks the `Env` it was given. Tests hand in an `Env`
whose clock stands still until they move it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True)
class Env:
    """Where time and chance come from.

    Attributes:
        now: Monotonic seconds. Every deadline and window is measured with it.
        wall: Seconds since the epoch, for records and reports. Never for arithmetic that decides something.
        random: Source of jitter and ids that need not be secret.
    """

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    random: Random = field(default_factory=Random)
