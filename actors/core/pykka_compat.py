"""Everything that touches Pykka's private names, in one place with a contract test.

Pykka documents `_create_actor_inbox`, `_create_future` and `_start_actor_loop` for implementors of actor types. Beyond
those this module uses: `messages._ActorStop`, `Actor._handle_receive` (for proxy messages), `ActorRegistry._actor_refs`
and its lock, and the attribute `_actor_weakref` of a ref. It also holds the parts of Pykka's own behaviour that only
`PykkaActor` keeps: answering every exception to an asker, its log lines, and stopping every actor on a `BaseException`.
"""

import logging
from collections.abc import Iterator
from typing import Any, Final

import pykka
from pykka import ActorRegistry, messages

from mlld_sdk.actors.core.directives import Stop
from mlld_sdk.actors.core.exits import crash
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.protocols import AnyCell

_logger = logging.getLogger("pykka")

ActorStop: Final = messages._ActorStop
MESSAGES: Final = frozenset({messages.ProxyCall, messages.ProxyGetAttr, messages.ProxySetAttr, ActorStop})
"""Message classes that Pykka's actors handle themselves."""


def receive(actor: pykka.Actor, message: Any) -> Any:
    """Handle one of `MESSAGES` as Pykka does."""
    if isinstance(message, ActorStop):
        return Stop()
    return actor._handle_receive(message)


# -- Pykka's registry, fast


class RefTable:
    """Stands in for the list of refs in `pykka.ActorRegistry`: the same order, but adding and removing is O(1)."""

    def __init__(self, refs: list[Any]) -> None:
        self._refs: dict[Any, None] = dict.fromkeys(refs)

    def append(self, ref: Any) -> None:
        """Add a ref at the end."""
        self._refs[ref] = None

    def remove(self, ref: Any) -> None:
        """Remove a ref; a `ValueError` if it is not there, as with a list."""
        try:
            del self._refs[ref]
        except KeyError:
            raise ValueError(ref) from None

    def __contains__(self, ref: object) -> bool:
        return ref in self._refs

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._refs))

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index: Any) -> Any:
        return list(self._refs)[index]


def make_registry_fast() -> None:
    """Put a `RefTable` into Pykka's registry, once; what is registered stays registered."""
    with ActorRegistry._actor_refs_lock:
        refs: Any = ActorRegistry._actor_refs
        if not isinstance(refs, RefTable):
            ActorRegistry._actor_refs = RefTable(list(refs))  # type: ignore[assignment]


def leave_registry(ref: pykka.ActorRef[Any]) -> None:
    """Take an actor out of Pykka's registry, if it is there."""
    if ref in ActorRegistry._actor_refs:
        ActorRegistry.unregister(ref)


# -- the behaviour of PykkaActor


def survives(cell: AnyCell, reply: Future[Any] | None, error: BaseException) -> bool:
    """Deal with an exception the way Pykka does; return whether nothing more is to be done."""
    if isinstance(error, Exception):
        if reply is None:
            log_failure(cell, error)
            return False
        _logger.info(f"Exception returned from {cell.actor} to caller:", exc_info=error)
        if not reply.try_set_exception(error):
            cell.system.counters.late()
        return True
    _logger.debug(f"{error!r} in {cell.actor}. Stopping all actors.")
    if reply is not None:
        reply.try_set_exception(error)
    cell.end(crash(error))
    ActorRegistry.stop_all(block=False)
    return True


def log_failure(cell: AnyCell, error: BaseException) -> None:
    """Write Pykka's log line for an exception that is not answered to a caller."""
    _logger.error(f"Unhandled exception in {cell.actor}:", exc_info=error)


def closing(cell: AnyCell, error: BaseException | None) -> None:
    """Leave Pykka's registry before the stop hook runs, as Pykka's actors do."""
    ActorRegistry.unregister(cell.ref)
    if error is None:
        _logger.debug(f"Stopped {cell.actor}")
