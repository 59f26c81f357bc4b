"""The actor base classes: `Actor` with OTP's rules, `PykkaActor` with Pykka's."""

from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar, cast

import pykka

from mlld_sdk.actors.core import events
from mlld_sdk.actors.core.cell import Cell
from mlld_sdk.actors.core.class_options import Overflow, default_hook
from mlld_sdk.actors.core.context import current_cell, topology
from mlld_sdk.actors.core.errors import ActorError, ActorKilled
from mlld_sdk.actors.core.exits import NORMAL, Reason, as_reason
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.links import link, unlink
from mlld_sdk.actors.core.names import Name
from mlld_sdk.actors.core.ref import ActorRef, Monitor, ReplyTo, StoppedFlag, monitor, urn_of
from mlld_sdk.actors.core.system import ActorSystem, Release, current_system
from mlld_sdk.actors.core.system_messages import EndNow
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.base.durations import Duration, seconds

T = TypeVar("T")
A = TypeVar("A", bound=pykka.Actor)


class Actor(pykka.Actor):
    """An actor with OTP's guarantees and Pykka's API.

    ```python
    class Counter(Actor):
        def __init__(self, start=0):
            self.value = start

        def on_receive(self, message):
            self.value += message
            return self.value

    ref = Counter.start(10)
    assert ref.ask(5) == 15
    ref.stop()
    ```

    Who runs what: `__init__` runs in the thread that starts the actor (keep it short, as with Pykka). Every `on_*`
    hook runs as the actor, one at a time, on some worker of its system; it may block. Hooks may be `async def`: they
    then run on the system's event loop, still one at a time for each actor.

    An exception that leaves a hook ends this incarnation; the caller gets the exception, links and
    monitors get the crash. An exception whose class is listed in `answers` (and every `TaskError`) is only answered.
    """

    slice: ClassVar[int] = 64
    """Messages handled in a row before others get their turn."""

    mailbox_limit: ClassVar[int | None] = 100_000
    """Messages that may wait; `None` for no limit."""

    overflow: ClassVar[Overflow] = "refuse"
    """What happens beyond the limit: `refuse`, `drop_newest`, `drop_oldest`, or `block` the sender for a while."""

    overflow_timeout: ClassVar[float] = 5.0
    """Seconds a sender may be blocked."""

    answers: ClassVar[tuple[type[Exception], ...]] = ()
    """Expected errors: answered to the asker, no crash."""

    threaded: ClassVar[bool] = False
    """A thread of its own: for handlers that block often without saying so."""

    caller_runs: ClassVar[bool] = False
    """Allow a waiting caller to run this actor in its own thread when it is idle; only for handlers that never block,
    because a timeout cannot interrupt them then. Never done on the main thread, into which signal handlers raise."""

    urgent_exits: ClassVar[bool] = False
    """Handle exit and down notices before waiting messages. Gives up "after everything the dead actor sent"."""

    start_timeout: ClassVar[float | None] = 30.0
    """Seconds `on_start` may take when started with `MyActor.start()`."""

    idle_after: ClassVar[float | None] = None
    """Seconds without a message after which `on_idle` runs."""

    like_pykka: ClassVar[bool] = False
    """Keep Pykka's rules where they differ; see `PykkaActor`."""

    trap_exit: bool = False
    """Get exit signals of linked actors as `Exit` messages instead of dying of them."""

    _cell: Cell = cast("Cell", None)  # a system that starts an actor sets it before the constructor runs

    # -- hooks

    @default_hook
    def on_start(self) -> Any:
        """Prepare; the starter waits for it.

        Returns:
            `None`, or `IGNORE`, `Stop(reason)`, `Continue(value)`, `Idle(after)`. An exception fails the start.
        """

    def on_receive(self, message: Any) -> Any:
        """Handle a message; `Exit`, `Down` and timer messages come here too.

        Returns:
            The answer, or a directive: `Reply`, `NO_REPLY`, `Stop`, `Continue`, `Idle`.
        """
        cell = self._cell
        cell.system.emit(
            lambda at: events.MessageUnhandled(at=at, actor=cell.path, epoch=cell.epoch, message=cell.describe(message))
        )

    def on_continue(self, value: Any) -> Any:
        """Go on with what `Continue(value)` promised, before any other message."""
        raise NotImplementedError(f"{type(self).__name__} returned Continue but has no on_continue")

    def on_idle(self) -> Any:
        """Nothing came for a while (`idle_after`, or a returned `Idle`)."""

    @default_hook
    def on_end_request(self, reason: Reason) -> bool:  # noqa: ARG002 - for those who override it
        """Decide what to do when asked to end: by `stop`, by the parent, or by an exit signal that is not trapped.

        A class that has to do more first than a stop hook should (a supervisor stops its children) answers `True`,
        goes on handling what comes in, and ends by itself later with `Stop`; a deadline may kill it before.
        """
        return False

    @default_hook
    def on_terminate(self, reason: Reason) -> Any:  # noqa: ARG002 - for those who override it
        """Clean up at the end: after a stop, a shutdown, an exit signal or a crash, never after a kill.

        The default runs Pykka's hooks: `on_failure` after an exception, else `on_stop`. An exception in here becomes
        the exit reason.
        """
        error = self._cell.error
        if error is None:
            return cast("Any", self.on_stop)()
        return cast("Any", self.on_failure)(type(error), error, error.__traceback__)

    def describe_message(self, message: Any) -> str:
        """Describe a message for reports and `info()`. By default its type only: contents may be secret."""
        return type(message).__name__

    def format_state(self) -> str:
        """Describe the state for crash reports. By default the names of its attributes only."""
        return ", ".join(public_names(self))

    def get_state(self) -> Any:
        """Return its state to `ref.get_state()`: by default a copy of its public attributes."""
        return {name: getattr(self, name) for name in public_names(self)}

    # -- starting

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> ActorRef[Self]:
        """Start one, in the system of the running actor or else the process's default one.

        Raises:
            StartFailed: It did not come up.
            StartIgnored: It declined.
        """
        return current_system().start(cls, args, kwargs, timeout=cls.start_timeout)

    def start_link(
        self, actor_class: type[A], *args: Any, name: Name | None = None, timeout: float | None = 30.0, **kwargs: Any
    ) -> ActorRef[A]:
        """Start a child of this actor: linked from its first instant, and ended when this one ends."""
        return self.system.start(actor_class, args, kwargs, name=name, parent=self.actor_ref, timeout=timeout)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        # Started by a system the cell is there already, so that forgetting super().__init__() does no harm.
        if cast("Cell | None", self._cell) is None:
            self._cell = current_system().new_cell(type(self))
            self._cell.actor = self

    # -- what it is

    @property
    def actor_ref(self) -> ActorRef[Self]:
        """The reference others use."""
        return self._cell.ref

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """Pykka's unique name of the incarnation."""
        return urn_of(self._cell.epoch)

    @property
    def actor_inbox(self) -> Any:  # type: ignore[override]
        """Pykka's view of the mailbox."""
        return self._cell

    @property
    def actor_stopped(self) -> Any:  # type: ignore[override]
        """Pykka's flag: set when it takes no more messages."""
        return StoppedFlag(self._cell.ref)

    @property
    def system(self) -> ActorSystem:
        """The system it lives in."""
        return self._cell.system  # type: ignore[return-value]  # a cell knows no more of it than it needs

    @property
    def parent(self) -> ActorRef[Any] | None:
        """The actor that started it linked, if there is one."""
        above = self._cell.parent
        return None if above is None else above.ref

    @property
    def stopping(self) -> bool:
        """Whether a request to end waits, or it was killed: a long computation looks here and returns early."""
        return self._cell.ending is not None or self._cell.asked_to_end

    # -- ending

    def stop(self, reason: object = NORMAL) -> None:
        """End after the current message, before any waiting one."""
        self._cell.post_system(EndNow(as_reason(reason)))

    # -- links, monitors, timers

    def link(self, ref: ActorRef[Any]) -> None:
        """Tie this actor and another together: when one ends, the other gets an exit signal."""
        link(self._cell, ref.cell)

    def unlink(self, ref: ActorRef[Any]) -> bool:
        """Undo `link`. Parent and child stay linked. Returns whether there was a link."""
        return unlink(self._cell, ref.cell)

    def monitor(self, target: ActorRef[Any] | Name) -> Monitor:
        """Get one `Down` message when `target` ends; at once, with `NoProc`, if it is not there."""
        ref = self.system.whereis(target) if not isinstance(target, ActorRef) else target
        if ref is None:
            ref = self.system.ref_of_absent(Actor, cast("Name", target))
        return monitor(ref, self._cell)

    def send_after(self, delay: Duration, message: Any, to: ActorRef[Any] | None = None) -> Timer:
        """Send a message later, to oneself by default. It is dropped if the receiver has ended by then.

        Args:
            delay: Seconds, or a `timedelta`.
            message: What to send.
            to: The receiver.
        """
        return self.system.send_after(seconds(delay, "delay"), self.actor_ref if to is None else to, message)

    # -- answering later

    def reply_to(self, *, often_at_once: bool = False) -> ReplyTo:
        """Take the right to answer the current message later; then return `NO_REPLY`.

        If this actor ends before there is an answer, the asker gets `ActorDead`.

        Args:
            often_at_once: It often answers within this very hook, and never from another thread while the hook runs:
                cheaper then.
        """
        current = self._cell.runner.current
        asked: Future[Any] | None = None if current is None else current[1]
        return ReplyTo(self._cell, asked or Future(), often_at_once=often_at_once)

    # -- resources and waiting

    def own(self, resource: T, close: Callable[[], object] | None = None) -> T:
        """Close `resource` when this actor ends, however it ends; a kill waits for nothing else.

        Args:
            resource: A process, a socket, a file.
            close: How; by default its `kill`, `close` or `stop` method, the first it has.
        """
        if close is None:
            methods = (getattr(resource, name, None) for name in ("kill", "close", "stop"))
            close = next(filter(callable, methods), None)
            if close is None:
                raise ActorError(
                    f"{type(resource).__name__} has no kill, close or stop", hint="say how: own(x, close=...)"
                )
        cell = self._cell
        with topology:
            alive = cell.reason is None
            if alive:
                cell.owned = cell.owned or []
                cell.owned.append((resource, close))
        if not alive:  # killed meanwhile: closed at once, like the rest of what it owned
            cell.system.schedule(Release(cell, [(resource, close)]))
            raise ActorKilled(f"{cell.path} was killed")
        return resource

    def disown(self, resource: object) -> bool:
        """Undo `own`; return whether it was owned."""
        owned = self._cell.owned or []
        for pair in owned:
            if pair[0] is resource:
                owned.remove(pair)
                return True
        return False

    def sleep(self, seconds: float) -> bool:
        """Wait inside a hook, but no longer than until this actor is to end.

        Returns:
            Whether the whole time passed: `False` means "be done now".
        """
        return self._cell.sleep(seconds)

    # -- Pykka's seam for actor types

    @staticmethod
    def _create_actor_inbox() -> Any:
        raise AssertionError("the mailbox is part of the cell")

    @staticmethod
    def _create_future() -> Future[Any]:
        return Future()

    def _start_actor_loop(self) -> None:
        self.system.launch(self._cell)


