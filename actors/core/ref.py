"""References to actors: the only thing one actor holds of another; and what it learns of the other's end.

Ordering: an actor's notices arrive in the order things happened, and after everything the dead actor itself sent. A
class with `urgent_exits = True` (a supervisor) gets them in its system lane instead, before any waiting message.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import msgspec
import pykka

from mlld_sdk.actors.core.context import context, current_cell, fenced, stop_if_fenced, topology
from mlld_sdk.actors.core.errors import ActorDead, ActorError, AskTimeout, CallingSelf, MailboxFull
from mlld_sdk.actors.core.exits import NOPROC, NORMAL, SHUTDOWN, Killed, Reason, as_reason
from mlld_sdk.actors.core.future import PENDING, VALUE, Future
from mlld_sdk.actors.core.info import ActorInfo, Address
from mlld_sdk.actors.core.names import Name
from mlld_sdk.actors.core.protocols import AnyCell, System
from mlld_sdk.actors.core.system_messages import EndInTurn, EndNow, SystemRequest
from mlld_sdk.base.durations import seconds

A = TypeVar("A", bound=pykka.Actor)

MAX_INLINE_DEPTH = 8
"""How deep callers run slices of others in their own thread, for classes with `caller_runs = True`."""

_URN_PREFIX = uuid.uuid4().urn[:-12]


@dataclass(eq=False, repr=False, slots=True)
class Monitor:
    """The handle of one monitor; after `cancel()` no `Down` of it is seen.

    Attributes:
        ref: Who is watched.
    """

    ref: "ActorRef[Any]"
    watcher: AnyCell | None
    callback: "Callable[[Down], object] | None"
    first: bool = field(default=False, kw_only=True)
    cancelled: bool = field(default=False, init=False)

    def cancel(self) -> bool:
        """Stop watching, and drop a notice not handled yet; return whether the monitor was still in place."""
        with topology:
            self.cancelled = True
            target = self.ref.cell
            if self.watcher is not None and self.watcher.watching is not None:
                self.watcher.watching.pop(self, None)
            return target.monitors is not None and target.monitors.pop(self, self) is None

    def fire(self, reason: Reason) -> None:
        """Deliver the one notice: to the watcher's mailbox, or to the callback in this thread."""
        if self.cancelled:
            return
        down = Down(self, self.ref, reason)
        if self.watcher is not None:
            self.watcher.notify(down)
        elif self.callback is not None:
            try:
                self.callback(down)
            except BaseException as error:  # noqa: BLE001 - a watcher is never felt by the watched
                self.ref.cell.system.callback_failed(error)


class Exit(msgspec.Struct, frozen=True, gc=False):
    """A linked actor ended, or an exit signal was sent, and the receiver traps exits.

    Attributes:
        ref: The actor that ended or sent it; `None` for a signal from outside any actor.
        reason: Why.
    """

    ref: "ActorRef[Any] | None"
    reason: Reason


class Down(msgspec.Struct, frozen=True, gc=False):
    """A monitored actor ended, or was not there (`NoProc`). Sent exactly once for each monitor.

    Attributes:
        monitor: The handle that `monitor()` returned.
        ref: Who ended.
        reason: Why.
    """

    monitor: Monitor
    ref: "ActorRef[Any]"
    reason: Reason


