"""Finding and killing what a host left behind when it was killed itself."""

from __future__ import annotations

from dataclasses import dataclass

from mlld_sdk.env import Env
from mlld_sdk.events import Sink, discard

__all__ = ["MARKER", "Swept", "sweep_orphans"]

MARKER = "MLLD_OTP_OWNER"
"""Environment name by which every process below an engine can be told, and whose it is."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed."""

    pids: tuple[int, ...] = ()
    directories: tuple[str, ...] = ()


def sweep_orphans(*, sink: Sink = discard, env: Env | None = None) -> Swept:
    """Kill every process of this user that descends from an engine whose host is gone, and remove its TMPDIR.

    Call it when a program boots. Linux only (it reads /proc); elsewhere it does nothing. A process is touched only if
    it carries the marker in its environment, belongs to this user and process namespace, and its host is gone.
    """
    raise NotImplementedError
