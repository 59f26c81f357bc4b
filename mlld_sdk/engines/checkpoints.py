"""Looking after the model calls mlld keeps on disk: list, inspect, clean, invalidate, fork, repair.

The cache belongs to the engine. It lies below the engine's working directory, one folder for each script name, and the
engine only ever appends to it. What is here edits those files, so do it while no request of that script runs. The cache
knows a call by its function's name and arguments and nothing else: two scripts of the same base name share one cache,
and editing a prompt inside a function invalidates nothing. `docs/checkpoints.md` says more.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mlld_sdk.base.errors import ConfigurationError, InfrastructureError
from mlld_sdk.scripts.results import as_object
from mlld_sdk.transport.checkpoint_cache import (
    MISSING,
    PLACES,
    CheckpointCache,
    CheckpointNotFound,
    Entry,
    SelectorError,
    list_scripts,
    parse_selector,
    read_row,
    script_name,
)

PathLike = str | os.PathLike[str]

_ROW_START = b'{"key":'
_TEMPORARY = "*.tmp-*"


class CacheNotFound(ConfigurationError):
    """There is no cache of this name, or no checkpoint or stored call of this name in it."""

    code = "CHECKPOINT_NOT_FOUND"


class SelectorInvalid(ConfigurationError):
    """A selector is neither `@fn`, `@fn:2`, `@fn("prefix")` nor the name of a checkpoint."""

    code = "CHECKPOINT_SELECTOR_INVALID"


class CacheUnusable(InfrastructureError):
    """The operating system does not let the cache be read or written."""

    code = "CHECKPOINT_CACHE_UNUSABLE"


class CacheInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One script's cache at a glance.

    Attributes:
        script: Name of the cache.
        folder: Where it is.
        calls: Stored calls whose value is there.
        bytes: Size of their values.
        updated: When the newest was stored, as the engine wrote it; empty for an empty cache.
        named: Named checkpoints and the call each begins with.
        damaged: Whether `repair` has something to do.
    """

    script: str
    folder: str
    calls: int
    bytes: int
    updated: str
    named: dict[str, int]
    damaged: bool


class CachedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One stored model call.

    Attributes:
        key: Its key.
        function: Name of the function, without `@`.
        preview: The beginning of its first argument.
        at: When it was stored.
        bytes: Size of its value.
        seconds: How long it took.
        site: Where in the script it was called.
        index: Number of that site among the function's sites; what `@fn:2` means. Not stable: sites are numbered in
            the order in which they first appear in the cache.
        present: Whether its value is there; without it the call is made again.
    """

    key: str
    function: str
    preview: str
    at: str
    bytes: int
    seconds: float | None
    site: str | None
    index: int | None
    present: bool


class RepairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `repair` did to one cache.

    Attributes:
        script: Name of the cache.
        torn_bytes: Bytes of torn or foreign lines that were removed.
        rescued: Calls that had been swallowed by a torn line before them and count again.
        leftovers: Temporary files of interrupted writes that were removed.
    """

    script: str
    torn_bytes: int
    rescued: int
    leftovers: int

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.torn_bytes or self.rescued or self.leftovers)


