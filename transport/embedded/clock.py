"""The engine's clocks, without the host's `Env`: the engine starts hundreds of times and imports cost."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple


class Clock(NamedTuple):
    """Where time comes from.

    Attributes:
        now: Monotonic seconds, for durations.
        wall: Seconds since the epoch, for records.
        sleep: Waits for some seconds.
    """

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_REALTIME)
    sleep: Callable[[float], None] = time.sleep

    def iso(self) -> str:
        """Return the wall clock as ISO text with milliseconds and `Z`."""
        now = int(self.wall() * 1000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1000)) + f".{now % 1000:03d}Z"
