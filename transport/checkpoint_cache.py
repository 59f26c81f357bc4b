"""mlld's checkpoint cache on disk: where it is, what its rows and keys look like, and how to edit it safely.

A cache belongs to one script name and is a folder of three things:

```
<root>/<script name>/
  llm-cache.jsonl                 the index: one row for each stored call, appended
  manifest.json                   a summary for people; it decides nothing
  results/sha256-<64 hex>.json    one stored value for each key
```

A call is stored in the order result file, index row, manifest, so a crash leaves at worst a result no row points at or
a torn last row. The key depends on the function's name and its arguments alone. Both the embedded engine and the host's
checkpoint API work on this module; it needs nothing but the standard library.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlld_sdk.transport.javascript import is_blank, json_text, utf16_order

DEFAULT_ROOT = os.path.join(".mlld", "checkpoints")
PLACES = (DEFAULT_ROOT, os.path.join(".llm", "checkpoints"))
"""Where caches lie below an engine's working directory: mlld 2.0.5 and the embedded engine, and the 2.1 line."""
PREVIEW_LIMIT = 160
INDEX_NAME = "llm-cache.jsonl"
NOTHING_SIZE = 64
"""Bytes of a stored value up to which it is looked at whether it is one."""
MANIFEST_KEYS = (
    "version",
    "scriptName",
    "scriptPath",
    "created",
    "lastUpdated",
    "totalCached",
    "totalSizeBytes",
    "forkedFrom",
    "namedCheckpoints",
    "checkpointStates",
)


class CheckpointNotFound(LookupError):
    """A named checkpoint or a cache to fork from does not exist, or its name is ambiguous."""


class SelectorError(ValueError):
    """A selector cannot be read; the message shows the accepted forms."""


# --- keys -----------------------------------------------------------------------------------------------------------


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def args_hash(args: Sequence[Any]) -> str:
    """Hash the arguments of a call."""
    return _digest(json_text(list(args), sort=True))


def cache_key(function: str, args: Sequence[Any]) -> str:
    """Compute the key of a call: the function's name and its arguments, nothing else."""
    return _digest(json_text({"args": list(args), "fn": function}, sort=True))


def args_preview(args: Sequence[Any]) -> str:
    """Show the first argument, strings as they are, everything else as JSON, cut to 160 characters."""
    if not args:
        return ""
    text = args[0] if isinstance(args[0], str) else json_text(args[0], sort=True)
    units = utf16_order(text)
    if len(units) <= 2 * PREVIEW_LIMIT:
        return text
    return units[: 2 * (PREVIEW_LIMIT - 3)].decode("utf-16-be", "surrogatepass") + "..."


def script_name(path: str) -> str | None:
    """Name the cache of a script: its base name without `.mld` or `.mld.md`, or its folder for `index` and `main`."""
    folder, base = os.path.split(path)
    if re.fullmatch(r"(index|main)\.mld(\.md)?", base.lower()) and (named := os.path.basename(folder)):
        return named
    suffix = ".mld.md" if base.endswith(".mld.md") else ".mld"
    return base.removesuffix(suffix).strip() or None


# --- what a caller may ask to drop ----------------------------------------------------------------------------------


class Selector(NamedTuple):
    """Which entries to drop: those of a function, of one call site of it, with a prefix; or from a named checkpoint on.

    Attributes:
        function: Name without `@`; empty when `checkpoint` is set.
        site: Only entries with this `invocationIndex`.
        prefix: Only entries whose `argsPreview` starts with this text.
        checkpoint: Name of a checkpoint: the entries at and behind it.
    """

    function: str = ""
    site: int | None = None
    prefix: str | None = None
    checkpoint: str | None = None


_SELECTOR = re.compile(r"@([\w.-]+)(?::([0-9]{1,9})|\((.*)\))?", re.DOTALL)


def parse_selector(text: str) -> Selector:
    """Read `@fn`, `@fn:2`, `@fn("prefix")` or the name of a checkpoint; all else is a `SelectorError`."""
    stripped = text.strip()
    if stripped and not stripped.startswith("@"):
        return Selector(checkpoint=stripped)
    if found := _SELECTOR.fullmatch(stripped):
        function, site, quoted = found.groups()
        prefix = None if quoted is None else _unquoted(quoted.strip())
        if quoted is None or prefix:
            return Selector(function, None if site is None else int(site), prefix)
    raise SelectorError(f'expected @function, @function:2, @function("prefix") or a checkpoint\'s name, got: {text!r}')


def _unquoted(text: str) -> str | None:
    """Read a text in quotes: in double ones as JSON has it, in single ones as it stands."""
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1]
    try:
        value = _loads(text) if text.startswith('"') else None
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _loads(data: str | bytes) -> Any:
    """Read JSON, and nothing that only Python takes for it; whatever else is a `ValueError`, depth included."""
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# --- the cache ------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One stored call as the index tells it. Fields a row lacks are None."""

    key: str
    fn: str
    args_hash: str
    args_preview: str
    result_size: int
    ts: str
    duration_ms: float | None = None
    invocation_site: str | None = None
    invocation_index: int | None = None
    invocation_ordinal: int | None = None
    execution_order: int | None = None

    def row(self) -> dict[str, Any]:
        """Return the row as it stands in the index."""
        return {name: value for name, value in zip(_FIELDS, self, strict=True) if value is not None}


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf") or value % 1:
        return None
    return int(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: Any) -> str | None:
    return _text(value) or None


