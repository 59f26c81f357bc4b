"""Folders that have to be this user's own are made so, closed to others, or refused."""

import os
import socket
from pathlib import Path

import pytest

from mlld_sdk.base.folders import FolderNotPrivate, private_folder, refuse_foreign

SOMEBODY = 65_534


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def anothers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder another user's; without the right to give it away, become another user in the eyes of the code."""
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(folder, SOMEBODY, SOMEBODY)
    else:
        monkeypatch.setattr(os, "getuid", lambda: SOMEBODY)


def test_each_folder_of_the_way_is_private(tmp_path: Path) -> None:
    assert private_folder(tmp_path / "a" / "b", "c", "d") == tmp_path / "a" / "b" / "c" / "d"
    assert [mode(tmp_path / "a" / one) for one in ("b", "b/c", "b/c/d")] == [0o700] * 3
    private_folder(tmp_path / "a" / "b", "c", "d")


def test_one_that_others_could_only_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    (tmp_path / "a" / "file").touch(0o644)
    private_folder(tmp_path / "a")
    assert mode(tmp_path / "a") == 0o700


@pytest.mark.parametrize("bits", [0o777, 0o720, 0o1777])
def test_one_that_others_could_write_into_is_refused(bits: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(bits)
    with pytest.raises(FolderNotPrivate, match="others may write into it"):
        private_folder(tmp_path / "a", "b")
    assert not (tmp_path / "a" / "b").exists()


def test_one_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anothers(tmp_path / "a", monkeypatch)
    with pytest.raises(FolderNotPrivate, match="belongs to user") as caught:
        private_folder(tmp_path / "a")
    assert caught.value.code == "FOLDER_NOT_PRIVATE"
    assert caught.value.folder == str(tmp_path / "a")


def test_a_link_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "socket"))
    for name in ("link", "dangling", "file", "socket"):
        with pytest.raises(FolderNotPrivate, match="it is"):
            private_folder(tmp_path / name)
    assert not (tmp_path / "nothing").exists()


def test_looking_at_a_folder_refuses_what_another_user_may_have_put_there_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_foreign(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "read").mkdir(mode=0o755)
    refuse_foreign(tmp_path / "read")
    assert mode(tmp_path / "read") == 0o755
    (tmp_path / "link").symlink_to("read")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    anothers(tmp_path / "theirs", monkeypatch)
    for name in ("link", "open", "theirs"):
        with pytest.raises(FolderNotPrivate):
            refuse_foreign(tmp_path / name)
