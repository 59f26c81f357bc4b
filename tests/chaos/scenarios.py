"""What is tried: each scenario breaks real processes for some seconds and says what it did and what was wrong then.

A scenario gets a folder of its own, dice, and a number of seconds. What happens after these seconds (the last run has
to end) is bounded, too: `SETTLING` seconds, and what has not ended by then is lost.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.ledger import Ledger, Verdict, judge
from tests.chaos.worker import SCRIPT
from tests.support.victims import children, descriptors, processes_in, resident

ROOT = Path(__file__).parents[2]
SETTLING = 120.0
LEASE = 4.0
ROOM = 200_000
"""Bytes the ledger may grow by while no file may grow larger than the journal is."""
DISK = 64 * 1024 * 1024
"""Bytes of the small disk: the journal and its log need a part of them, and the rest is filled."""
MOST_DESCRIPTORS, MOST_MEMORY = 8, 48 * 1024 * 1024
"""By how much a soak may grow from its second third to its last."""


class CannotBeTried(Exception):
    """This machine does not allow it; the message says why."""


@dataclass
class Trial:
    """A round of one scenario.

    Attributes:
        folder: Where everything of it is.
        dice: Its chance.
        seconds: How long things are broken.
        tried: What was done, and how often.
        verdict: What was found.
        notes: Measurements to be shown.
    """

    folder: Path
    dice: random.Random
    seconds: float
    tried: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.folder / "ledger")
        self.until = time.monotonic() + self.seconds
        (self.folder / "act.mld").write_text(SCRIPT)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be broken."""
        return time.monotonic() >= self.until

    def pause(self, least: float, most: float) -> None:
        """Let things go on for a random time."""
        time.sleep(self.dice.uniform(least, most))


