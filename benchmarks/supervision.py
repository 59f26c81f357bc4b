"""Supervision against a supervisor written by hand on raw Pykka, interleaved in one run, and against a real Erlang.

    python benchmarks/supervision.py [--rounds 5] [--large 100000] [--no-erlang]

Prints Markdown tables of medians and ratios. Nothing here asserts: machines differ, ratios of one run tell.
"""

import argparse
import gc
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pykka

from mlld_sdk.actors.actor import Actor
from mlld_sdk.actors.system import ActorSystem
from mlld_sdk.supervision import Breaker, ChildUnavailable, Tree, child, circuit_breaker, dynamic, one_for_one

CRASHES = 100
STORM = 1000
WINDOW = 0.001
"""Seconds in which both supervisors count restarts: short, so that neither has to keep a long list."""

began, came, up = [0.0], [0.0], threading.Event()


def came_up() -> None:
    came[0] = time.perf_counter()
    up.set()


class RawChild(pykka.ThreadingActor):
    """A child as one writes it without this library."""

    use_daemon_thread = True

    def __init__(self, supervisor: Any) -> None:
        super().__init__()
        self.supervisor = supervisor

    def on_start(self) -> None:
        came_up()

    def on_receive(self, message: Any) -> Any:
        began[0] = time.perf_counter()
        raise RuntimeError("boom")

    def on_failure(self, *_: Any) -> None:
        self.supervisor.tell(("down", self.actor_ref))


class RawSupervisor(pykka.ThreadingActor):
    """A supervisor as one writes it without this library: restarts, and counts restarts in a window."""

    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self.children: dict[str, Any] = {}
        self.restarts: list[float] = []

    def on_receive(self, message: Any) -> Any:
        if message == "get":
            return next(iter(self.children.values()))
        if message != "start":
            self.children.pop(message[1].actor_urn, None)
            now = time.monotonic()
            self.restarts = [at for at in self.restarts if now - at < WINDOW] + [now]
        ref = RawChild.start(self.actor_ref)
        self.children[ref.actor_urn] = ref
        return ref


class RawIdle(pykka.ThreadingActor):
    use_daemon_thread = True


class Crashing(Actor):
    def on_start(self) -> None:
        came_up()

    def on_receive(self, message: Any) -> Any:
        began[0] = time.perf_counter()
        raise RuntimeError("boom")


