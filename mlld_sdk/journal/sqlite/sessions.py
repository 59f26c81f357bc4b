"""Which open journals still live, told by file locks: the kernel drops them with the process, however it ends.

Each open journal holds an exclusive lock on a file of its own in a folder beside the journal. A process that gets a
shared lock on it knows that its holder is gone. Unlike process ids, locks are not reused, and need no clock.
"""

import contextlib
import fcntl
import os
import re
import uuid
import weakref
from pathlib import Path

from mlld_sdk.base.folders import private_folder
from mlld_sdk.journal.errors import JournalReadOnly

_NAME = re.compile(r"[0-9a-f]{32}")


class Session:
    """One open journal's sign of life.

    Attributes:
        name: Its name.
        inherited: Whether this process is a fork of the one that started it, and must leave everything alone.
    """

    def __init__(self, folder: Path) -> None:
        """Start a session; its file appears locked or not at all."""
        self.name = uuid.uuid4().hex
        self.inherited = False
        self._path = folder / self.name
        try:
            private_folder(folder)
            _sweep(folder)
            fresh = folder / f".{self.name}"
            self._fd: int | None = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalReadOnly(f"cannot write into {folder}: {error.strerror}") from error
        with contextlib.suppress(OSError):  # a file system without locks: leases then only end by running out
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        fresh.rename(self._path)
        _here.add(self)

    def end(self) -> None:
        """End the session."""
        self.drop()
        self._path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Close the lock file without ending the session: for a forked child, whose parent still holds the lock."""
        _here.discard(self)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def alive(folder: Path, name: object) -> bool:
    """Return whether a session lives. Where locks do not work it counts as alive, and its leases have to run out."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # in a damaged row anything may stand
        return False
    try:
        fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _sweep(folder: Path) -> None:
    """Remove the files of sessions that are gone."""
    for file in folder.iterdir():
        if _NAME.fullmatch(file.name) and not alive(folder, file.name):
            file.unlink(missing_ok=True)


_here: "weakref.WeakSet[Session]" = weakref.WeakSet()


def _forked() -> None:
    for session in list(_here):
        session.inherited = True
        session.drop()


os.register_at_fork(after_in_child=_forked)