class Worker:
    """A service in a process of its own."""

    def __init__(self, trial: Trial, name: str = "a", **options: Any) -> None:
        store = str(trial.folder / "state.db")
        plain = {"name": name, "store": store, "lease": LEASE, "window": 6, "every": 0.05, "sections": 2, "pause": 0.02}
        self.trial = trial
        self.options = {**plain, "timeout": 4.0, "settle": False, **options}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.chaos.worker", str(self.trial.folder), json.dumps(self.options)]
        with (self.trial.folder / "said").open("ab") as said:
            return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=said, text=True)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def again(self) -> None:
        """Start it once more, after its death."""
        self.close()
        self.process = self._start()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL it."""
        self.trial.ledger.write("killed", self.process.pid)
        self.signal(signal.SIGKILL)
        self.process.wait(30)

    def close(self) -> None:
        """See to it that it is dead, whatever its state."""
        self.signal(signal.SIGKILL)
        self.process.wait(30)
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def must_live(self, *, while_what: str) -> None:
        """Take its death by itself for wrong, and start it again."""
        if not self.is_alive:
            self.trial.verdict.wrong.append(f"a service ended with {self.process.returncode} while {while_what}")
            self.again()

    def some_engine(self) -> int | None:
        found = children(self.process.pid)
        return self.trial.dice.choice(found) if found else None


@contextlib.contextmanager
def workers(trial: Trial, *names: str, **options: Any) -> Iterator[list[Worker]]:
    """Start services, and afterwards end them and judge what happened."""
    found: list[Worker] = []
    try:
        found += [Worker(trial, name, **options) for name in names]
        yield found
    finally:
        for worker in found:
            if worker.is_alive:
                worker.kill()
            worker.close()


def settle(trial: Trial, *, may_be_late: bool = False, **options: Any) -> None:
    """Let one service in peace finish what there is, then look at what happened."""
    with workers(trial, "z", settle=True, window=1000, **options) as [worker]:
        try:
            status = worker.process.wait(SETTLING)
        except subprocess.TimeoutExpired:
            trial.verdict.wrong.append(f"what was handed in did not end within {SETTLING:g} s")
        else:
            if status:
                trial.verdict.wrong.append(f"the service that finishes the work ended with {status}")
    trial.verdict.add(judge(trial.ledger.path, may_be_late=may_be_late))
    deadline = time.monotonic() + 20
    while (left := processes_in(trial.folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        trial.verdict.wrong.append(f"process {pid} was left behind")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def service_killed(trial: Trial) -> None:
    """SIGKILL the service at random instants, those of its start included, and start it again."""
    with workers(trial, "a") as [worker]:
        while not trial.is_over:
            trial.pause(*trial.dice.choice([(0.05, 0.8), (0.8, 3.0)]))
            worker.must_live(while_what="nothing was done to it")
            worker.kill()
            trial.tried["kills of the service"] += 1
            worker.again()
    settle(trial)


def engines_broken(trial: Trial) -> None:
    """Kill and freeze engines while they work, and kill the agent they belong to."""
    with workers(trial, "a") as [worker]:
        frozen: list[int] = []
        while not trial.is_over:
            trial.pause(0.05, 0.6)
            worker.must_live(while_what="only its engines were broken")
            what = trial.dice.choice(["kill", "kill", "freeze", "thaw", "agent"])
            engine = worker.some_engine()
            with contextlib.suppress(ProcessLookupError):
                if what == "agent":
                    worker.say("kill agent")
                    trial.tried["kills of the agent"] += 1
                elif what == "thaw" and frozen:
                    os.kill(frozen.pop(), signal.SIGCONT)
                elif engine is not None and what in ("kill", "freeze"):
                    os.kill(engine, signal.SIGKILL if what == "kill" else signal.SIGSTOP)
                    trial.tried["kills of engines" if what == "kill" else "engines frozen"] += 1
                    frozen += [engine] if what == "freeze" else []
    settle(trial)


def several_processes(trial: Trial) -> None:
    """Let three services share a journal; kill some, and freeze some for longer than their leases last."""
    with workers(trial, "a", "b", "c", every=0.15) as three:
        frozen: dict[Worker, float] = {}
        try:
            while not trial.is_over:
                trial.pause(0.2, 1.2)
                for worker in [one for one, until in frozen.items() if time.monotonic() >= until]:
                    thaw(worker, frozen)
                worker = trial.dice.choice(three)
                if worker in frozen:
                    continue
                worker.must_live(while_what="nothing was done to it")
                if len(frozen) < 2 and trial.dice.random() < 0.5:
                    worker.signal(signal.SIGSTOP)
                    trial.tried["services frozen past their lease"] += 1
                    frozen[worker] = time.monotonic() + LEASE + trial.dice.uniform(1.0, 3.0)
                else:
                    worker.kill()
                    trial.tried["kills of a service"] += 1
                    worker.again()
            while frozen:
                worker = min(frozen, key=lambda one: frozen[one])
                time.sleep(max(0.0, frozen[worker] - time.monotonic()))
                thaw(worker, frozen)
            trial.pause(1.0, 1.5)  # those that wake late have their say
        finally:
            for worker in list(frozen):
                thaw(worker, frozen)
    settle(trial, may_be_late=True)


def thaw(worker: Worker, frozen: dict[Worker, float]) -> None:
    """Let a frozen service go on."""
    del frozen[worker]
    worker.trial.ledger.write("thawed", worker.process.pid)
    worker.signal(signal.SIGCONT)


def disk_full(trial: Trial) -> None:
    """Fill the disk of the journal to the last byte, make room again, and sometimes kill the service in between."""
    disk = trial.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        raise CannotBeTried("may not mount a small file system here")
    try:
        filled(trial, disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def filled(trial: Trial, disk: Path) -> None:
    store, filler = str(disk / "state.db"), disk / "filler"
    with workers(trial, "a", store=store) as [worker]:
        while not trial.is_over:
            trial.pause(0.8, 2.0)
            worker.must_live(while_what="there was room on its disk")
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(65536))
            trial.tried["disks filled"] += 1
            trial.pause(0.3, 1.5)
            if trial.dice.random() < 0.3:
                worker.kill()
                trial.tried["kills on a full disk"] += 1
            filler.unlink()
            if not worker.is_alive:
                worker.again()
    settle(trial, store=store)


def file_limit(trial: Trial) -> None:
    """Let no file of the service grow larger than its journal is (RLIMIT_FSIZE), and lift the limit again."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    files = [trial.folder / "state.db", trial.folder / "state.db-wal"]
    with workers(trial, "a") as [worker]:
        while not trial.is_over:
            trial.pause(0.8, 2.0)
            worker.must_live(while_what="its files might grow")
            sizes = [file.stat().st_size for file in files if file.exists()]
            size = max([*sizes, trial.ledger.path.stat().st_size + ROOM])
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                trial.tried["limits on files"] += 1
                trial.pause(0.3, 1.5)
                resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, unlimited)
    settle(trial)


