"""The one thread that waits: for the output of every engine, for their deaths, for deadlines."""

from __future__ import annotations

from collections.abc import Callable

from mlld_sdk.env import Env

__all__ = ["Reactor", "Timer", "shared_reactor"]


class Timer:
    """A function that will be called at a time, unless cancelled before."""

    def cancel(self) -> None:
        """Forget it. Harmless when it has fired."""
        raise NotImplementedError


class Reactor:
    """An I/O thread. Most programs never see it: engines share one."""

    def __init__(self, *, name: str = "mlld-shared-io", env: Env | None = None) -> None:
        raise NotImplementedError

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run the function on the reactor's thread. Callable from any thread."""
        raise NotImplementedError

    def call_at(self, when: float, function: Callable[[], None]) -> Timer:
        """Run the function on the reactor's thread when `Env.now` has reached `when`. Callable from any thread."""
        raise NotImplementedError

    def close(self) -> None:
        """Kill the engines that are left, end the thread and wait for it."""
        raise NotImplementedError


def shared_reactor() -> Reactor:
    """Give the process-wide reactor, started when first needed."""
    raise NotImplementedError
