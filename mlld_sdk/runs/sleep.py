"""Waiting as a job: until a moment of the wall clock, or until the job may take no more steps."""

import math
import threading
from collections.abc import Generator

from mlld_sdk.base.env import Env

LONGEST_LOOK = 60.0
"""Seconds between two looks at the wall clock, which may be set while a job waits for it."""


class Sleepers:
    """The waiting on purpose of a job and its branches, by the wall clock, which a run's next owner shares."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._sleeping = 0
        self._over = threading.Event()

    def until(self, moment: float, most: float = math.inf) -> None:
        """Wait until a moment of the wall clock, `most` seconds at most, or until `end`."""
        for seconds in self.naps(moment, most):
            self._over.wait(seconds)

    def naps(self, moment: float, most: float = math.inf) -> Generator[float, None, None]:
        """Yield how long to wait, again and again until a moment; the job counts as sleeping while this is iterated."""
        latest = self._env.now() + most
        with self._lock:
            self._sleeping += 1
        try:
            while not self._over.is_set():
                left = min(moment - self._env.wall(), latest - self._env.now())
                if left <= 0:
                    return
                yield min(left, LONGEST_LOOK)
        finally:
            with self._lock:
                self._sleeping -= 1

    @property
    def any(self) -> bool:
        """Whether any thread or task sleeps."""
        return self._sleeping > 0

    @property
    def over(self) -> bool:
        """Whether sleeping is over for good."""
        return self._over.is_set()

    def end(self) -> None:
        """Wake all that sleep, and let none sleep from now on."""
        self._over.set()
