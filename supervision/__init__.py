"""Supervision: child specs, strategies, restart intensity, backoff, breakers; the tree as data."""

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.backoff import Backoff
from mlld_sdk.supervision.breaker import Breaker, BreakerPolicy, Breakers, BreakerView, circuit_breaker
from mlld_sdk.supervision.decisions.requests import ChildCounts, ChildRow
from mlld_sdk.supervision.errors import (
    BreakerOpen,
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildError,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    ChildUnavailable,
    DuplicateChild,
    NotSupported,
    SupervisorBusy,
    SupervisorStopping,
    TooManyChildren,
)
from mlld_sdk.supervision.intensity import RestartLimit
from mlld_sdk.supervision.partition import Partitions, partitioned
from mlld_sdk.supervision.reasons import (
    ChildFailedToStart,
    EscalateFailure,
    Escalation,
    GaveUp,
    Misconfigured,
    StopAgent,
    StopForGood,
    Wedged,
)
from mlld_sdk.supervision.snapshot import NodeView, render
from mlld_sdk.supervision.spec import (
    Budget,
    ChildSpec,
    DynamicSpec,
    SupervisorSpec,
    Wedge,
    budget,
    check_children,
    child,
    dynamic,
    one_for_all,
    one_for_one,
    rest_for_one,
    wedge,
)
from mlld_sdk.supervision.supervisor import Supervisor
from mlld_sdk.supervision.supervisor_ref import SupervisorRef
from mlld_sdk.supervision.tree import Place, ShutdownReport, Tree
from mlld_sdk.supervision.verdict import Concern, Verdict

__all__ = [
    "Backoff",
    "Breaker",
    "BreakerOpen",
    "BreakerPolicy",
    "BreakerView",
    "Breakers",
    "Budget",
    "ChildAlreadyPresent",
    "ChildAlreadyStarted",
    "ChildCounts",
    "ChildError",
    "ChildFailedToStart",
    "ChildNotFound",
    "ChildRestarting",
    "ChildRow",
    "ChildRunning",
    "ChildSpec",
    "ChildStartFailed",
    "ChildUnavailable",
    "Concern",
    "DuplicateChild",
    "DynamicSpec",
    "EscalateFailure",
    "Escalation",
    "GaveUp",
    "InvalidOption",
    "Misconfigured",
    "NodeView",
    "NotSupported",
    "Partitions",
    "Place",
    "RestartLimit",
    "ShutdownReport",
    "StopAgent",
    "StopForGood",
    "Supervisor",
    "SupervisorBusy",
    "SupervisorRef",
    "SupervisorSpec",
    "SupervisorStopping",
    "TooManyChildren",
    "Tree",
    "Verdict",
    "Wedge",
    "Wedged",
    "budget",
    "check_children",
    "child",
    "circuit_breaker",
    "dynamic",
    "one_for_all",
    "one_for_one",
    "partitioned",
    "render",
    "rest_for_one",
    "wedge",
]
