"""What really happened, and whether it was right: one file that all append to, and a checker that reads nothing else.

A line is one act, written by one `write` to a file opened with `O_APPEND`, so that the order of the lines is the order
of what they say, whoever wrote them. The checker knows neither journal nor agents.

    handed RUN SECTIONS TIME      the run was handed in, and the call has returned
    act RUN STEP OWNER            a step acts; OWNER is the process on whose behalf
    known RUN STEP VALUE OWNER    the code of the run was given the value of the step
    answer RUN VALUE TIME         who handed the run in was given its result
    killed OWNER, thawed OWNER    what was done to a process
    verified PROBLEMS             the journal has looked at itself
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("script", "again", "once", "branch1", "branch2")
"""The steps of a section of a run. All but `once` are declared harmless to repeat."""

IN_FLIGHT = 32
"""More than one process has under way at once."""


def steps(sections: int) -> list[str]:
    """Name the steps of a run in order."""
    return [f"{kind}-{section}" for section in range(sections) for kind in KINDS]


def value(run: str, step: str) -> str:
    """Say what a step must give."""
    return f"{run}/{step}"


def result(run: str, sections: int) -> str:
    """Say what a run must give."""
    return "+".join(value(run, step) for step in steps(sections))


class Ledger:
    """The file, for those who write to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object) -> None:
        """Append a line."""
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def lines(path: Path) -> Iterator[list[str]]:
    """Read the file."""
    if path.exists():
        for line in path.read_text().splitlines():
            yield line.split(" ")


def clock() -> float:
    """Tell the time that all processes of this machine agree on."""
    return time.monotonic()


@dataclass
class Verdict:
    """What was found.

    Attributes:
        runs: Runs that were handed in.
        acts: Steps that acted.
        again: Acts of steps that had been interrupted and may be repeated.
        late: Acts of a process that had been frozen or killed, after another had finished the step.
        lost: Runs without a result, and results without an act.
        doubled: Acts of a step that was known to be finished, or that must not be repeated.
        wrong: Values, answers and files that are not what they must be.
        slowest: Seconds from handing in to the answer.
    """

    runs: int = 0
    acts: int = 0
    again: int = 0
    late: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether nothing is lost, doubled or wrong."""
        return not (self.lost or self.doubled or self.wrong)

    def add(self, other: "Verdict") -> None:
        """Count what another one has found, too."""
        for name in ("runs", "acts", "again", "late"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("lost", "doubled", "wrong"):
            getattr(self, name).extend(getattr(other, name))
        self.slowest = max(self.slowest, other.slowest)


def judge(path: Path, *, may_be_late: bool = False) -> Verdict:
    """Read the file and say what is wrong with it.

    Args:
        path: The file.
        may_be_late: Whether several processes take over from each other: then one that was frozen or killed between the
            beginning of a step and its effect may act after another has repeated the step.
    """
    found = Verdict()
    handed: dict[str, tuple[int, float]] = {}
    answered: set[str] = set()
    acted: Counter[tuple[str, str]] = Counter()
    known: set[tuple[str, str]] = set()
    excused: Counter[str] = Counter()
    for word, *rest in lines(path):
        if word == "handed":
            handed.setdefault(rest[0], (int(rest[1]), float(rest[2])))
        elif word == "act":
            run, step, owner = rest
            found.acts += 1
            acted[run, step] += 1
            if (run, step) in known and may_be_late and excused[owner] > 0:
                excused[owner] -= 1
                found.late += 1
            elif (run, step) in known or (acted[run, step] > 1 and step.startswith("once")):
                found.doubled.append(f"{step} of {run} acted again, in process {owner}")
            elif acted[run, step] > 1:
                found.again += 1
        elif word == "known":
            run, step, given, _ = rest
            known.add((run, step))
            if given != value(run, step):
                found.wrong.append(f"{step} of {run} gave {given}")
            if not acted[run, step]:
                found.lost.append(f"{step} of {run} has a value and never acted")
        elif word == "answer":
            run, given, at = rest
            sections, since = handed.get(run, (0, 0.0))
            if given != result(run, sections):
                found.wrong.append(f"{run} answered {given[:200]}")
            if run not in answered:
                answered.add(run)
                found.slowest = max(found.slowest, float(at) - since)
        elif word in ("killed", "thawed"):
            excused[rest[0]] = IN_FLIGHT
        elif word == "verified" and rest[0] != "0":
            found.wrong.append(f"the journal found {rest[0]} of its records damaged")
    found.runs = len(handed)
    found.lost += [f"{run} was handed in and never answered" for run in handed if run not in answered]
    return found
