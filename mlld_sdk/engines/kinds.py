"""Which engine a declaration means, and the command that starts it. Never another one than was asked for."""

import os
from collections.abc import Mapping, Sequence
from typing import Final, Literal, cast

from mlld_sdk.base.errors import ConfigurationError, InvalidOption, InvalidRequest
from mlld_sdk.base.options import one_of
from mlld_sdk.transport.command import EngineCommand, bridge_command, embedded_command, resolve
from mlld_sdk.transport.surroundings import Inheritance, inherited

EngineKind = Literal["live", "bridge", "embedded"]

KINDS: Final = ("live", "bridge", "embedded")

VARIABLE: Final = "MLLD_ENGINE"
"""Names the engine where a declaration does not."""

COMMAND: Final = "mlld"

IMITATES: Final = "MLLD_EMBEDDED_LIKE_REAL"
"""Set where the embedded engine is to behave like the live one."""


def chosen(engine: EngineKind | None, command: str = COMMAND, args: Sequence[str] = ()) -> EngineKind:
    """Return the engine meant: the named one, `live` if a command is given, that of `MLLD_ENGINE`, or else `live`.

    Raises:
        InvalidOption: There is no engine of that name.
    """
    said, where = engine, "engine"
    if said is None and command == COMMAND and not args:
        said, where = cast("EngineKind | None", os.environ.get(VARIABLE) or None), VARIABLE
    if said is None:
        return "live"
    one_of(where, said, *KINDS)
    return said


class CommandFailuresUnseen(ConfigurationError):
    """A live engine does not tell whether a command failed, so it cannot fail for that. The bridge and embedded do."""

    code = "COMMAND_FAILURES_UNSEEN"


def refuse_unseen(engine: str, on_command_failure: str | None) -> None:
    """Refuse to fail for commands that fail where the engine tells nothing of them."""
    if engine == "live" and on_command_failure == "fail":
        raise CommandFailuresUnseen(
            "on_command_failure='fail': a live engine does not tell when a command fails",
            hint="use engine='bridge', which runs the same mlld, or engine='embedded'; or leave the option out",
        )


def refuse_what_does_not_fit(engine: EngineKind, command: str, limits_heap: bool) -> None:
    """Refuse options the embedded engine has no use for, rather than ignore them."""
    if engine == "embedded" and command != COMMAND:
        raise InvalidOption("command", command, "left out with engine='embedded'")
    if engine == "embedded" and limits_heap:
        raise InvalidRequest("heap and heap_snapshot_near_limit are for engines that run on Node")


def may_cut(
    engine: EngineKind, args: Sequence[str], environ: Mapping[str, str], inherit_env: Inheritance = "all"
) -> bool:
    """Return whether this engine may cut values: the live one does, and the embedded one when it imitates that."""
    if engine == "embedded":
        return bool(args or environ.get(IMITATES, inherited(inherit_env).get(IMITATES)))
    return engine == "live"


def command_for(
    engine: EngineKind,
    command: str = COMMAND,
    args: Sequence[str] = (),
    *,
    cwd: str | None = None,
    environ: Mapping[str, str] | None = None,
    heap: int | None = None,
    heap_snapshot_near_limit: int | None = None,
    inherit_env: Inheritance = "all",
) -> EngineCommand:
    """Make the command that starts this engine; the options are those of `Client`.

    Raises:
        ConfigurationError: The program or the package cannot be found or used, or an option does not fit the engine.
    """
    refuse_what_does_not_fit(engine, command, heap is not None or heap_snapshot_near_limit is not None)
    if engine == "embedded":
        return embedded_command(*args, cwd=cwd, environ=environ, inherit_env=inherit_env)
    find = bridge_command if engine == "bridge" else resolve
    return find(
        command,
        args,
        cwd=cwd,
        environ=environ,
        heap=heap,
        heap_snapshot_near_limit=heap_snapshot_near_limit,
        inherit_env=inherit_env,
    )
