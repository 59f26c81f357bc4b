"""References to actors: the only thing one actor holds of another."""

from typing import Any, Generic, Literal, TypeVar

import msgspec
import pykka

from mlld_sdk.actors.exits import KILLED, NORMAL, Reason
from mlld_sdk.actors.future import Future

A = TypeVar("A", bound=pykka.Actor)


class Address(msgspec.Struct, frozen=True):
    """Where an actor is, as data that can be stored or sent.

    Attributes:
        path: Names from the root of its tree, with slashes.
        system: Id of its actor system.
        epoch: Number of this incarnation: unique in its system, growing.
    """

    path: str
    system: str
    epoch: int


class ActorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A look at an actor from outside; taking it sends no message and waits for nobody."""

    path: str
    epoch: int
    kind: str
    state: Literal["starting", "running", "suspended", "stopping", "dead"]
    reason: Reason | None
    parent: str | None
    queued: int
    queued_system: int
    handled: int
    rate: float
    current: str | None
    current_for: float | None
    waiting_for: str | None
    links: int
    monitors: int
    traps_exits: bool
    up: float
    zombie: bool


class ActorRef(pykka.ActorRef[A], Generic[A]):
    """One incarnation of an actor: (path, system, epoch). Everything `pykka.ActorRef` can do, and more.

    Compared by identity: there is one ref for each incarnation. It stays valid as a value after the actor's end.
    """

    @property
    def path(self) -> str: ...
    @property
    def name(self) -> Any: ...
    @property
    def epoch(self) -> int: ...
    @property
    def address(self) -> Address: ...
    @property
    def parent(self) -> "ActorRef[Any] | None": ...
    @property
    def system(self) -> Any: ...
    @property
    def reason(self) -> Reason | None:
        """Why it ended, or `None` while it lives."""

    # -- talking to it
    def tell(self, message: Any) -> None: """Send; raises `ActorDead` or `MailboxFull`."""
    def cast(self, message: Any) -> None: """Send; never raises, not even to a dead actor (what cannot be delivered is dropped and counted)."""
    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any: """Pykka's ask: the original exception is raised."""
    def call(self, message: Any, *, timeout: float | None = 5.0) -> Any: """OTP's call: ActorCrashed / ActorDead / CallTimeout / CallingSelf / DeadlockDetected, or what the actor answered."""
    def request(self, message: Any) -> Future[Any]: """`call` without waiting: the future raises what `call` would."""

    # -- ending it
    def stop(self, *, block: bool = True, timeout: float | None = None, reason: Reason = NORMAL, drain: bool = False) -> Any: """Pykka's stop; overtakes the backlog unless drain=True."""
    def exit(self, reason: object) -> None: """Send an exit signal (trappable), from the current actor or from outside."""
    def kill(self, detail: str = "") -> bool: """End the incarnation now; untrappable, no hook runs. Prompt even if the actor is stuck."""
    def shutdown(self, timeout: float | None = 5.0, reason: Reason = ...) -> Future[Reason]: """Non-blocking orderly end: parent's exit signal, kill at the deadline; resolves with the exit reason, unlink-safe."""
    def join(self, timeout: float | None) -> Reason: """Wait for the end."""

    # -- looking at it
    def is_alive(self) -> bool: ...
    def info(self) -> ActorInfo: ...
    def monitor(self, callback: Any) -> Any: """From outside actors: call back once with `Down`. Inside use `self.monitor(ref)`."""
    def suspend(self, timeout: float | None = 5.0) -> None: ...
    def resume(self, timeout: float | None = 5.0) -> None: ...
    def get_state(self, timeout: float | None = 5.0) -> Any: ...
    def replace_state(self, change: Any, timeout: float | None = 5.0) -> Any: ...
