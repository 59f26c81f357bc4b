"""Callers who read the engine's pipe themselves, instead of waiting for the I/O thread to read it for them.

An answer that the I/O thread reads costs two changes of thread, which is more than all the rest. So whoever waits
reads for itself if only its own calls are in flight, and is the *leader* meanwhile: it has the read lock, and the
reactor does not watch the pipe.

Taking the pipe from the reactor and giving it back costs system calls too, and wakes a thread that then competes for
the interpreter. A thread that comes back for the next answer at once therefore gets a *lease*: between two waits the
pipe is left unwatched, and lines behind the first are left unwritten until it waits again, for `LEASE` at most. One
timer of the reactor sees to it. A lease ends early as soon as anybody else is concerned: another thread, or a callback
on an outcome.
"""

from __future__ import annotations

from _thread import get_ident
from datetime import timedelta

from mlld_sdk.base.durations import FOREVER, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.base.events import Sink
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.child import Child
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.pipes import Seat
from mlld_sdk.transport.reactor import Reactor
from mlld_sdk.transport.reading import Reading

__all__ = ["LEASE", "Leading"]

LEASE = 0.005
"""Seconds the pipe may be left to a thread that has just waited for an answer. What nobody waits for meanwhile is late
by no more than this, which is also how long the interpreter may leave one thread waiting for another."""


class Leading(Reading):
    """The part of an engine that lends its pipe to callers."""

    def __init__(
        self, child: Child, *, label: str, limits: EngineLimits, reactor: Reactor, env: Env, sink: Sink
    ) -> None:
        super().__init__(child, label=label, limits=limits, reactor=reactor, env=env, sink=sink)
        self._watched = True
        self._lent = 0  # the thread that has the lease
        self._led_at = -FOREVER
        # The only thread with calls in flight, 0 if there are several or somebody else is concerned. A hint: when two
        # threads begin at once it may name one of them, and the other's call is then late by a lease.
        self._owner = 0

    def _watch_deadline(self, deadline: float) -> None:
        """See to it that somebody looks when this deadline passes."""
        raise NotImplementedError

    def _end_while_led(self, call: Call) -> None:
        """Give the call of who reads its outcome if the process has ended, without waiting for the reactor."""
        raise NotImplementedError

    @property
    def _is_inside(self) -> bool:
        """Whether the caller is a callback, run by the thread it would have to wait for."""
        return get_ident() in (self._reader, self._reactor.ident)

    def _refuse_inside(self) -> None:
        if self._is_inside:
            raise InfrastructureError(
                "waiting for an engine inside its own callback would last for ever", hint="use add_done_callback"
            )

    def _wait_as_reader(self, call: Call, timeout: float | timedelta | None) -> bool:
        """Wait for a call by reading, if that concerns nobody else; false if the caller has to wait otherwise."""
        me = get_ident()
        if me in (self._reader, self._reactor.ident):
            self._refuse_inside()
        concerned = self._owner == me
        if not (concerned or len(self._pending) == 1) or self._ending is not None or not self._take_read_lock():
            if not concerned:
                self._owner = 0
            self._hand_back()
            return False
        now = self._reactor.now()
        comes_often = 0.0 < now - self._led_at < LEASE
        self._led_at = now
        until = None if timeout is None else self._now() + seconds(timeout, above=-FOREVER)
        self._lead(call, until, send=False, lend=comes_often)
        if call.done():
            return True
        if until is not None and self._now() >= until:
            raise TimeoutError
        self._hand_back()
        return False

    def _take_read_lock(self) -> bool:
        """Become the one who reads, with a place to wait; false if somebody reads or there is no descriptor left."""
        if not self._read_lock.acquire(False):
            return False
        try:
            if self._seat is None:
                self._seat = Seat(self._child.answers)
        except (OSError, ValueError):  # no descriptor left, or the engine has just ended
            self._release_read_lock()
            return False
        return True

    def _lead(self, call: Call, until: float | None, *, send: bool, lend: bool) -> None:
        """Read the pipe on the caller's thread until the call is done, or there is reason to leave it to the reactor.

        The read lock is held at the beginning and released at the end.
        """
        seat = self._seat
        assert seat is not None
        try:
            self._reader = get_ident()
            self._leading = call
            if self._watched:
                self._watched = False
                self._reactor.forget(self._child.answers)
            if send:
                self._outgoing.send(call._line, patient=False)
            else:
                self._outgoing.flush()
            limit = call.deadline if until is None else min(until, call.deadline)
            while not (call._done or self._eof or self._finish_wanted):
                left = limit - self._now()
                if seat.wait(left):  # once at least: who asks again and again, without waiting, has the lease too
                    self._read()
                if left <= 0:
                    break
            if self._eof or self._finish_wanted:
                self._end_while_led(call)
        finally:
            self._leading = self._reader = None
            if lend and not self._lent:
                self._lend()
            # Unless others are in flight a lone caller's next call finds the pipe as it left it; whoever else comes
            # hands it back (`_watch`).
            if self._ending is not None or (self._pending and not self._is_kept):
                self._watch_locked()
            self._release_read_lock()
            if not call._done:
                self._watch_deadline(call.deadline)
            if self._pending and not self._is_kept:
                self._watch()

    # -- the lease

    @property
    def _is_kept(self) -> bool:
        """Whether the thread that has the lease is the only one concerned, so that it may keep the pipe."""
        return self._lent == self._owner == get_ident()

    def _lend(self) -> None:
        self._lent = get_ident()
        self._reactor.call_at(self._reactor.now() + LEASE, self._lease_over)

    def _leave(self, line: bytes) -> None:
        """Leave a line to the thread that has the lease: it is about to wait again and then writes all there is."""
        self._outgoing.queue(line)
        if not self._lent:  # it ended before the line was there to be seen
            self._outgoing.flush()

    def _lease_over(self) -> None:
        self._lent = 0  # first: who sees it still set has queued its line before we look
        self._outgoing.flush()
        if self._pending:
            self._watch()

    def _attend(self) -> None:
        """End the lease because somebody is concerned who does not read."""
        self._owner = 0
        self._hand_back()

    def _hand_back(self) -> None:
        if not self._watched and self._pending:
            self._outgoing.flush()
            self._watch()

    def _watch(self) -> None:
        """Have the reactor read again after a caller has. Harmless when it does, or while somebody reads."""
        if not self._watched and self._read_lock.acquire(False):
            try:
                self._watch_locked()
            finally:
                self._release_read_lock()

    def _watch_locked(self) -> None:
        if not (self._watched or self._eof or self._finished):
            self._watched = True
            self._reactor.watch_read(self._child.answers, self._on_readable)

    def _release_read_lock(self) -> None:
        self._read_lock.release()
        if self._finish_wanted:
            self._reactor.call_soon(self._finish)
