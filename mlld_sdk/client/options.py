"""The options of a client, as a type for functions that pass them on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypedDict

from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Sink
from mlld_sdk.engines.kinds import EngineKind
from mlld_sdk.transport.limits import EngineLimits

Isolation = Literal["shared", "exclusive"]


class ClientOptions(TypedDict, total=False):
    """What `Client` takes."""

    command: str
    command_args: Sequence[str] | None
    timeout: float | timedelta | None
    working_dir: str | os.PathLike[str] | None
    heap: str | int | None
    heap_snapshot_near_limit: int | None
    engine: EngineKind | None
    isolation: Isolation
    max_engines: int
    warm: int
    max_waiting: int
    strict: bool
    max_events: int
    environ: Mapping[str, str] | None
    inherit_env: Literal["all", "minimal"] | Sequence[str]
    limits: EngineLimits | None
    env: Env | None
    sink: Sink
