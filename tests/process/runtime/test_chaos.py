"""Kill anything at any moment: every run completes, no finished step acts twice, nothing is left behind."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.journal import Journal
from tests.support.agents import ENGINES, THINK, calls, engine_options
from tests.support.eventually import eventually
from tests.support.victims import children, processes_in

SERVICE = Path(__file__).parents[2] / "support" / "chaos_service.py"
ROOT = Path(__file__).parents[3]


class Service:
    def __init__(self, directory: Path, engine: dict[str, Any], sections: int, pause: str, **environ: str) -> None:
        self.directory = directory
        (directory / "think.mld").write_text(THINK)
        options = json.dumps({"sections": sections, "pause": pause})
        command = [sys.executable, str(SERVICE), str(directory), options, json.dumps(engine)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **environ}
        )

    @property
    def done(self) -> bool:
        return self.process.poll() is not None

    def kill_engine(self, dice: random.Random) -> bool:
        engines = children(self.process.pid)
        if engines:
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(engines), signal.SIGKILL)
        return bool(engines)

    def kill_agent(self) -> bool:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("kill agent\n")
            self.process.stdin.flush()
        except OSError:
            return False
        return True

    def end(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()


def expected(sections: int) -> list[str]:
    found: list[str] = []
    for section in range(sections):
        found += [f"thought {section}a", f"noted {section}b"]
        found += [f"thought {section}c{n}x noted {section}c{n}y" for n in range(4)]
    return found


def check(directory: Path, sections: int) -> None:
    """Look at what really happened, and at what the journal says about it."""
    assert json.loads((directory / "result.json").read_text()) == expected(sections)
    made = Counter(calls(directory))
    with Journal.open(directory / "state.db") as journal:
        attempts = {effect_of(step): step.attempts for step in journal.steps("chaos")}
    assert set(made) == set(attempts)
    assert {name: count for name, count in made.items() if count > attempts[name]} == {}
    eventually(lambda: not processes_in(directory))


def effect_of(step: Any) -> str:
    """Name the line a step leaves in the log."""
    asked = json.loads(step.asked)
    return str(asked[2]["n"] if asked[0] == "execute" else asked[2][0])


def bombard(
    directory: Path,
    engine: dict[str, Any],
    *,
    kills: int,
    sections: int,
    pause: str,
    seed: int,
    peace: tuple[float, float] = (0.02, 0.3),
) -> None:
    dice = random.Random(seed)
    service = Service(directory, engine, sections, pause)
    left = kills
    deadline = time.monotonic() + 100 + kills * 5
    try:
        while not service.done:
            assert time.monotonic() < deadline, f"seed {seed}: the run does not come to its end"
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.process.wait(dice.uniform(*peace))
                continue
            if not left:
                continue
            victim = dice.choice(["engine", "engine", "agent", "service"])
            if victim == "service":
                service.end()
                service = Service(directory, engine, sections, pause)
                left -= 1
            elif (victim == "engine" and service.kill_engine(dice)) or (victim == "agent" and service.kill_agent()):
                left -= 1
        assert service.process.returncode == 0, f"seed {seed}"
        assert left < kills / 2, f"seed {seed}: the run was over before half of the kills"
    finally:
        service.end()
    check(directory, sections)


def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    bombard(tmp_path, engine_options("embedded"), kills=20, sections=10, pause="0.06", seed=seed)


@pytest.mark.real
@pytest.mark.parametrize("engine", ENGINES[1:])
def test_kills_at_random_moments_on_the_real_engine(engine: str, tmp_path: Path) -> None:
    bombard(tmp_path, engine_options(engine), kills=10, sections=5, pause="0.2", seed=7, peace=(0.3, 1.5))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(15))
def test_three_hundred_kills_at_random_moments(seed: int, tmp_path: Path) -> None:
    bombard(tmp_path, engine_options("embedded"), kills=20, sections=10, pause="0.06", seed=seed)


POINTS = [
    f"{write}.{when}{turn}"
    for write, turn in (
        ("submit", ""),
        ("claim_unfinished", ""),
        ("begin_step", ""),
        ("begin_step", ":5"),
        ("finish_step", ""),
        ("finish_step", ":6"),
        ("finish_run", ""),
        ("commit", ":4"),
    )
    for when in ("before", "after")
]


@pytest.mark.parametrize("point", POINTS)
def test_dying_around_every_durable_write(point: str, tmp_path: Path) -> None:
    name, _, turn = point.partition(":")
    at = f"{name}:{turn}" if turn else name
    service = Service(tmp_path, engine_options("embedded"), 1, "0", MLLD_CRASH_AT=at)
    try:
        assert service.process.wait(60) == -signal.SIGKILL
    finally:
        service.end()
    service = Service(tmp_path, engine_options("embedded"), 1, "0")
    try:
        assert service.process.wait(60) == 0
    finally:
        service.end()
    check(tmp_path, 1)
