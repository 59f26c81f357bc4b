"""Which program is an engine, and how it is started."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path

from mlld_sdk.base.secrets import keep_secret
from mlld_sdk.transport.errors import CommandNotExecutable, CommandNotFound
from mlld_sdk.transport.mlld_package import MlldPackageNotFound, cli_behind, find_package
from mlld_sdk.transport.surroundings import Inheritance, check_inheritance, inherited

READ_FD = "MLLD_ENGINE_REQUEST_FD"
"""Environment name of the descriptor number a program with private descriptors reads requests from."""

WRITE_FD = "MLLD_ENGINE_RESPONSE_FD"
"""The same for the descriptor it writes answers and events to."""

BRIDGE_PACKAGE = "MLLD_OTP_BRIDGE_PACKAGE"
"""Environment name of the directory of the mlld package that the bridge loads."""

_BRIDGE = Path(__file__).with_name("bridge") / "bridge.cjs"
_SCRIPTS = (".cjs", ".js", ".mjs")
_HOW_TO_GET = "install it with `npm install -g mlld`, name it by its path, or try the embedded engine"
_EMBEDDED = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from mlld_sdk.transport.embedded.__main__ import main; sys.exit(main())"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCommand:
    """One way to start an engine process.

    Attributes:
        argv: Program (absolute path) and arguments.
        cwd: Directory to run in; `None` is the directory of the host.
        environ: Added to what is inherited of the host's environment.
        inherit: What that is: all of it, a minimal one, or the variables named.
        private_fds: The protocol runs over two descriptors whose numbers the program finds under `READ_FD` and
            `WRITE_FD`. Its stdin is empty then, and stdout and stderr are captured text.
        extended: It speaks the extended protocol: nothing is cut and its error codes can be believed.
        wrapped: A wrapper stands between us and the engine, so exit status 0 proves nothing.
        label: Short name for reports: `live`, `bridge`, `embedded`.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    inherit: Inheritance = "all"
    private_fds: bool = False
    extended: bool = False
    wrapped: bool = False
    label: str = "live"

    def __post_init__(self) -> None:
        """Refuse what no process can be given, by name."""
        for word in self.argv:
            _refuse_unpassable(f"the argument {word!r:.80}", word)
        if self.cwd is not None:
            _refuse_unpassable(f"the working directory {self.cwd!r:.80}", self.cwd)
        check_inheritance("inherit_env", self.inherit)
        keep_secret(self.environ)
        for name, value in self.environ.items():
            _refuse_unpassable(f"the name of the environment variable {name!r}", name, also=b"=")
            _refuse_unpassable(f"the environment variable {name!r}", value)


def _refuse_unpassable(what: str, text: str, also: bytes = b"\0") -> None:
    try:
        data = os.fsencode(text)
    except (TypeError, UnicodeError):
        data = b"\0"
    if b"\0" in data or also in data:
        raise CommandNotExecutable(f"{what} holds what no process can be given", hint="pass text without NUL")


