"""Folders that have to be this user's own, for all that is kept at places users have not named themselves."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlld_sdk.base.errors import ConfigurationError

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(eq=False, repr=False)
class FolderNotPrivate(ConfigurationError):
    """A folder that has to be this user's own is not: another user has made it or could write into it, or it is a link.

    Attributes:
        folder: The folder.
        why: What is wrong with it, in words.
    """

    code = "FOLDER_NOT_PRIVATE"
    message = "{folder} is not private to this user: {why}"
    hint = "remove it, or choose another place: a store in a folder of your own, TMPDIR, or MLLD_OTP_RUNTIME_DIR"
    folder: str
    why: str


def private_folder(folder: Path, *inside: str) -> Path:
    """Make a folder only this user may enter, then one of each further name in it, and return the last of them.

    One that is there already and that others can only read is closed to them. What is above `folder` is made as any
    folder is.

    Raises:
        FolderNotPrivate: One is another user's, or others could write into it, or it is no folder but a link.
        OSError: The system does not let it be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    at = folder
    for name in ("", *inside):
        at = at / name
        fd = _own(at)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if mode & _OTHERS_WRITE:
                raise FolderNotPrivate(str(at), "others may write into it")
            if mode & _OTHERS:
                os.fchmod(fd, mode & ~_OTHERS)
        finally:
            os.close(fd)
    return at


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder in which another user may have put what is there; makes and changes nothing.

    One that is not there is not refused, nor is one that others can only read.

    Raises:
        FolderNotPrivate: It is another user's, or others could write into it, or it is no folder but a link.
    """
    try:
        found = folder.lstat()
    except OSError:  # there is nothing that could be taken for one's own
        return
    if not stat.S_ISDIR(found.st_mode):
        raise FolderNotPrivate(str(folder), "it is a link or no folder")
    if found.st_uid != os.getuid():
        raise FolderNotPrivate(str(folder), f"it belongs to user {found.st_uid}")
    if found.st_mode & _OTHERS_WRITE:
        raise FolderNotPrivate(str(folder), "others may write into it")


def _own(folder: Path) -> int:
    """Make a folder or take this user's own; returns it opened, so that what is looked at is what is meant."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise FolderNotPrivate(str(folder), "it is no folder") from None
    if folder.is_symlink():
        raise FolderNotPrivate(str(folder), "it is a link")
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        raise FolderNotPrivate(str(folder), "it may not be entered") from None
    owner = os.fstat(fd).st_uid
    if owner != os.getuid():
        os.close(fd)
        raise FolderNotPrivate(str(folder), f"it belongs to user {owner}")
    return fd