class Checkpoints:
    """The caches of one working directory. Keeps nothing: every call looks at the disk as it is.

    Scripts are named by path (`flows/pipe.mld`) or by the name of their cache (`pipe`). mlld 2.0.5 keeps caches in
    `.mlld/checkpoints`, the 2.1 line in `.llm/checkpoints`; both are looked at. Where both have a cache of a name, the
    one written last is shown, and changes are made to both.

    Attributes:
        roots: The folders of caches.
    """

    def __init__(
        self, working_dir: PathLike = ".", *, root: PathLike | None = None, place: PathLike | None = None
    ) -> None:
        """Look below the engine's working directory, or at another folder of caches.

        Args:
            working_dir: Where the engine runs.
            root: The folder of caches, if it is none of those below the working directory.
            place: Where below the working directory the engine keeps its caches, if that is known: what is forked is
                copied to there, and otherwise to where it was found.
        """
        below = [Path(working_dir) / one for one in PLACES]
        self.roots: tuple[Path, ...] = tuple(below) if root is None else (Path(root),)
        self._kept: Path | None = None if root is not None or place is None else Path(working_dir) / place

    def list(self) -> Sequence[CacheInfo]:
        """List all caches by name."""
        with _named(self.roots[0]):
            caches = [CheckpointCache(root, name) for root in self.roots for name in list_scripts(root)]
            return [self._info(cache) for cache in sorted(caches, key=lambda cache: cache.script)]

    def info(self, script: PathLike) -> CacheInfo:
        """Describe one cache."""
        with self._existing(script) as cache:
            return self._info(cache)

    def inspect(self, script: PathLike, selector: str | None = None) -> Sequence[CachedCall]:
        """List a script's stored calls, oldest first, or those a selector names."""
        with self._existing(script) as cache:
            entries = cache.entries().values() if selector is None else cache.select(parse_selector(selector))
            return [_call(cache, entry) for entry in entries]

    def value(self, script: PathLike, key: str) -> Any:  # noqa: ANN401
        """Read what a stored call gave."""
        with self._existing(script) as cache:
            value = cache.value(key) if key in cache.entries() else MISSING
        if value is MISSING:
            raise CacheNotFound(f"{cache.script} holds no value for {key}", hint="list its calls with inspect()")
        return value

    def clean(self, script: PathLike | None = None) -> int:
        """Remove a script's cache, or all of them; returns how many calls are forgotten. Absent is clean."""
        with _named(self.roots[0]):
            return sum(cache.clear() for cache in self._caches(script))

    def invalidate(self, script: PathLike, selector: str) -> Sequence[CachedCall]:
        """Forget the calls a selector names, so that the next run makes them again; returns them.

        Args:
            script: Whose.
            selector: `@fn` for all calls of a function, `@fn:2` for one site, `@fn("prefix")` for calls whose first
                argument begins so, or the name of a checkpoint for all from there on.
        """
        with self._existing(script) as newest:
            wanted = parse_selector(selector)
            calls, unknown, known = [], None, False
            for cache in [newest, *(one for one in self._caches(script) if one.root != newest.root and one.exists())]:
                try:
                    entries = cache.select(wanted)
                except CheckpointNotFound as error:
                    unknown = unknown or error
                    continue
                known = True
                calls += [_call(cache, entry) for entry in entries]
                cache.drop(entries)
            if unknown is not None and not known:
                raise unknown
            return calls

    def forget(self, script: PathLike, keys: Iterable[str] | None = None) -> int:
        """Forget stored calls by their keys, or all of a script; returns how many. Requests of the script may run."""
        with _named(self.roots[0]):
            named = None if keys is None else list(keys)
            return sum(cache.forget(cache.entries() if named is None else named) for cache in self._caches(script))

    def forget_nothing(self, script: PathLike) -> int:
        """Forget the calls that were stored although they came to nothing; returns how many. Requests may run."""
        with _named(self.roots[0]):
            return sum(cache.forget(cache.without_answer()) for cache in self._caches(script))

    def fork(self, source: PathLike, target: PathLike) -> int:
        """Copy the stored calls of one script to another, which then pays for none of them; returns how many it got.

        What the target has already stays as it is. The two are independent from then on.
        """
        name = self._name(target)
        with self._existing(source) as newest:
            if newest.script == name:
                raise ConfigurationError(f"{name} cannot be forked from itself", hint="give another base name")
            found = [cache for cache in self._caches(source) if cache.exists()]
            return sum(CheckpointCache(self._kept or cache.root, name).fork_from(cache) for cache in found)

    def repair(self, script: PathLike | None = None) -> Sequence[RepairReport]:
        """Mend what a crash left: a torn last row, rows it swallowed, temporary files. Do it before an engine restarts.

        Without it a torn row costs two calls: its own, and the next one, which the engine appends to the same line.
        Reports each cache looked at; a script without a cache has nothing to mend.
        """
        with _named(self.roots[0]):
            caches = self._caches(script)
            absent = script is not None and not any(cache.exists() for cache in caches)
            return [_repair(cache) for cache in (caches[:1] if absent else caches) if absent or cache.exists()]

    def _name(self, script: PathLike) -> str:
        name = script_name(os.fspath(script))
        if name is None or name in (".", "..") or "\0" in name:
            raise ConfigurationError(f"{os.fspath(script)!r} names no script", hint="give a path or a base name")
        return name

    @contextmanager
    def _existing(self, script: PathLike) -> Iterator[CheckpointCache]:
        """Give the cache of a script, the one written last if there are two."""
        first, *others = self._caches(script)
        with _named(first.folder):
            found = [cache for cache in (first, *others) if cache.exists()]
            if not found:
                known = ", ".join(dict.fromkeys(name for root in self.roots for name in list_scripts(root))) or "none"
                where = " or ".join(map(str, self.roots))
                raise CacheNotFound(f"there is no cache {first.script} in {where}", hint=f"caches there: {known}")
            yield max(found, key=lambda cache: cache.index.stat().st_mtime_ns)

    def _caches(self, script: PathLike | None) -> Sequence[CheckpointCache]:
        """List the caches a script may have, or all there are."""
        if script is None:
            return [CheckpointCache(root, name) for root in self.roots for name in list_scripts(root)]
        name = self._name(script)
        return [CheckpointCache(root, name) for root in self.roots]

    def _info(self, cache: CheckpointCache) -> CacheInfo:
        entries = cache.complete_entries()
        named = as_object(cache.manifest().get("namedCheckpoints"))
        return CacheInfo(
            script=cache.script,
            folder=str(cache.folder),
            calls=len(entries),
            bytes=sum(entry.result_size for entry in entries),
            updated=max((entry.ts for entry in entries), default=""),
            named={name: order for name, order in named.items() if isinstance(order, int)},
            damaged=_plan(cache.index.read_bytes())[1] > 0 or any(True for _ in _leftovers(cache)),
        )


