"""What one run said while it ran: kept within bounds, read by any number of readers, and still there for the result.

A run's raw events arrive on the I/O thread and are only put away there. They are decoded when they are read: by the
reader of `events()` that comes first, or when the result is built. So a run that is not watched costs next to nothing.
"""

import concurrent.futures
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.errors import InfrastructureError, MlldError
from mlld_sdk.base.loops import from_any_thread
from mlld_sdk.scripts import results
from mlld_sdk.scripts.normalise import Normaliser
from mlld_sdk.scripts.stream_events import (
    LAST_EVENTS,
    EventsDropped,
    OtherEvent,
    ScriptCancelled,
    ScriptCompleted,
    ScriptEvent,
    ScriptFailed,
    ScriptStarted,
)
from mlld_sdk.scripts.types import Effect, GuardDenial, StateWrite
from mlld_sdk.transport.errors import CallCancelled
from mlld_sdk.transport.wire import EngineEvent

T = TypeVar("T")

MAX_EVENTS = 10_000
"""Events of one run that wait for a slow reader, unless the client says otherwise. The oldest are dropped first."""

MAX_BYTES = 64 << 20
"""Bytes of raw events that one run keeps for its readers, and again for its result."""

PART_OF_RESULT = frozenset({"state:write", "guard_denial", "effect"})
REPEATS_THE_RESULT = frozenset({"execution:complete", "result"})


class EventHistory:
    """The events of a run that belong to its result. Filled by one thread; read when the run is over, or before.

    When it is full the newest are not kept and `dropped` says how many.
    """

    dropped = 0
    _kept_bytes = 0
    _kept: list[EngineEvent] | None = None  # most runs have none

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._limit = max_events
        self._limit_bytes = max_bytes

    def push(self, events: Sequence[EngineEvent]) -> None:
        """Put events away. Never blocks."""
        for event in events:
            if event.type in PART_OF_RESULT:
                kept = self._kept
                if kept is None:
                    kept = self._kept = []
                size = self._kept_bytes + len(event.line)
                if len(kept) < self._limit and size <= self._limit_bytes:
                    self._kept_bytes = size
                    kept.append(event)
                else:
                    self.dropped += 1

    def state_writes(self) -> list[StateWrite]:
        """List the state writes so far, in order."""
        return self._values("state:write", "write", StateWrite)

    def denials(self) -> list[GuardDenial]:
        """List the denials so far, in order."""
        return self._values("guard_denial", "guard_denial", GuardDenial)

    def effects(self) -> list[Effect]:
        """List the outputs so far, in order."""
        return self._values("effect", "effect", Effect)

    def _values(self, event_type: str, member: str, kind: type[T]) -> list[T]:
        values = []
        for event in list(self._kept or ()):
            value = results.read(kind, event.body.get(member)) if event.type == event_type else None
            if value is not None:
                values.append(value)
        return values


