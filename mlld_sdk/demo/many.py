"""Ten thousand declared agents, four live engines: an agent that has nothing to do costs a few kilobytes.

Agents that work queue for engines, first come first served; the engine that has been idle the longest is put to sleep
for the next that waits.
"""

import gc
import os
import threading
from pathlib import Path
from typing import Any

from mlld_sdk import Job, Runtime, child, one_for_one
from mlld_sdk.agents.agent import Agent
from mlld_sdk.base.durations import now
from mlld_sdk.demo.stage import Stage
from mlld_sdk.transport import events as t

AGENTS = 10_000
ENGINES = 4
RUNS = 60
THREADS = 100
"""More threads than this would mean a thread for each of something."""


class Greeter(Agent):
    """Says hello."""

    def run(self, job: Job, payload: Any) -> str:
        """Run one line of mlld."""
        return job.process("show `hello @payload`", payload=payload).strip()


def play(stage: Stage) -> str:
    """Declare, start, give work to some of them, and count engines and threads meanwhile."""
    gc.collect()
    before, began = _memory(), now()
    names = [f"agent-{n}" for n in range(AGENTS)]
    tree = one_for_one(*(child(Greeter, name=name, **stage.options) for name in names))
    runtime = Runtime(tree, max_engines=ENGINES)
    alive: set[int] = set()
    most = 0

    def count(event: object) -> None:
        nonlocal most
        match event:
            case t.EngineStarted():
                alive.add(event.pid)
                most = max(most, len(alive))
            case t.EngineExited():
                alive.discard(event.pid)

    runtime.bus.attach_inline("count", count)
    with runtime:
        took, each = now() - began, (_memory() - before) / AGENTS
        stage.tell(
            f"start    {AGENTS:,} agents in {took:.1f} s, {each / 1024:.1f} kB each, {threading.active_count()} threads"
        )
        runs = {name: runtime.agent(name).run(name) for name in names[:: AGENTS // RUNS][:RUNS]}
        for name, run in runs.items():
            stage.prove(f"{name} answers", run.result(stage.patience) == f"hello {name}")
        threads = threading.active_count()
        stage.tell(f"work     {RUNS} of them have worked, with {most} engines at once and {threads} threads")
    stage.prove(f"never more than {ENGINES} engines: {most}", 1 <= most <= ENGINES)
    stage.prove(f"no thread for each agent or run: {threads}", threads < THREADS)
    stage.prove("no engine is left", not alive)
    return (
        f"{AGENTS:,} agents started in {took:.1f} s at {each / 1024:.1f} kB each; "
        f"{RUNS} of them worked on at most {most} engines."
    )


def _memory() -> int:
    """Bytes this process has in memory; 0 where that cannot be known."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
