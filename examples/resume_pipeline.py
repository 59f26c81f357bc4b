"""A long pipeline that dies, and the next start that takes seconds: what was finished is not done again.

MLLD_ENGINE=embedded python examples/resume_pipeline.py --seconds 60 --die-after 25    # dies in its 26th minute
MLLD_ENGINE=embedded python examples/resume_pipeline.py --seconds 60                   # five steps to go
"""

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Job, Runtime, child, one_for_one
from mlld_sdk.telemetry import Event

FLOWS = Path(__file__).with_name("flows")
STEPS = 30


class Pipeline(Agent):
    """Thirty steps, each built on the one before."""

    checkpoint = True
    working_dir = str(FLOWS)

    def run(self, job: Job, payload: dict[str, Any]) -> str:
        """Take the steps; on a resume the finished ones answer from the journal."""
        text = ""
        for n in range(payload["steps"]):
            text = job.execute("step.mld", {"n": n, "after": text}).output.strip()
        return text


def main() -> None:
    """Start the pipeline or go on with it: the same key is the same run."""
    words = argparse.ArgumentParser()
    words.add_argument("--seconds", type=float, default=60.0, help="seconds a step takes")
    words.add_argument("--die-after", type=int, help="steps after which this process kills itself")
    options = words.parse_args()
    began = time.monotonic()
    tree = one_for_one(child(Pipeline, name="pipeline", environ={"PAUSE": str(options.seconds)}))
    runtime = Runtime(tree, store="pipeline.db")
    finished: list[Event] = []

    def die_in_time(event: Event) -> None:
        finished.append(event)
        if len(finished) == options.die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    runtime.bus.attach("death", die_in_time, events=["step.finished"])
    with runtime:
        run = runtime.agent("pipeline").run({"steps": STEPS}, key="the nightly report")
        found = sum(step.state == "finished" for step in run.steps())
        print(run.result(timeout=None))
        print(f"{found} of {STEPS} steps were finished already; the rest took {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
