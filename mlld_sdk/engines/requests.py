"""Requests to engines: the one place where they are made and judged.

Clients, agents, pools, checkouts and the steps of runs each hold an `EngineRequests`. It decides about parameters,
checkpoint options, event mode, deadline, telemetry, truncation, strictness and errors; which engine takes a request is
up to its `AnySource`.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from mlld_sdk.base.durations import DEFAULT, Timeout, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InvalidRequest
from mlld_sdk.base.events import Sink, discard, is_listened
from mlld_sdk.base.spans import Span, request_span
from mlld_sdk.engines.cache_use import CacheUse
from mlld_sdk.engines.checkpoint_params import apply_checkpoint_options
from mlld_sdk.engines.checkpoints import Checkpoints
from mlld_sdk.engines.draining import AnySource
from mlld_sdk.engines.events import CheckpointHitEvent, CheckpointMissedEvent, ModelUnansweredEvent
from mlld_sdk.engines.kinds import refuse_unseen
from mlld_sdk.engines.sources import ENGINE_FAILURES, WaitingCall, end_in_loop
from mlld_sdk.scripts import results
from mlld_sdk.scripts.answers import mapping, output_of, result_of, sizes, wrong_answer
from mlld_sdk.scripts.params import CHECKPOINT_OPTIONS, CHECKPOINT_PARAMS, RunOptions, execute_params, process_params
from mlld_sdk.scripts.stream import MAX_EVENTS, EventHistory, RunLog
from mlld_sdk.scripts.types import AnalyzeResult, ExecuteResult, Unanswered
from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.checkpoint_cache import DEFAULT_ROOT, PLACES
from mlld_sdk.transport.command import BRIDGE_PACKAGE, EngineCommand
from mlld_sdk.transport.errors import CallCancelled, UnserialisableParams
from mlld_sdk.transport.mlld_package import cache_place
from mlld_sdk.transport.truncation import find_cuts
from mlld_sdk.transport.wire import EngineEvent, EngineReply

DEFAULT_TIMEOUT: Final = 600.0
"""Seconds a request of an agent or a pool may take unless it says otherwise: model calls are slow."""

T = TypeVar("T")

AnyPath = str | os.PathLike[str]

NO_OPTIONS: Final[RunOptions] = {}
"""Of those that have none; there may be thousands."""

NOT_OF_LIVE: Final = CHECKPOINT_PARAMS | {"onCommandFailure"}
"""Wire names of the parameters live engines do not have."""

Asked = tuple[str, dict[str, Any], RunOptions]
"""A request: method, parameters and options."""


NO_NEWS: Final = (CallCancelled, InvalidRequest, UnserialisableParams)
"""Errors that tell a circuit breaker nothing: requests that were taken back or could not be sent."""


class RequestPermit(Protocol):
    """The right to make one request, and the duty to report how it went; the first report counts."""

    def settle(self, failure: object) -> None:
        """Report how it went: what went wrong, or `None`."""

    def withdraw(self) -> None:
        """Report nothing: it was not made, or how it went is reported elsewhere."""


class Gate(Protocol):
    """What lets requests through or refuses them: a circuit breaker."""

    def acquire(self) -> RequestPermit:
        """Ask for one request, or raise."""


class _Telling:
    """Reports one request: to the gate in front of its owner, and as a span to the sink.

    Attributes:
        wants_success: Whether a request that goes well is reported.
    """

    __slots__ = ("_began", "_method", "_params", "_permit", "_requests", "_span", "wants_success")

    def __init__(
        self, requests: EngineRequests, method: str, params: dict[str, Any], began: float | None = None
    ) -> None:
        """Ask the gate and begin the span, unless the request `began` before, when neither was wanted."""
        self._requests = requests
        self._method = method
        self._params = params
        self._permit = None if requests.gate is None or began is not None else requests.gate.acquire()
        self._span: Span | None = None
        self._began = requests.env.now() if began is None else began
        if began is None and requests.sink is not discard and is_listened(requests.sink):
            self._span = request_span(requests.sink, requests.env, method, params, requests.labels)
        self.wants_success = self._span is not None or self._permit is not None

    def failed(self, error: BaseException) -> None:
        """Report that the request failed."""
        requests = self._requests
        if self._permit is not None:
            if requests.says_nothing(error):
                self._permit.withdraw()
            else:
                self._permit.settle(error)
        if requests.sink is not discard:
            span = self._span or request_span(
                requests.sink, requests.env, self._method, self._params, requests.labels, self._began
            )
            span.fail(error)

    def answered(self, reply: EngineReply) -> None:
        """Report that the request was answered."""
        if self._permit is not None:
            self._permit.settle(None)
        if self._span is not None:
            self._span.stop(**sizes(reply))


class RequestLog(RunLog):
    """A request in flight: its call, its events, what is to be told at its end, and how its answer is judged.

    One object, since there may be thousands at once.

    Attributes:
        call: The call on the engine, or the request that waits for one.
        timeout: Seconds it may take; `None` for no deadline.
        strict: Whether reading the answer may raise.
        telling: Reports its end.
    """

    call: Call | WaitingCall

    def __init__(self, requests: EngineRequests, method: str, params: dict[str, Any], options: RunOptions) -> None:
        super().__init__(requests.max_events)
        self.timeout = requests.seconds(options)
        self.strict = options.get("strict", requests.strict)
        self._requests = requests
        self._method = method
        self.telling = _Telling(requests, method, params)

    def push(self, events: Sequence[EngineEvent]) -> None:
        """Put events away, and tell of those that are about the cache."""
        super().push(events)
        if self._requests.on_events is not None:
            self._requests.on_events(events)

    def watch(self, call: Call | WaitingCall) -> None:
        """See to the end of the call, which these are the events of."""
        self.call = self._call = call
        if self.telling.wants_success:
            call.when_over(self._over)
        elif self._requests.sink is not discard:
            call.when_failed(self._over)

    def output(self, reply: EngineReply) -> str:
        """Return the output of the answered request."""
        return output_of(reply, may_be_cut=self._requests.may_cut, strict=self.strict)

    def result(self, reply: EngineReply) -> ExecuteResult:
        """Return everything the answered request produced."""
        return result_of(reply, self, may_be_cut=self._requests.may_cut, strict=self.strict)

    def _over(self, call: Call | WaitingCall) -> None:
        error = call.exception()
        if error is None:
            self.telling.answered(call.result())
        else:
            self.telling.failed(error)


class EngineRequests:
    """Makes requests of one owner. Any thread may use it.

    Args:
        source: Where requests get their engines.
        kind: `live`, `bridge` or `embedded`.
        name: Path of the owner in its tree, for events; empty for a client that is in none.
        working_dir: Where relative paths of scripts start; `None`: wherever the process is at the moment.
        caching: Checkpoint options of every request that can have them and does not say otherwise.
        defaults: Other options of every request that does not say otherwise.
        timeout: Seconds a request may take, waiting for an engine included.
        strict: Raise when the engine cut something out of a result.
        may_cut: Whether the engine may cut values, so that answers are searched for what is missing.
        max_events: Events of one request that are kept.
        sink: Takes the events.
        command: Starts its engines, or makes the command that does.

    Attributes:
        health: How the owner's engines fare.
        gate: The circuit breaker in front of it, if there is one.
    """

    gate: Gate | None = None

    def __init__(
        self,
        source: AnySource,
        *,
        kind: str,
        name: str = "",
        working_dir: AnyPath | None = None,
        caching: RunOptions | None = None,
        defaults: RunOptions | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        strict: bool = False,
        may_cut: bool = False,
        max_events: int = MAX_EVENTS,
        env: Env | None = None,
        sink: Sink = discard,
        command: EngineCommand | Callable[[], EngineCommand] | None = None,
    ) -> None:
        self.source = source
        self.health = source.health
        self.kind = kind
        self.name = name
        self.timeout = timeout
        self.strict = strict
        self.may_cut = may_cut
        self.max_events = max_events
        self.env = env or Env()
        self.sink = sink
        self.labels = {"agent": name} if name else {}  # in every span
        self._working_dir = working_dir
        self._command = command
        self._caching = caching or NO_OPTIONS
        self._defaults = defaults or NO_OPTIONS
        refuse_unseen(kind, self._defaults.get("on_command_failure"))
        self.on_events: OnEvents | None = self.tell_model_calls if name or sink is not discard else None

    # Requests for the output alone, the rest of the answer is not read: waited for on this thread, or by a coroutine.

    def process(self, script: str, file_path: AnyPath | None, payload: object, options: RunOptions) -> str:
        """Run script text and return its output. Raises as `result` does."""
        if self._defaults:
            options = {**self._defaults, **options}
        if self._caching and file_path is not None:  # text without a file has no cache
            options = {**self._caching, **options}
        reply = self._ask("process", process_params(script, file_path, payload, options), options, self.on_events)
        return output_of(reply, may_be_cut=self.may_cut, strict=options.get("strict", self.strict))

    def process_awaited(
        self, script: str, file_path: AnyPath | None, payload: object, options: RunOptions
    ) -> Coroutine[Any, Any, str]:
        """Do what `process` does in a coroutine."""
        if self._defaults:
            options = {**self._defaults, **options}
        if self._caching and file_path is not None:
            options = {**self._caching, **options}
        judge = partial(output_of, may_be_cut=self.may_cut, strict=options.get("strict", self.strict))
        return self._await("process", process_params(script, file_path, payload, options), options, judge)

    # Requests for all there is: waited for on this thread, or by a coroutine, or begun.

    def text(self, script: str, file_path: AnyPath | None, payload: object, options: RunOptions) -> Asked:
        """Make the request to run script text, for `result`, `result_awaited` or `begin`."""
        options = {**self._defaults, **options} if self._defaults else options
        options = {**self._caching, **options} if self._caching and file_path is not None else options
        refuse_unseen(self.kind, options.get("on_command_failure"))
        return "process", process_params(script, file_path, payload, options), options

    def file(self, filepath: AnyPath, payload: object, options: RunOptions) -> Asked:
        """Make the request to run a script file, for `result`, `result_awaited` or `begin`."""
        options = {**self._caching, **self._defaults, **options} if self._caching or self._defaults else options
        refuse_unseen(self.kind, options.get("on_command_failure"))
        return "execute", execute_params(filepath, payload, options), options

    def result(
        self, method: str, params: dict[str, Any], options: RunOptions, used: CacheUse | None = None
    ) -> ExecuteResult:
        """Make a request and return everything it produced; `used` learns which stored calls had a part in it.

        Raises:
            TaskError: The script failed.
            InfrastructureError: The engine did, or none was to be had.
        """
        history = EventHistory(self.max_events)
        keep = self._keeping(history)
        if used is not None:
            keep = _both(used.push, keep)
        return self._result(history, options, self._ask(method, params, options, keep))

    def result_awaited(
        self, method: str, params: dict[str, Any], options: RunOptions
    ) -> Coroutine[Any, Any, ExecuteResult]:
        """Do what `result` does in a coroutine."""
        history = EventHistory(self.max_events)
        return self._await(method, params, options, partial(self._result, history, options), self._keeping(history))

    def begin(self, method: str, params: dict[str, Any], options: RunOptions) -> RequestLog:
        """Begin a request."""
        log = RequestLog(self, method, params, options)
        try:
            sent_as, said = self._said(method, params, "all")
            call = self.source.submit(sent_as, said, log.timeout, log.push)
        except BaseException as error:
            log.telling.failed(error)
            raise
        log.watch(call)
        return log

    def analyze(self, filepath: AnyPath, timeout: Timeout) -> AnalyzeResult:
        """Look at a script without running it."""
        path, options = os.fspath(filepath), RunOptions() if timeout is DEFAULT else RunOptions(timeout=timeout)
        payload = self._ask("analyze", {"filepath": path}, options, None).payload
        result = results.analyze_result(mapping(payload, "analyze"), path)
        result.truncated = self.may_cut and bool(find_cuts(payload))
        return result

    def ask(self, method: str, params: dict[str, Any], timeout: Timeout) -> Any:  # noqa: ANN401
        """Ask about files and signatures, and return the answer's payload."""
        limit = self.timeout if timeout is DEFAULT else seconds(timeout)
        return self.source.call(method, params, limit, None).payload

    def ask_list(self, method: str, params: dict[str, Any], timeout: Timeout) -> list[dict[str, Any]]:
        """Ask what is answered with a list of objects."""
        payload = self.ask(method, params, timeout)
        items = payload.get("value") if isinstance(payload, dict) else payload
        if not isinstance(items, list):
            raise wrong_answer(method, payload)
        return [item for item in items if isinstance(item, dict)]

    # The owner.

    def on(self, source: AnySource) -> EngineRequests:
        """Make the same on another source, whose failures concern none but the requests themselves."""
        made = copy.copy(self)
        made.source, made.health, made.gate = source, source.health, None
        made.on_events = made.tell_model_calls if self.on_events is not None else None
        return made

    @property
    def cache_folder(self) -> Path | None:
        """Where finished model calls are kept; `None` when none are."""
        if not self._caching:
            return None
        return Path(self._caching.get("checkpoint_root") or self._directory / (self._cache_place or self._any_place))

    def forget(self, params: dict[str, Any], used: CacheUse) -> None:
        """Forget the stored answers that a request was given or has left, so that it asks the model when made again.

        A live engine does not tell which they are; there all calls of the script are forgotten.
        """
        script = params.get("checkpointName") or params.get("filepath") or params.get("filePath")
        if script is None:
            return
        keys = None if self.kind == "live" else used.keys
        Checkpoints(self._directory, root=params.get("checkpointRoot")).forget(script, keys)

    def begins_at_once(self, options: RunOptions) -> bool:
        """Whether beginning a request with these options waits for nothing, neither a process nor a file."""
        return self.source.begins_at_once and not self._caching and CHECKPOINT_OPTIONS.isdisjoint(options)

    # Inside.

    @functools.cached_property
    def _cache_place(self) -> str | None:
        """Where below the working directory the engines keep their caches; `None` if it cannot be told."""
        if self.kind == "embedded" or self._command is None:
            return DEFAULT_ROOT
        command = self._command() if callable(self._command) else self._command
        return cache_place(command.argv, command.environ.get(BRIDGE_PACKAGE))

    @property
    def _any_place(self) -> str:
        return next((place for place in PLACES if (self._directory / place).is_dir()), DEFAULT_ROOT)

    @property
    def _directory(self) -> Path:
        return Path(self._working_dir or os.curdir).absolute()

    def _result(self, history: EventHistory, options: RunOptions, reply: EngineReply) -> ExecuteResult:
        return result_of(reply, history, may_be_cut=self.may_cut, strict=options.get("strict", self.strict))

    def _keeping(self, history: EventHistory) -> OnEvents:
        """Return what takes events: it keeps those of the result, and passes all on to `on_events`."""
        return history.push if self.on_events is None else _both(history.push, self.on_events)

    def _ask(self, method: str, params: dict[str, Any], options: RunOptions, on_events: OnEvents | None) -> EngineReply:
        """Make a request and wait for the answer on this thread."""
        telling = None
        if self.gate is not None or (self.sink is not discard and getattr(self.sink, "listened", True)):
            telling = _Telling(self, method, params)
        timeout, began = self.seconds(options) if options else self.timeout, self.env.now()
        try:
            sent_as, said = self._said(method, params, "minimal")
            reply = self.source.call(sent_as, said, timeout, on_events)
        except BaseException as error:
            (telling or _Telling(self, method, params, began)).failed(error)
            raise
        if telling is not None:
            telling.answered(reply)
        return reply

    async def _await(
        self,
        method: str,
        params: dict[str, Any],
        options: RunOptions,
        judge: Callable[[EngineReply], T],
        on_events: OnEvents | None = None,
    ) -> T:
        """Make a request and wait for the answer in a coroutine, whose end cancels the request."""
        telling = None
        if self.gate is not None or (self.sink is not discard and getattr(self.sink, "listened", True)):
            telling = _Telling(self, method, params)
        timeout, began, call = self.seconds(options) if options else self.timeout, self.env.now(), None
        try:
            sent_as, said = self._said(method, params, "minimal")
            call = self.source.submit(sent_as, said, timeout, on_events or self.on_events)
            await end_in_loop(call)
            reply = call.result()
        except BaseException as error:
            if call is not None:
                call.cancel()
            why = error if isinstance(error, Exception) else CallCancelled("its task was cancelled")
            (telling or _Telling(self, method, params, began)).failed(why)
            raise
        if telling is not None:
            telling.answered(reply)
        return judge(reply)

    def _said(self, method: str, params: dict[str, Any], events: str) -> tuple[str, dict[str, Any]]:
        """Return method and parameters as this engine takes them: absolute paths, checkpoints by the means it has."""
        if method != "analyze":
            params["eventMode"] = events  # only engines of the 2.1 line read it
        for name in ("filepath", "filePath"):
            if name in params and not os.path.isabs(params[name]):
                params[name] = os.path.abspath(os.path.join(self._working_dir or "", params[name]))
        if NOT_OF_LIVE.isdisjoint(params):
            return method, params
        refuse_unseen(self.kind, params.get("onCommandFailure"))
        return apply_checkpoint_options(self.kind, method, params, self._directory, lambda: self._cache_place)

    def seconds(self, options: RunOptions) -> float | None:
        """Return how long a request with these options may take."""
        return seconds(options["timeout"]) if "timeout" in options else self.timeout

    def says_nothing(self, error: BaseException) -> bool:
        """Whether the gate is to learn nothing from an error: it is the caller's doing, or is reported elsewhere."""
        over = self.source.scope.over
        if isinstance(error, NO_NEWS) or (over is not None and type(error) is type(over)):
            return True
        return self.health.ends_owner and isinstance(error, ENGINE_FAILURES)

    def tell_model_calls(self, events: Sequence[EngineEvent]) -> None:
        """Send events about model calls to the sink: served from the cache, made, or without an answer."""
        for event in events:
            if event.type == "llm:unanswered":
                call = results.read_object(Unanswered, results.as_object(event.body.get("unanswered")))
                self.sink(ModelUnansweredEvent(at=self.env.wall(), agent=self.name, **asdict(call)))
            elif event.type in ("checkpoint:hit", "checkpoint:miss"):
                entry = results.as_object(event.body.get("checkpoint"))
                kind = CheckpointHitEvent if event.type == "checkpoint:hit" else CheckpointMissedEvent
                function, key = str(entry.get("fn", "")), str(entry.get("key", ""))
                self.sink(kind(at=self.env.wall(), agent=self.name, function=function, key=key))


def _both(first: OnEvents, second: OnEvents) -> OnEvents:
    def take(events: Sequence[EngineEvent]) -> None:
        first(events)
        second(events)

    return take
