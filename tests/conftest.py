"""What holds for every test: it leaves no thread and no child process behind."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["SHELL"] = "/bin/sh"
"""mlld asks the login shell about each command it has not met before; a profile can make that slow."""

PROCESS_WIDE = ("mlld-shared-",)
"""Names of threads that live as long as the process, by design."""


def children() -> set[int]:
    """List the pids of this process's children, zombies too (empty where the system has no /proc)."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            found |= {int(pid) for pid in task.read_text().split()}
        except OSError:
            continue
    return found


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith(PROCESS_WIDE)}


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    before_threads, before_children = threads(), children()
    yield
    deadline = time.monotonic() + 3
    while True:
        left = [*(threads() - before_threads), *(children() - before_children)]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert not left, f"left behind: {left}"