def damaged_journal(trial: Trial) -> None:
    """Flip bits of a journal file, read all of it, and take up what had not ended."""
    report(trial, "tests.chaos.damage", str(trial.folder), str(trial.seconds))


def hostile_engines(trial: Trial) -> None:
    """Call engines that lie, die, flood, freeze and do not listen."""
    report(trial, "tests.chaos.hostile_calls", str(trial.seconds))


def report(trial: Trial, module: str, *words: str) -> None:
    """Run a program that does everything by itself and prints what it found."""
    command = [sys.executable, "-m", module, *words, str(trial.dice.randrange(1 << 32))]
    with (trial.folder / "said").open("ab") as said:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=said, timeout=trial.seconds + SETTLING * 2, check=False
        )
    if done.returncode:
        trial.verdict.wrong.append(f"{module} ended with {done.returncode}")
        return
    found = json.loads(done.stdout)
    trial.tried.update(found["tried"])
    for name in ("lost", "doubled", "wrong"):
        getattr(trial.verdict, name).extend(found[name])
    trial.verdict.slowest = found["slowest"]


def soak(trial: Trial) -> None:
    """Let a service work, with the death of an engine or the agent every few seconds, and see whether it grows."""
    seen: list[tuple[float, int, int]] = []
    with workers(trial, "a", every=0.1) as [worker]:
        pid, began, due = worker.process.pid, time.monotonic(), 3.0
        while not trial.is_over and worker.is_alive:
            trial.pause(0.4, 0.6)
            at = time.monotonic() - began
            with contextlib.suppress(OSError):
                seen.append((at, resident(pid), descriptors(pid)))
            if at > due and (engine := worker.some_engine()):
                due = at + trial.dice.uniform(2.0, 5.0)
                with contextlib.suppress(ProcessLookupError):
                    if trial.dice.random() < 0.7:
                        os.kill(engine, signal.SIGKILL)
                        trial.tried["kills of engines"] += 1
                    else:
                        worker.say("kill agent")
                        trial.tried["kills of the agent"] += 1
        worker.must_live(while_what="it was soaked")
    trial.tried["samples"] = len(seen)
    grown(trial, seen[len(seen) // 3 :])
    settle(trial)


def grown(trial: Trial, seen: list[tuple[float, int, int]]) -> None:
    """Compare the first half of what was seen with the second."""
    if len(seen) < 20:
        return
    at, memory, files = zip(*seen, strict=True)
    half = len(seen) // 2
    for name, values, most in (("memory", memory, MOST_MEMORY), ("descriptors", files, MOST_DESCRIPTORS)):
        growth = statistics.median(values[half:]) - statistics.median(values[:half])
        if growth > most:
            trial.verdict.wrong.append(f"{name} of the service grew by {growth:g} within {at[-1] - at[0]:.0f} s")
    slope = statistics.linear_regression(at, memory).slope * 60 / 1024 / 1024
    leak = statistics.linear_regression(at, files).slope * 60
    trial.notes.append(f"memory {slope:+.2f} MiB and descriptors {leak:+.2f} a minute")


SCENARIOS: dict[str, Callable[[Trial], None]] = {
    "service killed": service_killed,
    "engines killed and frozen": engines_broken,
    "several processes on one journal": several_processes,
    "disk full": disk_full,
    "file size limit": file_limit,
    "journal damaged": damaged_journal,
    "hostile engines": hostile_engines,
    "soak": soak,
}
