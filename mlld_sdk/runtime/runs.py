"""The runs of a runtime, looked for by what is known of them: `runtime.runs`."""

from collections.abc import Callable
from functools import cached_property

from mlld_sdk.client.aio import in_thread
from mlld_sdk.journal import Journal
from mlld_sdk.journal.errors import RunKeyAmbiguous, RunKeyNotFound
from mlld_sdk.runs.handles import RunHandle


class Runs:
    """Finds runs in the journal, whichever process has submitted them or works on them.

    Args:
        journal: Where they are.
        path_of: Makes the path of an agent from its path or name.
    """

    def __init__(self, journal: Journal, path_of: Callable[[str], str]) -> None:
        self._journal = journal
        self._path_of = path_of

    def find(self, *, key: str, agent: str | None = None) -> RunHandle:
        """Find the run that was submitted with an idempotency key.

        A key belongs to one agent. Without `agent` the runs of all agents are looked through: one search in an index
        for each agent that has runs with keys.

        Args:
            key: The key.
            agent: The agent it was submitted to, by its path, or by its name if that is unique in the tree. It need
                not be in the tree.

        Raises:
            RunKeyNotFound: There is no such run.
            RunKeyAmbiguous: Several agents have a run with this key, and `agent` does not say which is meant.
        """
        journal = self._journal
        if agent is not None:
            path = self._path_of(agent)
            run = journal.find(path, key)
            if run is None:
                raise RunKeyNotFound(key, path)
            return RunHandle(journal, run.id)
        runs = journal.find_all(key)
        if not runs:
            raise RunKeyNotFound(key)
        if len(runs) > 1:
            raise RunKeyAmbiguous(key, tuple(run.kind for run in runs))
        return RunHandle(journal, runs[0].id)

    @cached_property
    def aio(self) -> "AsyncRuns":
        """The same for asyncio."""
        return AsyncRuns(self)


class AsyncRuns:
    """The runs of a runtime, for coroutines.

    Attributes:
        sync: The same for threads.
    """

    def __init__(self, sync: Runs) -> None:
        self.sync = sync

    find = in_thread(Runs.find)
