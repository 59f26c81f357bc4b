"""Clients as children of a tree: `child(Client, name="scripts")`, found as `runtime["scripts"]`."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial, wraps
from typing import Any, ClassVar, Concatenate, Final, Literal, ParamSpec, TypeVar

import msgspec

from mlld_sdk.actors.core.errors import AskTimeout
from mlld_sdk.agents.duty import Drain, TakeWork
from mlld_sdk.agents.handles import AsyncNamed, Named
from mlld_sdk.agents.options import EngineOptions
from mlld_sdk.agents.owner import EngineOwner
from mlld_sdk.agents.services import AgentUnavailable, Services
from mlld_sdk.base.durations import Deadline, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InfrastructureError, InvalidOption
from mlld_sdk.base.events import Sink
from mlld_sdk.base.options import refuse_unknown
from mlld_sdk.client.aio import AsyncRequests, in_thread
from mlld_sdk.client.client import CALL_TIMEOUT, IDLE_SECONDS, RETIRING, Client, mebibytes
from mlld_sdk.client.options import ClientOptions
from mlld_sdk.client.requests import ClientRequests
from mlld_sdk.engines.pool import EnginePool
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.engines.requests import EngineRequests
from mlld_sdk.engines.shared import SharedEngines
from mlld_sdk.engines.sources import EngineHealth
from mlld_sdk.scripts.stream import MAX_EVENTS
from mlld_sdk.supervision.errors import ChildNotFound, ChildUnavailable
from mlld_sdk.supervision.snapshot import walk
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineClosed
from mlld_sdk.transport.limits import EngineLimits

P = ParamSpec("P")
R = TypeVar("R")

RESTART_PATIENCE: Final = 10.0
"""Seconds a call waits for a client that is being restarted."""


@dataclass(eq=False, repr=False)
class ClientGaveUp(InfrastructureError):
    """A supervised client is down for good: its engines died too often, and its restart limit is used up.

    Attributes:
        client: Its path in the tree.
        why: How its last incarnation ended.
    """

    code = "CLIENT_GAVE_UP"
    message = "{client} is down, its restart limit is used up; last: {why}"
    hint = "mend the cause, then runtime.resume({client!r}); plain functions begin anew after mlld_sdk.client.close()"
    client: str
    why: str


@dataclass(frozen=True, slots=True)
class CloseEngines:
    """End the engines, and take requests again; answered with how many requests were cut off."""


class SupervisedClientOptions(EngineOptions, frozen=True, kw_only=True):
    """What `Client` takes, as the options of an actor."""

    timeout: float | None = CALL_TIMEOUT
    heap: str | int | None = None
    heap_snapshot_near_limit: int | None = None
    isolation: Literal["shared", "exclusive"] = "shared"
    max_engines: int = 4
    strict: bool = False
    max_events: int = MAX_EVENTS
    limits: EngineLimits | None = None
    hibernate_after: float | None = IDLE_SECONDS

    @property
    def capacity(self) -> tuple[int, int]:
        """How many engines may work at once; any number more while shared ones only finish what they have."""
        return (1, RETIRING) if self.shares else (self.max_engines, 0)

    @property
    def shares(self) -> bool:
        """Whether requests use one engine at once."""
        return self.isolation == "shared"

    def engine_command(self) -> EngineCommand:
        """Find the program that runs the engines; called at each start of one, since clients start nothing before."""
        return self._command_with(mebibytes(self.heap), self.heap_snapshot_near_limit)

    def where_paths_begin(self) -> str | None:
        """Return the working directory, if one was given."""
        return self.working_dir

    def find_program(self) -> object:
        """Return these options: the program is looked for when an engine is started, and its lack fails the call."""
        return self

    def starter(self, program: object, name: str, env: Env, sink: Sink) -> Callable[[], Engine]:  # noqa: ARG002
        """Return what starts an engine, which looks for the program each time."""
        return lambda: Engine.start(
            self.engine_command(), exclusive=True, label=name, limits=self.limits, env=env, sink=sink
        )

    def shared_source(self, pool: EnginePool, scope: CancelScope, health: EngineHealth) -> SharedEngines:
        """Make the source of requests that share an engine; it is kept, unless others may have to wait for it."""
        return SharedEngines(pool, scope=scope, health=health, keeps=not pool.quota.is_limited)


class SupervisedClient(EngineOwner):
    """Owns the engines of a client in a tree; started for `child(Client, ...)`, with the options of `Client`.

    With `isolation="shared"` it ends with its engine, as an agent does: every death counts against its restart limit.
    With `exclusive` an engine that dies costs its own call, as in a pool, and a row of deaths ends the client.
    """

    stands_for: ClassVar[str] = "Client"
    Options: ClassVar[type[SupervisedClientOptions]] = SupervisedClientOptions
    options: SupervisedClientOptions

    @classmethod
    def check_child_arguments(cls, kwargs: Mapping[str, Any]) -> None:
        """Refuse what is wrong as an option of a client."""
        refuse_unknown(kwargs, ClientOptions)
        for option in ("env", "sink"):
            if option in kwargs:
                raise InvalidOption(option, kwargs[option], "left out: a client in a tree has those of the runtime")
        Client(**kwargs)  # which starts nothing

    @classmethod
    def options_with(cls, given: Mapping[str, Any]) -> SupervisedClientOptions:
        """Return the options of a client as those of an actor."""
        values = {name: value for name, value in given.items() if value is not None and name not in ("warm", "limits")}
        if "timeout" in given:
            values["timeout"] = seconds(given["timeout"])
        spares = given.get("warm", 1) if given.get("isolation") == "exclusive" else 0
        made = super().options_with({**values, "spares": spares})
        assert isinstance(made, SupervisedClientOptions)
        return msgspec.structs.replace(made, limits=given.get("limits"))

    def on_start(self) -> None:
        """Take over the engines of this name, and begin as what the isolation asks for."""
        self.ends_with_its_engine = self.options.shares
        super().on_start()

    def on_receive(self, message: Any) -> Any:
        """End the engines when told to, besides what all owners do."""
        if not isinstance(message, CloseEngines):
            return super().on_receive(message)
        cut_off = self.requests.source.in_flight
        self._stop_requests()
        self.services.close_engine_pool(self.name)
        self.find_engines(self.requests.health)
        super().on_receive(TakeWork())
        return cut_off

    def new_requests(self, health: EngineHealth | None = None, *, shared: bool = False) -> EngineRequests:
        """Make a way to the engines, as strict as the client was declared."""
        requests = super().new_requests(health, shared=shared)
        requests.strict, requests.max_events = self.options.strict, self.options.max_events
        return requests

    def _stop_requests(self) -> None:
        self.requests.source.stop(EngineClosed(f"{self.name} was closed"))


class ClientHandle(Named, ClientRequests):
    """A client by its name in the tree, with the calls of `Client`.

    A call that comes while it is being restarted waits for the next incarnation, at most for `RESTART_PATIENCE`.
    """

    def __init__(self, services: Services, name: str) -> None:
        super().__init__(services, name)
        self.reach: Callable[[], EngineRequests] = partial(self._found, services.requests_of)
        self.reach_other: Callable[[], EngineRequests] = self.reach

    @cached_property
    def aio(self) -> "AsyncClientHandle":
        """The same for asyncio: nothing blocks the loop."""
        return AsyncClientHandle(self)

    def close(self, timeout: float | timedelta = 0.0) -> int:
        """Do what `Client.close` does: end the engines, and return how many calls were cut off. It stays up."""
        limit = seconds(timeout)
        with suppress(AgentUnavailable, ClientGaveUp):
            if limit:
                with suppress(AskTimeout):
                    if not self._ask(Drain(), limit):
                        return 0  # another close came in between, and has ended them
            cut_off: int = self._ask(CloseEngines())
            return cut_off
        return 0

    def is_up(self) -> bool:
        """Whether one works under this name now."""
        return self._services.is_up(self.name)

    def comes_soon(self) -> bool:
        """Whether one works under this name now, or will within `RESTART_PATIENCE`.

        Raises:
            ClientGaveUp: None will before somebody restarts it.
        """
        services, tree = self._services, self._services.tree
        if tree is None or services.over is not None:
            return False
        try:
            tree.ref(self.name)
        except ChildUnavailable as error:
            if error.state == "failed":
                last = next((place.last for place in walk(tree.snapshot()) if place.path == self.name), "")
                raise ClientGaveUp(self.name, last) from None
            return error.state in ("starting", "waiting") and (error.retry_after or 0.0) <= RESTART_PATIENCE
        except ChildNotFound:
            return False
        return True

    def comes(self, timeout: float) -> bool:
        """Wait until one works under this name, and return whether that was so in time.

        Raises:
            ClientGaveUp: None will before somebody restarts it. That is said as soon as it is so.
        """
        if self._services.wait_until_up(self.name, timeout, or_else=self._is_down):
            return True
        self.comes_soon()
        return False

    def _is_down(self) -> bool:
        tree = self._services.tree
        try:
            return tree is None or tree.ref(self.name) is None
        except ChildUnavailable as error:
            return error.state == "failed"
        except ChildNotFound:
            return True

    def _found(self, find: Callable[[str], EngineRequests]) -> EngineRequests:
        deadline: Deadline | None = None
        while True:
            try:
                return find(self.name)
            except AgentUnavailable:
                deadline = deadline or Deadline(RESTART_PATIENCE)
                if _on_a_loop() or not (self.comes_soon() and self.comes(deadline.left)):
                    raise


def _on_a_loop() -> bool:
    """Whether this thread runs an event loop, which must not wait here: the coroutines do, by their own means."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _when_up(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return a coroutine method that first waits, in a thread, for a client that is being restarted."""

    @wraps(method)
    async def call(self: "AsyncClientHandle", /, *args: P.args, **kwargs: P.kwargs) -> R:
        deadline = Deadline(RESTART_PATIENCE)
        while True:
            if not self.sync.is_up() and self.sync.comes_soon():
                await self.comes(deadline.left)
            try:
                return await method(self, *args, **kwargs)
            except AgentUnavailable:  # it went just now, and nothing was sent
                if deadline.is_over or not self.sync.comes_soon():
                    raise

    return call


class AsyncClientHandle(AsyncNamed[ClientHandle]):
    """A client by its name in the tree, for asyncio, with the calls of `AsyncClient`."""

    process = _when_up(AsyncRequests.process)
    process_result = _when_up(AsyncRequests.process_result)
    process_async = _when_up(AsyncRequests.process_async)
    execute = _when_up(AsyncRequests.execute)
    execute_async = _when_up(AsyncRequests.execute_async)
    fs_status = in_thread(ClientRequests.fs_status)
    sign = in_thread(ClientRequests.sign)
    verify = in_thread(ClientRequests.verify)
    sign_content = in_thread(ClientRequests.sign_content)
    close = in_thread(ClientHandle.close)
    comes = in_thread(ClientHandle.comes)
