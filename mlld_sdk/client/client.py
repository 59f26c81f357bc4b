r"""The mlld client: run scripts and files, watch them, analyse and sign, on engines it starts when they are needed.

>>> with Client(engine="embedded") as client:
...     client.process('show "Hello"')
'Hello\n'
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

from mlld_sdk.base.durations import DEFAULT, Timeout, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InvalidRequest
from mlld_sdk.base.events import Sink, discard
from mlld_sdk.base.spans import Span, begin_request
from mlld_sdk.client.handles import ExecuteHandle, Handle, ProcessHandle
from mlld_sdk.engines.checkpoint_params import for_engine
from mlld_sdk.engines.client_engines import ExclusiveEngines, SharedEngine, StartEngine, StartGate
from mlld_sdk.engines.kinds import EngineKind, chosen, command_for, refuse_what_does_not_fit
from mlld_sdk.engines.pool import EnginePoolStatus
from mlld_sdk.engines.queued import QueuedCall
from mlld_sdk.scripts import results
from mlld_sdk.scripts.answers import end_span, mapping, output_of, result_of, sizes, wrong_answer
from mlld_sdk.scripts.params import CHECKPOINT_PARAMS, RunOptions, execute_params, only_given, process_params
from mlld_sdk.scripts.stream import MAX_EVENTS, EventHistory, RunLog
from mlld_sdk.scripts.types import AnalyzeResult, ContentSignature, ExecuteResult, FilesystemStatus, FileVerifyResult
from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.engine import Engine, EngineLimits
from mlld_sdk.transport.errors import EngineClosed
from mlld_sdk.transport.truncation import find_cuts
from mlld_sdk.transport.wire import EngineReply

Isolation = Literal["shared", "exclusive"]
H = TypeVar("H", bound=Handle[Any])


class Client:
    """Runs mlld scripts on engine processes of its own. Thread-safe; starts nothing before the first call.

    Args:
        command: Program that starts mlld (`live` and `bridge` find the engine through it).
        command_args: Its arguments before `live --stdio`; for the embedded engine, its switches.
        timeout: Seconds each call may take, from the call to the answer; `None` for no deadline.
        working_dir: Directory the engine runs in; relative paths of scripts and `.mlld/` belong to it.
        heap: Limit of the engine's heap: MiB, or text like `"8g"` or `"512m"`.
        heap_snapshot_near_limit: Let Node write up to that many heap snapshots near the limit.
        engine: `live`, `bridge` or `embedded`. Unless given: `live` if a command was, else what `MLLD_ENGINE` says,
            else `live`. Never another one when that one cannot be had.
        isolation: `shared`: one engine takes all calls at once. `exclusive`: each running script has an engine of its
            own, and a cancel or timeout ends that engine and all it started before the call returns.
        max_engines: Engines of an exclusive client that may run scripts at once; more runs wait their turn.
        warm: Engines an exclusive client keeps started beyond those in use.
        max_waiting: Runs that may wait for an engine; one more is refused.
        strict: Raise `TruncatedResult` when the engine cut something out of a result, instead of marking the result.
        max_events: Events of one run that are kept for a slow reader, and for the result.
        environ: Environment variables added for the engine.
        limits: Bounds and graces of the transport.
        env: Clock and randomness.
        sink: Takes the events: of engines, and of requests as spans.

    Attributes:
        cuts: Whether the engine may cut values, so that answers are searched for what is missing.

    Raises:
        InvalidRequest: An option is wrong; the message names it.
    """

    def __init__(
        self,
        command: str = "mlld",
        command_args: Sequence[str] | None = None,
        timeout: float | timedelta | None = 30.0,
        working_dir: str | os.PathLike[str] | None = None,
        *,
        heap: str | int | None = None,
        heap_snapshot_near_limit: int | None = None,
        engine: EngineKind | None = None,
        isolation: Isolation = "shared",
        max_engines: int = 4,
        warm: int = 1,
        max_waiting: int = 1024,
        strict: bool = False,
        max_events: int = MAX_EVENTS,
        environ: Mapping[str, str] | None = None,
        limits: EngineLimits | None = None,
        env: Env | None = None,
        sink: Sink = discard,
    ) -> None:
        self.command = command
        self.command_args = list(command_args or [])
        self.timeout = seconds(timeout)
        self.working_dir = None if working_dir is None else os.fspath(working_dir)
        self.heap = heap
        self.heap_snapshot_near_limit = heap_snapshot_near_limit
        self.engine: EngineKind = chosen(engine, command, self.command_args)
        self.isolation: Isolation = isolation
        self.strict = strict
        self._heap_mib = None if heap is None else _mib(heap)
        self._max_events = max_events
        self._environ = dict(environ or {})
        self.cuts = self.engine == "live" or (self.engine == "embedded" and self._imitates_live())
        self._limits = limits
        self._env = env or Env()
        self._sink = sink
        self._check(max_engines=max_engines, warm=warm, max_waiting=max_waiting)
        gate = StartGate(_weakly(self._start_engine), self._env)
        self._shared = SharedEngine(gate)
        self._exclusive = ExclusiveEngines(gate, size=max_engines, warm=warm, max_waiting=max_waiting, env=self._env)
        self._at_exit = weakref.finalize(self, _close_both, self._shared, self._exclusive)
        _CLIENTS.add(self)

    def _imitates_live(self) -> bool:
        return bool(self.command_args or {**os.environ, **self._environ}.get("MLLD_EMBEDDED_LIKE_REAL"))

    def _check(self, **counts: int) -> None:
        _one_of("isolation", self.isolation, ("shared", "exclusive"))
        least = {"max_engines": 1, "warm": 0, "max_waiting": 0, "max_events": 1}
        for name, value in {**counts, "max_events": self._max_events}.items():
            _at_least(least[name], name, value)
        snapshots = self.heap_snapshot_near_limit
        if snapshots is not None:
            _at_least(1, "heap_snapshot_near_limit", snapshots)
        refuse_what_does_not_fit(self.engine, self.command, self.heap is not None or snapshots is not None)

    # Running scripts.

    def process(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: Any = None,
        **options: Unpack[RunOptions],
    ) -> str:
        r"""Run script text and return its output.

        Args:
            script: The text.
            file_path: Where the text counts as being, for imports and relative paths; need not exist.
            payload: Seen by the script as `@payload`: text or a dict, whose fields may be labeled values.
            **options: See `RunOptions`.

        Raises:
            ScriptError: The script failed.
            InfrastructureError: What runs scripts failed, so nothing is known about this one.
            ConfigurationError: An option or the client is wrong.

        >>> with Client(engine="embedded") as client:
        ...     client.process("show @payload.name", payload={"name": "Ada"})
        'Ada\n'
        """
        params, timeout = process_params(script, file_path, payload, options), self._patience(options)
        reply = self._run("process", params, timeout, None)
        return output_of(reply, may_be_cut=self.cuts, strict=options.get("strict", self.strict))

    def process_result(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: Any = None,
        **options: Unpack[RunOptions],
    ) -> ExecuteResult:
        """Do what `process` does and return everything the run produced, not only its output."""
        params, timeout = process_params(script, file_path, payload, options), self._patience(options)
        history = EventHistory(self._max_events)
        reply = self._run("process", params, timeout, history.push)
        return result_of(reply, history, may_be_cut=self.cuts, strict=options.get("strict", self.strict))

    def process_async(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: Any = None,
        **options: Unpack[RunOptions],
    ) -> ProcessHandle:
        """Start a run of script text and return its handle at once."""
        return self._begin(ProcessHandle, "process", process_params(script, file_path, payload, options), options)

    def execute(
        self, filepath: str | os.PathLike[str], payload: Any = None, **options: Unpack[RunOptions]
    ) -> ExecuteResult:
        """Run a script file and return everything it produced.

        Args:
            filepath: The file; relative to the working directory.
            payload: Seen by the script as `@payload`: text or a dict, whose fields may be labeled values.
            **options: See `RunOptions`.

        Raises:
            ScriptError: The script failed, or there is no such file (`code` is `FILE_NOT_FOUND`).
            InfrastructureError: What runs scripts failed, so nothing is known about this one.
            ConfigurationError: An option or the client is wrong.
        """
        params, timeout = execute_params(filepath, payload, options), self._patience(options)
        history = EventHistory(self._max_events)
        reply = self._run("execute", params, timeout, history.push)
        return result_of(reply, history, may_be_cut=self.cuts, strict=options.get("strict", self.strict))

    def execute_async(
        self, filepath: str | os.PathLike[str], payload: Any = None, **options: Unpack[RunOptions]
    ) -> ExecuteHandle:
        """Start a run of a script file and return its handle at once."""
        return self._begin(ExecuteHandle, "execute", execute_params(filepath, payload, options), options)

    # What needs no run.

    def analyze(self, filepath: str | os.PathLike[str], *, timeout: Timeout = DEFAULT) -> AnalyzeResult:
        """Say what a module defines, imports and needs, without running it. A bad module is `valid=False`, no error."""
        path = os.fspath(filepath)
        with self._span("analyze", {"filepath": path}):
            payload = self._ask("analyze", {"filepath": path}, timeout)
        result = results.analyze_result(mapping(payload, "analyze"), path)
        result.truncated = self.cuts and bool(find_cuts(payload))
        return result

    def fs_status(
        self, glob: str | None = None, *, base_path: str | None = None, timeout: Timeout = DEFAULT
    ) -> list[FilesystemStatus]:
        """List signed files and whether they still are what was signed."""
        payload = self._ask("fs:status", only_given(glob=glob, basePath=base_path), timeout)
        items = payload.get("value") if isinstance(payload, dict) else payload
        if not isinstance(items, list):
            raise wrong_answer("fs:status", payload)
        return [results.filesystem_status(item) for item in items if isinstance(item, dict)]

    def sign(
        self,
        path: str,
        *,
        identity: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        base_path: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> FileVerifyResult:
        """Sign a file.

        Args:
            path: The file, relative to the project.
            identity: Who signs, such as `user:alice`; the engine's user unless given.
            metadata: Kept beside the signature.
            base_path: The project's root.
            timeout: Seconds from now; the client's unless given.
        """
        params = only_given(path=path, identity=identity, metadata=metadata, basePath=base_path)
        return results.file_verify_result(mapping(self._ask("sig:sign", params, timeout), "sig:sign"))

    def verify(self, path: str, *, base_path: str | None = None, timeout: Timeout = DEFAULT) -> FileVerifyResult:
        """Say whether a file is signed and still what was signed."""
        payload = self._ask("sig:verify", only_given(path=path, basePath=base_path), timeout)
        return results.file_verify_result(mapping(payload, "sig:verify"))

    def sign_content(
        self,
        content: str,
        identity: str,
        *,
        metadata: Mapping[str, str] | None = None,
        signature_id: str | None = None,
        base_path: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> ContentSignature:
        """Sign a piece of content that is no file, and keep it in the project's signature store.

        Args:
            content: The text.
            identity: Who signs.
            metadata: Kept beside the signature.
            signature_id: Name of the signature; a random one unless given.
            base_path: The project's root.
            timeout: Seconds from now; the client's unless given.
        """
        params = only_given(content=content, identity=identity, metadata=metadata, id=signature_id, basePath=base_path)
        payload = self._ask("sig:sign-content", params, timeout)
        return results.content_signature(mapping(payload, "sig:sign-content"))

    def close(self) -> None:
        """End the engines. Calls in flight end at once as `EngineClosed`; a later call starts a new engine."""
        _close_both(self._shared, self._exclusive)

    @property
    def pool_status(self) -> EnginePoolStatus:
        """What the engines of an exclusive client do: how many run, are idle, were started and ended."""
        return self._exclusive.pool.status()

    @property
    def starts_nothing(self) -> bool:
        """Whether a run submitted now needs no process to be started, so that submitting it takes microseconds."""
        return self.isolation == "shared" and self._shared.pid is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.engine} {self.isolation}>"

    # From calls to engines.

    def _start_engine(self, exclusive: bool) -> Engine:
        return Engine.start(
            self._engine_command(),
            exclusive=exclusive,
            retire_when_tainted=not exclusive,
            limits=self._limits,
            env=self._env,
            sink=self._sink,
        )

    def _engine_command(self) -> EngineCommand:
        return command_for(
            self.engine,
            self.command,
            self.command_args,
            cwd=self.working_dir,
            environ=self._environ,
            heap=self._heap_mib,
            heap_snapshot_near_limit=self.heap_snapshot_near_limit,
        )

    def _patience(self, options: RunOptions) -> float | None:
        return seconds(options["timeout"]) if "timeout" in options else self.timeout

    def _begin(self, kind: type[H], method: str, params: dict[str, Any], options: RunOptions) -> H:
        timeout = self._patience(options) if options else self.timeout
        log = RunLog(self._max_events)
        if self._sink is discard:
            sent_as, params = self._on_the_wire(method, params, events="all")
            call = self._submit(sent_as, params, timeout, log.push)
        else:
            span = self._span(method, params)
            with span.handing_over():
                sent_as, params = self._on_the_wire(method, params, events="all")
                call = self._submit(sent_as, params, timeout, log.push)
            at_the_end = call.when_over if span.is_told else call.when_failed
            at_the_end(lambda done: end_span(span, done, done.exception()))
        log.follow(call, method)
        return kind(call, log, patience=timeout, cuts=self.cuts, strict=options.get("strict", self.strict))

    def _run(
        self, method: str, params: dict[str, Any], timeout: float | None, on_events: OnEvents | None
    ) -> EngineReply:
        if self._sink is discard:
            return self._run_unseen(method, params, timeout, on_events)
        with self._span(method, params) as span:
            reply = self._run_unseen(method, params, timeout, on_events)
            if span.is_told:
                span.note(**sizes(reply))
        return reply

    def _run_unseen(
        self, method: str, params: dict[str, Any], timeout: float | None, on_events: OnEvents | None
    ) -> EngineReply:
        method, params = self._on_the_wire(method, params, events="minimal")
        if self.isolation == "shared" and "mcpServers" not in params:
            return self._shared.call(method, params, timeout, on_events)
        return self._submit(method, params, timeout, on_events).result()

    def _span(self, method: str, params: dict[str, Any]) -> Span:
        return begin_request(self._sink, self._env, method, params, {})

    def _submit(
        self, method: str, params: dict[str, Any], timeout: float | None, on_events: OnEvents | None
    ) -> Call | QueuedCall:
        if self.isolation == "exclusive":
            return self._exclusive.submit(method, params, timeout, on_events)
        call = self._shared.submit(method, params, timeout, on_events)
        if "mcpServers" in params:
            call.add_done_callback(_stop_servers)
        return call

    def _on_the_wire(self, method: str, params: dict[str, Any], *, events: str) -> tuple[str, dict[str, Any]]:
        """Say a run as this engine takes it: with absolute paths, and checkpoints by the means it has."""
        params["eventMode"] = events  # only engines of the 2.1 line read it
        if "filepath" in params:
            params["filepath"] = self._absolute(params["filepath"])
        elif "filePath" in params:
            params["filePath"] = self._absolute(params["filePath"])
        if CHECKPOINT_PARAMS.isdisjoint(params):
            return method, params
        return for_engine(self.engine, method, params, Path(self.working_dir or os.curdir).absolute())

    def _absolute(self, path: str) -> str:
        return path if os.path.isabs(path) else os.path.abspath(os.path.join(self.working_dir or "", path))

    def _ask(self, method: str, params: dict[str, Any], timeout: Timeout) -> Any:
        answer = self._request(method, params, self.timeout if timeout is DEFAULT else seconds(timeout))
        return answer[0] if isinstance(answer, tuple) else answer

    def _request(self, method: str, params: dict[str, Any], timeout: float | None) -> Any:
        return self._shared.call(method, params, timeout, None).payload


def _stop_servers(call: Call) -> None:
    """End the MCP servers of a run, which a shared engine would keep; only when no other run may be using its own."""
    if call.engine.stats.in_flight == 0:
        call.engine.reap_descendants()


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InvalidRequest(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _at_least(least: int, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidRequest(f"{name} must be a whole number of at least {least}, got {value!r}")


def _mib(heap: str | int) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(m|mb|g|gb)?", str(heap).strip().lower())
    mib = round(float(found[1]) * (1024 if (found[2] or "m").startswith("g") else 1)) if found else 0
    if isinstance(heap, bool) or mib < 1:
        raise InvalidRequest(f"heap must be a positive memory size like 8192, '8192m' or '8g', got {heap!r}")
    return mib


def _weakly(method: StartEngine) -> StartEngine:
    """Make a function of a client's method that does not keep the client alive, whose end must end its engines."""
    held = weakref.WeakMethod(method)

    def start(exclusive: bool) -> Engine:
        alive = held()
        if alive is None:
            raise EngineClosed("the client is gone")
        return alive(exclusive)

    return start


def _close_both(shared: SharedEngine, exclusive: ExclusiveEngines) -> None:
    shared.close()
    exclusive.close()


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    """Leave the engines to the parent: in the child every client begins with none."""
    for client in list(_CLIENTS):
        client._shared.forget()
        client._exclusive.forget()


os.register_at_fork(after_in_child=_after_fork)
