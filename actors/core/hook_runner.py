"""What runs an actor's hooks: its start, its messages, its end, and what the hooks ask for by what they return.

A worker that gets a runner from the run queue calls `run`, which handles a slice of messages; the `idle` flag of the
mailbox makes sure that no two workers do so at once. A hook that is a coroutine *parks* the runner: the flag stays held
while the coroutine runs on the event loop, and the runner comes back to the run queue with the outcome.
"""

import os
from _thread import get_ident
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from queue import Empty
from types import CoroutineType
from typing import Any, Final

from mlld_sdk.actors.core import events, pykka_compat
from mlld_sdk.actors.core.context import context
from mlld_sdk.actors.core.directives import UNSET, Continue, Idle, Ignore, NoReply, Reply, Stop
from mlld_sdk.actors.core.errors import ActorKilled, StartIgnored
from mlld_sdk.actors.core.exits import FORKED, NORMAL, Reason, crash, reason_of
from mlld_sdk.actors.core.future import CANCELLED, PENDING, Future
from mlld_sdk.actors.core.links import SPECIAL, Revocable
from mlld_sdk.actors.core.mailbox import Entry, take
from mlld_sdk.actors.core.protocols import RUNNING, STARTING, AnyCell
from mlld_sdk.actors.core.ref import Down
from mlld_sdk.actors.core.scheduler import yield_processor
from mlld_sdk.actors.core.system_messages import EndInTurn, IdleNow
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.base.texts import text_of_error

DIRECTIVES: Final = frozenset({Reply, NoReply, Stop, Continue, Idle, Ignore, CoroutineType})
"""Classes of return values that mean more than an answer."""

EXIT_OF_COPIES: Final = 70
"""Exit status of a forked copy whose hook has come back; `sysexits.h` calls it an internal software error."""

Then = Callable[[Any, BaseException | None], object]
"""What goes on when a coroutine is done: takes its result and its exception."""


def leave_copy(reason: Reason | None) -> None:
    """End the process if it is a copy that the hook just run has forked, and has come back in.

    Nothing of the actors works in a copy but the one thread that forked; going on it would live for ever, idle.
    """
    if reason is FORKED:
        os._exit(EXIT_OF_COPIES)