class StoppedFlag:
    """What `actor_stopped` gives: the part of `threading.Event` that Pykka's users need, without an event."""

    __slots__ = ("_ref",)

    def __init__(self, ref: "ActorRef[Any]") -> None:
        self._ref = ref

    def is_set(self) -> bool:
        """Whether the actor takes no more messages."""
        return not self._ref.is_alive()

    def set(self) -> None:
        """Ask the actor to end after what it is doing."""
        self._ref.cell.post_system(EndNow(NORMAL))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end."""
        try:
            self._ref.join(timeout)
        except AskTimeout:
            return False
        return True


class ActorRef(pykka.ActorRef[A], Generic[A]):
    """One incarnation of an actor: (path, system, epoch). Everything `pykka.ActorRef` can do, and more.

    There is one ref for each incarnation, so refs compare by identity. A ref stays valid as a value after the end of
    its actor; what is sent to it then is refused.
    """

    __slots__ = ("cell",)

    def __init__(self, cell: AnyCell) -> None:
        # Not Pykka's __init__: what it stores is derived from the cell below.
        self.cell: AnyCell = cell
        cell.ref = self

    # -- what it is

    @property
    def actor_class(self) -> type[A]:  # type: ignore[override]
        """The class of the actor."""
        return cast("type[A]", self.cell.traits.actor_class)

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """Pykka's unique name of the incarnation."""
        return urn_of(self.cell.epoch)

    @property
    def actor_inbox(self) -> Any:  # type: ignore[override]
        """Pykka's view of the mailbox; send with `tell` and `ask` instead."""
        return self.cell

    @property
    def actor_stopped(self) -> Any:  # type: ignore[override]
        """Pykka's flag: set when the actor takes no more messages."""
        return StoppedFlag(self)

    @property
    def _actor_weakref(self) -> Callable[[], Any]:  # type: ignore[override]
        return lambda: self.cell.actor

    @property
    def path(self) -> str:
        """Names from the root of its tree down, with slashes."""
        return self.cell.path

    @property
    def name(self) -> Name | None:
        """The name it was started under."""
        name: Name | None = self.cell.name
        return name

    @property
    def epoch(self) -> int:
        """Number of this incarnation: unique in its system, growing."""
        return self.cell.epoch

    @property
    def system(self) -> System:
        """The system it lives in."""
        return self.cell.system

    @property
    def address(self) -> Address:
        """Where it is, as data."""
        return Address(self.cell.path, self.cell.system.id, self.cell.epoch)

    @property
    def parent(self) -> "ActorRef[Any] | None":
        """The actor that started it linked, if there is one."""
        above = self.cell.parent
        return None if above is None else above.ref

    @property
    def reason(self) -> Reason | None:
        """Why it ended, or `None` while that is not so."""
        return self.cell.reason

    def __str__(self) -> str:
        return f"{self.cell.traits.kind} ({self.actor_urn})"

    def __repr__(self) -> str:
        return f"<ActorRef for {self}>"

    def is_alive(self) -> bool:
        """Whether it takes messages. An actor that runs its stop hook takes none any more."""
        return self.cell.ending is None

    # -- talking to it

    def tell(self, message: Any) -> None:
        """Send without waiting for an answer.

        Raises:
            ActorDead: It is not there any more.
            MailboxFull: Its mailbox is full and refuses.
        """
        if fenced:
            stop_if_fenced()
        self.cell.mailbox.post((message, None))

    def cast(self, message: Any) -> None:
        """Send if possible; never raises. What cannot be delivered is dropped and counted."""
        try:
            self.tell(message)
        except (ActorDead, MailboxFull):
            self.cell.undelivered(message)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send and get the answer, with Pykka's rules: an exception is raised as it was.

        Args:
            message: What to send.
            block: Wait for the answer; else return a `Future` at once.
            timeout: Seconds to wait; `None` waits without limit.

        Raises:
            ActorDead: It is, or became, dead without answering.
            AskTimeout: No answer in time.
        """
        future: Future[Any] = Future(self.cell)
        if not block:
            self._send(message, future, block=False)
            return future
        return self._wait(message, future, timeout)

    def call(self, message: Any, *, timeout: float | None = 5.0) -> Any:
        """Send and wait for the answer, with OTP's rules.

        Raises:
            ActorCrashed: It crashed while serving this call; the original exception is the cause.
            ActorDead: It is, or became, dead without answering.
            AskTimeout: No answer in time; a late one is dropped and counted.
            CallingSelf: It is the caller itself.
            DeadlockDetected: Waiting would close a ring of waiting actors.
        """
        future: Future[Any] = Future(self.cell, wraps_crash=True)
        return self._wait(message, future, timeout)

    def request(self, message: Any) -> Future[Any]:
        """Send like `call` and return at once; the future raises what `call` would. It can be awaited."""
        future: Future[Any] = Future(self.cell, wraps_crash=True)
        self._send(message, future, block=False)
        return future

    def _send(self, message: Any, future: Future[Any], *, block: bool) -> None:
        """Post a request; a refusal becomes its answer. May handle it right here, if the class allows that."""
        if fenced:
            stop_if_fenced()
        cell = self.cell
        if cell.ending is not None:
            future.try_set_exception(cell.dead())
            return
        if block and cell.traits.caller_runs and context.depth < MAX_INLINE_DEPTH and not context.own_only:
            self._run_here(message, future)
            return
        try:
            cell.mailbox.post((message, future))
        except (ActorDead, MailboxFull) as refused:
            future.try_set_exception(refused)

    def _run_here(self, message: Any, future: Future[Any]) -> None:
        """Run the actor in the caller's thread if it is idle: two thread switches less."""
        cell, mailbox = self.cell, self.cell.mailbox
        entry = (message, future)
        if mailbox.limit is not None and mailbox.user.qsize() >= mailbox.limit and not mailbox.make_room(entry):
            return
        caller = context.cell
        if caller is not None:
            caller.before_waiting(future)
        try:
            if not mailbox.idle.acquire(False):  # it runs elsewhere just now
                mailbox.post_always(entry)
                return
            mailbox.user.put(entry)
            context.depth += 1
            try:
                cell.runner.run()
            finally:
                context.depth -= 1
        finally:
            if caller is not None:
                caller.waited()

    def _wait(self, message: Any, future: Future[Any], timeout: float | None) -> Any:
        if context.on_loop:
            raise ActorError("a blocking call on the event loop's thread", hint="await ref.request(message)")
        if context.cell is self.cell:
            raise CallingSelf(f"{self.path} waits for its own answer")
        self._send(message, future, block=True)
        if future.state == VALUE:
            return future.value
        if future.state != PENDING:
            return future.get()
        try:
            return future.get(timeout=timeout)
        except AskTimeout as late:
            if future.give_up(late):
                raise AskTimeout(f"{self.path} did not answer within {timeout} seconds", timeout=timeout) from None
            return future.get()
        except BaseException:
            future.cancel()  # it may still wait in the mailbox: a ring was found, the waiter was killed or interrupted
            raise

    # -- ending it

    def stop(
        self, *, block: bool = True, timeout: float | None = None, reason: object = NORMAL, drain: bool | None = None
    ) -> Any:
        """Ask it to end in an orderly way.

        It handles no waiting message any more (they are refused), unless `drain` asks it to handle first what is
        waiting now; that is the default of `PykkaActor` only.

        Args:
            block: Wait for its end; else return a future.
            timeout: Seconds to wait.
            reason: Its exit reason.
            drain: Handle what is waiting now, first.

        Returns:
            `True` when it ended, `False` when it had been dead before.
        """
        if fenced:
            stop_if_fenced()
        cell = self.cell
        done: Future[bool] = Future(cell)
        if cell.reason is not None:
            done.try_set(False)
        else:
            if block and context.cell is cell:
                raise CallingSelf(f"{self.path} waits for its own end", hint="use self.stop()")
            monitor(self, None, lambda _: done.try_set(True))
            if cell.traits.like_pykka if drain is None else drain:
                cell.mailbox.post_always((EndInTurn(as_reason(reason)), None))
            else:
                cell.post_system(EndNow(as_reason(reason)))
        return done.get(timeout=timeout) if block else done

    def exit(self, reason: object) -> None:
        """Send it an exit signal: a message if it traps exits, else deadly unless the reason is `normal`."""
        if fenced:
            stop_if_fenced()
        sender = current_cell()
        self.cell.signal(
            None if sender is None else sender.ref,
            as_reason(reason),
            from_parent=sender is not None and self.cell.parent is sender,
        )

    def kill(self, detail: str = "") -> bool:
        """End this incarnation now, whatever it is doing; no hook of it runs. Returns promptly.

        Its names are free, its links and monitors fired, its waiting messages answered "dead" when this returns. A
        handler that is still running has no effect any more, is listed in `system.zombies` and unwinds at its next
        use of the library. What it owned is closed.

        Returns:
            Whether it was still alive.
        """
        return self.cell.kill(Killed(detail))

    def shutdown(self, timeout: float | None = 5.0, reason: object = SHUTDOWN) -> Future[Reason]:
        """End it in an orderly way, and kill it if it has not ended in time; without waiting here.

        Args:
            timeout: Seconds it has; `None` gives it all the time, 0 kills at once.
            reason: Its exit reason, if it ends by itself.

        Returns:
            A future of the reason with which it really ended.
        """
        if fenced:
            stop_if_fenced()
        timeout, cell = seconds(timeout), self.cell
        done: Future[Reason] = Future(cell)
        if cell.reason is not None:
            done.try_set(cell.reason)
            return done
        timer = None
        if timeout is not None and timeout > 0:
            timer = cell.system.timers.after(timeout, lambda: self._kill_late(timeout, 2))

        def ended(down: Down) -> None:
            if timer is not None:
                timer.cancel()
            done.try_set(cell.reason or down.reason)

        monitor(self, None, ended)
        if timeout is not None and timeout <= 0:
            cell.kill(Killed("no time was left for an orderly end"))
        else:
            cell.post_system(EndNow(as_reason(reason)))
        return done

    def _kill_late(self, timeout: float, chances: int) -> None:
        """Kill at the deadline; one that is not even running was starved, not stuck, and gets a moment more."""
        cell = self.cell
        if chances and cell.ending is None and not cell.runner.is_running():
            cell.system.timers.after(0.05, lambda: self._kill_late(timeout, chances - 1))
        else:
            cell.kill(Killed(f"did not end within {timeout} seconds"))

    def join(self, timeout: float | None) -> Reason:
        """Wait for its end.

        Raises:
            AskTimeout: It did not end in time.
        """
        done: Future[Reason] = Future(self.cell)
        handle = monitor(self, None, lambda down: done.try_set(self.cell.reason or down.reason))
        try:
            return cast("Reason", done.get(timeout=timeout))
        finally:
            handle.cancel()

    # -- looking at it

    def monitor(self, callback: Callable[[Down], object]) -> Monitor:
        """Call `callback(down)` once, in the thread that ends it; at once if it is dead already.

        The callback must be quick and must not block. Inside an actor use `self.monitor(ref)`, which sends a message.
        """
        return monitor(self, None, callback)

    def info(self) -> ActorInfo:
        """Look at it from outside, without a message."""
        return cast("ActorInfo", self.cell.info())

    def suspend(self, timeout: float | None = 5.0) -> None:
        """Stop it from handling ordinary messages until `resume`; they wait."""
        self._between_messages(lambda cell: setattr(cell.mailbox, "paused", True), timeout)

    def resume(self, timeout: float | None = 5.0) -> None:
        """Let messages be handled again after `suspend`."""
        self._between_messages(lambda cell: setattr(cell.mailbox, "paused", False), timeout)

    def get_state(self, timeout: float | None = 5.0) -> Any:
        """Get what its `get_state` hook gives: by default a copy of its attributes."""
        return self._between_messages(lambda cell: cast("Any", cell.actor).get_state(), timeout)

    def replace_state(self, change: Callable[[Any], Any], timeout: float | None = 5.0) -> Any:
        """Run `change(actor)` as the actor, between two messages; a failure is the caller's, the actor goes on."""
        return self._between_messages(lambda cell: change(cell.actor), timeout)

    def trace(self, watch: Callable[[Any], object] | None, timeout: float | None = 5.0) -> None:
        """Call `watch(message)` with each message just before it is handled, as the actor; `None` ends it.

        It costs nothing while it is off. A `watch` that raises is reported and detached.
        """
        self._between_messages(lambda cell: _trace(cell, watch), timeout)

    def _between_messages(self, action: Callable[[AnyCell], Any], timeout: float | None) -> Any:
        if fenced:
            stop_if_fenced()
        if context.cell is self.cell:
            raise CallingSelf(f"{self.path} waits for itself", hint="use self directly")
        future: Future[Any] = Future(self.cell)
        if self.cell.ending is not None:
            raise self.cell.dead()
        self.cell.post_system(SystemRequest(action, future))
        return future.get(timeout=timeout)


