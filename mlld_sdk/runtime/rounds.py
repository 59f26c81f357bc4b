"""When the runtime looks around."""

import threading
from collections.abc import Iterator
from typing import Final

from mlld_sdk.base.env import Env

ROUNDS: Final = 1.0
"""Seconds between two looks for runs other processes have submitted or left behind, and for engines long idle."""


class Rounds:
    """Gives a turn each `ROUNDS` seconds until `end`, and one whenever a test has moved the clock.

    The seconds are real: other processes go on, whatever a test does to the clock of this one.
    """

    def __init__(self, env: Env) -> None:
        self._env = env
        self._over = False
        self._now = threading.Event()

    def __iter__(self) -> Iterator[None]:
        unwatch = self._env.watch(self._now.set)
        try:
            while True:
                self._now.wait(ROUNDS)
                self._now.clear()
                if self._over:
                    return
                yield
        finally:
            unwatch()

    def end(self) -> None:
        """Give no more turns."""
        self._over = True
        self._now.set()
