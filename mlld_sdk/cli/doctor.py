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
from mlld_sdk.base.texts import printable
from mlld_sdk.control import protocol
from mlld_sdk.control.client import Remote, running
from mlld_sdk.engines.check import EnginesReport, check_engines
from mlld_sdk.journal.errors import JournalExposed
from mlld_sdk.journal.sqlite import schema, sessions
from mlld_sdk.journal.sqlite.access import check_access
from mlld_sdk.journal.sqlite.faults import FAULTS
from mlld_sdk.runtime.missing import named
from mlld_sdk.transport.processes import mark_of, processes

Finding = Literal["ok", "warning", "problem"]

FILES_WANTED: Final = 1024
"""Open files below which a service of some size runs into its limit: an engine takes five."""

STORE_SECONDS: Final = 5.0
"""Seconds a store is read to find damage; what a large one has behind that is not checked."""

PROCESSES_WANTED: Final = 512
MEMORY_WANTED: Final = 512 << 20
"""Free bytes below which no further engine of the real mlld should be started; one needs 110 to 150 MiB to begin."""

OLDEST_NODE: Final = 18


class Check(msgspec.Struct, frozen=True):
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
        return printable(f"{self.name:<9} {self.finding:<9} {self.found}{hint}")


def _unless(bad: bool, name: str, found: str, hint: str) -> Check:
    """Return a check that is `ok`, or a warning with a hint if what was found is bad."""
    return Check(name, "warning", found, hint) if bad else Check(name, "ok", found)


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


def diagnose(store: str | os.PathLike[str] | None = None) -> Diagnosis:
    """Check everything. Starts each engine once; changes nothing else, and leaves nothing behind.

    Args:
        store: The journal's file, if there is or is to be one.
    """
    checks = [] if store is None else [check_store(Path(store))]
    checks += [check_socket_folder(), *check_runtimes(), check_node(), check_files(), check_processes(), check_memory()]
    checks += [check_leftovers(), check_clock(Env())]
    return Diagnosis(engines=check_engines(), checks=tuple(checks))


def check_store(path: Path) -> Check:
    """Check whether a journal can be kept in this file: the folder takes files, and what is there is a database."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return Check("store", "problem", f"there is no folder {folder}", "make it")
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return Check("store", "problem", f"{folder} takes no files: {error.strerror}")
    if path.is_dir():
        return Check("store", "problem", f"{path} is a folder", "name a file in it")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return Check("store", "problem", f"{path} may not be written", "check its owner and mode")
    try:
        exposed = check_access(path, path.with_name(f"{path.name}-sessions"), mend=False)
    except JournalExposed as error:
        return Check("store", "problem", error.message, error.hint or "")
    if path.exists() and path.stat().st_size and (wrong := _wrong_with(path)):
        return wrong
    free = shutil.disk_usage(folder).free
    if exposed:
        found, _, hint = exposed[0].rpartition(": ")
        return Check("store", "warning", found, hint)
    hint = "make room: a journal that cannot be written stops taking runs"
    return _unless(free < 100 << 20, "store", f"{path} can be written, {free >> 20} MiB are free", hint)


def _wrong_with(path: Path) -> Check | None:
    """Read a store as far as that goes in `STORE_SECONDS`, changing nothing."""

    def problem(found: str, hint: str = "restore it, or move it away to begin anew") -> Check:
        return Check("store", "problem", found, hint)

    deadline = Deadline(STORE_SECONDS)
    known = sessions.last_count(path.with_name(f"{path.name}-sessions"))  # before the file, as others may write
    try:
        address = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=1.0)) as database:
            database.set_progress_handler(lambda: deadline.is_over, 10_000)
            (owner,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if owner != schema.APPLICATION_ID:
                return problem(f"{path} is a database of something else", "name another file")
            if version > schema.CURRENT:
                found = f"{path} has version {version}, this library knows up to {schema.CURRENT}"
                return problem(found, "upgrade the library, or open a backup made before")
            if version == schema.CURRENT and schema.tally(database) < known:
                found = f"{path} lacks writes that were confirmed"
                return problem(found, "put its -wal back, or restore a backup: see JOURNAL_INCOMPLETE")
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except FAULTS as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_INTERRUPT:  # too large to be read whole; what was read is all right
            return None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return problem(f"{path} is held by another process", "find it with lsof; a service cannot write meanwhile")
        damaged = code is None or code & 0xFF == sqlite3.SQLITE_CORRUPT  # no code: a text that is none
        return problem(f"{path} {'is damaged' if damaged else 'cannot be read'}: {error}")
    return None if said == "ok" else problem(f"{path} is damaged: {said.splitlines()[-1]}")


def check_socket_folder() -> Check:
    """Check whether the control socket may lie where it would, and which runtimes have one there."""
    folder = protocol.socket_folder()
    try:
        there = ", ".join(map(str, running())) or "no runtime"
    except MlldError as error:
        return Check("socket", "problem", error.message, error.hint)
    if not folder.exists():
        return Check("socket", "ok", f"{folder} will be made when a runtime starts")
    return Check("socket", "ok", f"{folder} is this user's own; {there} there")


def check_runtimes() -> list[Check]:
    """Ask each runtime of this user for agents that runs wait for and that it does not have."""
    checks: list[Check] = []
    try:
        processes = running()
    except MlldError:  # the check of the folder says it
        return checks
    for process in processes:
        try:
            with Remote(process.name, pid=process.pid) as remote:
                missing = remote.ask(protocol.AskMissing())["missing"]
        except MlldError as error:
            checks.append(Check("runtime", "warning", str(error)))
            continue
        agents = [f"{one['agent']} ({named(one['runs'], one['more'])})" for one in missing]
        hint = "start them under these names again, or cancel the runs"
        found = f"{process}: runs wait for agents that are not there: {', '.join(agents)}" if agents else str(process)
        checks.append(_unless(bool(agents), "runtime", found if agents else f"{process} lacks no agent", hint))
    return checks


def check_node() -> Check:
    """Check which Node there is; `live` and `bridge` need one, the embedded engine does not."""
    node = shutil.which("node")
    hint = f"the live engine and the bridge need Node {OLDEST_NODE} or later on PATH"
    if node is None:
        return Check("node", "warning", "none on PATH", hint)
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("node", "warning", f"{node} does not answer: {error}", hint)
    said = done.stdout.strip()
    major = said.removeprefix("v").partition(".")[0]
    return _unless(not major.isdigit() or int(major) < OLDEST_NODE, "node", f"{said} at {node}", hint)


def check_files() -> Check:
    """Check how many files this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < FILES_WANTED
    found = f"{_limit(soft)} open files allowed, up to {_limit(hard)} on request"
    return _unless(few, "files", found, "raise it: `ulimit -n`, or LimitNOFILE= in the unit")


