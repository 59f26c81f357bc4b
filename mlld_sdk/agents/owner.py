"""What agents, pools and supervised clients share: an actor that owns a pool of engines and answers for it."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.exits import Crash, Reason, crash
from mlld_sdk.agents.duty import Duty
from mlld_sdk.agents.options import EngineOptions
from mlld_sdk.agents.services import Services
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.options import refuse_misspelt
from mlld_sdk.engines.kinds import may_cut
from mlld_sdk.engines.pool import EnginePool, EnginePoolStatus
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.engines.requests import EngineRequests
from mlld_sdk.engines.shared import EngineSource
from mlld_sdk.engines.sources import EngineHealth, LeasedEngines
from mlld_sdk.runs.breakers import StepWait
from mlld_sdk.runs.errors import OwnerGone
from mlld_sdk.supervision.supervisor import keep_options, kept_options
from mlld_sdk.transport.command import EngineCommand

FAILURES_IN_A_ROW: Final = 5
"""Engines that may fail with nothing succeeding in between, before one that outlives its engines counts as failed."""


class OwnerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent, a pool or a supervised client is doing.

    Attributes:
        name: Its path in the tree.
        state: `idle`, `working`, `draining` or `drained`.
        engines: Its engines.
        runs: Ids of the runs it works on.
        waiting: Steps of them that wait for a circuit breaker.
    """

    name: str
    state: str
    engines: EnginePoolStatus
    runs: tuple[str, ...] = ()
    waiting: tuple[StepWait, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """A request found its engine dead."""

    reason: Crash


@dataclass(frozen=True, slots=True)
class Configure:
    """Change options while running."""

    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Ask for an `OwnerStatus`."""


def made_of(program: object, options: EngineOptions) -> object:
    """Return what decides whether the engines of an earlier incarnation are still those that are wanted."""
    return (program, options.capacity, options.spares, options.recycle)


class EngineOwner(Actor):
    """An actor with engines. Subclasses define what is done with them.

    The pool belongs to the name in the tree: it survives a crash of the actor, so a warm spare serves the successor,
    and ends with an orderly stop.
    """

    answers = (ConfigurationError,)
    ends_with_its_engine: bool = False
    """Whether a failed engine ends this incarnation; if not, `FAILURES_IN_A_ROW` of them do."""
    Options: ClassVar[type[EngineOptions]] = EngineOptions

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.duty = Duty(self, self.is_at_work)
        self.options = self.options_with(options)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse class attributes that are misspelt options."""
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls, (*cls.Options.__struct_fields__, "child_options"))

    @classmethod
    def options_with(cls, given: Mapping[str, Any]) -> EngineOptions:
        """Return the options of an actor of this class: those given, else its class attributes, else the defaults.

        Raises:
            InvalidOption: One is wrong.
        """
        defaults = {
            name: getattr(cls, name)
            for name in cls.Options.__struct_fields__
            if hasattr(cls, name) and not hasattr(Actor, name)  # what an actor means by that name is not ours
        }
        return cls.Options().having({**defaults, **given})

    @classmethod
    def check_child_arguments(cls, kwargs: Mapping[str, Any]) -> None:
        """Refuse what is wrong as an option, where a child of this class is declared.

        What `__init__` names itself is no option. If the class has an `__init__` of its own, which may take more by
        `**options`, a name that is not like an option's is left to it.
        """
        own = inspect.signature(cls.__init__).parameters
        options = {name: value for name, value in kwargs.items() if name not in own}
        if not cls.__init__.__module__.startswith(f"{__package__}."):
            names = cls.Options.__struct_fields__
            options = {name: value for name, value in options.items() if difflib.get_close_matches(name, names, 1)}
        cls.options_with(options)

    def on_start(self) -> None:
        """Find the engines' program and take over the pool of this name."""
        self.services = Services.of(self.system)
        me = self.actor_ref
        self.name = me.path
        if not hasattr(self, "options"):
            kind = type(self).__name__
            raise ConfigurationError(
                f"{kind}.__init__ does not call super().__init__(**options), so {self.name} has no options",
                hint="define `def __init__(self, mine, **options): super().__init__(**options)`",
            )
        kept = kept_options(me)
        if kept:
            self.options = self.options.having(kept)
        health = EngineHealth(ends_owner=self.ends_with_its_engine)
        health.on_failure = lambda error: me.cast(EngineFailed(crash(error)))
        self._kind = self.options.kind
        self._program = self.options.find_program()
        self.find_engines(health)
        self.own(self.requests, close=self._stop_requests)
        if self.options.eager and not self.services.stopping:
            self.engine_pool.warm()

    def find_engines(self, health: EngineHealth) -> None:
        """Take over the pool of this name, or make it, and a way to its engines."""
        self.engine_pool = self.services.engine_pool(
            self.name, self._make_engine_pool, made_of(self._program, self.options)
        )
        self.engine_pool.idle_after = self.options.hibernate_after
        self.requests = self.new_requests(health, shared=self.options.shares)
        if self.services.stopping:
            self.duty.end(self.requests, admits_runs=True)
        self.services.requests[self.name] = self.requests

    def on_receive(self, message: Any) -> Any:
        """Answer for the engines."""
        answer = self.duty.receive(message, self.requests)
        if answer is not NotImplemented:
            return answer
        match message:
            case AskStatus():
                return self.status()
            case EngineFailed(reason=reason):
                health = self.requests.health
                if health.ends_owner or health.in_a_row >= FAILURES_IN_A_ROW:
                    self.stop(reason)
            case Configure(changes=changes):
                self.options = self.options.changed(changes)
                self.requests.timeout = self.options.timeout
                self.engine_pool.idle_after = self.options.hibernate_after
                keep_options(self.actor_ref, changes)
            case _:
                return super().on_receive(message)
        return None

    def on_terminate(self, reason: Reason) -> None:
        """End the engines, unless a successor is coming."""
        if reason.is_normal_family:
            self._stop_requests()  # first, so that requests learn why their engines are killed
            self.services.close_engine_pool(self.name)

    def status(self) -> OwnerStatus:
        """Return what is going on."""
        engines = self.engine_pool.status()
        state = self.off_duty() or ("working" if engines.busy else "idle")
        return OwnerStatus(name=self.name, state=state, engines=engines)

    def off_duty(self) -> str:
        """Return `draining` or `drained` if it was told to take no more work; called from other threads."""
        return self.duty.word

    def is_at_work(self) -> bool:
        """Return whether anything it has taken has not ended; called from other threads."""
        return not self.requests.source.is_at_rest

    def new_requests(self, health: EngineHealth | None = None, *, shared: bool = False) -> EngineRequests:
        """Make a way to the engines that can be stopped for itself; `shared`: all requests use one engine at once."""
        options, kind, env, program = self.options, self._kind, self.services.env, self._program
        health, scope = health or EngineHealth(), CancelScope(options.max_waiting)
        source: EngineSource
        if shared:
            source = options.shared_source(self.engine_pool, scope, health)
        else:
            source = LeasedEngines(self.engine_pool, kind=kind, scope=scope, health=health, reaps=kind != "embedded")
        return EngineRequests(
            source,
            kind=kind,
            name=self.name,
            working_dir=options.where_paths_begin(),
            caching=options.caching(lambda: self.services.cache_root(self.name)),
            defaults=options.defaults,
            timeout=options.timeout,
            may_cut=may_cut(kind, options.command_args, options.environ, options.inherit_env),
            env=env,
            sink=self.services.sink,
            command=program if isinstance(program, EngineCommand) else options.engine_command,
        )

    def _stop_requests(self) -> None:
        self.requests.source.stop(OwnerGone(f"{self.name} ended"))

    def _make_engine_pool(self) -> EnginePool:
        services, options = self.services, self.options
        size, overflow = options.capacity
        return EnginePool(
            options.starter(self._program, self.name, services.env, services.sink),
            size=size,
            overflow=overflow,
            spares=options.spares,
            quota=services.quota,
            recycle=options.recycle,
            idle_after=options.hibernate_after,
            env=services.env,
            label=self.name,
        )
