"""Reading what an engine says: every message to its call, on whichever thread waits for it."""

from __future__ import annotations

import os
import threading
from _thread import allocate_lock
from collections import deque
from typing import Any

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Sink, discard, is_listened
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.child import Child
from mlld_sdk.transport.events import EngineCallbackFailed, EnginePolluted, RequestFinished
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.pipes import LineBuffer, LineTooLong, Outgoing, Seat, Tail
from mlld_sdk.transport.reactor import Reactor
from mlld_sdk.transport.wire import Decoded, EngineEvent, EngineReply, ResultHead, decode_block, failure_of

__all__ = ["Reading"]

"""The deadline of a call without one."""

_READ = 65536
_NOISE_KEPT = 400


class Reading:
    """The half of an engine that listens.

    Reading is for whoever holds `_read_lock`: the I/O thread, or a lone caller who waits for its own answer and reads
    the pipe itself. A call is *pending* until somebody takes it out of `_pending`; that one gives it its outcome.
    """

    def __init__(
        self, child: Child, *, label: str, limits: EngineLimits, reactor: Reactor, env: Env, sink: Sink
    ) -> None:
        self.label = label
        self.pid = child.pid
        self.command = child.command
        self.limits = limits
        self._child = child
        self._reactor = reactor
        self._env = env
        self._now = env.now
        self._born = env.now()
        self._lived: float | None = None  # seconds, once it has ended
        self._sink = sink
        self._observed = sink is not discard
        self._pending: dict[int, Call] = {}
        self._read_lock = allocate_lock()
        self._reader: int | None = None
        self._leading: Call | None = None
        self._seat: Seat | None = None
        self._outgoing = Outgoing(child.requests, reactor, lambda: reactor.call_soon(self._conversation_broke))
        self._incoming = LineBuffer(limits.line_bytes)
        self._words = Tail(limits.stderr_bytes)
        self._words_lock = allocate_lock()
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
            if self._leading is None:  # a caller who reads looks for itself whether that was the end
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
        # Our signal went to the whole group: it has ended what a script was waiting for, and a failing command is no
        # failure to the engine. What a run says from then on is no result; it ends when the engine does.
        signalled = self._ending is not None and self._ending != "died"
        # Nobody is to be told, nothing is at an end: most answers only go into their future.
        quiet = not (self._retired or signalled or (self._observed and is_listened(self._sink)))
        batches: dict[Call, list[EngineEvent]] = {}
        seen = 0
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
                seen += 1
                if batch is not None:
                    event.line = line
                    batch.append(event)
                continue
            if seen:
                self._events += seen
                seen = 0
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
                self._settle(call, EngineReply(line), None)
            elif pending.pop(request_id, None) is not None:
                self._finished_calls += 1
                call._on_events = None  # who takes the events often holds the call: no cycle for the collector
                call._finish(EngineReply(line), None)
        self._events += seen
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
        if take is None or not events or call._given_up is not None:
            return
        try:
            take(events)
        except BaseException as error:
            # The listener's trouble is not the engine's, `sys.exit` included: it would end the thread of all engines.
            call._on_events = None
            self._report("on_events", error)
            if isinstance(error, KeyboardInterrupt):
                raise

    def _keep_noise(self, lines: list[bytes]) -> None:
        if self._noise is None:
            self._noise = deque(maxlen=self.limits.noise_lines)
            first = lines[0][:_NOISE_KEPT].decode("utf-8", "replace")
            self._sink(EnginePolluted(at=self._env.wall(), engine=self.label, pid=self.pid, line=first))
        self._noise_count += len(lines)
        self._noise.extend(line[:_NOISE_KEPT] for line in lines)

    def _on_words(self) -> None:
        with self._words_lock:
            try:
                data = os.read(self._child.words, _READ)
            except BlockingIOError:
                return
            if data:
                self._words.feed(data)
            else:
                self._reactor.forget(self._child.words)

    def _settle(self, call: Call, reply: EngineReply | None, error: MlldError | None) -> bool:
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
        if self._observed and (error is not None or is_listened(self._sink)):
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

    def _report(self, where: str, error: BaseException) -> None:
        self._sink(
            EngineCallbackFailed(
                at=self._env.wall(), engine=self.label, where=where, error=f"{type(error).__name__}: {error}"
            )
        )
