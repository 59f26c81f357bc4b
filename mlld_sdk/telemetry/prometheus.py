"""Metrics for Prometheus: a fixed list of names with few labels, computed when they are asked for. Extra: `prometheus`.

| metric | labels | what |
|---|---|---|
| `mlld_agent_state` | `path`, `state` | 1 for the state each child is in |
| `mlld_agent_restarts_total` | `path`, `reason` | automatic restarts, by family of the failure |
| `mlld_supervisor_budget_ratio` | `path` | how much of a restart limit is used, 0 to 1 |
| `mlld_give_up_total` | `path` | how often a supervisor gave up |
| `mlld_mailbox_depth` | `path` | messages waiting for an actor |
| `mlld_breaker_state` | `path`, `breaker` | 0 closed, 1 half-open, 2 open: in front of a child or of its steps |
| `mlld_breaker_waiting` | `path`, `breaker` | steps that wait until they are let through |
| `mlld_inflight` | `path` | engines at work for an agent or pool |
| `mlld_runs` | `path`, `state` | runs of an agent that have not ended: `pending`, `running`, `parked` |
| `mlld_oldest_waiting_seconds` | `path` | how long the oldest run that waits for an agent has waited, or 0 |
| `mlld_request_seconds` | `path`, `method` | histogram of requests to engines, failed ones included |
| `mlld_child_rss_bytes` | `path` | memory of the engines of an agent or pool |
| `mlld_model_unanswered_total` | `path` | calls of `llm` functions without an answer, commands that failed in one |
| `mlld_checkpoint_age_seconds` | `path` | since a model was last asked, calls served from the cache aside |
| `mlld_checkpoint_bytes` | `path` | size of the cache on disk |
| `mlld_runtime_state` | `path`, `state` | 1 for what the whole tree is: `running`, `gave_up`, `ended` |

A child that is removed takes its series with it. After the end of the tree they stay: children are `stopped`, nothing
waits and nothing works. Collecting sends no message: it reads the published tree.
"""

import contextlib
import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary, ref

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ExtraMissing, MlldError
from mlld_sdk.base.events import Event
from mlld_sdk.base.spans import SpanFailed, SpanStopped
from mlld_sdk.engines.events import CheckpointMissedEvent, ModelUnansweredEvent
from mlld_sdk.supervision.events import ChildExited, ChildStarted, ChildStartFailedEvent, SupervisorGaveUp
from mlld_sdk.supervision.snapshot import NodeView, walk
from mlld_sdk.telemetry.bus import Bus
from mlld_sdk.telemetry.history import History
from mlld_sdk.telemetry.recent import Recent
from mlld_sdk.transport.processes import rss_of

Key = tuple[str, ...]
"""Values of labels, the path first."""

BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

PATHS: Final = 10_000
"""Paths whose counts are kept when no metrics are collected; beyond it the oldest are forgotten."""

BREAKERS: Final = {"closed": 0.0, "half_open": 1.0, "open": 2.0}

RUN_STATES: Final = ("pending", "running", "parked")

CACHE_FILES: Final = 10_000
"""Files of a cache that are measured; a larger one is reported as large as these."""


class MeasuredRuntime(Protocol):
    """What is asked of a runtime to measure it."""

    env: Env
    bus: Bus
    history: History

    @property
    def services(self) -> Any:
        """What its agents share: `engine_pools()` and `requests`, by path."""

    def snapshot(self) -> NodeView:
        """Take a picture of the tree."""


def export_metrics(runtime: MeasuredRuntime, registry: Any = None) -> "RuntimeMetrics":
    """Add a runtime's metrics to a Prometheus registry, the default one unless given.

    ```python no-run
    from prometheus_client import start_http_server

    export_metrics(runtime)
    start_http_server(9464, "127.0.0.1")
    ```

    Raises:
        ExtraMissing: prometheus-client is not installed.
    """
    client = require_client()
    metrics = measure(runtime)
    (registry or client.REGISTRY).register(metrics)
    return metrics


def require_client() -> Any:
    """Return the package that writes metrics down.

    Raises:
        ExtraMissing: It is not installed.
    """
    try:
        import prometheus_client
    except ImportError as error:
        raise ExtraMissing("the export of metrics", "prometheus-client", "prometheus") from error
    return prometheus_client


def measure(runtime: MeasuredRuntime) -> "RuntimeMetrics":
    """Begin to count what a runtime does, and return what tells of it; the same one when it is measured already."""
    return _measured.get(runtime) or RuntimeMetrics(runtime)


