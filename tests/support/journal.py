"""Clocks that stand still, journals to break, and a child process that works on one."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from mlld_sdk.base.env import Env
from mlld_sdk.journal import Fresh, Journal, JournalLimits, RunLease, StepPolicy

ROOT = Path(__file__).parents[2]
AGAIN = StepPolicy(on_interrupt="retry")


@dataclass
class Clock:
    """Time that moves when told."""

    at: float = 1000.0
    wall: float = 1_700_000_000.0
    random: Random = field(default_factory=lambda: Random(7))

    @property
    def env(self) -> Env:
        return Env(now=lambda: self.at, wall=lambda: self.wall, random=self.random)

    def advance(self, seconds: float) -> None:
        self.at += seconds
        self.wall += seconds


def act(journal: Journal, lease: RunLease, position: str, value: Any = None, name: str = "step") -> Any:
    """Begin and finish a step that must be fresh."""
    begun = lease.begin_step(position, name, journal.fingerprint(name, position), AGAIN)
    assert isinstance(begun, Fresh), begun
    return lease.finish_step(position, value)


def begin(journal: Journal, lease: RunLease, position: str, name: str = "step", policy: StepPolicy = AGAIN) -> Any:
    return lease.begin_step(position, name, journal.fingerprint(name, position), policy)


def quick(path: Path | None, **options: Any) -> Journal:
    """Open a journal that need not survive a power cut."""
    return Journal.open(path, durability="normal", **{"retention": None, **options})


def python(code: str, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start a child that runs some Python against this checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


__all__ = ["AGAIN", "ROOT", "Clock", "JournalLimits", "act", "begin", "python", "quick"]
