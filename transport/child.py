"""One child process: started in a session of its own, signalled as a group, reaped once."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mlld_sdk.base.secrets import keep_secret
from mlld_sdk.transport.command import READ_FD, WRITE_FD, EngineCommand
from mlld_sdk.transport.errors import CommandNotExecutable, CommandNotFound, SpawnRefused, WorkingDirectoryMissing
from mlld_sdk.transport.memory import kill_count
from mlld_sdk.transport.processes import MARKER, Birth, Mark, our_mark
from mlld_sdk.transport.surroundings import inherited

_HAS_PIDFD = hasattr(os, "pidfd_open")


def directory_prefix(mark: Mark) -> str:
    """Name the temporary directories of a host, so that a later one can tell whose they are."""
    return f"mlld-otp-{mark.space}-{mark.host}-{mark.started}-"


def mark_of_directory(name: str) -> Mark | None:
    """Read back whose directory it is; nothing if the name is not one of ours."""
    parts = name.split("-", 5)
    if len(parts) != 6 or parts[:2] != ["mlld", "otp"] or not (parts[3].isdigit() and parts[4].isdigit()):
        return None
    return Mark(parts[2], int(parts[3]), int(parts[4]), "")


@dataclass(slots=True)
class Child:
    """A started process and the ends of its pipes that are ours.

    The process stays a zombie until `reap`, so its number, which is also its group's, cannot become anybody else's
    while signals are sent: `signal_group` and `reap` exclude each other.
    """

    pid: int
    command: EngineCommand
    mark: Mark
    directory: str
    requests: int
    answers: int
    words: int
    pidfd: int | None
    birth: Birth
    lock: threading.Lock
    reaped: bool = False
    status: int | None = None

    @classmethod
    def spawn(cls, command: EngineCommand) -> Child:
        """Start the process, or raise a typed error and leave nothing behind.

        It is started from the caller's thread, without a parent-death signal: that one fires when the *thread* ends.
        """
        kill_count.look()
        mark = our_mark(os.urandom(8).hex())
        directory = os.path.join(_place_for_directories(), directory_prefix(mark) + mark.engine)
        fds: list[int] = []
        pid = 0
        try:
            pid = cls._start(command, mark, directory, fds)
            # While the program is still being loaded; before a request can be written there is no script to miss it.
            os.mkdir(directory, 0o700)
            pidfd = os.pidfd_open(pid) if _HAS_PIDFD else None
        except BaseException as error:
            if pid:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            for fd in fds:
                os.close(fd)
            with contextlib.suppress(OSError):
                os.rmdir(directory)
            if isinstance(error, OSError):
                raise _spawn_error(command, error) from error
            raise
        answers, requests, words = fds
        return cls(pid, command, mark, directory, requests, answers, words, pidfd, Birth.of(pid), threading.Lock())

    @staticmethod
    def _start(command: EngineCommand, mark: Mark, directory: str, ours: list[int]) -> int:
        """Run the program. Our pipe ends (answers, requests, words) are put into `ours` as soon as they exist."""
        theirs: list[int] = []
        try:
            for reads in (True, False, True):
                read, write = os.pipe()
                (ours if reads else theirs).append(read)
                (theirs if reads else ours).append(write)
                os.set_blocking(ours[-1], False)
            answers, requests, words = theirs
            environ = {**inherited(command.inherit), **command.environ, "TMPDIR": directory, MARKER: str(mark)}
            if command.private_fds:
                environ |= {READ_FD: str(requests), WRITE_FD: str(answers)}
            keep_secret(environ)
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL if command.private_fds else requests,
                stdout=words if command.private_fds else answers,
                stderr=words,
                pass_fds=(requests, answers) if command.private_fds else (),
                cwd=command.cwd,
                env=environ,
                start_new_session=True,
            )
        finally:
            for fd in theirs:
                os.close(fd)
        # This module reaps: a status of its own keeps the standard library from doing it, and from warning.
        process.returncode = 0
        return process.pid

    def signal_group(self, number: int) -> bool:
        """Signal the whole process group; false if the child has been reaped already."""
        with self.lock:
            if self.reaped:
                return False
            _kill_group(self.pid, number)
            return True

    def has_ended(self) -> bool:
        """Whether the process has ended (it need not be reaped)."""
        if self.reaped:  # its number may be another's by now
            return True
        try:
            if hasattr(os, "waitid"):
                return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            with self.lock:  # macOS cannot look without reaping
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.reaped, self.status = True, status
                    _kill_group(self.pid)
                return pid != 0
        except ChildProcessError:
            return True

    def reap(self) -> int | None:
        """Kill what is left of the group, then collect the status (as `subprocess` counts); `None` if it got lost."""
        with self.lock:
            if not self.reaped:
                _kill_group(self.pid)
                self.reaped = True
                with contextlib.suppress(ChildProcessError):  # other code waits for every child of this process
                    self.status = os.waitpid(self.pid, 0)[1]
        return None if self.status is None else os.waitstatus_to_exitcode(self.status)

    def close_fds(self, forget: Callable[[int], None]) -> None:
        """Close what this side reads; the writing end belongs to who writes."""
        for name in ("answers", "words", "pidfd"):
            fd = getattr(self, name)
            if fd is not None and fd >= 0:
                setattr(self, name, -1)
                forget(fd)
                os.close(fd)


def _kill_group(group: int, number: int = signal.SIGKILL) -> None:
    # macOS says EPERM for a group of which only a zombie is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _place_for_directories() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise SpawnRefused("no directory for temporary files can be written", hint="set TMPDIR to one") from error


def _spawn_error(command: EngineCommand, error: OSError) -> Exception:
    program = command.argv[0]
    if command.cwd is not None and not os.path.isdir(command.cwd):
        return WorkingDirectoryMissing(f"no directory {command.cwd!r}", hint="create it before starting the engine")
    if error.errno == errno.ENOENT:
        return CommandNotFound(f"no program {program!r}", hint="check the path, and its first line if it is a script")
    if error.errno in (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.ENOTDIR, errno.EPERM):
        return CommandNotExecutable(
            f"{program!r} cannot be run: {os.strerror(error.errno)}", hint="check its permissions and its first line"
        )
    return SpawnRefused(
        f"the system refused to start {program!r}: {error}", hint="raise the limits of processes and open files"
    )
