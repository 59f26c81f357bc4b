"""Who else can read or change a journal: what is refused at the door, and what is told as an event."""

import os
import stat
from pathlib import Path

from mlld_sdk.journal.errors import JournalExposed

_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_access(path: Path, sessions: Path, *, mend: bool) -> list[str]:
    """Look at a journal's file, its log and its folder of sessions, as far as they are there, and at the folder around.

    Returns in words what others could do that they should not and that may have done no harm yet. To `mend` takes from
    them what they can read.

    Raises:
        JournalExposed: Another user owns a part of it, or can change it.
    """
    exposed: list[str] = []
    for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), sessions):
        try:
            found = part.lstat()
        except OSError:  # not there, or not to be seen: whoever opens it is told
            continue
        safe = 0o700 if part == sessions else 0o600
        if part == sessions and not stat.S_ISDIR(found.st_mode):
            raise JournalExposed(f"{part} is no folder", hint="somebody put it there; move it away")
        if found.st_uid != os.geteuid():
            raise JournalExposed(
                f"{part} belongs to user {found.st_uid}, and this process runs as {os.geteuid()}",
                hint=f"run as user {found.st_uid}, or chown it with {path.name}-wal, -shm and -sessions if it is yours",
            )
        if found.st_mode & _OTHERS_WRITE:
            raise JournalExposed(
                f"other users can change {part} (mode {found.st_mode & 0o7777:o})",
                hint=f"see that it is as you left it, then chmod {safe:o} {part}",
            )
        if found.st_mode & _OTHERS_READ:
            exposed.append(f"other users could read {part} (mode {found.st_mode & 0o7777:o}): chmod {safe:o} {part}")
            if mend:
                part.chmod(safe)
                exposed[-1] += ", which is done"
    return exposed + _around(path.parent)


def _around(folder: Path) -> list[str]:
    """Return whether others can replace what lies in a folder. A folder of the process's group counts as its own."""
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()):
        return [f"user {found.st_uid}, who owns {folder}, can delete or replace the journal: use a folder of your own"]
    by = _OTHERS_WRITE if found.st_gid != os.getegid() else stat.S_IWOTH
    if found.st_mode & by and not found.st_mode & stat.S_ISVTX:
        mode = f"mode {found.st_mode & 0o7777:o}"
        return [f"other users can delete or replace the journal in {folder} ({mode}): chmod go-w {folder}"]
    return []