def _site(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "key": _name,
    "fn": _name,
    "argsHash": _name,
    "argsPreview": _text,
    "resultSize": lambda value: _count(value) or 0,
    "ts": _name,
    "durationMs": _number,
    "invocationSite": _site,
    "invocationIndex": _count,
    "invocationOrdinal": _count,
    "executionOrder": _count,
}
"""What a row calls the fields of an entry, and what reads them: None is what is missing or of the wrong kind."""


def read_row(line: str | bytes) -> Entry | None:
    """Read one line of the index, or None when it is blank, broken or not a row."""
    try:
        row = _loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    entry = Entry(*(read(row.get(name)) for name, read in _FIELDS.items()))
    return None if None in (entry.key, entry.fn, entry.args_hash, entry.args_preview, entry.ts) else entry


MISSING: Any = object()
"""What `CheckpointCache.value` gives when there is no stored value; a stored `null` is None."""


class CheckpointCache:
    """The cache of one script.

    Every method works on the disk as it is at that moment and keeps nothing; take one instance for each thread or share
    it behind a lock. Editing methods replace the index by a new file, so do not edit while a run writes: its next row
    would be appended to the old one.

    Args:
        root: Folder of all caches, usually `.mlld/checkpoints` below the engine's working directory.
        script: Name of the script (see `script_name`).
    """

    def __init__(self, root: str | os.PathLike[str], script: str) -> None:
        if not script.strip() or script in (".", "..") or "/" in script or "\0" in script:
            raise ValueError(f"a script name is one plain folder name, got: {script!r}")
        self.root = Path(root)
        self.script = script
        self.folder = self.root / script
        self.index = self.folder / INDEX_NAME
        self.manifest_path = self.folder / "manifest.json"
        self.results = self.folder / "results"

    def exists(self) -> bool:
        """Return whether anything was ever stored."""
        return self.index.exists()

    def entries(self) -> dict[str, Entry]:
        """Read the index: the last row for each key, in the order the keys first appeared."""
        found: dict[str, Entry] = {}
        try:
            data = self.index.read_bytes()
        except FileNotFoundError:
            return found
        for line in data.splitlines():
            entry = read_row(line) if line.strip() else None
            if entry is not None:
                found[entry.key] = entry
        return found

    def complete_entries(self) -> list[Entry]:
        """List the entries whose value is really there."""
        return [entry for entry in self.entries().values() if self.value(entry.key) is not MISSING]

    def value(self, key: str) -> Any:
        """Read the stored value of `key`, or `MISSING`."""
        try:
            stored = _loads(self.result_path(key).read_bytes())
        except (FileNotFoundError, ValueError):
            return MISSING
        if isinstance(stored, dict) and stored.get("version") == 1 and "value" in stored:
            return stored["value"]
        return stored

    def manifest(self) -> dict[str, Any]:
        """Read the manifest, or an empty one when it is missing, broken or from a later version."""
        try:
            stored = _loads(self.manifest_path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        version = stored.get("version") if isinstance(stored, dict) else None
        if not isinstance(version, (int, float)) or version > 1:
            return {}
        return dict(stored)

    def result_path(self, key: str) -> Path:
        """Name the file of a stored value."""
        stem = key.removeprefix("sha256:")
        safe = "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "-" for char in stem)
        return self.results / (f"sha256-{safe}.json" if key.startswith("sha256:") else f"{safe}.json")

    def write_value(self, key: str, value: Any) -> int:
        """Write a value in one step, its keys sorted, and return its size in bytes. Also the way to patch an answer."""
        text = f'{{"version":1,"value":{json_text(value, sort=True)}}}'
        _replace(self.result_path(key), text + "\n")
        return len(text.encode("utf-8", "replace"))

    def append(self, entry: Entry) -> None:
        """Add a row to the index in one write."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = (json_text(entry.row()) + "\n").encode("utf-8", "replace")
        descriptor = os.open(self.index, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.index))
        finally:
            os.close(descriptor)

    def write_manifest(self, now: str, entries: dict[str, Entry] | None = None, **fields: Any) -> None:
        """Rewrite the manifest; unknown keys are kept.

        Args:
            now: ISO time for `lastUpdated`, and for `created` when there was no manifest.
            entries: What to count; read from disk when absent.
            fields: Values for optional keys such as `scriptPath`; None leaves a key as it was.
        """
        old = self.manifest()
        counted = self.entries() if entries is None else entries
        new: dict[str, Any] = {name: value for name, value in old.items() if name not in MANIFEST_KEYS}
        known = {**old, **{name: value for name, value in fields.items() if value is not None}}
        known |= {
            "version": 1,
            "scriptName": self.script,
            "created": old.get("created") or now,
            "lastUpdated": now,
            "totalCached": len(counted),
            "totalSizeBytes": sum(entry.result_size for entry in counted.values()),
        }
        new |= {name: known[name] for name in MANIFEST_KEYS if name in known}
        _replace(self.manifest_path, json_text(new, indent=2) + "\n")

    def repair(self) -> int:
        """Cut a last row without a newline, which a crash tore, and return how many bytes went."""
        try:
            with self.index.open("rb+") as file:
                data = file.read()
                if not data or data.endswith(b"\n"):
                    return 0
                keep = data.rfind(b"\n") + 1
                file.truncate(keep)
                return len(data) - keep
        except FileNotFoundError:
            return 0

    def select(self, selector: Selector) -> list[Entry]:
        """List the entries a selector names; see `checkpoint_order` for one that names a checkpoint."""
        entries = self.entries().values()
        if selector.checkpoint is not None:
            order = self.checkpoint_order(selector.checkpoint)
            return [entry for entry in entries if entry.execution_order is None or entry.execution_order >= order]
        return [
            entry
            for entry in entries
            if entry.fn == selector.function
            and (selector.site is None or entry.invocation_index == selector.site)
            and (selector.prefix is None or entry.args_preview.startswith(selector.prefix))
        ]

    def checkpoint_order(self, name: str) -> int:
        """Return the `executionOrder` from which on a named checkpoint reaches; a unique prefix of the name will do.

        Any other name is `CheckpointNotFound`.
        """
        named = self.manifest().get("namedCheckpoints")
        named = named if isinstance(named, dict) else {}
        known = {key: order for key, order in named.items() if _count(order) is not None}
        matches = [name] if name in known else sorted(key for key in known if key.startswith(name))
        if len(matches) == 1:
            return int(known[matches[0]])
        if matches:
            raise CheckpointNotFound(f"checkpoint name {name!r} is ambiguous: {', '.join(matches)}")
        available = ", ".join(sorted(known)) or "none"
        raise CheckpointNotFound(f"unknown checkpoint {name!r}; this cache knows: {available}")

    def drop(self, entries: Iterable[Entry]) -> int:
        """Forget these entries, rows and values both, and return how many there were."""
        gone = {entry.key for entry in entries}
        current = self.entries()
        kept = [entry for key, entry in current.items() if key not in gone]
        dropped = len(current) - len(kept)
        if dropped:
            _replace(self.index, "".join(json_text(entry.row()) + "\n" for entry in kept))
            for key in gone:
                self.result_path(key).unlink(missing_ok=True)
        return dropped

    def forget(self, keys: Iterable[str]) -> int:
        """Forget these calls while requests may run: their values go, their rows stay; return how many there were."""
        gone = 0
        for key in keys:
            try:
                self.result_path(key).unlink()
            except FileNotFoundError:
                continue
            gone += 1
        return gone

    def without_answer(self) -> list[str]:
        """List the keys of calls that were stored although they came to nothing."""
        small = (entry.key for entry in self.entries().values() if entry.result_size <= NOTHING_SIZE)
        return [key for key in small if is_blank(self.value(key))]

    def clear(self) -> int:
        """Remove the whole cache and return how many entries it had."""
        import shutil

        count = len(self.entries())
        shutil.rmtree(self.folder, ignore_errors=True)
        return count

    def fork_from(self, other: "CheckpointCache") -> int:
        """Copy every complete entry of `other` (else `CheckpointNotFound`) that this cache lacks; return how many."""
        if not other.exists():
            raise CheckpointNotFound(f"there is no cache {other.script!r} in {other.root}")
        own = self.entries()
        copied = 0
        for key, entry in other.entries().items():
            if key in own:
                continue
            value = other.value(key)
            if value is not MISSING:
                self.append(entry._replace(result_size=self.write_value(key, value)))
                copied += 1
        return copied


def list_scripts(root: str | os.PathLike[str]) -> list[str]:
    """List the names of all caches below `root`."""
    try:
        return sorted(child.name for child in Path(root).iterdir() if (child / INDEX_NAME).is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        temporary.write_bytes(text.encode("utf-8", "replace"))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class RunCounters:
    """Numbers the calls of one run: which site of the function, the how-many-eth there, the how-many-eth at all."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._sites: dict[str, dict[str, int]] = {}
        self._ordinals: dict[tuple[str, str], int] = {}
        self.order = 0
        for entry in entries:
            site, index = entry.invocation_site, entry.invocation_index
            if site is not None and index is not None:
                sites = self._sites.setdefault(entry.fn, {})
                sites[site] = min(index, sites.get(site, index))

    def number(self, function: str, site: str) -> tuple[int, int, int]:
        """Number a call that starts now: `(invocationIndex, invocationOrdinal, executionOrder)`."""
        sites = self._sites.setdefault(function, {})
        index = sites.setdefault(site, max(sites.values(), default=-1) + 1)
        ordinal = self._ordinals.get((function, site), 0)
        self._ordinals[(function, site)] = ordinal + 1
        order = self.order
        self.order += 1
        return index, ordinal, order
