"""Calls on the way: how many Python functions of this project, in how many modules, one warm operation goes through.

    python benchmarks/calls.py [operation ...]

Counted on every thread with `sys.setprofile`, so that a slow machine cannot blur it. The least of several is reported,
since timers and other threads may get in between. With names of operations, the calls themselves are listed.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import mlld_sdk
from mlld_sdk import Agent, Client, Job, Runtime, child, one_for_one
from mlld_sdk.actors import Actor, ActorSystem
from mlld_sdk.errors import MlldError
from mlld_sdk.testing import Chaos

HERE = str(Path(mlld_sdk.__file__).parent.resolve().parent)
SCRIPT = "show `x`"
Calls = Counter[tuple[str, str]]


class Counting:
    """Counts calls of this project's functions while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: Calls = Counter()
        self._paths: dict[str, str] = {}

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        """Take one event of the interpreter."""
        if self.on and event == "call":
            name = frame.f_code.co_filename
            path = self._paths.get(name) or self._paths.setdefault(
                name, name if name[0] == "<" else os.path.realpath(name)
            )
            if path.startswith(HERE) and "site-packages" not in path and "benchmarks" not in path:
                self.seen[path.removeprefix(HERE + "/"), frame.f_code.co_qualname] += 1

    def least(self, operation: Callable[[], object], settle: float, times: int = 12, warm: int = 3) -> Calls:
        """Run an operation several times, and return the calls of the time that had the fewest."""
        found = []
        for round_ in range(warm + times):
            self.seen, self.on = Counter(), round_ >= warm
            operation()
            time.sleep(settle)  # what goes on behind the answer belongs to it
            self.on = False
            found.append(self.seen)
        return min(found[warm:], key=Counter.total)


class Echo(Actor):
    """Answers what it is asked."""

    def on_receive(self, message: Any) -> Any:
        """Answer."""
        return message


class Worker(Agent):
    """Does one step a run."""

    engine = "embedded"

    def run(self, job: Job, payload: Any) -> str:
        """Do it."""
        return job.process(SCRIPT, idempotent=True)


def operations(stack: ExitStack) -> Iterator[tuple[str, Callable[[], object], float]]:
    """Prepare what is measured: a name, what to do, and the seconds in which it settles."""
    client = stack.enter_context(Client(engine="embedded"))
    yield "client: process", lambda: client.process(SCRIPT), 0.05
    echo = Echo.start(system=stack.enter_context(ActorSystem()))
    yield "actor: ask", lambda: echo.ask(1, timeout=5), 0.05
    store = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "state.db"
    tree = one_for_one(child(Worker, name="worker"), max_restarts=1000, within=1.0)
    runtime = stack.enter_context(Runtime(tree, store=str(store)))
    agent, chaos = runtime.agent("worker"), Chaos(runtime)
    yield "agent: process", lambda: agent.process(SCRIPT), 0.3
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)

    async def asynchronous() -> str:
        return await agent.aio.process(SCRIPT)

    yield "agent: process, asynchronous", lambda: loop.run_until_complete(asynchronous()), 0.3
    yield "agent: run of one step", lambda: agent.run({}).result(timeout=30), 0.3
    yield "engine killed until the agent answers again", lambda: kill(agent, chaos), 0.5


def kill(agent: Any, chaos: Chaos) -> None:
    """Kill the engine of an agent and ask until it answers."""
    chaos.kill("worker")
    while True:
        try:
            agent.process(SCRIPT)
        except MlldError:
            agent.wait_until_up(10)
        else:
            return


def imports(rounds: int = 15) -> Iterator[str]:
    """Measure imports in fresh interpreters, and write them up as Markdown."""
    programs = {
        "the three dependencies": "import msgspec, pykka, structlog",
        "`import mlld_sdk`": "import mlld_sdk",
        "... and `Runtime` and `Agent`": "from mlld_sdk import Agent, Runtime",
    }
    took: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            timed = f"import time; began = time.perf_counter(); {program}; print(time.perf_counter() - began)"
            took[name].append(
                float(subprocess.run([sys.executable, "-c", timed], capture_output=True, check=True).stdout)
            )
    floor = statistics.median(took["the three dependencies"])
    yield from ("| what | ms | times the dependencies |", "|---|---:|---:|")
    for name, values in took.items():
        middle = statistics.median(values)
        yield f"| {name} | {middle * 1e3:.1f} | {middle / floor:.2f} |"


def report(shown: list[str]) -> str:
    """Count, and write it up as Markdown."""
    count = Counting()
    threading.setprofile(count)
    sys.setprofile(count)
    lines = ["### Calls on the way", "", "| operation | calls | modules |", "|---|---:|---:|"]
    with ExitStack() as stack:
        for name, operation, settle in operations(stack):
            calls = count.least(operation, settle)
            lines.append(f"| {name} | {calls.total():,} | {len({path for path, _ in calls})} |")
            if name in shown:
                listed = sorted(calls.items(), key=lambda item: (item[0][0], -item[1]))
                print(*(f"{times:6d} {path}: {function}" for (path, function), times in listed), sep="\n")
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return "\n".join([*lines, "", "### Imports", "", *imports()])


if __name__ == "__main__":
    print(report(sys.argv[1:]))
