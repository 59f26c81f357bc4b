"""The life of one incarnation: who it is, whom it is tied to, and how it ends.

The end has two steps. `end` closes the mailbox and runs the stop hook, in the actor. `finish` makes the end known,
exactly once whoever calls it: the actor itself after its stop hook, or a killer at any time.
"""

from collections.abc import Callable
from contextvars import Context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, Protocol

from mlld_sdk.actors.core import events, pykka_compat
from mlld_sdk.actors.core.context import current_cell, fenced
from mlld_sdk.actors.core.directives import Continue
from mlld_sdk.actors.core.errors import (
    ActorCrashed,
    ActorDead,
    ActorKilled,
    CallingSelf,
    DeadlockDetected,
    StartFailed,
    StartIgnored,
)
from mlld_sdk.actors.core.exits import Reason, crash, reason_of
from mlld_sdk.actors.core.future import PENDING, Future
from mlld_sdk.actors.core.links import DEADLY, DELIVERED, Down, Exit, Monitor, effect_of, topology
from mlld_sdk.actors.core.mailbox import Entry, Mailbox, Overflow, SystemMessage
from mlld_sdk.actors.core.reports import end_report
from mlld_sdk.actors.core.system_messages import SPECIAL, EndNow, Notice

if TYPE_CHECKING:
    from mlld_sdk.actors.core.actor import Actor
    from mlld_sdk.actors.core.class_options import Traits
    from mlld_sdk.actors.core.names import Name
    from mlld_sdk.actors.core.ref import ActorRef
    from mlld_sdk.actors.core.system import ActorSystem
    from mlld_sdk.actors.core.timers import Timer

STARTING: Final = 0
RUNNING: Final = 1
STOPPING: Final = 2
DEAD: Final = 3

_LONGEST_RING: Final = 10_000
"""A search for a ring of waiting actors gives up after this many."""

Then = Callable[[Any, BaseException | None], object]
"""What goes on when a coroutine is done: takes its result and its exception."""


class Starter(Protocol):
    """Whoever waits for the outcome of a start: a future, or a supervisor's note. It is told exactly once."""

    def try_set(self, ref: Any) -> object:
        """Be told that the actor is up."""

    def try_set_exception(self, error: BaseException) -> object:
        """Be told that it is not, and why."""


