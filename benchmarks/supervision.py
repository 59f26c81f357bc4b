"""Supervision against a supervisor written by hand on raw Pykka, interleaved in one run, and against a real Erlang.

    python benchmarks/supervision.py [--rounds 5] [--large 100000] [--no-erlang]

Everybody does a little in turn, several times over, so that what the machine does meanwhile hits all alike. Prints
Markdown tables of medians and ratios. Nothing here asserts: machines differ, ratios of one run tell.
"""

import argparse
import gc
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pykka

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.supervision import Breaker, ChildUnavailable, Tree, child, circuit_breaker, dynamic, one_for_one

CRASHES = 50
"""In a row, before it is the next one's turn."""
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
    adding.start_children([child(Idle)] * others)

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


def crash_table(rounds: int) -> dict[str, float]:
    sides = {"raw": crashes_raw(), "here": crashes_here(0), "here, 10,000 others": crashes_here(10_000)}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, (batch, _) in sides.items():
            values = batch()
            if turn:
                found[name] += values
    for _, close in sides.values():
        close()
    p50 = {name: statistics.median(values) for name, values in found.items()}
    print("| crash to new child's `on_start` | p50 us | p99 us | p50 against raw |")
    print("|---|---|---|---|")
    for name, values in found.items():
        p99 = percentile(values, 0.99)
        print(f"| {name} | {p50[name]:.0f} | {p99:.0f} | {p50[name] / p50['raw']:.2f} |")
    return p50


Measured = dict[str, float]
"""Microseconds by name. Erlang's have the same names as ours, with `erlang_` in front."""


def raw_start(count: int) -> Measured:
    start, used = both_timed(lambda: [RawIdle.start() for _ in range(count)])
    pykka.ActorRegistry.stop_all()
    return {"raw_start": start / count, "raw_start_used": used / count}


def dynamic_run(count: int) -> Measured:
    with ActorSystem("bench") as system, Tree.start(system, dynamic()) as tree:
        spec, supervisor = child(Idle), tree.supervisor
        start, used = both_timed(lambda: [supervisor.start_child(spec) for _ in range(count)])
        which = timed(supervisor.which_children)
        number = timed(supervisor.count_children)
        stop = timed(lambda: tree.stop(120))
    return {
        f"dynamic_start_{count}": start / count,
        f"dynamic_start_{count}_used": used / count,
        f"dynamic_stop_{count}": stop / count,
        f"which_{count}": which,
        f"count_{count}": number,
    }


def together_run(count: int) -> Measured:
    with ActorSystem("bench") as system, Tree.start(system, dynamic()) as tree:
        specs = [child(Idle)] * count
        start, used = both_timed(lambda: tree.supervisor.start_children(specs, timeout=120))
    return {f"together_start_{count}": start / count, f"together_start_{count}_used": used / count}


def static_run(count: int) -> Measured:
    spec = one_for_one(*[child(Idle, name=f"w{number}") for number in range(count)])
    trees: list[Tree] = []
    with ActorSystem("bench") as system:
        start, used = both_timed(lambda: trees.append(Tree.start(system, spec)))
        stop = timed(lambda: trees[0].stop(120))
    return {
        f"static_start_{count}": start / count,
        f"static_start_{count}_used": used / count,
        f"static_stop_{count}": stop / count,
    }


def storm() -> Measured:
    with ActorSystem("bench") as system, Tree.start(system, dynamic(max_restarts=10**6, within=1)) as tree:
        refs = [tree.supervisor.start_child(child(Counted, restart="permanent")) for _ in range(STORM)]
        for _ in refs:
            Counted.up.acquire(timeout=5)

        def run() -> None:
            for ref in refs:
                ref.kill()  # type: ignore[union-attr]
            for _ in refs:
                Counted.up.acquire(timeout=5)

        return {"storm": timed(run)}


