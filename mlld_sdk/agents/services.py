"""What the agents of one runtime share: the journal, the engines' quota and pools, and how to find one another."""

import hashlib
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlld_sdk.actors.core.errors import UnknownName
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.services import find, publish
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError
from mlld_sdk.base.events import Sink
from mlld_sdk.base.folders import private_folder
from mlld_sdk.engines.draining import ClosingSource
from mlld_sdk.engines.pool import EnginePool
from mlld_sdk.engines.quota import EngineQuota
from mlld_sdk.engines.requests import EngineRequests
from mlld_sdk.journal import Journal
from mlld_sdk.runs.breakers import StepBreakers, StepGuard
from mlld_sdk.runs.handles import within_run
from mlld_sdk.runs.state import RunServices
from mlld_sdk.supervision.errors import BreakerOpen, ChildNotFound, ChildUnavailable
from mlld_sdk.supervision.execution.tree_context import TreeContext
from mlld_sdk.supervision.tree import Tree


@dataclass(frozen=True, slots=True)
class LookForWork:
    """Sent to an agent when the journal may hold something for it."""


LOOK = LookForWork()


@dataclass(eq=False, repr=False)
class AgentUnavailable(InfrastructureError):
    """None works under this name now: it is starting again, was stopped, or its supervisor gave up.

    Attributes:
        agent: The name.
    """

    code = "AGENT_UNAVAILABLE"
    message = "{agent} is not running"
    hint = "ask again in a moment; a run that is submitted to an agent waits until it is back"
    agent: str


NAME = "mlld"


