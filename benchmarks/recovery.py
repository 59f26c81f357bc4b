"""What durability costs, and how long it takes to come back: ratios against the bare floor, measured in the same run.

Run it with `python benchmarks/recovery.py`; it prints Markdown. Absolute times depend on the disk; the ratios are
medians of interleaved rounds, so that a noisy moment hits both sides. Nothing asserts on them.
"""

import contextlib
import gc
import os
import queue
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pykka
from _trivial import trivial_engine
from msgspec.structs import replace

from mlld_sdk import Agent, InfrastructureError, Runtime, child, one_for_one
from mlld_sdk.journal import Journal, RunLease, StepPolicy
from mlld_sdk.journal.records import StepRecord, pack

RESULT = {"step": "call_model", "output": "x" * 150, "n": 5, "ok": True}


class RawGroup:
    """The floor: SQLite, WAL, FULL, one writer thread with group commit, and nothing else."""

    def __init__(self, path: Path) -> None:
        self.queue: queue.SimpleQueue[tuple | None] = queue.SimpleQueue()
        self.path = path
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def put(self, run: str, position: str, body: bytes) -> None:
        gate = allocate_lock()
        gate.acquire()
        self.queue.put((run, position, body, gate))
        gate.acquire()

    def close(self) -> None:
        self.queue.put(None)
        self.thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE steps (run, position, body, PRIMARY KEY (run, position)) WITHOUT ROWID")
        sql = "INSERT INTO steps VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET body=excluded.body"
        while (first := self.queue.get()) is not None:
            group = [first]
            while not self.queue.empty() and len(group) < 512 and (more := self.queue.get()) is not None:
                group.append(more)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(sql, [row[:3] for row in group])
            connection.execute("COMMIT")
            for row in group:
                row[3].release()
        connection.close()


def in_threads(works: list[Callable[[], None]]) -> float:
    """Run all at once; give the seconds until the last is done."""
    threads = [threading.Thread(target=work) for work in works]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def sample_step(run_id: str, position: str) -> tuple[bytes, bytes]:
    """Give the bytes the journal writes when a step begins and when it ends."""
    with Journal.open(retention=None) as journal:
        fingerprint = journal.fingerprint("ask")
        step = StepRecord(
            run_id=run_id,
            position=position,
            name="ask",
            fingerprint=fingerprint.digest,
            asked=fingerprint.asked,
            policy=StepPolicy(),
            state="started",
            attempts=1,
            started=journal.env.wall(),
        )
        raw = journal.values.encode(RESULT, "result", 10_000)
    return pack(step), pack(replace(step, state="finished", result=raw, ended=step.started))


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlld-bench-", dir=Path.cwd()) as folder:
        yield Path(folder)


def durable_steps(writers: int, steps: int, rounds: int = 20) -> tuple[float, float, float]:
    """Time durable steps (a begin and an end each); gives steps per second for us, for raw SQLite, and the ratio.

    Each side goes first in every other round, so that neither always finds the disk as the other has left it.
    """
    ours: list[float] = []
    raw: list[float] = []
    with scratch() as folder, Journal.open(folder / "journal.db", retention=None) as journal:
        floor = RawGroup(folder / "raw.db")
        fingerprint = journal.fingerprint("ask")
        leases = [journal.claim(journal.submit("bench", n).id, "bench") for n in range(writers)]
        begun, ended = sample_step(leases[0].run_id, "1.100")

        def work(lease: RunLease, number: int) -> None:
            for n in range(1, steps + 1):
                position = f"{number}.{n}"
                lease.begin_step(position, "ask", fingerprint)
                lease.finish_step(position, RESULT)

        def work_raw(run_id: str, number: int) -> None:
            for n in range(1, steps + 1):
                position = f"{number}.{n}"
                floor.put(run_id, position, begun)
                floor.put(run_id, position, ended)

        for number in range(1, rounds + 1):
            sides = [
                (ours, [partial(work, lease, number) for lease in leases]),
                (raw, [partial(work_raw, lease.run_id, number) for lease in leases]),
            ]
            for times, works in sides if number % 2 else reversed(sides):
                times.append(in_threads(works))
        floor.close()
    total = writers * steps
    ratio = statistics.median(r / o for o, r in zip(ours, raw, strict=True))
    return total / statistics.median(ours), total / statistics.median(raw), ratio