def breaker_check() -> Measured:
    guard = Breaker(circuit_breaker("bench"))
    count = 100_000

    def run() -> None:
        for _ in range(count):
            guard.acquire().settle()

    return {"breaker": timed(run) / count}


@contextmanager
def erlang(wanted: bool) -> Iterator[Callable[[], Measured]]:
    """Compile the same work for a real Erlang; gives what runs it."""
    if not (wanted and shutil.which("erl") and shutil.which("erlc")):
        yield dict
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(__file__).with_name("supervision_bench.erl")
        subprocess.run(["erlc", "-o", folder, str(source)], check=True, timeout=60)

        def run() -> Measured:
            done = subprocess.run(
                ["erl", "-noshell", "-s", "supervision_bench", "main", "-s", "init", "stop"],
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
                timeout=120,
            )
            return {f"erlang_{name}": float(time) for name, time in map(str.split, done.stdout.splitlines())}

        yield run


def in_turn(rounds: int, sides: Sequence[Callable[[], Measured]]) -> Measured:
    """Run everybody in turn, several times over; the median of each time measured."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for side in sides:
            for name, value in side().items():
                found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--large", type=int, default=100_000)
    options.add_argument("--no-erlang", action="store_true")
    given = options.parse_args()
    few, many = 10_000, given.large
    crash = crash_table(4 * given.rounds)
    sides = [
        lambda: raw_start(few),
        lambda: dynamic_run(few),
        lambda: together_run(few),
        lambda: static_run(few),
        lambda: dynamic_run(many),
        lambda: together_run(many),
        storm,
        breaker_check,
    ]
    with erlang(not given.no_erlang) as beam:
        found = in_turn(given.rounds // 2 + 1, [*sides, beam])
    found["crash_p50"] = crash["here"]
    raw, raw_used = found["raw_start"], found["raw_start_used"]
    rows = [
        ("crash to restarted, p50", "crash_p50", crash["raw"], "crash_p50"),
        (f"start {few:,}, static, each", f"static_start_{few}", raw, f"static_start_{few}"),
        (f"start {few:,}, dynamic, a call for each", f"dynamic_start_{few}", raw, f"dynamic_start_{few}"),
        (f"start {few:,}, dynamic, one call for all", f"together_start_{few}", raw, f"dynamic_start_{few}"),
        ("static, processor time", f"static_start_{few}_used", raw_used, ""),
        ("dynamic, a call for each, processor time", f"dynamic_start_{few}_used", raw_used, ""),
        ("dynamic, one call for all, processor time", f"together_start_{few}_used", raw_used, ""),
        (f"stop {few:,}, static, in order, each", f"static_stop_{few}", None, f"static_stop_{few}"),
        (f"stop {few:,}, dynamic, each", f"dynamic_stop_{few}", None, f"dynamic_stop_{few}"),
        (f"which_children of {few:,}", f"which_{few}", None, f"which_{few}"),
        (f"count_children of {few:,}", f"count_{few}", None, ""),
        (f"start {many:,}, dynamic, a call for each", f"dynamic_start_{many}", None, f"dynamic_start_{many}"),
        (f"start {many:,}, dynamic, one call for all", f"together_start_{many}", None, f"dynamic_start_{many}"),
        (f"stop {many:,}, dynamic, each", f"dynamic_stop_{many}", None, f"dynamic_stop_{many}"),
        (f"{STORM:,} killed at once, all back", "storm", None, "storm"),
        ("call through a closed breaker", "breaker", None, ""),
    ]
    print("\n| work | us | raw Pykka us | against raw | Erlang us | against Erlang |")
    print("|---|---|---|---|---|---|")
    for title, name, there, theirs in rows:
        here, away = found[name], found.get(f"erlang_{theirs}")
        raw_side = " | " if there is None else f" {there:.0f} | {here / there:.3f} "
        erlang_side = " | " if away is None else f" {away:.1f} | {here / away:.1f} "
        print(f"| {title} | {here:.1f} |{raw_side}|{erlang_side}|")


if __name__ == "__main__":
    main()
