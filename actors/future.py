"""A Pykka future that is cheap until somebody waits for it."""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import concurrent.futures
import pykka

T = TypeVar("T")


class Future(pykka.Future[T]):
    """The answer to a call, now or later. Everything `pykka.Future` can do, and:

    - no lock or condition exists until a thread really waits;
    - `await` works on any event loop and never blocks it;
    - `on_done` calls back exactly once, in the thread that answered (or at once, when the answer is there);
    - a thread that waits inside an actor lets the scheduler run others meanwhile.
    """

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait for the answer. Raises `CallTimeout` (a `pykka.Timeout`), or what the actor answered."""
        raise NotImplementedError

    def set(self, value: Any = None) -> None:
        """Answer with a value. Raises `queue.Full` if it is answered already, as Pykka does."""
        raise NotImplementedError

    def set_exception(self, exc_info: Any = None) -> None:
        """Answer with an exception, by default the one being handled."""
        raise NotImplementedError

    def try_set(self, value: Any = None) -> bool:
        """Answer with a value; say whether this was the first answer."""
        raise NotImplementedError

    def try_set_exception(self, error: BaseException) -> bool:
        """Answer with an exception; say whether this was the first answer."""
        raise NotImplementedError

    @property
    def done(self) -> bool:
        """Whether there is an answer."""
        raise NotImplementedError

    def exception(self) -> BaseException | None:
        """The exception answered, or `None`; only when `done`."""
        raise NotImplementedError

    def on_done(self, callback: "Callable[[Future[T]], None]") -> None:
        """Call `callback(self)` once answered. It must be quick and must not block; what it raises is reported."""
        raise NotImplementedError

    def cancel(self) -> bool:
        """Give the call up: a request still queued is not executed, an `async` handler is cancelled.

        Returns:
            Whether it was still unanswered.
        """
        raise NotImplementedError

    def to_concurrent(self) -> "concurrent.futures.Future[T]":
        """Bridge to the standard library's thread futures."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, T]:
        raise NotImplementedError
