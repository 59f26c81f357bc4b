"""Pools: engines that many share, each used by one at a time."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, ClassVar, NoReturn, Self, TypeVar, Unpack

from mlld_sdk.actors.core.actor import current_actor
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.agents.handles import AsyncNamed, Named
from mlld_sdk.agents.options import EngineOptions
from mlld_sdk.agents.owner import EngineOwner, made_of
from mlld_sdk.agents.services import AgentUnavailable
from mlld_sdk.base.durations import seconds
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.options import whole
from mlld_sdk.client.aio import in_thread
from mlld_sdk.client.handles import ExecuteHandle
from mlld_sdk.client.requests import Requests
from mlld_sdk.engines.pool import EngineLease
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.engines.requests import EngineRequests
from mlld_sdk.engines.sources import LeasedEngines, OneEngine
from mlld_sdk.scripts.params import RunOptions
from mlld_sdk.scripts.types import ExecuteResult
from mlld_sdk.supervision.supervisor import keep_options

T = TypeVar("T")


class PoolOptions(EngineOptions, frozen=True, kw_only=True):
    """How large a pool is, besides how it gets its engines.

    Attributes:
        size: Engines that may work at once.
        overflow: How many more may be started while all are busy; they are ended when they come back.
    """

    size: int = 4
    overflow: int = 0

    @property
    def capacity(self) -> tuple[int, int]:
        """How many engines may work at once, and how many more while all of those are busy."""
        return self.size, self.overflow

    def check(self) -> None:
        """Refuse values out of range."""
        super().check()
        self._at_least(1, "size")
        self._at_least(0, "overflow")


@dataclass(eq=False, repr=False)
class PoolTakesNoRuns(ConfigurationError):
    """A run was submitted to a pool, which works on requests only.

    Attributes:
        name: The pool.
    """

    code = "POOL_TAKES_NO_RUNS"
    message = "{name} is a pool: pools take requests, agents take runs"
    hint = "ask it with process, execute, map or checkout, or declare an Agent and submit the run to that"
    name: str


@dataclass(frozen=True, slots=True)
class Resize:
    """Change how many engines may work at once."""

    size: int
    overflow: int | None


class Pool(EngineOwner):
    """Engines that many share: `child(Pool, name="workers", size=4, overflow=2)`. Options are those of `PoolOptions`.

    A request has its engine to itself, and an engine that fails costs its own request only. Only when engine after
    engine fails does the pool crash, so that its supervisor decides about delays and about giving up.
    """

    Options: ClassVar[type[PoolOptions]] = PoolOptions
    options: PoolOptions

    def on_receive(self, message: Any) -> Any:
        """Follow changes of size."""
        match message:
            case Resize(size=size, overflow=overflow):
                changes = {"size": size, **({} if overflow is None else {"overflow": overflow})}
                self.options = self.options.having(changes)
                self.engine_pool.resize(size, overflow)
                self.engine_pool.made_of = made_of(self._program, self.options)
                keep_options(self.actor_ref, changes)
            case _:
                return super().on_receive(message)
        return None


class Checkout(Requests):
    """One engine of a pool, held for several requests, one at a time. Usable in a `with` block.

    An exception that leaves the block ends the engine, since what it was doing is unknown.
    """

    def __init__(self, lease: EngineLease, requests: EngineRequests, owner: ActorRef[Any] | None) -> None:
        scope, kind = requests.source.scope, requests.kind
        requests = requests.on(LeasedEngines(OneEngine(lease), kind=kind, scope=scope, reaps=kind != "embedded"))
        super().__init__(lambda: requests)
        self._lease = lease
        if owner is not None:
            owner.monitor(lambda _: lease.give_back(broken=True))

    def checkin(self, *, broken: bool = False) -> None:
        """Return the engine to the pool; a second time does nothing.

        Args:
            broken: Its state is unknown: end it instead of handing it on.
        """
        self._lease.give_back(broken=broken)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.checkin(broken=kind is not None)


class PoolHandle(Named):
    """A pool by its name."""

    def run(self, payload: object = None, /, **given: object) -> NoReturn:  # noqa: ARG002 - whatever it was
        """Refuse: pools take requests, agents take runs.

        Raises:
            PoolTakesNoRuns: Always.
        """
        raise PoolTakesNoRuns(self.name)

    @cached_property
    def aio(self) -> "AsyncPoolHandle":
        """The same for asyncio: nothing blocks the loop, and no thread waits for an engine."""
        return AsyncPoolHandle(self)

    def checkout(self, timeout: float | timedelta = 5.0, *, owner: ActorRef[Any] | None = None) -> Checkout:
        """Take an engine out of the pool, for several requests in a row; waiters are served in order.

        Args:
            timeout: Seconds to wait for one.
            owner: The actor whose end gives the engine back, should it forget; by default the one that is running.

        Raises:
            NoEngineFree: None became free in time.
            Draining: The pool takes no new requests.
        """
        limit = seconds(timeout)
        pool = self._services.engine_pools().get(self.name)
        requests = self._services.requests.get(self.name)
        if requests is None or pool is None or self.ref is None:
            raise self._services.absent(self.name)
        requests.source.scope.check()
        owner, scope = owner or current_actor(), CancelScope()
        watch = None if owner is None else owner.monitor(lambda _: scope.end(AgentUnavailable(self.name)))
        try:
            lease = pool.lease(limit, scope)
        finally:
            if watch is not None:
                watch.cancel()
        return Checkout(lease, requests, owner)

    def map(
        self,
        filepath: str | os.PathLike[str],
        payloads: Iterable[Any],
        *,
        concurrency: int | None = None,
        **options: Unpack[RunOptions],
    ) -> Iterator[ExecuteResult | Exception]:
        """Run a script once for each payload, some at a time, and yield the results in order.

        A run that fails yields its error in its place. Payloads are drawn only as results are taken: at most
        `concurrency` are under way or waiting to be taken.

        Args:
            filepath: The script.
            payloads: What to run it on; may be endless.
            concurrency: How many at a time; as many as the pool has engines by default.
            **options: As for `execute`.
        """
        limit = self.status().engines.size if concurrency is None else whole("concurrency", concurrency, least=1)
        return self._map(filepath, iter(payloads), limit, options)

    def _map(
        self, filepath: str | os.PathLike[str], payloads: Iterator[Any], limit: int, options: RunOptions
    ) -> Iterator[ExecuteResult | Exception]:
        under_way: deque[ExecuteHandle | Exception] = deque()
        try:
            for payload in payloads:
                under_way.append(_attempt(partial(self.execute_async, filepath, payload, **options)))
                if len(under_way) >= limit:
                    yield _outcome(under_way.popleft())
            while under_way:
                yield _outcome(under_way.popleft())
        finally:
            for call in under_way:
                if not isinstance(call, Exception):
                    call.cancel()

    def resize(self, size: int, overflow: int | None = None) -> None:
        """Change how many engines may work at once; those at work are let finish. It lasts as long as `configure`.

        Args:
            size: As in the declaration.
            overflow: As in the declaration; left out, it stays what it is.
        """
        self._ask(Resize(size, overflow))


class AsyncPoolHandle(AsyncNamed[PoolHandle]):
    """A pool by its name, for asyncio."""

    run = in_thread(PoolHandle.run)
    resize = in_thread(PoolHandle.resize)


def _outcome(call: ExecuteHandle | Exception) -> ExecuteResult | Exception:
    return call if isinstance(call, Exception) else _attempt(call.result)


def _attempt(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - it is the outcome of a payload
        return error
