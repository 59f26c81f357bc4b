"""Handles that wait until what they name is up: its engine is killed, and the next request must not feel it."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Client, Pool, Runtime, child, one_for_one
from mlld_sdk.transport.errors import EngineDied
from tests.support.agents import ENGINES, engine_options
from tests.support.eventually import eventually

TRIALS = int(os.environ.get("MLLD_UP_TRIALS", "8"))

WHO = "run sh { echo $PPID }"
"""Says which engine runs it."""

KINDS: dict[str, Callable[..., Any]] = {
    "exclusive agent": lambda **options: child(Agent, name="it", **options),
    "agent with spares": lambda **options: child(Agent, name="it", engines=2, spares=1, **options),
    "shared agent": lambda **options: child(Agent, name="it", isolation="shared", **options),
    "pool": lambda **options: child(Pool, name="it", size=2, **options),
    "client": lambda **options: child(Client, name="it", timeout=60, **options),
    "exclusive client": lambda **options: child(Client, name="it", timeout=60, isolation="exclusive", **options),
}

ASKS: dict[str, Callable[[Any], str]] = {
    "process": lambda it: it.process(WHO, timeout=60),
    "process_async": lambda it: it.process_async(WHO, timeout=60).result(60),
    "aio": lambda it: asyncio.run(it.aio.process(WHO, timeout=60)),
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_request_after_the_wait_never_fails_because_of_a_kill_before_it(
    engine: str, kind: str, ask: str, tmp_path: Path
) -> None:
    trials = TRIALS if engine == "embedded" else 2
    tree = one_for_one(KINDS[kind](working_dir=tmp_path, **engine_options(engine)), max_restarts=10_000, within=1.0)
    with Runtime(tree) as runtime:
        it = runtime["it"]
        pid = int(ASKS[ask](it))
        for trial in range(trials):
            os.kill(pid, signal.SIGKILL)
            assert it.wait_until_up(60)
            before, pid = pid, int(ASKS[ask](it))
            assert pid != before, f"trial {trial}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_after_the_wait_never_fails_although_the_engine_was_at_work(
    kind: str, tmp_path: Path
) -> None:
    tree = one_for_one(KINDS[kind](working_dir=tmp_path, engine="embedded"), max_restarts=10_000, within=1.0)

    def work(busy: Path) -> None:
        try:
            it.process(f"run sh {{ echo $PPID > {busy}; sleep 600 }}", timeout=60)
        except EngineDied:
            died.append(True)

    with Runtime(tree) as runtime:
        it, died = runtime["it"], []
        for trial in range(TRIALS // 2):
            busy = tmp_path / f"busy-{trial}"
            worker = threading.Thread(target=work, args=(busy,))
            worker.start()
            os.kill(int(eventually(lambda at=busy: at.exists() and at.read_text())), signal.SIGKILL)
            assert it.wait_until_up(60)
            assert it.process('show "up"', timeout=60) == "up\n"
            worker.join(60)
            assert len(died) == trial + 1


def test_the_wait_is_in_vain_when_the_supervisor_has_given_up(tmp_path: Path) -> None:
    tree = one_for_one(child(Agent, name="it", engine="embedded"), max_restarts=0, within=5.0)
    with Runtime(one_for_one(child(tree, name="inner", restart="temporary"))) as runtime:
        it = runtime["it"]
        with pytest.raises(EngineDied):
            it.process("run sh { kill -9 $PPID }")
        assert not it.wait_until_up(0.05)


def test_an_engine_that_is_killed_while_it_is_put_away_is_lent_to_nobody_after_the_wait(tmp_path: Path) -> None:
    with Runtime(one_for_one(child(Pool, name="it", size=1, engine="embedded"))) as runtime:
        it = runtime["it"]
        for _ in range(TRIALS):
            with it.checkout() as engine:  # as in the moment between an answer and the end of its lease
                os.kill(int(engine.process(WHO)), signal.SIGKILL)
                assert it.wait_until_up(60)
            assert it.process('show "up"', timeout=60) == "up\n"
