"""Durable runs: the job with its steps, the handle of a run, retries and sleeps.

`job` and `async_job` are what the code of a run holds, `handles` what those hold who wait for it, `worker` works on one
run from claim to outcome, and `state` is what jobs share. Agents come in by the modules, programs by the names below.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.runs.async_job import AsyncJob as AsyncJob
    from mlld_sdk.runs.breakers import StepWait as StepWait
    from mlld_sdk.runs.handles import RunHandle as RunHandle
    from mlld_sdk.runs.job import Job as Job
    from mlld_sdk.runs.retry import Retry as Retry
else:
    __all__, __getattr__, __dir__ = exports(__name__)
