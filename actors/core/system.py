"""The actor system: everything actors share; and the process's own, for actors started outside of any other."""

import atexit
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Self, TypeVar, cast

import msgspec
import pykka

from mlld_sdk.actors.core import events, pykka_compat
from mlld_sdk.actors.core.cell import Cell
from mlld_sdk.actors.core.class_options import traits_of
from mlld_sdk.actors.core.context import context, current_cell, fenced, stop_if_fenced, topology
from mlld_sdk.actors.core.counters import Counters
from mlld_sdk.actors.core.directory import Directory
from mlld_sdk.actors.core.errors import ActorError, AskTimeout, CallingSelf, StartFailed
from mlld_sdk.actors.core.event_loop import LoopThread
from mlld_sdk.actors.core.exits import FORKED, NOPROC, SHUTDOWN, Killed, crash
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.info import Address
from mlld_sdk.actors.core.names import Name
from mlld_sdk.actors.core.protocols import Starter
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.scheduler import Runnable, Scheduler
from mlld_sdk.actors.core.start import ActorFactory, Starting, kill_late_start
from mlld_sdk.actors.core.timers import Timer, Timers
from mlld_sdk.actors.core.zombies import Zombie, Zombies
from mlld_sdk.base.durations import Deadline, now
from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Event, Sink, discard
from mlld_sdk.base.options import check_callable, check_class, path_part, whole
from mlld_sdk.base.texts import text_of_error

