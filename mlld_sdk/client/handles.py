"""Runs in flight: wait for them, watch them, steer them, end them."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mlld_sdk.base.durations import DEFAULT, Deadline, Timeout, seconds
from mlld_sdk.base.errors import MlldError
from mlld_sdk.engines.requests import RequestLog
from mlld_sdk.engines.sources import WaitingCall, end_in_loop
from mlld_sdk.scripts import stream_events
from mlld_sdk.scripts.answers import mapping
from mlld_sdk.scripts.params import a_text
from mlld_sdk.scripts.results import read_object
from mlld_sdk.scripts.stream import ScriptEvents
from mlld_sdk.scripts.types import ExecuteResult, FileVerifyResult, HandleEvent
from mlld_sdk.transport.errors import CallCancelled, EngineClosed, EngineDied, ScriptError

if TYPE_CHECKING:
    from mlld_sdk.transport.call import Call
    from mlld_sdk.transport.wire import EngineReply

R = TypeVar("R")

_reviving = threading.Lock()

STEERING_SECONDS = 2.0
"""How long steering a run without any deadline may take to reach it."""


class RequestEnded(MlldError):
    """The run that was to be steered is over, or never was. Nothing was changed."""

    code = "REQUEST_NOT_FOUND"


class Handle(concurrent.futures.Future[R], Generic[R]):
    """A run in flight, and afterwards its outcome. Safe to use from any number of threads.

    It is a real `concurrent.futures.Future`, so `wait`, `as_completed` and `asyncio.wrap_future` take it, and it can be
    awaited as it is. Being awaited by a task that is cancelled cancels the run; `asyncio.shield` prevents that.

    Attributes:
        request_id: The id of the run on the wire; `None` while it waits for an engine.
    """

    # One reader, and its turn, for all who call `next_event`.
    _upstream: tuple[ScriptEvents, threading.Lock] | None = None

    # The inherited future is brought to life only if code outside asks for its insides: most handles are only
    # waited for, and the call below can do that by itself.
    _BASE = frozenset({"_condition", "_state", "_waiters", "_done_callbacks", "_result", "_exception"})

    def __init__(self, log: RequestLog, made_of: Callable[[EngineReply], R]) -> None:
        """Handles are made by those who begin requests; `made_of` makes the result from the engine's reply."""
        self._call = log.call
        self._log = log
        self._made_of = made_of

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name not in Handle._BASE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _reviving:
            if revived := "_condition" not in self.__dict__:
                concurrent.futures.Future.__init__(self)
                concurrent.futures.Future.set_running_or_notify_cancel(self)
        if revived:
            self._call.add_done_callback(self._settle)
        return self.__dict__[name]

    def __repr__(self) -> str:
        state = "running" if not self.done() else "cancelled" if self.cancelled() else "done"
        return f"<{type(self).__name__} {self.request_id} {state}>"

    @property
    def request_id(self) -> int | None:
        """The id of the run on the wire; `None` while it waits for an engine."""
        call = self._on_engine()
        return None if call is None else call.id

    # Waiting.

    def result(self, timeout: float | timedelta | None = None) -> R:
        """Wait for the run and return what it produced; as often as you like.

        Args:
            timeout: How long to wait at most. This limits the waiting, not the run: that has the deadline it was
                submitted with.

        Raises:
            TimeoutError: Not over within `timeout`.
            ScriptError: The script failed.
            CallCancelled: The run was cancelled.
            InfrastructureError: What runs scripts failed: `CallTimeout`, `EngineDied`, `EngineClosed`, ...
            TruncatedResult: In strict mode, the engine cut something out of the result.
        """
        return self._made_of(self._call.result(None if timeout is None else seconds(timeout)))

    def wait(self, timeout: float | timedelta | None = None) -> R:
        """Do what `result` does, under upstream's other name."""
        return self.result(timeout)

    def exception(self, timeout: float | timedelta | None = None) -> BaseException | None:
        """Wait for the run and return its error, or `None` if it has a result.

        Raises:
            TimeoutError: Not over within `timeout`.
        """
        error = self._call.exception(seconds(timeout))
        if error is None and self._log.strict:
            try:
                self.result()
            except MlldError as problem:
                return problem
        return error

    def done(self) -> bool:
        """Return whether the run is over, however it ended."""
        return self._call.done()

    def running(self) -> bool:
        """Return whether the run is not over."""
        return not self.done()

    def cancelled(self) -> bool:
        """Return whether the run ended because it was cancelled."""
        return self.done() and isinstance(self._call.exception(), CallCancelled)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(handle)` when the run is over, on the I/O thread; at once if it is. It must not block."""
        self._call.add_done_callback(lambda _: fn(self))

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        try:
            await end_in_loop(self._call)
        except BaseException:  # the awaiting task was cancelled
            self.cancel()
            raise
        return self.result(0)

    # Watching.

    def events(self) -> ScriptEvents:
        """Read the run's events from the oldest kept one to the last, in a `for` or an `async for`.

        Every call gives a reader of its own, and reading takes nothing away from the result. A reader that falls more
        than `max_events` behind is told by an `EventsDropped`.
        """
        return ScriptEvents(self._log)

    def next_event(self, timeout: Timeout = DEFAULT) -> HandleEvent | None:
        """Wait for the next state write, session write, denial or trace record, or for the end.

        Args:
            timeout: How long to wait; the run's own timeout unless given.

        Returns:
            The event; one of type `complete` when the run has a result, once; `None` on timeout and afterwards.

        Raises:
            MlldError: The run failed; also once.
        """
        deadline = Deadline(self._limit(timeout))
        stream, turn = self._reader()
        while True:
            if not turn.acquire(timeout=deadline.left):
                return None
            try:
                event = stream.next(deadline.left)
            finally:
                turn.release()
            if event is None:
                return None
            if (told := self._in_upstreams_words(event)) is not None:
                return told

    async def next_event_async(self, timeout: Timeout = DEFAULT) -> HandleEvent | None:
        """Do what `next_event` does without blocking the event loop; one reader at a time, of either kind."""
        import asyncio

        stream, _ = self._reader()
        try:
            async with asyncio.timeout(self._limit(timeout)):
                while (event := await stream.anext(None)) is not None:
                    if (told := self._in_upstreams_words(event)) is not None:
                        return told
        except TimeoutError:
            pass
        return None

    def partial_result(self) -> ExecuteResult:
        """Return what the run has produced so far, also after it failed: state writes, denials and outputs.

        Its `output` is the outputs joined, which is not exactly the document a finished run returns.
        """
        effects = self._log.effects()
        return ExecuteResult(
            output="".join(effect.content or "" for effect in effects if effect.type in ("both", "doc", "stdout")),
            state_writes=self._log.state_writes(),
            effects=effects,
            denials=self._log.denials(),
            events_dropped=self._log.dropped,
        )

    # Steering.

    def cancel(self) -> bool:
        """Cancel the run; false if it is over already. Returns at once; the run then ends as `CallCancelled`.

        With `isolation="exclusive"` it ends when its engine and everything that engine started are dead.
        """
        return self._call.cancel()

    def update_state(
        self, path: str, value: object, *, labels: Sequence[str] | None = None, timeout: Timeout = DEFAULT
    ) -> None:
        """Change `@state` of the running script, and return when the engine has taken it.

        Args:
            path: Dotted path.
            value: The new value.
            labels: Security labels of the value.
            timeout: How long this may take; the run's own timeout unless given.

        Raises:
            InvalidRequest: The path is blank.
            RequestEnded: The run is over; raised at once.
            ScriptError: The engine refused, for example because the run was started without `state`.
        """
        a_text("state update path", path, blank=False)
        self._steer(lambda call, left: call.update_state(path, value, labels=labels, timeout=left), timeout)

    # Inside.

    def _limit(self, timeout: Timeout) -> float | None:
        return self._log.timeout if timeout is DEFAULT else seconds(timeout)

    def _reader(self) -> tuple[ScriptEvents, threading.Lock]:
        with _reviving:
            if self._upstream is None:
                self._upstream = (ScriptEvents(self._log), threading.Lock())
            return self._upstream

    def _on_engine(self) -> Call | None:
        call = self._call
        return call.call if isinstance(call, WaitingCall) else call

    def _steer(self, send: Callable[[Call, float], Call], timeout: Timeout) -> EngineReply:
        limit = self._limit(timeout)
        deadline = Deadline(STEERING_SECONDS if limit is None else limit)
        if isinstance(self._call, WaitingCall):
            self._call.begun.wait(deadline.left)
        call = self._on_engine()
        if call is None or self.done():
            raise RequestEnded(f"no active request: {self!r}", hint="only a run in progress can be steered")
        try:
            return send(call, deadline.left).result()
        except (EngineClosed, EngineDied, ScriptError) as error:
            if self.done() or error.code == RequestEnded.code:
                raise RequestEnded(f"the run ended meanwhile: {self!r}") from error
            raise

    def _settle(self, _: object) -> None:
        error = self._call.exception()
        if error is None:
            try:
                result = self.result(0)
            except Exception as problem:  # noqa: BLE001 - any error is the outcome
                error = problem
            else:
                self.set_result(result)
                return
        self.set_exception(error)

    def _in_upstreams_words(self, event: stream_events.ScriptEvent) -> HandleEvent | None:
        match event:
            case stream_events.StateWritten(write=write):
                return HandleEvent("state_write", state_write=write)
            case stream_events.SessionWritten(write=session):
                return HandleEvent("session_write", session_write=session)
            case stream_events.GuardDenied(denial=denial):
                return HandleEvent("guard_denial", guard_denial=denial)
            case stream_events.TraceRecorded(trace=trace):
                return HandleEvent("trace_event", trace_event=trace)
            case stream_events.EventsDropped(count=count):
                return HandleEvent("dropped", dropped=count)
            case stream_events.ScriptCompleted():
                return HandleEvent("complete")
            case stream_events.ScriptFailed() | stream_events.ScriptCancelled():
                raise self._call.exception() or MlldError("the run failed")
        return None


class ProcessHandle(Handle[str]):
    """A run of script text. Its result is the output; `full_result` has the rest."""

    def __init__(self, log: RequestLog) -> None:
        super().__init__(log, log.output)

    def full_result(self, timeout: float | timedelta | None = None) -> ExecuteResult:
        """Wait like `result` and return everything the run produced."""
        return self._log.result(self._call.result(seconds(timeout)))


class ExecuteHandle(Handle[ExecuteResult]):
    """A run of a script file."""

    def __init__(self, log: RequestLog) -> None:
        super().__init__(log, log.result)

    def full_result(self, timeout: float | timedelta | None = None) -> ExecuteResult:
        """Do what `result` does; there so that both kinds of handle have it."""
        return self.result(timeout)

    def write_file(self, path: str, content: str, *, timeout: Timeout = DEFAULT) -> FileVerifyResult:
        """Write a file as the running script, signed with its name, and return its status.

        Args:
            path: Relative to the script's directory.
            content: The text.
            timeout: How long this may take; the run's own timeout unless given.

        Raises:
            InvalidRequest: The path is blank or the content no text.
            RequestEnded: The run is over.
            ScriptError: The engine refused.
        """
        a_text("file write path", path, blank=False)
        a_text("file write content", content)
        reply = self._steer(lambda call, left: call.write_file(path, content, timeout=left), timeout)
        return read_object(FileVerifyResult, mapping(reply.payload, "file:write"))
