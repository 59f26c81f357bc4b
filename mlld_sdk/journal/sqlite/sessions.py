"""Which open journals still live, told by file locks: the kernel drops them with the process, however it ends.

Each open journal holds an exclusive lock on a file of its own in a folder beside the journal. A process that gets a
shared lock on it knows that its holder is gone. Unlike process ids, locks are not reused, and need no clock. The folder
may be removed by somebody who tidies up, so each holds a lock on one byte of the write-ahead log, too, far behind its
end; that is looked at if the file is missing.

In its file each notes the count of the last commit that counted itself. A journal that knows of fewer has lost some:
the log was deleted, which SQLite takes for a log without anything in it.
"""

import contextlib
import fcntl
import os
import re
import struct
import uuid
import weakref
from pathlib import Path
from typing import Final

from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.folders import private_folder
from mlld_sdk.journal.errors import JournalReadOnly

_NAME = re.compile(r"[0-9a-f]{32}")
_COUNT = re.compile(rb"(\d{20}) (\S+)\n")

_SET: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
_GET: Final[int | None] = getattr(fcntl, "F_OFD_GETLK", None)
"""Locks that belong to an open file as `flock` has them, of single bytes; only Linux has them."""

_BYTE: Final = "hhqqi"
_FAR: Final = 1 << 62

_ALWAYS: Final = "-"
"""In place of the boot in which a count holds: it survives a power cut."""


class Session:
    """One open journal's sign of life.

    Attributes:
        name: Its name.
        inherited: Whether this process is a fork of the one that started it, and must leave everything alone.
    """

    def __init__(self, folder: Path, log: str, count: int, *, durable: bool) -> None:
        """Start a session; its file appears locked or not at all.

        Args:
            folder: Where the files are.
            log: The write-ahead log.
            count: What the journal knows of.
            durable: A count survives a power cut.
        """
        self.name = uuid.uuid4().hex
        self.inherited = False
        self._folder = folder
        self._path = folder / self.name
        self._count = count
        self._holds_in = _ALWAYS if durable else _boot()
        try:
            private_folder(folder)
            self._fd: int | None = self._appear()
            _sweep(folder, log)
        except OSError as error:
            raise JournalReadOnly(f"cannot write into {folder}: {error.strerror}") from error
        self._log = _hold(log, self.name)
        _here.add(self)

    def note(self, count: int) -> None:
        """Note a count that is confirmed; for a power cut it need not be durable itself."""
        self._count = count
        if self._fd is not None:
            _write(self._fd, count, self._holds_in)

    def restore(self) -> bool:
        """Make the session's file again if it is missing; returns whether that was done."""
        if self._fd is None or os.path.exists(self._path):
            return False
        try:
            private_folder(self._folder)
            before, self._fd = self._fd, self._appear()
        except (OSError, MlldError):  # tried again; meanwhile there is the lock on the log
            return False
        os.close(before)
        return True

    def end(self) -> None:
        """End the session."""
        self.drop()
        self._path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Let go of the locks without removing the file: also for a forked child, whose parent still holds them."""
        _here.discard(self)
        for fd in (self._fd, self._log):
            if fd is not None:
                os.close(fd)
        self._fd = self._log = None

    def _appear(self) -> int:
        hidden = self._folder / f".{self.name}"
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a file system without locks: leases then only end by running out
                fcntl.flock(fd, fcntl.LOCK_EX)
            _write(fd, self._count, self._holds_in)
            hidden.rename(self._path)
        except BaseException:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        return fd


def alive(folder: Path, log: str, name: object) -> bool:
    """Return whether a session lives. Where locks do not work it counts as alive, and its leases have to run out."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # in a damaged row anything may stand
        return False
    try:
        fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _is_held(log, name)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def last_count(folder: Path) -> int:
    """Return the highest count that any session has noted and that has to be in the journal still, 0 for none."""
    last, boots = 0, (_ALWAYS, _boot())
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):  # its session may just have ended
            found = _COUNT.fullmatch(file.read_bytes()) if _NAME.fullmatch(file.name) else None
            if found and found[2].decode(errors="replace") in boots:
                last = max(last, int(found[1]))
    return last


def _write(fd: int, count: int, holds_in: str | None) -> None:
    if holds_in is not None:
        with contextlib.suppress(OSError):  # a full disk: the count before stands
            os.pwrite(fd, b"%020d %s\n" % (count, holds_in.encode()), 0)


def _boot() -> str | None:
    """Return what tells this boot of the machine from others, or `None` where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _place(kind: int, name: str) -> bytes:
    return struct.pack(_BYTE, kind, os.SEEK_SET, _FAR + int(name[:15], 16), 1, 0)


def _hold(log: str, name: str) -> int | None:
    """Lock a session's byte of the log; returns the file that holds it, `None` where that cannot be done."""
    if _SET is None:
        return None
    try:
        fd = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, _SET, _place(fcntl.F_WRLCK, name))
    return fd


def _is_held(log: str, name: str) -> bool:
    if _GET is None:
        return False
    try:
        fd = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        found = fcntl.fcntl(fd, _GET, _place(fcntl.F_WRLCK, name))
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(struct.unpack_from("h", found)[0] != fcntl.F_UNLCK)


def _sweep(folder: Path, log: str) -> None:
    """Remove the files of sessions that are gone."""
    for file in folder.iterdir():
        if _NAME.fullmatch(file.name) and not alive(folder, log, file.name):
            file.unlink(missing_ok=True)


_here: "weakref.WeakSet[Session]" = weakref.WeakSet()


def _forked() -> None:
    for session in list(_here):
        session.inherited = True
        session.drop()


os.register_at_fork(after_in_child=_forked)