def _call(cache: CheckpointCache, entry: Entry) -> CachedCall:
    return CachedCall(
        key=entry.key,
        function=entry.fn,
        preview=entry.args_preview,
        at=entry.ts,
        bytes=entry.result_size,
        seconds=None if entry.duration_ms is None else entry.duration_ms / 1000,
        site=entry.invocation_site,
        index=entry.invocation_index,
        present=cache.value(entry.key) is not MISSING,
    )


def _plan(data: bytes) -> tuple[list[bytes], int, int]:
    """Return the lines of an index to keep, how many bytes that removes, and how many swallowed rows it rescues."""
    kept: list[bytes] = []
    rescued = 0
    for line in data.splitlines(keepends=True):
        if not line.strip() or (line.endswith(b"\n") and read_row(line) is not None):
            kept.append(line)
            continue
        # A torn row has no newline, so the row after it stands on the same line: the last start of a row may be whole.
        start = line.rfind(_ROW_START, 1)
        if start > 0 and line.endswith(b"\n") and read_row(line[start:]) is not None:
            kept.append(line[start:])
            rescued += 1
    return kept, len(data) - sum(map(len, kept)), rescued


def _repair(cache: CheckpointCache) -> RepairReport:
    removed = rescued = leftovers = 0
    if cache.exists():
        kept, removed, rescued = _plan(cache.index.read_bytes())
        if removed:
            fresh = cache.index.with_name(f"{cache.index.name}.tmp-{os.getpid()}-{os.urandom(8).hex()}")
            fresh.write_bytes(b"".join(kept))
            fresh.replace(cache.index)
    for file in list(_leftovers(cache)):
        file.unlink(missing_ok=True)
        leftovers += 1
    return RepairReport(script=cache.script, torn_bytes=removed, rescued=rescued, leftovers=leftovers)


def _leftovers(cache: CheckpointCache) -> Iterator[Path]:
    """List the temporary files of writes that no process will finish any more; a living one still may."""
    for folder in (cache.folder, cache.results):
        yield from (file for file in folder.glob(_TEMPORARY) if not _is_being_written(file))


def _is_being_written(file: Path) -> bool:
    writer = file.name.rpartition(".tmp-")[2].partition("-")[0]
    if not (writer.isascii() and writer.isdigit()):
        return False
    try:
        os.kill(int(writer), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


@contextmanager
def _named(place: Path) -> Iterator[None]:
    """Turn errors of the format and of the system into the library's own."""
    try:
        yield
    except CheckpointNotFound as error:
        raise CacheNotFound(str(error), hint="list() and inspect() show what there is") from error
    except SelectorError as error:
        raise SelectorInvalid(str(error), hint='examples: @ask, @ask:2, @ask("one"), after-collect') from error
    except OSError as error:
        raise CacheUnusable(
            f"{error.filename or place}: {error.strerror}", hint="check owner and mode of the checkpoint folder"
        ) from error
