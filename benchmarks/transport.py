"""What the transport costs, against the least a program could do and against upstream's SDK.

Everything runs in one process, interleaved (A, B, C, A, B, C, ...), on the same trivial engine, so the ratios mean
something even where the microseconds do not. Run `python benchmarks/transport.py [quick]`.

Each table has the time that passed and the CPU time of this process, all its threads and none of the engine, both as
medians over rounds. On a busy machine the first says little: a request that waits for a core costs what its neighbours
cost. The second also depends on whether the engine is woken on the same core or has to be fetched on another.

- *floor A*: a loop over the pipe with msgspec, answers decoded, as many requests as fit in one write
- *floor B*: the same with one write for each request, as any client with an API has to do
- *upstream*: `mlld-sdk` 2.0.5 from PyPI, if it is installed
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from _trivial import trivial_engine

from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.limits import EngineLimits

PARAMS = {"script": "show @x"}
EVENTS = 10
LIMITS = EngineLimits(in_flight=4096)


class Head(msgspec.Struct):
    id: int = -1
    output: str = ""


class Message(msgspec.Struct):
    event: dict[str, Any] | None = None
    result: Head | None = None


def raw_loop(argv: list[str], params: dict[str, Any], *, batched: bool) -> Callable[[int, int], None]:
    """The floor: a window of requests over the bare pipe."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    into, out_of = process.stdin.fileno(), process.stdout.fileno()
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Message).decode
    next_id = 0

    def send(count: int) -> None:
        nonlocal next_id
        lines = []
        for _ in range(count):
            next_id += 1
            lines.append(encode({"method": "process", "id": next_id, "params": params}) + b"\n")
        for data in [b"".join(lines)] if batched else lines:
            os.write(into, data)

    def run(window: int, total: int) -> None:
        rest, done, sent = b"", 0, min(window, total)
        send(sent)
        while done < total:
            *lines, rest = (rest + os.read(out_of, 65536)).split(b"\n")
            answered = sum(decode(line).result is not None for line in lines)
            done += answered
            more = min(answered, total - sent)
            if more:
                send(more)
                sent += more

    run.close = lambda: (process.kill(), process.wait(), process.stdin.close(), process.stdout.close())  # type: ignore[attr-defined,union-attr]
    return run


def windowed(submit: Callable[[], Any], wait: Callable[[Any], Any]) -> Callable[[int, int], None]:
    def run(window: int, total: int) -> None:
        open_ = deque(submit() for _ in range(min(window, total)))
        for _ in range(total - len(open_)):
            wait(open_.popleft())
            open_.append(submit())
        while open_:
            wait(open_.popleft())

    return run


class Answer(msgspec.Struct):
    output: str = ""


def ours(engine: Engine, params: dict[str, Any], take: Any) -> Callable[[int, int], None]:
    return windowed(
        lambda: engine.submit("process", params, timeout=30.0, on_events=take),
        lambda call: call.result().decode(Answer).output,
    )


def ours_alone(engine: Engine, params: dict[str, Any], take: Any) -> Callable[[int, int], None]:
    def run(_: int, total: int) -> None:
        for _ in range(total):
            engine.call("process", params, timeout=30.0, on_events=take).decode(Answer)

    return run


def upstream(argv: list[str], params: dict[str, Any]) -> Callable[[int, int], None] | None:
    try:
        mlld = importlib.import_module("mlld")
    except ImportError:
        return None
    client = mlld.Client(command=argv[0])

    def submit() -> Any:
        if "events" not in params:
            return client.process_async("show @x")
        request_id, answers = client._send_request("process", params)
        return mlld.ProcessHandle(client, request_id, answers, 30.0)

    run = windowed(submit, lambda handle: handle.result())
    run.close = client.close  # type: ignore[attr-defined]
    return run


Spent = tuple[float, float]
"""Microseconds that passed, and microseconds of CPU time this process has used."""


def spent(work: Callable[[], object], per: int) -> Spent:
    """Measure what one of `per` things cost that the work consists of."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / per * 1e6, (time.process_time() - cpu) / per * 1e6


def medians(rounds: list[Spent]) -> Spent:
    wall, cpu = zip(*rounds, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def interleave(
    variants: dict[str, Callable[[int, int], None]], window: int, total: int, rounds: int, per: int = 1
) -> dict[str, Spent]:
    """Run everything by turns. The first round only warms up."""
    found: dict[str, list[Spent]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            found[name].append(spent(functools.partial(run, window, total), total * per))
    return {name: medians(values[1:]) for name, values in found.items()}


def compared(found: dict[str, Spent], base: str) -> list[list[str]]:
    """Make a row of everybody: both times, each also against the base's."""
    (wall, cpu), rows = found[base], []
    for name, (their_wall, their_cpu) in found.items():
        rows.append(
            [name, f"{their_wall:.2f}", f"{their_wall / wall:.2f}", f"{their_cpu:.2f}", f"{their_cpu / cpu:.2f}"]
        )
    return rows


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process and what it starts on one core, where a ping-pong has no other core to wake."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def requests(argv: list[str], events: int, quick: bool, note: str = "") -> None:
    params = {**PARAMS, "events": events} if events else PARAMS
    command = EngineCommand(argv=tuple(argv))
    with Engine.start(command, limits=LIMITS) as engine:
        take = (lambda batch: None) if events else None
        variants = {
            "floor A (batched)": raw_loop(argv, params, batched=True),
            "floor B (a write each)": raw_loop(argv, params, batched=False),
            "ours": ours(engine, params, take),
        }
        alone = {"ours, `call`": ours_alone(engine, params, take)}
        theirs = upstream(argv, params)
        if theirs is not None:
            variants["upstream SDK"] = theirs
        rows = []
        for window, total in ((1, 1500), (16, 4000), (256, 8000)):
            total = total // (1 + events // 4) // (4 if quick else 1)
            measured = {**variants, **alone} if window == 1 else variants
            found = interleave(measured, window, total, 3 if quick else 7)
            rows += [[str(window), *row] for row in compared(found, "ours")]
        for run in variants.values():
            getattr(run, "close", lambda: None)()
    title = (f"Requests, {events} events each" if events else "Requests") + note
    table(title, ["in flight", "who", "us a request", "against ours", "CPU us", "against ours"], rows)


