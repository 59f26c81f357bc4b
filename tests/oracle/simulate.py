"""Plays a scenario on the pure decisions alone: a tiny world with no thread and a clock that stands still."""

import heapq
import random
from collections import deque
from math import inf
from typing import Any

import msgspec

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.supervision.decisions.decide import initial, step
from mlld_sdk.supervision.decisions.draft import World
from mlld_sdk.supervision.decisions.effects import (
    AnswerCall,
    Arm,
    Disarm,
    Emit,
    Finish,
    Kill,
    Ready,
    RequestStop,
    Start,
)
from mlld_sdk.supervision.decisions.inputs import (
    Asked,
    Begin,
    Due,
    Ended,
    FailedToStart,
    Ignored,
    Overdue,
    Started,
    StopRequested,
)
from mlld_sdk.supervision.decisions.management import counts
from mlld_sdk.supervision.decisions.management import rows as rows_of
from mlld_sdk.supervision.decisions.requests import DeleteChild, GetSpec, RestartChild, StartChild, TerminateChild
from mlld_sdk.supervision.reasons import KILLED, NORMAL, SHUTDOWN, ChildExit
from mlld_sdk.supervision.spec import SupervisorSpec
from tests.oracle.trace import build, build_child, refused, result, rows

EXITS = {
    "normal": NORMAL,
    "shutdown": SHUTDOWN,
    "shutdown_x": ChildExit("shutdown", "shutdown: x"),
    "boom": ChildExit("crash", "boom"),
    "kill": KILLED,
    "error": ChildExit("crash", "no"),
    "raise": ChildExit("crash", "boom"),
}
REQUESTS = {
    "restart_child": RestartChild,
    "terminate_child": TerminateChild,
    "delete_child": DeleteChild,
    "get_childspec": GetSpec,
}


def worker(data: dict[str, Any]) -> type:
    """Make a class that carries what the scenario says about a child."""
    return type(data["id"], (Actor,), {"data": data})


class Node:
    """A running incarnation, of a worker or of a supervisor."""

    def __init__(self, id_: str, parent: "Node | None", key: int, incarnation: int) -> None:
        self.id, self.parent, self.key, self.incarnation = id_, parent, key, incarnation
        self.alive = True
        self.data: dict[str, Any] = {}
        self.state: Any = None
        self.below: dict[int, Node] = {}


