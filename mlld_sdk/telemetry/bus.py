"""The bus: takes every event once and hands it to each attached handler, without delaying or failing the emitter.

Emitting costs an append per handler. Each handler has a thread of its own and a bounded backlog, so a handler that
raises is detached and reported, one that is slow loses the oldest of its backlog and is told how much, and one that
blocks for ever holds up only itself.
"""

import contextlib
import threading
import traceback
from collections.abc import Collection, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.events import Event, Sink, name_of
from mlld_sdk.base.options import check_callable, whole
from mlld_sdk.base.spans import REQUESTS, Span

BACKLOG = 10_000
"""Events kept for a handler that does not keep up; beyond it the oldest are dropped and counted."""

Names = frozenset[str]
NOTHING: Names = frozenset()


class HandlerDetached(Event, frozen=True, tag="telemetry.handler_detached"):
    """A handler raised and was detached.

    Attributes:
        handler: The id it was attached under.
        error: Its traceback.
        during: Name of the event it could not handle.
    """

    handler: str
    error: str
    during: str


class HandlerLagged(Event, frozen=True, tag="telemetry.lagged"):
    """A handler was too slow and missed events. Only that handler receives this.

    Attributes:
        missed: How many events it did not get since the last one it got.
    """

    missed: int


class AlreadyAttached(ConfigurationError):
    """A handler is attached under this id; detach it first or choose another id."""

    code = "HANDLER_ALREADY_ATTACHED"


class _Handler:
    """One attached function.

    Attributes:
        key: The id it was attached under.
        take: Called with each event it wants, by the emitting thread.
        aside: Whether it is no reason to emit every request.
    """

    def __init__(
        self, key: str, take: Sink, *, aside: bool = False, names: Names | None = None, besides: Names = NOTHING
    ) -> None:
        self.key = key
        self.take = take
        self.aside = aside
        self._names = names
        self._besides = besides

    def wants(self, name: str) -> bool:
        """Return whether it is to be called with events of a name."""
        return (self._names is None or name in self._names) and name not in self._besides

    def close(self, timeout: float) -> None:
        """Wait until it has been called with everything, for `timeout` seconds at most."""


