"""What this machine allows: engines, store, limits, leftovers, clock. One report, for people and for programs."""

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Literal

import msgspec

from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.control import protocol
from mlld_sdk.control.client import runtimes
from mlld_sdk.engines.check import EnginesReport, check_engines
from mlld_sdk.journal.sqlite import schema
from mlld_sdk.transport.processes import mark_of, processes

Finding = Literal["ok", "warning", "problem"]

FILES_WANTED: Final = 1024
"""Open files below which a service of some size runs into its limit: an engine takes five."""

STORE_SECONDS: Final = 5.0
"""Seconds a store is read to find damage; what a large one has behind that is not looked at."""

PROCESSES_WANTED: Final = 512
MEMORY_WANTED: Final = 512 << 20
"""Free bytes below which no further engine of the real mlld should be started; one needs 110 to 150 MiB to begin."""

OLDEST_NODE: Final = 18


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        name: What.
        finding: `ok`; `warning`, it will do for now; `problem`, something will not work.
        found: What was found, in one line.
        hint: What to do about it.
    """

    name: str
    finding: Finding
    found: str
    hint: str | None = None

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.name:<9} {self.finding:<9} {self.found}{hint}"


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was looked at.

    Attributes:
        engines: The engines.
        checks: The machine.
    """

    engines: EnginesReport
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether the default engine works and nothing is a problem."""
        return self.engines[self.engines.default].usable and all(check.finding != "problem" for check in self.checks)

    def __str__(self) -> str:
        return "\n".join([str(self.engines), *map(str, self.checks)])


def diagnose(store: str | os.PathLike[str] | None = None, *, env: Env | None = None) -> Diagnosis:
    """Look at everything. Starts each engine once; changes nothing else, and leaves nothing behind.

    Args:
        store: The journal's file, if there is or is to be one.
        env: Clocks.
    """
    checks = [
        *([] if store is None else [check_store(Path(store))]),
        check_socket_folder(),
        check_node(),
        check_files(),
        check_processes(),
        check_memory(),
        check_leftovers(),
        check_clock(env or Env()),
    ]
    return Diagnosis(engines=check_engines(env=env), checks=tuple(checks))


def check_store(path: Path) -> Check:
    """Say whether a journal can be kept in this file: the folder takes files, and what is there is a database."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return Check(name="store", finding="problem", found=f"there is no folder {folder}", hint="make it")
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return Check(name="store", finding="problem", found=f"{folder} takes no files: {error.strerror}")
    if path.is_dir():
        return Check(name="store", finding="problem", found=f"{path} is a folder", hint="name a file in it")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        hint = "check its owner and mode"
        return Check(name="store", finding="problem", found=f"{path} may not be written", hint=hint)
    if path.exists() and path.stat().st_size and (wrong := _wrong_with(path)):
        return wrong
    free = shutil.disk_usage(folder).free
    low = free < 100 << 20
    return Check(
        name="store",
        finding="warning" if low else "ok",
        found=f"{path} can be written, {free >> 20} MiB are free",
        hint="make room: a journal that cannot be written stops taking runs" if low else None,
    )


