"""What engines are installed here, whether each really works, and what the others say is wrong.

>>> from mlld_sdk.engines.check import check_engines
>>> print(check_engines())  # doctest: +SKIP
live      usable    mlld 2.0.5, ready in 0.6 s (default)
bridge    usable    mlld 2.0.5, ready in 0.6 s
embedded  usable    mlld 2.0.5, ready in 0.1 s
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.texts import printable
from mlld_sdk.engines.kinds import COMMAND, KINDS, EngineKind, chosen, command_for
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineBabbling, ScriptError
from mlld_sdk.transport.mlld_package import find_package

_HINT = "hint: "


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine with the extended protocol introduces itself.

    Attributes:
        engine: `bridge` or `embedded`.
        version: Its own version.
        mlld: Version of the language it runs.
        protocol: Version of the extended protocol.
        features: What it can do (docs/extended-protocol.md, section 2).
    """

    engine: str
    version: str
    mlld: str
    protocol: int
    features: tuple[str, ...] = ()


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about one engine.

    Attributes:
        engine: Which.
        usable: It was started and answered.
        argv: What starts it; empty when it cannot be started at all.
        mlld: Version of mlld it runs, where that can be told.
        ready_after: Seconds from its start to its first answer.
        hello: How it introduced itself; `None` for the live engine, which does not.
        code: Why it is not usable, for programs.
        problem: The same, in one line.
        hint: What to do about it.
    """

    engine: EngineKind
    usable: bool
    argv: tuple[str, ...] = ()
    mlld: str | None = None
    ready_after: float | None = None
    hello: Hello | None = None
    code: str | None = None
    problem: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        if not self.usable:
            hint = f"; {self.hint}" if self.hint else ""
            return printable(f"{self.engine:<9} unusable  {self.problem}{hint}")
        version = f"mlld {self.mlld}" if self.mlld else "mlld of unknown version"
        return printable(f"{self.engine:<9} usable    {version}, ready in {self.ready_after or 0:.1f} s")


class EnginesReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about all engines.

    Attributes:
        default: The engine a declaration gets that names none.
        engines: One report each.
    """

    default: EngineKind
    engines: tuple[EngineReport, ...]

    def __getitem__(self, engine: EngineKind) -> EngineReport:
        """Return the report of one engine."""
        return {report.engine: report for report in self.engines}[engine]

    def __str__(self) -> str:
        return "\n".join(f"{report}{' (default)' if report.engine == self.default else ''}" for report in self.engines)


def check_engines(
    command: str = COMMAND,
    args: Sequence[str] = (),
    *,
    engines: Sequence[EngineKind] = KINDS,
    cwd: str | None = None,
    environ: Mapping[str, str] | None = None,
    timeout: float | timedelta = 15.0,
    env: Env | None = None,
) -> EnginesReport:
    """Start each engine once, ask for its name and version, end it, and report. Takes seconds; changes nothing.

    An engine that cannot be used is a report with the reason, never an exception, and never replaced by another.

    Args:
        command: Program that starts mlld, for the engines that need it.
        args: Its arguments before `live --stdio`.
        engines: Which to check.
        cwd: Directory to start them in.
        environ: Added to the environment.
        timeout: Seconds each gets to answer.
        env: Clock.

    Raises:
        ConfigurationError: `MLLD_ENGINE` names no engine.
    """
    clock = env or Env()

    def check(engine: EngineKind) -> EngineReport:
        argv: tuple[str, ...] = ()
        try:
            started_by = () if engine == "embedded" else (command, args)
            made = command_for(engine, *started_by, cwd=cwd, environ=environ)
            argv = made.argv
            with Engine.start(made, env=clock) as running:
                ready_after = running.wait_ready(timeout)
                hello = _introduction(running, timeout)
        except MlldError as error:
            problem, hint = _own_words(error)
            return EngineReport(engine=engine, usable=False, argv=argv, code=error.code, problem=problem, hint=hint)
        mlld = hello.mlld if hello else _installed_version(command, args, environ)
        return EngineReport(engine=engine, usable=True, argv=argv, mlld=mlld, ready_after=ready_after, hello=hello)

    return EnginesReport(default=chosen(None, command, args), engines=tuple(map(check, engines)))


def _own_words(error: MlldError) -> tuple[str, str | None]:
    """Take problem and hint from the engine's last two lines if it said them there (XP-8), else from the error."""
    lines = getattr(error, "stderr_tail", "").strip().splitlines()
    if len(lines) > 1 and lines[-1].startswith(_HINT):
        return lines[-2], lines[-1].removeprefix(_HINT)
    return error.message, error.hint


def _introduction(engine: Engine, timeout: float | timedelta) -> Hello | None:
    """Return how an engine introduces itself; `None` for the live engine, which has no method `hello`."""
    try:
        return msgspec.convert(engine.call("hello", timeout=timeout).payload, Hello)
    except ScriptError as error:
        if error.code == "METHOD_NOT_FOUND":
            return None
        raise
    except msgspec.ValidationError as error:
        raise EngineBabbling(f"its answer to hello is none: {error}", hint="is this program an engine?") from error


def _installed_version(command: str, args: Sequence[str], environ: Mapping[str, str] | None) -> str | None:
    """Return the version of the package behind the live engine's command, `None` if it cannot be found."""
    try:
        return find_package(command, args, environ=environ).version
    except MlldError:
        return None
