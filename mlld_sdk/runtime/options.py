"""The options of a runtime, for those who hand them on."""

import os
from typing import TypedDict

from mlld_sdk.base.env import Env
from mlld_sdk.journal.options import Durability, JournalLimits, Retention
from mlld_sdk.journal.values import Values


class RuntimeOptions(TypedDict, total=False):
    """What `Runtime` takes beside the tree; it says what each is."""

    store: str | os.PathLike[str] | None
    name: str
    max_engines: int | None
    min_free_memory: int
    stagger: float
    durability: Durability
    retention: Retention | None
    values: Values | None
    limits: JournalLimits | None
    start_timeout: float
    drain_timeout: float
    stop_timeout: float
    control: bool
    env: Env | None
