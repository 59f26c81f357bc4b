"""What waits for each agent, as the journal told at the last look.

Views of the tree read what is kept here: looking at a tree asks neither an actor nor the journal for anything.
"""

from typing import Any, Final

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.agents.agent import Agent
from mlld_sdk.base.durations import now
from mlld_sdk.base.env import Env
from mlld_sdk.journal import Journal
from mlld_sdk.journal.errors import JournalError
from mlld_sdk.journal.records import Backlog
from mlld_sdk.supervision.execution.tree_context import BacklogView

STALE: Final = 20.0
"""Seconds after which an answer of the journal says nothing any more; a look may wait behind one for a locked file."""

_NOTHING: Final = Backlog()


class Backlogs:
    """Asks the journal one question now and then, and tells what waits for a place.

    Args:
        journal: Where the runs are.
        env: Clocks.
    """

    def __init__(self, journal: Journal, env: Env) -> None:
        self._journal = journal
        self._env = env
        self._found: dict[str, Backlog] = {}
        self._until = now() + STALE
        self._limits: dict[str, float | None] = {}

    def look(self) -> set[str]:
        """Ask what there is to do; returns the kinds that have runs which have not come to rest.

        Raises:
            JournalError: The journal cannot be read; what waits is not known from now on.
        """
        try:
            found = self._journal.backlogs()
        except JournalError:
            self._until = 0.0
            raise
        self._found, self._until = found, now() + STALE
        self._limits = {path: limit for path, limit in self._limits.copy().items() if path in found}
        return {kind for kind, backlog in found.items() if backlog.pending or backlog.running}

    def close(self) -> None:
        """Know nothing any more: what there is to do is now the business of others."""
        self._until = 0.0

    def __call__(self, path: str, child: ActorRef[Any] | None) -> BacklogView | None:
        """Tell what waits for a place; `None` if nothing can wait there."""
        found = self._found.get(path)
        agent = None if child is None else child.cell.actor
        if isinstance(agent, Agent):
            self._limits[path] = agent.options.oldest_waiting  # a field that is read, and no question
        elif found is None and path not in self._limits:
            return None
        if now() > self._until:
            return BacklogView(known=False)
        found = found or _NOTHING
        return BacklogView(
            pending=found.pending,
            waiting=found.waiting,
            running=found.running,
            parked=found.parked,
            oldest=0.0 if found.oldest is None else max(0.0, self._env.wall() - found.oldest),
            limit=self._limits.get(path),
        )
