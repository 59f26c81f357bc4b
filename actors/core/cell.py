"""The runtime's part of an actor: one incarnation, with the parts it has, whom it is tied to, and how it ends.

A cell has a mailbox, where messages wait, and a runner, which runs the actor's hooks. The end has two steps. `end`
closes the mailbox and runs the stop hook, in the actor. `finish` makes the end known, exactly once: called by the actor
itself after its stop hook, or by a killer at any time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any, Final, Literal

from mlld_sdk.actors.core import events, pykka_compat
from mlld_sdk.actors.core.class_options import Traits
from mlld_sdk.actors.core.context import current_cell, fenced, topology
from mlld_sdk.actors.core.errors import (
    ActorCrashed,
    ActorDead,
    ActorKilled,
    CallingSelf,
    DeadlockDetected,
    StartFailed,
    StartIgnored,
)
from mlld_sdk.actors.core.exits import Crash, Reason, crash, reason_of
from mlld_sdk.actors.core.future import PENDING, Future
from mlld_sdk.actors.core.hook_runner import HookRunner
from mlld_sdk.actors.core.info import ActorInfo
from mlld_sdk.actors.core.links import DEADLY, DELIVERED, SPECIAL, effect_of, sever
from mlld_sdk.actors.core.mailbox import Entry, Mailbox, SystemMessage
from mlld_sdk.actors.core.names import Name
from mlld_sdk.actors.core.protocols import DEAD, RUNNING, STARTING, STOPPING, AnyCell, Starter, System
from mlld_sdk.actors.core.ref import ActorRef, Down, Exit, Monitor
from mlld_sdk.actors.core.system_messages import EndNow, Notice
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.base.events import Event
from mlld_sdk.base.texts import text_of_failure

_LONGEST_RING: Final = 10_000
"""A search for a ring of waiting actors gives up after this many."""


@dataclass(eq=False, repr=False, slots=True)
class Cell:
    """One incarnation of an actor. Everything here belongs to the runtime; users hold an `ActorRef`.

    Attributes:
        mailbox: Where its messages wait.
        runner: Runs its hooks.
        segment: Its own part of the path, given by who starts it; else that is its label.
        asked_to_end: Whether it was asked to end; a long handler may look.
        ending: Set when it takes nothing more: it is stopping, with this reason, or dead.
        reason: Set when the end is known: it is dead.
        error: What it crashed with, while its stop hook runs.
        condemned: Whether it was to be killed: what runs of it then may be cut short anywhere.
        links: The linked cells; true for a child of this one.
        last_answer: An answer to give after the stop hook, and whether it is the exception of a crash.
    """

    system: System
    traits: Traits
    epoch: int
    name: Name | None
    parent: "Cell | None"
    segment: str | None = None
    actor: Any = None
    phase: int = STARTING
    asked_to_end: bool = False
    ending: Reason | None = None
    reason: Reason | None = None
    error: BaseException | None = None
    condemned: bool = False
    links: "dict[Cell, bool] | None" = None
    monitors: dict[Monitor, None] | None = None
    watching: dict[Monitor, None] | None = None
    owned: list[tuple[Any, Callable[[], object]]] | None = None
    timers: dict[Timer, None] | None = None
    deferred: dict[int, Future[Any]] | None = None
    last_answer: tuple[Future[Any], Any, bool] | None = None
    starter: Starter | None = None
    waiting: tuple[Future[Any], Callable[[], object] | None] | None = None
    sleeping: Future[bool] | None = None
    overflowing: bool = False
    born: float = field(init=False)
    runner: HookRunner = field(init=False)
    mailbox: Mailbox = field(init=False)
    ref: ActorRef[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.born = self.system.now()
        self.runner = HookRunner(self, self.born)
        self.mailbox = Mailbox(self, self.runner, self.system.schedule, self.traits.limit)
        self.mailbox.idle.acquire()  # it is not run before its start is over
        self.ref = ActorRef(self)

    # -- who it is

    @property
    def label(self) -> str:
        """What it is called: its name, if it has one."""
        name = self.name
        if name is None:
            return self.segment or f"{self.traits.kind}-{self.epoch}"
        return name if isinstance(name, str) else str(name.key)

    @property
    def path(self) -> str:
        """Its place: the parts of those above it and its own, from the root of its tree down, with slashes."""
        parts: list[str] = []
        cell: Cell | None = self
        while cell is not None:
            parts.append(cell.segment or cell.label)
            cell = cell.parent
        return "/".join(reversed(parts))

    def traps_exits(self) -> bool:
        """Return whether exit signals become messages."""
        actor = self.actor
        return actor is not None and bool(actor.trap_exit)

    def describe(self, message: Any) -> str:
        """Describe a message, the way the class wants it described; never raises."""
        if self.actor is None:
            return type(message).__name__
        return self._in_words("describe_message", message)[:200]

    def _in_words(self, hook: str, *args: Any) -> str:
        try:
            return text_of_failure(getattr(self.actor, hook)(*args), 2_000)
        except BaseException as error:  # noqa: BLE001 - a report must not fail
            return f"<{hook} raised {type(error).__name__}>"

    def info(self) -> ActorInfo:
        """Describe what it is doing, without a message."""
        runner = self.runner
        now = self.system.now()
        queued, queued_system = self.mailbox.queued()
        up = max(now - self.born, 1e-9)
        current = runner.current if runner.thread is not None or runner.task is not None else None
        busy = current is not None or (runner.thread is not None and self.phase != RUNNING)
        waiting = self.waiting
        awaited = waiting[0].target if waiting is not None else None
        links = self.links
        return ActorInfo(
            path=self.path,
            epoch=self.epoch,
            kind=self.traits.kind,
            state=self._state(),
            reason=self.reason,
            parent=None if self.parent is None else self.parent.path,
            queued=queued,
            queued_system=queued_system,
            handled=runner.handled,
            rate=runner.handled / up,
            current=None if current is None else self.describe(current[0]),
            current_for=max(0.0, now - runner.since) if busy else None,
            waiting_for=None if awaited is None else awaited.path,
            links=len(links or ()) + (self.parent is not None and self.reason is None),
            children=sum(list((links or {}).values())),
            monitors=len(self.monitors or ()),
            traps_exits=self.traps_exits(),
            up=up,
            zombie=self in fenced,
        )

    def _state(self) -> Literal["starting", "running", "suspended", "stopping", "dead"]:
        if self.reason is not None:
            return "dead"
        if self.ending is not None:
            return "stopping"
        if self.phase == STARTING:
            return "starting"
        return "suspended" if self.mailbox.paused else "running"

    # -- what a mailbox asks its owner

    def dead(self) -> ActorDead:
        """Make the error for those whose message will not be handled."""
        return ActorDead(f"{self.ref} not found", reason=self.reason or self.ending)

    def overflowed(self) -> None:
        """Report it once, until the mailbox has been empty again."""
        if not self.overflowing:
            self.overflowing = True
            system = self.system
            system.emit(
                lambda at: events.MailboxOverflowed(
                    at=at, actor=self.path, epoch=self.epoch, limit=self.traits.limit or 0, policy=self.traits.overflow
                )
            )

    def undelivered(self, message: Any) -> None:
        """Count a message that will not be handled."""
        if message.__class__ not in SPECIAL:
            self.system.counters.dropped()

    def put(self, envelope: Any) -> None:
        """Put in one of Pykka's envelopes: this is Pykka's idea of an inbox."""
        self.mailbox.post((envelope.message, envelope.reply_to))

    def empty(self) -> bool:
        """Return whether no message waits, for Pykka."""
        return self.mailbox.user.empty()

    # -- the start

    def open(self) -> bool:
        """Start an actor that has no `on_start` to run; return whether it was not killed before."""
        has_started = self.started()
        self.mailbox.let_go()
        return has_started

    def started(self) -> bool:
        """End the start, unless it was killed meanwhile; return whether it went well."""
        with topology:
            if self.reason is not None:
                return False
            self.phase = RUNNING
            starter, self.starter = self.starter, None
        timer, self.runner.timer = self.runner.timer, None
        if timer is not None:
            timer.cancel()
        system = self.system
        if system.listening:
            system.emit(lambda at: events.ActorStarted(at=at, actor=self.path, epoch=self.epoch, kind=self.traits.kind))
        if starter is not None:
            starter.try_set(self.ref)
        return True

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
        self.runner.since = self.system.now()
        try:
            result = self.actor.on_terminate(reason)
        except BaseException as second:  # noqa: BLE001 - a failing stop hook replaces the reason
            self._terminated(None, second)
            return
        if isinstance(result, CoroutineType):
            self.runner.parked = (result, self._terminated)
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
        """Make the end known, once: the first caller wins; return whether this call was the one."""
        with topology:
            if self.reason is not None:
                return False
            had_started = self.phase != STARTING
            self.ending = self.reason = reason
            self.phase = DEAD
            starter, self.starter = self.starter, None
            links, monitors = sever(self)
        self.mailbox.alarm = True
        system = self.system
        system.forget(self)
        for handle in monitors:
            if handle.first:
                handle.fire(reason)
        last = self.runner.current
        refused = self._settle(reason)
        if system.listening:
            system.emit(lambda at: self._end_report(at, error, last, refused, had_started=had_started))
        if self.owned is not None:
            system.release(self)
        if starter is not None:
            self._tell_starter(starter, error)
        for other in reversed(links):  # children last to first, so that what was started later is told first
            other.signal(self.ref, reason, from_parent=bool(other.parent is self))
        if self.parent is not None and had_started:
            self.parent.signal(self.ref, reason)
        for handle in monitors:
            if not handle.first:
                handle.fire(reason)
        self.timers = self.error = self.actor = None
        return True

    def _end_report(
        self, at: float, error: BaseException | None, last: Entry | None, refused: int, *, had_started: bool
    ) -> Event:
        reason, kind = self.reason, self.traits.kind
        assert reason is not None, "it has ended"
        if not had_started:
            ignored = isinstance(error, StartIgnored)
            return events.ActorStartFailed(
                at=at, actor=self.path, epoch=self.epoch, kind=kind, reason=str(reason), ignored=ignored
            )
        normal = reason.is_normal_family
        return events.ActorExited(
            at=at,
            actor=self.path,
            epoch=self.epoch,
            kind=kind,
            reason=str(reason),
            normal=normal,
            trace=reason.trace if isinstance(reason, Crash) else "",
            last_message="" if normal or last is None else self.describe(last[0]),
            state="" if normal or self.actor is None else self._in_words("format_state"),
            queued=refused,
        )

    def _settle(self, reason: Reason) -> int:
        """Cancel its timers and answer all who still wait for it; return how many messages were refused."""
        for timer in (self.runner.timer, *(self.timers or ())):  # a copy: others may change both at this very moment
            if timer is not None:
                timer.cancel()
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
        self.runner.refuse_current()
        if self.deferred:
            for future in list(self.deferred.values()):
                future.try_set_exception(self.dead())
        self.deferred = None
        return self.mailbox.drain()

    def retire(self, reason: Reason) -> bool:
        """End an idle actor that has nothing to do at its end, without a worker; return whether that could be done."""
        if self.traits.minds_its_end or not self.mailbox.idle.acquire(False):
            return False
        self.end(reason)
        self.mailbox.idle.release()
        if self.mailbox.has_work():
            self.mailbox.drain()
        return True

    def kill(self, reason: Reason, error: BaseException | None = None) -> bool:
        """Fence this incarnation: its end is known now, and whatever still runs of it has no effect any more."""
        self.condemned = True
        if not self.finish(reason, error):
            return False
        self.system.zombies.add_if_running(self)
        waiting = self.waiting
        # The thread that takes the hook out of the future may call it: an answer may come at this very moment.
        if waiting is not None and waiting[1] is not None and waiting[0].forget_hook(waiting[1]):
            waiting[1]()
        if self.runner.task is not None:
            self.system.loop.cancel(self.runner)
        if current_cell() is self:
            raise ActorKilled(f"{self.path} killed itself")
        return True

    # -- signals and notices

    def signal(self, sender: ActorRef[Any] | None, reason: Reason, *, from_parent: bool = False) -> None:
        """Take an exit signal: ignore it, pass it on as a message, or die of it."""
        effect = effect_of(reason, traps=self.traps_exits(), from_parent=from_parent)
        if effect == DELIVERED:
            self.notify(Exit(sender, reason))
        elif effect == DEADLY:
            self.post_system(EndNow(reason))

    def notify(self, notice: Exit | Down) -> None:
        """Deliver a notice in the lane the class wants it in."""
        if self.traits.urgent_exits:
            self.mailbox.post_system(Notice(notice))
        else:
            self.mailbox.post_always((notice, None))

    # -- waiting for others

    def before_waiting(self, future: Future[Any]) -> None:
        """Refuse to wait for oneself, or to close a ring of actors that wait for each other."""
        if self.reason is not None:
            raise ActorKilled(f"{self.path} was killed")
        target = future.target
        if target is None:
            return
        if target is self:
            raise CallingSelf(f"{self.path} waits for its own answer")
        self.waiting = (future, None)
        ring: list[AnyCell] = [self]
        step: tuple[Future[Any], Any] | None = self.waiting
        while step is not None and step[0].state == PENDING and len(ring) < _LONGEST_RING:
            target = step[0].target
            if target is None:
                return
            if target is self:
                self.waiting = None
                raise DeadlockDetected([cell.path for cell in ring])
            ring.append(target)
            step = target.waiting

    def waits(self, future: Future[Any], wake: Callable[[], object]) -> None:
        """Note that it waits, so that a kill can wake the thread and rings can be seen."""
        self.waiting = (future, wake)
        if self.reason is not None:
            raise ActorKilled(f"{self.path} was killed")

    def waited(self) -> None:
        """Note that the wait is over."""
        self.waiting = None
        if self.reason is not None and self in fenced:
            raise ActorKilled(f"{self.path} was killed while it waited")

    def sleep(self, seconds: float) -> bool:
        """Wait as this actor, until the time has passed or it is asked to end; return whether the time passed."""
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
        ends = isinstance(message, EndNow)
        if ends:
            self.asked_to_end = True
        self.mailbox.post_system(message)
        gate = self.sleeping
        if ends and gate is not None:
            gate.try_set(False)

    def defer(self, future: Future[Any]) -> None:
        """Keep a future that is answered later, so that the end of this actor answers it."""
        future.target = None
        with topology:
            if self.reason is None:
                self.deferred = self.deferred or {}
                self.deferred[id(future)] = future
                return
        future.try_set_exception(self.dead())

    def call_cancelled(self, future: Future[Any]) -> None:
        """A caller gave up: stop a coroutine that works for it."""
        runner = self.runner
        current = runner.current
        if current is not None and current[1] is future and runner.task is not None:
            self.system.loop.cancel(runner)
