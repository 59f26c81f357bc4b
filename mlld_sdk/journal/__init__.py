"""The durable journal of runs, their steps and their outcomes. `docs/journal.md` says what it promises.

`journal` and `lease` are what others call; `writes` and `rules` decide, as functions of one transaction; `store` is
what they ask of a place to keep records: `memory`, `sqlite`. `core` and `upkeep` are what a journal and its
leases share. Runs, agents and the runtime come in by the names below.
"""

from mlld_sdk.journal.journal import Journal
from mlld_sdk.journal.lease import RunLease
from mlld_sdk.journal.options import JournalLimits, Retention, StepPolicy
from mlld_sdk.journal.positions import Positions
from mlld_sdk.journal.records import Death, ErrorRecord, EventRecord, OwnerRecord, Replay, RunRecord, StepRecord
from mlld_sdk.journal.rules import Failed, Fresh
from mlld_sdk.journal.store import Problem, Store, StoreStatus
from mlld_sdk.journal.values import Fingerprint, Values
from mlld_sdk.journal.views import DeadLetter, JournalStatus, Outcome

__all__ = [
    "DeadLetter",
    "Death",
    "ErrorRecord",
    "EventRecord",
    "Failed",
    "Fingerprint",
    "Fresh",
    "Journal",
    "JournalLimits",
    "JournalStatus",
    "Outcome",
    "OwnerRecord",
    "Positions",
    "Problem",
    "Replay",
    "Retention",
    "RunLease",
    "RunRecord",
    "StepPolicy",
    "StepRecord",
    "Store",
    "StoreStatus",
    "Values",
]
