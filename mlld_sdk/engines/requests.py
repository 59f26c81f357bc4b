"""One request on an engine of one's own: lease, ask, answer, clean up, give back.

Agents, pools and the steps of runs all talk to engines through a port. It leases an engine exclusively from a pool, so
nobody else's failure reaches this request and this request's failure reaches nobody else.
"""

import contextlib
import copy
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from mlld_sdk.base.durations import LONGEST_WAIT, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError, TaskError
from mlld_sdk.base.events import Sink, discard
from mlld_sdk.base.spans import Span, begin_request
from mlld_sdk.engines import checkpoint_params
from mlld_sdk.engines.checkpoint_params import CheckpointHitEvent, CheckpointMissedEvent
from mlld_sdk.engines.pool import EngineLease, EnginePoolClosed, NoEngineFree
from mlld_sdk.engines.quota import CancelScope, EngineQuotaExhausted
from mlld_sdk.scripts import results
from mlld_sdk.scripts.answers import mapping, output_of, result_of
from mlld_sdk.scripts.params import RunOptions, execute_params, process_params
from mlld_sdk.scripts.stream import EventHistory
from mlld_sdk.scripts.types import AnalyzeResult, ExecuteResult
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineAborted, EngineBabbling, EngineDied, EngineSilent, SpawnRefused
from mlld_sdk.transport.wire import EngineEvent, EngineReply

DEFAULT_TIMEOUT: Final = 600.0
"""Seconds a request may take unless somebody says otherwise: model calls are slow."""


ENGINE_FAILURES: Final = (EngineDied, EngineSilent, EngineBabbling, EngineAborted, SpawnRefused)
"""What is the engine's fault, and not the deadline's, the queue's or the caller's."""


class Held(Protocol):
    """The use of an engine."""

    engine: Engine

    def give_back(self, *, broken: bool = False) -> None:
        """Return it; `broken` if its state is unknown."""
        ...


class Lender(Protocol):
    """Where a port gets its engines."""

    def lease(self, timeout: float, patience: CancelScope) -> Held:
        """Lend an engine, or raise within `timeout` seconds and before `patience` is over."""
        ...


class OneEngine:
    """Lends the one engine of a lease, to one request at a time; it is not given back but by its holder."""

    def __init__(self, lease: EngineLease[Engine]) -> None:
        self.engine = lease.engine
        self._lease = lease
        self._turn = threading.Lock()

    def lease(self, timeout: float, patience: CancelScope) -> "OneEngine":  # noqa: ARG002 - its engine is killed first
        """Wait for this engine's turn."""
        if not self._turn.acquire(timeout=timeout):
            raise NoEngineFree(f"the engine was busy for {timeout:g} s", hint="ask it one thing at a time")
        return self

    def give_back(self, *, broken: bool = False) -> None:
        """End the turn; a broken engine is of no use to its holder either."""
        if broken:
            self._lease.give_back(broken=True)
        self._turn.release()