def metrics_of(runtime: object) -> "RuntimeMetrics | None":
    """Return what tells of a runtime, if it is measured."""
    return _measured.get(runtime)


class MetricFamily(msgspec.Struct, frozen=True):
    """A metric as plain data, which can be handed to another process.

    Attributes:
        name: Its name, without the endings of its samples.
        kind: `gauge`, `counter` or `histogram`.
        text: What it is.
        samples: Name, labels and value of each.
    """

    name: str
    kind: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


class RuntimeMetrics:
    """A collector for one runtime, which it does not keep; made by `export_metrics`."""

    def __init__(self, runtime: MeasuredRuntime) -> None:
        self._runtime = ref(runtime)
        self._counts = _Counts()
        runtime.bus.attach("prometheus", self._counts, events=_Counts.events)
        _measured[runtime] = self

    def describe(self) -> list[Any]:
        """Return nothing: names are fixed, and the runtime may not run yet."""
        return []

    def collect(self) -> Iterator[Any]:
        """Compute all metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        runtime = self._runtime()
        if runtime is None:
            return
        try:
            nodes = walk(runtime.snapshot())
        except MlldError:  # it does not run: there is nothing to say
            return
        counts = self._counts.of({node.path for node in nodes})
        for kind, name, text, rows, *labels in (
            *((GaugeMetricFamily, *gauge) for gauge in self._gauges(runtime, nodes, counts.kept)),
            (CounterMetricFamily, "mlld_agent_restarts", "Automatic restarts", counts.restarts, "reason"),
            (CounterMetricFamily, "mlld_give_up", "How often a supervisor gave up", counts.gave_up),
            (CounterMetricFamily, "mlld_model_unanswered", "Model calls without an answer", counts.unanswered),
        ):
            family = kind(name, text, labels=["path", *labels])
            for key, value in rows.items():
                family.add_metric(list(key), value)
            yield family
        seconds = HistogramMetricFamily("mlld_request_seconds", "Requests to engines", labels=["path", "method"])
        for key, histogram in counts.requests.items():
            seconds.add_metric(list(key), histogram.buckets(), histogram.total)
        yield seconds

    def families(self) -> list[MetricFamily]:
        """Compute all metrics, as plain data.

        Raises:
            ExtraMissing: prometheus-client is not installed.
        """
        require_client()
        return [
            MetricFamily(
                one.name, one.type, one.documentation, [(row.name, row.labels, row.value) for row in one.samples]
            )
            for one in self.collect()
        ]

    @staticmethod
    def _gauges(
        runtime: MeasuredRuntime, nodes: list[NodeView], kept: Mapping[Key, float]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield name, text, values by labels, and the names of the labels besides `path`."""
        services, now = runtime.services, runtime.env.wall()
        yield "mlld_runtime_state", "What the whole tree is", {(nodes[0].path, _state_of(nodes[0])): 1.0}, "state"
        yield "mlld_agent_state", "State of each child", {(n.path, n.state): 1.0 for n in nodes[1:]}, "state"
        yield "mlld_supervisor_budget_ratio", "Share of the restart limit that is used", _budgets(nodes)
        waiting = {(n.path,): float(n.info.queued if n.info else 0) for n in nodes[1:] if n.info or n.over}
        yield "mlld_mailbox_depth", "Messages waiting", waiting
        breakers = [(node, one) for node in nodes for one in (node.breaker, *node.step_breakers) if one is not None]
        states = {(node.path, one.name): BREAKERS[one.status] for node, one in breakers}
        yield "mlld_breaker_state", "0 closed, 1 half-open, 2 open", states, "breaker"
        held = {(n.path, one.name): float(n.info.step_breakers.get(one.name, 0)) for n, one in breakers if n.info}
        yield "mlld_breaker_waiting", "Steps that wait until they are let through", held, "breaker"
        busy = {(n.path,): 0.0 for n in nodes if n.over and n.path in services.requests}
        busy |= {(name,): float(pool.status().busy) for name, pool in services.engine_pools().items()}
        yield "mlld_inflight", "Engines at work", busy
        # What is not known is left out: an old number, or none, would look like a good one.
        runs = [(node.path, node.backlog) for node in nodes if node.backlog is not None and node.backlog.known]
        states = {(path, state): float(getattr(one, state)) for path, one in runs for state in RUN_STATES}
        yield "mlld_runs", "Runs that have not ended", states, "state"
        waits = {(path,): one.oldest for path, one in runs}
        yield "mlld_oldest_waiting_seconds", "For how long the oldest run that waits has waited", waits
        memory: Counter[Key] = Counter()
        for engine in runtime.history.engines():
            memory[engine.engine.rpartition("-")[0],] += rss_of(engine.pid)
        yield "mlld_child_rss_bytes", "Memory of engines", memory
        ages = {key: max(0.0, now - at) for key, at in kept.items()}
        yield "mlld_checkpoint_age_seconds", "Since a model was last asked", ages
        owners = [(node.path, services.requests.get(node.path)) for node in nodes]
        folders = [(path, requests.cache_folder) for path, requests in owners if requests is not None]
        sizes = {(path,): float(_size_of(folder)) for path, folder in folders if folder is not None}
        yield "mlld_checkpoint_bytes", "Size of the cache on disk", sizes

    def close(self) -> None:
        """Count no more; unregister it from the registry too."""
        runtime = self._runtime()
        if runtime is not None:
            runtime.bus.detach("prometheus")
            _measured.pop(runtime, None)


