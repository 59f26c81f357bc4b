"""Child processes of a script: start them, read both pipes, stop them and everything they started."""

import os
import select
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlld_sdk.transport.javascript import well_formed

if TYPE_CHECKING:
    import subprocess

PIECE = 65536
CHILD_ENVIRONMENT = {"MLLD_NO_STREAMING": "true"}


class ShellProcess:
    """One running command. Made by `start`, read by `collect`, stopped by `kill` from any thread."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.killed = False

    def collect(self, on_chunk: Callable[[str, str], None] | None) -> tuple[str, str]:
        """Read stdout and stderr to their ends and wait for the exit; `on_chunk` is told each piece and its pipe."""
        out, err = self.process.stdout, self.process.stderr
        assert out is not None
        assert err is not None
        names = {out.fileno(): "stdout", err.fileno(): "stderr"}
        whole: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        poll = select.poll()
        for descriptor in names:
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        open_pipes = len(names)
        while open_pipes:
            for descriptor, _ in poll.poll():
                piece = os.read(descriptor, PIECE)
                if not piece:
                    poll.unregister(descriptor)
                    open_pipes -= 1
                    continue
                whole[names[descriptor]].append(piece)
                if on_chunk is not None:
                    on_chunk(piece.decode("utf-8", "replace"), names[descriptor])
        out.close()
        err.close()
        self.process.wait()
        stdout, stderr = (b"".join(whole[name]).decode("utf-8", "replace") for name in ("stdout", "stderr"))
        return stdout, stderr

    def kill(self) -> None:
        """Kill the command and every descendant, so that nothing of it goes on."""
        self.killed = True
        kill_tree(self.process.pid)


def start(argv: list[str], *, cwd: str, variables: dict[str, str], stdin: str | None) -> ShellProcess:
    """Start a command in the engine's own process group, so that a signal to the group reaches it.

    The text for stdin is handed over through an unlinked file: no thread has to feed a pipe.
    """
    environment = {**os.environ, **CHILD_ENVIRONMENT, **variables}
    import subprocess

    if stdin is None:
        source: int = subprocess.DEVNULL
    else:
        source = os.memfd_create("stdin") if hasattr(os, "memfd_create") else _unlinked_file()
        data = well_formed(stdin).encode()
        while data:
            data = data[os.write(source, data) :]
        os.lseek(source, 0, os.SEEK_SET)
    try:
        process = subprocess.Popen(
            argv, cwd=cwd, env=environment, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
    finally:
        if source >= 0:
            os.close(source)
    return ShellProcess(process)


def _unlinked_file() -> int:
    import tempfile

    descriptor, name = tempfile.mkstemp()
    os.unlink(name)
    return descriptor


def kill_tree(root: int) -> None:
    """Kill a process and its descendants; parents first, so that none can start another meanwhile."""
    seen: set[int] = set()
    wave = [root]
    while wave:
        for pid in wave:
            seen.add(pid)
            _signal(pid, signal.SIGSTOP)
        wave = [pid for pid in _children_of(seen) if pid not in seen]
    for pid in seen:
        _signal(pid, signal.SIGKILL)


def kill_all_children() -> None:
    """Kill every child of this process with its descendants, those included that another thread is just starting."""
    for pid in _children_of({os.getpid()}):
        kill_tree(pid)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _children_of(parents: set[int]) -> list[int]:
    """List the processes whose parent is one of `parents`."""
    if not os.path.isdir("/proc/self"):
        import subprocess

        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        pairs = [line.split() for line in listing.splitlines()]
        return [int(pid) for pid, parent in pairs if int(parent) in parents]
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if parent in parents:
            found.append(int(name))
    return found
