"""SIGTERM and SIGINT as words that the main thread waits for, with the handlers that were there before put back."""

import contextlib
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


class SignalQueue:
    """A queue of words: any thread and any signal handler puts them in, and one thread waits for them.

    The kernel may deliver a signal to any thread, and a main thread that waits in a lock would not notice. So it waits
    for a pipe instead, which both the signal machinery and `put` write to.
    """

    def __init__(self) -> None:
        self._said: deque[str] = deque()
        self._lock = threading.RLock()  # a signal handler may put a word while the main thread closes
        self._closed = False
        self._read, self.wake = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self.wake, False)

    def put(self, word: str) -> None:
        """Add a word; callable from a signal handler."""
        self._said.append(word)
        with self._lock, contextlib.suppress(BlockingIOError):  # full: the wake-up is pending
            if not self._closed:  # the number may be that of another file by now
                os.write(self.wake, b"\0")

    def get(self) -> str:
        """Wait for the next word."""
        while True:
            try:
                return self._said.popleft()
            except IndexError:
                select.select([self._read], [], [])
                with contextlib.suppress(BlockingIOError):
                    os.read(self._read, 4096)

    def close(self) -> None:
        """Close the pipe."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read)
                os.close(self.wake)


@contextlib.contextmanager
def caught_signals(words: SignalQueue) -> Iterator[None]:
    """Put the name of each SIGTERM and SIGINT into the queue, inside the block.

    Outside the main thread no signal can be caught, and none is.
    """

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape signal handlers have
        words.put(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # both are caught from the same moment on
    wake_before = signal.set_wakeup_fd(words.wake, warn_on_full_buffer=False)
    before = {number: signal.signal(number, handle) for number in STOPPING}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wake_before)
        for number, handler in before.items():
            signal.signal(number, handler)