class Idle(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


class Counted(Actor):
    """Tells a semaphore that it has come up."""

    up = threading.Semaphore(0)

    def on_start(self) -> None:
        Counted.up.release()


@contextmanager
def quiet_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def timed(action: Callable[[], Any]) -> float:
    """Run something; microseconds."""
    return both_timed(action)[0]


def both_timed(action: Callable[[], Any]) -> tuple[float, float]:
    """Run something; microseconds by the clock and of processor time, which a busy machine disturbs less."""
    with quiet_gc():
        start, used = time.perf_counter(), time.process_time()
        action()
        return (time.perf_counter() - start) * 1e6, (time.process_time() - used) * 1e6


def crashes_raw() -> tuple[Callable[[], list[float]], Callable[[], Any]]:
    supervisor = RawSupervisor.start()
    supervisor.ask("start")

    def batch() -> list[float]:
        found = []
        for _ in range(CRASHES):
            ref = supervisor.ask("get")
            up.clear()
            ref.tell("boom")
            up.wait(5)
            found.append((came[0] - began[0]) * 1e6)
        return found

    return batch, pykka.ActorRegistry.stop_all


def crashes_here(others: int) -> tuple[Callable[[], list[float]], Callable[[], Any]]:
    system = ActorSystem("bench")
    room = dynamic(name="others")
    spec = one_for_one(child(Crashing, name="w"), room, max_restarts=10**6, within=WINDOW)
    tree = Tree.start(system, spec)
    adding = tree["others"].supervisor()
    for _ in range(others):
        adding.start_child(child(Idle))

    def batch() -> list[float]:
        found = []
        for _ in range(CRASHES):
            ref = running(tree)
            up.clear()
            ref.tell("boom")
            up.wait(5)
            found.append((came[0] - began[0]) * 1e6)
            while running(tree) is ref:
                time.sleep(0)
        return found

    def close() -> None:
        tree.stop()
        system.stop()

    return batch, close


def running(tree: Tree) -> Any:
    while True:
        try:
            return tree["w"].ref()
        except ChildUnavailable:
            time.sleep(0)


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


def crash_table(rounds: int) -> None:
    sides = {"raw": crashes_raw(), "here": crashes_here(0), "here, 10,000 others": crashes_here(10_000)}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, (batch, _) in sides.items():
            values = batch()
            if turn:
                found[name] += values
    for _, close in sides.values():
        close()
    base = statistics.median(found["raw"])
    print("| crash to new child's `on_start` | p50 us | p99 us | p50 against raw |")
    print("|---|---|---|---|")
    for name, values in found.items():
        p50, p99 = statistics.median(values), percentile(values, 0.99)
        results[f"crash_p50 {name}"] = p50
        print(f"| {name} | {p50:.0f} | {p99:.0f} | {p50 / base:.2f} |")


def raw_start(count: int) -> tuple[float, float]:
    start, used = both_timed(lambda: [RawIdle.start() for _ in range(count)])
    pykka.ActorRegistry.stop_all()
    return start / count, used / count


def dynamic_run(count: int) -> tuple[float, float, float, float, float]:
    with ActorSystem("bench") as system, Tree.start(system, dynamic()) as tree:
        spec, supervisor = child(Idle), tree.supervisor
        start, used = both_timed(lambda: [supervisor.start_child(spec) for _ in range(count)])
        which = timed(supervisor.which_children)
        number = timed(supervisor.count_children)
        stop = timed(lambda: tree.stop(120)) / count
    return start / count, stop, which, number, used / count


def static_run(count: int) -> tuple[float, float, float]:
    spec = one_for_one(*[child(Idle, name=f"w{number}") for number in range(count)])
    trees: list[Tree] = []
    with ActorSystem("bench") as system:
        start, used = both_timed(lambda: trees.append(Tree.start(system, spec)))
        stop = timed(lambda: trees[0].stop(120)) / count
    return start / count, stop, used / count


def storm() -> float:
    with ActorSystem("bench") as system, Tree.start(system, dynamic(max_restarts=10**6, within=1)) as tree:
        refs = [tree.supervisor.start_child(child(Counted, restart="permanent")) for _ in range(STORM)]
        for _ in refs:
            Counted.up.acquire(timeout=5)

        def run() -> None:
            for ref in refs:
                ref.kill()  # type: ignore[union-attr]
            for _ in refs:
                Counted.up.acquire(timeout=5)

        return timed(run)


def breaker_check() -> float:
    guard = Breaker(circuit_breaker("bench"))
    count = 100_000

    def run() -> None:
        for _ in range(count):
            guard.acquire().success()

    return timed(run) / count


def erlang() -> dict[str, float]:
    if not (shutil.which("erl") and shutil.which("erlc")):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(__file__).with_name("supervision_bench.erl")
        subprocess.run(["erlc", "-o", folder, str(source)], check=True, timeout=60)
        done = subprocess.run(
            ["erl", "-noshell", "-s", "supervision_bench", "main", "-s", "init", "stop"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
    return {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}


results: dict[str, float] = {}


def median_of(rounds: int, run: Callable[[], float]) -> float:
    """Run something several times; the median."""
    return statistics.median(run() for _ in range(rounds))


def medians_of(rounds: int, *runs: Callable[[], tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Run several things in turn, several times; the medians of the numbers of each."""
    found = [[run() for run in runs] for _ in range(rounds)]
    return [
        tuple(statistics.median(values) for values in zip(*of_one, strict=True)) for of_one in zip(*found, strict=True)
    ]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--large", type=int, default=100_000)
    options.add_argument("--no-erlang", action="store_true")
    given = options.parse_args()
    other = {} if given.no_erlang else erlang()
    crash_table(given.rounds)
    rounds = max(given.rounds // 2, 1)
    rows: list[tuple[str, float, float | None, float | None]] = []
    (raw, raw_used), (start, stop, which, number, used), (static_start, static_stop, static_used) = medians_of(
        rounds, lambda: raw_start(10_000), lambda: dynamic_run(10_000), lambda: static_run(10_000)
    )
    rows.append(
        ("crash to restarted, p50", results["crash_p50 here"], results["crash_p50 raw"], other.get("crash_p50"))
    )
    rows.append(("start 10,000, dynamic, each", start, raw, other.get("dynamic_start_10000")))
    rows.append(("start 10,000, static, each", static_start, raw, other.get("static_start_10000")))
    rows.append(("the same, dynamic, processor time", used, raw_used, None))
    rows.append(("the same, static, processor time", static_used, raw_used, None))
    rows.append(("stop 10,000, dynamic, each", stop, None, other.get("dynamic_stop_10000")))
    rows.append(("stop 10,000, static, in order, each", static_stop, None, other.get("static_stop_10000")))
    rows.append(("which_children of 10,000", which, None, other.get("which_10000")))
    rows.append(("count_children of 10,000", number, None, None))
    big_start, big_stop, *_ = dynamic_run(given.large)
    rows.append((f"start {given.large:,}, dynamic, each", big_start, None, other.get("dynamic_start_100000")))
    rows.append((f"stop {given.large:,}, dynamic, each", big_stop, None, other.get("dynamic_stop_100000")))
    rows.append((f"{STORM:,} killed at once, all back", median_of(rounds, storm), None, other.get("storm")))
    rows.append(("call through a closed breaker", median_of(rounds, breaker_check), None, None))
    print("\n| work | us | raw Pykka us | against raw | Erlang us | against Erlang |")
    print("|---|---|---|---|---|---|")
    for name, here, there, beam in rows:
        against = "" if there is None else f"{here / there:.3f}"
        times = "" if beam is None else f"{here / beam:.1f}"
        print(
            f"| {name} | {here:.1f} | {'' if there is None else f'{there:.0f}'} | {against} | {beam or ''} | {times} |"
        )


if __name__ == "__main__":
    main()