@dataclass(slots=True)
class Services:
    """Everything process-wide that an agent needs; made by the runtime, found through the actor system.

    Attributes:
        system: The actors.
        journal: The runs.
        quota: Admits engines.
        env: Clocks and chance.
        sink: Takes events.
        state_dir: Where isolated caches lie.
        requests: The way to the engines of each agent, pool and client, by path; until its place is gone.
        context: What the supervisors of the tree share; known before the tree has started.
        tree: The supervision tree; set once it has started.
        over: Makes the error of those that still want something, once the runtime has ended.
        stopping: Whether the runtime has begun to stop, so that a new incarnation takes no work.
        step_breakers: The breakers of each agent's steps, by path; they outlive its incarnations.
        runs: What of this the work on runs needs.
    """

    system: ActorSystem
    journal: Journal
    quota: EngineQuota
    env: Env
    sink: Sink
    state_dir: Path
    context: TreeContext
    requests: dict[str, EngineRequests] = field(default_factory=dict)
    tree: Tree | None = None
    over: Callable[[], MlldError] | None = None
    stopping: bool = False
    runs: RunServices = field(init=False)
    step_breakers: dict[str, StepBreakers] = field(default_factory=dict)
    _engine_pools: dict[str, EnginePool] = field(default_factory=dict)
    _gated: dict[str, tuple[EngineRequests, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.runs = RunServices(self.journal, self.env, self.sink)

    def publish(self) -> None:
        """Publish these services to the actors of the system."""
        publish(self.system, self, NAME)

    @staticmethod
    def of(system: ActorSystem) -> "Services":
        """Find the services of an actor system.

        Raises:
            ConfigurationError: The system belongs to no runtime.
        """
        try:
            return find(system, Services, NAME)
        except UnknownName:
            raise ConfigurationError(
                f"actor system {system.name!r} belongs to no runtime", hint="start agents under a Runtime"
            ) from None

    def engine_pool(self, name: str, make: Callable[[], EnginePool], made_of: object) -> EnginePool:
        """Find the pool of a name in the tree, or make it. It outlives the incarnations that use it.

        When what its engines are `made_of` has changed (another rung of a ladder, another spec), the old pool is of no
        use to this incarnation and is closed.
        """
        with self._lock:
            old = self._engine_pools.get(name)
            if old is not None and old.open and old.made_of == made_of:
                return old
            made = self._engine_pools[name] = make()
            made.made_of = made_of
        if old is not None:
            old.close()
            old.kill_busy()
        return made

    def close_engine_pool(self, name: str) -> None:
        """End the engines of a name that is not coming back, idle or leased."""
        with self._lock:
            pool = self._take_out(name)
        if pool is not None:
            pool.close()
            pool.kill_busy()

    def forget_gone(self) -> None:
        """End what was kept for the successors of those whose place is not in the tree any more."""
        tree = self.tree
        if tree is None or tree.context.ends:
            return
        for name, requests in list(self.requests.items()):
            if requests.source.scope.over is None:
                continue
            pool = None
            # A new one of this name is in the tree before it takes over the pool, for which it needs the lock.
            with self._lock, suppress(ChildUnavailable):
                if tree.spec(name) is None and self.requests.get(name) is requests:
                    del self.requests[name]
                    pool = self._take_out(name)
            if pool is not None:
                pool.close()
                pool.kill_busy()

    def _take_out(self, name: str) -> EnginePool | None:
        self._gated.pop(name, None)
        self.step_breakers.pop(name, None)
        return self._engine_pools.pop(name, None)

    def engine_pools(self) -> dict[str, EnginePool]:
        """Return all engine pools by name."""
        with self._lock:
            return dict(self._engine_pools)

    def close(self) -> None:
        """End every engine, idle or leased."""
        for name in self.engine_pools():
            self.close_engine_pool(name)

    def stops(self, ref: ActorRef[Any]) -> bool:
        """Return whether a supervisor above an actor is stopping or has ended."""
        above = ref.parent
        while above is not None:
            state = self.context.states.get(above)
            if above.reason is not None or (state is not None and state.phase in ("stopping", "gone")):
                return True
            above = above.parent
        return False

    def in_flight(self) -> dict[str, int]:
        """Count the requests that have been taken and not ended, of each path that has any."""
        counts = {path: requests.source.in_flight for path, requests in list(self.requests.items())}
        return {path: count for path, count in counts.items() if count}

    def breakers_for(self, agent: ActorRef[Any]) -> StepBreakers:
        """Find the breakers of an agent's steps, with the one it is declared with now."""
        path, context = agent.path, self.context
        with self._lock:
            found = self.step_breakers.get(path)
            if found is None:
                found = self.step_breakers[path] = StepBreakers(context.breakers)
        above = None if agent.parent is None else context.states.get(agent.parent)
        slot = None if above is None else above.find(path.rpartition("/")[2])
        policy = None if slot is None else slot.spec.breaker
        found.own = None if policy is None else StepGuard(context.breakers.get(policy, path), policy)
        return found

    def whereis(self, name: str) -> ActorRef[Any] | None:
        """Find the actor in a place of the tree, if there is one now."""
        try:
            return None if self.tree is None else self.tree.ref(name)
        except (ChildNotFound, ChildUnavailable):
            return None

    def requests_of(self, name: str) -> EngineRequests:
        """Find the way to the engines of a name, with the circuit breaker in front of it.

        Raises:
            AgentUnavailable: None works under this name now; another error if the runtime has ended.
            BreakerOpen: Likewise, and its circuit breaker tells when to try again.
        """
        gated, tree = self._gated.get(name), self.tree
        if gated is not None and tree is not None and gated[1] == tree.context.version:
            requests = gated[0]
            if not requests.health.condemned and requests.source.scope.over is None:
                return requests
        return self._find_requests(name)

    def refuse_all(self, why: Callable[[], MlldError]) -> None:
        """Refuse everything from now on, without ending anything: a fork of a process owns nothing of its parent's."""
        self.over = why
        self._gated.clear()

    def is_up(self, name: str) -> bool:
        """Return whether an incarnation works under this name and is not about to end."""
        requests = self.requests.get(name)
        if requests is None or requests.health.condemned or requests.source.scope.over is not None:
            return False
        return self.whereis(name) is not None

    def wait_until_up(self, name: str, timeout: float, *, or_else: Callable[[], bool] = lambda: False) -> bool:
        """Wait until `is_up` with no engine that died and was not put away; return whether that was so in time.

        The wait is in vain as soon as `or_else` holds.
        """
        deadline = Deadline(timeout)
        while self.tree is not None and self.context.wait_for(
            lambda: self.over is not None or self.is_up(name) or or_else(), deadline.left
        ):
            self.refuse_if_over()
            if not self.is_up(name) and or_else():
                break
            pool, requests = self._engine_pools.get(name), self.requests.get(name)
            # A leased engine that died takes its agent down; one of a pool costs the request on it, and no other.
            if not (pool and requests and pool.see_off(deadline.left, leased=requests.health.ends_owner)):
                return True
            if deadline.left <= 0:
                break
        return False

    def _find_requests(self, name: str) -> EngineRequests:
        self.refuse_if_over()
        tree, breaker = self.tree, None
        if tree is not None:
            version, requests = tree.context.version, self.requests.get(name)
            with suppress(ChildNotFound, ChildUnavailable):
                if requests is not None and not requests.health.condemned:
                    _, requests.gate = tree.guarded(name)
                    source = requests.source
                    if isinstance(source, ClosingSource):
                        return _admitted(requests, source)
                    self._gated[name] = requests, version
                    return requests
            with suppress(ChildNotFound, ChildUnavailable):
                breaker = tree.breaker(name)
        view = None if breaker is None else breaker.view()
        if view is not None and view.retry_after:
            raise BreakerOpen(view.name, view.retry_after, by_hand=view.by_hand)
        raise self.absent(name)

    def absent(self, name: str) -> MlldError:
        """Make the error of somebody who wants a name under which none works now."""
        if self.over is not None:
            return self.over()
        error = AgentUnavailable(name)
        if self.tree is not None and self.tree.context.ends:
            error.hint = "its tree is ending: runs wait for the next start on the same store"
        return error

    def refuse_if_over(self) -> None:
        """Raise why nothing can be asked for any more, once the runtime has ended."""
        if self.over is not None:
            raise self.over()

    def poke(self, name: str) -> None:
        """Send an agent a message to look for work, if it runs."""
        ref = self.whereis(name)
        if ref is not None:
            ref.cast(LOOK)

    def cache_root(self, name: str) -> Path:
        """Return where an isolated cache lies: a folder of this user's alone, named so that no two agents share it.

        Raises:
            FolderNotPrivate: Another user has made it, or could write into it.
        """
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40]
        unique = f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
        return private_folder(self.state_dir, "checkpoints", unique)


def _admitted(requests: EngineRequests, source: ClosingSource) -> EngineRequests:
    """Return the way past what drains, for the code of a run that has to end; else the one that refuses."""
    if not (source.admits_runs and within_run.get()):
        return requests
    past = requests.on(source.behind)
    past.gate = requests.gate
    return past
