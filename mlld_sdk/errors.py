"""Every error that the library raises, whichever room it belongs to.

`MlldError` is the root. A `TaskError` is the answer of the task itself; an `InfrastructureError` says that something
which runs the task failed; after a `ConfigurationError` retrying cannot help. Each has a stable `code`, a `message` and
a `hint`.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.actors.core.errors import ActorCrashed as ActorCrashed
    from mlld_sdk.actors.core.errors import ActorDead as ActorDead
    from mlld_sdk.actors.core.errors import ActorError as ActorError
    from mlld_sdk.actors.core.errors import AlreadyStarted as AlreadyStarted
    from mlld_sdk.actors.core.errors import AskCancelled as AskCancelled
    from mlld_sdk.actors.core.errors import AskTimeout as AskTimeout
    from mlld_sdk.actors.core.errors import CallingSelf as CallingSelf
    from mlld_sdk.actors.core.errors import DeadlockDetected as DeadlockDetected
    from mlld_sdk.actors.core.errors import MailboxFull as MailboxFull
    from mlld_sdk.actors.core.errors import NoSuchActor as NoSuchActor
    from mlld_sdk.actors.core.errors import NotAnActor as NotAnActor
    from mlld_sdk.actors.core.errors import NotOwner as NotOwner
    from mlld_sdk.actors.core.errors import StartFailed as StartFailed
    from mlld_sdk.actors.core.errors import StartIgnored as StartIgnored
    from mlld_sdk.actors.core.errors import StartTimeout as StartTimeout
    from mlld_sdk.actors.core.errors import SystemStopped as SystemStopped
    from mlld_sdk.actors.core.errors import UnknownName as UnknownName
    from mlld_sdk.actors.pubsub.errors import NotJoined as NotJoined
    from mlld_sdk.actors.pubsub.errors import Unsubscribed as Unsubscribed
    from mlld_sdk.actors.registry.errors import LockTimeout as LockTimeout
    from mlld_sdk.actors.registry.errors import NameTaken as NameTaken
    from mlld_sdk.actors.registry.errors import NotRegistered as NotRegistered
    from mlld_sdk.actors.registry.errors import TableClosed as TableClosed
    from mlld_sdk.actors.registry.errors import TableFull as TableFull
    from mlld_sdk.actors.stages.errors import DemandExceeded as DemandExceeded
    from mlld_sdk.actors.statem.errors import UndeclaredTransition as UndeclaredTransition
    from mlld_sdk.actors.statem.errors import UnhandledEvent as UnhandledEvent
    from mlld_sdk.actors.tasks.errors import TaskExited as TaskExited
    from mlld_sdk.actors.tasks.errors import TaskTimeout as TaskTimeout
    from mlld_sdk.actors.tasks.errors import TooManyTasks as TooManyTasks
    from mlld_sdk.agents.pool import PoolTakesNoRuns as PoolTakesNoRuns
    from mlld_sdk.agents.services import AgentUnavailable as AgentUnavailable
    from mlld_sdk.agents.workload import RunDeadlineExceeded as RunDeadlineExceeded
    from mlld_sdk.base.errors import ConfigurationError as ConfigurationError
    from mlld_sdk.base.errors import ExtraMissing as ExtraMissing
    from mlld_sdk.base.errors import InfrastructureError as InfrastructureError
    from mlld_sdk.base.errors import InvalidOption as InvalidOption
    from mlld_sdk.base.errors import InvalidRequest as InvalidRequest
    from mlld_sdk.base.errors import MlldError as MlldError
    from mlld_sdk.base.errors import TaskError as TaskError
    from mlld_sdk.base.errors import UnknownOption as UnknownOption
    from mlld_sdk.client.handles import RequestEnded as RequestEnded
    from mlld_sdk.control.protocol import ControlError as ControlError
    from mlld_sdk.control.protocol import Refused as Refused
    from mlld_sdk.engines.checkpoint_params import NoLiveCheckpoint as NoLiveCheckpoint
    from mlld_sdk.engines.checkpoints import CacheNotFound as CacheNotFound
    from mlld_sdk.engines.checkpoints import CacheUnusable as CacheUnusable
    from mlld_sdk.engines.checkpoints import SelectorInvalid as SelectorInvalid
    from mlld_sdk.engines.kinds import CommandFailuresUnseen as CommandFailuresUnseen
    from mlld_sdk.engines.pool import EnginePoolClosed as EnginePoolClosed
    from mlld_sdk.engines.pool import NoEngineFree as NoEngineFree
    from mlld_sdk.engines.quota import EngineQuotaExhausted as EngineQuotaExhausted
    from mlld_sdk.engines.start_gate import EngineCoolingDown as EngineCoolingDown
    from mlld_sdk.journal.errors import IdempotencyConflict as IdempotencyConflict
    from mlld_sdk.journal.errors import JournalBusy as JournalBusy
    from mlld_sdk.journal.errors import JournalClosed as JournalClosed
    from mlld_sdk.journal.errors import JournalCorrupt as JournalCorrupt
    from mlld_sdk.journal.errors import JournalError as JournalError
    from mlld_sdk.journal.errors import JournalFull as JournalFull
    from mlld_sdk.journal.errors import JournalGone as JournalGone
    from mlld_sdk.journal.errors import JournalLocked as JournalLocked
    from mlld_sdk.journal.errors import JournalReadOnly as JournalReadOnly
    from mlld_sdk.journal.errors import JournalRefusal as JournalRefusal
    from mlld_sdk.journal.errors import JournalTooNew as JournalTooNew
    from mlld_sdk.journal.errors import JournalUncertain as JournalUncertain
    from mlld_sdk.journal.errors import JournalUnreadable as JournalUnreadable
    from mlld_sdk.journal.errors import LeaseHeld as LeaseHeld
    from mlld_sdk.journal.errors import LeaseLost as LeaseLost
    from mlld_sdk.journal.errors import LimitExceeded as LimitExceeded
    from mlld_sdk.journal.errors import NotAJournal as NotAJournal
    from mlld_sdk.journal.errors import RecordUnknown as RecordUnknown
    from mlld_sdk.journal.errors import RunEnded as RunEnded
    from mlld_sdk.journal.errors import RunInQuarantine as RunInQuarantine
    from mlld_sdk.journal.errors import RunKeyAmbiguous as RunKeyAmbiguous
    from mlld_sdk.journal.errors import RunKeyNotFound as RunKeyNotFound
    from mlld_sdk.journal.errors import RunNotFound as RunNotFound
    from mlld_sdk.journal.errors import RunNotParked as RunNotParked
    from mlld_sdk.journal.errors import RunParked as RunParked
    from mlld_sdk.journal.errors import StepExhausted as StepExhausted
    from mlld_sdk.journal.errors import StepInterrupted as StepInterrupted
    from mlld_sdk.journal.errors import StepMismatch as StepMismatch
    from mlld_sdk.journal.errors import StepNotOpen as StepNotOpen
    from mlld_sdk.journal.errors import ValueNotStorable as ValueNotStorable
    from mlld_sdk.journal.errors import WaitTimeout as WaitTimeout
    from mlld_sdk.runs.errors import JobCancelled as JobCancelled
    from mlld_sdk.runs.errors import OwnerGone as OwnerGone
    from mlld_sdk.runs.errors import RunCancelled as RunCancelled
    from mlld_sdk.runs.errors import RunFailed as RunFailed
    from mlld_sdk.runs.errors import StepFailed as StepFailed
    from mlld_sdk.runs.errors import StepIsAsync as StepIsAsync
    from mlld_sdk.runs.errors import StepsOverlap as StepsOverlap
    from mlld_sdk.runs.errors import WaitsForItself as WaitsForItself
    from mlld_sdk.runtime.end import RuntimeGaveUp as RuntimeGaveUp
    from mlld_sdk.runtime.end import RuntimeNotRunning as RuntimeNotRunning
    from mlld_sdk.runtime.runtime import RuntimeForked as RuntimeForked
    from mlld_sdk.scripts.answers import TruncatedResult as TruncatedResult
    from mlld_sdk.scripts.answers import TruncationWarning as TruncationWarning
    from mlld_sdk.scripts.answers import UnansweredWarning as UnansweredWarning
    from mlld_sdk.supervision.errors import BreakerOpen as BreakerOpen
    from mlld_sdk.supervision.errors import ChildAlreadyPresent as ChildAlreadyPresent
    from mlld_sdk.supervision.errors import ChildAlreadyStarted as ChildAlreadyStarted
    from mlld_sdk.supervision.errors import ChildError as ChildError
    from mlld_sdk.supervision.errors import ChildNotFound as ChildNotFound
    from mlld_sdk.supervision.errors import ChildRestarting as ChildRestarting
    from mlld_sdk.supervision.errors import ChildRunning as ChildRunning
    from mlld_sdk.supervision.errors import ChildStartFailed as ChildStartFailed
    from mlld_sdk.supervision.errors import ChildUnavailable as ChildUnavailable
    from mlld_sdk.supervision.errors import DuplicateChild as DuplicateChild
    from mlld_sdk.supervision.errors import NotSupported as NotSupported
    from mlld_sdk.supervision.errors import SupervisorBusy as SupervisorBusy
    from mlld_sdk.supervision.errors import SupervisorStopping as SupervisorStopping
    from mlld_sdk.supervision.errors import TooManyChildren as TooManyChildren
    from mlld_sdk.supervision.reasons import EscalateFailure as EscalateFailure
    from mlld_sdk.supervision.reasons import StopAgent as StopAgent
    from mlld_sdk.telemetry.bus import AlreadyAttached as AlreadyAttached
    from mlld_sdk.transport.errors import CallCancelled as CallCancelled
    from mlld_sdk.transport.errors import CallTimeout as CallTimeout
    from mlld_sdk.transport.errors import CommandFailed as CommandFailed
    from mlld_sdk.transport.errors import CommandNotExecutable as CommandNotExecutable
    from mlld_sdk.transport.errors import CommandNotFound as CommandNotFound
    from mlld_sdk.transport.errors import EngineAborted as EngineAborted
    from mlld_sdk.transport.errors import EngineBabbling as EngineBabbling
    from mlld_sdk.transport.errors import EngineClosed as EngineClosed
    from mlld_sdk.transport.errors import EngineDied as EngineDied
    from mlld_sdk.transport.errors import EngineDiedAtStart as EngineDiedAtStart
    from mlld_sdk.transport.errors import EngineOverloaded as EngineOverloaded
    from mlld_sdk.transport.errors import EngineSilent as EngineSilent
    from mlld_sdk.transport.errors import ForkedProcess as ForkedProcess
    from mlld_sdk.transport.errors import ScriptError as ScriptError
    from mlld_sdk.transport.errors import SpawnRefused as SpawnRefused
    from mlld_sdk.transport.errors import UnserialisableParams as UnserialisableParams
    from mlld_sdk.transport.errors import WorkingDirectoryMissing as WorkingDirectoryMissing
    from mlld_sdk.transport.mlld_package import MlldPackageNotFound as MlldPackageNotFound
    from mlld_sdk.transport.mlld_package import MlldPackageUnusable as MlldPackageUnusable
else:
    __all__, __getattr__, __dir__ = exports(__name__)
