"""What the transport costs, against the least a program could do and against upstream's SDK.

Everything runs in one process, interleaved (A, B, C, A, B, C, ...), on the same trivial engine, so the ratios mean
something even where the microseconds do not. Run `python benchmarks/transport.py [quick]`.

- *floor A*: a loop over the pipe with msgspec, answers decoded, as many requests as fit in one write
- *floor B*: the same with one write for each request, as any client with an API has to do
- *upstream*: `mlld-sdk` 2.0.5 from PyPI, if it is installed
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.engine import Engine, Limits

PARAMS = {"script": "show @x"}
EVENTS = 10
LIMITS = Limits(in_flight=4096)

ENGINE_C = r"""
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static char in[1 << 22], out[1 << 20];
static size_t filled;
static void flush(void) {
    for (size_t at = 0; at < filled;) {
        ssize_t n = write(1, out + at, filled - at);
        if (n <= 0) _exit(1);
        at += n;
    }
    filled = 0;
}
static void put(const char *text, size_t size) {
    if (filled + size > sizeof out) {
        flush();
    }
    memcpy(out + filled, text, size);
    filled += size;
}
int main(void) {
    size_t have = 0;
    for (;;) {
        ssize_t got = read(0, in + have, sizeof in - have - 1);
        if (got <= 0) return 0;
        have += got;
        in[have] = 0;
        size_t done = 0;
        for (char *end; (end = memchr(in + done, '\n', have - done)); done = end - in + 1) {
            *end = 0;
            char *id_at = strstr(in + done, "\"id\":"), *events_at = strstr(in + done, "\"events\":"), line[200];
            long long id = id_at ? atoll(id_at + 5) : 0;
            long events = events_at ? atol(events_at + 9) : 0;
            for (long n = 0; n < events; n++)
                put(line, sprintf(line, "{\"event\":{\"id\":%lld,\"type\":\"state:write\",\"write\":"
                                        "{\"path\":\"counter\",\"value\":%ld}}}\n", id, n));
            put(line, sprintf(line, "{\"result\":{\"id\":%lld,\"output\":\"ok\"}}\n", id));
        }
        memmove(in, in + done, have - done);
        have -= done;
        flush();
    }
}
"""

ENGINE_PY = """
import os, re
find = re.compile(rb'"id":(\\d+)').search
events = re.compile(rb'"events":(\\d+)').search
rest = b""
while True:
    data = os.read(0, 65536)
    if not data: break
    *lines, rest = (rest + data).split(b"\\n")
    out = []
    for line in lines:
        id_, many = find(line)[1], events(line)
        for n in range(int(many[1]) if many else 0):
            out.append(b'{"event":{"id":%b,"type":"state:write","write":{"path":"counter","value":%d}}}\\n' % (id_, n))
        out.append(b'{"result":{"id":%b,"output":"ok"}}\\n' % id_)
    data = b"".join(out)
    while data: data = data[os.write(1, data):]
"""


@contextlib.contextmanager
def trivial_engine() -> Iterator[list[str]]:
    """Make the fastest engine this machine can: compiled C, or Python where there is no compiler."""
    with tempfile.TemporaryDirectory() as place:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        source = Path(place, "engine.c" if compiler else "engine.py")
        source.write_text(ENGINE_C if compiler else ENGINE_PY)
        binary = str(Path(place, "engine"))
        if compiler and subprocess.run([compiler, "-O2", str(source), "-o", binary], check=False).returncode == 0:
            yield [binary]
        else:
            Path(place, "engine.py").write_text(ENGINE_PY)
            script = Path(binary)
            script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -S -E '{place}/engine.py'\n")
            script.chmod(0o755)
            yield [binary]


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
    many = windowed(
        lambda: engine.submit("process", params, timeout=30.0, on_events=take),
        lambda call: call.result().decode(Answer).output,
    )

    def run(window: int, total: int) -> None:
        if window > 1:
            many(window, total)
            return
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


def interleave(
    variants: dict[str, Callable[[int, int], None]], window: int, total: int, rounds: int
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            gc.collect()
            started = time.perf_counter()
            run(window, total)
            times[name].append((time.perf_counter() - started) / total * 1e6)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


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
        variants = {
            "floor A (batched)": raw_loop(argv, params, batched=True),
            "floor B (a write each)": raw_loop(argv, params, batched=False),
            "ours": ours(engine, params, (lambda batch: None) if events else None),
        }
        theirs = upstream(argv, params)
        if theirs is not None:
            variants["upstream SDK"] = theirs
        rows = []
        for window, total in ((1, 1500), (16, 4000), (256, 8000)):
            total = total // (1 + events // 4) // (4 if quick else 1)
            median = interleave(variants, window, total, 3 if quick else 7)
            mine = median["ours"]
            for name, value in median.items():
                ratio = f"{value / mine:.2f}" if name != "ours" else "1"
                rows.append([str(window), name, f"{value:.1f}", ratio])
        for run in variants.values():
            getattr(run, "close", lambda: None)()
    title = (f"Requests, {events} events each" if events else "Requests") + note
    table(title, ["in flight", "who", "us a request", "against ours"], rows)


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
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(3 if quick else 5):
            for name, run in variants.items():
                started = time.perf_counter()
                run(1, 1)
                times[name].append((time.perf_counter() - started) / total * 1e6)
        floor.close()  # type: ignore[attr-defined]
        if theirs is not None:
            theirs.close()  # type: ignore[attr-defined]
    median = {name: statistics.median(values) for name, values in times.items()}
    mine = median["ours, to a callback"]
    rows = [[name, f"{value:.2f}", f"{value / mine:.2f}"] for name, value in median.items()]
    table(f"One request, {total:,} events", ["who", "us an event", "against ours"], rows)


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
    bare: list[float] = []
    again: list[float] = []
    for _ in range(60 if quick else 200):
        started = time.perf_counter()
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"method":"process","id":1,"params":{}}\n')
        process.stdout.readline()
        bare.append(time.perf_counter() - started)
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
        victim = Engine.start(command, on_exit=revive)
        victim.call("process", PARAMS, timeout=30)
        started = time.perf_counter()
        os.kill(victim.pid, signal.SIGKILL)
        answered.wait(10)
        again.append(time.perf_counter() - started)
        assert successor is not None
        victim.wait(5)
        successor._exit_callbacks.clear()
        successor.close()
    floor, ours_ = statistics.median(bare), statistics.median(again)
    rows = [
        ["bare spawn and first answer", f"{floor * 1e6:.0f}", "1"],
        ["SIGKILL to answering again", f"{ours_ * 1e6:.0f}", f"{ours_ / floor:.2f}"],
    ]
    table("Restart of a trivial engine", ["what", "us", "against the floor"], rows)


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
