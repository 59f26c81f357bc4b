"""Processes to be broken: which ones a service has, and which ones it has left behind."""

import contextlib
from pathlib import Path


def children(pid: int) -> list[int]:
    """List the children of a process: of a service, its engines."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def processes_in(directory: Path) -> list[int]:
    """List processes that work in the directory: what a service left behind."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == directory and (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def resident(pid: int) -> int:
    """Tell how many bytes of memory a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def descriptors(pid: int) -> int:
    """Count the open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