def resolve(
    command: str | PathLike[str] = "mlld",
    args: Sequence[str] = (),
    *,
    cwd: str | PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    heap: int | None = None,
    heap_snapshot_near_limit: int | None = None,
    survive: bool = True,
    inherit_env: Inheritance = "all",
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
        inherit_env: What the engine gets of this process's environment.

    Raises:
        CommandNotFound: No such program; the hint says how to get mlld and how to do without.
        CommandNotExecutable: It may not be run.
    """
    environ = dict(environ or {})
    flags = _node_flags(heap, heap_snapshot_near_limit, survive)
    program = _find(str(command), environ.get("PATH"))
    rest = (*args, "live", "--stdio")
    directory = None if cwd is None else str(cwd)
    if program.suffix in _SCRIPTS:
        argv = (_find_node(program, environ.get("PATH")), *flags, str(program), *rest)
    elif program.stem in ("node", "nodejs"):
        argv = (str(program), *flags, *rest)
    elif program.stem == "mlld":
        cli, node = cli_behind(program), shutil.which("node", path=environ.get("PATH"))
        if cli is None or node is None:
            if flags:
                before = environ.get("NODE_OPTIONS", inherited(inherit_env).get("NODE_OPTIONS", ""))
                environ["NODE_OPTIONS"] = " ".join([before, *flags]).strip()
            argv = (str(program), *rest)
            return EngineCommand(argv=argv, cwd=directory, environ=environ, inherit=inherit_env, wrapped=True)
        argv = (node, *flags, str(cli), *rest)
    else:
        argv = (str(program), *rest)
    return EngineCommand(argv=argv, cwd=directory, environ=environ, inherit=inherit_env)


def _node_flags(heap: int | None, snapshots: int | None, survive: bool = False) -> tuple[str, ...]:
    return (
        *(("--unhandled-rejections=warn",) if survive else ()),
        *((f"--max-old-space-size={heap}",) if heap is not None else ()),
        *((f"--heapsnapshot-near-heap-limit={snapshots}",) if snapshots is not None else ()),
    )


def _find(command: str, path: str | None) -> Path:
    """Find a program as a shell would; the error says why it cannot be used."""
    found = shutil.which(command, path=path)
    if found is not None:
        return Path(os.path.abspath(found))
    file = Path(os.path.abspath(command))
    if os.sep in command and file.is_file() and file.suffix in _SCRIPTS:
        return file
    if os.sep in command and file.exists():
        raise CommandNotExecutable(f"{command!r} cannot be run", hint="check its permissions")
    raise CommandNotFound(f"no program {command!r} {'there' if os.sep in command else 'on PATH'}", hint=_HOW_TO_GET)


def _find_node(script: Path, path: str | None) -> str:
    node = shutil.which("node", path=path)
    if node is None:
        raise CommandNotFound(f"no node on PATH to run {str(script)!r}", hint="install Node.js 20 or later")
    return node


def bridge_command(
    command: str | PathLike[str] = "mlld",
    args: Sequence[str] = (),
    *,
    package: str | PathLike[str] | None = None,
    cwd: str | PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    heap: int | None = None,
    heap_snapshot_near_limit: int | None = None,
    inherit_env: Inheritance = "all",
) -> EngineCommand:
    """Make the command that starts the bridge on the installed mlld package.

    It takes what `resolve` takes for the live engine, and looks for the package behind that command, unless its
    directory is given as `package`. The directory it runs in owns `.mlld/checkpoints`.

    Raises:
        MlldPackageNotFound: There is no package behind the command, or no node to run it.
        MlldPackageUnusable: It is too old, or its layout is unknown.
    """
    surroundings = {**os.environ, **(environ or {})}
    found = find_package(command, args, package=package, environ=surroundings)
    own_node = os.fspath(command) if re.fullmatch(r"node(js)?\d*", Path(command).name) else "node"
    node = shutil.which(own_node, path=surroundings.get("PATH"))
    if node is None:
        raise MlldPackageNotFound(
            f"`{own_node}` is not on PATH, and the bridge runs on it", hint="install Node 18 or newer"
        )
    return EngineCommand(
        argv=(node, *_node_flags(heap, heap_snapshot_near_limit), str(_BRIDGE)),
        cwd=None if cwd is None else os.fspath(cwd),
        environ={
            **(environ or {}),
            BRIDGE_PACKAGE: str(found.directory),
            "MLLD_OTP_BRIDGE_VERSION": _own_version(),
        },
        inherit=inherit_env,
        private_fds=True,
        extended=True,
        label="bridge",
    )


def embedded_command(
    *args: str,
    cwd: str | PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    inherit_env: Inheritance = "all",
) -> EngineCommand:
    """Make the command for the embedded engine, which needs neither node nor a network; `args` are its switches.

    It runs on this very Python without site packages, which halves its start.
    """
    root = str(Path(__file__).parents[2])  # the folder that holds `mlld_sdk`
    return EngineCommand(
        argv=(sys.executable, "-S", "-E", "-P", "-X", "utf8", "-c", _EMBEDDED, root, *args, "live", "--stdio"),
        cwd=None if cwd is None else str(cwd),
        environ=dict(environ or {}),
        inherit=inherit_env,
        extended=True,
        label="embedded",
    )


def _own_version() -> str:
    try:
        return version("mlld-otp")
    except PackageNotFoundError:
        return "unknown"
