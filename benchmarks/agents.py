"""Requests through supervised agents and pools against bare clients, interleaved in one run on the same trivial engine.

    python benchmarks/agents.py

A shared client, an agent with `isolation="shared"` and upstream's SDK put all requests on one engine, where one failing
script may take the others with it. Other agents, pools and exclusive clients give every request an engine to itself:
that is what they are for, and what it costs is measured here. Requests come from so many threads, each waiting for its
answer, or are begun by one thread and then waited for. Nothing asserts: machines differ, ratios of one run tell.
"""

import importlib
import statistics
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from _trivial import trivial_engine

from mlld_sdk import Agent, Client, Pool, Runtime, child, one_for_one

ENGINES = 4
EVENTS = 10
SCRIPT = 'show "x"'
UPSTREAM = "upstream's SDK, shared engine"

Everybody = dict[str, Any]
"""Who is asked, by name; all of them have `process` and `process_async`."""


def everybody(program: str, stack: ExitStack) -> Everybody:
    """Start everybody who is measured."""
    options: dict[str, Any] = {"engine": "live", "command": program}
    tree = one_for_one(
        child(Agent, name="agent", engines=ENGINES, **options),
        child(Agent, name="shared", isolation="shared", **options),
        child(Pool, name="pool", size=ENGINES, **options),
    )
    runtime = stack.enter_context(Runtime(tree))
    found: Everybody = {
        "client, shared engine": stack.enter_context(Client(**options)),
        "agent, shared engine": runtime.agent("shared"),
        "client, exclusive engines": stack.enter_context(Client(isolation="exclusive", max_engines=ENGINES, **options)),
        "agent": runtime.agent("agent"),
        "pool": runtime.pool("pool"),
    }
    try:
        theirs = importlib.import_module("mlld").Client(command=program)
    except ImportError:
        return found
    stack.callback(theirs.close)
    return {**found, UPSTREAM: theirs}


def from_threads(who: Any, callers: int, total: int) -> float:
    """Seconds each for so many requests from so many callers."""
    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(lambda _: who.process(SCRIPT), range(callers)))  # everybody is there
        start = time.perf_counter()
        list(threads.map(lambda _: [who.process(SCRIPT) for _ in range(total // callers)], range(callers)))
        return (time.perf_counter() - start) / total


def in_flight(who: Any, at_once: int, total: int, payload: Any = None) -> float:
    """Seconds each for so many requests begun by one thread, which keeps so many under way."""
    open_: deque[Any] = deque()
    start = time.perf_counter()
    for _ in range(total):
        if len(open_) == at_once:
            open_.popleft().result()
        open_.append(who.process_async(SCRIPT, payload=payload))
    while open_:
        open_.popleft().result()
    return (time.perf_counter() - start) / total


def with_events(who: Any, at_once: int, total: int) -> float:
    """The same, and the engine sends events before each answer."""
    return in_flight(who, at_once, total, {"events": EVENTS})


def report(rounds: int = 7) -> str:
    """Measure, and write it up as Markdown."""
    lines = ["| requests | who | us each | against upstream's SDK |", "|---|---|---:|---:|"]
    loads: tuple[tuple[str, Callable[[Any, int, int], float], int, int], ...] = (
        ("one thread", from_threads, 1, 300),
        ("16 threads", from_threads, 16, 640),
        ("16 in flight", in_flight, 16, 3200),
        ("256 in flight", in_flight, 256, 5120),
        (f"16 in flight, {EVENTS} events each", with_events, 16, 640),
    )
    with trivial_engine() as argv, ExitStack() as stack:
        found = everybody(argv[0], stack)
        for name, load, many, total in loads:
            times: dict[str, list[float]] = {who: [] for who in found}
            for _ in range(rounds):
                for who, asked in found.items():
                    times[who].append(load(asked, many, total))
            medians = {who: statistics.median(values) for who, values in times.items()}
            for who, took in medians.items():
                speed = f"{medians[UPSTREAM] / took:.1f} times as fast" if UPSTREAM in medians else "-"
                lines.append(f"| {name} | {who} | {took * 1e6:.1f} | {speed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
