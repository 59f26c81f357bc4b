"""What can be chosen about agents and pools, checked when they are declared."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, cast

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, InvalidOption
from mlld_sdk.base.events import Sink
from mlld_sdk.base.options import checked, unknown, whole
from mlld_sdk.engines.kinds import EngineKind, chosen, command_for
from mlld_sdk.engines.pool import EnginePool, Recycle
from mlld_sdk.engines.quota import MAX_WAITING, CancelScope
from mlld_sdk.engines.requests import DEFAULT_TIMEOUT
from mlld_sdk.engines.shared import SharedEngines
from mlld_sdk.engines.sources import EngineHealth
from mlld_sdk.scripts.params import RunOptions
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import WorkingDirectoryMissing
from mlld_sdk.transport.surroundings import check_inheritance


class LiveOptions(TypedDict, total=False):
    """Options that can change without dropping engines; `EngineOptions` and `AgentOptions` say what they mean."""

    script: str | None
    timeout: float | None
    hibernate_after: float | None
    concurrency: int
    oldest_waiting: float | None


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an actor gets its engines. Class attributes of the same names are the defaults.

    Attributes:
        engine: Which engine runs the scripts: `live`, `bridge` or `embedded`. `None` takes `MLLD_ENGINE` from the
            environment, else `live`.
        command: The mlld program, a name on `PATH` or a path.
        command_args: Arguments before `live --stdio`; for the embedded engine, its switches.
        working_dir: Where engines run and relative script paths start; `None` is the host's directory.
        environ: Added to the engines' environment.
        inherit_env: What engines get of the host's environment: `"all"`, a `"minimal"` one, or the variables named.
        checkpoint: Serve finished model calls from mlld's cache when a script is run again. `"isolated"`: from a cache
            that belongs to this name alone.
        resume: Serve finished calls but for those named: `"@fn"`, `"@fn:2"`, `'@fn("prefix")'`, a checkpoint's name.
        fresh: Forget a script's finished calls before each request.
        fork: Start from the finished calls of another script, by its name.
        on_command_failure: What comes of a command that fails inside an `llm` function: `tell`, an event and a warning,
            and its output is the value; or `fail`, the step or request fails with `CommandFailed`. Not on live engines.
        timeout: Seconds a request may take, waiting for an engine included; `None` for no limit.
        max_waiting: Requests that may wait for an engine at once; one more is refused with `EngineOverloaded`.
        spares: Engines kept warm beyond those in use, so that the next finds it ready.
        eager: Start engines with the actor instead of at the first request.
        hibernate_after: Seconds after which idle engines are put to sleep; `None` for never.
        recycle: When a working engine is replaced.
    """

    engine: EngineKind | None = None
    command: str = "mlld"
    command_args: tuple[str, ...] = ()
    working_dir: str | None = None
    environ: Mapping[str, str] = {}
    inherit_env: Literal["all", "minimal"] | tuple[str, ...] = "all"
    checkpoint: bool | Literal["isolated"] = False
    resume: bool | str = False
    fresh: bool = False
    fork: str | None = None
    on_command_failure: Literal["tell", "fail"] = "tell"
    timeout: float | None = DEFAULT_TIMEOUT
    max_waiting: int = MAX_WAITING
    spares: int = 0
    eager: bool = False
    hibernate_after: float | None = 300.0
    recycle: Recycle = Recycle()

    @property
    def capacity(self) -> tuple[int, int]:
        """How many engines may work at once, and how many more while all of those are busy."""
        return 1, 0

    @property
    def shares(self) -> bool:
        """Whether requests use one engine at once."""
        return False

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return the options with changes that can be taken without dropping engines.

        Raises:
            ConfigurationError: A change needs another engine, or a value is wrong.
        """
        live = [name for name in LiveOptions.__annotations__ if name in self.__struct_fields__]
        for name in changes:
            if name not in live:
                if name not in self.__struct_fields__:
                    raise unknown(name, changes[name], live)
                raise ConfigurationError(
                    f"{name} cannot be changed in a running actor",
                    hint=f"these can: {', '.join(sorted(live))}; for others change its declaration",
                )
        return self.having(changes)

    def caching(self, own_root: Callable[[], Path]) -> RunOptions:
        """Return how requests use the cache of finished calls by default; `own_root` is for one of this name alone."""
        asked = {
            "checkpoint": bool(self.checkpoint),
            "checkpoint_root": str(own_root()) if self.checkpoint == "isolated" else None,
            "resume": self.resume or None,
            "fresh": self.fresh,
            "fork": self.fork,
        }
        return cast("RunOptions", {name: value for name, value in asked.items() if value not in (False, None)})

    @property
    def defaults(self) -> RunOptions:
        """Return what requests are made with unless they say otherwise, besides how they use the cache."""
        return {} if self.on_command_failure == "tell" else {"on_command_failure": self.on_command_failure}

    @property
    def kind(self) -> EngineKind:
        """Which engine is meant."""
        return chosen(self.engine, self.command, self.command_args)

    def engine_command(self) -> EngineCommand:
        """Find the program that runs the engines.

        Raises:
            ConfigurationError: It cannot be found or used, or the directory to run it in is not there.
        """
        if self.working_dir is not None and not os.path.isdir(self.working_dir):
            raise WorkingDirectoryMissing(
                f"working_dir: there is no directory {self.working_dir!r}", hint="create it before the start"
            )
        return self._command_with(None, None)

    def _command_with(self, heap: int | None, snapshots: int | None) -> EngineCommand:
        return command_for(
            self.kind,
            self.command,
            self.command_args,
            cwd=self.working_dir,
            environ=self.environ,
            inherit_env=self.inherit_env,
            heap=heap,
            heap_snapshot_near_limit=snapshots,
        )

    def where_paths_begin(self) -> str | None:
        """Return where relative paths of scripts begin; `None`: where the host is at the moment."""
        return os.path.abspath(self.working_dir or os.curdir)

    def find_program(self) -> object:
        """Find what runs the engines, to tell by it later whether those that are there are still of use.

        Raises:
            ConfigurationError: As `engine_command` does.
        """
        return self.engine_command()

    def starter(self, program: object, name: str, env: Env, sink: Sink) -> Callable[[], Engine]:
        """Return what starts an engine of the program that `find_program` has found."""
        command = program if isinstance(program, EngineCommand) else self.engine_command()
        return lambda: Engine.start(command, exclusive=True, label=name, env=env, sink=sink)

    def shared_source(self, pool: EnginePool, scope: CancelScope, health: EngineHealth) -> SharedEngines:
        """Make the source of requests that all use one engine at once."""
        kind = self.kind
        return SharedEngines(pool, scope=scope, health=health, retires_failed=kind == "live", reaps=kind != "embedded")

    def having(self, values: Mapping[str, Any]) -> Self:
        """Return the options with other values.

        Raises:
            ConfigurationError: An option does not exist or has a wrong value; the message names it.
        """
        plain = {name: _plain(value) for name, value in values.items()}
        checked(type(self), plain)
        new = msgspec.structs.replace(self, **plain)
        new.check()
        return new

    def check(self) -> None:
        """Refuse values out of range, or that do not go together."""
        self._at_least(0, "spares", "max_waiting")
        check_inheritance("inherit_env", self.inherit_env)
        for name in ("timeout", "hibernate_after"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidOption(name, value, "more than 0 seconds or None")

    def _at_least(self, least: int, *names: str) -> None:
        for name in names:
            whole(name, getattr(self, name), least=least)


class AgentOptions(EngineOptions, frozen=True, kw_only=True):
    """How an agent works, besides how it gets its engines.

    Attributes:
        script: What `run` executes when the class does not define one.
        engines: How many engines it may use at once, for parallel branches and for requests beside runs.
        isolation: `exclusive`: each request has an engine to itself. `shared`: requests share one, many at once, and
            what ends the engine ends all of them. Steps of runs always have an engine to themselves.
        concurrency: How many runs it works on at once.
        step_attempts: How often a step that may be repeated is begun in all, before its run is parked.
        oldest_waiting: Seconds that a run may wait for somebody to work on it before the agent is degraded, or `None`.
    """

    script: str | None = None
    engines: int = 1
    isolation: Literal["exclusive", "shared"] = "exclusive"
    concurrency: int = 1
    step_attempts: int = 5
    oldest_waiting: float | None = 600.0

    @property
    def capacity(self) -> tuple[int, int]:
        """How many engines may work at once; one more for when a shared one only finishes what it has."""
        return self.engines, 1 if self.shares else 0

    @property
    def shares(self) -> bool:
        """Whether requests use one engine at once."""
        return self.isolation == "shared"

    def check(self) -> None:
        """Refuse values out of range, or that do not go together."""
        super().check()
        self._at_least(1, "engines", "concurrency", "step_attempts")
        if self.oldest_waiting is not None and not self.oldest_waiting > 0:
            raise InvalidOption("oldest_waiting", self.oldest_waiting, "more than 0 seconds or None")


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value