def _trace(cell: AnyCell, watch: Callable[[Any], object] | None) -> None:
    actor = cell.actor
    assert actor is not None
    vars(actor).pop("on_receive", None)
    if watch is None:
        return
    receive = actor.on_receive

    def traced(message: Any) -> Any:
        try:
            watch(message)
        except Exception as error:  # noqa: BLE001 - a watcher is never felt by the watched
            vars(actor).pop("on_receive", None)
            cell.system.callback_failed(error)
        return receive(message)

    vars(actor)["on_receive"] = traced


def monitor(
    target: ActorRef[Any],
    watcher: AnyCell | None,
    callback: Callable[[Down], object] | None = None,
    *,
    first: bool = False,
) -> Monitor:
    """Watch `target`; if it has ended already the notice (with `NoProc`) comes at once.

    Callbacks that are `first` run before any other actor learns of the end: they clean up what was kept for the actor.
    """
    if fenced and not first:  # book-keeping half done must be finished, also by a killed actor's thread
        stop_if_fenced()
    handle = Monitor(target, watcher, callback, first=first)
    cell = target.cell
    with topology:
        alive = cell.reason is None
        if alive:
            cell.monitors = cell.monitors or {}
            cell.monitors[handle] = None
            if watcher is not None:
                watcher.watching = watcher.watching or {}
                watcher.watching[handle] = None
    if not alive:
        handle.fire(NOPROC)
    return handle


class ReplyTo:
    """The right to answer one request later, from anywhere, once; kept by value, it may be sent to other actors."""

    __slots__ = ("_cell", "_future")

    def __init__(self, cell: AnyCell, future: Future[Any], *, often_at_once: bool = False) -> None:
        self._cell = cell
        self._future = future
        if not often_at_once:
            cell.defer(future)

    def reply(self, value: Any = None) -> bool:
        """Answer, and return whether this was the first answer (a further one is dropped and counted)."""
        if fenced:
            stop_if_fenced()
        return self._answered(self._future.try_set(value))

    def fail(self, error: BaseException) -> bool:
        """Answer with an exception; return whether this was the first answer."""
        if fenced:
            stop_if_fenced()
        return self._answered(self._future.try_set_exception(error))

    def _answered(self, first: bool) -> bool:
        deferred = self._cell.deferred
        if deferred:
            deferred.pop(id(self._future), None)
        if not first:
            self._cell.system.counters.late()
        return first


def urn_of(epoch: int) -> str:
    """Make Pykka's URN of an incarnation: one random part for this process and the epoch."""
    return f"{_URN_PREFIX}{epoch:012x}"
