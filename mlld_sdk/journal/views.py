"""What the journal answers with, where a record alone would not say it."""

from typing import Any

import msgspec

from mlld_sdk.journal.records import Death, ErrorRecord, OutcomeState, RunRecord, StepRecord
from mlld_sdk.journal.store import StoreStatus


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run came to rest.

    Attributes:
        run_id: The run.
        state: finished, failed, cancelled, or parked (which a retry may still change).
        at: Wall-clock seconds.
        value: Its result, if it finished.
        error: Why not, otherwise.
    """

    run_id: str
    state: OutcomeState
    at: float
    value: Any = None
    error: ErrorRecord | None = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A parked run and why.

    Attributes:
        run: The run.
        error: Why it is parked.
        deaths: Owners that died on it without progress, oldest first.
        steps: Its steps that did not finish.
    """

    run: RunRecord
    error: ErrorRecord
    deaths: tuple[Death, ...]
    steps: tuple[StepRecord, ...]


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
