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
from mlld_sdk.transport.embedded.interpreter.script_run import ScriptRequest
from mlld_sdk.transport.embedded.interpreter.values import Value


class Ticket(NamedTuple):
    """A call that was looked up: everything a row needs, and the stored answer.

    Attributes:
        key: The key of the call.
        function: Name of the function.
        args: Its arguments.
        site: Where the call stands in the script.
        numbers: Index, ordinal and order of the call.
        answer: What was stored, or `MISSING`.
    """

    key: str
    function: str
    args: list[Any]
    site: str
    numbers: tuple[int, int, int]
    answer: Any

    @property
    def is_hit(self) -> bool:
        """Whether there is a stored answer, so that the body need not run."""
        return self.answer is not MISSING

    def event(self) -> dict[str, Any]:
        """Return the event that reports a hit or a miss."""
        facts = {"fn": self.function, "key": self.key, "argsPreview": args_preview(self.args)}
        return {"type": f"checkpoint:{'hit' if self.is_hit else 'miss'}", "checkpoint": facts}


class CheckpointMemory:
    """The cache as one run sees it. The index is read once, at the first call that may be cached.

    Args:
        request: What was asked for; it names the script and what to do with the cache.
        resume: Mode of the script's `resume:` header, or None.
        iso_time: Gives the time for rows and manifests.
        before_body: Called before the body of a call that was not found.
        after_store: Called after an answer was stored.
    """

    def __init__(
        self,
        request: ScriptRequest,
        resume: str | None,
        iso_time: Callable[[], str],
        before_body: Callable[[], None] | None = None,
        after_store: Callable[[], None] | None = None,
    ) -> None:
        plan, path = request.plan, request.path
        serves = {"auto": True, "never": False}.get(resume or "") if plan.use is None else plan.use
        self._plan = plan
        self._writes = serves is not False
        self._serves = serves is True
        self._path = path
        self._iso_time = iso_time
        self._name = plan.name or (script_name(path) if path else None)
        self._cache: CheckpointCache | None = None
        self._entries: dict[str, Entry] = {}
        self._counters = RunCounters(())
        self._written: set[str] = set()
        self._named: dict[str, int] = {}
        self._before_body = before_body
        self._after_store = after_store

    @property
    def active(self) -> bool:
        """Whether calls are looked up at all."""
        return self._name is not None and self._writes

    def prepare(self, checkpoints: list[str]) -> None:
        """Do what the request asked for before the script starts: clear, copy, drop.

        Args:
            checkpoints: Names of the checkpoints the script has, in order.

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

    def look_up(self, function: str, args: list[Any], site: str) -> Ticket:
        """Number a call and find its stored answer."""
        cache = self._open()
        key = cache_key(function, args)
        numbers = self._counters.number(function, site)
        known = key in self._entries and (self._serves or key in self._written)
        return Ticket(key, function, args, site, numbers, cache.value(key) if known else MISSING)

    def run_body(self, body: Callable[[], Value]) -> Value:
        """Run the body of a call that was not found."""
        if self._before_body is not None:
            self._before_body()
        return body()

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
        if self._after_store is not None:
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
