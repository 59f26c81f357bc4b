"""Everything at once: engines that misbehave, callers that cancel, somebody who kills. No call may be left hanging."""

import random
import signal
import threading
from typing import Any

import pytest

from mlld_sdk.base.errors import MlldError
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.events import EngineCallbackFailed, EngineExited, EngineStarted, RequestFinished
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.reactor import shared_reactor
from tests.support.engines import HABITS, KNOWN, Recorder, do, hostile, open_descriptors, ours
from tests.support.eventually import eventually

LIMITS = EngineLimits(cancel_grace=0.05, term_grace=0.05, in_flight=64)


def a_request(chance: random.Random) -> dict[str, Any]:
    return chance.choice(
        [
            do(("answer", {"output": "x" * chance.randrange(20_000)})),
            do(("events", chance.randrange(500))),
            do(("print", "noise "), ("events", 3)),
            do(("print", "null\n42\n"), ("answer", {"output": "x"})),
            do(("fail", "RUNTIME_ERROR", "on purpose")),
            do(("warn", "words\n", 1000)),
            do("hang"),
            do(("spawn", "session"), "hang"),
            do(("spawn", "group"), ("block", 0.05)),
            do(("exit", 1)),
            do(("signal", signal.SIGKILL)),
            do("close-output"),
        ]
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_happens_every_call_gets_one_outcome_and_nothing_stays_behind(seed: int) -> None:  # T-8 T-28
    told = Recorder()
    outcomes: dict[int, int] = {}
    calls: list[Any] = []
    unknown: list[BaseException] = []
    shared_reactor()
    before = open_descriptors()

    def work(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        for turn in range(6):
            habits = chance.choice(HABITS)
            engine = Engine.start(hostile(*habits), exclusive=chance.random() < 0.5, limits=LIMITS, sink=told)
            for _ in range(chance.randrange(1, 8)):
                try:
                    call = engine.submit("process", a_request(chance), timeout=chance.choice([0.2, 1.0, 3.0]))
                except MlldError:
                    break
                key = len(calls) * 1000 + number * 10 + turn
                outcomes[key] = 0
                call.add_done_callback(lambda _, key=key: outcomes.__setitem__(key, outcomes[key] + 1))
                calls.append(call)
                if chance.random() < 0.3:
                    call.cancel()
                if chance.random() < 0.1:
                    engine._core.child.signal_group(signal.SIGSTOP)
            if chance.random() < 0.5:
                engine._core.child.signal_group(signal.SIGKILL)
            for call in [call for call in calls if call.engine is engine]:
                error = call.exception(60)
                if error is not None and not isinstance(error, KNOWN):
                    unknown.append(error)
            engine.kill() if chance.random() < 0.5 else engine.close(0.2)
            assert engine.wait(60), engine

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert unknown == []
    assert set(outcomes.values()) == {1}
    assert len(told.of(EngineStarted)) == len(told.of(EngineExited)) == 24
    assert len(told.of(RequestFinished)) == len(calls)
    assert told.of(EngineCallbackFailed) == []
    assert eventually(lambda: not ours())
    assert open_descriptors() == before
