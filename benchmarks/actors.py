"""Actors against raw Pykka, interleaved in one run, and against a real Erlang when there is one.

    python benchmarks/actors.py [--rounds 5] [--no-erlang]

Prints a Markdown table of medians and ratios. Nothing here asserts: machines differ, ratios of one run tell.
"""

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pykka

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.scheduler import blocking
from mlld_sdk.actors.core.system import ActorSystem

Measure = Callable[[], float]


class RawEcho(pykka.ThreadingActor):
    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        return message() if callable(message) else message


class Echo(Actor):
    mailbox_limit = None

    def on_receive(self, message: Any) -> Any:
        return message() if callable(message) else message


class Inline(Echo):
    caller_runs = True


class Parent(Actor):
    """Starts children linked to itself: supervised, as far as the actor layer goes."""

    trap_exit = True

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else None


class Ring(Echo):
    next: Any = None

    def on_receive(self, message: Any) -> Any:
        left, done = message
        if left:
            self.next.tell((left - 1, done))
        else:
            done.set()


class RawRing(pykka.ThreadingActor):
    use_daemon_thread = True
    next: Any = None

    on_receive = Ring.on_receive


def resident() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@contextmanager
def raw(actor_class: type[pykka.Actor], count: int = 1) -> Iterator[list[Any]]:
    refs = [actor_class.start() for _ in range(count)]
    try:
        yield refs
    finally:
        for ref in refs:
            ref.stop(block=False)
        for ref in refs:
            ref.actor_stopped.wait(10)


@contextmanager
def ours(actor_class: type[Actor], count: int = 1) -> Iterator[list[Any]]:
    with ActorSystem() as system:
        yield [system.start(actor_class) for _ in range(count)]


Running = Callable[..., Any]


def ask(running: Running, actor_class: Any, count: int = 3_000) -> Measure:
    def measure() -> float:
        with running(actor_class) as (ref,):
            ref.ask(0)
            return seconds(lambda: [ref.ask(0) for _ in range(count)]) / count

    return measure


def pipelined(running: Running, actor_class: Any, rounds: int = 60) -> Measure:
    def measure() -> float:
        with running(actor_class) as (ref,):
            ref.ask(0)

            def batches() -> None:
                for _ in range(rounds):
                    for future in [ref.ask(0, block=False) for _ in range(100)]:
                        future.get()

            return seconds(batches) / (rounds * 100)

    return measure


def tell(running: Running, actor_class: Any, count: int = 30_000) -> Measure:
    def measure() -> float:
        with running(actor_class) as (ref,):
            done = threading.Event()

            def send() -> None:
                for _ in range(count):
                    ref.tell(0)
                ref.tell(done.set)
                done.wait(60)

            return seconds(send) / count

    return measure


def ring(running: Running, actor_class: Any, size: int, hops: int) -> Measure:
    def measure() -> float:
        with running(actor_class, size) as refs:
            for ref, following in zip(refs, [*refs[1:], refs[0]], strict=True):
                ref.proxy().next = following
            done = threading.Event()

            def run() -> None:
                refs[0].tell((hops, done))
                done.wait(60)

            return seconds(run) / hops

    return measure


def burst(running: Running, actor_class: Any, size: int, each: int = 10) -> Measure:
    def measure() -> float:
        with running(actor_class, size) as refs:
            left = [threading.Semaphore(0)]

            def run() -> None:
                for _ in range(each - 1):
                    for ref in refs:
                        ref.tell(0)
                for ref in refs:
                    ref.tell(left[0].release)
                for _ in refs:
                    left[0].acquire(timeout=60)

            return seconds(run) / (size * each)

    return measure


def start_raw(count: int) -> tuple[float, float, float]:
    """Seconds for each start, bytes each, seconds for each stop."""
    gc.collect()
    before = resident()
    refs: list[Any] = []
    start = seconds(lambda: refs.extend(RawEcho.start() for _ in range(count))) / count
    size = (resident() - before) / count

    def stop() -> None:
        for ref in reversed(refs):
            ref.stop(block=False)
        for ref in refs:
            ref.actor_stopped.wait(60)

    return start, size, seconds(stop) / count