class World_:
    """Everything of one scenario."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self.tree = tree
        self.now = 0.0
        self.trace: list[Any] = []
        self.events: list[Any] = []
        self.inbox: deque[tuple[Node, Any]] = deque()
        self.timers: list[tuple[float, int, Node, Any]] = []
        self.count = 0
        self.nodes: dict[str, Node] = {}
        self.starts: dict[str, int] = {}
        self.hanging: dict[str, tuple[Node, Start]] = {}
        self.hangs = False
        self.chance = random.Random(1)
        self.ended: ChildExit | None = None
        self.root = Node(tree["id"], None, 0, 1)

    # -- carrying out --------------------------------------------------------------------------------------------------

    def boot(self, node: Node, spec: SupervisorSpec, path: str) -> None:
        node.state = initial(path, spec)
        self.nodes[node.id] = node
        self.inbox.append((node, Begin()))

    def run(self) -> None:
        while self.inbox:
            node, happened = self.inbox.popleft()
            if not node.alive:
                continue
            if isinstance(happened, Ended | FailedToStart | Ignored):
                self.lift(node, happened.key, Overdue)
            node.state, effects = step(node.state, (happened,), World(self.now, self.now, self.chance))
            for effect in effects:
                self.carry_out(node, effect)

    def carry_out(self, node: Node, effect: Any) -> None:
        match effect:
            case Start(key, _, spec, _):
                name = spec.name
                self.trace.append(["start", name])
                data = spec.start.data if isinstance(spec.start, type) else self.data_of(name)
                script = data.get("starts", ("ok",))
                turn = self.starts[name] = self.starts.get(name, 0) + 1
                self.outcome(node, effect, script[min(turn, len(script)) - 1])
            case RequestStop(key, incarnation, due, deadline):
                below = node.below[key]
                if due != inf:
                    self.push(due, node, Overdue(key, incarnation))
                if below.state is not None:
                    self.inbox.append((below, StopRequested(SHUTDOWN, deadline)))
                elif below.alive:
                    self.trace.append(["term", below.id, "shutdown"])
                    manner = below.data.get("stop", "ok")
                    if manner != "stubborn":
                        self.end(below, SHUTDOWN if manner == "ok" else EXITS[manner])
            case Kill(key, _, exit_):
                self.kill(node.below[key], exit_)
            case Arm(delay, then):
                if delay == 0:
                    self.inbox.append((node, then))
                else:
                    self.push(self.now + delay, node, then)
            case Disarm(key):
                self.lift(node, key, Due)
            case AnswerCall(call, value, error):
                how, function = call
                self.trace.append([how, function, result(function, value, error)])
            case Emit(event):
                self.events.append((node, event))
            case Ready():
                if node.parent is None:
                    self.trace.append(["up"])
                else:
                    self.inbox.append((node.parent, Started(node.key, node.incarnation, node)))
            case Finish(exit_, killed):
                node.alive = False
                if node.parent is None:
                    self.ended = exit_
                elif node.state.ready:
                    self.inbox.append((node.parent, Ended(node.key, node.incarnation, exit_, report=killed)))
                else:
                    self.trace.append(["failed", node.id])
                    self.inbox.append((node.parent, FailedToStart(node.key, node.incarnation, exit_)))

    def push(self, at: float, node: Node, then: Due | Overdue) -> None:
        self.count += 1
        heapq.heappush(self.timers, (at, self.count, node, then))

    def lift(self, node: Node, key: int, kind: type) -> None:
        self.timers = [t for t in self.timers if not (t[2] is node and isinstance(t[3], kind) and t[3].key == key)]
        heapq.heapify(self.timers)

    def outcome(self, node: Node, start: Start, how: str) -> None:
        name, key, incarnation = start.spec.name, start.key, start.incarnation
        if how == "hang":
            self.hanging[name] = (node, start)
            return
        if how in ("error", "raise"):
            self.trace.append(["failed", name])
            self.inbox.append((node, FailedToStart(key, incarnation, EXITS[how])))
        elif how == "ignore":
            self.trace.append(["ignored", name])
            self.inbox.append((node, Ignored(key, incarnation)))
        else:
            below = Node(name, node, key, incarnation)
            node.below[key] = below
            if isinstance(start.spec.start, SupervisorSpec):
                self.boot(below, start.spec.start, f"{node.state.path}/{name}")
            else:
                below.data = start.spec.start.data
                self.nodes[name] = below
                self.inbox.append((node, Started(key, incarnation, below)))

    def data_of(self, name: str) -> dict[str, Any]:
        todo = [self.tree]
        while todo:
            one = todo.pop()
            if one["id"] == name:
                return one
            todo += one.get("children", ())
        raise KeyError(name)

    def end(self, node: Node, exit_: ChildExit) -> None:
        """A worker is gone."""
        if node.alive and node.parent is not None:
            node.alive = False
            self.inbox.append((node.parent, Ended(node.key, node.incarnation, exit_)))

    def kill(self, node: Node, exit_: ChildExit = KILLED) -> None:
        """End a node at once; what is below a supervisor hears that its parent was killed."""
        if not node.alive:
            return
        self.end(node, exit_)
        node.alive = False
        self.orphan(node)

    def orphan(self, node: Node) -> None:
        for below in node.below.values():
            if below.alive:
                below.alive = False
                if below.state is None:
                    self.trace.append(["term", below.id, "killed"])
                self.orphan(below)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        self.run()
        while self.timers and not self.hangs and self.busy():
            self.tick()

    def busy(self) -> bool:
        return any(node.alive and node.state is not None and node.state.operation for node in self.nodes.values())

    def tick(self) -> None:
        self.now, _, node, then = heapq.heappop(self.timers)
        self.inbox.append((node, then))
        self.run()

    def play(self, what: tuple[Any, ...]) -> None:
        match what:
            case ("exit", id_, reason):
                self.end(self.nodes[id_], EXITS[reason])
            case ("kill", id_) | ("kill_supervisor", id_):
                if self.nodes[id_] is self.root:
                    self.ended = KILLED
                    self.root.alive = False
                    self.orphan(self.root)
                else:
                    self.kill(self.nodes[id_])
            case ("die_together", _, deaths):
                for id_, reason in deaths:
                    self.end(self.nodes[id_], EXITS[reason])
            case ("call" | "async", on, function, args):
                known = function == "start_child"
                request = StartChild(build_child(args[0], worker)) if known else REQUESTS[function](*args)
                how = "result" if what[0] == "call" else "later"
                self.inbox.append((self.nodes[on], Asked((how, function), request)))
            case ("hanging", flag):
                self.hangs = flag == "true"
            case ("release", id_, how):
                node, start = self.hanging.pop(id_)
                self.outcome(node, start, how)
            case ("which", on):
                node = self.nodes[on]
                self.trace.append(["which", rows(rows_of(node.state)) if node.alive else "gone"])
            case ("count", on):
                node = self.nodes[on]
                self.trace.append(
                    ["count", *(msgspec.structs.astuple(counts(node.state.slots)) if node.alive else ["gone"])]
                )
            case ("wait", ms):
                until = self.now + ms / 1000
                while self.timers and self.timers[0][0] <= until:
                    self.tick()
                self.now = until
            case ("parent_exit", reason):
                self.inbox.append((self.root, StopRequested(EXITS[reason])))
            case ("stranger_exit", _, _):
                pass
            case _:
                raise ValueError(what)


def play(scenario: dict[str, Any]) -> list[Any]:
    """Run one scenario: its trace."""
    return run(scenario).trace


def run(scenario: dict[str, Any]) -> World_:
    """Run one scenario and keep its world, to look at events and states."""
    world = World_(scenario["tree"])
    try:
        spec = build(scenario["tree"], worker)
    except Exception as error:
        world.trace.append(refused(scenario["tree"], error))
        return world
    world.boot(world.root, spec, world.root.id)
    world.settle()
    if world.ended is not None:
        reason = world.ended.reason
        world.trace.append(["start_failed", ["failed_to_start", reason.child]])
        return world
    for what in scenario["steps"]:
        world.play(what)
        world.settle()
    if world.ended is None:
        world.trace.append(["ending"])
        world.inbox.append((world.root, StopRequested(SHUTDOWN)))
        world.settle()
        world.trace.append(["alive"])
    else:
        words = {"crash": "boom"}
        world.trace.append(["ended", words.get(world.ended.kind, world.ended.kind)])
    return world
