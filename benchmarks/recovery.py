"""What durability costs, and how long it takes to come back: ratios against the bare floor, measured in the same run.

Run it with `python benchmarks/recovery.py`; it prints Markdown. Absolute times depend on the disk; the ratios are
medians of interleaved rounds, so that a noisy moment hits both sides. Nothing asserts on them.
"""

import queue
import sqlite3
import statistics
import tempfile
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from mlld_sdk.journal import Journal, Lease, StepPolicy
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


def durable_steps(writers: int, steps: int, rounds: int = 7) -> tuple[float, float, float]:
    """Time durable steps (a begin and an end each); gives steps per second for us, for raw SQLite, and the ratio."""
    ours: list[float] = []
    raw: list[float] = []
    with scratch() as folder, Journal.open(folder / "journal.db", retention=None) as journal:
        floor = RawGroup(folder / "raw.db")
        fingerprint = journal.fingerprint("ask")
        leases = [journal.claim(journal.submit("bench", n).id, "bench") for n in range(writers)]
        begun, ended = sample_step(leases[0].run_id, "1.100")

        def work(lease: Lease, number: int) -> None:
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
            ours.append(in_threads([partial(work, lease, number) for lease in leases]))
            raw.append(in_threads([partial(work_raw, lease.run_id, number) for lease in leases]))
        floor.close()
    total = writers * steps
    ratio = statistics.median(r / o for o, r in zip(ours, raw, strict=True))
    return total / statistics.median(ours), total / statistics.median(raw), ratio


def resume(steps: int, rounds: int = 5) -> tuple[float, float, float]:
    """Time resuming a run with finished steps; gives seconds for us, for reading the rows raw, and the ratio."""
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
            start = time.perf_counter()
            lease = journal.claim(run_id, "again")
            for position in positions:
                lease.begin_step(position, "ask", fingerprint)
            ours.append(time.perf_counter() - start)
            lease.release()
            start = time.perf_counter()
            connection = sqlite3.connect(folder / "journal.db")
            rows = connection.execute("SELECT position, body FROM steps WHERE run=?", (run_id,)).fetchall()
            raw.append(time.perf_counter() - start)
            assert len(rows) == steps
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
    for writers, steps in ((1, 150), (16, 60)):
        ours, raw, ratio = durable_steps(writers, steps)
        lines.append(f"| {writers} | {ours:,.0f} | {raw:,.0f} | {ratio:.2f} |")
    lines += [
        "",
        "### Resuming a run",
        "",
        "Every finished step is asked for again and answered from the journal. The floor reads the same rows raw.",
        "",
        "| finished steps | resume, ms | floor, ms | times the floor |",
        "|---:|---:|---:|---:|",
    ]
    for steps in (1_000, 100_000):
        ours, raw, ratio = resume(steps)
        lines.append(f"| {steps:,} | {ours * 1e3:.1f} | {raw * 1e3:.1f} | {ratio:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(journal_report())
