"""A running tree: starting and stopping it, looking at it, and finding what runs in it."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Self

import msgspec

from mlld_sdk.actors.core.errors import ActorCrashed, ActorDead, AskTimeout, StartFailed
from mlld_sdk.actors.core.exits import SHUTDOWN as SHUTDOWN_REASON
from mlld_sdk.actors.core.exits import Killed, Reason
from mlld_sdk.actors.core.names import Via
from mlld_sdk.actors.core.ref import Down
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.durations import Duration, now, seconds
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.events import Sink
from mlld_sdk.supervision.breaker import Breaker, Breakers
from mlld_sdk.supervision.decisions.inputs import StopRequested
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import SupervisorState
from mlld_sdk.supervision.errors import ChildNotFound, ChildUnavailable
from mlld_sdk.supervision.execution.messages import Boot, Happened, booting
from mlld_sdk.supervision.execution.tree_context import Ref, TreeContext
from mlld_sdk.supervision.reasons import SHUTDOWN, as_exit
from mlld_sdk.supervision.snapshot import NodeView, render, supervisor_view
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec, settle
from mlld_sdk.supervision.supervisor import Supervisor
from mlld_sdk.supervision.supervisor_ref import SupervisorRef
from mlld_sdk.supervision.verdict import Verdict, verdict


class ShutdownReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a tree ended.

    Attributes:
        reason: Why its root ended.
        killed: Paths of those that had to be killed because their time was up.
        left: Paths of those whose thread still ran at the end although they were killed.
        cut_off: How many requests were under way at a path when their time was up; a tree without agents has none.
        took: Seconds.
    """

    reason: Reason
    killed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    cut_off: dict[str, int] = {}
    took: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether no child had to be killed or was left behind."""
        return not (self.killed or self.left)


class Place:
    """A place in the tree, which survives restarts of the actor that fills it; references to actors do not."""

    __slots__ = ("_tree", "path")

    def __init__(self, tree: "Tree", path: str) -> None:
        self._tree = tree
        self.path: str = path

    def __repr__(self) -> str:
        return f"<Place {self.path}>"

    def ref(self) -> Ref:
        """Find the actor that is there now.

        Raises:
            ChildNotFound: There is no such place.
            ChildUnavailable: The place is empty at the moment; says why, and when to try again.
        """
        return self._tree.ref(self.path)

    def breaker(self) -> Breaker | None:
        """Find the circuit breaker in front of it, if it has one."""
        return self._tree.breaker(self.path)

    def call(self, message: object, *, timeout: float | None = 5.0) -> Any:  # noqa: ANN401
        """Call the actor that is there, through the breaker if there is one.

        The breaker hears of an answer, of an error that counts, and of silence until the timeout; that the child
        crashes it hears from the supervisor, once.

        Raises:
            BreakerOpen: Refused at once; says when to try again.
            ChildUnavailable: The place is empty at the moment.
        """
        guard = self.breaker()
        if guard is None:
            return self.ref().call(message, timeout=timeout)
        with guard.acquire() as permit:
            try:
                return self.ref().call(message, timeout=timeout)
            except (ChildNotFound, ChildUnavailable, ActorDead, ActorCrashed):
                permit.withdraw()
                raise

    def tell(self, message: object) -> None:
        """Send to the actor that is there."""
        self.ref().tell(message)

    def supervisor(self) -> SupervisorRef:
        """Get the management calls of the supervisor that is there."""
        return SupervisorRef(self.ref())


class Tree:
    """A running supervision tree.

    ```python
    with ActorSystem() as system, Tree.start(system, one_for_one(child(Worker))) as tree:
        tree["worker"].call("hello")
        print(tree)
    ```
    """

    def __init__(self, boot: Boot, root: Ref) -> None:
        self._boot = boot
        self.context: TreeContext = boot.context
        self.root = root
        self.name: str = boot.path

    @classmethod
    def start(
        cls,
        system: ActorSystem,
        spec: SupervisorSpec | DynamicSpec | ChildSpec | type[Supervisor],
        *,
        name: str = "root",
        timeout: Duration = 60.0,
        sink: Sink | None = None,
        context: TreeContext | None = None,
    ) -> "Tree":
        """Start a tree and wait until every child has started or declined.

        Args:
            system: Where its actors run.
            spec: The root: a supervisor spec, or a supervisor class (with arguments: `child(MyTree, ...)`).
            name: The first part of every path.
            timeout: Seconds it may take; then it is killed.
            sink: Takes the events; by default the system's.
            context: What its supervisors share, if that is to be known before; it has its own sink.

        Raises:
            StartFailed: A child did not start; those before it were stopped again. The reason says which and why.
        """
        limit = seconds(timeout, above=0, infinite=False)
        context = context or TreeContext(system, sink)
        context.name = name
        boot = Boot(context, name)
        top = settle(spec, "permanent", "never")
        start, args, kwargs = (
            (Supervisor, (top.start,), {})
            if isinstance(top.start, SupervisorSpec | DynamicSpec)
            else (top.start, top.args, dict(top.kwargs))
        )
        if not (isinstance(start, type) and issubclass(start, Supervisor)):
            raise InvalidOption("spec", spec, "a supervisor spec or a supervisor class")
        for option in ("backoff", "budget", "breaker", "wedge", "register"):
            if getattr(top, option) is not None:
                raise InvalidOption(option, getattr(top, option), "left out: a root is not restarted")
        root: Ref | None = None
        try:
            token = booting.set(boot)
            try:
                root = system.start(start, args, kwargs, label=name, timeout=limit)
            finally:
                booting.reset(token)
            monitor = root.monitor(lambda down: boot.ready.try_set_exception(_not_started(name, down)))
            try:
                boot.ready.get(timeout=limit)
            finally:
                monitor.cancel()
            return cls(boot, root)
        except BaseException as error:
            if root is not None and root.reason is None:  # too late, or a signal came: nobody has a handle on the tree
                late = isinstance(error, AskTimeout)
                root.cell.kill(Killed("the tree did not start in time" if late else "its start was interrupted"))
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, timeout: Duration = 30.0, *, drain: bool = False) -> ShutdownReport:
        """Stop all children in reverse start order, each with its own time, all of it within `timeout`.

        Calling it again, or on a tree that ended by itself, is fine.

        Args:
            timeout: Seconds for everything; whatever is left then is killed.
            drain: Have every child handle first what waits for it.
        """
        limit = seconds(timeout, infinite=False)
        began = now()
        killed: tuple[str, ...] = ()
        if self.root.reason is None:
            due = self.context.system.env.now() + limit
            self.root.cell.post_system(Happened(StopRequested(SHUTDOWN, due, drain)))
            try:
                self.root.join(limit + 1.0)
            except AskTimeout:
                killed = (self.name,)
                self.root.cell.kill(Killed("the tree did not stop in time"))
        reason = self.root.reason or SHUTDOWN_REASON
        left = self._left()
        return ShutdownReport(reason=reason, killed=(*self._boot.killed, *killed), left=left, took=now() - began)

    def _left(self) -> tuple[str, ...]:
        """Return the paths of killed actors of this tree whose code still runs."""
        below = f"{self.name}/"
        actors = (zombie.actor for zombie in self.context.system.zombies.list())
        return tuple(dict.fromkeys(actor for actor in actors if f"{actor}/".startswith(below)))

    def wait(self, timeout: float | None = None) -> Reason:
        """Wait until the tree ends by itself, and return why; raises `AskTimeout`."""
        return self.root.join(timeout)

    @property
    def running(self) -> bool:
        """Whether its root is there."""
        return self.root.is_alive()

    @property
    def gave_up(self) -> str:
        """Why its root gave up, in one line; empty when it did not."""
        state = self.context.ended.get(self.name)
        return "" if state is None else state.gave_up

    @property
    def crashed(self) -> str:
        """Why its root ended although it was neither told to nor done; empty when that is not so."""
        reason = self.root.reason
        return "" if reason is None or reason.is_normal_family else str(reason)

    @property
    def supervisor(self) -> SupervisorRef:
        """The management calls of the root."""
        return SupervisorRef(self.root)

    def __getitem__(self, path: str) -> Place:
        """Name a place below the root: `tree["workers/w3"]`. Whether it exists shows when it is used."""
        return Place(self, path if path.split("/", maxsplit=1)[0] == self.name else f"{self.name}/{path}")

    def ref(self, path: str) -> Ref:
        """Find the actor that fills a place now; raises `ChildNotFound` or `ChildUnavailable`."""
        return self._who(self._slot(path), path)

    def spec(self, path: str) -> ChildSpec | None:
        """Find the spec of the child that has a place in this tree, running or not; `None` if there is none.

        Raises:
            ChildUnavailable: A supervisor above it is down.
        """
        if path.split("/", 1)[0] != self.name:
            return None
        try:
            slot = self._slot(path)
        except ChildNotFound:
            return None
        return None if slot is None else slot.spec

    def named(self, name: Hashable) -> list[tuple[str, ChildSpec]]:
        """List paths and specs of the places that go by a name, living or not.

        A place of this very path is meant alone. Else it is those with this name as the last part of their path, which
        costs a look at each supervisor, whatever the number of its children; and if there are none, those that are
        registered under this name, or under this key of another name service. Such a key need not be a text.
        """
        if not isinstance(name, str):
            return self._registered(name, list(self.context.states.values()))
        path = self[name].path
        with suppress(ChildNotFound, ChildUnavailable):
            slot = self._slot(path)
            return [] if slot is None else [(path, slot.spec)]
        states = list(self.context.states.values())
        found = [(state.path_of(slot), slot.spec) for state in states if (slot := state.find(name)) is not None]
        return found or self._registered(name, states)

    def _registered(self, name: Hashable, states: Sequence[SupervisorState]) -> list[tuple[str, ChildSpec]]:
        """List the places whose children are registered under a name."""
        holder = self.context.system.directory.names.whereis_name(name)
        if holder is not None:
            with suppress(ChildNotFound, ChildUnavailable):
                slot = self._slot(holder.path)
                if slot is not None and slot.child == holder:
                    return [(holder.path, slot.spec)]
        return [
            (state.path_of(slot), slot.spec)
            for state in states
            for slot in state.slots
            if name == (slot.spec.register.key if isinstance(slot.spec.register, Via) else slot.spec.register)
        ]

    def breaker(self, path: str) -> Breaker | None:
        """Find the breaker in front of a place."""
        return self._breaker(self._slot(path), path)

    def guarded(self, path: str) -> tuple[Ref, Breaker | None]:
        """Find both at once. Raises as `ref` does."""
        slot = self._slot(path)
        return self._who(slot, path), self._breaker(slot, path)

    def _who(self, slot: Slot | None, path: str) -> Ref:
        if slot is None:
            return self.root
        if slot.status != "running" or slot.child is None:
            now = self.context.system.env.now()
            wait = None if slot.next_at is None else max(slot.next_at - now, 0.0)
            raise ChildUnavailable(path, slot.status, wait)
        found: Ref = slot.child
        return found

    def _breaker(self, slot: Slot | None, path: str) -> Breaker | None:
        if slot is None or slot.spec.breaker is None:
            return None
        return self.context.breakers.get(slot.spec.breaker, path)

    @property
    def breakers(self) -> Breakers:
        """All breakers of the tree."""
        return self.context.breakers

    def _slot(self, path: str) -> Slot | None:
        """Walk down to a place, through published states only; `None` is the root."""
        here, slot = self.root, None
        walked = self.name
        for part in path.split("/")[1:]:
            state = self.context.states.get(here)
            if state is None and slot is not None and slot.spec.kind == "worker":
                raise ChildNotFound(path)
            if state is None:
                raise ChildUnavailable(walked, "stopped" if slot is None else slot.status)
            slot = state.find(part)
            if slot is None:
                raise ChildNotFound(path)
            walked = f"{walked}/{part}"
            here = slot.child
        return slot

    def snapshot(self) -> NodeView:
        """Take a picture of the whole tree; when it has ended, of what was there. No actor is asked for anything."""
        context, reason = self.context, self.root.reason
        state = context.ended.get(self.name) or context.states.get(self.root)
        if state is None:
            last = "" if reason is None else str(reason)
            return NodeView(
                path=self.name, name=self.name, kind="supervisor", state="stopped", last=last, over=reason is not None
            )
        if reason is None:
            return supervisor_view(state, context, context.system.env.now())
        at = context.system.env.now() if context.over_since is None else context.over_since
        view = supervisor_view(state, context, at, over=True)
        ended = as_exit(reason)
        return msgspec.structs.replace(
            view, last=str(ended), last_kind=ended.kind, gave_up=self.gave_up or self.crashed
        )

    def verdict(self) -> Verdict:
        """Return in one word how the tree is, and what is wrong with it."""
        return verdict(self.snapshot())

    def wait_until(self, holds: Callable[[NodeView], bool], timeout: Duration = 5.0) -> bool:
        """Wait until a snapshot satisfies `holds`; return whether it did in time."""
        return self.context.wait_for(lambda: holds(self.snapshot()), seconds(timeout, infinite=False))

    def __str__(self) -> str:
        return render(self.snapshot())


def _not_started(name: str, down: Down) -> Exception:
    if down.ref.reason is None:
        return ActorDead(f"`{name}` has ended")
    return StartFailed(f"the tree `{name}` did not start: {down.ref.reason}", reason=down.ref.reason)
