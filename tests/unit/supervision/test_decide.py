"""Random trees, random faults: what must hold after every step, whatever happens.

The first machine plays on the pure decisions, where thousands of steps cost a second; the second on running actors.
"""

import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mlld_sdk.actors.core.exits import NORMAL, SHUTDOWN
from mlld_sdk.supervision import SupervisorRef, Tree, child, dynamic
from mlld_sdk.supervision.decisions.management import counts
from mlld_sdk.supervision.decisions.state import DynamicState, StaticState
from mlld_sdk.supervision.events import ChildExited, ChildIgnored, ChildStarted, ChildStartFailedEvent, ChildStopped
from mlld_sdk.supervision.spec import supervisor as supervisor_of
from tests.oracle.scenarios import REASONS, RESTARTS, STRATEGIES
from tests.oracle.simulate import Node, World_, build, worker
from tests.support.supervision import Recorder, fake_system, quiet
from tests.support.trees import Puppet

SCRIPTS = (("ok",),) * 4 + (("ok", "error", "ok"), ("ok", "raise"), ("ok", "ignore", "ok"), ("ok", "ok", "error"))
STOPS = ("ok",) * 5 + ("boom", "normal", "stubborn")


def random_tree(chance: random.Random, depth: int = 0, number: list[int] | None = None) -> dict[str, Any]:
    """Make up a tree of at most three levels."""
    number = [0] if number is None else number
    children: list[dict[str, Any]] = []
    for _ in range(chance.randint(0 if depth else 1, 4)):
        number[0] += 1
        common = {"restart": chance.choice(RESTARTS), "id": f"n{number[0]}"}
        if depth < 2 and chance.random() < 0.3:
            children.append({**random_tree(chance, depth + 1, number), **common})
        else:
            shutdown = chance.choice((1000, 50, 0, "brutal_kill", "infinity"))
            stop = "ok" if shutdown == "infinity" else chance.choice(STOPS)
            children.append({**common, "starts": chance.choice(SCRIPTS), "stop": stop, "shutdown": shutdown})
    return {
        "id": "root",
        "strategy": chance.choice(STRATEGIES),
        "intensity": chance.choice((0, 1, 2, 5)) if depth else 40,
        "period": 60,  # long enough that no restart loop slowed down by stubborn children goes on for ever
        "children": tuple(children),
    }


class Ledger:
    """What one supervisor told: each incarnation comes up once and goes down once, each attempt has one outcome."""

    def __init__(self) -> None:
        self.up: dict[str, int] = {}
        self.attempts: dict[str, int] = {}
        self.planned: set[str] = set()

    def enter(self, event: Any) -> None:
        match event:
            case ChildStarted(path=path, incarnation=incarnation):
                assert path not in self.up, f"{path} came up twice"
                assert incarnation > self.attempts.get(path, 0)
                self.up[path] = self.attempts[path] = incarnation
            case (
                ChildIgnored(path=path, incarnation=incarnation)
                | ChildStartFailedEvent(path=path, incarnation=incarnation)
            ):
                assert path not in self.up
                assert incarnation > self.attempts.get(path, 0)
                self.attempts[path] = incarnation
            case ChildExited(path=path, incarnation=incarnation):
                assert self.up.pop(path) == incarnation
            case ChildStopped(path=path, reason="it was down already"):
                assert path not in self.up
            case ChildStopped(path=path, reason="its restart was called off"):
                assert path in self.planned
            case ChildStopped(path=path, incarnation=incarnation) if path in self.up:
                assert self.up.pop(path) == incarnation
            case ChildStopped(path=path, incarnation=incarnation):
                assert incarnation > self.attempts.get(path, 0), f"{path} went down twice"
                self.attempts[path] = incarnation
            case _:
                return
        self.planned.discard(path)
        if isinstance(event, ChildExited | ChildStartFailedEvent) and event.decision in ("restart", "wait", "park"):
            self.planned.add(path)