class Port:
    """Asks engines of one pool, one request at a time each. Any thread may use it; each use leases an engine.

    Args:
        pool: Where the engines are.
        name: Path of the agent or pool, for events.
        kind: `live`, `bridge` or `embedded`.
        working_dir: Where the engines run, and relative script paths start.
        caching: Checkpoint options of every request that can have them and does not say otherwise.
        timeout: Seconds a request may take, waiting for an engine included.
        env: Clocks.
        sink: Takes the events.

    Attributes:
        failures: How many engines have failed in a row, with no request answered in between.
        ends_owner: Whether a failed engine ends whoever owns the port.
        condemned: Whether one has failed, and the owner ends because of that, though it may not know yet.
        on_engine_failure: Told of each, on whatever thread learns of it; must not block.
    """

    def __init__(
        self,
        pool: Lender,
        *,
        name: str,
        kind: str,
        working_dir: str | os.PathLike[str] | None = None,
        caching: RunOptions | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        env: Env | None = None,
        sink: Sink = discard,
    ) -> None:
        self.pool = pool
        self.name = name
        self.kind = kind
        self.timeout = timeout
        self._working_dir = Path(working_dir or os.curdir).absolute()
        self._caching: RunOptions = caching or {}
        self._env = env or Env()
        self._sink = sink
        self._who = {"agent": name}  # in every span
        self._reaps = kind != "embedded"
        self._leases: set[Held] = set()
        self.failures = 0
        self.ends_owner = False
        self.condemned = False
        self.on_engine_failure: Callable[[InfrastructureError], object] | None = None
        self._lock = threading.Lock()
        self._patience = CancelScope()

    def execute(self, filepath: str | os.PathLike[str], payload: Any, options: RunOptions) -> ExecuteResult:
        """Run a script file.

        Raises:
            TaskError: The script failed.
            InfrastructureError: The engine did, or none was to be had.
        """
        params = execute_params(self._working_dir / filepath, payload, {**self._caching, **options})
        return self._run("execute", params, options)

    def process(
        self, script: str, file_path: str | os.PathLike[str] | None, payload: Any, options: RunOptions
    ) -> ExecuteResult:
        """Run script text. Raises as `execute` does."""
        return self._run("process", self._process_params(script, file_path, payload, options), options)

    def output(self, script: str, file_path: str | os.PathLike[str] | None, payload: Any, options: RunOptions) -> str:
        """Run script text for its output alone; the rest of the answer is not read. Raises as `execute` does."""
        params = self._process_params(script, file_path, payload, options)
        method, params = checkpoint_params.for_engine(self.kind, "process", params, self._working_dir)
        with self._span("process", params) as span:
            reply = self._ask(method, params, seconds(options.get("timeout", self.timeout)), self._tell_checkpoints)
            output = output_of(reply, may_be_cut=self.kind == "live", strict=options.get("strict", False))
            span.note(output_size=len(output))
        return output

    def _process_params(
        self, script: str, file_path: str | os.PathLike[str] | None, payload: Any, options: RunOptions
    ) -> dict[str, Any]:
        where = None if file_path is None else self._working_dir / file_path
        caching: RunOptions = self._caching if where is not None else {}  # text without a file has no cache
        return process_params(script, where, payload, {**caching, **options} if caching else options)

    def analyze(self, filepath: str | os.PathLike[str], timeout: float | None) -> AnalyzeResult:
        """Look at a script without running it."""
        path = os.fspath(self._working_dir / filepath)
        params = {"filepath": path}
        with self._span("analyze", params):
            return results.analyze_result(mapping(self._ask("analyze", params, timeout, None).payload, "analyze"), path)

    @property
    def cache_folder(self) -> Path | None:
        """Where finished model calls are kept; `None` when none are."""
        if not self._caching:
            return None
        return Path(self._caching.get("checkpoint_root") or self._working_dir / ".mlld" / "checkpoints")

    def on(self, lease: EngineLease[Engine]) -> "Port":
        """Make a port that asks one leased engine only, one request at a time, and never gives it back."""
        port = copy.copy(self)
        port.pool, port.on_engine_failure, port.ends_owner = OneEngine(lease), None, False
        return port

    def stop(self, why: MlldError) -> None:
        """Refuse further requests with `why`, and kill the engines of those under way; returns at once."""
        self._patience.end(why)
        with self._lock:
            leases = list(self._leases)
        for lease in leases:
            lease.engine.kill(functools.partial(copy.copy, why))

    def _run(self, method: str, params: dict[str, Any], options: RunOptions) -> ExecuteResult:
        history, asked = EventHistory(), method
        method, params = checkpoint_params.for_engine(self.kind, method, params, self._working_dir)
        timeout = options.get("timeout", self.timeout)

        def take(events: Sequence[EngineEvent]) -> None:
            history.push(events)
            self._tell_checkpoints(events)

        with self._span(asked, params) as span:
            reply = self._ask(method, params, seconds(timeout), take)
            result = result_of(reply, history, may_be_cut=self.kind == "live", strict=options.get("strict", False))
            span.note(output_size=len(result.output), state_write_count=len(result.state_writes))
        return result

    def _span(self, method: str, params: dict[str, Any]) -> Span:
        return begin_request(self._sink, self._env, method, params, self._who)

    def _tell_checkpoints(self, events: Sequence[EngineEvent]) -> None:
        for event in events:
            if event.type in ("checkpoint:hit", "checkpoint:miss"):
                self._tell_checkpoint(event)

    def _tell_checkpoint(self, event: EngineEvent) -> None:
        entry = event.body.get("checkpoint") or {}
        kind = CheckpointHitEvent if event.type == "checkpoint:hit" else CheckpointMissedEvent
        function, key = str(entry.get("fn", "")), str(entry.get("key", ""))
        self._sink(kind(at=self._env.wall(), agent=self.name, function=function, key=key))

    def _ask(
        self,
        method: str,
        params: dict[str, Any],
        timeout: float | None,
        on_events: Callable[[Sequence[EngineEvent]], None] | None,
    ) -> EngineReply:
        deadline = None if timeout is None else self._env.now() + timeout
        with self._engine(timeout) as engine:
            left = None if deadline is None else max(0.0, deadline - self._env.now())
            return engine.call(method, params, timeout=left, on_events=on_events)

    @contextlib.contextmanager
    def _engine(self, timeout: float | None) -> Iterator[Engine]:
        """Hold an engine, and tell afterwards what became of it."""
        held = self._lease(LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT))
        try:
            self._refuse_if_stopped()
        except BaseException:
            self._give_back(held, broken=False)
            raise
        try:
            yield held.engine
        except BaseException as error:
            over = self._patience.over
            self._over(held, error)
            if over is not None and isinstance(error, InfrastructureError):
                self._refuse_if_stopped()
            raise
        self._over(held, None)

    def _over(self, held: Held, error: BaseException | None) -> None:
        """Give an engine back after a request: usable, if it answered or a script failed on a well-behaved one."""
        if error is None or isinstance(error, TaskError):
            self.failures = 0
        elif isinstance(error, InfrastructureError) and self._patience.over is None:
            self._count(error)
        # The live engine may still run branches of the script that failed; the others end them.
        harmless = (
            (ConfigurationError,) if self.kind == "live" else (ConfigurationError, TaskError)
        )  # or nothing was sent
        self._give_back(held, error is not None and not isinstance(error, harmless))

    def _give_back(self, held: Held, broken: bool) -> None:
        with self._lock:
            self._leases.discard(held)
        try:
            if self._reaps and not broken:
                held.engine.reap_descendants()  # shells and tool servers the real engine leaves behind
        finally:
            held.give_back(broken=broken)

    def _lease(self, timeout: float) -> Held:
        self._refuse_if_stopped()
        try:
            lease = self.pool.lease(timeout, self._patience)
        except (NoEngineFree, EngineQuotaExhausted, EnginePoolClosed):
            self._refuse_if_stopped()
            raise
        except InfrastructureError as error:
            self._count(error)
            raise
        with self._lock:
            self._leases.add(lease)
        return lease

    def _refuse_if_stopped(self) -> None:
        if self._patience.over is not None:
            raise self._patience.over.with_traceback(None) from None

    def _count(self, error: InfrastructureError) -> None:
        if isinstance(error, ENGINE_FAILURES):
            with self._lock:
                self.failures += 1
            self.condemned = self.ends_owner  # first: whoever asks from now on is to meet the successor
            if self.on_engine_failure is not None:
                self.on_engine_failure(error)
