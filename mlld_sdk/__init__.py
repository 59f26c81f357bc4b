"""Supervised mlld agents: actors that own their engine processes, supervisors that restart them, work that resumes.

Everything public is here; the modules behind it are imported when one of their names is first used, so that a program
pays only for what it needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlld_sdk.actors import Actor, ActorSystem
    from mlld_sdk.agent import Agent
    from mlld_sdk.agent_handle import AgentHandle, AgentUnavailable
    from mlld_sdk.aio import AsyncClient, AsyncExecuteHandle, AsyncProcessHandle
    from mlld_sdk.answers import TruncatedResult, TruncationWarning
    from mlld_sdk.async_job import AsyncJob
    from mlld_sdk.bay import BayClosed, NoEngineFree, Recycle
    from mlld_sdk.checkpointing import NoLiveCheckpoint
    from mlld_sdk.checkpoints import Checkpoints
    from mlld_sdk.client import Client
    from mlld_sdk.engine_check import check_engines
    from mlld_sdk.engine_owner import OwnerGone
    from mlld_sdk.engines import EngineCoolingDown
    from mlld_sdk.env import Env
    from mlld_sdk.errors import ConfigurationError, InfrastructureError, MlldError, TaskError
    from mlld_sdk.functions import (
        analyze,
        close,
        default_client,
        execute,
        execute_async,
        fs_status,
        process,
        process_async,
        process_result,
        set_default_client,
        sign,
        sign_content,
        verify,
    )
    from mlld_sdk.handles import ExecuteHandle, ProcessHandle
    from mlld_sdk.job import Job, JobCancelled, StepFailed, StepsOverlap
    from mlld_sdk.journal import Journal, Retention
    from mlld_sdk.labels import labeled, trusted, untrusted
    from mlld_sdk.pool import Checkout, Pool, PoolHandle
    from mlld_sdk.requests import InvalidRequest
    from mlld_sdk.retry import Retry
    from mlld_sdk.runs import RunCancelled, RunFailed, RunHandle, WaitsForItself
    from mlld_sdk.runtime import Runtime
    from mlld_sdk.supervision import (
        Backoff,
        BreakerOpen,
        ChildNotFound,
        ChildSpec,
        ChildUnavailable,
        EscalateFailure,
        RestartLimit,
        StopAgent,
        SupervisorSpec,
        budget,
        child,
        circuit_breaker,
        dynamic,
        one_for_all,
        one_for_one,
        partitioned,
        rest_for_one,
        wedge,
    )
    from mlld_sdk.transport.errors import (
        CallCancelled,
        CallTimeout,
        CommandNotFound,
        EngineClosed,
        EngineDied,
        EngineOverloaded,
        ScriptError,
    )
    from mlld_sdk.types import (
        AnalysisError,
        AnalyzeResult,
        ContentSignature,
        Effect,
        Executable,
        ExecuteResult,
        FilesystemStatus,
        FileVerifyResult,
        Guard,
        GuardDenial,
        HandleEvent,
        Import,
        LabeledValue,
        Metrics,
        Needs,
        SessionFinalState,
        SessionWrite,
        StateWrite,
        Streaming,
        TraceEvent,
        Variable,
    )

__all__ = [
    "Actor",
    "ActorSystem",
    "Agent",
    "AgentHandle",
    "AgentUnavailable",
    "AnalysisError",
    "AnalyzeResult",
    "AsyncClient",
    "AsyncExecuteHandle",
    "AsyncJob",
    "AsyncProcessHandle",
    "Backoff",
    "BayClosed",
    "BreakerOpen",
    "CallCancelled",
    "CallTimeout",
    "Checkout",
    "Checkpoints",
    "ChildNotFound",
    "ChildSpec",
    "ChildUnavailable",
    "Client",
    "CommandNotFound",
    "ConfigurationError",
    "ContentSignature",
    "Effect",
    "EngineClosed",
    "EngineCoolingDown",
    "EngineDied",
    "EngineOverloaded",
    "Env",
    "EscalateFailure",
    "Executable",
    "ExecuteHandle",
    "ExecuteResult",
    "FileVerifyResult",
    "FilesystemStatus",
    "Guard",
    "GuardDenial",
    "HandleEvent",
    "Import",
    "InfrastructureError",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "Journal",
    "LabeledValue",
    "Metrics",
    "MlldError",
    "Needs",
    "NoEngineFree",
    "NoLiveCheckpoint",
    "OwnerGone",
    "Pool",
    "PoolHandle",
    "ProcessHandle",
    "Recycle",
    "RestartLimit",
    "Retention",
    "Retry",
    "RunCancelled",
    "RunFailed",
    "RunHandle",
    "Runtime",
    "ScriptError",
    "SessionFinalState",
    "SessionWrite",
    "StateWrite",
    "StepFailed",
    "StepsOverlap",
    "StopAgent",
    "Streaming",
    "SupervisorSpec",
    "TaskError",
    "TraceEvent",
    "TruncatedResult",
    "TruncationWarning",
    "Variable",
    "WaitsForItself",
    "analyze",
    "budget",
    "check_engines",
    "child",
    "circuit_breaker",
    "close",
    "default_client",
    "dynamic",
    "execute",
    "execute_async",
    "fs_status",
    "labeled",
    "one_for_all",
    "one_for_one",
    "partitioned",
    "process",
    "process_async",
    "process_result",
    "rest_for_one",
    "set_default_client",
    "sign",
    "sign_content",
    "trusted",
    "untrusted",
    "verify",
    "wedge",
]

_HOMES = {
    "actors": (
        "Actor",
        "ActorSystem",
    ),
    "agent": ("Agent",),
    "agent_handle": (
        "AgentHandle",
        "AgentUnavailable",
    ),
    "aio": (
        "AsyncClient",
        "AsyncExecuteHandle",
        "AsyncProcessHandle",
    ),
    "answers": (
        "TruncatedResult",
        "TruncationWarning",
    ),
    "async_job": ("AsyncJob",),
    "bay": (
        "BayClosed",
        "NoEngineFree",
        "Recycle",
    ),
    "checkpointing": ("NoLiveCheckpoint",),
    "checkpoints": ("Checkpoints",),
    "client": ("Client",),
    "engine_check": ("check_engines",),
    "engine_owner": ("OwnerGone",),
    "engines": ("EngineCoolingDown",),
    "env": ("Env",),
    "errors": (
        "ConfigurationError",
        "InfrastructureError",
        "MlldError",
        "TaskError",
    ),
    "functions": (
        "analyze",
        "close",
        "default_client",
        "execute",
        "execute_async",
        "fs_status",
        "process",
        "process_async",
        "process_result",
        "set_default_client",
        "sign",
        "sign_content",
        "verify",
    ),
    "handles": (
        "ExecuteHandle",
        "ProcessHandle",
    ),
    "job": (
        "Job",
        "JobCancelled",
        "StepFailed",
        "StepsOverlap",
    ),
    "journal": (
        "Journal",
        "Retention",
    ),
    "labels": (
        "labeled",
        "trusted",
        "untrusted",
    ),
    "pool": (
        "Checkout",
        "Pool",
        "PoolHandle",
    ),
    "requests": ("InvalidRequest",),
    "retry": ("Retry",),
    "runs": (
        "RunCancelled",
        "RunFailed",
        "RunHandle",
        "WaitsForItself",
    ),
    "runtime": ("Runtime",),
    "supervision": (
        "Backoff",
        "BreakerOpen",
        "ChildNotFound",
        "ChildSpec",
        "ChildUnavailable",
        "EscalateFailure",
        "RestartLimit",
        "StopAgent",
        "SupervisorSpec",
        "budget",
        "child",
        "circuit_breaker",
        "dynamic",
        "one_for_all",
        "one_for_one",
        "partitioned",
        "rest_for_one",
        "wedge",
    ),
    "transport.errors": (
        "CallCancelled",
        "CallTimeout",
        "CommandNotFound",
        "EngineClosed",
        "EngineDied",
        "EngineOverloaded",
        "ScriptError",
    ),
    "types": (
        "AnalysisError",
        "AnalyzeResult",
        "ContentSignature",
        "Effect",
        "Executable",
        "ExecuteResult",
        "FileVerifyResult",
        "FilesystemStatus",
        "Guard",
        "GuardDenial",
        "HandleEvent",
        "Import",
        "LabeledValue",
        "Metrics",
        "Needs",
        "SessionFinalState",
        "SessionWrite",
        "StateWrite",
        "Streaming",
        "TraceEvent",
        "Variable",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name when it is first used."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