def start_ours(count: int) -> tuple[float, float, float, float]:
    """The same for linked children of one parent, and the seconds until one of them answers."""
    gc.collect()
    before = resident()
    with ActorSystem() as system:
        parent = system.start(Parent)
        refs: list[Any] = []

        def start_all(me: Any) -> None:
            refs.extend(me.start_link(Echo) for _ in range(count))

        start = seconds(lambda: parent.ask(start_all)) / count
        size = (resident() - before) / count
        answer = seconds(lambda: refs[count // 2].ask(0))

        def stop() -> None:
            for ref in reversed(refs):
                ref.exit("shutdown")
            refs[0].join(60)
            while len(system) > 1:
                time.sleep(0.001)

        return start, size, seconds(stop) / count, answer


def crash_and_restart(others: int, crashes: int = 300) -> tuple[float, float]:
    """Median and 99th percentile of the seconds from a crash to the restarted child's `on_start`."""

    class Child(Actor):
        caller_runs = True

        def on_start(self) -> None:
            up.append(time.perf_counter())
            started.set()

        def on_receive(self, message: Any) -> None:
            crashed.append(time.perf_counter())
            raise RuntimeError

    class Restarts(Parent):
        urgent_exits = True

        def on_receive(self, message: Any) -> Any:
            if callable(message):
                return message(self)
            self.child = self.start_link(Child)
            return None

    up: list[float] = []
    crashed: list[float] = []
    started = threading.Event()
    with ActorSystem() as system:
        keep = [system.start(Echo) for _ in range(others)]
        system.settle()
        parent = system.start(Restarts)
        parent.ask(None)
        for _ in range(crashes):
            started.clear()
            parent.ask(lambda me: me.child).tell("crash")  # once the restart is over
            started.wait(10)
        del keep
    gc.unfreeze()
    took = sorted(later - earlier for earlier, later in zip(crashed, up[1:], strict=True))
    return statistics.median(took), took[int(len(took) * 0.99) - 1]


def blocked_echo(marked: bool) -> float:
    """The longest echo while 50 actors block for 200 ms each."""

    def block() -> None:
        if marked:
            with blocking():
                time.sleep(0.2)
        else:
            time.sleep(0.2)

    with ActorSystem() as system:
        echo = system.start(Echo)
        for _ in range(50):
            system.start(Echo).tell(block)
        over = time.perf_counter() + 0.25
        longest = 0.0
        while time.perf_counter() < over:
            longest = max(longest, seconds(lambda: echo.ask(0)))
        return longest


def gc_pause(actors: int, settled: bool) -> float:
    """The longest garbage collection in 300,000 allocations with so many actors alive, in processor time."""
    pauses: list[float] = []
    began = [0.0]

    def watch(phase: str, _: Any) -> None:
        if phase == "start":
            began[0] = time.thread_time()
        else:
            pauses.append(time.thread_time() - began[0])

    before = gc.get_threshold()
    with ActorSystem() as system:
        refs = [system.start(Echo) for _ in range(actors)]
        if settled:
            system.settle()
        gc.callbacks.append(watch)
        kept: list[Any] = []
        for number in range(300_000):
            kept.append({"number": [number]})
            if len(kept) > 150_000:
                kept.clear()
        gc.callbacks.remove(watch)
        gc.set_threshold(*before)
        gc.unfreeze()
        del refs
    return max(pauses, default=0.0)


def interleaved(variants: dict[str, Measure], rounds: int) -> dict[str, float]:
    """Median of each variant, measured in turns so that a noisy moment hits all of them."""
    results: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measure in variants.items():
            results[name].append(measure())
    return {name: statistics.median(values) for name, values in results.items()}


def erlang() -> dict[str, float]:
    """Run the same on a real Erlang; microseconds or bytes by name, empty without one."""
    if not (shutil.which("erl") and shutil.which("erlc")):
        return {}
    source = Path(__file__).with_name("actor_bench.erl")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["erlc", "-o", folder, str(source)], check=True, timeout=60)
        done = subprocess.run(
            ["erl", "-noshell", "-pa", folder, "-s", "actor_bench", "main"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines() if line)}


def row(work: str, baseline: float | None, value: float, unit: str, erl: float | None = None) -> None:
    scale = {"us": 1e6, "ms": 1e3, "B": 1.0}[unit]
    raw_text = "-" if baseline is None else f"{baseline * scale:.4g}"
    ratio = "-" if baseline is None else f"{value / baseline:.3f}"
    erl_text = "-" if erl is None else f"{erl:.4g}"
    times = "-" if erl is None else f"{value * scale / erl:.2f}"
    print(f"| {work} | {unit} | {raw_text} | {value * scale:.4g} | {ratio} | {erl_text} | {times} |", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-erlang", action="store_true")
    parser.add_argument("--raw-starts", type=int, default=2_000, help="raw Pykka actors to start at once")
    options = parser.parse_args(argv)
    erl = {} if options.no_erlang else erlang()
    print("| work | unit | raw Pykka | ours | ours / raw | Erlang | ours / Erlang |")
    print("|---|---|---|---|---|---|---|", flush=True)

    pairs: list[tuple[str, str, dict[str, Measure]]] = [
        (
            "ask an idle actor",
            "ask",
            {"raw": ask(raw, RawEcho), "ours": ask(ours, Echo), "ours, caller-runs": ask(ours, Inline)},
        ),
        ("pipelined asks, 100 at a time", "pipelined", {"raw": pipelined(raw, RawEcho), "ours": pipelined(ours, Echo)}),
        ("tell until handled", "tell", {"raw": tell(raw, RawEcho), "ours": tell(ours, Echo)}),
        (
            "ring, each hop",
            "ring",
            {"raw": ring(raw, RawRing, 100, 5_000), "ours": ring(ours, Ring, 1_000, 30_000)},
        ),
        (
            "burst of 10 to 1,000 actors, each",
            "",
            {"raw": burst(raw, RawEcho, 1_000), "ours": burst(ours, Echo, 1_000)},
        ),
    ]
    for work, key, variants in pairs:
        medians = interleaved(variants, options.rounds)
        baseline = medians.pop("raw")
        for name, value in medians.items():
            row(work + name.removeprefix("ours"), baseline, value, "us", erl.get(key))

    count = options.raw_starts
    raw_start, raw_size, raw_stop = start_raw(count)
    for actors in (10_000, 100_000):
        start, size, stop, answer = start_ours(actors)
        label = f"start {actors:,} linked actors, each (raw: {count:,})"
        row(label, raw_start, start, "us", erl.get(f"start-{actors}"))
        row(f"... bytes each (raw: {count:,}, without kernel stacks)", raw_size, size, "B", erl.get(f"bytes-{actors}"))
        row(f"... stop, each (raw: {count:,})", raw_stop, stop, "us", erl.get(f"stop-{actors}"))
        row("... one of them answers", None, answer, "us")
    for others in (0, 10_000):
        median, worst = crash_and_restart(others)
        row(f"crash to restarted, {others:,} other actors, median", None, median, "us")
        row(f"crash to restarted, {others:,} other actors, p99", None, worst, "us")
    row("longest echo while 50 actors block, unannounced", None, blocked_echo(marked=False), "ms")
    row("longest echo while 50 actors block, announced", None, blocked_echo(marked=True), "ms")
    row("longest GC pause, 100,000 actors, untuned", None, gc_pause(100_000, settled=False), "ms")
    row("longest GC pause, 100,000 actors, settled", None, gc_pause(100_000, settled=True), "ms")
    print(f"\nPython {sys.version.split()[0]}, Pykka {version('pykka')}.")


if __name__ == "__main__":
    main()
