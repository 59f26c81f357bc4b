"""Timers: one thread and one heap for all actors of a system."""

from collections.abc import Callable


class Timer:
    """The handle of one timer."""

    def cancel(self) -> float | None:
        """Call it off.

        Returns:
            Seconds that were left, or `None` when it had fired or was cancelled before.
        """
        raise NotImplementedError


class Timers:
    """Runs quick callables at their time, in one thread that exists only while there are timers."""

    def after(self, delay: float, action: Callable[[], object]) -> Timer:
        """Run `action()` after `delay` seconds of the env's clock. It must be quick and must not block."""
        raise NotImplementedError

    def wake(self) -> None:
        """Look at the clock again: a test moved it."""
        raise NotImplementedError
