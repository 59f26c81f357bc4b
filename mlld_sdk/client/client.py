r"""The mlld client: run scripts and files, watch them, analyse and sign, on engines it starts when they are needed.

>>> with Client(engine="embedded") as client:
...     client.process('show "Hello"')
'Hello\n'
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import repeat
from typing import ClassVar, Final, Literal, Self

from mlld_sdk.base.durations import seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.events import Sink, discard
from mlld_sdk.base.options import check_callable, check_class, one_of, text, truth, whole
from mlld_sdk.client.options import Isolation
from mlld_sdk.client.requests import ClientRequests
from mlld_sdk.engines.draining import ClosingSource, Draining, wait_for_rest
from mlld_sdk.engines.kinds import EngineKind, chosen, command_for, may_cut, refuse_what_does_not_fit
from mlld_sdk.engines.pool import EnginePool, EnginePoolStatus
from mlld_sdk.engines.quota import MAX_WAITING, CancelScope
from mlld_sdk.engines.requests import EngineRequests
from mlld_sdk.engines.shared import EngineSource, SharedEngines
from mlld_sdk.engines.sources import LeasedEngines
from mlld_sdk.engines.start_gate import StartGate
from mlld_sdk.scripts.stream import MAX_EVENTS
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineClosed
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.surroundings import check_inheritance

CALL_TIMEOUT: Final = 30.0
"""Seconds a call of a client may take unless it says otherwise."""

IDLE_SECONDS: Final = 60.0
"""Seconds after which exclusive engines that are not used are ended, the spares too."""

RETIRING: Final = 1 << 20
"""Shared engines that may finish what they have beside the one that takes new requests: any number."""


class Client(ClientRequests):
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
        inherit_env: What it gets of the host's environment: `"all"`, a `"minimal"` one, or the variables named.
        limits: Bounds and graces of the transport.
        env: Clock and randomness.
        sink: Takes the events: of engines, and of requests as spans.

    Raises:
        InvalidOption: An option is wrong; the message names it.
    """

    child_actor: ClassVar[str] = "mlld_sdk.agents.supervised_client:SupervisedClient"
    """What `child(Client, ...)` starts, by name, since it lies above this room."""

    def __init__(
        self,
        command: str = "mlld",
        command_args: Sequence[str] | None = None,
        timeout: float | timedelta | None = CALL_TIMEOUT,
        working_dir: str | os.PathLike[str] | None = None,
        *,
        heap: str | int | None = None,
        heap_snapshot_near_limit: int | None = None,
        engine: EngineKind | None = None,
        isolation: Isolation = "shared",
        max_engines: int = 4,
        warm: int = 1,
        max_waiting: int = MAX_WAITING,
        strict: bool = False,
        max_events: int = MAX_EVENTS,
        environ: Mapping[str, str] | None = None,
        inherit_env: Literal["all", "minimal"] | Sequence[str] = "all",
        limits: EngineLimits | None = None,
        env: Env | None = None,
        sink: Sink = discard,
    ) -> None:
        _check(command, command_args, working_dir, environ)
        check_inheritance("inherit_env", inherit_env)
        truth("strict", strict)
        check_callable("sink", sink)
        check_class("env", env, Env)
        self.command = command
        self.command_args: list[str] = list(command_args or [])
        self.timeout: float | None = seconds(timeout)
        self.working_dir: str | None = None if working_dir is None else os.fspath(working_dir)
        self.heap = heap
        self.heap_snapshot_near_limit = heap_snapshot_near_limit
        kind = chosen(engine, command, self.command_args)
        self.engine: EngineKind = kind
        self.isolation: Isolation = isolation
        one_of("isolation", isolation, "shared", "exclusive")
        whole("max_engines", max_engines, least=1)
        whole("warm", warm)
        whole("max_waiting", max_waiting)
        whole("max_events", max_events, least=1)
        if heap_snapshot_near_limit is not None:
            whole("heap_snapshot_near_limit", heap_snapshot_near_limit, least=1)
        refuse_what_does_not_fit(self.engine, command, heap is not None or heap_snapshot_near_limit is not None)
        check_class("limits", limits, EngineLimits)
        environ, env = dict(environ or {}), env or Env()
        self.engine_command: partial[EngineCommand] = partial(
            command_for,
            self.engine,
            command,
            self.command_args,
            cwd=self.working_dir,
            environ=environ,
            inherit_env=inherit_env,
            heap=mebibytes(heap),
            heap_snapshot_near_limit=heap_snapshot_near_limit,
        )
        made = self.engine_command
        gate = StartGate(lambda: Engine.start(made(), exclusive=True, limits=limits, env=env, sink=sink), env)
        self.gate: StartGate = gate

        # Neither may keep the client alive.
        def shared() -> tuple[EnginePool, EngineSource]:
            pool = EnginePool(gate, overflow=RETIRING, env=env, label="client")
            return pool, SharedEngines(pool, scope=CancelScope(max_waiting), keeps=True)

        def apart() -> tuple[EnginePool, EngineSource]:
            pool = EnginePool(gate, size=max_engines, spares=warm, env=env, label="client")
            scope, after = CancelScope(max_waiting), partial(pool.sleep_idle, IDLE_SECONDS)
            return pool, LeasedEngines(pool, kind=kind, scope=scope, starts_here=True, after=after)

        requests = EngineRequests(
            shared()[1],
            kind=self.engine,
            working_dir=self.working_dir,
            timeout=self.timeout,
            strict=strict,
            may_cut=may_cut(kind, self.command_args, environ, inherit_env),
            max_events=max_events,
            env=env,
            sink=sink,
            command=made,
        )
        self._scripts = self._others = _Engines(requests, shared if isolation == "shared" else apart)
        if isolation == "exclusive":  # what runs no script shares an engine beside them
            self._others = _Engines(requests.on(requests.source), shared)
        # The same each time, at the cost of no Python call.
        super().__init__(repeat(requests).__next__, repeat(self._others.requests).__next__)
        self._at_exit = weakref.finalize(self, _close_all, {self._scripts, self._others})
        _CLIENTS.add(self)

    def close(self, timeout: float | timedelta = 0.0) -> int:
        """End the engines, and return how many calls were cut off; they end as `EngineClosed`.

        A later call starts a new engine.

        Args:
            timeout: Seconds that calls in flight, and those that wait for an engine, get to end by themselves. Calls
                made in that time are refused as `Draining`; a second `close` without a timeout cuts it short.
        """
        engines, limit = {self._scripts, self._others}, seconds(timeout)
        if not limit:
            return _close_all(engines)
        closing = [(each, each.drain()) for each in engines]
        wait_for_rest(lambda: all(source.is_at_rest or each.has_left(source) for each, source in closing), limit)
        return _close_all(each for each, source in closing if not each.has_left(source))

    def begin_anew(self) -> None:
        """Abandon the present engines to the process they belong to, as a forked child does, and begin with none."""
        for engines in {self._scripts, self._others}:
            engines.begin_anew()

    @property
    def pool_status(self) -> EnginePoolStatus:
        """What the engines that run scripts do: how many run, are idle, were started and ended."""
        return self._scripts.pool.status()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.engine} {self.isolation}>"


