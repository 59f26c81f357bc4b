"""The stream of events is the whole truth: what is put together from it alone equals the tree, whatever happens."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlld_sdk import Agent, Backoff, Runtime, budget, child, circuit_breaker, dynamic, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.events import ActorExited, ActorStarted
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.supervision import SupervisorSpec, one_for_all, rest_for_one
from mlld_sdk.supervision.errors import ChildNotFound, ChildUnavailable
from mlld_sdk.supervision.events import ChildExited, ChildStarted, ChildStopped
from mlld_sdk.supervision.snapshot import NodeView, walk
from mlld_sdk.telemetry.places import Places
from tests.support.eventually import eventually

SETTLED = {"running", "stopped", "waiting", "parked", "failed"}


class Fragile(Actor):
    """Does not always come up, and breaks when told to."""

    chance = random.Random()
    lives: ClassVar[Counter[str]] = Counter()

    def on_start(self) -> None:
        if self.chance.random() < 0.1:
            raise RuntimeError("not this time")
        type(self).lives[self.actor_ref.path] += 1

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message


def random_children(chance: random.Random, depth: int = 0) -> list[Any]:
    found: list[Any] = []
    for number in range(chance.randint(2, 4)):
        name = f"{'abc'[depth]}{number}"
        if depth < 2 and chance.random() < 0.4:
            strategy = chance.choice([one_for_one, one_for_all, rest_for_one])
            below = random_children(chance, depth + 1)
            found.append(strategy(*below, name=name, max_restarts=chance.choice([1, 3, 50]), within=5.0))
            continue
        options: dict[str, Any] = {"restart": chance.choice(["permanent", "permanent", "transient", "temporary"])}
        if chance.random() < 0.3:
            options["backoff"] = Backoff(chance.choice([0.01, 60.0]), jitter=0)
        if chance.random() < 0.2:
            options["budget"] = budget(2, within=60.0, then="stop")
        if chance.random() < 0.2:
            open_for = chance.choice([0.05, 60.0])
            options["breaker"] = circuit_breaker(failures=1, within=60.0, open_for=open_for, parks=True)
        found.append(child(Fragile, name=name, **options))
    return found


def settled(runtime: Runtime) -> NodeView | None:
    """Give the tree if nothing in it is on its way."""
    root = runtime.snapshot()
    busy = [
        node
        for node in walk(root)[1:]
        if node.state not in SETTLED
        or (node.next_in is not None and node.next_in < 1.0)
        or (node.state == "waiting" and node.next_in is None)
    ]
    return None if busy else root


def agrees(runtime: Runtime, places: Places) -> str:
    """Say how events and tree differ; empty when they agree."""
    root = settled(runtime)
    if root is None:
        return "something is on its way"
    told = places.places()
    true = {node.path: (node.state, node.incarnation) for node in walk(root)[1:]}
    said = {path: (place.state, place.incarnation) for path, place in told.items()}
    # What was stopped and is declared no more, and what was declared and never started, nobody has to tell.
    extra = {path for path in said.keys() - true.keys() if said[path][0] != "stopped"}
    missing = {path for path in true.keys() - said.keys() if true[path] != ("stopped", 0)}
    wrong = {path for path in said.keys() & true.keys() if said[path] != true[path]}
    for node in walk(root):
        if node.breaker is not None:
            shown, told_of_it = node.breaker.status, places.breakers().get(node.path, "closed")
            # Time alone makes an open breaker half-open, which is told with its next caller.
            if shown != told_of_it and (shown, told_of_it) != ("half_open", "open"):
                return f"{node.path}: its breaker is {shown}, told was {told_of_it}"
    return " ".join(f"{path}: tree {true.get(path)} events {said.get(path)}" for path in extra | missing | wrong)


def must_agree(runtime: Runtime, places: Places, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while differ := agrees(runtime, places):
        assert time.monotonic() < deadline, f"{differ}\n{runtime.tree()}"
        time.sleep(0.005)


def lives_told_once(events: list[Event]) -> None:
    """Every incarnation comes up once and goes down at most once, seen from its supervisor and from itself."""
    up: dict[str, int] = {}

    def gone_below(path: str) -> None:  # a supervisor that was killed told nothing of its children
        for one in [one for one in up if one.startswith(f"{path}/")]:
            del up[one]

    for event in events:
        match event:
            case ChildStarted():
                assert event.path not in up, f"{event.path} came up twice"
                up[event.path] = event.incarnation
            case ChildExited():
                assert up.pop(event.path) == event.incarnation, f"{event.path} went down unseen"
                gone_below(event.path)
            case ChildStopped() if up.get(event.path) == event.incarnation:
                del up[event.path]
                gone_below(event.path)
    assert not up, f"never told to be down: {up}"
    own = Counter((event.actor, event.epoch) for event in events if isinstance(event, ActorStarted))
    ends = Counter((event.actor, event.epoch) for event in events if isinstance(event, ActorExited))
    assert set(own.values()) <= {1}
    assert own == ends


@contextmanager
def running(tree: SupervisorSpec) -> Iterator[tuple[Runtime, Places, list[Event]]]:
    """Start a tree; a first start may fail, and then all of it is rolled back and tried again."""
    for _ in range(30):
        Fragile.lives.clear()
        runtime, places, seen = Runtime(tree), Places(), list[Event]()
        runtime.bus.attach_inline("places", places)
        runtime.bus.attach_inline("seen", seen.append)
        try:
            runtime.start()
        except MlldError:
            assert {place.state for place in places.places().values()} <= {"stopped"}
            continue
        try:
            yield runtime, places, seen
        finally:
            runtime.stop(drain=False)
        return
    pytest.fail("it never came up")


@pytest.mark.parametrize("seed", range(20))
def test_the_tree_built_from_events_equals_the_tree(seed: int) -> None:  # EV-4, E-1 to E-9
    chance = random.Random(seed)
    Fragile.chance = random.Random(seed)
    tree = one_for_one(*random_children(chance), dynamic(name="crowd", max_restarts=100), max_restarts=10_000)
    with running(tree) as (runtime, places, seen):
        crowd = runtime.place("crowd").supervisor()
        for _ in range(100):
            _do_something(runtime, crowd, chance)
            if chance.random() < 0.3:
                must_agree(runtime, places)
        must_agree(runtime, places)
    assert {place.state for place in places.places().values()} <= {"stopped", "failed"}
    started = Counter(event.path for event in seen if isinstance(event, ChildStarted))
    lives_told_once(seen)
    told = Counter(event.actor for event in seen if isinstance(event, ActorStarted) and event.kind == "Fragile")
    assert told == Fragile.lives  # what the actors themselves have counted
    for path, lives in started.items():
        assert lives <= told.get(path, lives), f"{path} came up {told[path]} times, {lives} were told"


def _do_something(runtime: Runtime, crowd: Any, chance: random.Random) -> None:
    nodes = [node for node in walk(runtime.snapshot())[1:] if node.path != f"{runtime.name}/crowd"]
    node = chance.choice(nodes)
    try:
        match chance.randrange(7):
            case 0 | 1 | 2:
                ref = runtime.place(node.path).ref()
                if node.kind == "Fragile":
                    ref.tell(RuntimeError("boom"))
                    ref.join(60)
            case 3:
                runtime.place(node.path).ref().kill("by the test")
            case 4:
                crowd.start_child(child(Fragile, restart=chance.choice(["permanent", "temporary"])))
            case 5:
                runtime.pause(node.path, "by the test")
            case 6:
                runtime.resume(node.path)
    except (ChildNotFound, ChildUnavailable, MlldError):
        pass  # it is not there, or not in the state for it: one of the things that happen


def test_an_agents_engine_killed_over_and_over_is_told_death_by_death(tmp_path: Path) -> None:
    class Worker(Agent):
        engine = "embedded"
        eager = True

    runtime = Runtime(one_for_one(child(Worker, name="worker"), max_restarts=100))
    with runtime.bus.recording() as seen, runtime:
        for starts in (2, 3, 4):
            engine = eventually(lambda: next(iter(runtime.history.engines()), None))
            with pytest.raises(MlldError):
                runtime["worker"].process("run sh { kill -KILL $PPID }")
            eventually(lambda dead=engine.pid: dead not in [one.pid for one in runtime.history.engines()])
            eventually(lambda starts=starts: sum(isinstance(event, ChildStarted) for event in seen) == starts)
    names = Counter(map(name_of, seen))
    pids = [event.pid for event in seen if name_of(event) == "engine.started"]
    assert names["engine.started"] == names["engine.exited"] == len(set(pids))
    assert names["span.started"] == names["span.failed"] == 3
    assert names["child.exited"] == 3
    assert names["child.started"] == 4


def test_a_handler_that_blocks_is_not_felt_in_a_storm_of_restarts() -> None:  # EV-1
    gate = threading.Event()
    Fragile.chance = random.Random(0)
    Fragile.chance.random = lambda: 1.0  # type: ignore[method-assign]

    def blocks(event: Event) -> None:
        gate.wait(60)

    def raises(event: Event) -> None:
        raise SystemExit("on purpose")

    tree = one_for_one(*(child(Fragile, name=f"n{number}") for number in range(10)), max_restarts=10_000)
    runtime = Runtime(tree)
    runtime.bus.attach("blocks", blocks, backlog=10)
    runtime.bus.attach("raises", raises)
    places = Places()
    runtime.bus.attach_inline("places", places)
    try:
        with runtime:
            for _ in range(20):
                for number in range(10):
                    ref = eventually(lambda number=number: _ref(runtime, f"n{number}"))
                    ref.tell(RuntimeError("boom"))
                    ref.join(60)
            must_agree(runtime, places)
            assert {node.restarts for node in runtime.snapshot().children} == {20}
            assert "blocks" in runtime.bus.handlers()
            assert "raises" not in runtime.bus.handlers()
            gate.set()
    finally:
        gate.set()


def _ref(runtime: Runtime, name: str) -> Any:
    try:
        return runtime.place(name).ref()
    except (ChildNotFound, ChildUnavailable):
        return None