_measured: "WeakKeyDictionary[Any, RuntimeMetrics]" = WeakKeyDictionary()


class _Histogram:
    def __init__(self) -> None:
        self.total = 0.0
        self._counts = [0.0] * (len(BUCKETS) + 1)

    def add(self, seconds: float) -> None:
        self.total += seconds
        self._counts[bisect_left(BUCKETS, seconds)] += 1

    def buckets(self) -> list[tuple[str, float]]:
        return list(zip([*map(str, BUCKETS), "+Inf"], accumulate(self._counts), strict=True))


class _Counts:
    """What has to be counted from events, by path."""

    events = (
        ChildStarted,
        ChildExited,
        ChildStartFailedEvent,
        SupervisorGaveUp,
        SpanStopped,
        SpanFailed,
        CheckpointMissedEvent,
        ModelUnansweredEvent,
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.restarts: Recent[Key, int] = Recent(PATHS)
        self.gave_up: Recent[Key, int] = Recent(PATHS)
        self.requests: Recent[Key, _Histogram] = Recent(PATHS)
        self.unanswered: Recent[Key, int] = Recent(PATHS)
        self.kept: Recent[Key, float] = Recent(PATHS)
        self._why: Recent[Key, str] = Recent(PATHS)
        counts: list[Recent[Key, Any]] = [self.restarts, self.gave_up, self.requests, self.unanswered]
        self._all: list[Recent[Key, Any]] = [*counts, self.kept, self._why]

    def of(self, paths: set[str]) -> "_Counts":
        """Copy what is known of these paths and forget the others."""
        copy = _Counts()
        with self._lock:
            for mine, copied in zip(self._all, copy._all, strict=True):
                for key in [key for key in mine if key[0] not in paths]:
                    del mine[key]
                copied.update(mine)
        return copy

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case ChildExited() | ChildStartFailedEvent():
                    self._why[event.path,] = event.kind
                case ChildStarted(cause="restart"):
                    # A sibling that is restarted along with the one that failed has not failed itself.
                    key = (event.path, self._why.pop((event.path,), "group"))
                    self.restarts[key] = self.restarts.get(key, 0) + 1
                case SupervisorGaveUp():
                    self.gave_up[event.path,] = self.gave_up.get((event.path,), 0) + 1
                case SpanStopped() | SpanFailed() if "agent" in event.fields:
                    key = (event.fields["agent"], event.name)
                    histogram = self.requests[key] = self.requests.get(key) or _Histogram()
                    histogram.add(event.seconds)
                case ModelUnansweredEvent():
                    self.unanswered[event.agent,] = self.unanswered.get((event.agent,), 0) + 1
                case CheckpointMissedEvent():
                    self.kept[event.agent,] = event.at


def _state_of(root: NodeView) -> str:
    """Return what a whole tree is."""
    return "gave_up" if root.gave_up else "ended" if root.over else "running"


def _budgets(nodes: list[NodeView]) -> dict[Key, float]:
    return {
        (node.path,): node.budget.used / node.budget.limit if node.budget.limit else float(node.budget.used > 0)
        for node in nodes
        if node.budget is not None
    }


def _size_of(folder: Path) -> int:
    total = 0
    files = (os.path.join(base, name) for base, _, names in os.walk(folder) for name in names)
    for file in islice(files, CACHE_FILES):
        with contextlib.suppress(OSError):  # removed just now
            total += os.stat(file).st_size
    return total
