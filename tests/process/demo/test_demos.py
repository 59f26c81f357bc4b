"""Every demo shows what it promises, and fails as soon as the thing it shows is taken away."""

import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.cli.main import main
from mlld_sdk.demo import DEMOS, breaker, fork, ladder, many, pool, recovery
from mlld_sdk.demo import asyncio as asyncio_demo
from mlld_sdk.demo.stage import DemoFailed, Play, Stage


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", DEMOS)
def test_the_demo_ends_with_its_proof(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.svg"
    draws = name in ("recovery", "breaker")
    assert main(["demo", name, *(["--picture", str(picture)] if draws else [])]) == 0
    said = capsys.readouterr().out
    assert "Proof: " in said.splitlines()[-1] or "Proof: " in said.splitlines()[-2]
    assert picture.exists() == draws


def test_the_page_of_demos_tells_of_each() -> None:
    page = (Path(__file__).parents[3] / "docs" / "demos.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(DEMOS)


def without_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.supervision.breaker.admit", lambda policy, circuit, now, due: (circuit, True))


def without_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.supervision.backoff.Backoff.delay", lambda self, streak, chance: 0.01)


def without_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.agents.agent.Agent.stuck_for", lambda self: 0.0)


def without_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlld_sdk.supervision.execution.executor import Executor

    recipe = Executor.recipe
    monkeypatch.setattr(Executor, "recipe", lambda self, spec, rung: recipe(self, spec, 0))


def without_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.agents.options.EngineOptions.caching", lambda self, own_root: {})


def without_limit_of_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.agents.pool.PoolOptions.capacity", property(lambda self: (27, 0)))


def without_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlld_sdk.engines.quota.EngineQuota._has_room", lambda self: True)


def waiting_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(self: Any) -> Generator[None, None, Any]:
        yield
        return self.result(60)

    monkeypatch.setattr("mlld_sdk.runs.handles.RunHandle.__await__", wait)


@pytest.mark.parametrize(
    ("play", "broken"),
    [
        (breaker.play, without_breaker),
        (breaker.play, without_backoff),
        (ladder.play, without_watch),
        (ladder.play, without_ladder),
        (fork.play, without_fork),
        (pool.play, without_limit_of_engines),
        (many.play, without_budget),
        (asyncio_demo.play, waiting_on_the_loop),
    ],
)
def test_the_demo_fails_without_what_it_shows(
    play: Play, broken: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "AGENTS", 300)
    broken(monkeypatch)
    # these two wait for what does not come; all others come to their end, however busy the machine is
    patience = 3.0 if play in (ladder.play, pool.play) else 30.0
    with pytest.raises(DemoFailed):
        play(Stage(tmp_path, "embedded", patience=patience, say=lambda line: None))


def test_the_recovery_demo_fails_on_a_service_that_forgets(tmp_path: Path) -> None:
    """The journal is taken away at the moment the service dies."""

    class Forgetful(recovery.Recovery):
        def _kill_service(self) -> None:
            self.end_service()
            for part in self.stage.directory.glob("state.db*"):
                part.unlink() if part.is_file() else None
            super()._kill_service()

    def stage(name: str) -> Stage:
        return Stage(tmp_path / name, "embedded", say=str)

    peaceful = recovery.Recovery(stage("peace"), steps=8, pause=0.02, kill=False)
    peaceful.play()
    forgetful = Forgetful(stage("war"), steps=8, pause=0.02)
    forgetful.play()
    with pytest.raises(DemoFailed, match=r"step was begun again|were repeated"):
        forgetful.check(peaceful.done.result)
