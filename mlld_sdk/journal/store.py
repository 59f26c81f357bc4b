"""What the journal asks of a place to keep records: transactions, and word of what was committed.

Everything the journal does is a function of one transaction, which decides before it writes: it may be run again if the
commit fails. A store runs it, makes it durable and only then returns.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from mlld_sdk.journal.rows import Notes, Tx

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One damaged thing that `verify` found.

    Attributes:
        where: The record or the part of the file.
        what: What is wrong with it.
    """

    where: str
    what: str


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a store is doing.

    Attributes:
        path: The file, or `None` for memory.
        degraded: Code of the error that writes fail with, or `None` when they work.
        reason: That error in words.
        queued: Writes waiting for their turn.
        commits: Commits made since it was opened.
        writes: Writes in them.
        bytes: Size of the file and its log.
    """

    path: str | None
    degraded: str | None
    reason: str
    queued: int
    commits: int
    writes: int
    bytes: int


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the journal is doing.

    Attributes:
        store: How its store is doing.
        runs: Number of runs by state.
        leases: Runs owned through this journal.
        waiting: Callbacks that wait for outcomes here.
    """

    store: StoreStatus
    runs: dict[str, int]
    leases: int
    waiting: int


class Host(Protocol):
    """What a journal does for the store it is attached to. Called on the store's writer thread, if it has one."""

    def committed(self, notes: Notes) -> None:
        """Report what has become durable."""

    def changed_elsewhere(self) -> None:
        """Look again at what is waited for: another process has committed something."""

    def chores(self) -> Iterable[Callable[[Tx], object]]:
        """Return what is due: renewals, retention."""

    def pace(self) -> float | None:
        """Return the seconds until the next look, or `None` if there is nothing to look for."""


class Store(Protocol):
    """A place to keep records."""

    def join(self, host: Host) -> str:
        """Attach a journal; returns the name of its session, which lives until `leave` or the end of the process."""

    def leave(self, session: str) -> None:
        """Detach a journal: write what is queued, end its session; the last one closes the store."""

    def alive(self, session: str) -> bool:
        """Return whether a session still lives, in any process."""

    def write(self, session: str, work: Callable[[Tx], T], timeout: float) -> T:
        """Run a transaction for a session; returns when it is durable and its journal was told."""

    def read(self, work: Callable[[Tx], T]) -> T:
        """Read one consistent state."""

    def wake(self) -> None:
        """Ask the host's `pace` again, because it may have changed."""

    def backup(self, target: Path) -> None:
        """Copy everything into a new file while work goes on."""

    def verify(self) -> list[Problem]:
        """Look at everything and list what is damaged."""

    def status(self) -> StoreStatus:
        """Return how the store is doing."""
