"""A journal that knew more once than its files say: it does not go on as if nothing had been."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mlld_sdk.cli.doctor import check_store
from mlld_sdk.journal import errors as e
from tests.support.journal import python, quick

WORKS = """
import os, signal, sys
from mlld_sdk.journal import Journal
from tests.support.journal import act
journal = Journal.open(sys.argv[1], durability=sys.argv[2])
lease = journal.claim(journal.submit("a", key=sys.argv[3]).id, "w")
for n in range(1, 6):
    act(journal, lease, str(n), n)
os.kill(os.getpid(), signal.SIGKILL)
"""

LOOKS = """
import os, signal, sys
from tests.support.journal import quick
journal = quick(sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def sessions_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-sessions")


def kill(code: str, *arguments: str) -> None:
    """Run a child that kills itself."""
    child = python(code, *arguments)
    _, err = child.communicate(timeout=60)
    assert child.returncode == -9, err


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a journal whose process was killed, with all that it wrote in the log."""
    with quick(tmp_path / "journal.db") as journal:
        journal.submit("a", key="before")
    kill(WORKS, str(tmp_path / "journal.db"), "full", "one")
    assert log_of(tmp_path / "journal.db").stat().st_size > 0
    return tmp_path / "journal.db"


def whole(path: Path, *keys: str) -> bool:
    with quick(path) as journal:
        found = [journal.find("a", key) for key in keys]
        return all(run is not None and len(journal.steps(run.id)) == 5 for run in found) and journal.verify() == []


def empty(log: Path) -> None:
    log.write_bytes(b"")


def cut(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:5000])


def flip(log: Path) -> None:
    """Flip a bit of the first frame: SQLite ends the log there."""
    data = bytearray(log.read_bytes())
    data[100] ^= 1
    log.write_bytes(data)


@pytest.mark.parametrize("lose", [Path.unlink, empty, cut, flip])
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_log_that_is_lost_after_a_crash_is_noticed_and_can_be_put_back(
    tmp_path: Path, lose: Callable[[Path], object], durability: str
) -> None:  # J-69
    path = tmp_path / "journal.db"
    quick(path).close()
    kill(WORKS, str(path), durability, "one")
    log = log_of(path)
    shutil.copy2(log, tmp_path / "moved away")
    lose(log)
    for _ in range(2):  # asked again it is not forgotten
        with pytest.raises(e.JournalIncomplete, match="lacks writes that were confirmed") as refused:
            quick(path)
    assert str(sessions_of(path)) in (refused.value.hint or "")
    shutil.copy2(tmp_path / "moved away", log)
    assert whole(path, "one")


def test_one_may_go_on_with_what_is_left(path: Path) -> None:  # J-69
    assert check_store(path).finding == "ok"
    log_of(path).unlink()
    assert "lacks writes" in check_store(path).found
    with pytest.raises(e.JournalIncomplete):
        quick(path)
    shutil.rmtree(sessions_of(path))
    with quick(path) as journal:
        assert [run.key for run in journal.runs()] == ["before"]
        assert journal.verify() == []


def test_a_crash_alone_is_no_loss_nor_is_a_log_that_another_program_has_taken_into_the_file(path: Path) -> None:  # J-69
    other = sqlite3.connect(path)
    assert other.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    other.close()
    assert not log_of(path).exists()
    assert whole(path, "one")
    assert list(sessions_of(path).iterdir()) == []


def test_who_opens_a_journal_after_a_crash_answers_for_what_was_in_the_log(path: Path) -> None:  # J-69
    kill(LOOKS, str(path))
    log_of(path).unlink()
    with pytest.raises(e.JournalIncomplete):
        quick(path)


def test_what_one_wrote_that_is_closed_is_missed_when_another_has_crashed(path: Path) -> None:  # J-69
    child = python("import sys; from tests.support.journal import quick\nj = quick(sys.argv[1])\ninput()", str(path))
    with quick(path) as journal:
        journal.submit("a", key="two")
        while len(list(sessions_of(path).iterdir())) < 2:
            assert child.poll() is None
        journal.submit("a", key="three")
    child.kill()
    child.communicate(timeout=60)
    log_of(path).unlink()
    with pytest.raises(e.JournalIncomplete):
        quick(path)


def test_a_backup_that_is_put_in_the_place_of_a_crashed_journal_is_an_older_one(path: Path) -> None:  # J-69
    with quick(path) as journal:
        journal.backup(path.with_name("backup.db"))
    kill(WORKS, str(path), "full", "two")
    log_of(path).unlink()
    shutil.copy2(path.with_name("backup.db"), path)
    with pytest.raises(e.JournalIncomplete, match="lacks"):
        quick(path)
    shutil.rmtree(sessions_of(path))
    assert whole(path, "one")


def test_a_journal_that_was_removed_altogether_is_a_new_one(path: Path) -> None:  # J-69
    for file in (path, log_of(path)):
        file.unlink()
    with quick(path) as journal:
        assert journal.runs() == []


def test_what_a_power_cut_may_take_is_not_missed_after_it(tmp_path: Path) -> None:  # J-60, J-69
    path = tmp_path / "journal.db"
    quick(path).close()
    for durability, missed in (("normal", False), ("full", True)):
        kill(WORKS, str(path), durability, durability)
        for session in sessions_of(path).iterdir():  # as it would be after the next boot
            count, held_in = session.read_text().split()
            session.write_text(f"{count} {held_in if held_in == '-' else 'another-boot'}\n")
        log_of(path).unlink()
        if missed:
            with pytest.raises(e.JournalIncomplete):
                quick(path)
        else:
            quick(path).close()
