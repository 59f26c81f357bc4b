"""Actors with OTP guarantees on Pykka: mailboxes, scheduling, lifecycle, links, monitors, names, timers, tasks."""

from mlld_sdk.actors.actor import Actor, PykkaActor, current_actor
from mlld_sdk.actors.directives import IGNORE, NO_REPLY, Continue, Idle, Reply, Stop
from mlld_sdk.actors.future import Future
from mlld_sdk.actors.links import Down, Exit, Monitor
from mlld_sdk.actors.names import Via
from mlld_sdk.actors.ref import ActorRef, ReplyTo
from mlld_sdk.actors.scheduler import blocking
from mlld_sdk.actors.system import ActorSystem, current_system, default_system

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
