"""One incarnation of an actor, as the runtime sees it: its mailbox, its state, and the loop that runs it.

A worker that gets a cell from the run queue calls `run`, which handles a slice of messages; the `_idle` flag of the
mailbox makes sure that no two workers do so at once. A hook that is a coroutine *parks* the cell: its flag stays held
while the coroutine runs on the event loop, and the cell comes back to the run queue with the outcome.

The end has two steps. `end` closes the mailbox and runs the stop hook, in the actor. `finish` makes the end known,
exactly once whoever calls it: the actor itself after its stop hook, or a killer at any time.
"""

from _thread import get_ident
from collections.abc import Callable
from queue import Empty
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from mlld_sdk.actors import events, pykka_compat
from mlld_sdk.actors.context import context, current_cell, fenced
from mlld_sdk.actors.directives import UNSET, Continue, Idle, Ignore, NoReply, Reply, Stop
from mlld_sdk.actors.errors import (
    ActorCrashed,
    ActorDead,
    ActorKilled,
    CallingSelf,
    DeadlockDetected,
    StartFailed,
    StartIgnored,
)
from mlld_sdk.actors.exits import NOPROC, NORMAL, Crash, Killed, Reason, crash
from mlld_sdk.actors.future import CANCELLED, PENDING, Future
from mlld_sdk.actors.links import DEADLY, DELIVERED, Down, Exit, Monitor, effect_of, topology
from mlld_sdk.actors.mailbox import Entry, Mailbox, Overflow, SystemMessage
from mlld_sdk.actors.scheduler import yield_processor

if TYPE_CHECKING:
    from mlld_sdk.actors.actor import Actor
    from mlld_sdk.actors.names import Name
    from mlld_sdk.actors.ref import ActorRef
    from mlld_sdk.actors.system import ActorSystem
    from mlld_sdk.actors.timers import Timer
    from mlld_sdk.actors.traits import Traits

STARTING: Final = 0
RUNNING: Final = 1
STOPPING: Final = 2
DEAD: Final = 3

_LONGEST_RING: Final = 10_000
"""A search for a ring of waiting actors gives up after this many."""

Then = Callable[[Any, BaseException | None], object]
"""What goes on when a coroutine is done: takes its result and its exception."""


class IdleNow:
    """Posted by the idle timer; counts only if nothing was handled since the timer was set."""

    __slots__ = ("handled",)

    def __init__(self, handled: int) -> None:
        self.handled = handled


DIRECTIVES: Final = frozenset({Reply, NoReply, Stop, Continue, Idle, Ignore, CoroutineType})
SPECIAL: Final = frozenset({Down, IdleNow, *pykka_compat.MESSAGES})


