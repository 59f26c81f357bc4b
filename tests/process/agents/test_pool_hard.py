"""Pools whose users die, whose engines fail and which are changed while they are used."""

import threading
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import InfrastructureError, Pool, child, one_for_one, rest_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.agents.services import AgentUnavailable
from mlld_sdk.base.errors import TaskError
from mlld_sdk.base.events import name_of
from mlld_sdk.engines.draining import Draining
from mlld_sdk.runs.errors import OwnerGone
from tests.support.agents import running
from tests.support.eventually import eventually


def only(**options: Any) -> Any:
    options = {"engine": "embedded", "size": 1, **options}
    return one_for_one(child(Pool, name="pool", **options), max_restarts=20, within=5)


def test_an_actor_that_dies_while_it_waits_leaves_the_queue_and_costs_no_engine(tmp_path: Path) -> None:  # P-1, P-3
    with running(only(), tmp_path) as (runtime, seen):
        pool = runtime.pool("pool")

        class Waiter(Actor):
            threaded = True

            def on_receive(self, message: Any) -> None:
                pool.checkout(timeout=60)

        with pool.checkout():
            waiter = runtime.system.start(Waiter)
            waiter.tell("wait")
            eventually(lambda: pool.status().engines.waiting == 1)
            waiter.kill("on purpose")
            eventually(lambda: pool.status().engines.waiting == 0)
        assert pool.process('show "fine"') == "fine\n"
    assert [name_of(event) for event in seen].count("engine.started") == 1


def test_failures_count_in_a_row_only(tmp_path: Path) -> None:  # P-2
    with running(only(), tmp_path) as (runtime, seen):
        pool = runtime.pool("pool")
        for _ in range(6):
            with pytest.raises(InfrastructureError):
                pool.process("run sh { kill -KILL $PPID; }")
            with pytest.raises(TaskError):  # an answer, if not a pleasant one
                pool.process("show @nobody_defined_this")
    assert "child.exited" not in [name_of(event) for event in seen]


def test_deadlines_are_no_failures_of_engines(tmp_path: Path) -> None:  # P-2
    with running(only(), tmp_path) as (runtime, seen):
        pool = runtime.pool("pool")
        for _ in range(6):
            with pytest.raises(InfrastructureError):
                pool.process("run sh { sleep 300; }", timeout=0.05)
        with pytest.raises(InfrastructureError):
            pool.process("run sh { kill -KILL $PPID; }")
        assert pool.process('show "fine"') == "fine\n"
    assert "child.exited" not in [name_of(event) for event in seen]


def test_a_new_size_leaves_the_overflow_alone(tmp_path: Path) -> None:  # P-6
    with running(only(overflow=1), tmp_path) as (runtime, _):
        pool = runtime.pool("pool")
        pool.resize(2)
        held = [pool.checkout() for _ in range(3)]
        for checkout in held:
            checkout.checkin()


def test_a_new_size_lasts_through_a_crash_and_a_restart_with_the_siblings(tmp_path: Path) -> None:  # P-6, A-36
    pools = [child(Pool, name=name, engine="embedded", size=1) for name in ("other", "pool")]
    with running(rest_for_one(*pools, max_restarts=9), tmp_path) as (runtime, _):
        pool = runtime.pool("pool")
        pool.resize(3)
        for number, name in enumerate(("pool", "other"), 2):
            runtime.place(name).ref().kill("to see what stays")
            eventually(lambda number=number: runtime.snapshot().children[1].incarnation == number)
            assert pool.wait_until_up(60)
            assert pool.status().engines.size == 3
            assert "configured size=3" in runtime.tree()
        runtime.restart("pool")
        assert pool.wait_until_up(60)
        assert pool.status().engines.size == 1


def test_a_drained_pool_waits_for_its_engines_and_is_back_after_a_restart(
    tmp_path: Path,
) -> None:  # P-8
    with running(only(), tmp_path) as (runtime, _):
        pool = runtime.pool("pool")
        held, drained = pool.checkout(), threading.Event()

        def drain() -> None:
            pool.drain(20)
            drained.set()

        thread = threading.Thread(target=drain)
        thread.start()
        eventually(lambda: pool.status().state == "draining")
        assert not drained.is_set()
        for ask in (lambda: pool.checkout(), lambda: pool.process('show "x"')):
            with pytest.raises(Draining):
                ask()
        assert held.process('show "still mine"') == "still mine\n"
        held.checkin()
        thread.join(60)
        assert drained.is_set()
        first = pool.ref
        assert first is not None
        first.kill("an incarnation that is new was not told to drain")
        eventually(lambda: pool.ref not in (None, first))
        assert pool.process('show "back"') == "back\n"


def test_the_end_of_a_pool_ends_what_is_checked_out(tmp_path: Path) -> None:  # P-7
    with running(only(), tmp_path) as (runtime, _):
        pool = runtime.pool("pool")
        held = pool.checkout()
        engine = held._lease.engine
        runtime.pause("pool", "on purpose")
        eventually(lambda: not engine.alive)
        with pytest.raises(OwnerGone):
            held.process('show "too late"')
        held.checkin()
        with pytest.raises(AgentUnavailable):
            pool.checkout()
        runtime.resume("pool")
        assert pool.process('show "back"') == "back\n"