class RunLog(EventHistory):
    """A history that can also be read while it grows, and for ever after.

    Bounded: at most `max_events` and `max_bytes` of undecoded and as many of decoded events are kept, the oldest go
    first, and each reader is told what it missed by an `EventsDropped`.
    """

    # What a log needs once it is read stands in the class until then: most runs are only waited for.
    _raw: deque[EngineEvent] | None = None
    _raw_bytes = 0
    _missed = 0  # raw events that were dropped since the last one that was decoded
    _seq = 0
    _ended = False
    _watched = False
    # Set by who makes the request: its outcome will be the last event.
    _call: concurrent.futures.Future[Any] | None = None
    _method = ""
    _told: deque[ScriptEvent]
    _sizes: deque[int]  # of what each of them was read from
    _told_bytes = 0
    _read_bytes = 0  # since the last one that was told
    _normaliser: Normaliser
    _wakers: list[Callable[[], None]] | None = None

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._limit = max_events
        self._limit_bytes = max_bytes
        self._lock = threading.Lock()

    def push(self, events: Sequence[EngineEvent]) -> None:
        """Put events away and wake the readers. Never blocks."""
        super().push(events)
        with self._lock:
            if self._raw is None:
                self._raw = deque()
            raw = self._raw
            for event in events:
                if event.type in REPEATS_THE_RESULT:
                    continue
                raw.append(event)
                self._raw_bytes += len(event.line)
                while len(raw) > self._limit or self._raw_bytes > self._limit_bytes:
                    self._raw_bytes -= len(raw.popleft().line)
                    self._missed += 1
        if self._wakers:
            self.wake()

    def after(self, seq: int) -> ScriptEvent | None:
        """Return the event that follows number `seq`, or `None` if there is none yet."""
        with self._lock:
            self._decode()
            if seq >= self._seq:
                return None
            oldest = self._told[0].seq
            # Numbers rise by one but for gaps, so the event stands at this place or before it.
            place = max(0, min(seq + 1 - oldest, len(self._told) - 1))
            while place > 0 and self._told[place - 1].seq > seq:
                place -= 1
            event = self._told[place]
            if event.seq > seq + 1:
                return EventsDropped(seq=event.seq - 1, count=event.seq - 1 - seq)
            return event

    def wait_after(self, seq: int, deadline: Deadline) -> ScriptEvent | None:
        """Wait for the event that follows number `seq`; `None` if none came before the deadline."""
        event = self.after(seq)
        if event is not None:
            return event
        news = threading.Event()
        stop = self.listen(news.set)
        try:
            while (event := self.after(seq)) is None:
                if deadline.is_over:
                    return None
                news.wait(deadline.left)
                news.clear()
        finally:
            stop()
        return event

    def listen(self, function: Callable[[], None]) -> Callable[[], None]:
        """Call the function, on the I/O thread, whenever there is something new; returns what ends that."""
        with self._lock:
            if self._wakers is None:
                self._wakers = []
            self._wakers.append(function)
            begin, self._watched = not self._watched, True
        if begin and self._call is not None:
            held = weakref.ref(self)  # a future may keep its callbacks for as long as it lives
            self._call.add_done_callback(lambda _: _wake(held()))

        def stop() -> None:
            with self._lock:
                if self._wakers and function in self._wakers:
                    self._wakers.remove(function)

        return stop

    def wake(self) -> None:
        """Wake the readers that wait for an event."""
        for waker in list(self._wakers or ()):
            waker()

    def _tell(self, event: ScriptEvent) -> None:
        self._seq += 1
        self._told.append(msgspec.structs.replace(event, seq=self._seq))
        self._sizes.append(self._read_bytes)
        self._told_bytes += self._read_bytes
        self._read_bytes = 0
        while len(self._told) > 1 and (len(self._told) > self._limit or self._told_bytes > self._limit_bytes):
            self._told.popleft()
            self._told_bytes -= self._sizes.popleft()

    def _decode(self) -> None:
        if self._ended:
            return
        if self._seq == 0:
            self._told, self._sizes = deque(), deque()
            self._normaliser = Normaliser()
            self._tell(ScriptStarted(method=self._method, request_id=getattr(self._call, "id", None)))
        # Asked first: all events from before the outcome are here by now.
        over = self._call is not None and self._call.done()
        raw = self._raw
        while raw:
            self._skip_missed()
            event = raw.popleft()
            self._raw_bytes -= len(event.line)
            self._read_bytes += len(event.line)
            body = event.body
            if not body:
                self._tell(OtherEvent(type=event.type))
                continue
            for told in self._normaliser.feed(body):
                self._tell(told)
        if over:
            self._ended = True
            self._skip_missed()
            for told in self._normaliser.finish():
                self._tell(told)
            self._tell(_last_event(self._call))

    def _skip_missed(self) -> None:
        self._seq += self._missed
        self._missed = 0


def _wake(log: RunLog | None) -> None:
    if log is not None:
        log.wake()


def _last_event(call: concurrent.futures.Future[Any] | None) -> ScriptEvent:
    error = None if call is None else call.exception()
    if error is None:
        return ScriptCompleted()
    if isinstance(error, CallCancelled):
        return ScriptCancelled()
    code = error.code if isinstance(error, MlldError) else type(error).__name__
    infrastructure = isinstance(error, InfrastructureError) or not isinstance(error, MlldError)
    return ScriptFailed(code=code, message=str(error), infrastructure=infrastructure)


class ScriptEvents(Iterator[ScriptEvent], AsyncIterator[ScriptEvent]):
    """The events of one run, from the oldest that is kept to the last; for `for` and for `async for`.

    Every stream sees every event, however many others read. It ends after the run's last event.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._seq = 0
        self._done = False

    def __next__(self) -> ScriptEvent:
        event = self.next(None)
        if event is None:
            raise StopIteration
        return event

    def next(self, within: float | None) -> ScriptEvent | None:
        """Wait for the next event; `None` if the stream has ended or nothing came within so many seconds."""
        if self._done:
            return None
        return self._took(self._log.wait_after(self._seq, Deadline(within)))

    async def __anext__(self) -> ScriptEvent:
        event = await self.anext(None)
        if event is None:
            raise StopAsyncIteration
        return event

    async def anext(self, within: float | None) -> ScriptEvent | None:
        """Do what `next` does without blocking the event loop."""
        if self._done:
            return None
        if (event := self._log.after(self._seq)) is not None:
            return self._took(event)
        import asyncio

        news = asyncio.Event()
        stop = self._log.listen(from_any_thread(news.set))
        try:
            async with asyncio.timeout(within):
                while (event := self._log.after(self._seq)) is None:
                    await news.wait()
                    news.clear()
        except TimeoutError:
            return None
        finally:
            stop()
        return self._took(event)

    def _took(self, event: ScriptEvent | None) -> ScriptEvent | None:
        if event is not None:
            self._seq = event.seq
            self._done = isinstance(event, LAST_EVENTS)
        return event
