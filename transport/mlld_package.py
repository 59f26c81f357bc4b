"""Finding the mlld package that npm has installed: behind a command, or where the user says it is.

What is looked at, in this order: the `package` argument, the environment variable `MLLD_PACKAGE`, a script of the
package among the arguments of the command, and the program the command names on PATH. Nothing is downloaded and nothing
guessed: a package that is missing, too old or laid out in an unknown way is an error that says so.
"""

import functools
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from mlld_sdk.base.errors import ConfigurationError

OLDEST_MLLD = (2, 0, 5)
"""The oldest mlld the bridge works with."""

_PACKAGE_NAMES = frozenset({"mlld", "mlldx"})
_CACHE_ROOT = re.compile(rb'DEFAULT_CACHE_ROOT = [\w.]+\.join\((?:"(?P<literal>[^"]+)"|(?P<name>\w+)), "checkpoints"\)')
_INSTALL = "install it with `npm install -g mlld`, or point MLLD_PACKAGE at the directory that holds its package.json"


class MlldPackageNotFound(ConfigurationError):
    """No installed mlld package was found behind the command. Install it, or name its directory in `MLLD_PACKAGE`."""

    code = "MLLD_PACKAGE_NOT_FOUND"


class MlldPackageUnusable(ConfigurationError):
    """The mlld package is too old for the bridge, or is not laid out as the bridge knows it. Upgrade, or use `live`.

    Attributes:
        directory: Where the package is.
        version: Its version, as its package.json says.
    """

    code = "MLLD_PACKAGE_UNUSABLE"

    def __init__(self, message: str, *, directory: Path, version: str | None, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.directory = directory
        self.version = version


@dataclass(frozen=True, slots=True)
class MlldPackage:
    """An installed mlld package.

    Attributes:
        directory: The directory of its package.json.
        version: Its version.
        entry: The module the bridge loads.
    """

    directory: Path
    version: str
    entry: Path


class _Manifest(msgspec.Struct):
    name: str | None = None
    version: str | None = None
    main: str | None = None
    exports: Any = None

    @property
    def entry(self) -> str | None:
        """The CommonJS module the package offers."""
        found = self.exports
        for key in (".", "require"):
            found = found.get(key) if isinstance(found, dict) else None
        found = found.get("default") if isinstance(found, dict) else found
        return found if found and isinstance(found, str) else self.main


def find_package(
    command: str | PathLike[str] = "mlld",
    args: Sequence[str] = (),
    *,
    package: str | PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> MlldPackage:
    """Find the mlld package behind a command and check that the bridge can load it.

    Args:
        command: The program that starts mlld, as given for the live engine.
        args: Its arguments; a file of the package among them (`node .../dist/cli.cjs`) leads to it too.
        package: The package's directory, if it is known.
        environ: Where to look for `MLLD_PACKAGE` and `PATH`; the process environment unless given.

    Raises:
        MlldPackageNotFound: There is no package there.
        MlldPackageUnusable: It is too old, or its layout is unknown.
    """
    surroundings = os.environ if environ is None else environ
    named = package or surroundings.get("MLLD_PACKAGE")
    if named:
        directory = Path(named).expanduser().resolve()
        manifest = _manifest(directory)
        if manifest is None:
            raise MlldPackageNotFound(f"{directory} is no mlld package: no package.json says so", hint=_INSTALL)
        return _checked(directory, manifest)
    for place in _places(command, args, surroundings.get("PATH")):
        for directory in place.parents:
            manifest = _manifest(directory)
            if manifest is not None:
                return _checked(directory, manifest)
    said = " ".join([os.fspath(command), *args])
    raise MlldPackageNotFound(f"no mlld package was found behind the command `{said}`", hint=_INSTALL)


def cache_place(argv: Sequence[str], package: str | PathLike[str] | None = None) -> str | None:
    """Tell where the mlld behind a command line keeps finished model calls, below the directory it runs in.

    The package itself is asked: its program says the place. `None` if there is no package, or it does not say.
    """
    directory = Path(package) if package is not None else None
    if directory is None:
        parents = (parent for place in _places(argv[0], argv[1:], None) for parent in place.parents)
        directory = next((parent for parent in parents if _manifest(parent) is not None), None)
    if directory is None:
        return None
    program = directory / "dist" / "cli.cjs"
    try:
        return _place_said_by(program, program.stat().st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=16)
def _place_said_by(program: Path, _changed: int) -> str | None:
    code = program.read_bytes()
    found = _CACHE_ROOT.search(code)
    if found is None:
        return None
    folder = found["literal"]
    if folder is None:
        named = re.search(rb"\b" + found["name"] + rb' = "([^"]+)"', code)
        folder = None if named is None else named[1]
    return None if folder is None else os.path.join(folder.decode(), "checkpoints")


def cli_behind(program: Path) -> Path | None:
    """Find the engine itself behind the wrapper that npm has installed, through its link or next to its shim."""
    for place in _around(program):
        for package in place.parents:
            manifest = _manifest(package)
            if manifest is not None and manifest.name == "mlld":
                cli = package / "dist" / "cli.cjs"
                if cli.is_file():
                    return cli
    return None


def _places(command: str | PathLike[str], args: Sequence[str], path: str | None) -> Iterator[Path]:
    """List the files that may lie inside the package: scripts among the arguments, then the program itself."""
    for argument in args:
        candidate = Path(argument).expanduser()
        if not argument.startswith("-") and candidate.is_file():
            yield candidate.resolve()
    program = shutil.which(command, path=path)
    if program is not None:
        yield from _around(Path(program))
    elif Path(command).is_file():
        yield Path(command).resolve()


def _around(program: Path) -> Iterator[Path]:
    """List the files that may lie inside the package of a program on PATH."""
    yield program.resolve()
    beside = Path(os.path.abspath(program)).parent.parent  # a shim that is no link: node_modules/.bin, <prefix>/bin
    yield beside / "mlld" / "package.json"
    yield beside / "lib" / "node_modules" / "mlld" / "package.json"


def _manifest(directory: Path) -> _Manifest | None:
    """Read the package.json of an mlld package; `None` if there is none, or it is another package's."""
    try:
        manifest = msgspec.json.decode((directory / "package.json").read_bytes(), type=_Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return manifest if manifest.name in _PACKAGE_NAMES else None


def _checked(directory: Path, manifest: _Manifest) -> MlldPackage:
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", manifest.version or "")
    if numbers is None or tuple(int(number) for number in numbers.groups()) < OLDEST_MLLD:
        oldest = ".".join(str(number) for number in OLDEST_MLLD)
        raise MlldPackageUnusable(
            f"mlld {manifest.version or 'of no version'} in {directory} is too old for the bridge ({oldest} needed)",
            directory=directory,
            version=manifest.version,
            hint='upgrade with `npm install -g mlld`, or use engine="live"',
        )
    name = manifest.entry or "dist/index.cjs"
    entry = directory / name
    if not entry.is_file():
        raise MlldPackageUnusable(
            f"mlld {manifest.version} in {directory} has no {name}",
            directory=directory,
            version=manifest.version,
            hint='reinstall mlld (a checkout must be built first), or use engine="live"',
        )
    return MlldPackage(directory=directory, version=manifest.version or "", entry=entry)