A = TypeVar("A", bound=pykka.Actor)

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Garbage collector thresholds for a service with many actors; see `ActorSystem.settle`."""

LEAST_GRACE: Final = 0.2
"""Seconds that threads get at the end in any case."""

PIECE: Final = 0.05
"""Seconds a stop waits at a time."""

FAREWELL: Final = 2.0
"""Seconds that code of killed actors gets at the end to come back, before it counts as left running."""


class StopReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an actor system ended.

    Attributes:
        stopped: Actors that ended in an orderly way.
        killed: Paths of those that had to be killed.
        zombies: Threads that still ran at the end.
        threads: Names of the system's threads that did not end.
    """

    stopped: int = 0
    killed: tuple[str, ...] = ()
    zombies: tuple[Zombie, ...] = ()
    threads: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing had to be killed or left behind."""
        return not (self.killed or self.zombies or self.threads)


@dataclass(eq=False, repr=False, slots=True)
class Release:
    """Closes what a dead actor owned, last first."""

    cell: Cell
    owned: list[tuple[Any, Callable[[], object]]]
    never_blocks: ClassVar[bool] = False

    def run(self) -> None:
        """Close all of it, whatever goes wrong."""
        while self.owned:
            resource, close = self.owned.pop()
            try:
                close()
            except BaseException as error:  # noqa: BLE001 - reported; the next one is closed all the same
                self._failed(type(resource).__name__, text_of_error(error))

    def _failed(self, resource: str, error: str) -> None:
        cell = self.cell
        cell.system.emit(
            lambda at: events.ResourceCloseFailed(
                at=at, actor=cell.path, epoch=cell.epoch, resource=resource, error=error
            )
        )


class ActorSystem:
    """Owns scheduler, timers, names, zombies, sink and env of its actors. Several may live in one process.

    ```python
    with ActorSystem() as system:
        ref = system.start(Counter, (10,), name="counter")
        assert system.whereis("counter") is ref
    ```

    Args:
        name: Shown in thread names.
        env: Clocks and randomness.
        sink: Gets every event.
        workers: Threads that run actors when none of them blocks.
        max_workers: The most threads there may be when actors block.
        switch_interval: Set Python's thread switch interval (seconds) while the system runs.
        in_pykka_registry: Also list actors in `pykka.ActorRegistry`; the default system does.
    """

    def __init__(
        self,
        name: str = "mlld-actors",
        *,
        env: Env | None = None,
        sink: Sink = discard,
        workers: int = 1,
        max_workers: int = 1024,
        switch_interval: float | None = None,
        in_pykka_registry: bool = False,
    ) -> None:
        path_part("name", name)
        whole("max_workers", max_workers, least=whole("workers", workers, least=1))
        check_class("env", env, Env)
        check_callable("sink", sink)
        self.name = name
        self._closed = False
        self._patience = Deadline(None)
        self.env: Env = env or Env()
        self.id: str = f"{self.env.random.getrandbits(64):016x}"
        self.sink = sink
        self.listening: bool = sink is not discard
        self.now: Callable[[], float] = self.env.now
        self.counters: Counters = Counters()
        self.directory: Directory = Directory(self.callback_failed)
        self.timers: Timers = Timers(self.env, self.callback_failed, f"{name}-timers")
        here = weakref.WeakMethod(self._workers_exhausted)  # its threads do not keep a system that nobody has
        self.scheduler: Scheduler = Scheduler(name, workers, max_workers, lambda most: (tell := here()) and tell(most))
        weakref.finalize(self, self.scheduler.tell_to_end).atexit = False
        self.schedule: Callable[[Runnable], None] = self.scheduler.schedule
        self.loop: LoopThread = LoopThread(f"{name}-loop")
        self.zombies: Zombies = Zombies(self, self.scheduler.lose)
        self._factory = ActorFactory(self, self.directory, in_pykka_registry=in_pykka_registry)
        self.create: Callable[..., Cell] = self._factory.create
        self.forget: Callable[[Cell], None] = self._factory.forget
        self.whereis: Callable[[Name | ActorRef[Any]], ActorRef[Any] | None] = self.directory.whereis
        self._switch_interval_before: float | None = None
        if switch_interval is not None:
            self._switch_interval_before = sys.getswitchinterval()
            sys.setswitchinterval(switch_interval)
        if in_pykka_registry:
            pykka_compat.make_registry_fast()
        _living.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<ActorSystem {self.name} {self.id}: {len(self.directory.cells)} actors>"

    # -- starting actors

    def start(
        self,
        actor_class: type[A],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: Name | None = None,
        label: str | None = None,
        parent: ActorRef[Any] | None = None,
        timeout: float | None = 30.0,
    ) -> ActorRef[A]:
        """Start an actor and wait until its `on_start` has returned.

        Args:
            actor_class: What to start.
            args: For its constructor, which runs here, in the calling thread.
            kwargs: For its constructor.
            name: Registered before any code of it runs, released before its end is known.
            label: Its part of the path, by default its name; nothing is registered under it.
            parent: Linked to it from the first instant; the child ends when the parent does.
            timeout: Seconds `on_start` may take; after that the incarnation is killed.

        Raises:
            StartFailed: It did not come up; the exception that stopped it is the cause.
            StartTimeout: Nor in time.
            AlreadyStarted: The name is taken; nothing of the actor has run.
            StartIgnored: It declined.
        """
        if context.on_loop and traits_of(actor_class).starts:
            raise ActorError("a blocking start on the event loop's thread", hint="await system.start_soon(...)")
        cell = self.create(actor_class, args, kwargs, name, parent, label)
        try:
            return cast("ActorRef[A]", self._when_up(cell, timeout))
        except BaseException:
            if cell.reason is None:  # a signal came: nobody has a reference to it
                cell.kill(Killed("its start was interrupted"))
            raise

    def _when_up(self, cell: Cell, timeout: float | None) -> Any:
        """Start a created actor and wait until it is up."""
        if not cell.traits.starts:
            if not cell.open():
                raise cell.start_failure()
            return cell.ref
        started: Future[ActorRef[Any]] = Future(cell)
        cell.tell_when_started(started)
        if cell.traits.caller_runs and not context.own_only:
            cell.runner.run()
        else:
            cell.mailbox.schedule(cell.runner)
        try:
            return started.get(timeout=timeout)
        except AskTimeout:
            kill_late_start(cell, timeout)
            return started.get(timeout=timeout)

    def start_soon(
        self,
        actor_class: type[A],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: Name | None = None,
        label: str | None = None,
        parent: ActorRef[Any] | None = None,
        timeout: float | None = 30.0,
    ) -> "Starting[A]":
        """Start an actor without waiting: a future of its ref, failing with what `start` would raise.

        The constructor still runs here; what it raises, or a taken name, is in the future too. For supervisors, which
        go on with `on_done` when the child is there.
        """
        started: Starting[A] = Starting()
        try:
            cell = self.create(actor_class, args, kwargs, name, parent, label)
        except StartFailed as failed:
            started.try_set_exception(failed)
            return started
        started.target = cell
        self.begin(cell, started, timeout)
        return started

    def begin(self, cell: Cell, starter: Starter, timeout: float | None) -> None:
        """Set a created actor going, and tell `starter` when it is up or has failed."""
        cell.tell_when_started(starter)
        if not cell.traits.starts:
            cell.open()
            return
        if timeout is not None:
            cell.runner.timer = timer = self.timers.after(timeout, lambda: kill_late_start(cell, timeout))
            if cell.reason is not None:  # killed meanwhile
                timer.cancel()
        cell.mailbox.schedule(cell.runner)

    def start_unawaited(
        self, actor_class: type[A], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> ActorRef[A]:
        """Start an actor as Pykka does: its ref at once, whatever `on_start` will do."""
        cell = self.create(actor_class, args, kwargs, raw=True)
        self.launch(cell)
        return cast("ActorRef[A]", cell.ref)

    def launch(self, cell: Cell) -> None:
        """Set a created actor going, without waiting for it."""
        with topology:
            self.directory.cells[cell.epoch] = cell
        if cell.traits.starts:
            cell.mailbox.schedule(cell.runner)
        else:
            cell.open()

    def new_cell(self, actor_class: type[Any]) -> Cell:
        """Make the runtime's part of an actor that is constructed without `start`; nothing runs yet."""
        return self._factory.new_cell(actor_class, None, None)

    def ref_of_absent(self, actor_class: type[Any], name: Name) -> ActorRef[Any]:
        """Make a ref of a name that has no actor: dead from the start, for monitors and errors."""
        cell = self._factory.new_cell(actor_class, name, None)
        cell.ending = cell.reason = NOPROC
        return cell.ref

    def has_stopped(self) -> bool:
        """Return whether it takes no more actors."""
        return self._closed

    # -- finding actors

    def __getitem__(self, name: Name) -> ActorRef[Any]:
        """Find the live actor of that name, or raise `NoSuchActor`."""
        return self.directory.at(name)

    def call(self, name: Name | ActorRef[Any], message: Any, *, timeout: float | None = 5.0) -> Any:
        """Call an actor by name; raises `NoSuchActor` if there is none."""
        ref = name if isinstance(name, ActorRef) else self[name]
        return ref.call(message, timeout=timeout)

    def cast(self, name: Name | ActorRef[Any], message: Any) -> None:
        """Send to an actor by name; never raises."""
        ref = name if isinstance(name, ActorRef) else self.whereis(name)
        if ref is None:
            self.counters.dropped()
        else:
            ref.cast(message)

    def actors(self) -> list[ActorRef[Any]]:
        """List the living actors, in the order they were started."""
        return [cell.ref for cell in list(self.directory.cells.values())]

    def resolve(self, address: Address) -> ActorRef[Any] | None:
        """Find the living incarnation an address names; an address of another system, or of the past, finds none."""
        cell = self.directory.cells.get(address.epoch) if address.system == self.id else None
        return None if cell is None else cell.ref

    def __len__(self) -> int:
        return len(self.directory.cells)

    # -- timers

    def send_after(self, delay: float, to: ActorRef[Any], message: Any) -> Timer:
        """Send a message later; dropped if the receiver has ended by then."""
        if fenced:
            stop_if_fenced()
        cell = to.cell

        def fire() -> None:
            with topology:  # it may fire before the lines below have run
                if cell.timers is not None:
                    for timer in made:
                        cell.timers.pop(timer, None)
            cell.mailbox.post_always((message, None))

        made: list[Timer] = []
        timer = self.timers.after(delay, fire)
        with topology:
            made.append(timer)
            if cell.reason is not None:
                timer.cancel()
            elif timer.action is not None:
                cell.timers = cell.timers or {}
                cell.timers[timer] = None
        return timer

    # -- for the runtime's own parts

    def emit(self, make: Callable[[float], Event]) -> None:
        """Pass an event to the sink, if there is one. What a sink raises is counted and otherwise ignored."""
        if self.listening:
            try:
                self.sink(make(self.env.wall()))
            except (Exception, SystemExit):  # noqa: BLE001 - an actor's end must be made known whatever the listeners do
                self.counters.sink_failed()

    def callback_failed(self, error: BaseException) -> None:
        """Report what a callback raised."""
        reason = crash(error)
        self.emit(lambda at: events.ActorCallbackFailed(at=at, error=str(reason), trace=reason.trace))

    def release(self, cell: Cell) -> None:
        """Close what a dead actor owned, on a worker: a killer does not wait for it."""
        owned, cell.owned = cell.owned, None
        if owned:
            self.schedule(Release(cell, owned))

    def _workers_exhausted(self, limit: int) -> None:
        self.emit(lambda at: events.WorkersExhausted(at=at, limit=limit))

    # -- memory

    def settle(self) -> None:
        """Tune the garbage collector for many long-lived actors: call it when the service has started.

        What exists now is exempted from collection (`gc.freeze`) and collections become rarer, so that a pause stays
        at a few milliseconds with 100,000 actors. It concerns the whole process.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    # -- the end

    def stop(self, timeout: float = 5.0) -> StopReport:
        """Stop every actor, newest first, kill what has not ended in time, and end all threads.

        Args:
            timeout: Seconds for all of it together.

        Raises:
            CallingSelf: Called by one of its own actors, which would wait for its own end.
        """
        caller = current_cell()
        if caller is not None and caller.system is self:
            raise CallingSelf(f"{caller.path} stops the system it lives in", hint="let a thread outside do it")
        with topology:
            if self._closed:
                return StopReport()
            self._closed = True
        deadline = Deadline(timeout)
        before = len(self.directory.cells)
        self._end_roots(deadline)
        killed: list[str] = []
        for cell in reversed(list(self.directory.cells.values())):
            try:
                cell.ref.join(deadline.left)
            except AskTimeout:
                killed.append(cell.path)
                cell.kill(Killed("the system stopped"))
        grace = Deadline(max(LEAST_GRACE, deadline.left))
        self._await(self.zombies.wait_until_gone, min(grace.left, FAREWELL))
        threads = [
            thread.name
            for thread in self.scheduler.tell_to_end()
            if not self._await(partial(_joined, thread), max(LEAST_GRACE, grace.left))
        ]
        self.timers.close(LEAST_GRACE)
        if not self.loop.close(max(LEAST_GRACE, grace.left)):
            threads.append(f"{self.name}-loop")
        if self._switch_interval_before is not None:
            sys.setswitchinterval(self._switch_interval_before)
        _living.discard(self)
        return StopReport(
            stopped=before - len(killed),
            killed=tuple(killed),
            zombies=tuple(self.zombies.list()),
            threads=tuple(threads),
        )

    def hurry(self) -> None:
        """Have a stop, under way or to come, wait no longer for code that does not come back."""
        self._patience.at = min(self._patience.at, now() + LEAST_GRACE)

    def _await(self, happens: Callable[[float], bool], within: float) -> bool:
        """Wait for something, in pieces so that `hurry` is heard; return whether it happened."""
        end, patience = Deadline(within), self._patience
        while not happens(min(end.left, patience.left, PIECE)):
            if end.is_over or patience.is_over:
                return False
        return True

    def _end_roots(self, deadline: Deadline) -> None:
        """Ask the roots of all trees to end, newest first, each after the one before has ended.

        One that takes long is left to go on by itself, so that it does not use up the others' time; and there is no
        waiting for those that have nothing to do at their end.
        """
        roots = [cell for cell in list(self.directory.cells.values()) if cell.parent is None]
        while roots:
            cell = roots.pop()
            ended = cell.ref.shutdown(None, SHUTDOWN)
            if not cell.traits.terminates and not cell.links:
                continue
            left = deadline.left
            try:
                ended.get(timeout=min(left, max(0.1, left / (len(roots) + 2))))
            except AskTimeout:
                continue

    def disable(self) -> None:
        """Mark the system unusable: this is a forked copy of the process, and its threads are not here."""
        self._closed = True
        for cell in self.directory.cells.values():
            cell.ending = cell.reason = FORKED


def _joined(thread: threading.Thread, timeout: float) -> bool:
    thread.join(timeout)
    return not thread.is_alive()


_default: ActorSystem | None = None
_default_lock = threading.RLock()


def default_system() -> ActorSystem:
    """Return the process's own system, where `MyActor.start()` goes when no actor is running; started at first use."""
    global _default
    system = _default
    if system is None or system.has_stopped():
        with _default_lock:
            system = _default
            if system is None or system.has_stopped():
                system = _default = ActorSystem("mlld-shared", in_pykka_registry=True)
    return system


def current_system() -> ActorSystem:
    """Return the system of the running actor, else the process's own."""
    cell = current_cell()
    if cell is None:
        return default_system()
    system = cell.system
    assert isinstance(system, ActorSystem)
    return system


def _at_exit() -> None:
    if _default is not None:
        _default.stop(2.0)


_living: "weakref.WeakSet[ActorSystem]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    global _default
    for system in list(_living):
        system.disable()
    fenced.clear()
    _default = None


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    for _lock in (topology, _default_lock):
        # Held across the fork, so that the copy does not inherit it held by a thread it does not have.
        os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
    os.register_at_fork(after_in_child=_after_fork_in_child)
