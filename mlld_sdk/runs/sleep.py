"""Waiting as a job: until a moment of the wall clock, or until the job may take no more steps."""

import math
import threading
from collections.abc import Generator

from mlld_sdk.base.env import Env

LONGEST_LOOK = 60.0
"""Seconds between two looks at the wall clock, which may be set while somebody waits for it."""


class Rest:
    """Who waits on purpose in a job and its branches. Only the wall clock means the same to the next owner of a run."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._resting = 0
        self._over = threading.Event()

    def until(self, moment: float, most: float = math.inf) -> None:
        """Wait until a moment of the wall clock, `most` seconds at most, or until `end`."""
        for seconds in self.naps(moment, most):
            self._over.wait(seconds)

    def naps(self, moment: float, most: float = math.inf) -> Generator[float, None, None]:
        """Give one after the other how long to wait until a moment; whoever iterates counts as resting."""
        latest = self._env.now() + most
        with self._lock:
            self._resting += 1
        try:
            while not self._over.is_set():
                left = min(moment - self._env.wall(), latest - self._env.now())
                if left <= 0:
                    return
                yield min(left, LONGEST_LOOK)
        finally:
            with self._lock:
                self._resting -= 1

    @property
    def any(self) -> bool:
        """Whether somebody rests."""
        return self._resting > 0

    @property
    def over(self) -> bool:
        """Whether nobody may rest any more."""
        return self._over.is_set()

    def end(self) -> None:
        """Wake everybody, for good."""
        self._over.set()
