"""The requests in flight on one engine: their ids and deadlines, the messages for them, and their outcomes."""

import threading
from _thread import get_ident
from collections.abc import Callable
from typing import Any

import msgspec

from mlld_sdk.base.durations import FOREVER, Duration, seconds
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import discard
from mlld_sdk.transport.call import Call, CallHost, OnEvents, new_request_id
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.errors import EngineOverloaded
from mlld_sdk.transport.events import RequestFinished
from mlld_sdk.transport.outcomes import refusal
from mlld_sdk.transport.pipes import Outgoing
from mlld_sdk.transport.reactor import ReactorTimer
from mlld_sdk.transport.wire import Decoded, EngineEvent, EngineReply, ResultHead, encode_request, failure_of


class CallTable:
    """The requests in flight on one engine.

    A call is *pending* until it is taken out of `pending`; the thread that takes it out gives it its outcome.

    Attributes:
        pending: The calls by their ids.
        owner: The only thread with calls in flight, 0 if there are several or if a callback waits for one. A hint: when
            two threads begin at once it may name one of them, and the other's call is then late by a lease.
        next_deadline: When the timer looks for calls whose time is up.
    """

    def __init__(
        self, core: EngineCore, host: CallHost, outgoing: Outgoing, *, failed: Callable[[Call, dict[str, Any]], None]
    ) -> None:
        """Begin without calls; `failed` acts on an error the engine has answered one with."""
        self.pending: dict[int, Call] = {}
        self.owner = 0
        self.next_deadline = FOREVER
        self._core = core
        self._host = host
        self._outgoing = outgoing
        self._observed = core.sink is not discard
        self._failed = failed
        self._lock = threading.Lock()
        self._timer: ReactorTimer | None = None

    def admit(self, method: str, params: Any, timeout: Duration | None, on_events: OnEvents | None) -> Call:
        """Make a request pending, or refuse it."""
        core, pending = self._core, self.pending
        if core.ending is not None:
            raise refusal(core)
        if len(pending) >= core.limits.in_flight:
            raise EngineOverloaded(
                f"{core.label} has {len(pending)} requests in flight",
                hint="wait for some, or raise EngineLimits.in_flight",
            )
        if self._outgoing.backlog > core.limits.queued_bytes:
            raise EngineOverloaded(
                f"{core.label} does not read: {self._outgoing.backlog} bytes wait",
                hint="its event loop is busy; wait, or kill it",
            )
        request_id = new_request_id()
        line = encode_request(method, request_id, params)
        now = core.now()
        if type(timeout) is not float:
            timeout = FOREVER if timeout is None else seconds(timeout, above=-FOREVER)
        call = Call(self._host, request_id, method, line, now, now + timeout, on_events)
        if type(params) is dict and "timeoutMs" in params:
            call.has_engine_timeout = True
        if not pending:
            self.owner = get_ident()
        elif self.owner != get_ident():
            self.owner = 0
        pending[request_id] = call
        # The end may have emptied `pending` just before; then nothing else will answer this one.
        if core.finished and pending.pop(request_id, None) is not None:
            raise refusal(core)
        return call

    def renew(self, call: Call) -> bool:
        """Assign a new id to a call to be sent again, since the old one has been answered; false if it is over."""
        if self.pending.pop(call.id, None) is None:
            return False
        call.id = new_request_id()
        call.line = encode_request(call.method, call.id, call.params)
        self.pending[call.id] = call
        return True

    def settle(self, call: Call, reply: EngineReply | None, error: MlldError | None) -> bool:
        """End a pending call with its outcome; false if it is not pending any more."""
        if self.pending.pop(call.id, None) is None:
            return False
        self._core.stats.finished += 1
        if self._core.retired and not self.pending and self._core.ending is None:
            self._core.end.kill()
        call.on_events = None
        call.finish(reply, error)
        seat = call.seat
        if seat is not None:
            seat.ring()
        if self._observed and (error is not None or getattr(self._core.sink, "listened", True)):
            self._core.sink(
                RequestFinished(
                    at=self._core.env.wall(),
                    engine=self._core.label,
                    method=call.method,
                    outcome="ok" if error is None else error.code,
                    seconds=self._core.now() - call.submitted,
                    bytes=0 if reply is None else len(reply.line),
                )
            )
        return True

    def route(self, decoded: Decoded) -> None:  # noqa: C901 - one loop, through which every message goes
        """Bring every message to its call: events in order as one list for each call, then the outcome."""
        pending, core = self.pending, self._core
        stats = core.stats
        # Our signal went to the whole group: it has ended what a script was waiting for, and a failing command is no
        # failure to the engine. What a run says from then on is no result; it ends when the engine does.
        signalled = core.ending is not None and core.ending != "died"
        # No event to emit, no engine to end: most answers only go into their future.
        quiet = not (core.retired or signalled or (self._observed and getattr(self._core.sink, "listened", True)))
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
                        stats.unrouted_events += 1
                        continue
                    last_id = request_id
                    call.has_started = True
                    wanted = call.on_events is not None and call.given_up is None
                    batch = batches.setdefault(call, []) if wanted else None
                seen += 1
                if batch is not None:
                    event.line = line
                    batch.append(event)
                continue
            if seen:
                stats.events += seen
                seen = 0
            last_id = None
            result = head.result
            plain = type(result) is ResultHead and head.id is msgspec.UNSET
            request_id = result.id if plain else head.request_id  # type: ignore[union-attr]
            call = pending.get(request_id) if type(request_id) is int else None
            if call is None:
                stats.unknown_ids += 1
            elif not (signalled and call.is_run):
                if batches and (events := batches.pop(call, None)):
                    self._deliver(call, events)
                error = None if plain and result.error is None else failure_of(head)  # type: ignore[union-attr]
                if error is not None:
                    self._failed(call, error)
                elif not quiet:
                    self.settle(call, EngineReply(line), None)
                elif pending.pop(request_id, None) is not None:
                    stats.finished += 1
                    call.on_events = None  # the taker of events often holds the call: no cycle for the collector
                    call.finish(EngineReply(line), None)
        stats.events += seen
        for call, events in batches.items():
            self._deliver(call, events)
        if core.retired and not pending and core.ending is None:
            self._core.end.kill()

    def _caller_of(self, event: EngineEvent) -> Call | None:
        """Find whose event this is when a tool call's id stands where the request's should."""
        runs = [call for call in list(self.pending.values()) if call.is_run]
        if len(runs) == 1 and event.type.startswith("streaming:"):
            return runs[0]
        return None

    def _deliver(self, call: Call, events: list[EngineEvent]) -> None:
        take = call.on_events
        if take is None or not events or call.given_up is not None:
            return
        try:
            take(events)
        except BaseException as error:
            # The listener's trouble is not the engine's, `sys.exit` included: it would end the thread of all engines.
            call.on_events = None
            self._core.report("on_events", error)
            if isinstance(error, KeyboardInterrupt):
                raise

    def watch_deadline(self, deadline: float) -> None:
        """Arm the timer for this deadline; one timer serves all calls."""
        with self._lock:
            if deadline < self.next_deadline:
                if self._timer is not None:
                    self._timer.cancel()
                self.next_deadline = deadline
                self._timer = self._core.reactor.call_at(deadline, self._on_deadline)

    def _on_deadline(self) -> None:
        with self._lock:
            self.next_deadline = FOREVER
            self._timer = None
        now, nearest = self._core.now(), FOREVER
        for call in list(self.pending.values()):
            if call.deadline <= now:
                self._host.give_up(call, "timeout")
            elif call.deadline < nearest:
                nearest = call.deadline
        if nearest < FOREVER:
            self.watch_deadline(nearest)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def abandon(self, error: Callable[[], MlldError]) -> None:
        """In a forked child: fail what waits here, without a word to anything that belongs to the parent."""
        self._lock = threading.Lock()
        for call in list(self.pending.values()):
            self.pending.pop(call.id, None)
            call.finish(None, error())