class Cell(Mailbox):
    """One incarnation. Everything here belongs to the runtime; users hold an `ActorRef`."""

    __slots__ = (
        "__weakref__",
        "actor",
        "born",
        "current",
        "deferred",
        "ending",
        "epoch",
        "error",
        "handled",
        "idle_next",
        "idle_timer",
        "last_answer",
        "links",
        "monitors",
        "name",
        "overflowing",
        "owned",
        "parent",
        "parked",
        "pending",
        "phase",
        "reason",
        "ref",
        "resumed",
        "since",
        "sleeping",
        "starter",
        "suspended",
        "system",
        "task",
        "thread",
        "timers",
        "traits",
        "waiting",
        "watching",
    )

    def __init__(
        self, system: "ActorSystem", traits: "Traits", epoch: int, name: "Name | None", parent: "Cell | None"
    ) -> None:
        Mailbox.__init__(self, system.schedule, traits.limit)
        self.system = system
        self.traits = traits
        self.epoch = epoch
        self.name = name
        self.parent = parent
        self.ref: ActorRef[Any]
        self.actor: Actor | None = None
        self.phase = STARTING
        self.ending: Reason | None = None
        """Set when it takes nothing more: it is stopping, with this reason, or dead."""
        self.reason: Reason | None = None
        """Set when the end is known: it is dead."""
        self.error: BaseException | None = None
        """What it crashed with, while its stop hook runs."""
        self.handled = 0
        self.current: Entry | None = None
        self.since = self.born = system.now()
        self.links: dict[Cell, bool] | None = None
        """Who is linked; true for a child of this one."""
        self.monitors: dict[Monitor, None] | None = None
        self.watching: dict[Monitor, None] | None = None
        self.owned: list[tuple[Any, Callable[[], object]]] | None = None
        self.timers: dict[Timer, None] | None = None
        self.deferred: dict[int, Future[Any]] | None = None
        self.pending: Continue | None = None
        self.idle_next: float | None = None
        self.idle_timer: Timer | None = None
        self.last_answer: tuple[Future[Any], Any] | None = None
        self.starter: Future[Any] | None = None
        self.waiting: tuple[Future[Any], Callable[[], object] | None] | None = None
        self.thread: int | None = None
        """The thread that runs it right now."""
        self.sleeping: Future[bool] | None = None
        self.suspended = False
        self.parked: tuple[Any, Then] | None = None
        self.task: Any = None
        self.resumed: tuple[Then, Any, BaseException | None] | None = None
        self.overflowing = False
        self._idle.acquire()  # nobody runs it before its start is over

    # -- who it is

    @property
    def label(self) -> str:
        """Its own part of the path."""
        name = self.name
        if name is None:
            return f"{self.traits.kind}-{self.epoch}"
        return name if isinstance(name, str) else str(name.key)

    @property
    def path(self) -> str:
        """Names from the root of its tree down, with slashes."""
        parts = [self.label]
        above = self.parent
        while above is not None:
            parts.append(above.label)
            above = above.parent
        return "/".join(reversed(parts))

    def traps_exits(self) -> bool:
        """Whether exit signals become messages."""
        return self.actor is not None and bool(self.actor.trap_exit)

    # -- what a mailbox asks its owner

    def is_closed(self) -> bool:
        """Whether nothing is taken in any more."""
        return self.ending is not None

    def dead(self) -> ActorDead:
        """Make the error for those whose message will not be handled."""
        return ActorDead(f"{self.ref} not found", reason=self.reason or self.ending)

    def overflow_policy(self) -> tuple[Overflow, float]:
        """Say what its class wants beyond the limit."""
        return self.traits.overflow, self.traits.overflow_timeout

    def overflowed(self) -> None:
        """Say so once, until the mailbox has been empty again."""
        if not self.overflowing:
            self.overflowing = True
            system = self.system
            system.emit(
                lambda at: events.MailboxOverflowed(
                    at=at, actor=self.path, epoch=self.epoch, limit=self.limit or 0, policy=self.traits.overflow
                )
            )

    def undelivered(self, message: Any) -> None:
        """Count a message that nobody will handle."""
        if message.__class__ not in SPECIAL:
            self.system.counters.dropped()

    def post(self, entry: Entry) -> None:
        """Put a message in; the hot path, so the mailbox's own version is spelled out for speed."""
        if self.ending is not None:
            raise self.dead()
        if self.limit is not None and self._user.qsize() >= self.limit and not self.make_room(entry):
            return
        self._user.put(entry)
        if self._idle.acquire(False):
            self.schedule(self)
        elif self.ending is not None:
            self.drain()

    # -- Pykka's idea of an inbox

    def put(self, envelope: Any) -> None:
        """Put in one of Pykka's envelopes."""
        self.post((envelope.message, envelope.reply_to))

    def empty(self) -> bool:
        """Whether no message waits."""
        return self._user.empty()

    # -- running

    def run(self) -> None:
        """Handle one slice. Called by a worker, or by a caller for classes that allow it; never raises."""
        outer = context.cell
        context.cell = self
        self.thread = get_ident()
        try:
            more = self._slice()
        except ActorKilled:
            more = False
        except BaseException as error:  # noqa: BLE001 - the runtime's own code failed: that is this actor's crash
            self.finish(crash(error), error)
            more = False
        context.cell = outer
        self.thread = None
        if self.reason is not None:
            self.system.zombies.ended(self)
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

    def _has_work(self) -> bool:
        if not self._user.empty():
            return not self.suspended or self.ending is not None
        return self._system is not None and not self._system.empty()

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
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None
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
        if reply is not None and reply._state == CANCELLED:  # noqa: SLF001 - the future is this runtime's own
            self.current = None
            return
        try:
            if kind in SPECIAL:
                result = self._receive_special(message)
            else:
                result = self.actor.on_receive(message)  # type: ignore[union-attr]
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
        return pykka_compat.receive(actor, message)

    def _obey(self, entry: Entry | None, result: Any) -> None:
        """Do what a hook asked for by its return value; `entry` is the message it handled, if any."""
        reply = entry[1] if entry is not None else None
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
                self.last_answer = (reply, None if result.reply is UNSET else result.reply)
            self.end(result.reason)
            return
        if isinstance(result, NoReply):
            if reply is not None and not reply.done:
                self.defer(reply)
        elif isinstance(result, Ignore):
            error = TypeError(f"{self.traits.kind} returned IGNORE, which only on_start may")
            self._failed(entry or (None, None), error)
            return
        else:
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
            if reply is not None and reply._state == CANCELLED:  # noqa: SLF001 - the future is this runtime's own
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
            self.last_answer = (reply, error)
        self.end(crash(error), error)

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
            self.idle_timer = self.system.timers.after(after, lambda: self.post_always((token, None)))

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
            self.finish(crash(error), error)
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

    def open(self) -> None:
        """Let messages be handled: called by the starter of an actor that has no `on_start` to run."""
        self.started()
        self._idle.release()
        if self._has_work() and self._idle.acquire(False):
            self.schedule(self)

    def started(self) -> None:
        """The start is over and went well."""
        self.phase = RUNNING
        system = self.system
        if system.listening:
            system.emit(lambda at: events.ActorStarted(at=at, actor=self.path, epoch=self.epoch, kind=self.traits.kind))
        starter, self.starter = self.starter, None
        if starter is not None:
            starter.try_set(self.ref)

    # -- the end

    def end(self, reason: Reason, error: BaseException | None = None) -> None:
        """End in an orderly way: take nothing more, run the stop hook, then make it known."""
        with topology:
            if self.ending is not None:
                return
            self.ending = reason
            self.phase = STOPPING
        self.error = error
        if self.traits.like_pykka:
            pykka_compat.closing(self, error)
        if not self.traits.terminates:
            self.finish(reason, error)
            return
        self.since = self.system.now()
        try:
            result = self.actor.on_terminate(reason)  # type: ignore[union-attr,func-returns-value]
        except BaseException as second:  # noqa: BLE001 - a failing stop hook replaces the reason
            self._terminated(None, second)
            return
        if isinstance(result, CoroutineType):
            self.parked = (result, self._terminated)
        else:
            self._terminated(None, None)

    def _terminated(self, _: Any, error: BaseException | None) -> None:
        reason = self.ending
        assert reason is not None
        if error is not None:
            if self.traits.like_pykka:
                pykka_compat.log_failure(self, error)
            reason = crash(error)
        self.finish(reason, error or self.error)

    def finish(self, reason: Reason, error: BaseException | None = None) -> bool:
        """Make the end known: once, whoever comes first. Returns whether this call was the one."""
        with topology:
            if self.reason is not None:
                return False
            had_started = self.phase != STARTING
            self.ending = self.reason = reason
            self.phase = DEAD
            links, self.links = self.links, None
            monitors, self.monitors = self.monitors, None
            watching, self.watching = self.watching, None
            for other in links or ():
                if other.links is not None:
                    other.links.pop(self, None)
            parent = self.parent
            if parent is not None and parent.links is not None:
                parent.links.pop(self, None)
            for handle in watching or ():
                target = handle.ref.cell
                if target.monitors is not None:
                    target.monitors.pop(handle, None)
        self.alarm = True
        system = self.system
        system.forget(self)
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        for timer in list(self.timers or ()):
            timer.cancel()
        last = self.current
        refused = self._answer_all(reason, error)
        if system.listening:
            system.emit(lambda at: self._report(at, reason, error, had_started, last, refused))
        if self.owned is not None:
            system.release(self)
        starter, self.starter = self.starter, None
        if starter is not None:
            self._tell_starter(starter, reason, error)
        # Children last to first, so that what was started later is told first.
        for other in reversed(list(links or ())):
            other.signal(self.ref, reason, from_parent=bool(other.parent is self))
        if parent is not None and had_started:
            parent.signal(self.ref, reason)
        for handle in monitors or ():
            handle.fire(reason)
        self.timers = None
        self.error = None
        self.actor = None
        return True

    def _answer_all(self, reason: Reason, error: BaseException | None) -> int:
        """Answer everybody who still waits for this actor; count the messages refused."""
        if self.last_answer is not None:
            (reply, value), self.last_answer = self.last_answer, None
            if isinstance(value, BaseException):
                if value is error and reply.wraps_crash:
                    crashed = ActorCrashed(f"{self.label} crashed: {reason}", reason=reason)
                    crashed.__cause__ = value
                    reply.try_set_exception(crashed)
                else:
                    reply.try_set_exception(value)
            else:
                reply.try_set(value)
        current = self.current
        if current is not None and current[1] is not None:
            current[1].try_set_exception(self.dead())
        for future in list((self.deferred or {}).values()):
            future.try_set_exception(self.dead())
        self.deferred = None
        return self.drain()

    def _tell_starter(self, starter: Future[Any], reason: Reason, error: BaseException | None) -> None:
        if isinstance(error, StartIgnored | StartFailed):
            starter.try_set_exception(error)
            return
        failed = StartFailed(f"{self.label} did not start: {reason}", reason=reason)
        failed.__cause__ = error
        starter.try_set_exception(failed)

    def _report(
        self,
        at: float,
        reason: Reason,
        error: BaseException | None,
        had_started: bool,  # noqa: FBT001 - an internal fact, not an option
        last: Entry | None,
        refused: int,
    ) -> events.Event:
        if not had_started:
            return events.ActorStartFailed(
                at=at,
                actor=self.path,
                epoch=self.epoch,
                kind=self.traits.kind,
                reason=str(reason),
                ignored=isinstance(error, StartIgnored),
            )
        normal = reason.is_normal_family
        return events.ActorExited(
            at=at,
            actor=self.path,
            epoch=self.epoch,
            kind=self.traits.kind,
            reason=str(reason),
            normal=normal,
            trace=reason.trace if isinstance(reason, Crash) else "",
            last_message="" if normal or last is None else self.describe(last[0]),
            state="" if normal else self._described_state(),
            queued=refused,
        )

    def describe(self, message: Any) -> str:
        """Say what a message is, the way the class wants it said; never raises."""
        try:
            return str(self.actor.describe_message(message))[:200] if self.actor else type(message).__name__
        except Exception as error:  # noqa: BLE001 - a report must not fail
            return f"<describe_message raised {type(error).__name__}>"

    def _described_state(self) -> str:
        try:
            return str(self.actor.format_state())[:2_000] if self.actor else ""
        except Exception as error:  # noqa: BLE001 - a report must not fail
            return f"<format_state raised {type(error).__name__}>"

    def kill(self, reason: Reason, error: BaseException | None = None) -> bool:
        """Fence this incarnation: its end is known now, and whatever still runs of it has no effect any more."""
        if not self.finish(reason, error):
            return False
        self.system.zombies.add_if_running(self)
        waiting = self.waiting
        if waiting is not None and waiting[1] is not None:
            waiting[1]()
        if self.task is not None:
            self.system.loop.cancel(self)
        if current_cell() is self:
            raise ActorKilled(f"{self.path} killed itself")
        return True

    # -- signals and notices

    def signal(self, sender: "ActorRef[Any] | None", reason: Reason, *, from_parent: bool = False) -> None:
        """Take an exit signal: ignore it, pass it on as a message, or die of it."""
        effect = effect_of(reason, traps=self.traps_exits(), from_parent=from_parent)
        if effect == DELIVERED:
            self.notify(Exit(sender, reason))
        elif effect == DEADLY:
            self.post_system(EndNow(reason))

    def notify(self, notice: Exit | Down) -> None:
        """Deliver a notice in the lane the class wants it in."""
        if self.traits.urgent_exits:
            self.post_system(Notice(notice))
        else:
            self.post_always((notice, None))

    # -- waiting for others

    def before_waiting(self, future: Future[Any]) -> None:
        """Refuse to wait for oneself, or to close a ring of actors that wait for each other."""
        if self.reason is not None:
            raise ActorKilled(f"{self.path} was killed")
        target = future._target  # noqa: SLF001 - the future is this runtime's own
        if target is None:
            return
        if target is self:
            raise CallingSelf(
                f"{self.path} waits for its own answer", hint="call the method directly, or tell instead of ask"
            )
        self.waiting = (future, None)
        ring = [self]
        step: tuple[Future[Any], Any] | None = self.waiting
        while step is not None and step[0]._state == PENDING and len(ring) < _LONGEST_RING:  # noqa: SLF001
            target = step[0]._target  # noqa: SLF001
            if target is None:
                return
            if target is self:
                self.waiting = None
                raise DeadlockDetected([cell.path for cell in ring])
            ring.append(target)
            step = target.waiting

    def waits(self, future: Future[Any], wake: Callable[[], object]) -> None:
        """Be known to wait, so that a kill can wake the thread and rings can be seen."""
        self.waiting = (future, wake)
        if self.reason is not None:
            raise ActorKilled(f"{self.path} was killed")

    def waited(self) -> None:
        """The wait is over."""
        self.waiting = None
        if self.reason is not None and self in fenced:
            raise ActorKilled(f"{self.path} was killed while it waited")

    def end_requested(self) -> bool:
        """Whether a request to end waits in the system lane."""
        return self.alarm and self.queued()[1] > 0

    def sleep(self, seconds: float) -> bool:
        """Wait as this actor, until the time has passed or something urgent came; says whether it passed."""
        gate: Future[bool] = Future()
        if self.end_requested():
            return False
        timer = self.system.timers.after(seconds, lambda: gate.try_set(True))
        self.sleeping = gate
        try:
            if self.end_requested():
                return False
            return bool(gate.get(timeout=None))
        finally:
            self.sleeping = None
            timer.cancel()

    def post_system(self, message: SystemMessage) -> None:
        """Put something into the system lane, and wake the actor from `sleep`."""
        Mailbox.post_system(self, message)
        gate = self.sleeping
        if gate is not None:
            gate.try_set(False)

    def defer(self, future: Future[Any]) -> None:
        """Keep a future that is answered later, so that the end of this actor answers it."""
        future._target = None  # noqa: SLF001 - from now on anybody may answer it, so it proves no ring
        with topology:
            if self.reason is None:
                if self.deferred is None:
                    self.deferred = {}
                self.deferred[id(future)] = future
                return
        future.try_set_exception(self.dead())

    def call_cancelled(self, future: Future[Any]) -> None:
        """A caller gave up: stop a coroutine that works for it."""
        current = self.current
        if current is not None and current[1] is future and self.task is not None:
            self.system.loop.cancel(self)


