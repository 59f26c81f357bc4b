"""The two directions of an engine's pipe: lines that wait to be written, bytes that wait to become lines."""

import contextlib
import os
import select
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable

from mlld_sdk.base.secrets import LONGEST, redacted
from mlld_sdk.transport.reactor import Reactor

_CHUNK = 65536
_LONGEST_WAIT = 86400.0  # the system counts milliseconds in 31 bits


class Outgoing:
    """Lines on their way into a pipe that may be full.

    The thread that sends writes, with what others have queued meanwhile. Where many requests are in flight the
    writing is left to the reactor, which is woken once and writes a whole burst at once. What a full pipe does not
    take waits here; the owner refuses new requests while `backlog` is beyond its limit.
    """

    __slots__ = ("_blocked", "_broken", "_dirty", "_fd", "_lock", "_queue", "_reactor", "backlog")

    def __init__(self, fd: int, reactor: Reactor, broken: Callable[[], None]) -> None:
        self._fd = fd
        self._reactor = reactor
        self._broken = broken
        self._queue: deque[bytes | memoryview] = deque()
        self._lock = allocate_lock()
        self._blocked = False
        self._dirty = False
        self.backlog = 0
        """Bytes that wait. Exact whenever the queue is empty; in between good enough for a limit."""

    def send(self, line: bytes, *, patient: bool) -> None:
        """Queue a line and see to it that it is written: at once, or a patient one by the reactor's next round."""
        if not patient and not self._queue and self._lock.acquire(False):
            # Nothing waits and no other thread writes: the shortest way, so that the engine begins at once.
            try:
                if not self._queue and not self._blocked:
                    self._write(line)
                    line = b""
            finally:
                self._lock.release()
            if not line:
                if self._queue:  # another came while the lock was held
                    self.flush()
                return
        self.queue(line)
        if self._blocked:
            return
        if patient:
            if not self._dirty:
                self._dirty = True
                self._reactor.dirty.append(self.flush)
            self._reactor.wake()
            return
        self.flush()

    def queue(self, line: bytes) -> None:
        """Queue a line that another thread is going to `flush`."""
        self.backlog += len(line)  # before it can be written, since the writer counts anew afterwards
        self._queue.append(line)

    def flush(self) -> None:
        """Write what waits, unless another thread is at it or the pipe is full."""
        self._dirty = False
        while self._queue and not self._blocked and self._lock.acquire(False):
            try:
                self._write_all()
            finally:
                self._lock.release()

    def withdraw(self, line: bytes) -> bool:
        """Take back a line of which nothing has been written; false if it is too late."""
        with self._lock:
            try:
                self._queue.remove(line)
                self.backlog -= len(line)
                withdrawn = True
            except ValueError:
                withdrawn = False
        self.flush()  # for who came while the lock was held
        return withdrawn

    def close(self) -> None:
        """Close the pipe: the engine reads end of file after what has been written."""
        with self._lock:
            fd, self._fd = self._fd, -1
            self._queue.clear()
            self.backlog = 0
            if fd >= 0:
                self._reactor.forget(fd)
                os.close(fd)

    def abandon(self) -> None:
        """In a forked child: close the copy of the descriptor and touch nothing else."""
        self._lock = allocate_lock()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write_all(self) -> None:
        queue = self._queue
        while queue and not self._blocked:
            data = queue.popleft()
            self._write(self._joined(data) if queue and len(data) < _CHUNK else data)
        self.backlog = sum(map(len, queue)) if queue else 0

    def _write(self, data: bytes | memoryview) -> None:
        """Write what the pipe takes; the rest becomes the first in the queue."""
        if self._fd < 0:
            self._queue.clear()
            return
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._queue.clear()
            self._broken()
            return
        if written < len(data):
            rest = memoryview(data)[written:]
            self._queue.appendleft(rest)
            self.backlog += len(rest)
            self._blocked = True
            self._reactor.watch_write(self._fd, self._writable)

    def _joined(self, first: bytes | memoryview) -> bytes:
        parts, size = [first], len(first)
        with contextlib.suppress(IndexError):
            while size < _CHUNK:
                part = self._queue.popleft()
                parts.append(part)
                size += len(part)
        return b"".join(parts)

    def _writable(self) -> None:
        with self._lock:
            if self._fd >= 0:
                self._reactor.forget(self._fd)
                self._blocked = False
                self._write_all()
        self.flush()  # for who came while the lock was held


class LineTooLong(Exception):
    """A line grew beyond its limit."""


class LineBuffer:
    """Pieces of a stream, given back as blocks of whole lines."""

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take a piece; return every line that is complete now as one block, or nothing."""
        end = data.rfind(b"\n") + 1
        if end == len(data) and not self._parts:
            return data
        if not end:
            self._parts.append(data)
            self._size += len(data)
            if self._size > self._limit:
                raise LineTooLong
            return None
        block = b"".join([*self._parts, data[:end]])
        rest = data[end:]
        self._parts = [rest] if rest else []
        self._size = len(rest)
        return block

    def rest(self) -> bytes:
        """Take out the last line, the one that never got its newline."""
        rest = b"".join(self._parts)
        self._parts, self._size = [], 0
        return rest


class Tail:
    """The end of a stream of text, bounded."""

    __slots__ = ("_kept", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = b""

    def feed(self, data: bytes) -> None:
        """Take a piece; forget what is too old."""
        self._kept = (self._kept + data)[-self._limit - LONGEST :] if self._limit else b""

    @property
    def text(self) -> str:
        """What is kept, with secrets hidden in it."""
        text = redacted(self._kept.decode("utf-8", "replace"))  # before it is cut, maybe in the middle of a secret
        return text.encode("utf-8", "replace")[-self._limit :].decode("utf-8", "replace") if self._limit else ""


class Seat:
    """Where a lone caller waits for the answer itself: on the engine's pipe, and on a bell others can ring.

    Attributes:
        taken_by: The thread that waits here.
    """

    __slots__ = ("_bell_read", "_bell_write", "_fd", "_lock", "_poll", "taken_by")

    def __init__(self, fd: int) -> None:
        self.taken_by: int | None = None
        self._fd = fd
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        if hasattr(os, "eventfd"):
            self._bell_read = self._bell_write = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._bell_read, self._bell_write = os.pipe()
            os.set_blocking(self._bell_read, False)
            os.set_blocking(self._bell_write, False)
        self._poll.register(self._bell_read, select.POLLIN)

    def wait(self, limit: float) -> bool:
        """Wait until the engine has said something (true), the bell was rung or the time is over."""
        heard = False
        for fd, _ in self._poll.poll(min(limit, _LONGEST_WAIT) * 1000 + 1 if limit > 0 else 0):
            if fd == self._fd:
                heard = True
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._bell_read, 8)
        return heard

    def ring(self) -> None:
        """Wake the thread that waits here, unless that is the caller itself."""
        if self.taken_by == threading.get_ident():
            return
        with self._lock:
            if self._bell_write >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._bell_write, b"\1\0\0\0\0\0\0\0")

    def close(self) -> None:
        """Close the bell."""
        with self._lock:
            for fd in {self._bell_read, self._bell_write}:
                if fd >= 0:
                    os.close(fd)
            self._bell_read = self._bell_write = -1