class DecidingMachine(RuleBasedStateMachine):
    """Plays on the pure decisions."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World_(random_tree(self.chance))
        self.world.boot(self.world.root, build(self.world.tree, worker), "root")
        self.world.settle()
        self.added = 0
        self.ledgers: dict[Node, Ledger] = {}

    def pick(self, *, supervisors: bool) -> Node | None:
        fitting = [node for node in self.alive() if (node.state is not None) == supervisors]
        return self.chance.choice(fitting) if fitting else None

    def alive(self) -> list[Node]:
        """List who is alive, from the root down."""
        found, todo = [], [self.world.root]
        while todo:
            node = todo.pop()
            if node.alive:
                found.append(node)
                todo += node.below.values()
        return found

    @rule(reason=st.sampled_from(REASONS))
    def one_ends(self, reason: str) -> None:
        node = self.pick(supervisors=False)
        if node is not None:
            self.world.nodes[node.id] = node
            self.world.play(("kill", node.id) if reason == "kill" else ("exit", node.id, reason))
            self.world.settle()

    @rule(count=st.integers(2, 4), reason=st.sampled_from(REASONS))
    def several_end_together(self, count: int, reason: str) -> None:
        for _ in range(count):
            node = self.pick(supervisors=False)
            if node is not None:
                self.world.nodes[node.id] = node
                self.world.play(("kill", node.id) if reason == "kill" else ("exit", node.id, reason))
        self.world.settle()

    @rule()
    def a_supervisor_is_killed(self) -> None:
        node = self.pick(supervisors=True)
        if node is not None and node is not self.world.root:
            self.world.nodes[node.id] = node
            self.world.play(("kill_supervisor", node.id))
            self.world.settle()

    @rule(
        function=st.sampled_from(["terminate_child", "restart_child", "delete_child", "start_child", "get_childspec"])
    )
    def somebody_manages(self, function: str) -> None:
        node = self.pick(supervisors=True)
        if node is None:
            return
        self.world.nodes[node.id] = node
        names = [*node.state.names, "nobody"]
        name: Any = self.chance.choice(names)
        if function == "start_child":
            self.added += 1
            name = {
                "id": f"x{self.added}",
                "restart": self.chance.choice(RESTARTS),
                "starts": self.chance.choice(SCRIPTS),
            }
        if function != "get_childspec" or name in node.state.names:
            self.world.play(("call", node.id, function, (name,)))
            self.world.settle()

    @rule(ms=st.integers(1, 5000))
    def time_passes(self, ms: int) -> None:
        self.world.play(("wait", ms))
        self.world.settle()

    @invariant()
    def books_are_in_order(self) -> None:
        for node in self.alive():
            if node.state is None:
                continue
            state: StaticState = node.state
            assert state.operation is None
            assert not state.queue
            assert state.phase == "running"
            keys = [slot.key for slot in state.slots]
            assert sorted(state.order) == keys
            assert sorted(state.names.values()) == keys
            assert all(state.slots[key].spec.name == name for name, key in state.names.items())
            assert state.window.view(self.world.now, state.spec.limit).used <= state.spec.limit.restarts
            for slot in state.slots:
                assert slot.status != "waiting" or slot.next_at is not None, f"{slot.spec.name} waits for nothing"
            counted = counts(state.slots)
            assert counted.active == sum(slot.status == "running" for slot in state.slots)
            assert counted.specs == len(state.order) == counted.workers + counted.supervisors

    @invariant()
    def everybody_has_exactly_one_owner(self) -> None:
        alive = set(self.alive())
        for node in self.world.nodes.values():
            assert node.alive == (node in alive), f"{node.id} lives without its supervisor"
        for node in alive:
            if node.state is not None:
                running = [slot.child for slot in node.state.slots if slot.status == "running"]
                assert {id(one) for one in running} == {id(one) for one in node.below.values() if one.alive}
                assert all(one.alive for one in running)
                assert all(slot.live or slot.child is None for slot in node.state.slots)

    @invariant()
    def every_transition_is_one_event(self) -> None:
        told, self.world.events = self.world.events, []
        for node, event in told:
            self.ledgers.setdefault(node, Ledger()).enter(event)

    def teardown(self) -> None:
        if hasattr(self, "world") and self.world.root.alive:
            self.world.inbox.append((self.world.root, halt()))
            self.world.settle()
            assert not self.world.root.alive
            assert not any(node.alive for node in self.world.nodes.values())
            self.every_transition_is_one_event()
            assert not self.ledgers[self.world.root].up


def halt() -> Any:
    from mlld_sdk.supervision.decisions.inputs import StopRequested
    from mlld_sdk.supervision.reasons import SHUTDOWN as EXIT

    return StopRequested(EXIT)


TestDecidingMachine = DecidingMachine.TestCase
TestDecidingMachine.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


class RunningMachine(RuleBasedStateMachine):
    """Plays on running actors: supervisors, dynamic ones too, killed and crashing at any moment."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.events = Recorder()
        self.system, self.clock = fake_system(self.events)
        self.tree = Tree.start(self.system, self.spec(0), timeout=5)

    def spec(self, depth: int) -> Any:
        children = []
        for number in range(self.chance.randint(1, 3)):
            restart = self.chance.choice(RESTARTS)
            if depth < 2 and self.chance.random() < 0.4:
                children.append(child(self.spec(depth + 1), name=f"s{number}", restart=restart))
            elif self.chance.random() < 0.2:
                children.append(child(dynamic(), name=f"d{number}", restart=restart))
            else:
                children.append(child(Puppet, name=f"w{number}", restart=restart))
        return supervisor_of(self.chance.choice(STRATEGIES), *children, max_restarts=self.chance.choice((0, 2, 50)))

    def refs(self) -> dict[Any, StaticState | DynamicState]:
        return dict(self.tree.context.states)

    @rule(how=st.sampled_from(["kill", "crash", "normal", "shutdown"]), count=st.integers(1, 3))
    def some_end(self, how: str, count: int) -> None:
        for _ in range(count):
            workers = [ref for ref in self.system.actors() if ref not in self.refs()]
            if workers:
                ref = self.chance.choice(workers)
                if how == "kill":
                    ref.kill()
                elif how == "crash":
                    ref.cast(RuntimeError("boom"))
                else:
                    ref.stop(block=False, reason=NORMAL if how == "normal" else SHUTDOWN)
        quiet(self.system)

    @rule()
    def a_supervisor_dies(self) -> None:
        below = [ref for ref in self.refs() if ref is not self.tree.root]
        if below:
            self.chance.choice(below).kill()
            quiet(self.system)

    @rule()
    def a_child_is_added(self) -> None:
        crowds = [ref for ref, state in self.refs().items() if isinstance(state, DynamicState)]
        if crowds:
            SupervisorRef(self.chance.choice(crowds)).start_child(
                child(Puppet, restart=self.chance.choice(("permanent", "transient", "temporary")))
            )
            quiet(self.system)

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        quiet(self.system)

    @invariant()
    def nobody_runs_without_an_owner(self) -> None:
        quiet(self.system)
        owned = {self.tree.root} if self.tree.running else set()
        todo = list(owned)
        while todo:
            state = self.refs().get(todo.pop())
            for slot in state.slots if state is not None else ():
                if slot.status == "running":
                    assert slot.child not in owned, "two owners"
                    owned.add(slot.child)
                    todo.append(slot.child)
        assert owned == set(self.system.actors())

    @invariant()
    def a_snapshot_can_always_be_taken(self) -> None:
        assert str(self.tree)
        assert self.tree.verdict().word

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            assert self.tree.stop().clean
            assert self.system.actors() == []
            self.system.stop(2)


TestRunningMachine = RunningMachine.TestCase
TestRunningMachine.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