class Life(Mailbox):
    """One incarnation, without the loop that runs it."""

    __slots__ = (
        "__weakref__",
        "actor",
        "asked_to_end",
        "born",
        "condemned",
        "context",
        "current",
        "deferred",
        "ending",
        "epoch",
        "error",
        "handled",
        "idle_next",
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
        "segment",
        "since",
        "sleeping",
        "starter",
        "suspended",
        "system",
        "task",
        "thread",
        "timer",
        "timers",
        "traits",
        "waiting",
        "watching",
    )

    def __init__(
        self, system: "ActorSystem", traits: "Traits", epoch: int, name: "Name | None", parent: "Life | None"
    ) -> None:
        Mailbox.__init__(self, system.schedule, traits.limit)
        self.system = system
        self.traits = traits
        self.epoch = epoch
        self.name = name
        self.segment: str | None = None
        """Its own part of the path, if it has no name that could be that."""
        self.parent = parent
        self.ref: ActorRef[Any]
        self.actor: Actor | None = None
        self.phase = STARTING
        self.asked_to_end = False
        """Whether somebody asked it to end; a long handler may look."""
        self.ending: Reason | None = None
        """Set when it takes nothing more: it is stopping, with this reason, or dead."""
        self.reason: Reason | None = None
        """Set when the end is known: it is dead."""
        self.error: BaseException | None = None
        """What it crashed with, while its stop hook runs."""
        self.condemned = False
        """Whether somebody wanted it killed: what runs of it then may be cut short anywhere."""
        self.context = Context()
        """Context variables set by its hooks stay with it, and do not leak to others on the same worker."""
        self.handled = 0
        self.current: Entry | None = None
        self.since = self.born = system.now()
        self.links: dict[Life, bool] | None = None
        """Who is linked; true for a child of this one."""
        self.monitors: dict[Monitor, None] | None = None
        self.watching: dict[Monitor, None] | None = None
        self.owned: list[tuple[Any, Callable[[], object]]] | None = None
        self.timers: dict[Timer, None] | None = None
        self.deferred: dict[int, Future[Any]] | None = None
        self.pending: Continue | None = None
        self.idle_next: float | None = None
        self.timer: Timer | None = None
        """Limits its start; later, arms the idle hook."""
        self.last_answer: tuple[Future[Any], Any, bool] | None = None
        """An answer to give after the stop hook, and whether it is the exception of a crash."""
        self.starter: Starter | None = None
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
            return self.segment or f"{self.traits.kind}-{self.epoch}"
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
        actor = self.actor
        return actor is not None and bool(actor.trap_exit)

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
        elif self.is_closed():
            self.drain()

    # -- Pykka's idea of an inbox

    def put(self, envelope: Any) -> None:
        """Put in one of Pykka's envelopes."""
        self.post((envelope.message, envelope.reply_to))

    def empty(self) -> bool:
        """Whether no message waits."""
        return self._user.empty()

    def handle(self, entry: Entry) -> None:
        """Have the actor handle one message."""
        raise NotImplementedError

    # -- the end

    def _has_work(self) -> bool:
        if self._system is not None and not self._system.empty():
            return True
        return not self._user.empty() and (not self.suspended or self.ending is not None)

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
            result = self.actor.on_terminate(reason)  # type: ignore[union-attr]
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
            reason = reason_of(error)
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
            starter, self.starter = self.starter, None
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
        for handle in monitors or ():
            if handle.first:
                handle.fire(reason)
        for timer in (self.timer, *(self.timers or ())):  # a copy: others may change both at this very moment
            if timer is not None:
                timer.cancel()
        last = self.current
        refused = self._answer_all(reason)
        if system.listening:
            system.emit(lambda at: end_report(self, at, error, last, refused, had_started=had_started))
        if self.owned is not None:
            system.release(self)
        if starter is not None:
            self._tell_starter(starter, error)
        # Children last to first, so that what was started later is told first.
        if links:
            for other in reversed(list(links)):
                other.signal(self.ref, reason, from_parent=bool(other.parent is self))
        if parent is not None and had_started:
            parent.signal(self.ref, reason)
        for handle in monitors or ():
            if not handle.first:
                handle.fire(reason)
        self.timers = None
        self.error = None
        self.actor = None
        return True

    def _answer_all(self, reason: Reason) -> int:
        """Answer everybody who still waits for this actor; count the messages refused."""
        if self.last_answer is not None:
            (reply, value, crashed), self.last_answer = self.last_answer, None
            if not crashed:
                reply.try_set(value)
            elif reply.wraps_crash:
                why = reason if reason.is_crash else crash(value)
                error = ActorCrashed(f"{self.label} crashed: {why}", reason=why)
                error.__cause__ = value
                reply.try_set_exception(error)
            else:
                reply.try_set_exception(value)
        self.refuse_current()
        if self.deferred:
            for future in list(self.deferred.values()):
                future.try_set_exception(self.dead())
        self.deferred = None
        return self.drain()

    def retire(self, reason: Reason) -> bool:
        """End an idle actor that has nothing of its own to do at its end, here and now: no worker need run it.

        Returns:
            Whether that could be done; else it has to be asked.
        """
        if self.traits.minds_its_end or not self._idle.acquire(False):
            return False
        self.end(reason)
        self._idle.release()
        if self._has_work():
            self.drain()
        return True

    def refuse_current(self) -> None:
        """Answer "dead" to the message that was being handled, if nothing else has been answered."""
        current = self.current
        if current is not None and current[1] is not None and not current[1].done:
            current[1].try_set_exception(self.dead())

    def tell_when_started(self, starter: Starter) -> None:
        """Answer `starter` when the start is over, however it goes; at once if it has ended already."""
        with topology:
            if self.reason is None:
                self.starter = starter
                return
        self._tell_starter(starter, None)

    def _tell_starter(self, starter: Starter, error: BaseException | None) -> None:
        if isinstance(error, StartIgnored | StartFailed):
            starter.try_set_exception(error)
            return
        failed = self.start_failure()
        failed.__cause__ = error
        starter.try_set_exception(failed)

    def start_failure(self) -> StartFailed:
        """Make the error for those who wanted it to start, after its end."""
        reason = self.reason
        assert reason is not None, "it has ended"
        return StartFailed(f"{self.label} did not start: {reason}", reason=reason)

    def describe(self, message: Any) -> str:
        """Say what a message is, the way the class wants it said; never raises."""
        try:
            return str(self.actor.describe_message(message))[:200] if self.actor else type(message).__name__
        except Exception as error:  # noqa: BLE001 - a report must not fail
            return f"<describe_message raised {type(error).__name__}>"

    def kill(self, reason: Reason, error: BaseException | None = None) -> bool:
        """Fence this incarnation: its end is known now, and whatever still runs of it has no effect any more."""
        self.condemned = True
        if not self.finish(reason, error):
            return False
        self.system.zombies.add_if_running(self)
        waiting = self.waiting
        # Whoever takes the hook out of the future may call it: an answer may come at this very moment.
        if waiting is not None and waiting[1] is not None and waiting[0]._forget(waiting[1]):
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
            Mailbox.post_system(self, Notice(notice))
        else:
            self.post_always((notice, None))

    # -- waiting for others

    def before_waiting(self, future: Future[Any]) -> None:
        """Refuse to wait for oneself, or to close a ring of actors that wait for each other."""
        if self.reason is not None:
            raise ActorKilled(f"{self.path} was killed")
        target = future._target
        if target is None:
            return
        if target is self:
            raise CallingSelf(
                f"{self.path} waits for its own answer", hint="call the method directly, or tell instead of ask"
            )
        self.waiting = (future, None)
        ring = [self]
        step: tuple[Future[Any], Any] | None = self.waiting
        while step is not None and step[0]._state == PENDING and len(ring) < _LONGEST_RING:
            target = step[0]._target
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

    def sleep(self, seconds: float) -> bool:
        """Wait as this actor, until the time has passed or it is asked to end; says whether the time passed."""
        gate: Future[bool] = Future()
        self.sleeping = gate
        if self.asked_to_end:
            gate.try_set(False)
        timer = self.system.timers.after(seconds, lambda: gate.try_set(True))
        try:
            return bool(gate.get(timeout=None))
        finally:
            self.sleeping = None
            timer.cancel()

    def post_system(self, message: SystemMessage) -> None:
        """Put something into the system lane; a request to end wakes the actor from `sleep`."""
        if not isinstance(message, EndNow):
            Mailbox.post_system(self, message)
            return
        self.asked_to_end = True
        Mailbox.post_system(self, message)
        gate = self.sleeping
        if gate is not None:
            gate.try_set(False)

    def defer(self, future: Future[Any]) -> None:
        """Keep a future that is answered later, so that the end of this actor answers it."""
        future._target = None
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
