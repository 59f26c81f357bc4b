"""The runtime: one supervision tree in one process, with everything its agents share."""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from tempfile import gettempdir
from types import TracebackType
from typing import Any, Final, Self, TypeVar, get_args
from weakref import WeakKeyDictionary

import msgspec

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.system import ActorSystem, StopReport
from mlld_sdk.agents.agent import Agent
from mlld_sdk.agents.duty import Drain
from mlld_sdk.agents.handles import AgentHandle, Named
from mlld_sdk.agents.owner import EngineOwner
from mlld_sdk.agents.pool import Pool, PoolHandle
from mlld_sdk.agents.services import Services
from mlld_sdk.agents.supervised_client import ClientHandle, SupervisedClient
from mlld_sdk.base.durations import Deadline, Duration, now, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, InvalidOption, MlldError
from mlld_sdk.base.options import check_class, one_of, path_part, text, truth, whole
from mlld_sdk.control.protocol import socket_path
from mlld_sdk.control.server import ControlServer
from mlld_sdk.engines.quota import EngineQuota
from mlld_sdk.journal import Journal, JournalLimits, Retention, Values
from mlld_sdk.journal.options import Durability
from mlld_sdk.runs.handles import RunHandle
from mlld_sdk.runtime.aio import AsyncRuntime
from mlld_sdk.runtime.backlogs import Backlogs
from mlld_sdk.runtime.end import RuntimeEnd, RuntimeNotRunning
from mlld_sdk.runtime.ending import RuntimeEnding
from mlld_sdk.runtime.keeper import FAILURES, HistoryKeeper
from mlld_sdk.runtime.missing import MOST_NAMED, MissingAgent, MissingAgents, named
from mlld_sdk.runtime.rounds import Rounds
from mlld_sdk.runtime.runs import Runs
from mlld_sdk.runtime.signals import SignalQueue, caught_signals
from mlld_sdk.runtime.systemd import SystemdNotifier
from mlld_sdk.supervision.breaker import Breakers
from mlld_sdk.supervision.errors import ChildNotFound, ChildUnavailable, NotSupported
from mlld_sdk.supervision.execution.tree_context import TreeContext
from mlld_sdk.supervision.snapshot import NodeView, walk
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec
from mlld_sdk.supervision.supervisor import Supervisor
from mlld_sdk.supervision.supervisor_ref import SupervisorRef
from mlld_sdk.supervision.tree import Place, ShutdownReport, Tree
from mlld_sdk.supervision.verdict import Concern, Verdict
from mlld_sdk.telemetry.bus import Bus
from mlld_sdk.telemetry.history import History
from mlld_sdk.transport.child import directory_prefix
from mlld_sdk.transport.memory import kill_count
from mlld_sdk.transport.processes import our_mark
from mlld_sdk.transport.sweep import sweep_orphans

KEEP: Final = Retention()
"""What is kept of ended runs by default."""

EXIT_CLEAN: Final = 0
EXIT_GAVE_UP: Final = 1
EXIT_FORCED: Final = 75

LAST_ROUND: Final = 5.0
"""Seconds a stop waits for a look around that is under way, at a disk that does not answer, say."""

UNSAID: Final = "no reason was given"
"""Shown where a place was paused without a word."""

T = TypeVar("T")

Root = SupervisorSpec | DynamicSpec | ChildSpec | type[Supervisor]


@dataclass(eq=False, repr=False)
class RuntimeForked(ConfigurationError):
    """A runtime was used in a process that was forked after it was made: what it shares is the first process's alone.

    Attributes:
        name: The runtime.
        made_in: The process that made it.
    """

    code = "RUNTIME_FORKED"
    message = "runtime {name!r} was made in process {made_in}, and this is a fork of it"
    hint = "make it after the fork: in the lifespan of the application, or where each worker begins"
    name: str
    made_in: int


