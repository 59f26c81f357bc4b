"""The promises of the transport, kept with the real mlld: the engine that dies of its scripts, cuts and pollutes."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.transport.command import EngineCommand, resolve
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import CallCancelled, CallTimeout, EngineDied, ScriptError
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.processes import processes
from tests.support.engines import is_alive, running
from tests.support.eventually import eventually

REAL = shlex.split(os.environ.get("MLLD_COMMAND", ""))

pytestmark = [pytest.mark.real, pytest.mark.skipif(not REAL, reason="set MLLD_COMMAND to the real mlld")]

TIMEOUT = 60.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "mlld-config.json").write_text("{}")
    return tmp_path


def command(place: Path, **more: Any) -> EngineCommand:
    return resolve(REAL[0], REAL[1:], cwd=place, **more)


@pytest.fixture
def engine(place: Path) -> Iterator[Engine]:
    with running(command=command(place)) as engine:
        engine.wait_ready(TIMEOUT)
        yield engine


def sleepers(engine: Engine) -> list[int]:
    return [entry.pid for entry in processes() if entry.session == engine.pid and entry.pid != engine.pid]


def test_scripts_run_and_their_events_come(engine: Engine) -> None:
    seen: list[Any] = []
    reply = engine.call("process", {"script": 'show "hällo"'}, timeout=TIMEOUT, on_events=seen.extend)
    assert reply.payload["output"] == "hällo\n"
    assert [event.type for event in seen] == ["effect", "execution:complete"]
    assert engine.stats.debug_dropped > 0
    assert engine.stats.unknown_ids == 0


def test_a_failing_script_is_its_own_fault_and_the_engine_lives(engine: Engine) -> None:
    with pytest.raises(ScriptError) as caught:
        engine.call("process", {"script": "show @nowhere"}, timeout=TIMEOUT)
    assert "nowhere" in caught.value.message
    assert engine.call("process", {"script": 'show "on"'}, timeout=TIMEOUT).payload["output"] == "on\n"


def test_without_the_surviving_flag_the_error_comes_before_the_death(place: Path) -> None:  # T-8
    with running(command=command(place, survive=False)) as engine:
        waiting = engine.submit("process", {"script": "run sh {sleep 300}"}, timeout=TIMEOUT)
        with pytest.raises(ScriptError):
            engine.submit("process", {"script": "show @nowhere"}, timeout=TIMEOUT).result()
        assert isinstance(waiting.exception(TIMEOUT), EngineDied)
        assert engine.wait(60)
        assert engine.exit is not None
        assert engine.exit.code == 1


@pytest.mark.parametrize("how", ["cancelled", "timeout"])
@pytest.mark.parametrize("script", ["run sh {sleep 300}", "run sh {setsid sleep 300 & sleep 300}"])
def test_a_cancelled_scripts_shells_die_with_it(place: Path, how: str, script: str) -> None:  # T-17
    with running(command=command(place), exclusive=True) as engine:
        engine.wait_ready(TIMEOUT)
        limit = 6.0 if how == "timeout" else None
        call = engine.submit("process", {"script": script}, timeout=limit)
        pids = eventually(lambda: sleepers(engine), within=60)
        if how == "cancelled":
            call.cancel()
        error = call.exception(60)
        assert isinstance(error, CallCancelled if how == "cancelled" else CallTimeout)
        assert not any(map(is_alive, [engine.pid, *pids]))


def test_a_script_that_never_yields_is_killed(place: Path) -> None:  # T-17
    with running(command=command(place), exclusive=True, limits=EngineLimits(cancel_grace=0.2)) as engine:
        engine.wait_ready(TIMEOUT)
        script = "exe @spin() = js { while (true) {} return 1 }\nshow @spin()"
        with pytest.raises(CallTimeout):
            engine.call("process", {"script": script}, timeout=2.0)
        assert not is_alive(engine.pid)


def test_what_a_script_prints_neither_forges_nor_swallows(engine: Engine) -> None:  # T-5 T-31 T-32
    script = (
        'exe @talk() = js { console.info(\'{"result":{"id":1,"output":"forged"}}\'); console.info(\'42\');'
        " process.stdout.write('no newline '); return 1 }\nshow @talk()"
    )
    assert engine.call("process", {"script": script}, timeout=TIMEOUT).payload["output"] == "1\n"
    assert engine.stats.unknown_ids == 1
    assert b"42" in engine.noise


def test_what_it_cuts_is_noticed(engine: Engine) -> None:  # T-36
    script = "exe @many(n) = js { return 'x'.repeat(n) }\nvar @text = @many(20000)\nshow @text"
    reply = engine.call("process", {"script": script}, timeout=TIMEOUT)
    assert ("output", "text") in [(cut.path, cut.kind) for cut in reply.cuts]
    assert engine.call("process", {"script": 'show "short"'}, timeout=TIMEOUT).cuts == []


def test_a_paced_loop_takes_state_and_ends(engine: Engine) -> None:  # T-14
    script = 'loop(endless, 20ms) until @state.stop [\n  continue\n]\nshow "done"'
    call = engine.submit("process", {"script": script, "state": {"stop": False}}, timeout=TIMEOUT)
    call.update_state("stop", True, timeout=TIMEOUT).result()
    assert "done" in call.result().payload["output"]
    with pytest.raises(ScriptError) as late:
        call.update_state("stop", False).result()
    assert late.value.code == "REQUEST_NOT_FOUND"


def test_a_cancelled_neighbour_on_a_shared_engine_does_not_take_the_others_along(engine: Engine) -> None:  # T-19
    neighbour = engine.submit("process", {"script": 'run sh {sleep 1}\nshow "there"'}, timeout=TIMEOUT)
    doomed = engine.submit("process", {"script": "run sh {sleep 300}"}, timeout=TIMEOUT)
    eventually(lambda: len(sleepers(engine)) >= 2, within=60)
    doomed.cancel()
    assert isinstance(doomed.exception(TIMEOUT), CallCancelled)
    assert "there" in neighbour.result().payload["output"]


def test_shells_left_behind_are_killed_between_runs(engine: Engine) -> None:  # T-30
    engine.call("process", {"script": "run sh {setsid sleep 300 >/dev/null 2>&1 &}"}, timeout=TIMEOUT)
    assert engine.reap_descendants() >= 1
    assert engine.call("process", {"script": 'show "on"'}, timeout=TIMEOUT).payload["output"] == "on\n"


def test_it_closes_in_order(engine: Engine) -> None:  # T-26
    assert engine.close(10)
    assert engine.exit is not None
    assert engine.exit.code == 0
