"""Actors with OTP guarantees on Pykka, and the libraries on top of them.

`core` is the actor: mailboxes, scheduling, lifecycle, links, monitors, timers. `registry`, `pubsub`, `tasks`, `stages`
and `statem` are libraries that use nothing else. Everything a user needs is exported here, and imported at first use;
the actions of state machines (`goto`, `keep`, ...) come from `mlld_sdk.actors.statem`.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.actors.core.actor import Actor as Actor
    from mlld_sdk.actors.core.actor import PykkaActor as PykkaActor
    from mlld_sdk.actors.core.actor import current_actor as current_actor
    from mlld_sdk.actors.core.directives import IGNORE as IGNORE
    from mlld_sdk.actors.core.directives import NO_REPLY as NO_REPLY
    from mlld_sdk.actors.core.directives import Continue as Continue
    from mlld_sdk.actors.core.directives import Idle as Idle
    from mlld_sdk.actors.core.directives import Reply as Reply
    from mlld_sdk.actors.core.directives import Stop as Stop
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
    from mlld_sdk.actors.core.exits import Crash as Crash
    from mlld_sdk.actors.core.exits import Killed as Killed
    from mlld_sdk.actors.core.exits import Normal as Normal
    from mlld_sdk.actors.core.exits import Reason as Reason
    from mlld_sdk.actors.core.exits import Shutdown as Shutdown
    from mlld_sdk.actors.core.future import Future as Future
    from mlld_sdk.actors.core.info import ActorInfo as ActorInfo
    from mlld_sdk.actors.core.info import Address as Address
    from mlld_sdk.actors.core.names import Via as Via
    from mlld_sdk.actors.core.ref import ActorRef as ActorRef
    from mlld_sdk.actors.core.ref import Down as Down
    from mlld_sdk.actors.core.ref import Exit as Exit
    from mlld_sdk.actors.core.ref import Monitor as Monitor
    from mlld_sdk.actors.core.ref import ReplyTo as ReplyTo
    from mlld_sdk.actors.core.scheduler import blocking as blocking
    from mlld_sdk.actors.core.system import ActorSystem as ActorSystem
    from mlld_sdk.actors.core.system import StopReport as StopReport
    from mlld_sdk.actors.core.system import current_system as current_system
    from mlld_sdk.actors.core.system import default_system as default_system
    from mlld_sdk.actors.core.timers import Timer as Timer
    from mlld_sdk.actors.pubsub.errors import NotJoined as NotJoined
    from mlld_sdk.actors.pubsub.errors import Unsubscribed as Unsubscribed
    from mlld_sdk.actors.pubsub.groups import GroupChanged as GroupChanged
    from mlld_sdk.actors.pubsub.groups import GroupMonitor as GroupMonitor
    from mlld_sdk.actors.pubsub.groups import Groups as Groups
    from mlld_sdk.actors.pubsub.outlet import Lagged as Lagged
    from mlld_sdk.actors.pubsub.outlet import Resumed as Resumed
    from mlld_sdk.actors.pubsub.pubsub import Listener as Listener
    from mlld_sdk.actors.pubsub.pubsub import PubSub as PubSub
    from mlld_sdk.actors.pubsub.pubsub import Subscription as Subscription
    from mlld_sdk.actors.registry.errors import LockTimeout as LockTimeout
    from mlld_sdk.actors.registry.errors import NameTaken as NameTaken
    from mlld_sdk.actors.registry.errors import NotRegistered as NotRegistered
    from mlld_sdk.actors.registry.errors import TableClosed as TableClosed
    from mlld_sdk.actors.registry.errors import TableFull as TableFull
    from mlld_sdk.actors.registry.registry import KeyRegistered as KeyRegistered
    from mlld_sdk.actors.registry.registry import KeyUnregistered as KeyUnregistered
    from mlld_sdk.actors.registry.registry import Registration as Registration
    from mlld_sdk.actors.registry.registry import Registry as Registry
    from mlld_sdk.actors.registry.table import Table as Table
    from mlld_sdk.actors.registry.table import TableGiven as TableGiven
    from mlld_sdk.actors.stages.errors import DemandExceeded as DemandExceeded
    from mlld_sdk.actors.stages.event_stream import EventStream as EventStream
    from mlld_sdk.actors.stages.producers import Consumer as Consumer
    from mlld_sdk.actors.stages.producers import Producer as Producer
    from mlld_sdk.actors.stages.producers import ProducerConsumer as ProducerConsumer
    from mlld_sdk.actors.statem.engine import Happening as Happening
    from mlld_sdk.actors.statem.errors import UndeclaredTransition as UndeclaredTransition
    from mlld_sdk.actors.statem.errors import UnhandledEvent as UnhandledEvent
    from mlld_sdk.actors.statem.graph import Graph as Graph
    from mlld_sdk.actors.statem.rules import State as State
    from mlld_sdk.actors.statem.statem import StateMachine as StateMachine
    from mlld_sdk.actors.tasks.errors import TaskExited as TaskExited
    from mlld_sdk.actors.tasks.errors import TaskTimeout as TaskTimeout
    from mlld_sdk.actors.tasks.errors import TooManyTasks as TooManyTasks
    from mlld_sdk.actors.tasks.streams import StreamOptions as StreamOptions
    from mlld_sdk.actors.tasks.streams import TaskStream as TaskStream
    from mlld_sdk.actors.tasks.task_actor import ancestors as ancestors
    from mlld_sdk.actors.tasks.task_actor import callers as callers
    from mlld_sdk.actors.tasks.task_supervisor import Tasks as Tasks
    from mlld_sdk.actors.tasks.task_supervisor import TaskSupervisor as TaskSupervisor
    from mlld_sdk.actors.tasks.task_supervisor import TooManyRestarts as TooManyRestarts
    from mlld_sdk.actors.tasks.tasks import BRUTAL_KILL as BRUTAL_KILL
    from mlld_sdk.actors.tasks.tasks import Exited as Exited
    from mlld_sdk.actors.tasks.tasks import Ok as Ok
    from mlld_sdk.actors.tasks.tasks import Task as Task
    from mlld_sdk.actors.tasks.tasks import await_many as await_many
    from mlld_sdk.actors.tasks.tasks import completed as completed
    from mlld_sdk.actors.tasks.tasks import yield_many as yield_many
else:
    __all__, __getattr__, __dir__ = exports(__name__)