def flood(argv: list[str], quick: bool) -> None:
    total = 50_000 if quick else 200_000
    params = {"script": "x", "events": total}
    seen = 0

    def count(batch: Any) -> None:
        nonlocal seen
        seen += len(batch)

    with Engine.start(EngineCommand(argv=tuple(argv)), limits=LIMITS) as engine:
        variants: dict[str, Callable[[int, int], None]] = {
            "floor B (decode each line)": (floor := raw_loop(argv, params, batched=False)),
            "ours, to a callback": lambda *_: (
                engine.submit("process", params, timeout=60, on_events=count).result() and None
            ),
        }
        theirs = upstream(argv, params)
        if theirs is not None:
            variants["upstream SDK"] = theirs
        found = interleave(variants, 1, 1, 3 if quick else 5, per=total)
        floor.close()  # type: ignore[attr-defined]
        if theirs is not None:
            theirs.close()  # type: ignore[attr-defined]
    rows = compared(found, "ours, to a callback")
    table(f"One request, {total:,} events", ["who", "us an event", "against ours", "CPU us", "against ours"], rows)


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(argv: list[str], count: int) -> None:
    if not Path("/proc/self/statm").exists():
        return

    def measured(start: Callable[[], Any], ask: Callable[[Any], Any], stop: Callable[[Any], Any]) -> list[str]:
        gc.collect()
        rss, threads, fds = memory(), threading.active_count(), len(os.listdir("/proc/self/fd"))
        started = time.perf_counter()
        living = []
        for _ in range(count):
            living.append(start())
            ask(living[-1])
        spawned = (time.perf_counter() - started) / count * 1e3
        gc.collect()
        used = (memory() - rss) / count / 1024
        more = threading.active_count() - threads
        descriptors = (len(os.listdir("/proc/self/fd")) - fds) / count
        started = time.perf_counter()
        for one in living:
            ask(one)
        asked = (time.perf_counter() - started) / count * 1e6
        for one in living:
            stop(one)
        return [str(more), f"{used:.1f}", f"{descriptors:.1f}", f"{spawned:.2f}", f"{asked:.0f}"]

    command = EngineCommand(argv=tuple(argv))
    rows = [
        [
            "ours",
            *measured(
                lambda: Engine.start(command),
                lambda engine: engine.submit("process", PARAMS, timeout=30).result(),
                lambda engine: engine.kill(),
            ),
        ]
    ]
    with contextlib.suppress(ImportError):
        mlld = importlib.import_module("mlld")
        rows.append(
            [
                "upstream SDK",
                *measured(
                    lambda: mlld.Client(command=argv[0]), lambda c: c.process("show @x"), lambda client: client.close()
                ),
            ]
        )
    header = ["who", "more threads", "KiB each", "descriptors each", "ms to start and answer", "us to ask one"]
    table(f"{count} live children", header, rows)


def restart(argv: list[str], quick: bool) -> None:
    """SIGKILL to answering again, against a bare spawn and first answer."""
    command = EngineCommand(argv=tuple(argv))
    bare: list[Spent] = []
    again: list[Spent] = []
    for _ in range(60 if quick else 200):
        process: Any = None

        def spawn() -> None:
            nonlocal process
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
            process.stdin.write(b'{"method":"process","id":1,"params":{}}\n')
            process.stdout.readline()

        bare.append(spent(spawn, 1))
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        answered = threading.Event()

        def revive(_: Any, answered: threading.Event = answered) -> None:
            nonlocal successor
            successor = Engine.start(command)
            successor.submit("process", PARAMS, timeout=30).add_done_callback(lambda _: answered.set())

        successor: Engine | None = None
        victim = Engine.start(command)
        victim.add_exit_callback(revive)
        victim.call("process", PARAMS, timeout=30)

        def kill_and_wait(pid: int = victim.pid, answered: threading.Event = answered) -> None:
            os.kill(pid, signal.SIGKILL)
            answered.wait(10)

        again.append(spent(kill_and_wait, 1))
        assert successor is not None
        victim.wait(5)
        successor.close()
    found = {"bare spawn and first answer": medians(bare), "SIGKILL to answering again": medians(again)}
    rows = compared(found, "bare spawn and first answer")
    table("Restart of a trivial engine", ["what", "us", "against the floor", "CPU us", "against the floor"], rows)


def main(*args: str) -> None:
    quick = "quick" in args
    with trivial_engine() as argv:
        requests(argv, 0, quick)
        requests(argv, EVENTS, quick)
        if hasattr(os, "sched_setaffinity"):
            with one_core():
                requests(argv, 0, quick, ", all on one core")
        flood(argv, quick)
        restart(argv, quick)
        for count in (200,) if quick else (200, 500):
            children(argv, count)


if __name__ == "__main__":
    main(*sys.argv[1:])
