"""One incarnation of an actor, as it runs: its start, its loop, and what its hooks ask for.

A worker that gets a cell from the run queue calls `run`, which handles a slice of messages; the `_idle` flag of the
mailbox makes sure that no two workers do so at once. A hook that is a coroutine *parks* the cell: its flag stays held
while the coroutine runs on the event loop, and the cell comes back to the run queue with the outcome.
"""

from _thread import get_ident
from queue import Empty
from types import CoroutineType
from typing import Any, Final

from mlld_sdk.actors.core import events, pykka_compat
from mlld_sdk.actors.core.context import context
from mlld_sdk.actors.core.directives import UNSET, Continue, Idle, Ignore, NoReply, Reply, Stop
from mlld_sdk.actors.core.errors import ActorKilled, StartIgnored
from mlld_sdk.actors.core.exits import NORMAL, crash, reason_of
from mlld_sdk.actors.core.future import CANCELLED, PENDING
from mlld_sdk.actors.core.incarnation import RUNNING, STARTING, Life
from mlld_sdk.actors.core.links import Down, Revocable, topology
from mlld_sdk.actors.core.mailbox import Entry
from mlld_sdk.actors.core.scheduler import yield_processor
from mlld_sdk.actors.core.system_messages import SPECIAL, EndInTurn, IdleNow

DIRECTIVES: Final = frozenset({Reply, NoReply, Stop, Continue, Idle, Ignore, CoroutineType})
"""Classes of return values that mean more than an answer."""


