"""Supervision: what runs is declared as data, watched, restarted within limits and stopped in order.

Here live child and supervisor specs, restart limits, backoff and circuit breakers, running trees, their snapshots and
verdicts. What a supervisor decides is pure (`decisions`); `execution` carries it out. Other rooms use the names below,
or the modules that lie flat in this folder.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.base.errors import InvalidOption as InvalidOption
    from mlld_sdk.supervision.backoff import Backoff as Backoff
    from mlld_sdk.supervision.breaker import Breaker as Breaker
    from mlld_sdk.supervision.breaker import BreakerPolicy as BreakerPolicy
    from mlld_sdk.supervision.breaker import Breakers as Breakers
    from mlld_sdk.supervision.breaker import BreakerView as BreakerView
    from mlld_sdk.supervision.breaker import circuit_breaker as circuit_breaker
    from mlld_sdk.supervision.decisions.requests import ChildCounts as ChildCounts
    from mlld_sdk.supervision.decisions.requests import ChildRow as ChildRow
    from mlld_sdk.supervision.errors import BreakerOpen as BreakerOpen
    from mlld_sdk.supervision.errors import ChildAlreadyPresent as ChildAlreadyPresent
    from mlld_sdk.supervision.errors import ChildAlreadyStarted as ChildAlreadyStarted
    from mlld_sdk.supervision.errors import ChildError as ChildError
    from mlld_sdk.supervision.errors import ChildNotFound as ChildNotFound
    from mlld_sdk.supervision.errors import ChildRestarting as ChildRestarting
    from mlld_sdk.supervision.errors import ChildRunning as ChildRunning
    from mlld_sdk.supervision.errors import ChildStartFailed as ChildStartFailed
    from mlld_sdk.supervision.errors import ChildUnavailable as ChildUnavailable
    from mlld_sdk.supervision.errors import DuplicateChild as DuplicateChild
    from mlld_sdk.supervision.errors import NotSupported as NotSupported
    from mlld_sdk.supervision.errors import SupervisorBusy as SupervisorBusy
    from mlld_sdk.supervision.errors import SupervisorStopping as SupervisorStopping
    from mlld_sdk.supervision.errors import TooManyChildren as TooManyChildren
    from mlld_sdk.supervision.intensity import RestartLimit as RestartLimit
    from mlld_sdk.supervision.partition import Partitions as Partitions
    from mlld_sdk.supervision.partition import partitioned as partitioned
    from mlld_sdk.supervision.reasons import ChildFailedToStart as ChildFailedToStart
    from mlld_sdk.supervision.reasons import EscalateFailure as EscalateFailure
    from mlld_sdk.supervision.reasons import Escalation as Escalation
    from mlld_sdk.supervision.reasons import GaveUp as GaveUp
    from mlld_sdk.supervision.reasons import Misconfigured as Misconfigured
    from mlld_sdk.supervision.reasons import StopAgent as StopAgent
    from mlld_sdk.supervision.reasons import StopForGood as StopForGood
    from mlld_sdk.supervision.reasons import Wedged as Wedged
    from mlld_sdk.supervision.snapshot import NodeView as NodeView
    from mlld_sdk.supervision.snapshot import render as render
    from mlld_sdk.supervision.spec import Budget as Budget
    from mlld_sdk.supervision.spec import ChildSpec as ChildSpec
    from mlld_sdk.supervision.spec import DynamicSpec as DynamicSpec
    from mlld_sdk.supervision.spec import RestartOptions as RestartOptions
    from mlld_sdk.supervision.spec import SupervisorOptions as SupervisorOptions
    from mlld_sdk.supervision.spec import SupervisorSpec as SupervisorSpec
    from mlld_sdk.supervision.spec import Wedge as Wedge
    from mlld_sdk.supervision.spec import budget as budget
    from mlld_sdk.supervision.spec import check_children as check_children
    from mlld_sdk.supervision.spec import child as child
    from mlld_sdk.supervision.spec import dynamic as dynamic
    from mlld_sdk.supervision.spec import one_for_all as one_for_all
    from mlld_sdk.supervision.spec import one_for_one as one_for_one
    from mlld_sdk.supervision.spec import rest_for_one as rest_for_one
    from mlld_sdk.supervision.spec import wedge as wedge
    from mlld_sdk.supervision.supervisor import Supervisor as Supervisor
    from mlld_sdk.supervision.supervisor_ref import SupervisorRef as SupervisorRef
    from mlld_sdk.supervision.tree import Place as Place
    from mlld_sdk.supervision.tree import ShutdownReport as ShutdownReport
    from mlld_sdk.supervision.tree import Tree as Tree
    from mlld_sdk.supervision.verdict import Concern as Concern
    from mlld_sdk.supervision.verdict import Verdict as Verdict
else:
    __all__, __getattr__, __dir__ = exports(__name__)
