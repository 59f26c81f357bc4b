"""What one run does with the checkpoint cache: which answers it may use, and how it stores new ones."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from mlld_sdk.transport.checkpoint_cache import (
    DEFAULT_ROOT,
    MISSING,
    CheckpointCache,
    CheckpointNotFound,
    Entry,
    RunCounters,
    Selector,
    args_hash,
    args_preview,
    cache_key,
    script_name,
)
from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.interpreter.values import Value


class CachePlan(NamedTuple):
    """What a request asks of the cache. None means: as the script's header says.

    Attributes:
        root: Folder of all caches, or None for the default below the working directory.
        name: Name of the cache, or None for the script's own name.
        use: True: serve and write. False: neither. None: decided by the `resume:` header.
        fresh: Remove the whole cache first.
        fork: Name of a cache whose entries are copied first.
        drop: Entries to drop before the run.
    """

    root: str | None = None
    name: str | None = None
    use: bool | None = None
    fresh: bool = False
    fork: str | None = None
    drop: Selector | None = None

    def prepares(self) -> bool:
        """Say whether something has to happen before the script starts."""
        return self.fresh or self.fork is not None or self.drop is not None


class Ticket(NamedTuple):
    """A call that was looked up: everything a row needs."""

    key: str
    function: str
    args: list[Any]
    site: str
    numbers: tuple[int, int, int]


class CheckpointMemory:
    """The cache as one run sees it. The index is read once, at the first call that may be cached."""

    def __init__(self, plan: CachePlan, path: str | None, resume: str | None, iso_time: Callable[[], str]) -> None:
        serves = {"auto": True, "never": False}.get(resume or "") if plan.use is None else plan.use
        self.plan = plan
        self.writes = serves is not False
        self.serves = serves is True
        self._path = path
        self._iso_time = iso_time
        self._name = plan.name or (script_name(path) if path else None)
        self._cache: CheckpointCache | None = None
        self._entries: dict[str, Entry] = {}
        self._counters = RunCounters(())
        self._written: set[str] = set()
        self._named: dict[str, int] = {}
        self.before_body: Callable[[], None] | None = None
        self.after_store: Callable[[], None] | None = None

    @property
    def active(self) -> bool:
        """Say whether calls are looked up at all."""
        return self._name is not None and self.writes

    def prepare(self, checkpoints: list[str]) -> None:
        """Do what the request asked for before the script starts: clear, copy, drop.

        Args:
            checkpoints: Names of the checkpoints the script has, in order.

        Raises:
            CheckpointNotFound: For a fork or a named checkpoint that does not exist.
        """
        if not self.active or not self.plan.prepares():
            return
        cache = self._cache_here()
        cache.repair()
        if self.plan.fresh:
            cache.clear()
        if self.plan.fork is not None:
            cache.fork_from(CheckpointCache(cache.root, self.plan.fork))
        if self.plan.drop is not None:
            cache.drop(_selected(cache, self.plan.drop, checkpoints))
        if self.plan.fork is not None or self.plan.drop is not None:
            self._manifest(cache, cache.entries())

    def run_body(self, body: Callable[[], Value]) -> Value:
        """Run the body of a call that was not found."""
        if self.before_body is not None:
            self.before_body()
        return body()

    def _cache_here(self) -> CheckpointCache:
        assert self._name is not None
        root = self.plan.root or os.path.join(os.getcwd(), DEFAULT_ROOT)
        try:
            return CheckpointCache(root, self._name)
        except ValueError as error:
            raise ScriptFailure(str(error)) from error

    def _open(self) -> CheckpointCache:
        if self._cache is None:
            cache = self._cache_here()
            try:
                cache.repair()
                cache.results.mkdir(parents=True, exist_ok=True)
                self._entries = cache.entries()
            except OSError as error:
                raise ScriptFailure(f"{error.strerror}: {error.filename}") from error
            self._counters = RunCounters(self._entries.values())
            self._cache = cache
        return self._cache

    def look_up(self, function: str, args: list[Any], site: str) -> tuple[Ticket, Any]:
        """Number a call and find its stored answer; the answer is `MISSING` when the body has to run."""
        cache = self._open()
        key = cache_key(function, args)
        ticket = Ticket(key, function, args, site, self._counters.number(function, site))
        if key not in self._entries or not (self.serves or key in self._written):
            return ticket, MISSING
        return ticket, cache.value(key)

    def store(self, ticket: Ticket, value: Any, duration_ms: int) -> None:
        """Store an answer. A cache that cannot be written costs the entry, not the run."""
        cache = self._open()
        index, ordinal, order = ticket.numbers
        try:
            entry = Entry(
                key=ticket.key,
                fn=ticket.function,
                args_hash=args_hash(ticket.args),
                args_preview=args_preview(ticket.args),
                ts=self._iso_time(),
                result_size=cache.write_value(ticket.key, value),
                duration_ms=duration_ms,
                invocation_site=ticket.site,
                invocation_index=index,
                invocation_ordinal=ordinal,
                execution_order=order,
            )
            self._entries[ticket.key] = entry
            self._written.add(ticket.key)
            cache.append(entry)
            self._manifest(cache, self._entries)
        except OSError:
            return
        if self.after_store is not None:
            self.after_store()

    def name_checkpoint(self, name: str) -> None:
        """Note that calls from here on belong behind the checkpoint `name`."""
        if not self.active:
            return
        cache = self._open()
        if name in self._named:
            raise ScriptFailure(f'Duplicate checkpoint "{name}" encountered at runtime')
        self._named[name] = self._counters.order
        self._manifest(cache, self._entries)

    def _manifest(self, cache: CheckpointCache, entries: dict[str, Entry]) -> None:
        cache.write_manifest(
            self._iso_time(), entries, scriptPath=self._path, namedCheckpoints=dict(sorted(self._named.items())) or None
        )


def _selected(cache: CheckpointCache, selector: Selector, checkpoints: list[str]) -> list[Entry]:
    """Find what to drop. A checkpoint the cache has not seen yet begins where the next one it has seen begins."""
    name = selector.checkpoint
    if name is None or name not in checkpoints:
        return cache.select(selector)
    for candidate in checkpoints[checkpoints.index(name) :]:
        try:
            return cache.select(Selector(checkpoint=candidate))
        except CheckpointNotFound:
            continue
    return []


__all__ = ["CachePlan", "CheckpointMemory", "CheckpointNotFound", "Ticket"]
