"""When the journal fails under working agents: nothing is lost, nobody is restarted for it, and work goes on after."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Runtime, child, one_for_one
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.journal.errors import JournalFull, JournalReadOnly
from tests.support.agents import THINK, Thinker, calls
from tests.support.eventually import eventually


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
    return filler


def test_work_goes_on_by_itself_when_there_is_room_again(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "think.mld").write_text(THINK)
    options: dict[str, Any] = {"engine": "embedded", "working_dir": tmp_path, "checkpoint": True}
    tree = one_for_one(child(Thinker, name="agent", environ={"PAUSE": "0.1"}, **options), max_restarts=0)
    runtime = Runtime(tree, store=disk / "state.db")
    seen: list[Event] = []
    runtime.bus.attach_inline("test", seen.append)
    with runtime:
        run = runtime["agent"].run({"thoughts": 300, "prefix": "x" * 2000})
        eventually(lambda: len(calls(tmp_path)) >= 3)
        filler = fill(disk)
        eventually(lambda: "journal.degraded" in [name_of(event) for event in seen], within=60)
        with pytest.raises(JournalFull):
            runtime["agent"].run({"thoughts": 1, "prefix": "y" * 500_000})
        made = len(calls(tmp_path))
        filler.unlink()
        eventually(lambda: len(calls(tmp_path)) > made + 3, within=60)
        run.cancel("seen enough")
        assert runtime.verdict().word == "healthy"
    assert "child.exited" not in [name_of(event) for event in seen]
    done = calls(tmp_path)
    assert len(done) - len(set(done)) <= 1


def test_a_store_that_cannot_be_written_fails_the_start_by_name(tmp_path: Path) -> None:
    place = tmp_path / "locked"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)], capture_output=True, check=False)
    mounted = place.is_mount()
    try:
        if not mounted:
            pytest.skip("may not mount a file system here")
        with pytest.raises(JournalReadOnly):
            Runtime(one_for_one(child(Thinker, engine="embedded")), store=place / "state.db").start()
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
