"""What it costs to tell everything: an event, a message, a request, with nobody, one and five listening.

Run it with `python benchmarks/telemetry.py`; it prints Markdown. Sides are measured in turns within one run and medians
are taken, so that a noisy moment hits all of them. Nothing asserts on the numbers.
"""

import io
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import structlog

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.events import Event, discard
from mlld_sdk.supervision.events import ChildStarted
from mlld_sdk.telemetry import Bus
from mlld_sdk.telemetry.history import History
from mlld_sdk.telemetry.log import log_events
from mlld_sdk.telemetry.places import Places

EVENT = ChildStarted(at=0.0, path="root/workers/w1", incarnation=1, cause="restart")
ROUNDS = 9
EMITS = 20_000
MESSAGES = 5_000
REQUESTS = 1_000


def ignore(event: Event) -> None:
    """Take an event and do nothing."""


def bus_with(handlers: int, inline: int = 0) -> Bus:
    bus = Bus()
    for number in range(handlers):
        bus.attach(f"h{number}", ignore, backlog=EMITS + 1)
    for number in range(inline):
        bus.attach_inline(f"i{number}", ignore)
    return bus


def microseconds(work: Callable[[], object], count: int) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) / count * 1e6


def emit_times(bus: Bus) -> tuple[float, float]:
    """Microseconds an emit takes whoever emits, and until everybody has it."""
    emit = bus.emit

    def burst() -> None:
        for _ in range(EMITS):
            emit(EVENT)

    begin = time.perf_counter()
    burst()
    emitted = time.perf_counter()
    bus.close(30.0)  # handlers finish their backlog
    return (emitted - begin) / EMITS * 1e6, (time.perf_counter() - begin) / EMITS * 1e6


def paced(bus: Bus) -> float:
    """Microseconds of an emit when handlers keep up, as in a service: a few events, then a pause."""
    taken = 0.0
    for _ in range(50):
        begin = time.perf_counter()
        for _ in range(4):
            bus.emit(EVENT)
        taken += time.perf_counter() - begin
        time.sleep(0.0005)
    bus.close()
    return taken / 200 * 1e6


def nothing() -> float:
    def burst() -> None:
        for _ in range(EMITS):
            ignore(EVENT)

    return microseconds(burst, EMITS)


def events() -> None:
    sides: dict[str, Callable[[], Bus]] = {
        "nobody": lambda: bus_with(0),
        "one handler": lambda: bus_with(1),
        "five handlers": lambda: bus_with(5),
        "one inline view": lambda: bus_with(0, 1),
        "history (inline), as in every runtime": _with_history,
    }
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    floors = []
    for _ in range(ROUNDS):
        floors.append(nothing())
        for name, make in sides.items():
            whole = emit_times(make())
            times[name].append((*whole, paced(make())))
    floor = statistics.median(floors)
    print("### An event\n")
    print("| who listens | µs to emit, in bursts | µs when a few wake them | x a function call | events/s delivered |")
    print("|---|---|---|---|---|")
    for name, found in times.items():
        emitted, delivered, calm = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {emitted:.3f} | {calm:.3f} | {emitted / floor:.1f} | {1e6 / delivered:,.0f} |")


def _with_history() -> Bus:
    bus = Bus()
    bus.attach_inline("history", History())
    return bus


class Echo(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


def messages() -> None:
    """What telemetry adds to a message of an actor: actors tell of transitions, not of messages."""

    def talk(sink: Any) -> float:
        system = ActorSystem("bench", sink=sink)
        ref = system.start(Echo)

        def work() -> None:
            for _ in range(MESSAGES):
                ref.tell(1)
            ref.call(1, timeout=30.0)

        work()
        taken = microseconds(work, MESSAGES)
        system.stop()
        return taken

    found: dict[str, list[float]] = {"no bus": [], "nobody": [], "one handler": [], "five handlers": []}
    for _ in range(ROUNDS):
        found["no bus"].append(talk(discard))
        for name, count in (("nobody", 0), ("one handler", 1), ("five handlers", 5)):
            bus = bus_with(count)
            found[name].append(talk(bus.emit))
            bus.close()
    base = statistics.median(found["no bus"])
    print("\n### A message of an actor\n")
    print("| who listens | µs a message | added µs |\n|---|---|---|")
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.2f} | {statistics.median(times) - base:+.2f} |")


class Worker(Agent):
    engine = "embedded"


def requests() -> None:
    """What full telemetry adds to a request of an agent on the embedded engine, the quickest engine there is."""
    silent = Runtime(one_for_one(child(Worker, name="w")), name="silent")
    silent.bus.detach("history")
    usual = Runtime(one_for_one(child(Worker, name="w")), name="usual")
    full = Runtime(one_for_one(child(Worker, name="w")), name="full")
    full.bus.attach_inline("places", Places())
    logger = structlog.wrap_logger(
        structlog.PrintLogger(io.StringIO()),
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer(default=str)],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    log_events(full.bus, logger)
    full.bus.attach("one more", ignore)
    runtimes = {"history off": silent, "as delivered (history)": usual, "history, tree, log at debug, one more": full}
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    with ExitStack() as stack:
        agents = {name: stack.enter_context(runtime).agent("w") for name, runtime in runtimes.items()}
        for agent in agents.values():
            agent.process('show "warm"')
        for _ in range(REQUESTS):
            for name, agent in agents.items():
                times[name].append(microseconds(lambda agent=agent: agent.process('show "x"'), 1))
    base = statistics.median(times["history off"])
    print("\n### A request of an agent\n")
    print("| who listens | µs a request | ratio |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {statistics.median(found):.0f} | {statistics.median(found) / base:.3f} |")


if __name__ == "__main__":
    events()
    messages()
    requests()
    assert threading.active_count() < 20
