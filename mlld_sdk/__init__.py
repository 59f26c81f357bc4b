"""Supervised mlld agents: actors that own their engine processes, supervisors that restart them, work that resumes.

These are the names that most programs need. The rest has its place by role: `mlld_sdk.errors`, `mlld_sdk.types`,
`mlld_sdk.client`, `mlld_sdk.agents`, `mlld_sdk.runs`, `mlld_sdk.supervision`, `mlld_sdk.actors`, `mlld_sdk.journal`,
`mlld_sdk.engines`, `mlld_sdk.telemetry`, `mlld_sdk.web` and `mlld_sdk.testing`. A module behind a name is imported when
the name is first used, so that a program pays only for what it needs. Names of mlld's own Python SDK can be imported
here, too.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.actors.core.actor import Actor as Actor
    from mlld_sdk.agents.agent import Agent as Agent
    from mlld_sdk.agents.handles import AgentHandle as AgentHandle
    from mlld_sdk.agents.pool import Pool as Pool
    from mlld_sdk.agents.pool import PoolHandle as PoolHandle
    from mlld_sdk.base.errors import ConfigurationError as ConfigurationError
    from mlld_sdk.base.errors import InfrastructureError as InfrastructureError
    from mlld_sdk.base.errors import MlldError as MlldError
    from mlld_sdk.base.errors import TaskError as TaskError
    from mlld_sdk.client.aio import AsyncClient as AsyncClient
    from mlld_sdk.client.client import Client as Client
    from mlld_sdk.engines.pool import Recycle as Recycle
    from mlld_sdk.runs.async_job import AsyncJob as AsyncJob
    from mlld_sdk.runs.handles import RunHandle as RunHandle
    from mlld_sdk.runs.job import Job as Job
    from mlld_sdk.runs.retry import Retry as Retry
    from mlld_sdk.runtime.runtime import Runtime as Runtime
    from mlld_sdk.scripts.types import ExecuteResult as ExecuteResult
    from mlld_sdk.supervision.backoff import Backoff as Backoff
    from mlld_sdk.supervision.breaker import circuit_breaker as circuit_breaker
    from mlld_sdk.supervision.spec import budget as budget
    from mlld_sdk.supervision.spec import child as child
    from mlld_sdk.supervision.spec import dynamic as dynamic
    from mlld_sdk.supervision.spec import one_for_all as one_for_all
    from mlld_sdk.supervision.spec import one_for_one as one_for_one
    from mlld_sdk.supervision.spec import rest_for_one as rest_for_one
    from mlld_sdk.supervision.spec import wedge as wedge

if TYPE_CHECKING:  # unlisted: what `mlld-sdk` exports beside the names above (docs/migration.md)
    from mlld_sdk.client.functions import analyze as analyze
    from mlld_sdk.client.functions import execute as execute
    from mlld_sdk.client.functions import execute_async as execute_async
    from mlld_sdk.client.functions import fs_status as fs_status
    from mlld_sdk.client.functions import process as process
    from mlld_sdk.client.functions import process_async as process_async
    from mlld_sdk.client.functions import sign as sign
    from mlld_sdk.client.functions import sign_content as sign_content
    from mlld_sdk.client.functions import verify as verify
    from mlld_sdk.client.handles import ExecuteHandle as ExecuteHandle
    from mlld_sdk.client.handles import ProcessHandle as ProcessHandle
    from mlld_sdk.scripts.labels import labeled as labeled
    from mlld_sdk.scripts.labels import trusted as trusted
    from mlld_sdk.scripts.labels import untrusted as untrusted
    from mlld_sdk.scripts.types import AnalysisError as AnalysisError
    from mlld_sdk.scripts.types import AnalyzeResult as AnalyzeResult
    from mlld_sdk.scripts.types import ContentSignature as ContentSignature
    from mlld_sdk.scripts.types import Effect as Effect
    from mlld_sdk.scripts.types import Executable as Executable
    from mlld_sdk.scripts.types import FilesystemStatus as FilesystemStatus
    from mlld_sdk.scripts.types import FileVerifyResult as FileVerifyResult
    from mlld_sdk.scripts.types import Guard as Guard
    from mlld_sdk.scripts.types import GuardDenial as GuardDenial
    from mlld_sdk.scripts.types import HandleEvent as HandleEvent
    from mlld_sdk.scripts.types import Import as Import
    from mlld_sdk.scripts.types import LabeledValue as LabeledValue
    from mlld_sdk.scripts.types import Metrics as Metrics
    from mlld_sdk.scripts.types import Needs as Needs
    from mlld_sdk.scripts.types import SessionFinalState as SessionFinalState
    from mlld_sdk.scripts.types import SessionWrite as SessionWrite
    from mlld_sdk.scripts.types import StateWrite as StateWrite
    from mlld_sdk.scripts.types import TraceEvent as TraceEvent
else:
    __all__, __getattr__, __dir__ = exports(__name__)
