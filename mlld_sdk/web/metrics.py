"""The metrics of all processes of one runtime in one answer, whichever of them is asked.

Workers of a server share a port, and a scrape meets one of them. So the one that is met asks the others over their
control sockets, and every sample says in a label `process` which process it is from. Nothing is added up here: a
counter of a process only grows, and ends with the process; `docs/operations.md` says how to add up each gauge.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.folders import FolderNotPrivate
from mlld_sdk.control.client import Remote, running
from mlld_sdk.control.protocol import AskMetrics, AskWho, RuntimeProcess
from mlld_sdk.runtime.runtime import Runtime
from mlld_sdk.telemetry.prometheus import MetricFamily, measure, require_client
from mlld_sdk.web.framework import CapacityLimiter, create_task_group, run_sync

PATIENCE: Final = 2.0
"""Seconds in which another process has to begin each answer; one that does not counts as down in this scrape."""

Told = Mapping[int, list[MetricFamily] | None]
"""What each process has told, by its id; `None` when it did not answer."""


async def metrics_text(runtime: Runtime, threads: CapacityLimiter) -> bytes:
    """Write down the metrics of every process that runs a runtime of this name on this store.

    Args:
        runtime: The runtime in this process.
        threads: How many threads may ask at once.

    Raises:
        ExtraMissing: prometheus-client is not installed.
    """
    client = require_client()
    mine = os.getpid()
    told: dict[int, list[MetricFamily] | None] = {}

    async def ask(process: RuntimeProcess) -> None:
        found = await run_sync(_ask, process, store, limiter=threads)
        if not isinstance(found, str):
            told[process.pid] = found

    store = await run_sync(_store_of, runtime, limiter=threads)
    listening = await run_sync(_listening, runtime.name, limiter=threads)
    async with create_task_group() as asking:
        if any(one.pid == mine for one in listening):  # it can be asked itself, so those beside it are its like
            for process in listening:
                if process.pid != mine:
                    asking.start_soon(ask, process)
        told[mine] = await run_sync(measure(runtime).families, limiter=threads)
    written: bytes = client.generate_latest(_Written(told))
    return written


def _listening(name: str) -> list[RuntimeProcess]:
    try:
        return running(name)
    except FolderNotPrivate:  # another user has the folder of the sockets, so none of ours is there
        return []


def _store_of(runtime: Runtime) -> str | None:
    path = runtime.journal.store_status().path
    return path and os.path.realpath(path)


def _ask(process: RuntimeProcess, store: str | None) -> list[MetricFamily] | str | None:
    """Return what a process has told, `None` if it tells nothing, or a word if it is none of ours."""
    try:
        with Remote(process.name, pid=process.pid, patience=PATIENCE) as remote:
            if remote.ask(AskWho())["store"] != store:
                return "another store"
            return msgspec.convert(remote.ask(AskMetrics())["families"], list[MetricFamily])
    except (MlldError, msgspec.MsgspecError):  # the latter from a process of another version
        return None


class _Written:
    """What the processes have told, in the form prometheus-client reads collectors in."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def collect(self) -> Iterator[Any]:
        from prometheus_client import Metric

        up = Metric(
            "mlld_process_up", "1 for a process whose metrics are here, 0 for one that did not give any", "gauge"
        )
        families = {up.name: up}
        for pid, told in sorted(self._told.items()):
            process = {"process": str(pid)}
            up.add_sample(up.name, process, float(told is not None))
            for one in told or ():
                family = families.setdefault(one.name, Metric(one.name, one.text, one.kind))
                for name, labels, value in one.samples:
                    family.add_sample(name, {**labels, **process}, value)
        yield from families.values()