class _Threaded(_Handler):
    """One with a backlog and a thread of its own."""

    def __init__(self, bus: "Bus", key: str, call: Sink, backlog: int, *, names: Names | None, besides: Names) -> None:
        self._bus = bus
        self._call = call
        self._backlog: SimpleQueue[Event | None] = SimpleQueue()
        self._missed = 0
        self._counting = threading.Lock()
        super().__init__(key, self._offer_within(backlog), names=names, besides=besides)
        self._thread = threading.Thread(target=self._run, name=f"telemetry-{key}", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> None:
        self._backlog.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _offer_within(self, limit: int) -> Sink:
        # A closure: this runs once for each event and handler, in the emitting thread.
        size, put = self._backlog.qsize, self._backlog.put

        def offer(event: Event) -> None:
            if size() >= limit:
                self._drop_oldest()
            put(event)

        return offer

    def _drop_oldest(self) -> None:
        with self._counting, contextlib.suppress(Empty):
            if self._backlog.get_nowait() is None:
                self._backlog.put(None)  # that was its end, which is told by `close`
            else:
                self._missed += 1

    def _run(self) -> None:
        while (event := self._lagged() if self._missed else self._backlog.get()) is not None:
            try:
                self._call(event)
            except BaseException:  # noqa: BLE001 - no error of a handler may reach the emitter
                self._bus.handler_failed(self, event, traceback.format_exc())
                return

    def _lagged(self) -> HandlerLagged:
        with self._counting:
            missed, self._missed = self._missed, 0
        return HandlerLagged(at=self._bus.env.wall(), missed=missed)


class Bus:
    """Takes every event once and hands it to each attached handler.

    Handlers run on threads of their own, in the order events were emitted. The bus is a `Sink`, and so is its `emit`:
    it never blocks and never raises.

    Attributes:
        listened: Whether a handler wants every request to an engine. If not, only those that fail are emitted.
    """

    def __init__(self, env: Env | None = None) -> None:
        self.env: Env = env or Env()
        self.listened: bool = False
        self._lock = threading.Lock()
        self._handlers: tuple[_Handler, ...] = ()
        self._wanted: dict[type[Event], tuple[_Handler, ...]] = {}

    def emit(self, event: Event) -> None:
        """Hand one event to every handler that wants it. Costs next to nothing without handlers."""
        handlers = self._wanted.get(type(event))
        for handler in self._handlers_for(event) if handlers is None else handlers:
            try:
                handler.take(event)
            except Exception:  # noqa: BLE001 - a view that fails is detached, and the emitter goes on
                self.handler_failed(handler, event, traceback.format_exc())

    __call__ = emit

    def attach(
        self,
        key: str,
        handler: Sink,
        *,
        events: Collection[type[Event] | str] | None = None,
        besides: Collection[type[Event] | str] = (),
        backlog: int = BACKLOG,
    ) -> None:
        """Call `handler` with every event from now on, on a thread of its own.

        Args:
            key: Names the handler, for `detach` and for the report should it fail.
            handler: Called with one event at a time. If it raises it is detached and `HandlerDetached` is emitted.
            events: Classes or names of the events it wants; all of them by default.
            besides: Classes or names of events it does not want.
            backlog: How many events may wait for it; beyond that the oldest are dropped and it gets `HandlerLagged`.

        Raises:
            AlreadyAttached: If `key` is taken.
        """
        check_callable("handler", handler)
        whole("backlog", backlog, least=1)
        names = None if events is None else frozenset(_event_name(event) for event in events) | {"telemetry.lagged"}
        unwanted = frozenset(_event_name(event) for event in besides)
        with self._lock:
            self._refuse_if_taken(key)
            self._keep(*self._handlers, _Threaded(self, key, handler, backlog, names=names, besides=unwanted))

    def attach_inline(self, key: str, handler: Sink, *, aside: bool = False) -> None:
        """Call `handler` in the thread that emits: for views that only count or keep, and never wait.

        Args:
            key: Names the handler.
            handler: Called with one event at a time, from many threads.
            aside: It takes what there is, but is no reason to emit every request (`listened`).

        Raises:
            AlreadyAttached: If `key` is taken.
        """
        check_callable("handler", handler)
        with self._lock:
            self._refuse_if_taken(key)
            self._keep(*self._handlers, _Handler(key, handler, aside=aside))

    def span(self, name: str, **fields: Any) -> Span:
        """Begin a span: `span.started` now, and `span.stopped` or `span.failed` when the block ends (TEL-4).

        ```python no-run
        with bus.span("import", source="crm") as span:
            span.note(rows=load())
        ```

        The exception of a failed block goes on.

        Args:
            name: What is done.
            **fields: Emitted with the start and again with the end.
        """
        return Span(self.emit, self.env, name, fields)

    def detach(self, key: str, timeout: float = 5.0) -> bool:
        """Take a handler off after it has seen what was emitted before, and return whether there was one.

        Args:
            key: The id it was attached under.
            timeout: How long it may take to finish its backlog.
        """
        with self._lock:
            handler = next((each for each in self._handlers if each.key == key), None)
            self._keep(*(each for each in self._handlers if each is not handler))
        if handler is not None:
            handler.close(timeout)
        return handler is not None

    def handlers(self) -> list[str]:
        """List the ids of the attached handlers."""
        return [handler.key for handler in self._handlers]

    def close(self, timeout: float = 5.0) -> None:
        """Detach all handlers; each finishes its backlog first, all of them within `timeout` seconds."""
        deadline = Deadline(timeout)
        for key in self.handlers():
            self.detach(key, deadline.left)

    @contextlib.contextmanager
    def recording(self, key: str = "recording") -> Iterator[list[Event]]:
        """Collect what is emitted inside the block, in order, without a thread."""
        seen: list[Event] = []
        self.attach_inline(key, seen.append)
        try:
            yield seen
        finally:
            self.detach(key)

    def _keep(self, *handlers: _Handler) -> None:
        self._handlers = tuple(sorted(handlers, key=lambda handler: isinstance(handler, _Threaded)))
        self._wanted = {}
        self.listened = any(each.wants(name) for each in handlers if not each.aside for name in REQUESTS)

    def _handlers_for(self, event: Event) -> tuple[_Handler, ...]:
        """Find out, once for each kind of event, which handlers want it."""
        known, handlers, name = self._wanted, self._handlers, name_of(event)
        found = known[type(event)] = tuple(handler for handler in handlers if handler.wants(name))
        return found

    def _refuse_if_taken(self, key: str) -> None:
        if key in self.handlers():
            raise AlreadyAttached(f"a handler is already attached as {key!r}", hint="detach it or choose another id")

    def handler_failed(self, handler: _Handler, event: Event, error: str) -> None:
        """Detach a handler that has raised, and tell the others."""
        with self._lock:
            self._keep(*(each for each in self._handlers if each is not handler))
        self.emit(HandlerDetached(at=self.env.wall(), handler=handler.key, error=error, during=name_of(event)))


def _event_name(event: type[Event] | str) -> str:
    return event if isinstance(event, str) else str(event.__struct_config__.tag)
