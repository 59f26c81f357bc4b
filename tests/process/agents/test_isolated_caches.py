"""What models have answered an agent with a cache of its own lies where only this user can read it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.errors import StartFailed
from mlld_sdk.transport.sweep import sweep_orphans
from tests.support.agents import engine_options

SCRIPT = 'exe llm @ask(t) = sh { echo "a secret answer to $t" }\nshow @ask("x")\n'


class Asks(Agent):
    """One call of a model."""

    engine = "embedded"
    checkpoint = "isolated"
    script = "ask.mld"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "ask.mld").write_text(SCRIPT)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(temporary))
    before = os.umask(0o022)
    yield temporary
    os.umask(before)


KILLED = """
import os, signal
from mlld_sdk import Agent, Runtime, child, one_for_one
options = dict(engine="embedded", checkpoint="isolated", script="ask.mld")
runtime = Runtime(one_for_one(child(Agent, name="a", **options))).start()
runtime["a"].run(None).result(timeout=20)
os.kill(os.getpid(), signal.SIGKILL)
"""


def asks(tmp_path: Path, **options: object) -> Runtime:
    return Runtime(one_for_one(child(Asks, name="a", working_dir=tmp_path)), **options)  # type: ignore[arg-type]


def answers(below: Path) -> list[Path]:
    return [path for path in below.rglob("sha256-*.json") if b"a secret answer" in path.read_bytes()]


def is_closed(path: Path, top: Path) -> bool:
    """Whether a folder between a file and `top` keeps others out."""
    return any(
        above.stat().st_mode & 0o077 == 0 for above in path.parents if above.is_relative_to(top) and above != top
    )


@pytest.mark.parametrize("engine", ["embedded", pytest.param("bridge", marks=pytest.mark.real)])
@pytest.mark.parametrize("store", [None, "runs.db"])
def test_answers_lie_in_folders_others_may_not_enter(
    store: str | None, engine: str, tmp_path: Path, place: Path
) -> None:  # C-10
    asking = child(Asks, name="a", working_dir=tmp_path, **engine_options(engine))
    with Runtime(one_for_one(asking), store=store and tmp_path / store) as runtime:
        runtime["a"].run(None).result(timeout=60)
        top = place if store is None else tmp_path
        (answer,) = answers(top)
        assert is_closed(answer, top)
    assert bool(answers(place)) is False


def test_answers_an_earlier_release_has_left_readable_are_closed(tmp_path: Path) -> None:  # C-10
    (tmp_path / "runs.db.d" / "checkpoints").mkdir(parents=True, mode=0o755)
    with asks(tmp_path, store=tmp_path / "runs.db"):
        assert (tmp_path / "runs.db.d").stat().st_mode & 0o777 == 0o700


def test_a_folder_another_user_could_write_into_is_refused_by_name(tmp_path: Path) -> None:  # C-10
    (tmp_path / "runs.db.d").mkdir()
    (tmp_path / "runs.db.d").chmod(0o777)
    with pytest.raises(StartFailed, match=r"runs\.db\.d is not private to this user: others may write into it"):
        asks(tmp_path, store=tmp_path / "runs.db").start()


def test_a_runtime_without_a_store_leaves_control_as_it_is(tmp_path: Path) -> None:
    with asks(tmp_path) as runtime:
        runtime["a"].run(None).result(timeout=20)
        with asks(tmp_path, control=True, name="other") as other:
            other["a"].run(None).result(timeout=20)


def test_what_a_killed_runtime_without_a_store_has_left_is_swept(tmp_path: Path, place: Path) -> None:  # C-10
    environ = {**os.environ, "TMPDIR": str(place)}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=environ, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    (answer,) = answers(place)
    assert is_closed(answer, place)
    sweep_orphans()
    assert not list(place.iterdir())