def resume(steps: int, rounds: int) -> tuple[float, float, float]:
    """Time resuming a run with finished steps; gives seconds for us, for reading the rows raw, and the ratio.

    What a turn has read is dropped before the next begins: neither side pays for the other's memory.
    """
    with scratch() as folder, Journal.open(folder / "journal.db", retention=None, durability="normal") as journal:
        run_id = journal.submit("bench").id
        fingerprint = journal.fingerprint("ask")
        lease = journal.claim(run_id, "first")

        def fill(share: int) -> None:
            for n in range(share + 1, steps + 1, 32):
                lease.begin_step(str(n), "ask", fingerprint)
                lease.finish_step(str(n), RESULT)

        in_threads([partial(fill, share) for share in range(32)])
        lease.release()
        ours: list[float] = []
        raw: list[float] = []
        positions = [str(n) for n in range(1, steps + 1)]
        for _ in range(rounds):
            del lease
            gc.collect()
            start = time.perf_counter()
            lease = journal.claim(run_id, "again")
            for position in positions:
                lease.begin_step(position, "ask", fingerprint)
            ours.append(time.perf_counter() - start)
            lease.release()
            gc.collect()
            start = time.perf_counter()
            connection = sqlite3.connect(folder / "journal.db")
            rows = connection.execute("SELECT position, body FROM steps WHERE run=?", (run_id,)).fetchall()
            raw.append(time.perf_counter() - start)
            assert len(rows) == steps
            del rows
            connection.close()
    ratio = statistics.median(o / r for o, r in zip(ours, raw, strict=True))
    return statistics.median(ours), statistics.median(raw), ratio


def journal_report() -> str:
    """Measure the journal and write it up as Markdown."""
    lines = [
        "### Durable steps",
        "",
        "A step is two durable writes. The floor is bare SQLite (WAL, FULL, one writer thread, group commit)",
        "writing the same bytes.",
        "",
        "| writers | steps/s | floor, steps/s | of the floor |",
        "|---:|---:|---:|---:|",
    ]
    for writers, steps in ((1, 100), (16, 60)):
        ours, raw, ratio = durable_steps(writers, steps)
        lines.append(f"| {writers} | {ours:,.0f} | {raw:,.0f} | {ratio:.2f} |")
    lines += [
        "",
        "### Resuming a run",
        "",
        "Every finished step is asked for again and answered from the journal: found, checked against its checksum and",
        "its fingerprint. Its value is decoded when it is read, which this benchmark does not do.",
        "The floor reads the same rows raw.",
        "",
        "| finished steps | resume, ms | floor, ms | times the floor |",
        "|---:|---:|---:|---:|",
    ]
    for steps, rounds in ((1_000, 50), (100_000, 7)):
        ours, raw, ratio = resume(steps, rounds)
        lines.append(f"| {steps:,} | {ours * 1e3:.1f} | {raw * 1e3:.1f} | {ratio:.1f} |")
    return "\n".join(lines)


# -- coming back ------------------------------------------------------------------------------------------------------


def first_answer(argv: list[str]) -> tuple[subprocess.Popen[bytes], float]:
    """Start an engine by hand and ask it once; gives it, and the seconds until it has answered."""
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"method":"process","id":1,"params":{"script":"show `1`"}}\n')
    process.stdout.readline()
    return process, time.perf_counter() - start


def bare_respawn(argv: list[str]) -> float:
    """The floor: what a program does that only starts the engine again."""
    process, took = first_answer(argv)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    return took


class Victim:
    """A supervised agent whose engine is killed in the middle of a request, over and over."""

    def __init__(self, runtime: Runtime, name: str, spares: int, hang: str, ask: str) -> None:
        self.agent = runtime.agent(name)
        self.requests = runtime.services.requests
        assert runtime.services.tree is not None
        self.context = runtime.services.tree.context
        self.spares = spares
        self.hang = hang
        self.ask = ask

    def measure(self) -> float:
        """Seconds from the kill of all it has at work to an answer by the next incarnation."""
        self.agent.process(self.ask)
        stuck = threading.Thread(target=self._get_stuck)
        stuck.start()
        while not (leases := self.requests[self.agent.name].source.leases):
            time.sleep(0.001)
        [lease] = leases
        time.sleep(0.02)  # let the request reach the engine, and a spare be warmed behind it
        while self.agent.status().engines.idle < self.spares:
            time.sleep(0.001)
        before = self.agent.ref
        start = time.perf_counter()
        os.kill(lease.engine.pid, signal.SIGKILL)
        self.context.wait_for(lambda: self.agent.ref not in (None, before), 10.0)
        self.agent.process(self.ask)
        took = time.perf_counter() - start
        stuck.join()
        lease.engine.wait(5.0)  # what is removed after one death is not to be paid by the next
        return took

    def _get_stuck(self) -> None:
        with contextlib.suppress(InfrastructureError):
            self.agent.process(self.hang)


