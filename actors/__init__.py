"""Actors with OTP guarantees on Pykka: mailboxes, scheduling, lifecycle, links, monitors, names, timers, tasks."""

from mlld_sdk.actors.core.actor import Actor, PykkaActor, current_actor
from mlld_sdk.actors.core.default_system import current_system, default_system
from mlld_sdk.actors.core.directives import IGNORE, NO_REPLY, Continue, Idle, Reply, Stop
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.names import Via
from mlld_sdk.actors.core.ref import ActorRef, Down, Exit, Monitor, ReplyTo
from mlld_sdk.actors.core.scheduler import blocking
from mlld_sdk.actors.core.system import ActorSystem

__all__ = [
    "IGNORE",
    "NO_REPLY",
    "Actor",
    "ActorRef",
    "ActorSystem",
    "Continue",
    "Down",
    "Exit",
    "Future",
    "Idle",
    "Monitor",
    "PykkaActor",
    "Reply",
    "ReplyTo",
    "Stop",
    "Via",
    "blocking",
    "current_actor",
    "current_system",
    "default_system",
]
