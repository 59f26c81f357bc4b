"""Runs that wait for an agent which is not there: what is known of them, and when that is a concern.

Runs are filed under the path of their agent. If no agent stands at that path, its runs wait: an agent of a dynamic
supervisor is not started by itself after a restart of the service. Another process that shares the journal may have
the agent, and which agents others have is written down nowhere. What is known is whether a living process works on a
run of it. So an agent is missing when it is not in this tree, runs of it wait, and nobody works on any of them; and
since an agent elsewhere that has nothing to do takes a run within seconds, it is a concern after `MISSING_GRACE`.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Event, Sink, discard
from mlld_sdk.base.texts import printable
from mlld_sdk.journal import Journal
from mlld_sdk.supervision.verdict import MOST_CONCERNS, Concern

MISSING_GRACE: Final = 30.0
"""Seconds for which nobody has worked on runs of an agent that is not here, before the verdict says so."""

MOST_NAMED: Final = 5
"""Runs that are named."""


class MissingAgent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that runs wait for, which is not in the tree, and which no other process is seen to have.

    Attributes:
        agent: Its path.
        runs: Ids of those runs, the next in turn first; at most `MOST_NAMED`.
        more: Whether there are more.
        since: When this was seen first (monotonic).
    """

    agent: str
    runs: tuple[str, ...]
    more: bool
    since: float

    def __str__(self) -> str:
        return printable(f"no agent {self.agent} is in this tree, and runs wait for it: {named(self.runs, self.more)}")


def named(runs: Iterable[str], more: bool) -> str:
    """Name runs in a line."""
    return f"{', '.join(runs)}{' and more' if more else ''}"


class AgentMissed(Event, frozen=True, kw_only=True, tag="agent.missed"):
    """Runs have waited for `MISSING_GRACE` for an agent that is not in the tree; told once, until it is there.

    Attributes:
        agent: Its path.
        runs: Ids of those runs, at most `MOST_NAMED`.
        more: Whether there are more.
    """

    agent: str
    runs: tuple[str, ...]
    more: bool


class MissingAgents:
    """Looks now and then which agents are missing, and remembers since when.

    Args:
        journal: Where the runs are.
        serves: Tells whether an agent of this tree has a path.
        env: Clocks.
        sink: Takes events.
    """

    def __init__(self, journal: Journal, serves: Callable[[str], bool], env: Env, sink: Sink = discard) -> None:
        self._journal = journal
        self._serves = serves
        self._env = env
        self._sink = sink
        self._found: dict[str, MissingAgent] = {}
        self._told: set[str] = set()

    def look(self, kinds: Iterable[str]) -> None:
        """Look at the kinds that have unfinished runs; at most `MOST_CONCERNS` that are missing are kept.

        Raises:
            JournalError: The journal cannot be read; what was known before stays.
        """
        found: dict[str, MissingAgent] = {}
        now = self._env.now()
        elsewhere = sorted(kind for kind in kinds if not self._serves(kind))
        waits = self._journal.unattended(elsewhere, most=MOST_CONCERNS, limit=MOST_NAMED + 1) if elsewhere else {}
        for kind, runs in waits.items():
            before = self._found.get(kind)
            since = now if before is None else before.since
            more = len(runs) > MOST_NAMED
            found[kind] = MissingAgent(agent=kind, runs=tuple(runs[:MOST_NAMED]), more=more, since=since)
        self._found = found
        late = {one.agent for one in found.values() if one.since <= now - MISSING_GRACE}
        for one in (found[agent] for agent in sorted(late - self._told)):
            self._sink(AgentMissed(at=self._env.wall(), agent=one.agent, runs=one.runs, more=one.more))
        self._told = late

    def all(self) -> list[MissingAgent]:
        """List what was seen at the last look and is not in the tree by now, by path."""
        return [one for one in self._found.values() if not self._serves(one.agent)]

    def concerns(self) -> list[Concern]:
        """List those for which nobody has come for a while."""
        late = self._env.now() - MISSING_GRACE
        return [
            Concern(
                one.agent,
                "degraded",
                f"no such agent is in this tree, and nobody works on its runs: {named(one.runs, one.more)}; "
                "start it under this name again, or cancel them",
            )
            for one in self.all()
            if one.since <= late
        ]