class _Engines:
    """The engines behind the requests of a client, which begins anew with none after `close` and after a fork."""

    def __init__(self, requests: EngineRequests, make: Callable[[], tuple[EnginePool, EngineSource]]) -> None:
        self.requests = requests
        self._make = make
        self.begin_anew()

    def begin_anew(self) -> None:
        """Abandon the present engines without ending them, and begin with none."""
        self.pool, self.requests.source = self._make()

    def drain(self) -> ClosingSource:
        """Take no more requests, and return what stands in front of those that are left."""
        source = self.requests.source
        if not isinstance(source, ClosingSource):
            source = self.requests.source = ClosingSource(source, Draining("the client"))
        return source

    def has_left(self, source: ClosingSource) -> bool:
        """Whether it has begun anew since, because it was closed or the process forked."""
        return self.requests.source is not source

    def close(self) -> int:
        """End the engines; requests under way and those that wait end as `EngineClosed`. Returns how many."""
        pool, source = self.pool, self.requests.source
        self.begin_anew()
        cut_off = source.in_flight
        source.close(EngineClosed("the client was closed"))
        pool.close()
        return cut_off


def _check(command: object, command_args: Sequence[str] | None, working_dir: object, environ: object) -> None:
    """Refuse what no process can be started from."""
    text("command", command)
    words = isinstance(command_args, Sequence) and not isinstance(command_args, str | bytes)
    if command_args is not None and not (words and all(isinstance(word, str) for word in command_args)):
        raise InvalidOption("command_args", command_args, "a list of texts, or None")
    if working_dir is not None and not isinstance(working_dir, str | os.PathLike):
        raise InvalidOption("working_dir", working_dir, "a path, or None")
    if environ is not None and not (
        isinstance(environ, Mapping) and all(isinstance(one, str) for pair in environ.items() for one in pair)
    ):
        raise InvalidOption("environ", environ, "a mapping of texts to texts, or None")


def mebibytes(heap: str | int | None) -> int | None:
    """Read a memory size; `None` stays what it is.

    Raises:
        InvalidOption: It is none.
    """
    if heap is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(m|mb|g|gb)?", str(heap).strip().lower())
    mib = round(float(found[1]) * (1024 if (found[2] or "m").startswith("g") else 1)) if found else 0
    if isinstance(heap, bool) or mib < 1:
        raise InvalidOption("heap", heap, "a positive memory size like 8192, '8192m' or '8g'")
    return mib


def _close_all(engines: Iterable[_Engines]) -> int:
    return sum(each.close() for each in engines)


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    """Leave the engines to the parent: in the child every client begins with none."""
    for client in list(_CLIENTS):
        client.begin_anew()


os.register_at_fork(after_in_child=_after_fork)
