"""The durable journal of runs, their steps and their outcomes. `docs/journal.md` says what it promises.

`journal` and `lease` are what others call; `writes` and `rules` decide, as functions of one transaction on `rows`;
`store` is what they ask of a place to keep these: `memory`, `sqlite`. `core` is what a journal and its leases share.
Runs, agents and the runtime come in by the names below.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.journal.journal import Journal as Journal
    from mlld_sdk.journal.lease import RunLease as RunLease
    from mlld_sdk.journal.options import JournalLimits as JournalLimits
    from mlld_sdk.journal.options import Retention as Retention
    from mlld_sdk.journal.options import StepPolicy as StepPolicy
    from mlld_sdk.journal.positions import Positions as Positions
    from mlld_sdk.journal.records import Backlog as Backlog
    from mlld_sdk.journal.records import DeadLetter as DeadLetter
    from mlld_sdk.journal.records import Death as Death
    from mlld_sdk.journal.records import ErrorRecord as ErrorRecord
    from mlld_sdk.journal.records import EventRecord as EventRecord
    from mlld_sdk.journal.records import Outcome as Outcome
    from mlld_sdk.journal.records import OwnerRecord as OwnerRecord
    from mlld_sdk.journal.records import Replay as Replay
    from mlld_sdk.journal.records import RunRecord as RunRecord
    from mlld_sdk.journal.records import StepRecord as StepRecord
    from mlld_sdk.journal.rules import Failed as Failed
    from mlld_sdk.journal.rules import Fresh as Fresh
    from mlld_sdk.journal.store import JournalStatus as JournalStatus
    from mlld_sdk.journal.store import Problem as Problem
    from mlld_sdk.journal.store import Store as Store
    from mlld_sdk.journal.store import StoreStatus as StoreStatus
    from mlld_sdk.journal.values import Fingerprint as Fingerprint
    from mlld_sdk.journal.values import Values as Values
else:
    __all__, __getattr__, __dir__ = exports(__name__)
