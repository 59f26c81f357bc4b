"""Requests that nobody waits for on a thread: their handles are futures, in the queue and on the engine."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec

from mlld_sdk.base.durations import seconds
from mlld_sdk.base.errors import InfrastructureError, MlldError, TaskError
from mlld_sdk.base.events import is_listened
from mlld_sdk.base.spans import failed_request
from mlld_sdk.client.handles import Handle
from mlld_sdk.engines import background, checkpoint_params
from mlld_sdk.engines.pool import EnginePool, EnginePoolClosed
from mlld_sdk.engines.queued import Placed, QueuedCall, StillWaiting, queue
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.engines.requests import Held, Lender, Port
from mlld_sdk.engines.shared import Moored, Sharing
from mlld_sdk.scripts.answers import end_span
from mlld_sdk.scripts.params import CHECKPOINT_OPTIONS, RunOptions, execute_params
from mlld_sdk.scripts.stream import RunLog
from mlld_sdk.transport.call import Call, CallHost, OnEvents
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineClosed, EngineDied, ForkedProcess
from mlld_sdk.transport.wire import EngineEvent, EngineReply, freeze

H = TypeVar("H", bound=Handle[Any])

Params = dict[str, Any] | msgspec.Raw
"""What a request says, or has said already."""

OnEnd = Callable[[BaseException | None], object]
"""Takes the error of a request that failed, or `None`. Must not block."""

ALL_EVENTS: Final = "all"
"""What engines of the 2.1 line are asked for, which send no more than they are asked for."""


class _RequestLog(RunLog):
    """The events of a request, and what is done at its end. One object, since there may be thousands at once."""

    def __init__(self, port: "AsyncPort", method: str, params: dict[str, Any], then: OnEnd | None) -> None:
        super().__init__()
        self._port = port
        self._asked = params
        self._then = then
        self._span = port._span(method, params) if is_listened(port._sink) else None
        self._began = port._env.now()
        self._method = method

    def push(self, events: Sequence[EngineEvent]) -> None:
        """Put events away, and tell of those that are about the cache."""
        super().push(events)
        self._port._tell_checkpoints(events)

    def watch(self, call: Call | QueuedCall) -> None:
        """See to the end of a call, which these are the events of."""
        at_the_end = call.when_failed if self._then is None and self._span is None else call.when_over
        at_the_end(self._over)
        self._call = call

    def failed(self, error: BaseException) -> None:
        """Tell that the request failed."""
        port = self._port
        span = self._span or failed_request(port._sink, port._env, self._method, self._asked, port._who, self._began)
        span.fail(error)
        if self._then is not None:
            self._then(error)

    def _over(self, call: Call | QueuedCall) -> None:
        error = call.exception()
        if error is not None:
            self._port._request_failed(call, error)
            self.failed(error)
            return
        try:
            if self._span is not None:
                end_span(self._span, call, None)
        finally:
            if self._then is not None:
                self._then(None)


class OpenLender(Lender, Protocol):
    """A lender that can also be asked without waiting."""

    def lease_now(self) -> Held | None:
        """Lend an engine that is there and free; start none and wait for nothing."""
        ...

    def order(self, then: Callable[[Any], object], timeout: float, patience: CancelScope) -> Placed:
        """Have `then` called with what `lease` would return or raise."""
        ...


class AsyncPort(Port):
    """A port that also begins requests without waiting. Any thread may, an event loop's too.

    What leaves the caller's thread: starting an engine, and cleaning up after a request.
    """

    pool: OpenLender

    def begin_execute(
        self, kind: type[H], filepath: str, payload: Any, options: RunOptions, then: OnEnd | None = None
    ) -> H:
        """Begin to run a script file; `then` is called at the end."""
        params = execute_params(self._working_dir / filepath, payload, {**self._caching, **options})
        return self._begin(kind, "execute", params, options, then)

    def begin_process(
        self,
        kind: type[H],
        script: str,
        file_path: str | None,
        payload: Any,
        options: RunOptions,
        then: OnEnd | None = None,
    ) -> H:
        """Begin to run script text; `then` is called at the end."""
        return self._begin(kind, "process", self._process_params(script, file_path, payload, options), options, then)

    def looks_at_files(self, options: RunOptions) -> bool:
        """Whether a request with these options has files read or edited before it is sent."""
        return bool(self._caching) or not CHECKPOINT_OPTIONS.isdisjoint(options)

    def _begin(self, kind: type[H], method: str, params: dict[str, Any], options: RunOptions, then: OnEnd | None) -> H:
        self._refuse_if_stopped()
        timeout = seconds(options["timeout"]) if "timeout" in options else self.timeout
        log = _RequestLog(self, method, params, then)
        try:
            sent_as, params = checkpoint_params.for_engine(self.kind, method, params, self._working_dir)
            params["eventMode"] = ALL_EVENTS
            call = self._submit(sent_as, params, timeout, log.push)
        except BaseException as error:
            log.failed(error)
            raise
        log.watch(call)
        return kind(call, log, patience=timeout, cuts=self.kind == "live", strict=options.get("strict", False))

    def _request_failed(self, call: Call | QueuedCall, error: BaseException) -> None:
        """Draw consequences, unless giving back the engine does."""

    def _submit(
        self, method: str, params: dict[str, Any], timeout: float | None, on_events: OnEvents | None
    ) -> Call | QueuedCall:
        held = self.pool.lease_now()
        if held is not None:
            return self._send(held, method, params, timeout, on_events)
        said = freeze(params)
        return self._queue(self.pool.order, lambda held, left: self._send(held, method, said, left, on_events), timeout)

    def _queue(
        self,
        order: Callable[[Callable[[Any], bool], float, CancelScope], Placed],
        send: Callable[[Any, float | None], Call],
        timeout: float | None,
    ) -> QueuedCall:
        """Order an engine, and send when it is there with what time is left."""
        try:
            return queue(
                lambda then, limit: order(then, limit, self._patience),
                send,
                self._refused,
                timeout=timeout,
                now=self._env.now,
            )
        except EnginePoolClosed:
            self._refuse_if_stopped()
            raise

    def _send(self, held: Held, method: str, params: Params, timeout: float | None, on_events: OnEvents | None) -> Call:
        with self._lock:
            self._leases.add(held)
        if self._patience.over is not None:
            background.run(self._give_back, held, False)
            self._refuse_if_stopped()
        try:
            call = held.engine.submit(method, params, timeout=timeout, on_events=on_events)
        except BaseException as error:
            self._end(held, error)
            raise
        begins = True

        def over(done: Call) -> None:
            error = done.exception()
            if error is None and not self._reaps and not begins:
                self._over(held, error)
            elif not isinstance(error, ForkedProcess):  # here the engine is not ours to give back
                self._end(held, error)

        call.when_over(over)
        begins = False
        return call

    def _end(self, held: Held, error: BaseException | None) -> None:
        """Give an engine back elsewhere: it takes a moment, and here may be an event loop or who reads every answer."""
        background.run(self._over, held, error)

    def _refused(self, error: BaseException) -> BaseException:
        """Say why there is no engine: because everything ends, if so."""
        if self._patience.over is not None:
            return copy.copy(self._patience.over)
        if isinstance(error, InfrastructureError):
            self._count(error)
        return error


class SharedPort(AsyncPort):
    """A port whose requests are all made on one engine at once."""

    def __init__(self, pool: EnginePool[Engine], **settings: Any) -> None:
        super().__init__(pool, **settings)
        self._sharing = Sharing(pool)

    def stop(self, why: MlldError) -> None:
        """Refuse further requests with `why`, and kill the engine of those under way; returns at once."""
        self._patience.end(why)
        self._sharing.kill(partial(copy.copy, why))

    def _ask(
        self, method: str, params: dict[str, Any], timeout: float | None, on_events: OnEvents | None
    ) -> EngineReply:
        self._refuse_if_stopped()
        call = self._submit(method, params, timeout, on_events)
        try:
            return call.result()
        except Exception as error:
            self._request_failed(call, error)
            raise
        except BaseException:  # nobody waits for it any more
            call.cancel()
            raise

    def _submit(
        self, method: str, params: dict[str, Any], timeout: float | None, on_events: OnEvents | None
    ) -> Call | QueuedCall:
        call = self._sharing.submit(method, params, timeout, on_events)
        if call is None:
            said = freeze(params)
            return self._queue(
                self._sharing.order, lambda at, left: self._send_to(at, method, said, left, on_events), timeout
            )
        return call

    def _send_to(
        self, at: Moored, method: str, params: Params, timeout: float | None, on_events: OnEvents | None
    ) -> Call:
        engine = at.lease.engine
        try:
            call = engine.submit(method, params, timeout=timeout, on_events=on_events)
        except EngineClosed:  # it was retired or ended in this moment, and not for anything that was asked
            self._refuse_if_stopped()
            raise StillWaiting from None
        except EngineDied as error:
            self._blame(engine, error)
            raise
        call.when_failed(lambda call: self._blame(call.engine, call.exception()))
        if self._patience.over is not None:  # stopped in this moment, perhaps before the engine was known
            engine.kill(partial(copy.copy, self._patience.over))
        return call

    def _request_failed(self, call: Call | QueuedCall, error: BaseException) -> None:
        if not isinstance(call, QueuedCall):  # what waited in the queue has said so when it was sent
            self._blame(call.engine, error)

    def _blame(self, engine: CallHost, error: BaseException | None) -> None:
        if isinstance(error, InfrastructureError) and self._patience.over is None:
            self._count(error)
        elif isinstance(error, TaskError) and self.kind == "live":
            engine.retire()  # it may go on with branches of the script that failed, so it takes no more
