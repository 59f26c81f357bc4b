"""Whether the kernel has killed processes of ours because memory ran out: what it counts itself, and nothing guessed.

The count is that of the control group this process and its engines are in; where none can be read, that of the machine.
"""

import threading
from collections import deque
from pathlib import Path
from typing import Final

from mlld_sdk.base.durations import now

_FRESH: Final = 1.0
"""Seconds for which a look stays the newest; the one before it is then between one and two looks old."""

_GROUPS: Final = Path("/proc/self/cgroup")
_MOUNTED: Final = Path("/sys/fs/cgroup")
_MACHINE: Final = Path("/proc/vmstat")


class KillCount:
    """How many processes the kernel has killed for memory, looked at now and then, so that a recent kill stands out."""

    def __init__(self, groups: Path = _GROUPS, mounted: Path = _MOUNTED, machine: Path = _MACHINE) -> None:
        self._file = next((file for file in _candidates(groups, mounted, machine) if _counted(file) is not None), None)
        self._lock = threading.Lock()
        self._looks: deque[tuple[float, int]] = deque(maxlen=2)

    def look(self) -> None:
        """Note the count as it is, unless that was done a moment ago."""
        with self._lock:
            if self._file is None or (self._looks and now() - self._looks[-1][0] < _FRESH):
                return
            count = _counted(self._file)
            if count is not None:
                self._looks.append((now(), count))

    def has_grown(self) -> bool:
        """Return whether the count has grown since the look before the last; false where nothing is counted."""
        with self._lock:
            count = None if self._file is None else _counted(self._file)
            return count is not None and bool(self._looks) and count > self._looks[0][1]


def _candidates(groups: Path, mounted: Path, machine: Path) -> list[Path]:
    """List where the kernel may count, the closest first: version 2 of control groups, version 1, the machine."""
    files: list[Path] = []
    try:
        lines = groups.read_text().splitlines()
    except OSError:  # no Linux
        return files
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files.insert(0, mounted / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            folder = mounted / "memory"
            files += [folder / path.lstrip("/") / "memory.oom_control", folder / "memory.oom_control"]
    return [*files, machine]


def _counted(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except (OSError, ValueError):
        return None
    return None


kill_count: Final = KillCount()
"""That of this process and its engines."""
