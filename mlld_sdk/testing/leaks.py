"""Threads, child processes and open files that a test leaves behind."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mlld_sdk.base.durations import Deadline, pause
from mlld_sdk.transport.reactor import shared_reactor

PROCESS_WIDE: Final = ("mlld-shared-",)
"""Beginnings of names of threads that live as long as the process, by design."""


class Leaked(AssertionError):
    """A test left threads, child processes or open files behind."""


@contextlib.contextmanager
def leak_check(*, files: bool = True, within: float = 3.0) -> Iterator[None]:
    """Fail if the block leaves threads, child processes or open files behind.

    Args:
        files: Whether open files count.
        within: Seconds that what is ending may take to be gone.

    Raises:
        Leaked: Something was left; says what.
    """
    if files:
        shared_reactor()  # lives as long as the process, and opens files when it is first needed
    before = _everything(files)
    yield
    deadline = Deadline(within)
    while left := {name: thing for name, thing in _everything(files).items() if name not in before}:
        if deadline.is_over:
            raise Leaked(f"left behind: {', '.join(left.values())}")
        pause(0.01)


def _everything(files: bool) -> dict[tuple[str, Any], str]:
    found: dict[tuple[str, Any], str] = {
        ("thread", thread): f"thread {thread.name}"
        for thread in threading.enumerate()
        if not thread.name.startswith(PROCESS_WIDE)
    }
    found |= {("child", pid): f"child process {pid}" for pid in _children()}
    if files:
        for entry in Path("/proc/self/fd").glob("*"):
            with contextlib.suppress(OSError):  # the descriptor of this very listing
                target = os.readlink(entry)
                found["file", f"{entry.name} {target}"] = f"file {target}"
    return found


def _children() -> set[int]:
    """List the pids of this process's children, zombies too (empty where the system has no /proc)."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in task.read_text().split()}
    return found
