"""Callers who read the engine's pipe themselves, instead of waiting for the I/O thread to read it for them.

An answer that the I/O thread reads costs two changes of thread, which is more than all the rest. So a caller that waits
reads for itself if only its own calls are in flight, and *leads* meanwhile: it has the lock for reading, and the
reactor does not watch the pipe.

Taking the pipe from the reactor and giving it back costs system calls too, and wakes a thread that then competes for
the interpreter. A thread that comes back for the next answer at once therefore gets a *lease*: between two waits the
pipe is left unwatched, and lines behind the first are left unwritten until it waits again, for `LEASE` at most. One
timer of the reactor sees to it. A lease ends early as soon as another thread or a callback waits for an outcome.
"""

from _thread import allocate_lock, get_ident

from mlld_sdk.base.durations import FOREVER, Duration, seconds
from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.call_table import CallTable
from mlld_sdk.transport.channel import Channel
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.pipes import Seat

LEASE = 0.005
"""Seconds the pipe may be left to a thread that has just waited for an answer. What nothing waits for meanwhile is late
by no more than this, which is also how long the interpreter may leave one thread waiting for another."""


class InlineReader:
    """Decides which thread reads an engine's answers: the reactor's, or a caller's.

    Attributes:
        lock: Is held while answers are read, so that only one thread reads.
        is_watched: The reactor watches the pipe.
        lent: The thread that has the lease, or 0.
    """

    def __init__(self, core: EngineCore, channel: Channel, table: CallTable) -> None:
        """Watch nothing yet: see `watch`."""
        self.lock = allocate_lock()
        self.is_watched = False
        self.lent = 0
        self._core = core
        self._child = core.child
        self._reactor = core.reactor
        self._channel = channel
        self._table = table
        self._seat: Seat | None = None
        self._reader: int | None = None
        self._led_at = -FOREVER

    @property
    def is_inside(self) -> bool:
        """Whether the caller is a callback, run by the thread it would have to wait for."""
        return get_ident() in (self._reader, self._reactor.ident)

    def refuse_inside(self) -> None:
        """Raise for a callback that waits for the thread it runs on."""
        if self.is_inside:
            raise InfrastructureError(
                "waiting for an engine inside its own callback would last for ever", hint="use add_done_callback"
            )

    def wait(self, call: Call, timeout: Duration | None) -> bool:
        """Wait for a call by reading, if only this thread waits; false if the caller has to wait otherwise."""
        me = get_ident()
        if me in (self._reader, self._reactor.ident):
            self.refuse_inside()
        table, core = self._table, self._core
        concerned = table.owner == me
        if not (concerned or len(table.pending) == 1) or core.ending is not None or not self.take():
            if not concerned:
                table.owner = 0
            self._hand_back()
            return False
        now = self._reactor.now()
        comes_often = 0.0 < now - self._led_at < LEASE
        self._led_at = now
        until = None if timeout is None else core.now() + seconds(timeout, above=-FOREVER)
        self.lead(call, until, send=False, lend=comes_often)
        if call.is_over:
            return True
        if until is not None and core.now() >= until:
            raise TimeoutError
        self._hand_back()
        return False

    def take(self) -> bool:
        """Become the thread that reads, with a place to wait; false if another reads or no descriptor is left."""
        if not self.lock.acquire(False):
            return False
        try:
            if self._seat is None:
                self._seat = Seat(self._child.answers)
        except (OSError, ValueError):  # no descriptor left, or the engine has just ended
            self.release()
            return False
        return True

    def lead(self, call: Call, until: float | None, *, send: bool, lend: bool) -> None:
        """Read the pipe on the caller's thread until the call is done, or there is reason to leave it to the reactor.

        The lock is held at the beginning and released at the end.
        """
        seat, channel, core = self._seat, self._channel, self._core
        assert seat is not None
        try:
            self._reader = seat.taken_by = get_ident()
            call.seat = seat
            if self.is_watched:
                self.is_watched = False
                self._reactor.forget(self._child.answers)
            if send:
                channel.outgoing.send(call.line, patient=False)
            else:
                channel.outgoing.flush()
            limit = call.deadline if until is None else min(until, call.deadline)
            while not (call.is_over or channel.is_at_end or core.finish_wanted):
                left = limit - core.now()
                if seat.wait(left):  # once at least: who asks again and again, without waiting, has the lease too
                    channel.read()
                if left <= 0:
                    break
            if channel.is_at_end or core.finish_wanted:
                core.end.settle_led(call)
        finally:
            call.seat = None
            self._reader = seat.taken_by = None
            pending = self._table.pending
            if lend and not self.lent:
                self.lent = get_ident()
                self._reactor.call_at(self._reactor.now() + LEASE, self._lease_over)
            # Unless others are in flight a lone caller's next call finds the pipe as it left it; any other caller hands
            # it back (`watch`).
            if core.ending is not None or (pending and not self._is_kept):
                self._watch_locked()
            self.lock.release()
            if core.finish_wanted:
                self._reactor.call_soon(core.end.finish)
            if not call.is_over:
                self._table.watch_deadline(call.deadline)
            if pending and not self._is_kept:
                self.watch()

    @property
    def _is_kept(self) -> bool:
        """Whether the thread that has the lease is the only one that waits, so that it may keep the pipe."""
        return self.lent == self._table.owner == get_ident()

    def leave(self, line: bytes) -> None:
        """Leave a line to the thread that has the lease: it is about to wait again and then writes all there is."""
        self._channel.outgoing.queue(line)
        if not self.lent:  # it ended before the line was there to be seen
            self._channel.outgoing.flush()

    def _lease_over(self) -> None:
        self.lent = 0  # first: who sees it still set has queued its line before we look
        self._channel.outgoing.flush()
        if self._table.pending:
            self.watch()

    def attend(self) -> None:
        """End the lease because a callback or another thread is to learn of an outcome."""
        self._table.owner = 0
        self._hand_back()

    def _hand_back(self) -> None:
        if not self.is_watched and self._table.pending:
            self._channel.outgoing.flush()
            self.watch()

    def watch(self) -> None:
        """Have the reactor read again after a caller has. Harmless when it does, or while a caller reads."""
        if not self.is_watched and self.lock.acquire(False):
            try:
                self._watch_locked()
            finally:
                self.release()

    def _watch_locked(self) -> None:
        if not (self.is_watched or self._channel.is_at_end or self._core.finished):
            self.is_watched = True
            self._reactor.watch_read(self._child.answers, self._on_readable)

    def _on_readable(self) -> None:
        if self.lock.acquire(False):
            try:
                self._channel.read()
            finally:
                self.lock.release()
            if self._channel.is_at_end:
                self._reactor.call_soon(self._core.end.on_broken)

    def release(self) -> None:
        """Allow another thread to read."""
        self.lock.release()
        if self._core.finish_wanted:
            self._reactor.call_soon(self._core.end.finish)

    def wake(self) -> None:
        """Make the caller that reads leave; `finish` is called then."""
        if self._seat is not None:
            self._seat.ring()

    def close(self) -> None:
        """Close the place to wait."""
        if self._seat is not None:
            self._seat.close()

    def abandon(self) -> None:
        """In a forked child: forget the parent's threads."""
        self.lock = allocate_lock()
