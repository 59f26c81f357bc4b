"""The folder of sessions is removed under living owners: nobody takes their runs."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlld_sdk.base.events import Event
from mlld_sdk.journal import errors as e
from mlld_sdk.journal.events import JournalRepaired
from tests.support.eventually import eventually
from tests.support.journal import act, begin, python, quick

OWNS = """
import sys
from mlld_sdk.journal.events import JournalRepaired
from tests.support.journal import begin, quick
journal = quick(sys.argv[1], sink=lambda event: isinstance(event, JournalRepaired) and print(event.reason, flush=True))
lease = journal.claim(journal.submit("a", key="one").id, "w")
begin(journal, lease, "1")
print("owned", flush=True)
for line in sys.stdin:
    journal.submit("a", line)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def sessions_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-sessions")


@pytest.fixture
def owner(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that owns a run, with a step in flight, and writes when told to."""
    child = python(OWNS, str(path), stdin=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == "owned\n"
    yield child
    child.kill()
    child.communicate(timeout=60)


def test_a_second_opener_takes_no_run_of_a_living_process_whose_folder_was_removed(
    path: Path, owner: "subprocess.Popen[str]"
) -> None:  # J-31, J-37
    shutil.rmtree(sessions_of(path))
    with quick(path) as second:
        for _ in range(2):
            [run] = second.runs()
            with pytest.raises(e.LeaseHeld):
                second.claim(run.id, "thief")
            assert second.claim_unfinished("a", "thief") == []
            assert second.unattended(["a"]) == {}
            shutil.rmtree(sessions_of(path), ignore_errors=True)
        owner.kill()
        owner.wait(60)
        assert [lease.run_id for lease in second.claim_unfinished("a", "heir")] == [run.id]  # known at once, still


def test_a_living_process_makes_the_folder_again_and_tells(path: Path, owner: "subprocess.Popen[str]") -> None:  # J-37
    assert owner.stdin is not None
    assert owner.stdout is not None
    shutil.rmtree(sessions_of(path))

    def made() -> bool:
        assert owner.stdin is not None
        owner.stdin.write("work\n")
        owner.stdin.flush()
        return sessions_of(path).exists()

    eventually(made)
    assert "was removed while it was in use" in owner.stdout.readline()
    with quick(path) as second:
        [run] = second.runs(states=("running",))
        with pytest.raises(e.LeaseHeld):
            second.claim(run.id, "thief")


def test_two_journals_of_one_process_go_on_when_the_folder_is_removed(path: Path) -> None:  # J-37
    told: list[Event] = []
    with quick(path, sink=told.append) as one, quick(path, sink=told.append) as other:
        lease = one.claim(one.submit("a").id, "w")
        begin(one, lease, "1")
        shutil.rmtree(sessions_of(path))
        with pytest.raises(e.LeaseHeld):
            other.claim(lease.run_id, "thief")

        def both() -> bool:
            one.submit("a")
            other.submit("a")
            return sessions_of(path).exists() and len(list(sessions_of(path).iterdir())) == 2

        eventually(both)
        assert lease.finish_step("1", 1) == 1
        act(one, lease, "2")
    assert [type(event) for event in told].count(JournalRepaired) == 2
