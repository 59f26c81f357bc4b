"""Kills from many threads at once, at any instant, on a clock that runs: what is left must be a tree, or nothing."""

import random
import threading
import time
from typing import Any

import pytest

from mlld_sdk.actors.core.errors import ActorError
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.errors import MlldError
from mlld_sdk.supervision import Backoff, SupervisorRef, Tree, child, dynamic, one_for_all, one_for_one, rest_for_one
from mlld_sdk.supervision.decisions.state import DynamicState
from tests.support.eventually import eventually
from tests.support.supervision import Recorder
from tests.support.trees import Puppet

PLENTY = {"max_restarts": 10**6, "within": 1.0}


def shape() -> Any:
    def branch(strategy: Any, name: str) -> Any:
        return strategy(
            child(Puppet, name="a"),
            child(Puppet, name="b", backoff=Backoff.of(0.001, most=0.01)),
            strategy(child(Puppet, name="x"), child(Puppet, name="y"), name="deep", **PLENTY),
            dynamic(name="crowd", **PLENTY),
            name=name,
            **PLENTY,
        )

    strategies = (one_for_one, one_for_all, rest_for_one)
    return one_for_one(*[branch(one, one.__name__) for one in strategies], **PLENTY)


@pytest.mark.parametrize("seed", range(3))
def test_a_tree_survives_kills_from_everywhere_and_stops_clean(seed: int) -> None:
    events = Recorder()
    system = ActorSystem("chaos", sink=events)
    tree = Tree.start(system, shape())
    over = time.monotonic() + 0.4
    failures: list[BaseException] = []

    def havoc(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        try:
            while time.monotonic() < over or not events.named("child.exited"):
                ref = chance.choice(system.actors())
                if ref is tree.root:
                    continue
                states = tree.context.states
                crowds = [one for one, state in list(states.items()) if isinstance(state, DynamicState)]
                match chance.randrange(5):
                    case 0:
                        ref.kill()
                    case 1:
                        ref.cast(RuntimeError("boom"))
                    case 2:
                        ref.stop(block=False)
                    case 3 if crowds:
                        restart = chance.choice(("permanent", "transient", "temporary"))
                        SupervisorRef(chance.choice(crowds)).start_child(child(Puppet, restart=restart), timeout=5)
                    case _:
                        str(tree)
                        tree.verdict()
        except (ActorError, MlldError, IndexError):
            havoc(number + 1000)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=havoc, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    eventually(lambda: settled(tree) and owned(tree) == set(system.actors()))
    eventually(lambda: set(tree.context.states) <= owned(tree))
    report = tree.stop(10)
    assert report.clean, report
    assert system.actors() == []
    eventually(lambda: not tree.context.states)
    assert system.stop(3).clean
    assert events.named("child.exited")


def owned(tree: Tree) -> set[Any]:
    """List what the supervisors hold, from the root down; nothing is held twice."""
    found = {tree.root}
    todo = [tree.root]
    while todo:
        state = tree.context.states.get(todo.pop())
        for slot in state.slots if state is not None else ():
            if slot.status == "running":
                assert slot.child not in found
                found.add(slot.child)
                todo.append(slot.child)
    return found


def settled(tree: Tree) -> bool:
    """Say whether every place that should be filled is filled."""
    picture = tree.snapshot()
    todo = [picture]
    while todo:
        node = todo.pop()
        if node.state in ("starting", "stopping", "waiting"):
            return False
        todo += node.children
    owned = sum(1 for _ in tree.context.system.actors())
    return owned == sum(node.state == "running" for node in flat(picture))


def flat(node: Any) -> list[Any]:
    return [node, *[below for one in node.children for below in flat(one)]]
