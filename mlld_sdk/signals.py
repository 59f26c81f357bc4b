"""SIGTERM and SIGINT as words in a queue, with the handlers that were there before put back afterwards."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def caught_signals(words: "SimpleQueue[str]") -> Iterator[None]:
    """Put the name of each SIGTERM and SIGINT into the queue, inside the block.

    Outside the main thread nothing can be caught, and nothing is. The queue is a `SimpleQueue` because its `put` may
    interrupt its own `get`, which a handler does.
    """

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape signal handlers have
        words.put(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # both are caught from the same moment on
    before = {number: signal.signal(number, handle) for number in STOPPING}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
