"""Engines for tests: the hostile little one, and what is needed to look at processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlld_sdk.base.events import Event
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import (
    CallCancelled,
    CallTimeout,
    EngineClosed,
    EngineDied,
    EngineOverloaded,
    ScriptError,
)
from mlld_sdk.transport.processes import mark_of, process, processes

HOSTILE = Path(__file__).with_name("hostile.py")
HABITS: list[tuple[str, ...]] = [(), ("fragile",), ("dialect21",), ("mute",), ("stubborn",), ("dribble",), ("dies",)]
KNOWN = (CallCancelled, CallTimeout, EngineClosed, EngineDied, EngineOverloaded, ScriptError)
"""What a call to a hostile engine may end with; anything else is an error nobody has named."""


def hostile(*habits: str, **more: Any) -> EngineCommand:
    """Make the command of a hostile engine with these habits."""
    argv = (sys.executable, "-S", "-E", str(HOSTILE), ",".join(habits), "live", "--stdio")
    return EngineCommand(argv=argv, label="hostile", **more)


@contextmanager
def running(*habits: str, command: EngineCommand | None = None, **options: Any) -> Iterator[Engine]:
    """Start an engine and see to it that it is gone afterwards, whatever the test did to it."""
    engine = Engine.start(command or hostile(*habits), **options)
    try:
        yield engine
    finally:
        engine.kill()
        assert engine.wait(60), f"{engine} is not gone"


def do(*verbs: Any) -> dict[str, Any]:
    """Say what the hostile engine shall do with a request."""
    return {"do": [list(verb) if isinstance(verb, tuple) else [verb] for verb in verbs]}


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    entry = process(pid)
    return entry is not None and not entry.is_dead


def ours() -> list[int]:
    """List every living process that descends from an engine of this process."""
    marks = [(entry.pid, mark_of(entry.pid)) for entry in processes() if not entry.is_dead]
    return [pid for pid, mark in marks if mark is not None and mark.host == os.getpid() and pid != os.getpid()]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Recorder(list[Event]):
    """A sink that keeps what it is told."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]