class Cell(Life):
    """One incarnation. Everything here belongs to the runtime; users hold an `ActorRef`."""

    __slots__ = ()

    # -- running

    def run(self) -> None:
        """Handle one slice. Called by a worker, or by a caller for classes that allow it; never raises."""
        outer = context.cell
        context.cell = self
        self.thread = get_ident()
        try:
            more = self.context.run(self._slice)
        except ActorKilled:
            more = False
        except BaseException as error:  # noqa: BLE001 - the runtime's own code failed: that is this actor's crash
            self.finish(crash(error), error)
            more = False
        context.cell = outer
        self.thread = None
        if self.reason is not None:
            if self.condemned:
                # Killed meanwhile, maybe between taking a message and being seen to have it.
                self.system.zombies.ended(self)
                self.refuse_current()
            self.drain()
        if self.parked is not None:
            self.system.loop.run(self)
        elif more:
            self.schedule(self)
            yield_processor()
        else:
            self._idle.release()
            if self._has_work() and self._idle.acquire(False):
                self.schedule(self)

    def _slice(self) -> bool:
        """Handle up to `slice` messages; say whether to be scheduled again at once."""
        if self.resumed is not None:
            (then, value, error), self.resumed = self.resumed, None
            self.task = None
            then(value, error)
        if self.phase != RUNNING:
            if self.phase == STARTING and self.parked is None:
                self._begin()
            if self.phase != RUNNING:
                return False
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        user = self._user
        empty, take = user.empty, user.get_nowait
        handle = self.handle
        budget = self.traits.slice
        while self.parked is None:
            if self.alarm and not self._attend():
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
            if self.ending is not None:
                return False
        if self.parked is None:
            self._about_to_idle()
        return False

    def handle(self, entry: Entry) -> None:
        """Have the actor handle one message."""
        message, reply = entry
        if self._room is not None:
            self.call_waiting_senders()
        kind = message.__class__
        if kind is IdleNow:
            if message.handled == self.handled:
                self._run_hook("on_idle")
            return
        self.current = entry
        self.since = self.system.now()
        self.handled += 1
        if reply is not None and reply._state == CANCELLED:
            self.current = None
            return
        try:
            actor = self.actor
            result = actor.on_receive(message) if kind not in SPECIAL else self._receive_special(message)  # type: ignore[union-attr]
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this actor's alone
            self._failed(entry, error)
            return
        if result.__class__ in DIRECTIVES:
            self._obey(entry, result)
            return
        if reply is not None and not reply.try_set(result):
            self.system.counters.late()
        self.current = None

    def _receive_special(self, message: Any) -> Any:
        actor = self.actor
        assert actor is not None
        if message.__class__ is Down:
            return None if message.monitor.cancelled else actor.on_receive(message)
        if message.__class__ is Revocable:
            return None if message.handle.cancelled else actor.on_receive(message.message)
        if message.__class__ is EndInTurn:
            return Stop(message.reason)
        return pykka_compat.receive(actor, message)

    def _obey(self, entry: Entry | None, result: Any) -> None:
        """Do what a hook asked for by its return value; `entry` is the message it handled, if any."""
        reply = entry[1] if entry is not None else None
        if isinstance(result, NoReply):
            if reply is not None and reply._state == PENDING:
                self.defer(reply)
            self.current = None
            return
        if isinstance(result, CoroutineType):
            self.parked = (result, lambda value, error: self._resume_hook(entry, value, error))
            return
        if isinstance(result, Reply):
            if reply is not None and not reply.try_set(result.value):
                self.system.counters.late()
            reply = None
            result = result.then
        if isinstance(result, Stop):
            if reply is not None:
                self.last_answer = (reply, None if result.reply is UNSET else result.reply, False)
            self.end(result.reason)
            return
        if isinstance(result, Ignore):
            error = TypeError(f"{self.traits.kind} returned IGNORE, which only on_start may")
            self._failed(entry or (None, None), error)
            return
        if isinstance(result, Continue):
            self.pending = result
        elif isinstance(result, Idle):
            self.idle_next = result.after
        if reply is not None and not reply.try_set(None):
            self.system.counters.late()
        self.current = None

    def _run_hook(self, hook: str, *args: Any) -> None:
        """Run a hook that no message asked for."""
        try:
            result = getattr(self.actor, hook)(*args)
        except BaseException as error:  # noqa: BLE001 - as in handle
            self._failed((None, None), error)
            return
        if result.__class__ in DIRECTIVES:
            self._obey(None, result)

    def _resume_hook(self, entry: Entry | None, value: Any, error: BaseException | None) -> None:
        """Go on after a coroutine."""
        if self.reason is not None:
            return
        if error is not None:
            reply = entry[1] if entry is not None else None
            if reply is not None and reply._state == CANCELLED:
                self.current = None
                return
            self._failed(entry or (None, None), error)
        elif value.__class__ in DIRECTIVES:
            self._obey(entry, value)
        else:
            if entry is not None and entry[1] is not None and not entry[1].try_set(value):
                self.system.counters.late()
            self.current = None

    def _failed(self, entry: Entry, error: BaseException) -> None:
        """Decide what an exception out of a hook means: an answer, or the end of this incarnation."""
        reply = entry[1]
        if self.reason is not None:
            return
        if self.traits.like_pykka and pykka_compat.survives(self, reply, error):
            self.current = None
            return
        if isinstance(error, self.traits.answers):
            if reply is None:
                self.system.emit(
                    lambda at: events.ErrorUnheard(
                        at=at, actor=self.path, epoch=self.epoch, error=f"{type(error).__name__}: {error}"
                    )
                )
            elif not reply.try_set_exception(error):
                self.system.counters.late()
            self.current = None
            return
        if reply is not None:
            self.last_answer = (reply, error, True)
        self.end(reason_of(error), error)

    def _attend(self) -> bool:
        """Do what the system lane holds; say whether ordinary messages may go on."""
        self.alarm = False
        while (message := self.next_system()) is not None:
            message.handle(self)  # type: ignore[attr-defined]
            if self.ending is not None or self.parked is not None:
                self.alarm = True
                return self.ending is None
        if self.suspended:
            self.alarm = True
        return self.reason is None and not self.suspended

    def _about_to_idle(self) -> None:
        """Nothing is waiting: arm the idle hook."""
        self.overflowing = False
        after = self.idle_next if self.idle_next is not None else self.traits.idle_after
        self.idle_next = None
        if after is not None:
            token = IdleNow(self.handled)
            self.timer = self.system.timers.after(after, lambda: self.post_always((token, None)))

    # -- the start

    def _begin(self) -> None:
        """Run `on_start`; the starter waits for what comes of it."""
        assert self.actor is not None
        self.since = self.system.now()
        try:
            result = self.actor.on_start()
        except BaseException as error:  # noqa: BLE001 - a failed start, whatever it was
            self.begun(None, error)
            return
        self.begun(result, None)

    def begun(self, result: Any, error: BaseException | None) -> None:
        """Take the outcome of `on_start`: run, decline, or fail."""
        if self.reason is not None:
            return
        if isinstance(result, CoroutineType):
            self.parked = (result, self.begun)
            return
        if error is not None:
            if self.traits.like_pykka:
                pykka_compat.log_failure(self, error)
            self.finish(reason_of(error), error)
            return
        if isinstance(result, Ignore):
            self.finish(NORMAL, StartIgnored(f"{self.label} has nothing to do and did not start"))
            return
        if isinstance(result, Stop):
            self.finish(result.reason)
            return
        if isinstance(result, Continue):
            self.pending = result
        elif isinstance(result, Idle):
            self.idle_next = result.after
        elif result is not None:
            bad = TypeError(f"{self.traits.kind}.on_start returned {type(result).__name__}: not None or a directive")
            self.finish(crash(bad), bad)
            return
        self.started()

    def open(self) -> bool:
        """Let messages be handled: called by the starter of an actor that has no `on_start` to run.

        Returns:
            Whether it has started; else it was killed before.
        """
        has_started = self.started()
        self._idle.release()
        if self._has_work() and self._idle.acquire(False):
            self.schedule(self)
        return has_started

    def started(self) -> bool:
        """The start is over and went well, unless it was killed meanwhile; says which."""
        with topology:
            if self.reason is not None:
                return False
            self.phase = RUNNING
            starter, self.starter = self.starter, None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        system = self.system
        if system.listening:
            system.emit(lambda at: events.ActorStarted(at=at, actor=self.path, epoch=self.epoch, kind=self.traits.kind))
        if starter is not None:
            starter.try_set(self.ref)
        return True
