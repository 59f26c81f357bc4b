"""Reaching an event loop from the threads beside it, which may outlive it."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def from_any_thread(function: Callable[[Unpack[Ts]], object]) -> Callable[[Unpack[Ts]], None]:
    """Return what has the running loop call `function`, from whichever thread; nothing once that loop is closed."""
    import asyncio

    loop = asyncio.get_running_loop()

    def call(*args: *Ts) -> None:
        with suppress(RuntimeError):  # the loop is closed, and with it the waiting
            loop.call_soon_threadsafe(function, *args)

    return call


def settle(future: "asyncio.Future[T]", result: T) -> None:
    """Give a future its result, unless nobody waits for that any more."""
    if not future.done():
        future.set_result(result)
