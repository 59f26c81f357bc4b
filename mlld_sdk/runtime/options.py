"""The options of a runtime as a type, for functions that make one and hand them on."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypedDict

from mlld_sdk.base.env import Env
from mlld_sdk.journal import JournalLimits, Retention, Values
from mlld_sdk.journal.options import Durability
from mlld_sdk.runtime.end import RuntimeEnd


class RuntimeOptions(TypedDict, total=False):
    """What `Runtime` takes beside the tree; it says what each of them means."""

    store: str | os.PathLike[str] | None
    name: str
    max_engines: int | None
    min_free_memory: int
    stagger: float
    durability: Durability
    retention: Retention | None
    values: Values | None
    limits: JournalLimits | None
    start_timeout: float | timedelta
    drain_timeout: float | timedelta
    stop_timeout: float | timedelta
    control: bool
    on_end: Callable[[RuntimeEnd], object] | None
    env: Env | None