class PykkaActor(Actor):
    """An actor that keeps Pykka's own rules, so that code written for `pykka.ThreadingActor` runs unchanged.

    The differences to `Actor`: every exception is answered to an asker and the actor lives on; a stop waits its turn
    behind the waiting messages; `start` does not wait for `on_start` and does not raise what that raised; the mailbox
    has no limit; failures are logged to the logger `pykka`; a `BaseException` stops every actor in Pykka's registry.
    """

    like_pykka: ClassVar[bool] = True
    mailbox_limit: ClassVar[int | None] = None

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> ActorRef[Self]:
        """Start one and return its ref at once."""
        return current_system().start_unawaited(cls, args, kwargs)

    def on_receive(self, message: Any) -> Any:
        """Handle a message; the default logs a warning, as Pykka's does."""
        return pykka.Actor.on_receive(self, message)

    def stop(self, reason: object = NORMAL) -> None:
        """End after the messages that wait now."""
        self.actor_ref.stop(block=False, reason=reason)


def public_names(actor: Actor) -> list[str]:
    """List the attributes an actor has set on itself for others to see."""
    return [name for name in vars(actor) if not name.startswith("_") and name != "on_receive"]


def current_actor() -> ActorRef[Any] | None:
    """Find the actor whose code calls this, if any."""
    cell = current_cell()
    return None if cell is None else cell.ref