def _wrong_with(path: Path) -> Check | None:
    """Read a store as far as that goes in `STORE_SECONDS`, changing nothing."""

    def problem(found: str, hint: str = "restore it, or move it away to begin anew") -> Check:
        return Check(name="store", finding="problem", found=found, hint=hint)

    deadline = Deadline(STORE_SECONDS)
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
        ) as database:
            database.set_progress_handler(lambda: deadline.is_over, 10_000)
            (owner,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if owner != schema.APPLICATION_ID:
                return problem(f"{path} is a database of something else", "name another file")
            if version > schema.CURRENT:
                found = f"{path} has version {version}, this library knows up to {schema.CURRENT}"
                return problem(found, "upgrade the library, or open a backup made before")
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_INTERRUPT:  # too large to be read whole; what was read is all right
            return None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return problem(f"{path} is held by another process", "find it with lsof; a service cannot write meanwhile")
        return problem(f"{path} cannot be read: {error}")
    return None if said == "ok" else problem(f"{path} is damaged: {said.splitlines()[-1]}")


def check_socket_folder() -> Check:
    """Say whether the control socket may lie where it would, and which runtimes have one there."""
    folder = protocol.socket_path("any").parent
    running = ", ".join(runtimes()) or "no runtime"
    if not folder.exists():
        return Check(name="socket", finding="ok", found=f"{folder} will be made when a runtime starts")
    try:
        protocol.private_folder(folder)
    except (MlldError, OSError) as error:
        return Check(name="socket", finding="problem", found=str(error))
    return Check(name="socket", finding="ok", found=f"{folder} is private; {running} there")


def check_node() -> Check:
    """Say which Node there is; `live` and `bridge` need one, the embedded engine does not."""
    node = shutil.which("node")
    hint = f"the live engine and the bridge need Node {OLDEST_NODE} or later on PATH"
    if node is None:
        return Check(name="node", finding="warning", found="none on PATH", hint=hint)
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name="node", finding="warning", found=f"{node} does not answer: {error}", hint=hint)
    said = done.stdout.strip()
    major = said.removeprefix("v").partition(".")[0]
    old = not major.isdigit() or int(major) < OLDEST_NODE
    return Check(name="node", finding="warning" if old else "ok", found=f"{said} at {node}", hint=hint if old else None)


def check_files() -> Check:
    """Say how many files this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < FILES_WANTED
    found = f"{_limit(soft)} open files allowed, up to {_limit(hard)} on request"
    hint = "raise it: `ulimit -n`, or LimitNOFILE= in the unit" if few else None
    return Check(name="files", finding="warning" if few else "ok", found=found, hint=hint)


def check_processes() -> Check:
    """Say how many processes and threads this user, and this container, may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    group = _container_limit("pids.max")
    allowed = [limit for limit in (soft if soft != resource.RLIM_INFINITY else None, group) if limit is not None]
    few = bool(allowed) and min(allowed) < PROCESSES_WANTED
    found = f"{min(allowed)} processes and threads allowed" if allowed else "as many processes and threads as there fit"
    hint = "an engine of the real mlld has about ten threads: `ulimit -u`, TasksMax=, or the container's pids limit"
    return Check(name="processes", finding="warning" if few else "ok", found=found, hint=hint if few else None)


def check_memory() -> Check:
    """Say how much memory is to be had, in this container if it has a limit."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else None
    free = _available() or free
    limit = _container_limit("memory.max")
    if free is None:
        return Check(name="memory", finding="ok", found="this system does not say how much is free")
    low = min(free, limit or free) < MEMORY_WANTED
    found = f"{free >> 20} MiB are free" + (f", this container may have {limit >> 20} MiB" if limit else "")
    hint = "set max_engines or min_free_memory of the runtime" if low else None
    return Check(name="memory", finding="warning" if low else "ok", found=found, hint=hint)


def check_leftovers() -> Check:
    """Count processes that engines of programs which are gone have left; the next runtime to start ends them."""
    left = 0
    for entry in list(processes()):
        mark = None if entry.is_dead else mark_of(entry.pid)
        left += mark is not None and mark.host_is_gone
    if left:
        hint = "the next runtime that starts ends them"
        return Check(name="leftovers", finding="warning", found=f"{left} processes of hosts that are gone", hint=hint)
    return Check(name="leftovers", finding="ok", found="none")


def check_clock(env: Env) -> Check:
    """Say whether the clocks make sense: leases and deadlines are compared between processes by the wall clock."""
    wall = env.wall()
    ticks = [env.now() for _ in range(1000)]
    if ticks != sorted(ticks):
        return Check(name="clock", finding="problem", found="the monotonic clock runs backwards")
    written = Path(__file__).stat().st_mtime
    if wall < written - 86400:
        found = f"it says {time.strftime('%Y-%m-%d', time.gmtime(wall))}, which is before this program was installed"
        return Check(name="clock", finding="problem", found=found, hint="set it; leases and deadlines depend on it")
    return Check(name="clock", finding="ok", found=f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(wall))} UTC")


def _limit(value: int) -> str:
    return "any number" if value == resource.RLIM_INFINITY else str(value)


def _container_limit(name: str) -> int | None:
    try:
        text = Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