def comeback(argv: list[str], engine: dict[str, Any], hang: str, rounds: int) -> dict[str, float]:
    """Medians of the floor, of an agent that starts its engine again, and of one with a warm spare."""
    tree = one_for_one(
        child(Agent, name="cold", **engine),
        child(Agent, name="spare", spares=1, **engine),
        max_restarts=1_000_000,
        within=60.0,
    )
    with Runtime(tree) as runtime:
        works = {
            "bare spawn and first answer": partial(bare_respawn, argv),
            "agent": Victim(runtime, "cold", 0, hang, 'show "1"').measure,
            "agent with a spare": Victim(runtime, "spare", 1, hang, 'show "1"').measure,
        }
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                times[name].append(work())
    return {name: statistics.median(values) for name, values in times.items()}


def comeback_report() -> str:
    """Measure how long it takes to come back, and write it up as Markdown."""
    lines = [
        "### Engine killed, answering again",
        "",
        "SIGKILL of the engine of a supervised agent in the middle of a request: the agent crashes, its supervisor",
        "restarts it, and the next request is answered. The floor only starts the engine and asks it once.",
        "",
        "| engine | who | ms | against the floor |",
        "|---|---|---:|---:|",
    ]
    embedded = [sys.executable, "-m", "mlld_sdk.transport.embedded", "live", "--stdio"]
    with trivial_engine() as trivial:
        for name, argv, engine, hang, rounds in (
            ("trivial", trivial, {"engine": "live", "command": trivial[0]}, "hang", 40),
            ("embedded", embedded, {"engine": "embedded"}, "run sh { sleep 60 }", 15),
        ):
            medians = comeback(argv, engine, hang, rounds)
            floor = medians["bare spawn and first answer"]
            lines += [f"| {name} | {who} | {took * 1e3:.2f} | {took / floor:.2f} |" for who, took in medians.items()]
    return "\n".join(lines)


# -- ten thousand ------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class RawActor(pykka.ThreadingActor):
    """A bare Pykka actor: what an agent would be without this library, before it has an engine."""

    use_daemon_thread = True


def declared(count: int, raw: int) -> str:
    """Start so many agents, and fewer bare Pykka actors; neither has an engine."""
    gc.collect()
    before, start = resident(), time.perf_counter()
    refs = [RawActor.start() for _ in range(raw)]
    raw_start, raw_size = (time.perf_counter() - start) / raw, (resident() - before) / raw
    for ref in refs:
        ref.stop(block=False)
    for ref in refs:
        ref.actor_stopped.wait(60)
    gc.collect()
    before, threads, start = resident(), threading.active_count(), time.perf_counter()
    tree = one_for_one(*(child(Agent, name=f"agent-{n}", engine="embedded") for n in range(count)))
    with Runtime(tree, max_engines=4) as runtime:
        ours, size = (time.perf_counter() - start) / count, (resident() - before) / count
        threads = threading.active_count() - threads
        runtime.agent(f"agent-{count // 2}").process('show "1"')
        start = time.perf_counter()
    stop = (time.perf_counter() - start) / count
    rows = [
        ("start, us each", raw_start * 1e6, ours * 1e6),
        ("resident, KiB each", raw_size / 1024, size / 1024),
        ("threads for all", float(raw), float(threads)),
    ]
    lines = [
        f"### {count:,} declared agents",
        "",
        f"Supervised and ready to work, without engines, against {raw:,} bare Pykka actors, unsupervised.",
        "",
        "| what | bare Pykka | agents | ratio |",
        "|---|---:|---:|---:|",
        *(f"| {what} | {theirs:,.1f} | {mine:,.1f} | {mine / theirs:.3f} |" for what, theirs, mine in rows),
        f"| stop in order, us each | - | {stop * 1e6:,.1f} | - |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(journal_report())
    print("\n" + comeback_report())
    print("\n" + declared(10_000, 2_000))
