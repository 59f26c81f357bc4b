"""One engine process and the conversation with it."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import signal
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from mlld_sdk.env import Env
from mlld_sdk.errors import InfrastructureError, MlldError
from mlld_sdk.events import Sink, discard
from mlld_sdk.transport import endings
from mlld_sdk.transport.call import Call, OnEvents, Probe, new_request_id
from mlld_sdk.transport.child import Child, decode_exit
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.errors import (
    CallTimeout,
    EngineAborted,
    EngineBabbling,
    EngineClosed,
    EngineExit,
    EngineOverloaded,
    EngineSilent,
    ForkedProcess,
)
from mlld_sdk.transport.events import CallbackFailed, EngineExited, EnginePolluted, EngineStarted, RequestFinished
from mlld_sdk.transport.future import LazyFuture, seconds
from mlld_sdk.transport.pipes import LineBuffer, LineTooLong, Outgoing, Seat, Tail
from mlld_sdk.transport.processes import descendants_of, kill_surely, mark_of, process, processes, rss_of
from mlld_sdk.transport.reactor import Reactor, Timer, shared_reactor
from mlld_sdk.transport.reaper import Burial, bury
from mlld_sdk.transport.wire import (
    Decoded,
    EngineEvent,
    Reply,
    ResultHead,
    cancel_line,
    decode_block,
    encode_request,
    failure_of,
)

__all__ = ["Engine", "EngineStats", "Limits"]

_READ = 65536
_NEVER = float("inf")
_NOISE_KEPT = 400
_DRAIN_ROUNDS = 1024
_RETRY = 0.025
_EMPTY = Reply(b'{"id":0,"result":null}')
_numbers = itertools.count(1)
CallT = TypeVar("CallT", bound=Call)
_engines: set[Engine] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of everything an engine may use of this process, and how patient its end is.

    Attributes:
        in_flight: Requests at once; one more is refused with `EngineOverloaded`.
        queued_bytes: Bytes waiting because the engine does not read; beyond it requests are refused.
        line_bytes: Longest protocol line; a longer one ends the engine as `EngineBabbling`.
        stderr_bytes: How much of stderr's end is kept.
        noise_lines: How many lines that are no protocol are kept (the last ones, 400 bytes of each).
        cancel_grace: Seconds an engine gets to confirm a cancel before it is ended (exclusive), or before the call
            ends without the confirmation (shared).
        term_grace: Seconds between SIGTERM and SIGKILL.
        burial: Seconds the reaping of descendants may take before a call is answered without it.
    """

    in_flight: int = 1024
    queued_bytes: int = 16 * 1024 * 1024
    line_bytes: int = 256 * 1024 * 1024
    stderr_bytes: int = 16 * 1024
    noise_lines: int = 32
    cancel_grace: float = 0.25
    term_grace: float = 0.2
    burial: float = 2.0


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine has done so far, in numbers."""

    submitted: int = 0
    finished: int = 0
    in_flight: int = 0
    events: int = 0
    debug_dropped: int = 0
    noise_lines: int = 0
    salvaged: int = 0
    unknown_ids: int = 0
    unrouted_events: int = 0
    queued_bytes: int = 0


class Engine:
    """One child process, in a session and a TMPDIR of its own, and the requests in flight on it.

    Safe to use from any thread. Nothing here blocks but what says so.

    How it holds together: a call is *pending* from submission to outcome, and whoever takes it out of `_pending` gives
    it its outcome. Reading is for whoever holds `_read_lock`: the I/O thread, or a lone caller who waits for its own
    answer (`call`). Everything about the end of the process happens on the I/O thread.

    Attributes:
        label: Name for reports, unique in this process.
        pid: Number of the process, which leads its own session and group.
        command: How it was started.
        exclusive: Whether a cancelled or expired script takes the process with it.
        limits: Bounds and graces.
    """

    def __init__(
        self,
        child: Child,
        *,
        exclusive: bool,
        label: str,
        limits: Limits,
        reactor: Reactor,
        env: Env,
        sink: Sink,
    ) -> None:
        """Use `Engine.start`."""
        self.label = label
        self.pid = child.pid
        self.command = child.command
        self.exclusive = exclusive
        self.limits = limits
        self._child = child
        self._reactor = reactor
        self._env = env
        self._now = env.now
        self._sink = sink
        self._observed = sink is not discard
        self._pending: dict[int, Call] = {}
        self._lock = threading.Lock()
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
        self._killed_hard = False
        self._finish_wanted = False
        self._finished = False
        self._forked = False
        self._tainted = False
        self._retires_when_tainted = False
        self._retired = False
        self._heard = False
        self._eof = False
        self._status: int | None = None
        self._exit: EngineExit | None = None
        self._gone: LazyFuture[None] = LazyFuture()
        self._exit_callbacks: list[Callable[[Engine], None]] = []
        self._next_deadline = _NEVER
        self._deadline_timer: Timer | None = None
        self._ladder: list[Timer] = []
        self._finished_calls = 0
        self._events = 0
        self._dropped = 0
        self._noise_count = 0
        self._salvaged = 0
        self._unknown = 0
        self._unrouted = 0

    @classmethod
    def start(
        cls,
        command: EngineCommand,
        *,
        exclusive: bool = False,
        retire_when_tainted: bool = False,
        label: str | None = None,
        limits: Limits | None = None,
        reactor: Reactor | None = None,
        env: Env | None = None,
        sink: Sink = discard,
        on_exit: Callable[[Engine], None] | None = None,
    ) -> Engine:
        """Start the process and return at once; it need not be ready (`wait_ready`), requests may be submitted.

        Args:
            command: What to run (`resolve`, `embedded_command`).
            exclusive: The engine runs one script at a time for one owner, so a cancel or a deadline of a `process` or
                `execute` kills it, with everything it started, before the call gets its outcome. Otherwise the engine
                is shared: such a call ends, the engine stays, and the script may go on unseen (`Engine.tainted`).
            retire_when_tainted: A shared engine is to `retire` by itself when that happens.
            label: Name for reports; a number is added.
            limits: Bounds and graces.
            reactor: The I/O thread; the process-wide one unless given.
            env: Clock and randomness.
            sink: Takes the events.
            on_exit: See `add_exit_callback`.

        Raises:
            CommandNotFound, CommandNotExecutable, WorkingDirectoryMissing: The command is wrong.
            SpawnRefused: The system has nothing left to start it with.
        """
        reactor = reactor or shared_reactor()
        if reactor.is_closed:
            raise EngineClosed("the I/O thread has been closed", hint="start a new one")
        child = Child.spawn(command)
        engine = cls(
            child,
            exclusive=exclusive,
            label=f"{label or command.label}-{next(_numbers)}",
            limits=limits or Limits(),
            reactor=reactor,
            env=env or reactor.env,
            sink=sink,
        )
        engine._retires_when_tainted = retire_when_tainted
        if on_exit is not None:
            engine._exit_callbacks.append(on_exit)
        _engines.add(engine)
        sink(EngineStarted(at=engine._env.wall(), engine=engine.label, pid=child.pid, command=" ".join(command.argv)))
        reactor.inhabitants.add(engine)
        reactor.watch_read(child.words, engine._on_words)
        reactor.watch_read(child.answers, engine._on_readable)
        if child.pidfd is None:
            engine._look_for_exit()
        else:
            reactor.watch_read(child.pidfd, engine._on_exit)
        return engine

    # -- requests

    def submit(
        self,
        method: str,
        params: Any = None,
        *,
        timeout: float | timedelta | None,
        on_events: OnEvents | None = None,
    ) -> Call:
        """Send a request and return its future. Never blocks.

        The deadline counts from now and covers everything, the writing too; `None` means there is none.

        Raises:
            UnserialisableParams: The params cannot be said in JSON.
            EngineOverloaded: Refused by `Limits`; nothing was sent.
            EngineClosed, EngineDied: There is no engine any more.
            ForkedProcess: The engine belongs to another process.
        """
        if self._retired:
            raise self._refusal()
        call = self._admit(method, params, timeout, on_events, Call)
        self._send(call)
        return call

    def call(
        self,
        method: str,
        params: Any = None,
        *,
        timeout: float | timedelta | None,
        on_events: OnEvents | None = None,
    ) -> Reply:
        """Send a request and wait for its answer: the fast way for a caller with nothing else in flight.

        Such a caller reads the engine's pipe itself, which saves two changes of thread; `on_events` is then called on
        the caller's thread.
        """
        if self._pending or self._retired or self._reactor.is_current or not self._take_read_lock():
            return self.submit(method, params, timeout=timeout, on_events=on_events).result()
        try:
            call = self._admit(method, params, timeout, on_events, Call)
        except BaseException:
            self._release_read_lock()
            raise
        self._read_as_leader(call, None, send=True)
        return call.result()

    def probe(self, timeout: float | timedelta = 5.0) -> Probe:
        """Ask the engine for a sign of life that needs no interpreter.

        The call ends well as soon as the engine answers anything: the extended protocol says who it is, a live engine
        that it does not know the method (the payload is `None` then). `Probe.seconds` is how long its event loop took
        to look up. A probe that times out kills nothing.
        """
        probe = self._admit("hello", None, timeout, None, Probe)
        self._send(probe)
        return probe

    def wait_ready(self, timeout: float | timedelta = 30.0) -> float:
        """Block until the engine answers a probe; return how long that took.

        Raises:
            EngineDiedAtStart: It ended first; the error has the exit and the last words.
            EngineSilent: Nothing came in time. The process still runs: `kill` it.
            EngineBabbling: Only noise came in time.
        """
        call = self.probe(timeout)
        try:
            call.result()
        except CallTimeout:
            if self._noise_count and not self._heard:
                raise EngineBabbling(
                    f"{self.label} writes what is no protocol: {self.noise[-1][:80]!r}",
                    hint="is this program an engine?",
                ) from None
            raise EngineSilent(
                f"{self.label} (pid {self.pid}) did not answer within {seconds(timeout):g} s",
                hint="it hangs, the machine is overloaded, or it is no engine; kill it and look at its stderr",
            ) from None
        assert call.seconds is not None
        return call.seconds

    def _admit(
        self,
        method: str,
        params: Any,
        timeout: float | timedelta | None,
        on_events: OnEvents | None,
        kind: type[CallT],
    ) -> CallT:
        """Make a request pending, or refuse it."""
        if self._ending is not None:
            raise self._refusal()
        pending, limits = self._pending, self.limits
        if len(pending) >= limits.in_flight:
            raise EngineOverloaded(
                f"{self.label} has {len(pending)} requests in flight", hint="wait for some, or raise Limits.in_flight"
            )
        if self._outgoing.backlog > limits.queued_bytes:
            raise EngineOverloaded(
                f"{self.label} does not read: {self._outgoing.backlog} bytes wait",
                hint="its event loop is busy; wait, or kill it",
            )
        request_id = new_request_id()
        line = encode_request(method, request_id, params)
        now = self._now()
        deadline = _NEVER if timeout is None else now + (timeout if type(timeout) is float else seconds(timeout))
        call = kind(self, request_id, method, line, now, deadline, on_events)
        if type(params) is dict and "timeoutMs" in params:
            call._has_engine_timeout = True
        pending[request_id] = call
        # The end may have emptied `pending` just before; then nobody else will answer this one.
        if self._finished and pending.pop(request_id, None) is not None:
            raise self._refusal()
        return call

    def _send(self, call: Call) -> None:
        if call.deadline < self._next_deadline:
            self._watch_deadline(call.deadline)
        self._outgoing.send(call._line, patient=len(self._pending) > 1)
        if not self._watched:
            self._watch()

    def _control(self, target: Call, method: str, params: Any, timeout: float | timedelta | None) -> Call:
        """Send a request about another one, again and again while that one is not active yet."""
        call = self._admit(method, params, timeout, None, Call)
        if target.done():
            self._settle(call, None, endings.not_active(target))
            return call
        call._target = target
        call._params = params
        self._send(call)
        return call

    def _control_again(self, call: Call) -> None:
        """Repeat a control request under a new id, since the old one has been answered."""
        if self._pending.pop(call.id, None) is None:
            return
        call.id = new_request_id()
        call._line = encode_request(call.method, call.id, call._params)
        self._pending[call.id] = call
        self._outgoing.send(call._line, patient=True)

    def _settle(self, call: Call, reply: Reply | None, error: MlldError | None) -> bool:
        """Give a pending call its outcome; false if it is not pending any more."""
        if self._pending.pop(call.id, None) is None:
            return False
        self._finished_calls += 1
        if self._retired and not self._pending and self._ending is None:
            self.kill()
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

    # -- giving up

    def _watch_deadline(self, deadline: float) -> None:
        """See to it that somebody looks when this deadline passes; one timer serves all calls."""
        with self._lock:
            if deadline >= self._next_deadline:
                return
            if self._deadline_timer is not None:
                self._deadline_timer.cancel()
            self._next_deadline = deadline
            self._deadline_timer = self._reactor.call_at(deadline, self._on_deadline)

    def _on_deadline(self) -> None:
        with self._lock:
            self._next_deadline = _NEVER
            self._deadline_timer = None
        now, nearest = self._now(), _NEVER
        for call in list(self._pending.values()):
            if call.deadline <= now:
                self._give_up(call, "timeout")
            elif call.deadline < nearest:
                nearest = call.deadline
        if nearest < _NEVER:
            self._watch_deadline(nearest)

    def _give_up(self, call: Call, why: str) -> bool:
        """Begin the end of a call for which nobody waits any more; false if it has its outcome or is ending."""
        with self._lock:
            if call._given_up is not None or call.id not in self._pending:
                return call.id in self._pending
            call._given_up = why
        if not call.is_run or self._outgoing.withdraw(call._line):
            self._settle(call, None, endings.given_up(call))
        elif self.exclusive:
            self._outgoing.send(cancel_line(call.id), patient=False)
            self._later(self.limits.cancel_grace, lambda: self._end_for(call))
        elif why == "timeout":
            self._taint()
            self._settle(call, None, endings.given_up(call))
            self._outgoing.send(cancel_line(call.id), patient=False)
        else:
            self._taint()
            self._outgoing.send(cancel_line(call.id), patient=False)
            self._later(self.limits.cancel_grace, lambda: self._unconfirmed(call))
        return True

    def _end_for(self, call: Call) -> None:
        """End an exclusive engine because of one call, unless that has got its answer in the meantime."""
        if call.id in self._pending and self._begin_end(str(call._given_up)):
            self._child.signal_group(signal.SIGTERM)
            self._later(self.limits.term_grace, self._kill_group)

    def _unconfirmed(self, call: Call) -> None:
        self._settle(call, None, endings.given_up(call))

    def _taint(self) -> None:
        """Note that a script nobody waits for any more may go on; an engine that confirms a cancel runs it on too."""
        self._tainted = True
        if self._retires_when_tainted:
            self._retired = True

    def _cancel_again(self, call: Call) -> None:
        if call.id in self._pending:
            self._outgoing.send(cancel_line(call.id), patient=False)

    # -- reading

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
        if block is not None:
            self._route(decode_block(block))

    def _route(self, decoded: Decoded) -> None:
        """Bring every message to its call: events in order as one list for each call, then the outcome."""
        pending = self._pending
        # Nobody is to be told and nobody to be woken: most answers only go into their future.
        quiet = not self._observed and self._leading is None and not self._retired
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
            if batches and (events := batches.pop(call, None)):
                self._deliver(call, events)
            error = None if plain and result.error is None else failure_of(head)  # type: ignore[union-attr]
            if error is not None:
                self._failed(call, error)
            elif not quiet:
                self._settle(call, Reply(line), None)
            elif pending.pop(call.id, None) is not None:
                self._finished_calls += 1
                call._finish(Reply(line), None)
        for call, events in batches.items():
            self._deliver(call, events)
        if decoded.heads or decoded.dropped:
            self._heard = True
        if self._retired and not pending and self._ending is None:
            self.kill()
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

    def _failed(self, call: Call, error: dict[str, Any]) -> None:
        """Act on an error the engine has answered a request with."""
        code = error.get("code")
        if code == "REQUEST_IN_PROGRESS":  # never true of a unique id, and if it were, the real result is still to come
            self._unknown += 1
        elif call._given_up is not None:
            if code == "REQUEST_NOT_FOUND":  # the cancel came before the script had started; it is still to run
                if not self.exclusive:
                    self._later(_RETRY, lambda: self._cancel_again(call))
            elif self.exclusive:
                self._end_for(call)
            else:
                self._settle(call, None, endings.given_up(call, error))
        elif isinstance(call, Probe):
            self._settle(call, _EMPTY, None)
        elif code == "REQUEST_NOT_FOUND" and call._target is not None and not call._target.done():
            self._later(_RETRY, lambda: self._control_again(call))
        else:
            told = endings.reported(error, call, trusted=self.command.extended)
            # An engine that is being ended gives its requests up by itself; that was us.
            gave_up = isinstance(told, EngineAborted) and self._ending is not None
            self._settle(call, None, self._refusal(call) if gave_up else told)

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
                left = None if limit == _NEVER else limit - self._now()
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
            if not call.done() and call.deadline < _NEVER:
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

    # -- the end

    def close(self, timeout: float | timedelta = 2.0) -> bool:
        """End the engine in order and wait: EOF, SIGTERM, SIGKILL of the group; descendants and TMPDIR are removed.

        Requests in flight end as `EngineClosed`; with any in flight the EOF is left out, since the engine would drop
        them anyway. Returns whether it went without SIGKILL. Does nothing when it has ended, and nothing in a forked
        child. Inside a callback it begins the end and does not wait.
        """
        if self._forked:
            return True
        patience = seconds(timeout)
        if self._begin_end("closed"):
            if self._pending:
                self._child.signal_group(signal.SIGTERM)
                self._later(patience / 2, self._kill_group)
            else:
                self._outgoing.close()
                self._later(patience / 2, lambda: self._child.signal_group(signal.SIGTERM))
                self._later(patience * 3 / 4, self._kill_group)
        if self._is_inside:
            return True
        return self.wait(patience + self.limits.burial) and not self._killed_hard

    def kill(self) -> None:
        """SIGKILL the process group now. Returns at once; requests in flight end as `EngineClosed`."""
        self._kill_for("killed")

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Block until the process is reaped, its descendants are dead and its TMPDIR is gone; false if not in time."""
        if not self._gone.done():
            self._refuse_inside()
        try:
            self._gone.result(timeout)
        except TimeoutError:
            return False
        return True

    def retire(self) -> None:
        """Take no more requests, and kill the process when those in flight are over; at once if there are none."""
        self._retired = True
        if not self._pending:
            self.kill()

    def add_exit_callback(self, function: Callable[[Engine], None]) -> None:
        """Call the function once when the process has been reaped (at once if it has), on the I/O thread.

        Its whole process group has been killed by then and every request in flight has its outcome, except one whose
        cancel or deadline caused the end: that one waits until descendants are gone.
        """
        self._exit_callbacks.append(function)
        if self._finished:
            self._run_exit_callbacks()

    def _run_exit_callbacks(self) -> None:
        while self._exit_callbacks:
            try:
                callback = self._exit_callbacks.pop(0)
            except IndexError:
                return
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001 - the listener's trouble is not the engine's
                self._report("exit-callback", error)

    def _begin_end(self, why: str) -> bool:
        """Decide why the engine ends; only the first reason counts."""
        with self._lock:
            if self._ending is not None:
                return False
            self._ending = why
        self._watch()  # it may have to write before it can end
        return True

    def _kill_for(self, why: str) -> None:
        if not self._forked:
            self._begin_end(why)
            self._kill_group()

    def _kill_group(self) -> None:
        if self._child.signal_group(signal.SIGKILL):
            self._killed_hard = True
            self._later(self.limits.burial, self._cannot_be_killed)

    def _later(self, delay: float, function: Callable[[], object]) -> None:
        """Run one step of an ending on the I/O thread after a pause."""
        if not self._finished:
            self._ladder.append(self._reactor.call_at(self._now() + delay, function))
            if len(self._ladder) > self.limits.in_flight:
                del self._ladder[: self.limits.in_flight // 2]  # long fired

    def _conversation_broke(self) -> None:
        """The engine has closed one of its pipes. It is dying, or is made to."""
        if self._finished:
            return
        if self._child.pidfd is None:
            self._look_for_exit()
        self._later(self.limits.term_grace, lambda: self._kill_for("died"))

    def _on_exit(self) -> None:
        """The process has ended: kill its group, collect its status, then read what it has left in its pipes."""
        if self._finish_wanted or not self._child.has_ended():
            return
        if self._child.pidfd is not None:
            self._reactor.forget(self._child.pidfd)
        self._status = self._child.reap()
        self._finish_wanted = True
        self._finish()

    def _look_for_exit(self) -> None:
        """Ask for the end of the process now and then, where the system cannot tell us by itself."""
        if self._finish_wanted:
            return
        if self._child.has_ended():
            self._on_exit()
        else:
            soon = self._eof or self._ending is not None
            self._reactor.call_at(self._now() + (0.02 if soon else 0.25), self._look_for_exit)

    def _finish(self) -> None:
        """Read what is left, give every call its outcome, and tell. On the I/O thread, once."""
        if self._finished:
            return
        if not self._read_lock.acquire(False):
            if self._seat is not None:  # a caller reads: it leaves now and sends us here again
                self._seat.ring()
            return
        self._begin_end("died")
        try:
            self._drain()
        finally:
            self._finished = True
            self._read_lock.release()
        self._exit = decode_exit(
            self._status,
            expected=self._ending != "died",
            wrapped=self.command.wrapped,
            stderr_tail=self._words.text,
        )
        self._outgoing.close()
        self._child.close_fds(self._reactor.forget)
        if self._seat is not None:
            self._seat.close()
        for timer in self._ladder:
            timer.cancel()
        self._ladder.clear()
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._tell_the_end()

    def _drain(self) -> None:
        """Read the pipes to their end, or until they are empty if somebody else keeps them open."""
        for _ in range(_DRAIN_ROUNDS):
            try:
                data = b"" if self._eof else os.read(self._child.answers, _READ)
            except OSError:
                break
            if not data:
                break
            self._take(data)
        rest = self._incoming.rest()
        if rest:
            self._route(decode_block(rest + b"\n"))
        for _ in range(_DRAIN_ROUNDS):
            try:
                data = os.read(self._child.words, _READ)
            except OSError:
                break
            if not data:
                break
            self._words.feed(data)

    def _tell_the_end(self) -> None:
        calls = list(self._pending.values())
        # An exclusive engine's cancelled script is over when nothing of it lives, not before.
        waiting = [call for call in calls if self.exclusive and call.is_run and call._given_up is not None]
        for call in calls:
            if call not in waiting:
                self._settle(call, None, self._end_of(call))
        exit_ = self._exit
        assert exit_ is not None
        self._sink(
            EngineExited(
                at=self._env.wall(),
                engine=self.label,
                pid=self.pid,
                reason=str(self._ending),
                code=exit_.code,
                signal=exit_.signal,
                out_of_memory=exit_.out_of_memory,
                doubtful=exit_.doubtful,
                in_flight=len(calls),
                stderr_tail=self._words.text,
            )
        )
        self._run_exit_callbacks()  # first, so that a successor need not wait for the search
        bury(
            Burial(
                mark=self._child.mark,
                session=self.pid,
                directory=self._child.directory,
                delay=0.1 if self._ending == "died" and not waiting else 0.0,
                patience=self.limits.burial,
                done=lambda _: self._reactor.call_soon(self._buried),
            )
        )

    def _buried(self) -> None:
        for call in list(self._pending.values()):
            self._settle(call, None, self._end_of(call))
        self._reactor.inhabitants.discard(self)
        _engines.discard(self)
        self._gone._finish(None, None)

    def _cannot_be_killed(self) -> None:
        """SIGKILL has not worked in time (a process stuck in the kernel): nobody is to wait for it."""
        if not self._finished:
            for call in list(self._pending.values()):
                self._settle(call, None, self._end_of(call))

    def _end_of(self, call: Call) -> MlldError:
        if call._given_up is not None:
            return endings.given_up(call)
        return self._refusal(call)

    def _refusal(self, call: Call | None = None) -> MlldError:
        if self._forked:
            return ForkedProcess(
                f"{self.label} belongs to the process this one was forked from", hint="start an engine in this process"
            )
        return endings.ended(
            self.label,
            self._ending or "closed",
            how=self._exit,
            fatal=self._fatal,
            heard=self._heard,
            stderr_tail=self._words.text,
            method=call.method if call else None,
        )

    def _forget_parent(self) -> None:
        """In a forked child: let go of the parent's pipes, so that it alone holds them, and fail what waits here."""
        self._forked = True
        self._ending = "forked"
        self._finished = True
        self._lock = threading.Lock()
        self._read_lock = allocate_lock()
        self._outgoing.abandon()
        self._child.close_fds(lambda _: None)
        for call in list(self._pending.values()):
            self._pending.pop(call.id, None)
            call._finish(None, self._refusal())
        self._gone._finish(None, None)

    def _report(self, where: str, error: Exception) -> None:
        self._sink(
            CallbackFailed(
                at=self._env.wall(), engine=self.label, where=where, error=f"{type(error).__name__}: {error}"
            )
        )

    # -- what can be asked

    def reap_descendants(self) -> int:
        """Kill what the engine has started and left running (shells, MCP servers); return how many.

        For the time between two runs: the engine itself is not touched. Linux only; 0 elsewhere.
        """
        if not self.alive:
            return 0
        own = {self.pid}
        if self.command.wrapped:
            own.update(descendants_of(self.pid)[:1])
        me = process(self.pid)
        born = 0 if me is None else me.started
        killed = 0
        for entry in list(processes()):
            if entry.started < born or entry.pid in own or entry.is_dead:  # the cheap questions first: there are many
                continue
            if entry.session == self.pid or mark_of(entry.pid) == self._child.mark:
                killed += kill_surely(entry.pid, functools.partial(_is_still, entry.pid, entry.started))
        return killed

    def rss(self, *, tree: bool = False) -> int:
        """Resident memory in bytes, of the process or with all its descendants; 0 when it has ended."""
        if self._finish_wanted or self._forked:
            return 0
        below = descendants_of(self.pid) if tree or self.command.wrapped else []
        if self.command.wrapped and not tree:
            below = below[:1]
        return rss_of(self.pid) + sum(map(rss_of, below))

    @property
    def alive(self) -> bool:
        """Whether the process runs and takes requests."""
        return self._ending is None and not self._eof and not self._retired

    @property
    def exit(self) -> EngineExit | None:
        """How the process ended, or `None` while it runs."""
        return self._exit

    @property
    def has_spoken(self) -> bool:
        """Whether the process has said anything in the protocol yet."""
        return self._heard

    @property
    def tainted(self) -> bool:
        """A cancelled or expired script may still be running in this shared engine."""
        return self._tainted

    @property
    def stderr_tail(self) -> str:
        """The end of what the process wrote to stderr."""
        return self._words.text

    @property
    def noise(self) -> Sequence[bytes]:
        """The last lines that were no protocol."""
        return tuple(self._noise or ())

    @property
    def stats(self) -> EngineStats:
        """Counters."""
        return EngineStats(
            submitted=self._finished_calls + len(self._pending),
            finished=self._finished_calls,
            in_flight=len(self._pending),
            events=self._events,
            debug_dropped=self._dropped,
            noise_lines=self._noise_count,
            salvaged=self._salvaged,
            unknown_ids=self._unknown,
            unrouted_events=self._unrouted,
            queued_bytes=self._outgoing.backlog,
        )

    def __repr__(self) -> str:
        state = str(self._exit) if self._exit else self._ending or "running"
        return f"<Engine {self.label} pid {self.pid} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_still(pid: int, started: int) -> bool:
    entry = process(pid)
    return entry is not None and entry.started == started


def _after_fork() -> None:
    for engine in _engines.copy():
        engine._forget_parent()
    _engines.clear()


def _at_exit() -> None:
    """End what the program has not ended: in order as far as half a second goes, then by force."""
    engines = [engine for engine in _engines.copy() if not engine._finished]
    for engine in engines:
        if engine._begin_end("closed"):
            if engine._pending:
                engine._child.signal_group(signal.SIGTERM)
            else:
                engine._outgoing.close()
    for patience, last in ((0.5, False), (1.0, True)):
        until = Env().now() + patience
        for engine in engines:
            if not engine.wait(max(0.0, until - Env().now())) and not last:
                engine._kill_group()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
