"""Finding and killing what a host left behind when it was killed itself."""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Sink, discard
from mlld_sdk.transport.child import mark_of_directory
from mlld_sdk.transport.events import OrphansSwept
from mlld_sdk.transport.processes import kill_surely, mark_of, process, processes


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed: process numbers, and temporary directories."""

    pids: tuple[int, ...] = ()
    directories: tuple[str, ...] = ()


def sweep_orphans(*, sink: Sink = discard, env: Env | None = None) -> Swept:
    """Kill every process of this user that descends from an engine whose host is gone, and remove its TMPDIR.

    Call it when a program boots. Linux only (it reads /proc); elsewhere it does nothing. A process is touched only if
    it carries the mark in its environment, belongs to this user and process namespace, and its host is gone; never
    this process or one it descends from, so a host may itself have been started by a script.
    """
    if not _proc_is_ours():
        return Swept()
    swept = Swept(tuple(_kill_orphans()), tuple(_remove_directories()))
    if swept.pids or swept.directories:
        sink(OrphansSwept(at=(env or Env()).wall(), pids=swept.pids, directories=swept.directories))
    return swept


def _proc_is_ours() -> bool:
    """Whether /proc is there and counts as we do: one of another namespace would show living hosts as gone."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _kill_orphans() -> list[int]:
    killed: list[int] = []
    spared = _ancestors()
    user = os.getuid()
    for entry in list(processes()):
        if entry.is_dead or entry.pid in spared:
            continue
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{entry.pid}").st_uid != user:
                continue
            mark = mark_of(entry.pid)
            if mark is not None and mark.host_is_gone and kill_surely(entry):
                killed.append(entry.pid)
    return killed


def _ancestors() -> set[int]:
    """This process and everything above it."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        entry = process(pid)
        pid = entry.parent if entry else 0
    return found


def _remove_directories() -> list[str]:
    """Remove the TMPDIRs of hosts that are gone, as far as they lie where this process makes its own."""
    removed: list[str] = []
    user = os.getuid()
    for path in Path(tempfile.gettempdir()).glob("mlld-otp-*"):
        mark = mark_of_directory(path.name)
        with contextlib.suppress(OSError):
            if mark is not None and mark.host_is_gone and path.lstat().st_uid == user and not path.is_symlink():
                shutil.rmtree(path)
                removed.append(str(path))
    return removed
