"""The actor system: everything actors share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import pykka

from mlld_sdk.actors.exits import SHUTDOWN, Reason
from mlld_sdk.actors.future import Future
from mlld_sdk.actors.names import Name
from mlld_sdk.actors.ref import ActorRef
from mlld_sdk.env import Env
from mlld_sdk.events import Sink, discard

A = TypeVar("A", bound=pykka.Actor)


class ActorSystem:
    """Owns scheduler, timers, names, zombies, sink and env of its actors. Several may live in one process."""

    def __init__(self, name: str = "actors", *, env: Env = Env(), sink: Sink = discard, workers: int = 1, max_workers: int = 1024) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

    def start(
        self,
        actor_class: type[A],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: Name | None = None,
        parent: ActorRef[Any] | None = None,  # linked to it atomically; its end is the child's end
        timeout: float | None = 30.0,
    ) -> ActorRef[A]:
        """Start and wait until `on_start` has returned. Raises StartFailed/StartTimeout/AlreadyStarted/StartIgnored."""
        raise NotImplementedError

    def start_soon(self, actor_class: type[A], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, name: Name | None = None, parent: ActorRef[Any] | None = None, timeout: float | None = 30.0) -> Future[ActorRef[A]]:
        """The same without waiting: a future of the ref, with on_done (called on the child's worker). For supervisors."""
        raise NotImplementedError

    def whereis(self, name: Name | ActorRef[Any]) -> ActorRef[Any] | None: ...
    def actors(self) -> list[ActorRef[Any]]: ...
    def stop(self, timeout: float = 5.0) -> Any: """Stop every actor, newest roots first, kill what does not, end all threads; a report."""
    # system.env, system.sink, system.timers (Timers), system.names, system.zombies, system.scheduler, system.id


def current_actor() -> ActorRef[Any] | None:
    """The actor whose code is running in this thread, if any."""
    raise NotImplementedError


def current_system() -> ActorSystem:
    """The system of the running actor, else the process's default one (started at first use)."""
    raise NotImplementedError
