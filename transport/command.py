"""Which program is an engine, and how it is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike

__all__ = ["READ_FD", "WRITE_FD", "EngineCommand", "embedded_command", "resolve"]

READ_FD = "MLLD_OTP_READ_FD"
"""Environment name of the descriptor number a program with private descriptors reads requests from."""

WRITE_FD = "MLLD_OTP_WRITE_FD"
"""The same for the descriptor it writes answers and events to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCommand:
    """One way to start an engine process.

    Attributes:
        argv: Program (absolute path) and arguments.
        cwd: Directory to run in; `None` is the directory of the host.
        environ: Added to the host's environment.
        private_fds: The protocol runs over two descriptors whose numbers the program finds in `MLLD_OTP_READ_FD` and
            `MLLD_OTP_WRITE_FD`. Its stdin is empty then, and stdout and stderr are captured text.
        wrapped: A wrapper stands between us and the engine, so exit status 0 proves nothing.
        label: Short name for reports: `live`, `bridge`, `embedded`.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    private_fds: bool = False
    wrapped: bool = False
    label: str = "live"

    def at(self, cwd: str | PathLike[str] | None) -> EngineCommand:
        """Say the same command in another directory."""
        return replace(self, cwd=None if cwd is None else str(cwd))

    def having(self, environ: Mapping[str, str]) -> EngineCommand:
        """Say the same command with more environment."""
        return replace(self, environ={**self.environ, **environ})


def resolve(
    command: str | PathLike[str] = "mlld",
    args: Sequence[str] = (),
    *,
    cwd: str | PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    heap: int | None = None,
    heap_snapshot_near_limit: int | None = None,
    survive: bool = True,
) -> EngineCommand:
    """Find the program and make the command that starts it as `... live --stdio`.

    The `mlld` that npm installs is a wrapper through which neither signals nor exit codes pass; it is replaced by
    `node <package>/dist/cli.cjs` whenever the package can be found behind it.

    Args:
        command: A program name looked up on PATH, or a path. A `.js`, `.cjs` or `.mjs` file is run with node.
        args: Arguments before `live --stdio`.
        cwd: Directory to run in.
        environ: Added to the environment.
        heap: Limit of node's heap in MiB.
        heap_snapshot_near_limit: Let node write up to that many heap snapshots near the limit.
        survive: Let the engine outlive a failing script (`--unhandled-rejections=warn`), so that its error can be
            answered and the engine be ended in order.

    Raises:
        CommandNotFound: No such program; the hint says how to get mlld and how to do without.
        CommandNotExecutable: It may not be run.
    """
    raise NotImplementedError


def embedded_command(
    *args: str, cwd: str | PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> EngineCommand:
    """Make the command for the embedded engine, which needs neither node nor a network; `args` are its switches."""
    raise NotImplementedError
