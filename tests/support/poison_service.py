"""A service in which one kind of run takes the whole process down: started again and again by the test, as by systemd.

Arguments: the folder, the name of the agent that works here. It works until every run of the store has come to rest.
"""

import ctypes
import sys
import time
from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Job, Runtime, child, one_for_one
from mlld_sdk.testing import eventually

FOLDER, NAME = Path(sys.argv[1]), sys.argv[2]


def say(word: str) -> None:
    """Leave a line that survives the process."""
    with (FOLDER / "said.log").open("a") as log:
        log.write(f"{word} {time.monotonic():.3f}\n")


def work(name: str, seconds: float) -> str:
    """Do something that takes its time."""
    say(f"begin-{name}")
    time.sleep(seconds)
    say(f"end-{name}")
    return f"{name} done"


def boom(name: str) -> None:
    """Take the process down as a broken extension module does."""
    say(f"boom-{name}")
    ctypes.string_at(0)


class Worker(Agent):
    """Works on innocent runs, on runs that only wait, and on the one that kills."""

    engine = "embedded"
    concurrency = 6
    engines = 6

    def run(self, job: Job, payload: dict[str, Any]) -> Any:
        name = payload["name"]
        match payload["kind"]:
            case "boom":
                return job.step("heavy", boom, name, idempotent=True)
            case "wait":
                job.sleep(payload["seconds"])
                return f"{name} waited"
            case _:
                long = payload["seconds"]
                return [job.step(f"part {n}", work, f"{name}{n}", long, idempotent=True) for n in range(2)]


def main() -> None:
    tree = one_for_one(child(Worker, name=NAME), max_restarts=100)
    with Runtime(tree, store=FOLDER / "state.db", durability="normal", drain_timeout=0.1) as runtime:
        journal = runtime.journal
        eventually(lambda: not journal.runs(states=("pending", "running")), within=100)


main()
