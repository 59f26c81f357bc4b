"""Journals that other users own, read or may change: refused, or told of."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlld_sdk.base.events import Event
from mlld_sdk.cli.doctor import check_store
from mlld_sdk.journal import errors as e
from mlld_sdk.journal.events import JournalExposedEvent
from tests.support.journal import quick

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files to somebody else")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a journal in a folder of its own."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    with quick(folder / "journal.db") as journal:
        journal.submit("a", key="there")
    return folder / "journal.db"


def sessions_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-sessions")


def opened(path: Path) -> list[str]:
    """Open a journal, see that it works, and return what is told of others."""
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        assert journal.find("a", "there") is not None or path.name != "journal.db"
    return [event.reason for event in told if isinstance(event, JournalExposedEvent)]


def test_a_journal_of_ones_own_is_opened_without_a_word_and_made_for_its_owner_alone(path: Path) -> None:  # J-76
    before = os.umask(0)
    try:
        with quick(path.with_name("new.db")) as journal:
            journal.submit("a")
            made = list(path.parent.rglob("new.db*"))
            made += sessions_of(path.with_name("new.db")).iterdir()
            assert len(made) == 5  # with log, shared memory, folder and the file in it
            assert [file for file in made if file.stat().st_mode & 0o077] == []
            journal.backup(path.with_name("copy.db"))
            assert path.with_name("copy.db").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert opened(path) == []


@pytest.mark.parametrize(
    ("part", "mode", "right"),
    [
        ("", 0o660, 0o600),
        ("", 0o602, 0o600),
        ("-wal", 0o620, 0o600),
        ("-sessions", 0o770, 0o700),
        ("-sessions", 0o1777, 0o700),
    ],
)
def test_what_others_can_change_is_refused_until_it_is_put_right(
    path: Path, part: str, mode: int, right: int
) -> None:  # J-77
    victim = Path(f"{path}{part}")
    if part == "-wal":
        victim.touch()
    victim.chmod(mode)
    with pytest.raises(e.JournalExposed, match="other users can change") as refused:
        quick(path)
    assert refused.value.hint is not None
    assert f"chmod {right:o} {victim}" in refused.value.hint
    assert check_store(path).finding == "problem"
    victim.chmod(right)
    assert opened(path) == []


@pytest.mark.parametrize(("part", "mode"), [("", 0o644), ("", 0o640), ("-sessions", 0o755)])
def test_what_others_can_read_is_told_and_taken_from_them(path: Path, part: str, mode: int) -> None:  # J-76, J-77
    victim = Path(f"{path}{part}")
    victim.chmod(mode)
    assert check_store(path).finding == "warning"
    assert victim.stat().st_mode & 0o777 == mode
    reasons = opened(path)  # of the files, too, that SQLite made in the likeness of the first
    assert all("other users could read" in reason for reason in reasons)
    assert any(f"{victim} " in reason for reason in reasons)
    assert victim.stat().st_mode & 0o077 == 0
    assert opened(path) == []
    assert check_store(path).finding == "ok"


@as_root
@pytest.mark.parametrize("part", ["", "-sessions"])
def test_what_belongs_to_somebody_else_is_refused(path: Path, part: str) -> None:  # J-77
    victim = Path(f"{path}{part}")
    os.chown(victim, NOBODY, NOBODY)
    with pytest.raises(e.JournalExposed, match=f"belongs to user {NOBODY}"):
        quick(path)
    assert victim.stat().st_uid == NOBODY


@as_root
def test_a_file_laid_out_for_a_journal_that_is_yet_to_be_made_is_refused(path: Path) -> None:  # J-77
    path.parent.chmod(0o1777)
    squatted = path.with_name("new.db")
    squatted.touch()
    squatted.chmod(0o666)
    os.chown(squatted, NOBODY, NOBODY)
    with pytest.raises(e.JournalExposed, match="belongs to"):
        quick(squatted)
    assert squatted.read_bytes() == b""
    squatted.unlink()
    elsewhere = path.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    sessions_of(squatted).symlink_to(elsewhere)
    with pytest.raises(e.JournalExposed, match="no folder"):
        quick(squatted)


@pytest.mark.parametrize(
    ("expose", "told"),
    [
        (lambda folder: folder.chmod(0o777), True),
        (lambda folder: folder.chmod(0o1777), False),
        (lambda folder: folder.chmod(0o775), False),  # the group of the process itself
        pytest.param(lambda folder: (os.chown(folder, -1, NOBODY), folder.chmod(0o775)), True, marks=as_root),
        pytest.param(lambda folder: os.chown(folder, NOBODY, -1), True, marks=as_root),
    ],
)
def test_a_folder_in_which_others_can_replace_the_journal_is_told(
    path: Path, expose: Callable[[Path], object], told: bool
) -> None:  # J-77
    expose(path.parent)
    reasons = opened(path)
    assert ["replace the journal" in reason for reason in reasons] == [True] * told
