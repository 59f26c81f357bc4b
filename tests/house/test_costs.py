"""What operations cost, counted and not timed, so that a slow machine cannot fail it and a fast one cannot hide it.

The unit is one call of a Python function on the thread that asks. The limits are what it costs today and half as much
again; whoever exceeds one has made something dearer, and either mends it or raises the limit and says why.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mlld_sdk import Agent, Pool, Runtime, child, circuit_breaker, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.journal import Journal
from mlld_sdk.supervision.breaker import Breaker
from mlld_sdk.supervision.events import BreakerClosed
from mlld_sdk.telemetry.bus import Bus
from mlld_sdk.transport.command import embedded_command
from mlld_sdk.transport.engine import Engine

ASK = 'show "x"'


def cost(operation: Callable[[], object], times: int = 30) -> int:
    """Count the Python calls of an operation on this thread: the least of several, since others may get in between."""
    counted = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal counted
        counted += event == "call"

    least = sys.maxsize
    for _ in range(times):
        counted = 0
        sys.setprofile(count)
        try:
            operation()
        finally:
            sys.setprofile(None)
        least = min(least, counted)
    return least - 1  # the operation's own


class Echo(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


def test_asking_and_telling_an_actor() -> None:
    with ActorSystem() as system:
        ref = system.start(Echo)
        assert cost(lambda: ref.ask(1)) <= 12
        assert cost(lambda: ref.tell(1)) <= 5


def test_an_event_nobody_listens_to_and_a_breaker_that_is_closed() -> None:
    bus, event = Bus(), BreakerClosed(at=0.0, breaker="x")
    assert cost(lambda: bus.emit(event)) <= 2
    bus.close()
    breaker = Breaker(circuit_breaker("x"))
    assert cost(lambda: breaker.acquire().settle()) <= 8


def test_a_durable_step() -> None:
    with Journal.open() as journal:
        lease = journal.claim(journal.submit("kind", 1).id, "owner")
        asked = journal.fingerprint("ask")
        positions = iter(range(1, 10_000))

        def step() -> None:
            position = str(next(positions))
            lease.begin_step(position, "ask", asked)
            lease.finish_step(position, {"n": 1})

        assert cost(step) <= 75


def test_a_request_on_an_engine_and_through_agent_and_pool(tmp_path: Path) -> None:
    options: dict[str, Any] = {"engine": "embedded", "working_dir": tmp_path}
    with Engine.start(embedded_command()) as engine:
        bare = cost(lambda: engine.call("process", {"script": ASK}, timeout=10.0))
    assert bare <= 27
    tree = one_for_one(child(Agent, name="agent", **options), child(Pool, name="pool", size=1, **options))
    with Runtime(tree) as runtime:
        agent, pool = runtime.agent("agent"), runtime.pool("pool")
        assert cost(lambda: agent.process(ASK)) <= bare + 195
        assert cost(lambda: pool.process(ASK)) <= bare + 195


def children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="counts processes in /proc")
def test_declared_agents_have_no_thread_no_process_and_few_objects() -> None:
    many = 500
    threads, processes = threading.active_count(), children()
    blocks = sys.getallocatedblocks()
    with Runtime(one_for_one(*(child(Agent, name=f"a{n}", engine="embedded") for n in range(many)))):
        assert threading.active_count() - threads <= 8
        assert children() == processes
        assert (sys.getallocatedblocks() - blocks) / many <= 100
