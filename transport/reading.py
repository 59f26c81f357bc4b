"""Reading what an engine says: every message to its call, on whichever thread waits for it."""

from __future__ import annotations

import os
import threading
from _thread import allocate_lock
from collections import deque
from datetime import timedelta
from typing import Any

import msgspec

from mlld_sdk.env import Env
from mlld_sdk.errors import InfrastructureError, MlldError
from mlld_sdk.events import Sink, discard
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.child import Child
from mlld_sdk.transport.events import CallbackFailed, EnginePolluted, RequestFinished
from mlld_sdk.transport.future import seconds
from mlld_sdk.transport.limits import Limits
from mlld_sdk.transport.pipes import LineBuffer, LineTooLong, Outgoing, Seat, Tail
from mlld_sdk.transport.reactor import Reactor
from mlld_sdk.transport.wire import Decoded, EngineEvent, Reply, ResultHead, decode_block, failure_of

__all__ = ["NEVER", "Reading"]

NEVER = float("inf")
"""The deadline of a call without one."""

_READ = 65536
_NOISE_KEPT = 400


class Reading:
    """The half of an engine that listens.

    Reading is for whoever holds `_read_lock`: the I/O thread, or a lone caller who waits for its own answer and reads
    the pipe itself. A call is *pending* until somebody takes it out of `_pending`; that one gives it its outcome.
    """

    def __init__(self, child: Child, *, label: str, limits: Limits, reactor: Reactor, env: Env, sink: Sink) -> None:
        self.label = label
        self.pid = child.pid
        self.command = child.command
        self.limits = limits
        self._child = child
        self._reactor = reactor
        self._env = env
        self._now = env.now
        self._sink = sink
        self._observed = sink is not discard
        self._pending: dict[int, Call] = {}
        self._read_lock = allocate_lock()
        self._watched = True
        self._reader: int | None = None
        self._leading: Call | None = None
        self._seat: Seat | None = None
        self._outgoing = Outgoing(child.requests, reactor, lambda: reactor.call_soon(self._conversation_broke))
        self._incoming = LineBuffer(limits.line_bytes)
        self._words = Tail(limits.stderr_bytes)
        self._noise: deque[bytes] | None = None
        self._ending: str | None = None
        self._fatal: str | None = None
        self._finish_wanted = False
        self._finished = False
        self._retired = False
        self._heard = False
        self._eof = False
        self._finished_calls = 0
        self._events = 0
        self._dropped = 0
        self._noise_count = 0
        self._salvaged = 0
        self._unknown = 0
        self._unrouted = 0

    # -- what the other halves do

    def _failed(self, call: Call, error: dict[str, Any]) -> None:
        """Act on an error the engine has answered a request with."""
        raise NotImplementedError

    def _kill_for(self, why: str) -> None:
        """SIGKILL the process group."""
        raise NotImplementedError

    def _conversation_broke(self) -> None:
        """The engine has closed one of its pipes. It is dying, or is made to."""
        raise NotImplementedError

    def _watch_deadline(self, deadline: float) -> None:
        """See to it that somebody looks when this deadline passes."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Read what is left and give every call its outcome."""
        raise NotImplementedError

    # -- messages

    def _on_readable(self) -> None:
        if self._read_lock.acquire(False):
            try:
                self._read()
            finally:
                self._read_lock.release()

    def _read(self) -> None:
        """Read once and act on what came. Only for the holder of the read lock."""
        try:
            data = os.read(self._child.answers, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self._eof = True
            self._reactor.forget(self._child.answers)
            self._reactor.call_soon(self._conversation_broke)

    def _take(self, data: bytes) -> None:
        try:
            block = self._incoming.feed(data)
        except LineTooLong:
            self._incoming.rest()
            self._fatal = f"a line of more than {self.limits.line_bytes} bytes"
            self._kill_for("killed")
            return
        if block is None:
            return
        try:
            self._route(decode_block(block))
        except Exception as error:  # noqa: BLE001 - answers are lost now, and nobody is to wait for them
            self._report("reading", error)
            self._fatal = "something this side stumbled over"
            self._kill_for("killed")

    def _route(self, decoded: Decoded) -> None:
        """Bring every message to its call: events in order as one list for each call, then the outcome."""
        pending = self._pending
        # Nobody is to be told: most answers only go into their future.
        quiet = not self._observed and not self._retired
        # Our signal went to the whole group: it has ended what a script was waiting for, and a failing command is no
        # failure to the engine. What a run says from then on is no result; it ends when the engine does.
        signalled = self._ending is not None and self._ending != "died"
        batches: dict[Call, list[EngineEvent]] = {}
        last_id: Any = None
        batch: list[EngineEvent] | None = None
        for head, line in zip(decoded.heads, decoded.lines, strict=True):
            event = head.event
            if event is not None:
                request_id = event.id if event.request_id is None else event.request_id
                if request_id != last_id:
                    call = pending.get(request_id) if type(request_id) is int else self._caller_of(event)
                    if call is None:
                        self._unrouted += 1
                        continue
                    last_id = request_id
                    call.has_started = True
                    wanted = call._on_events is not None and call._given_up is None
                    batch = batches.setdefault(call, []) if wanted else None
                self._events += 1
                if batch is not None:
                    event.line = line
                    batch.append(event)
                continue
            last_id = None
            result = head.result
            plain = type(result) is ResultHead and head.id is msgspec.UNSET
            request_id = result.id if plain else head.request_id  # type: ignore[union-attr]
            call = pending.get(request_id) if type(request_id) is int else None
            if call is None:
                self._unknown += 1
                continue
            if signalled and call.is_run:
                continue
            if batches and (events := batches.pop(call, None)):
                self._deliver(call, events)
            error = None if plain and result.error is None else failure_of(head)  # type: ignore[union-attr]
            if error is not None:
                self._failed(call, error)
            elif not quiet:
                self._settle(call, Reply(line), None)
            elif pending.pop(call.id, None) is not None:
                self._finished_calls += 1
                call._on_events = None  # who takes the events often holds the call: no cycle for the collector
                call._finish(Reply(line), None)
        for call, events in batches.items():
            self._deliver(call, events)
        if decoded.heads or decoded.dropped:
            self._heard = True
        if self._retired and not pending and self._ending is None:
            self._kill_for("killed")
        self._dropped += decoded.dropped
        if decoded.noise:
            self._salvaged += decoded.salvaged
            self._keep_noise(decoded.noise)

    def _caller_of(self, event: EngineEvent) -> Call | None:
        """Find whose event this is when a tool call's id stands where the request's should."""
        runs = [call for call in list(self._pending.values()) if call.is_run]
        if len(runs) == 1 and event.type.startswith("streaming:"):
            return runs[0]
        return None

    def _deliver(self, call: Call, events: list[EngineEvent]) -> None:
        take = call._on_events
        if take is None or not events:
            return
        try:
            take(events)
        except Exception as error:  # noqa: BLE001 - the listener's trouble is not the engine's
            call._on_events = None
            self._report("on_events", error)

    def _keep_noise(self, lines: list[bytes]) -> None:
        if self._noise is None:
            self._noise = deque(maxlen=self.limits.noise_lines)
            first = lines[0][:_NOISE_KEPT].decode("utf-8", "replace")
            self._sink(EnginePolluted(at=self._env.wall(), engine=self.label, pid=self.pid, line=first))
        self._noise_count += len(lines)
        self._noise.extend(line[:_NOISE_KEPT] for line in lines)

    def _on_words(self) -> None:
        try:
            data = os.read(self._child.words, _READ)
        except BlockingIOError:
            return
        if data:
            self._words.feed(data)
        else:
            self._reactor.forget(self._child.words)

    def _settle(self, call: Call, reply: Reply | None, error: MlldError | None) -> bool:
        """Give a pending call its outcome; false if it is not pending any more."""
        if self._pending.pop(call.id, None) is None:
            return False
        self._finished_calls += 1
        if self._retired and not self._pending and self._ending is None:
            self._kill_for("killed")
        call._on_events = None
        call._finish(reply, error)
        if self._leading is call and self._reader != threading.get_ident() and self._seat is not None:
            self._seat.ring()
        if self._observed:
            self._sink(
                RequestFinished(
                    at=self._env.wall(),
                    engine=self.label,
                    method=call.method,
                    outcome="ok" if error is None else error.code,
                    seconds=self._now() - call._submitted,
                    bytes=0 if reply is None else len(reply.line),
                )
            )
        return True

    def _report(self, where: str, error: Exception) -> None:
        self._sink(
            CallbackFailed(
                at=self._env.wall(), engine=self.label, where=where, error=f"{type(error).__name__}: {error}"
            )
        )

    # -- a lone caller reads for itself

    def _wait_as_reader(self, call: Call, timeout: float | timedelta | None) -> bool:
        """Wait for a call by reading, if it is alone and nobody reads; false if the caller has to wait otherwise."""
        self._refuse_inside()
        if len(self._pending) != 1 or self._eof or self._ending is not None or not self._take_read_lock():
            return False
        until = None if timeout is None else self._now() + seconds(timeout)
        self._read_as_leader(call, until, send=False)
        if call.done():
            return True
        if until is not None and self._now() >= until:
            raise TimeoutError
        return False

    @property
    def _is_inside(self) -> bool:
        """Whether the caller is a callback, run by the thread it would have to wait for."""
        return self._reader == threading.get_ident() or self._reactor.is_current

    def _refuse_inside(self) -> None:
        if self._is_inside:
            raise InfrastructureError(
                "waiting for an engine inside its own callback would last for ever", hint="use add_done_callback"
            )

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

    def _read_as_leader(self, call: Call, until: float | None, *, send: bool) -> None:
        """Read the pipe on the caller's thread until the call is done, or there is reason to leave it to the reactor.

        The read lock is held at the beginning and released at the end.
        """
        assert self._seat is not None
        try:
            self._reader = threading.get_ident()
            self._leading = call
            if self._watched:
                self._watched = False
                self._reactor.forget(self._child.answers)
            if send:
                self._outgoing.send(call._line, patient=False)
            limit = call.deadline if until is None else min(until, call.deadline)
            while not (call.done() or self._eof or self._finish_wanted):
                left = None if limit == NEVER else limit - self._now()
                if left is not None and left <= 0:
                    break
                if self._seat.wait(left):
                    self._read()
        finally:
            self._leading = self._reader = None
            # A lone caller's next call finds the pipe as it left it; whoever else comes hands it back (`_watch`).
            if self._pending or self._ending is not None:
                self._watch_locked()
            self._release_read_lock()
            if self._pending:
                self._watch()
            if not call.done() and call.deadline < NEVER:
                self._watch_deadline(call.deadline)

    def _watch(self) -> None:
        """Have the reactor read again after a lone caller has. Harmless when it does, or while somebody reads."""
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