@dataclass(eq=False, repr=False, slots=True)
class HookRunner:
    """Runs the hooks of one actor, one at a time, on whichever worker calls it.

    Attributes:
        current: The message that is being handled.
        handled: Messages handled so far.
        since: When it began with what it is doing.
        thread: The thread that runs it right now.
        task: The coroutine of a hook that is running.
        parked: A coroutine to run next, and what follows it.
        resumed: What a coroutine came to, and what follows it.
        pending: The `Continue` that comes before any message.
        idle_next: Seconds after which `on_idle` runs, when a hook returned `Idle`.
        timer: Limits the start; later, arms the idle hook.
        context: Variables set by hooks stay with the actor and do not leak to others on the same worker.
    """

    cell: AnyCell
    since: float
    context: Context | None = None
    current: Entry | None = None
    handled: int = 0
    idle_next: float | None = None
    parked: tuple[Any, Then] | None = None
    pending: Continue | None = None
    resumed: tuple[Then, Any, BaseException | None] | None = None
    task: Any = None
    thread: int | None = None
    timer: Timer | None = None

    @property
    def never_blocks(self) -> bool:
        """Whether its hooks never block, by the word of its class."""
        return self.cell.traits.caller_runs

    def is_running(self) -> bool:
        """Return whether code of the actor runs right now."""
        return self.thread is not None or self.task is not None

    def run(self) -> None:
        """Handle one slice. Called by a worker, or by a caller for classes that allow it; never raises."""
        cell, outer = self.cell, context.cell
        context.cell = cell
        self.thread = get_ident()
        try:
            variables = self.context
            if variables is None:
                variables = self.context = Context()
            more = variables.run(self._slice)
        except ActorKilled:
            more = False
        except BaseException as error:  # noqa: BLE001 - the runtime's own code failed: that is this actor's crash
            cell.finish(crash(error), error)
            more = False
        finally:
            context.cell = outer
            self.thread = None
        mailbox = cell.mailbox
        if cell.reason is not None:
            leave_copy(cell.reason)
            if cell.condemned:
                # Killed meanwhile, maybe between taking a message and being seen to have it.
                cell.system.zombies.ended(cell)
                self.refuse_current()
            mailbox.drain()
        if self.parked is not None:
            cell.system.loop.run(self)
        elif more:
            mailbox.schedule(self)
            yield_processor()
        else:
            mailbox.let_go()

    def _slice(self) -> bool:
        """Handle up to `slice` messages; return whether to be scheduled again at once."""
        cell = self.cell
        if (self.resumed is not None or cell.phase != RUNNING) and not self._take_up():
            return False
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        mailbox = cell.mailbox
        empty, take = mailbox.user.empty, mailbox.user.get_nowait
        handle = self.handle
        budget = cell.traits.slice
        while self.parked is None:
            if mailbox.alarm and not self._attend():
                return False
            if self.pending is not None:
                step, self.pending = self.pending, None
                self._run_hook("on_continue", step.value)
            elif empty():
                break
            elif budget == 0:
                return True
            else:
                budget -= 1
                try:
                    entry = take()
                except Empty:
                    break
                handle(entry)
            if cell.ending is not None:
                return False
        if self.parked is None:
            cell.overflowing = False
            after = self.idle_next if self.idle_next is not None else cell.traits.idle_after
            if after is not None:
                self._arm_idle(after)
        return False

    def _take_up(self) -> bool:
        """Go on after a coroutine, or begin; return whether messages may be handled."""
        if self.resumed is not None:
            (then, value, error), self.resumed = self.resumed, None
            self.task = None
            then(value, error)
        if self.cell.phase == STARTING and self.parked is None:
            self._begin()
        return self.cell.phase == RUNNING

    def handle(self, entry: Entry) -> None:
        """Call the actor's handler with one message."""
        message, reply = entry
        cell = self.cell
        if cell.mailbox.room is not None:
            cell.mailbox.call_waiting_senders()
        kind = message.__class__
        if kind is IdleNow:
            if message.handled == self.handled:
                self._run_hook("on_idle")
            return
        self.current = entry
        self.since = cell.system.now()
        self.handled += 1
        if reply is not None and reply.state == CANCELLED:
            self.current = None
            return
        try:
            actor = cell.actor
            result = actor.on_receive(message) if kind not in SPECIAL else self._receive_special(message)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this actor's alone
            self._failed(reply, error)
            return
        if result.__class__ in DIRECTIVES:
            self._obey(reply, result)
            return
        if reply is not None and not reply.try_set(result):
            cell.system.counters.late()
        self.current = None

    def _receive_special(self, message: Any) -> Any:
        actor = self.cell.actor
        if message.__class__ is Down:
            return None if message.monitor.cancelled else actor.on_receive(message)
        if message.__class__ is Revocable:
            return None if message.handle.cancelled else actor.on_receive(message.message)
        if message.__class__ is EndInTurn:
            return Stop(message.reason)
        return pykka_compat.receive(actor, message)

    def _obey(self, reply: Future[Any] | None, result: Any) -> None:
        """Do what a hook asked for by its return value; `reply` takes the answer to the message, if one is wanted."""
        if isinstance(result, NoReply):
            if reply is not None and reply.state == PENDING:
                self.cell.defer(reply)
            self.current = None
            return
        if isinstance(result, CoroutineType):
            self.parked = (result, lambda value, error: self._resume_hook(reply, value, error))
            return
        if isinstance(result, Reply):
            if reply is not None and not reply.try_set(result.value):
                self.cell.system.counters.late()
            reply = None
            result = result.then
        if isinstance(result, Stop):
            if reply is not None:
                self.cell.last_answer = (reply, None if result.reply is UNSET else result.reply, False)
            self.cell.end(result.reason)
            return
        if isinstance(result, Ignore):
            self._failed(reply, TypeError(f"{self.cell.traits.kind} returned IGNORE, which only on_start may"))
            return
        if isinstance(result, Continue):
            self.pending = result
        elif isinstance(result, Idle):
            self.idle_next = result.after
        if reply is not None and not reply.try_set(None):
            self.cell.system.counters.late()
        self.current = None

    def _run_hook(self, hook: str, *args: Any) -> None:
        """Run a hook that no message asked for."""
        try:
            result = getattr(self.cell.actor, hook)(*args)
        except BaseException as error:  # noqa: BLE001 - as in handle
            self._failed(None, error)
            return
        if result.__class__ in DIRECTIVES:
            self._obey(None, result)

    def _resume_hook(self, reply: Future[Any] | None, value: Any, error: BaseException | None) -> None:
        """Go on after a coroutine."""
        if self.cell.reason is not None:
            return
        if error is not None:
            if reply is None or reply.state != CANCELLED:
                self._failed(reply, error)
                return
        elif value.__class__ in DIRECTIVES:
            self._obey(reply, value)
            return
        elif reply is not None and not reply.try_set(value):
            self.cell.system.counters.late()
        self.current = None

    def _failed(self, reply: Future[Any] | None, error: BaseException) -> None:
        """Decide what an exception out of a hook means: an answer, or the end of this incarnation."""
        if self.cell.reason is not None:
            return
        if self.cell.traits.like_pykka and pykka_compat.survives(self.cell, reply, error):
            self.current = None
            return
        if isinstance(error, self.cell.traits.answers):
            if reply is None:
                self.cell.system.emit(
                    lambda at: events.ErrorUnheard(
                        at=at,
                        actor=self.cell.path,
                        epoch=self.cell.epoch,
                        error=text_of_error(error),
                    )
                )
            elif not reply.try_set_exception(error):
                self.cell.system.counters.late()
            self.current = None
            return
        if reply is not None:
            self.cell.last_answer = (reply, error, True)
        self.cell.end(reason_of(error), error)

    def _attend(self) -> bool:
        """Do what the system lane holds; return whether ordinary messages may go on."""
        cell, mailbox = self.cell, self.cell.mailbox
        mailbox.alarm = False
        while (message := take(mailbox.system_lane)) is not None:
            message.handle(cell)
            if cell.ending is not None or self.parked is not None:
                mailbox.alarm = True
                return cell.ending is None
        if mailbox.paused:
            mailbox.alarm = True
        return cell.reason is None and not mailbox.paused

    def _arm_idle(self, after: float) -> None:
        """Arm the idle hook: it runs unless a message comes within `after` seconds."""
        self.idle_next = None
        token, post = IdleNow(self.handled), self.cell.mailbox.post_always
        self.timer = self.cell.system.timers.after(after, lambda: post((token, None)))

    def refuse_current(self) -> None:
        """Answer "dead" to the message that was being handled, if nothing else has been answered."""
        current = self.current
        if current is not None and current[1] is not None and not current[1].done:
            current[1].try_set_exception(self.cell.dead())

    def _begin(self) -> None:
        """Run `on_start`; the starter waits for what comes of it."""
        self.since = self.cell.system.now()
        try:
            result = self.cell.actor.on_start()
        except BaseException as error:  # noqa: BLE001 - a failed start, whatever it was
            self.begun(None, error)
            return
        self.begun(result, None)

    def begun(self, result: Any, error: BaseException | None) -> None:
        """Take the outcome of `on_start`: run, decline, or fail."""
        cell = self.cell
        if cell.reason is not None:
            return
        if isinstance(result, CoroutineType):
            self.parked = (result, self.begun)
            return
        if error is not None:
            if cell.traits.like_pykka:
                pykka_compat.log_failure(cell, error)
            cell.finish(reason_of(error), error)
            return
        if isinstance(result, Ignore):
            cell.finish(NORMAL, StartIgnored(f"{cell.label} has nothing to do and did not start"))
            return
        if isinstance(result, Stop):
            cell.finish(result.reason)
            return
        if isinstance(result, Continue):
            self.pending = result
        elif isinstance(result, Idle):
            self.idle_next = result.after
        elif result is not None:
            bad = TypeError(f"{cell.traits.kind}.on_start returned {type(result).__name__}: not None or a directive")
            cell.finish(crash(bad), bad)
            return
        cell.started()
