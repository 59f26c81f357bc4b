"""A journal with flipped bits: what is read from it is right, or refused, or found by `verify`.

    python -m tests.chaos.damage FOLDER SECONDS SEED

Prints what it found as one JSON object.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlld_sdk.base.errors import MlldError
from mlld_sdk.journal import Fresh, Journal, JournalLimits, Replay
from tests.support.journal import act, begin, quick

RUNS, STEPS = 40, 12
QUICK = JournalLimits(write_timeout=0.6)


def value(run: str, step: int | str) -> dict[str, Any]:
    """Say what a step gave."""
    return {"run": run, "step": str(step), "text": "abc" * 60}


def names() -> Iterator[tuple[str, bool]]:
    """List the runs, and whether they have ended."""
    for n in range(RUNS):
        yield f"run-{n}", n % 2 == 0


def fill(path: Path) -> None:
    """Make a journal in which half of the runs have ended and half have only their steps finished."""
    with quick(path) as journal:
        for run, ended in names():
            lease = journal.claim(journal.submit("kind", {"of": run}, run_id=run).id, "w")
            for step in range(1, STEPS + 1):
                act(journal, lease, str(step), value(run, step))
            if ended:
                lease.finish_run(value(run, "end"))
            else:
                lease.release()


class Reader:
    """Reads everything that should be there, and takes up what has not ended."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.refused = 0
        self.missing: list[str] = []
        self.wrong: list[str] = []
        self.doubled: list[str] = []

    def read(self) -> None:
        for run, ended in names():
            self.ask(f"the input of {run}", lambda run=run: self.journal.input(run), {"of": run})
            self.ask(f"the steps of {run}", lambda run=run: self.steps(run), {s: value(run, s) for s in order()})
            if ended:
                self.ask(f"the outcome of {run}", lambda run=run: self.outcome(run), ("finished", value(run, "end")))
            else:
                self.resume(run)

    def ask(self, what: str, question: Any, right: object) -> None:
        try:
            given = question()
        except MlldError:
            self.refused += 1
            return
        if given == right:
            return
        if isinstance(given, dict) and isinstance(right, dict) and given.items() <= right.items():
            self.missing.append(what)
        else:
            self.wrong.append(f"{what} is {given!r:.200}")

    def steps(self, run: str) -> dict[str, Any]:
        return {step.position: self.journal.step_result(step) for step in self.journal.steps(run)}

    def outcome(self, run: str) -> tuple[str, Any]:
        outcome = self.journal.outcome(run)
        return ("none", None) if outcome is None else (outcome.state, outcome.value)

    def resume(self, run: str) -> None:
        try:
            lease = self.journal.claim(run, "w")
            for step in order():
                match begin(self.journal, lease, step):
                    case Replay(value=given) if given != value(run, step):
                        self.wrong.append(f"step {step} of {run} was resumed with {given!r:.200}")
                    case Fresh():
                        self.doubled.append(f"step {step} of {run}, which had finished, would act again")
        except MlldError:
            self.refused += 1


def order() -> list[str]:
    return [str(step) for step in range(1, STEPS + 1)]


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Flip up to eight bits anywhere."""
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 2, 4, 8])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def try_one(path: Path, tried: Counter[str], found: dict[str, list[str]], seed: str) -> None:
    """Open a damaged file and read it."""
    try:
        with quick(path, limits=QUICK) as journal:
            verified = len(journal.verify())
            reader = Reader(journal)
            reader.read()
    except MlldError:
        tried["refused at the door"] += 1
        return
    except Exception as error:
        found["wrong"].append(f"an error without a name: {error!r} ({seed})")
        return
    tried["something refused"] += bool(reader.refused)
    tried["found by verify"] += bool(verified)
    tried["served right"] += not (reader.refused or reader.missing or reader.doubled)
    found["wrong"] += [f"{what} ({seed})" for what in reader.wrong]
    tried["steps vanished, found by verify"] += len(reader.doubled) if verified else 0
    found["doubled"] += [f"{what} ({seed})" for what in reader.doubled if not verified]
    found["lost"] += [f"{what} are not all there ({seed})" for what in reader.missing if not verified]


def main() -> None:
    folder, until, seed = Path(sys.argv[1]), time.monotonic() + float(sys.argv[2]), sys.argv[3]
    sound = folder / "sound.db"
    fill(sound)
    whole = sound.read_bytes()
    tried: Counter[str] = Counter()
    found: dict[str, list[str]] = {"lost": [], "doubled": [], "wrong": []}
    turn = 0
    while time.monotonic() < until or not turn:
        turn += 1
        path = folder / f"{turn}.db"
        path.write_bytes(damaged(whole, random.Random(f"{seed}/{turn}")))
        try_one(path, tried, found, f"seed {seed}/{turn}")
        for file in folder.glob(f"{turn}.db*"):
            if file.is_file():
                file.unlink()
            else:
                for left in file.iterdir():
                    left.unlink()
                file.rmdir()
    tried["files"] = turn
    print(json.dumps({"tried": tried, "slowest": 0.0, **found}), flush=True)


if __name__ == "__main__":
    main()