class EndNow(SystemMessage):
    """End with this reason before any other message."""

    __slots__ = ("_reason",)

    def __init__(self, reason: Reason) -> None:
        self._reason = reason

    def handle(self, cell: Cell) -> None:
        """End it."""
        cell.end(self._reason)


class Notice(SystemMessage):
    """An exit or down notice for a class that wants it before its waiting messages."""

    __slots__ = ("_notice",)

    def __init__(self, notice: Exit | Down) -> None:
        self._notice = notice

    def handle(self, cell: Cell) -> None:
        """Have the actor handle it."""
        cell.handle((self._notice, None))


class Request(SystemMessage):
    """Something to do with the actor between two messages, with an answer: suspend, look, replace."""

    __slots__ = ("_action", "_reply")

    def __init__(self, action: Callable[[Cell], Any], reply: Future[Any]) -> None:
        self._action = action
        self._reply = reply

    def handle(self, cell: Cell) -> None:
        """Do it and answer; a failure is the asker's, not the actor's."""
        try:
            self._reply.try_set(self._action(cell))
        except Exception as error:  # noqa: BLE001 - passed on
            self._reply.try_set_exception(error)

    def refuse(self, why: ActorDead) -> None:
        """Answer that the actor is dead."""
        self._reply.try_set_exception(why)


__all__ = ["DEAD", "NOPROC", "RUNNING", "STARTING", "STOPPING", "Cell", "EndNow", "Killed", "Notice", "Request"]
