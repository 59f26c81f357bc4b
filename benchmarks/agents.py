"""Requests through supervised agents and pools against bare clients, interleaved in one run on the same trivial engine.

    python benchmarks/agents.py

A shared client and upstream's SDK put all requests on one engine, where one failing script takes the others with it.
Agents, pools and exclusive clients give every request an engine to itself: that is what they are for, and what it costs
is measured here. Callers are threads. Nothing asserts: machines differ, ratios of one run tell.
"""

import importlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from _trivial import trivial_engine

from mlld_sdk import Agent, Client, Pool, Runtime, child, one_for_one

ENGINES = 4
SCRIPT = 'show "x"'

Ask = Callable[[], object]


def variants(program: str, stack: ExitStack) -> dict[str, Ask]:
    """Start everybody who is measured."""
    options: dict[str, Any] = {"engine": "live", "command": program}
    tree = one_for_one(
        child(Agent, name="agent", engines=ENGINES, **options), child(Pool, name="pool", size=ENGINES, **options)
    )
    runtime = stack.enter_context(Runtime(tree))
    agent, pool = runtime.agent("agent"), runtime.pool("pool")
    shared = stack.enter_context(Client(**options))
    exclusive = stack.enter_context(Client(isolation="exclusive", max_engines=ENGINES, **options))
    found: dict[str, Ask] = {
        "client, shared engine": lambda: shared.process(SCRIPT),
        "client, exclusive engines": lambda: exclusive.process(SCRIPT),
        "supervised agent": lambda: agent.process(SCRIPT),
        "supervised pool": lambda: pool.process(SCRIPT),
    }
    try:
        theirs = importlib.import_module("mlld").Client(command=program)
    except ImportError:
        return found
    stack.callback(theirs.close)
    return {**found, "upstream SDK, shared engine": lambda: theirs.process(SCRIPT)}


def load(ask: Ask, callers: int, total: int) -> float:
    """Seconds each for so many requests from so many callers."""
    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(lambda _: ask(), range(callers)))  # everybody is there
        start = time.perf_counter()
        list(threads.map(lambda _: [ask() for _ in range(total // callers)], range(callers)))
        return (time.perf_counter() - start) / total


def report(rounds: int = 5) -> str:
    """Measure, and write it up as Markdown."""
    lines = ["| callers | who | us a request | against a shared client |", "|---:|---|---:|---:|"]
    with trivial_engine() as argv, ExitStack() as stack:
        asks = variants(argv[0], stack)
        for callers, total in ((1, 300), (16, 640)):
            times: dict[str, list[float]] = {who: [] for who in asks}
            for _ in range(rounds):
                for who, ask in asks.items():
                    times[who].append(load(ask, callers, total))
            medians = {who: statistics.median(values) for who, values in times.items()}
            floor = medians["client, shared engine"]
            lines += [f"| {callers} | {who} | {took * 1e6:.0f} | {took / floor:.2f} |" for who, took in medians.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
