"""Facts about processes the system tells: who descends from whom, who carries our mark, how much memory they hold.

Everything here reads /proc and says nothing where there is none.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mlld_sdk.base.durations import pause

MARKER = "MLLD_OTP_OWNER"
"""Environment name by which every process below an engine can be told, and whose it is."""

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DEAD_STATES = "ZX"
_OF_KERNEL = 0x00200000  # having no session is no sign: one led from outside a container has number 0 within
_KILLED = 1 << (signal.SIGKILL - 1)
_LOOKS = 4
_BLINK = 0.0005
_FEW = 16
_LONGEST = 1 << 17


class Process(NamedTuple):
    """One line of the process table."""

    pid: int
    state: str
    parent: int
    session: int
    flags: int
    started: int

    @property
    def is_dead(self) -> bool:
        """Whether only its entry is left, waiting for its parent."""
        return self.state in _DEAD_STATES


class Mark(NamedTuple):
    """What a process below an engine carries in its environment: which engine, of which host.

    `space` is the process namespace the numbers belong to; `started` tells the host from a later process of its number.
    """

    space: str
    host: int
    started: int
    engine: str

    def __str__(self) -> str:
        return f"{self.space}:{self.host}:{self.started}:{self.engine}"

    @property
    def host_is_gone(self) -> bool:
        """Whether the host is dead, as far as this namespace can know."""
        if self.space != _space():
            return False
        host = process(self.host)
        return host is None or host.started != self.started or host.is_dead


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")[5:-1]
    except OSError:
        return "-"


@functools.lru_cache(maxsize=1)
def _host(pid: int) -> tuple[str, int]:
    me = process(pid)
    return _space(), me.started if me else 0


def our_mark(engine: str) -> Mark:
    """Make the mark of an engine of this process."""
    pid = os.getpid()
    space, started = _host(pid)
    return Mark(space, pid, started, engine)


def process(pid: int) -> Process | None:
    """Look one process up; nothing if it is gone or there is no /proc."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[6]), int(fields[19]))


def is_doomed(pid: int) -> bool:
    """Whether a process has ended, or was sent what ends it and is yet to; without /proc false, as nothing tells."""
    text = _read(f"/proc/{pid}/status")
    if text is None:
        return process(os.getpid()) is not None
    facts = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
    if facts[b"State"].split()[0].decode() in _DEAD_STATES:
        return True
    return any(int(facts.get(name, b"0"), 16) & _KILLED for name in (b"SigPnd", b"ShdPnd"))


def processes() -> Iterator[Process]:
    """List every process that can be seen, threads of the kernel aside."""
    return _look_up(_listed())


def _listed() -> list[int]:
    try:
        return [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    except OSError:
        return []


def _look_up(pids: Iterable[int]) -> Iterator[Process]:
    for pid in pids:
        if (found := process(pid)) is not None and not found.flags & _OF_KERNEL:
            yield found


def mark_of(pid: int) -> Mark | None:
    """Read the mark of a process; nothing if it has none, is gone or belongs to another user."""
    said = (b"\0" + _environ_of(pid)).partition(b"\0" + MARKER.encode() + b"=")[2]
    parts = said.partition(b"\0")[0].decode("utf-8", "replace").split(":", 3)
    if len(parts) != 4 or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    return Mark(parts[0], int(parts[1]), int(parts[2]), parts[3])


def _read(path: str) -> bytes | None:
    """Read a short file without the layers of `open`, which cost more than the system does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _LONGEST)
        finally:
            os.close(fd)
    except OSError:
        return None


def _environ_of(pid: int) -> bytes:
    """Read a process's environment; again if it is empty, as it is for a moment while a program is being loaded."""
    for attempt in range(_LOOKS):
        if attempt:
            pause(_BLINK)
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read()
        except OSError:
            break
        if environ:
            return environ
    return b""


def kill_surely(entry: Process) -> bool:
    """SIGKILL this very process, never another that got its number meanwhile; false if it is gone."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        handle = os.pidfd_open(entry.pid)
        try:
            same = process(entry.pid)
            if same is None or same.started != entry.started:
                return False
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
    except OSError:
        return False
    return True


class Birth(NamedTuple):
    """When a process was born: its number, and how many had been born by then, or a little earlier."""

    pid: int
    total: int

    @classmethod
    def of(cls, pid: int) -> Birth:
        """Note the birth of a process that has just been started."""
        return cls(pid, _counted or _count_births())  # an older count only makes the births since seem more


def born_since(births: Iterable[Birth]) -> list[Process]:
    """List the processes with these numbers and all born after them, threads of the kernel aside; maybe more.

    Numbers are given out in order, so only the processes with a higher one need to be looked up: when few numbers were
    given out, each of them. When so many were that they may have come round, the whole process table is what it gives.
    """
    youngest, total = _last_pid(), _count_births()
    oldest = youngest
    for birth in births:
        is_known = 0 < birth.pid <= youngest and birth.total
        if not is_known or not 0 <= total - birth.total < _numbers() // 2:
            return list(processes())
        oldest = min(oldest, birth.pid)
    few = youngest - oldest <= _FEW
    return list(_look_up(range(oldest, youngest + 1) if few else [pid for pid in _listed() if pid >= oldest]))


class Births:
    """Lists the processes born since it was last asked; first, since the birth of a process."""

    def __init__(self, birth: Birth) -> None:
        # Two looks back, because a number that is given out is in use only when its process has been made.
        self._looks = (birth, birth)

    def since(self) -> list[Process]:
        """List them; maybe more, and maybe some that were listed the last time."""
        before, last = self._looks
        youngest = _last_pid()
        if youngest and youngest == last.pid and _numbers():
            return []
        self._looks = (last, Birth(youngest, _count_births()))
        return born_since([before])


_counted = 0


def _count_births() -> int:
    """Count the processes and threads that were ever born on this machine; 0 if that is not known."""
    global _counted
    _, _, rest = (_read("/proc/stat") or b"").partition(b"\nprocesses ")
    _counted = int(rest.split(maxsplit=1)[0]) if rest else 0
    return _counted


@functools.lru_cache(maxsize=1)
def _numbers() -> int:
    """Return how many numbers there are before they come round; 0 if the count of births cannot be relied on."""
    told = ("/proc", "/proc/loadavg", "/proc/stat")
    try:
        is_made_up = len({os.stat(path).st_dev for path in told}) > 1  # some containers lay files of their own over it
    except OSError:
        is_made_up = True
    return 0 if is_made_up else int(_read("/proc/sys/kernel/pid_max") or 0)


def _last_pid() -> int:
    """Return the number of the youngest process or thread; 0 if that is not known."""
    text = _read("/proc/loadavg")
    return int(text.split()[-1]) if text else 0


def descendants_of(pid: int) -> list[int]:
    """List the living descendants of a process, children before grandchildren."""
    found: list[int] = []
    level = [pid]
    while level:
        children: list[int] = []
        for parent in level:
            for path in _PROC.glob(f"{parent}/task/*/children"):
                with contextlib.suppress(OSError, ValueError):
                    children += [int(child) for child in path.read_text().split()]
        level = [child for child in children if child not in found]
        found += level
    return found


def rss_of(pid: int) -> int:
    """Return how many bytes of memory a process holds; 0 if it is gone or cannot be asked."""
    text = _read(f"/proc/{pid}/statm")
    return int(text.split()[1]) * _PAGE if text else 0
