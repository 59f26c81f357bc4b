"""The embedded engine with the real one's habits replays the recorded conversations, `debug:*` events aside."""

import sys
from pathlib import Path

import pytest

from tests.support.golden import GOLDEN, Replay

ENGINE = [sys.executable, "-m", "mlld_sdk.transport.embedded", "live", "--stdio", "--like-real"]

OUT_OF_REACH = {
    "export_values": "exported list literals leak nodes of the real engine's syntax tree",
    "for_parallel_errors": "a js body",
    "guard_denial": "guards",
    "guard_denial_handled": "guards",
    "stdout_pollution": "a js body",
    "stdout_pollution_partial": "a js body",
    "stream_pipeline": "progress events of streaming pipelines",
    "streaming_events": "stream formats",
}
SCENARIOS = sorted(path.stem for path in GOLDEN.glob("*.jsonl"))
COVERED = [name for name in SCENARIOS if name not in OUT_OF_REACH]


def prepare(name: str, folder: Path) -> None:
    if name == "sign_verify":
        folder.mkdir()
        (folder / "note.txt").write_text("hello\n")


@pytest.mark.parametrize("name", COVERED)
def test_the_recorded_conversation_comes_out_the_same(name: str, tmp_path: Path) -> None:
    prepare(name, tmp_path / name)
    replay = Replay(name, tmp_path / name, ENGINE, survive=["--survive"])
    try:
        came, wanted = replay.run()
    finally:
        replay.close()
    if name == "for_parallel":
        # items that run at the same time answer in any order
        came.sort(key=repr)
        wanted.sort(key=repr)
    assert came == wanted


def test_at_least_60_of_the_70_conversations_are_covered() -> None:
    assert len(SCENARIOS) == 70
    assert len(COVERED) >= 60