def check_processes() -> Check:
    """Check how many processes and threads this user, and this container, may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    group = _container_limit("pids.max")
    allowed = [limit for limit in (soft if soft != resource.RLIM_INFINITY else None, group) if limit is not None]
    few = bool(allowed) and min(allowed) < PROCESSES_WANTED
    found = f"{min(allowed)} processes and threads allowed" if allowed else "as many processes and threads as there fit"
    hint = "an engine of the real mlld has about ten threads: `ulimit -u`, TasksMax=, or the container's pids limit"
    return _unless(few, "processes", found, hint)


def check_memory() -> Check:
    """Check how much memory is free, in this container if it has a limit."""
    free, limit = _available(), _container_limit("memory.max")
    if free is None:
        return Check("memory", "ok", "this system does not say how much is free")
    found = f"{free >> 20} MiB are free" + (f", this container may have {limit >> 20} MiB" if limit else "")
    low = min(free, limit or free) < MEMORY_WANTED
    return _unless(low, "memory", found, "set max_engines or min_free_memory of the runtime")


def check_leftovers() -> Check:
    """Count processes that engines of programs which are gone have left; the next runtime to start ends them."""
    marks = [mark_of(entry.pid) for entry in list(processes()) if not entry.is_dead]
    left = sum(mark is not None and mark.host_is_gone for mark in marks)
    found = f"{left} processes of hosts that are gone" if left else "none"
    return _unless(bool(left), "leftovers", found, "the next runtime that starts ends them")


def check_clock(env: Env) -> Check:
    """Check whether the clocks make sense: leases and deadlines are compared between processes by the wall clock."""
    wall = env.wall()
    ticks = [env.now() for _ in range(1000)]
    if ticks != sorted(ticks):
        return Check("clock", "problem", "the monotonic clock runs backwards")
    written = Path(__file__).stat().st_mtime
    if wall < written - 86400:
        found = f"it says {time.strftime('%Y-%m-%d', time.gmtime(wall))}, which is before this program was installed"
        return Check("clock", "problem", found, "set it; leases and deadlines depend on it")
    return Check("clock", "ok", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(wall))} UTC")


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
