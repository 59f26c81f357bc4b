"""A supervised agent: its engine is killed in the middle of the work, and the work finishes all the same.

MLLD_ENGINE=embedded python examples/supervised_agent.py
"""

import os
import signal
from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Job, Runtime, child, one_for_one
from mlld_sdk.telemetry import Event
from mlld_sdk.transport.events import EngineStarted

FLOWS = Path(__file__).with_name("flows")


class Writer(Agent):
    """Writes section by section; every section is a step, and a finished step is never repeated."""

    checkpoint = True
    working_dir = str(FLOWS)

    def run(self, job: Job, payload: dict[str, Any]) -> list[str]:
        """Write the sections in order."""
        sections: list[str] = []
        for n in range(payload["sections"]):
            sections.append(job.execute("section.mld", {"n": n}).output.strip())
            job.progress(f"{n + 1} of {payload['sections']}")
        return sections


def main() -> None:
    """Submit a run, kill the engine in the middle of the third section, and wait for the result."""
    gate = Path("gate").resolve()
    os.mkfifo(gate)
    tree = one_for_one(
        child(Writer, name="writer", environ={"PAUSE": "0.2", "GATE": str(gate)}), max_restarts=3, within=5.0
    )
    engines: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, EngineStarted):
            engines.append(event.pid)

    runtime = Runtime(tree, store="state.db")
    runtime.bus.attach_inline("engines", note)
    with runtime:
        run = runtime.agent("writer").run({"sections": 5})
        with gate.open("w"):  # returns as soon as the third section is being written and reads from the other end
            os.kill(engines[-1], signal.SIGKILL)
            gate.unlink()
        print(run.result(timeout=60))
        print(f"attempts: {run.record().attempt}, steps begun: {[step.attempts for step in run.steps()]}")
        print(runtime.tree())


if __name__ == "__main__":
    main()
