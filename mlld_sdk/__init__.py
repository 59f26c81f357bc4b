"""Supervised mlld agents: actors that own their engine processes, supervisors that restart them, work that resumes.

Everything public is here; the modules behind it are imported when one of their names is first used, so that a program
pays only for what it needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlld_sdk.agent import Agent
    from mlld_sdk.agent_handle import AgentHandle, AgentUnavailable
    from mlld_sdk.aio import AsyncClient
    from mlld_sdk.bay import NoEngineFree, Recycle
    from mlld_sdk.client import Client
    from mlld_sdk.engine_check import check_engines
    from mlld_sdk.env import Env
    from mlld_sdk.errors import ConfigurationError, InfrastructureError, MlldError, TaskError
    from mlld_sdk.functions import (
        analyze,
        close,
        execute,
        execute_async,
        fs_status,
        process,
        process_async,
        process_result,
        sign,
        sign_content,
        verify,
    )
    from mlld_sdk.handles import ExecuteHandle, ProcessHandle
    from mlld_sdk.job import AsyncJob, Job, JobCancelled, StepFailed
    from mlld_sdk.journal import Journal, Retention
    from mlld_sdk.labels import labeled, trusted, untrusted
    from mlld_sdk.pool import Checkout, Pool, PoolHandle
    from mlld_sdk.runs import RunCancelled, RunFailed, RunHandle
    from mlld_sdk.runtime import Runtime
    from mlld_sdk.supervision import (
        Backoff,
        ChildSpec,
        RestartLimit,
        SupervisorSpec,
        budget,
        child,
        circuit_breaker,
        dynamic,
        one_for_all,
        one_for_one,
        rest_for_one,
        wedge,
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
        StateWrite,
    )

__all__ = [
    "Agent",
    "AgentHandle",
    "AgentUnavailable",
    "AnalysisError",
    "AnalyzeResult",
    "AsyncClient",
    "AsyncJob",
    "Backoff",
    "Checkout",
    "ChildSpec",
    "Client",
    "ConfigurationError",
    "ContentSignature",
    "Effect",
    "Env",
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
    "Job",
    "JobCancelled",
    "Journal",
    "LabeledValue",
    "Metrics",
    "MlldError",
    "Needs",
    "NoEngineFree",
    "Pool",
    "PoolHandle",
    "ProcessHandle",
    "Recycle",
    "RestartLimit",
    "Retention",
    "RunCancelled",
    "RunFailed",
    "RunHandle",
    "Runtime",
    "StateWrite",
    "StepFailed",
    "SupervisorSpec",
    "TaskError",
    "analyze",
    "budget",
    "check_engines",
    "child",
    "circuit_breaker",
    "close",
    "dynamic",
    "execute",
    "execute_async",
    "fs_status",
    "labeled",
    "one_for_all",
    "one_for_one",
    "process",
    "process_async",
    "process_result",
    "rest_for_one",
    "sign",
    "sign_content",
    "trusted",
    "untrusted",
    "verify",
    "wedge",
]

_HOMES = {
    "agent": ["Agent"],
    "agent_handle": ["AgentHandle", "AgentUnavailable"],
    "aio": ["AsyncClient"],
    "bay": ["NoEngineFree", "Recycle"],
    "client": ["Client"],
    "engine_check": ["check_engines"],
    "env": ["Env"],
    "errors": ["ConfigurationError", "InfrastructureError", "MlldError", "TaskError"],
    "functions": [
        "analyze",
        "close",
        "execute",
        "execute_async",
        "fs_status",
        "process",
        "process_async",
        "process_result",
        "sign",
        "sign_content",
        "verify",
    ],
    "handles": ["ExecuteHandle", "ProcessHandle"],
    "job": ["AsyncJob", "Job", "JobCancelled", "StepFailed"],
    "journal": ["Journal", "Retention"],
    "labels": ["labeled", "trusted", "untrusted"],
    "pool": ["Checkout", "Pool", "PoolHandle"],
    "runs": ["RunCancelled", "RunFailed", "RunHandle"],
    "runtime": ["Runtime"],
    "supervision": [
        "Backoff",
        "ChildSpec",
        "RestartLimit",
        "SupervisorSpec",
        "budget",
        "child",
        "circuit_breaker",
        "dynamic",
        "one_for_all",
        "one_for_one",
        "rest_for_one",
        "wedge",
    ],
    "types": [
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
        "StateWrite",
    ],
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
