"""Durable runs: the job with its steps, the handle of a run, retries and sleeps."""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.runs.async_job import AsyncJob as AsyncJob
    from mlld_sdk.runs.handles import RunHandle as RunHandle
    from mlld_sdk.runs.job import Job as Job
    from mlld_sdk.runs.retry import Retry as Retry
else:
    __all__, __getattr__, __dir__ = exports(__name__)
