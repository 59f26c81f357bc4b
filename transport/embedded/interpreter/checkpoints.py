"""What one run does with the checkpoint cache: which answers it may use, and how it stores new ones."""

import os
from collections.abc import Callable
from typing import Any

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
from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.interpreter.script_run import ScriptRun
from mlld_sdk.transport.embedded.interpreter.values import Value
from mlld_sdk.transport.javascript import is_blank


class CheckpointMemory:
    """The cache as one run sees it. The index is read once, at the first call that may be cached.

    Args:
        run: The run; its request names the script and what to do with the cache.
        resume: Mode of the script's `resume:` header, or None.
        announces: Report hits and misses as events.
        before_body: Called before the body of a call that was not found.
        after_store: Called after an answer was stored.
    """

    def __init__(
        self,
        run: ScriptRun,
        resume: str | None,
        *,
        announces: bool,
        before_body: Callable[[], None],
        after_store: Callable[[], None],
    ) -> None:
        plan, path = run.request.plan, run.request.path
        self.before_body = before_body
        self._run = run
        serves = {"auto": True, "never": False}.get(resume or "") if plan.use is None else plan.use
        self._plan = plan
        self._writes = serves is not False
        self._serves = serves is True
        self._name = plan.name or (script_name(path) if path else None)
        self._cache: CheckpointCache | None = None
        self._entries: dict[str, Entry] = {}
        self._counters = RunCounters(())
        self._written: set[str] = set()
        self._named: dict[str, int] = {}
        self._announces = announces
        self._after_store = after_store

    @property
    def active(self) -> bool:
        """Whether calls are looked up at all."""
        return self._name is not None and self._writes

    def prepare(self, checkpoints: list[str]) -> None:
        """Do what the request asked for before a script with these checkpoints starts: clear, copy, drop.

        Raises:
            ScriptFailure: For a fork or a named checkpoint that does not exist.
        """
        plan = self._plan
        if not self.active:
            return
        cache = self._cache_here()
        cache.repair()
        if plan.fresh:
            cache.clear()
        try:
            if plan.fork is not None:
                cache.fork_from(CheckpointCache(cache.root, plan.fork))
            if plan.drop is not None:
                cache.drop(_selected(cache, plan.drop, checkpoints))
        except CheckpointNotFound as fault:
            raise ScriptFailure(str(fault), "CHECKPOINT_NOT_FOUND") from fault
        if plan.fork is not None or plan.drop is not None:
            self._manifest(cache, cache.entries())

    def _cache_here(self) -> CheckpointCache:
        assert self._name is not None
        root = self._plan.root or os.path.join(os.getcwd(), DEFAULT_ROOT)
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

    def look_up(self, function: str, args: list[Any], site: str) -> tuple[Entry, Value | None]:
        """Number a call; return the row it will have, and its stored answer or None."""
        cache = self._open()
        key, preview = cache_key(function, args), args_preview(args)
        index, ordinal, order = self._counters.number(function, site)
        known = key in self._entries and (self._serves or key in self._written)
        answer = cache.value(key) if known else MISSING
        if self._run.request.unanswered and answer is not MISSING and is_blank(answer):
            answer = MISSING  # stored by an engine that takes nothing for an answer
        if self._announces:
            kind = "checkpoint:miss" if answer is MISSING else "checkpoint:hit"
            self._run.report({"type": kind, "checkpoint": {"fn": function, "key": key, "argsPreview": preview}})
        row = Entry(key, function, args_hash(args), preview, 0, "", 0, site, index, ordinal, order)
        return row, None if answer is MISSING else Value(answer)

    def store(self, entry: Entry, value: Any, duration_ms: int) -> None:
        """Store an answer. A cache that cannot be written costs the entry, not the run."""
        cache = self._open()
        try:
            size = cache.write_value(entry.key, value)
            entry = entry._replace(ts=clock.iso(), result_size=size, duration_ms=duration_ms)
            self._entries[entry.key] = entry
            self._written.add(entry.key)
            cache.append(entry)
            self._manifest(cache, self._entries)
        except OSError:
            return
        self._after_store()

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
        named = dict(sorted(self._named.items())) or None
        cache.write_manifest(clock.iso(), entries, scriptPath=self._run.request.path, namedCheckpoints=named)


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