class Runtime:
    """A supervision tree and all that its agents share: the journal, the engines' budget, the stream of events.

    ```python
    tree = one_for_one(child(Reviewer, name="reviewer", working_dir="flows"))
    with Runtime(tree, store="state.db") as runtime:
        print(runtime["reviewer"].run({"topic": "safety"}).result(timeout=600))
    ```

    Several may live in one process. Nothing is started before `start`, the `with` or the `async with` block.

    Args:
        tree: What to supervise.
        store: File of the journal, made if it is not there; `None` keeps runs in memory only.
        name: First part of every path in the tree; part of what runs are filed under, so keep it.
        max_engines: Engines that may live at once, idle ones included.
        min_free_memory: Bytes that must be free before another engine is started.
        stagger: Seconds between two starts of engines.
        durability: `full` survives a power cut, `normal` every crash of the program.
        retention: Which ended runs to keep.
        values: Registered types of user values in runs and steps.
        limits: How large runs may become, and how often they may take their owners down.
        start_timeout: Seconds the tree may take to start.
        drain_timeout: Seconds runs and requests get to end when the runtime is told to stop.
        stop_timeout: Seconds the tree then gets to stop before what is left is killed.
        on_end: Called once with a `RuntimeEnd` when the tree has ended by itself, above all when its root gave up; not
            after a `stop`. On a thread of its own: it may block, raise, or stop the runtime.
        control: Whether the command line may attach to this runtime, over a unix socket only this user can open.
        env: Clocks and chance.

    Attributes:
        bus: The stream of events; attach to it before the start to miss nothing.
        history: The last events and the crash reports.
        breakers: The circuit breakers of the tree, by name; each can be tripped and reset by hand.
    """

    def __init__(
        self,
        tree: Root,
        *,
        store: str | os.PathLike[str] | None = None,
        name: str = "root",
        max_engines: int | None = None,
        min_free_memory: int = 0,
        stagger: float = 0.0,
        durability: Durability = "full",
        retention: Retention | None = KEEP,
        values: Values | None = None,
        limits: JournalLimits | None = None,
        start_timeout: float | timedelta = 60.0,
        drain_timeout: float | timedelta = 10.0,
        stop_timeout: float | timedelta = 20.0,
        on_end: Callable[[RuntimeEnd], object] | None = None,
        control: bool = False,
        env: Env | None = None,
    ) -> None:
        if not isinstance(tree, SupervisorSpec | DynamicSpec | ChildSpec) and not _makes(tree, Supervisor):
            raise InvalidOption("tree", tree, "a supervisor: one_for_one(...), dynamic(...) or a class of them")
        path_part("name", name)
        if store is not None and not isinstance(store, str | os.PathLike):
            raise InvalidOption("store", store, "a path, or None")
        if max_engines is not None:
            whole("max_engines", max_engines, least=1)
        one_of("durability", durability, *get_args(Durability))
        if on_end is not None and not callable(on_end):
            raise InvalidOption("on_end", on_end, "a function that takes a RuntimeEnd")
        truth("control", control)
        check_class("env", env, Env)
        check_class("limits", limits, JournalLimits)
        check_class("retention", retention, Retention)
        check_class("values", values, Values)
        self.name = name
        self._process = os.getpid()
        self.env: Env = env or Env()
        self.bus: Bus = Bus(self.env)
        self.history: History = History()
        self.breakers: Breakers = Breakers(self.env, self.bus.emit)
        self.bus.attach_inline("history", self.history, aside=True)
        self._spec = tree
        self._store = None if store is None else Path(store)
        self._open_journal = partial(
            Journal.open,
            self._store,
            env=self.env,
            sink=self.bus.emit,
            durability=durability,
            retention=retention,
            values=values,
            limits=limits,
        )
        self._budget = EngineQuota(max_engines, min_free_memory=min_free_memory, stagger=stagger, env=self.env)
        self._start_timeout = seconds(start_timeout, "start_timeout", above=0, infinite=False)
        self._drain_timeout = seconds(drain_timeout, "drain_timeout")
        self._stop_timeout = seconds(stop_timeout, "stop_timeout", infinite=False)
        self._control = control
        self._server: ControlServer | None = None
        self._lock = threading.Lock()
        self._tree: Tree | None = None
        self._services: Services | None = None
        self._keeper: HistoryKeeper | None = None
        self._missing: MissingAgents | None = None
        self._backlogs: Backlogs | None = None
        self._report: ShutdownReport | None = None
        self._ending = RuntimeEnding(name, self.env, on_end)
        self._times = Rounds(self.env)
        self._rounds: threading.Thread | None = None

    def start(self) -> Self:
        """Start the tree and return when every child has started; unfinished runs are taken up again.

        Raises:
            StartFailed: A child did not start; nothing is left running.
            JournalError: The store cannot be opened.
            RuntimeForked: It was made in another process.
        """
        self._refuse_in_fork()
        with self._lock:
            if self._services is not None:
                raise ConfigurationError(f"runtime {self.name!r} was started before", hint="make another one")
            sweep_orphans(sink=self.bus.emit, env=self.env)
            journal = self._open_journal()
            system = ActorSystem(self.name, env=self.env, sink=self.bus.emit)
            self._keeper = HistoryKeeper(self.history, journal)
            self._keeper.remember()
            self.bus.attach("history-keeper", self._keeper, events=FAILURES)
            context = TreeContext(system, self.bus.emit, self.breakers)
            services = Services(system, journal, self._budget, self.env, self.bus, self._state_dir(), context)
            services.publish()
            self._missing = MissingAgents(journal, self._serves, self.env, self.bus.emit)
            self._backlogs = context.backlog = Backlogs(journal, self.env)
            self._services = services
            _started[self] = services
            self._ending.share(services)
            try:
                self._tree = services.tree = Tree.start(
                    system, self._spec, name=self.name, timeout=self._start_timeout, context=context
                )
                self._ending.watch(self._tree)
                rounds = threading.Thread(target=self._make_rounds, name=f"{self.name}-rounds", daemon=True)
                rounds.start()
                self._rounds = rounds
                if self._control:
                    self._server = ControlServer(self, socket_path(self.name))
            except BaseException as error:
                self._ending.stopping = True
                if self._tree is not None:
                    self._tree.stop(self._stop_timeout)
                self._shut_down()
                self._ending.not_started(error)
                raise
        return self

    def stop(self, timeout: float | timedelta | None = None, *, drain: bool = True) -> ShutdownReport:
        """Wait for runs and requests to end, stop the tree in reverse order, kill what is left, and close everything.

        Runs that do not end in time are handed back: they go on when the runtime is started again. Requests that do
        not are cut off with `OwnerGone`, and the report counts them. Calling it again returns the same report.

        Args:
            timeout: Seconds for the whole, instead of the runtime's own `drain_timeout` and `stop_timeout`.
            drain: Whether to wait for runs and requests at all.
        """
        limit = seconds(timeout, infinite=False)
        with self._lock:
            if self._report is None:
                tree = self._running()
                began, self._ending.stopping = now(), True
                self.services.stopping = True
                if drain and self._ending.notice.end is None:
                    with contextlib.suppress(RuntimeNotRunning):  # it has ended just now
                        self.drain(self._drain_timeout if limit is None else limit / 2)
                cut = self.services.in_flight()
                self._ending.end_waits()
                left = self._stop_timeout if limit is None else max(0.1, limit - (now() - began))
                report, actors = tree.stop(left), self._shut_down()
                zombies = tuple(dict.fromkeys(zombie.actor for zombie in actors.zombies))
                killed = (*report.killed, *actors.killed)
                self._report = msgspec.structs.replace(report, killed=killed, left=zombies, cut_off=cut)
                self._ending.stopped()
        return self._report

    def wait(self, timeout: Duration | None) -> RuntimeEnd | None:
        """Wait until it has ended, whichever way, and return how.

        Args:
            timeout: Seconds to wait; `None` waits for ever, 0 only looks.

        Returns:
            The end: the root gave up, the tree came to its own end, or a stop is done. `None` when it still runs.

        Raises:
            RuntimeNotRunning: It has not been started.
        """
        self._here(self._services)
        return self._ending.notice.wait(timeout)

    @cached_property
    def aio(self) -> AsyncRuntime:
        """Starting, stopping and waiting for asyncio: nothing blocks the loop."""
        return AsyncRuntime(self, self._ending.notice)

    def drain(self, timeout: float | timedelta = 10.0) -> bool:
        """Have all that own engines take no more work, wait for what is under way, and return whether it ended in time.

        New requests are refused as `Draining`, but for those that the code of a run makes, so that the run can end.
        """
        self._alive()
        deadline, services = Deadline(seconds(timeout)), self.services
        refs = [services.whereis(path) for path, start in self._places() if _makes(start, EngineOwner)]
        asked = [ref.ask(Drain(admits_runs=True), block=False) for ref in refs if ref is not None]
        in_time = len(asked) == len(refs)
        for answer in asked:
            try:
                answer.get(timeout=deadline.left)
            except MlldError:
                in_time = False
        return in_time

    def run_forever(self) -> int:
        """Run until SIGTERM, SIGINT or the end of the tree; for the main thread of a service.

        The first signal drains and stops in order, a further one kills at once. Under systemd with `Type=notify` it
        tells when it is ready and how it is, and feeds the watchdog (see `mlld_sdk.runtime.systemd`).

        Returns:
            The exit status: 0 when all stopped in order, 75 when something had to be killed or still ran, 1 when the
            root gave up or the tree came to its own end. `stop()` returns the report that says what.
        """
        with contextlib.closing(SignalQueue()) as signals, caught_signals(signals):
            if self._tree is None:
                self.start()
            monitor = self._running().root.monitor(lambda _: signals.put("ended"))
            with SystemdNotifier(self) as notifier:
                signal = signals.get()
                notifier.stopping()
            if signal == "ended":
                self.stop(drain=False)
                self._ending.join()
                return EXIT_GAVE_UP
            monitor.cancel()
            stopper = threading.Thread(target=self._stop_and_tell, args=(signals,), name=f"{self.name}-stop")
            stopper.start()
            in_order = signals.get() in ("stopped", "ended")
            if not in_order:
                self._kill()
            stopper.join()
        return EXIT_CLEAN if in_order and self._report is not None and self._report.clean else EXIT_FORCED

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if os.getpid() == self._process:  # in a fork there is nothing to stop
            self.stop(drain=kind is None)

    async def __aenter__(self) -> Self:
        await self.aio.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if os.getpid() == self._process:
            await self.aio.stop(drain=kind is None)

    def __getitem__(self, name: Hashable) -> Any:  # noqa: ANN401
        """Find an agent, a pool or any other place in the tree, by its path or by its name if that is unique.

        A key under which a registry has it is a name, too, and need not be a text.

        Returns:
            An `AgentHandle`, a `PoolHandle`, a `ClientHandle`, or a `Place` for other actors.

        Raises:
            ChildNotFound: There is none.
            RuntimeGaveUp: The root gave up, so there is nothing any more.
        """
        path, start = self._find(name)
        services = self.services
        if _makes(start, Pool):
            return PoolHandle(services, path)
        if _makes(start, SupervisedClient):
            return ClientHandle(services, path)
        if _makes(start, EngineOwner):
            return AgentHandle(services, path)
        return self._running()[path]

    def agent(self, name: Hashable) -> AgentHandle:
        """Find an agent, as `runtime[name]` does, with the type of its handle."""
        found = self[name]
        if not isinstance(found, AgentHandle):
            raise ConfigurationError(f"{name} is no agent", hint="runs go to agents; runtime[name] finds any place")
        return found

    def pool(self, name: Hashable) -> PoolHandle:
        """Find a pool, as `runtime[name]` does, with the type of its handle."""
        found = self[name]
        if not isinstance(found, PoolHandle):
            raise ConfigurationError(f"{name} is no pool", hint="runtime[name] finds any place")
        return found

    def place(self, name: Hashable) -> Place:
        """Find a place in the tree, by its path, or by its name if that is unique; the root has the runtime's."""
        tree = self._alive()
        return tree[self.name if name == self.name else self._find(name)[0]]

    @property
    def supervisor(self) -> SupervisorRef:
        """The management calls of the root supervisor: start, stop, restart and update children while it runs."""
        return self._alive().supervisor

    def run(self, run_id: str) -> RunHandle:
        """Attach to a run by its id, also to one that another process has submitted.

        Raises:
            RunNotFound: There is none of that id.
        """
        journal = self.journal
        journal.run(run_id)
        return RunHandle(journal, run_id)

    @property
    def runs(self) -> Runs:
        """The runs in the journal, to be found by what is known of them."""
        return Runs(self.journal, self._path_of)

    def agents(self) -> list[AgentHandle]:
        """List the agents of the tree."""
        self._alive()
        services = self.services
        return [AgentHandle(services, path) for path, start in self._places() if _makes(start, Agent)]

    @property
    def journal(self) -> Journal:
        """The runs."""
        return self.services.journal

    @property
    def system(self) -> ActorSystem:
        """The actors."""
        return self.services.system

    def snapshot(self) -> NodeView:
        """Take a picture of the tree, without a message to any actor; after the end, of what was there at the end."""
        return self._running().snapshot()

    def tree(self) -> str:
        """Print the tree, and below it the agents that are not in it and that runs wait for."""
        return "\n".join([str(self._running()), *map(str, self.missing())])

    def missing(self) -> list[MissingAgent]:
        """List the agents that runs wait for and that nobody has, as far as this process can see; a second old at most.

        Another process that shares the journal may have one, and be busy, held or about to start: see
        `mlld_sdk.runtime.missing`.
        """
        return self._here(self._missing).all()

    def verdict(self) -> Verdict:
        """Return how the runtime is, and what is wrong with it: in the tree, or a journal that takes no writes.

        For places that were stopped or drained it names the runs that wait for them; so it does for agents that have
        been missing for a while. Of an end it says when and why.
        """
        verdict, end = self._running().verdict(), self._ending.notice.end
        if end is not None:
            verdict = verdict.explained({self.name: str(end)})
        asked_for = [one for one in verdict.concerns if one.word == "maintenance"][:MOST_NAMED]
        verdict = verdict.explained({one.path: one.why + self._waiting(one.path) for one in asked_for})
        for concern in self._here(self._missing).concerns():
            verdict = verdict.joined_by(concern)
        store = self.journal.store_status()
        if store.degraded is None:
            return verdict
        return verdict.joined_by(Concern("journal", "degraded", f"takes no writes: {store.reason}"))

    def supervisors(self) -> list[ActorRef[Any]]:
        """List the supervisors that run, in no order."""
        return list(self._running().context.states)

    def pause(self, path: str, reason: str = "") -> None:
        """Stop what is at a place and keep it stopped until `resume`; runs for it wait.

        Args:
            path: The place, or its name if that is unique.
            reason: Why; shown in the tree.

        Raises:
            NotSupported: It stands under a dynamic supervisor, which would forget it: end it with `terminate_child`,
                and start it again when it is wanted.
        """
        text("reason", reason, empty=True)
        supervisor, name = self._above(self._find(path)[0])
        state = self._alive().context.states.get(supervisor.ref)
        if state is not None and not state.keeps:
            raise NotSupported(name, "dynamic", "pause")
        supervisor.terminate_child(name, reason or UNSAID)

    def resume(self, path: str) -> None:
        """Start again what `pause` has stopped or what was given up on, or let it take work again after `drain`.

        Raises:
            ChildRunning: It runs and takes work already.
        """
        whole, start = self._find(path)
        runs = _makes(start, EngineOwner) and self.services.whereis(whole) is not None
        if runs and Named(self.services, whole).resume():
            return
        supervisor, name = self._above(whole)
        supervisor.restart_child(name)

    def restart(self, path: str, reason: str = "") -> None:
        """Stop what is at a place in order, and start it again; that counts towards no limit."""
        self.pause(path, reason)
        self.resume(path)

    def _waiting(self, path: str) -> str:
        """Name the runs that wait for a place, as far as there is room."""
        try:
            runs = self.journal.runs(kind=path, states=("pending",), limit=MOST_NAMED + 1)
        except MlldError:
            return ""  # the journal emits by itself that it is degraded
        ids = [run.id for run in runs[:MOST_NAMED]]
        return f"; waiting: {named(ids, len(runs) > MOST_NAMED)}" if runs else ""

    def _refuse_in_fork(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeForked(self.name, self._process)

    def _here(self, part: T | None) -> T:
        self._refuse_in_fork()
        if part is None:
            raise RuntimeNotRunning(f"runtime {self.name!r} is not running")
        return part

    def _running(self) -> Tree:
        return self._here(self._tree)

    @property
    def services(self) -> Services:
        """What the agents share."""
        return self._here(self._services)

    def _alive(self) -> Tree:
        """Return the tree, or raise why there is none to work with."""
        tree, end = self._running(), self._ending.notice.end
        if end is not None:
            raise end.error()
        return tree

    def _places(self) -> Iterator[tuple[str, Any]]:
        """List paths and what is started there, from the states that supervisors have published."""
        tree = self._running()
        todo = [tree.root]
        while todo:
            state = tree.context.states.get(todo.pop())
            if state is None:
                continue
            for slot in state.slots:
                yield f"{state.path}/{state.label_of(slot)}", slot.spec.start
                if slot.child is not None:
                    todo.append(slot.child)

    def _find(self, name: Hashable) -> tuple[str, Any]:
        """Return the path of a place, given by its path or its name, and what is started there."""
        tree = self._alive()
        found = tree.named(name)
        if len(found) == 1:
            return found[0][0], found[0][1].start
        if tree.context.ends:  # what is going is not listed any more
            raise self._ending.refusal()
        raise ChildNotFound(str(name), [path for path, _ in found[:10]])

    def _serves(self, path: str) -> bool:
        """Return whether an agent of this tree has a path, running or not."""
        tree = self._running()
        if tree.context.ends:  # nobody is missed in a tree that ends
            return True
        try:
            spec = tree.spec(path)
        except ChildUnavailable:  # what is below a supervisor that is down is not known before it is up
            return True
        return spec is not None and _makes(spec.start, Agent)

    def _path_of(self, agent: str) -> str:
        """Return the path of an agent that may not be in the tree."""
        tree = self._running()
        if tree.context.ends:
            known = [node.path for node in walk(tree.snapshot()) if agent in (node.path, node.name)]
        else:
            known = [path for path, _ in tree.named(agent)]
        return known[0] if len(known) == 1 else tree[agent].path

    def _above(self, path: str) -> tuple[SupervisorRef, str]:
        """Return the supervisor of a place, and what it calls the child there."""
        parent, _, name = path.rpartition("/")
        return self._alive()[parent].supervisor(), name

    def _state_dir(self) -> Path:
        if self._store is not None:
            return self._store.absolute().with_name(f"{self._store.name}.d")
        name = directory_prefix(our_mark("")) + f"{self.env.random.getrandbits(64):016x}"  # `sweep_orphans` knows it
        return Path(gettempdir(), name)

    def _make_rounds(self) -> None:
        """Wake agents that other processes have submitted runs for or died over; put engines to sleep."""
        services, keeper = self.services, self._here(self._keeper)
        for _ in self._times:
            try:
                self._budget.sleep_idle()
                kill_count.look()
                services.runs.settle_again()
                services.forget_gone()
                kinds = self._here(self._backlogs).look()
                keeper.write_down()
                services.journal.fail_overdue()
                self._here(self._missing).look(kinds)
                for kind in kinds:
                    services.poke(kind)
            except MlldError:  # the journal emits by itself that it is degraded
                continue
            except Exception as error:  # noqa: BLE001 - what fails in one round must not end all that come
                services.system.callback_failed(error)

    def _stop_and_tell(self, signals: SignalQueue) -> None:
        self.stop()
        signals.put("stopped")

    def _kill(self) -> None:
        """End everything now: engines first, then actors."""
        services, tree = self.services, self._running()
        services.system.hurry()
        services.close()
        tree.root.kill("a second signal came")

    def _shut_down(self) -> StopReport:
        services = self.services
        self._times.end()
        if self._server is not None:
            self._server.close()
        services.close()
        actors = services.system.stop()
        self.bus.detach("history-keeper")  # it writes down the last crashes first
        with contextlib.suppress(MlldError):  # the journal has told that it is not well
            self._here(self._keeper).write_down()
        services.journal.close()
        if self._rounds is not None:
            self._rounds.join(LAST_ROUND)
        self._here(self._backlogs).close()
        if self._store is None:
            shutil.rmtree(services.state_dir, ignore_errors=True)  # caches of runs that are gone with it
        self.bus.close()
        return actors


def _makes(start: object, kind: type) -> bool:
    return isinstance(start, type) and issubclass(start, kind)


_started: WeakKeyDictionary[Runtime, Services] = WeakKeyDictionary()


def _after_fork() -> None:
    for runtime, services in _started.items():
        services.refuse_all(partial(RuntimeForked, runtime.name, os.getppid()))
    _started.clear()


os.register_at_fork(after_in_child=_after_fork)
