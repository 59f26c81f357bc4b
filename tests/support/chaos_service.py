"""A service to be killed: one agent on one long run with branches, every effect of which leaves a line in a log."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Job, Recycle, Runtime, child, one_for_one
from mlld_sdk.journal import JournalLimits

DIRECTORY = Path(sys.argv[1])
OPTIONS: dict[str, Any] = json.loads(sys.argv[2])
ENGINE: dict[str, Any] = json.loads(sys.argv[3])


class Pipeline(Agent):
    """Alternates script steps, Python steps and parallel branches of both."""

    checkpoint = True
    engines = 3
    spares = 1
    step_attempts = 100
    recycle = Recycle(max_leases=50)

    def run(self, job: Job, payload: dict[str, Any]) -> list[str]:
        found: list[str] = []
        for section in range(payload["sections"]):
            found.append(self.think(job, f"{section}a"))
            found.append(job.step(f"note {section}", self.note, f"{section}b", idempotent=True))
            found += job.map(
                lambda n, branch, section=section: self.branch(branch, f"{section}c{n}"), range(4), concurrency=3
            )
        return found

    def think(self, job: Job, name: str) -> str:
        return job.execute("think.mld", {"n": name}).output.strip()

    def branch(self, job: Job, name: str) -> str:
        return self.think(job, f"{name}x") + " " + job.step(f"note {name}", self.note, f"{name}y", idempotent=True)

    def note(self, name: str) -> str:
        with (DIRECTORY / "calls.log").open("a") as log:
            log.write(f"{name} 0\n")
        return f"noted {name}"


def obey(runtime: Runtime) -> None:
    for line in sys.stdin:
        ref = runtime["pipeline"].ref
        if ref is not None and line.strip() == "kill agent":
            ref.kill("chaos")


def main() -> None:
    tree = one_for_one(
        child(Pipeline, name="pipeline", working_dir=str(DIRECTORY), environ={"PAUSE": OPTIONS["pause"]}, **ENGINE),
        max_restarts=1000,
        within=1.0,
    )
    with Runtime(tree, store=DIRECTORY / "state.db", limits=JournalLimits(max_deaths=1000)) as runtime:
        run = runtime["pipeline"].run({"sections": OPTIONS["sections"]}, key="chaos", run_id="chaos")
        threading.Thread(target=obey, args=(runtime,), daemon=True).start()
        result = run.result(timeout=300)
    (DIRECTORY / "result.json").write_text(json.dumps(result))


main()
