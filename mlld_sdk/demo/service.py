"""The service the recovery demo keeps killing: one supervised agent working on one durable run.

Run as a process of its own. It writes events as JSON lines to stdout and takes one command on stdin, `kill agent`.
"""

import argparse
import sys
import threading
from pathlib import Path
from typing import Any, get_args

import msgspec

from mlld_sdk import Agent, Job, Runtime, child, one_for_one
from mlld_sdk.base.events import Event
from mlld_sdk.journal.events import RunClaimed, StepFinished, StepStarted
from mlld_sdk.supervision.events import ChildExited, ChildStarted
from mlld_sdk.transport.events import EngineStarted

SCRIPT = """\
exe llm @think(n) = sh {
  sleep $PAUSE
  echo "$n $PPID" >> calls.log
  echo "thought $n"
}
show @think(@payload.n)
"""
"""One step: an expensive call, imitated by a pause, that leaves a line behind each time it is really made."""

KEY = "recovery-demo"


class WorkDone(Event, frozen=True, kw_only=True, tag="demo.result"):
    """The run has ended.

    Attributes:
        result: What it returned.
        tree: The printed tree.
    """

    result: str
    tree: str


Told = ChildExited | ChildStarted | EngineStarted | RunClaimed | StepStarted | StepFinished | WorkDone
"""The events that are written."""


class Pipeline(Agent):
    """Thinks step by step, each step a script of its own and each built on the one before."""

    checkpoint = True
    spares = 1

    def run(self, job: Job, payload: dict[str, Any]) -> str:
        """Take the steps in order."""
        thoughts = []
        for n in range(1, payload["steps"] + 1):
            thoughts.append(job.execute("think.mld", {"n": str(n)}).output.strip())
            job.progress(thoughts[-1], n / payload["steps"])
        return "\n".join(thoughts)


def main() -> None:
    """Work on the run until it has ended; a second start goes on where the first was killed."""
    options = _options()
    (options.dir / "think.mld").write_text(SCRIPT, encoding="utf-8")
    tree = one_for_one(
        child(
            Pipeline,
            name="pipeline",
            engine=options.engine,
            working_dir=str(options.dir),
            environ={"PAUSE": str(options.pause)},
        ),
        max_restarts=5,
        within=10.0,
    )
    runtime = Runtime(tree, store=options.dir / "state.db")
    runtime.bus.attach("demo", _write, events=get_args(Told))
    with runtime:
        run = runtime["pipeline"].run({"steps": options.steps}, key=KEY)
        threading.Thread(target=_obey, args=(runtime,), daemon=True).start()
        result = run.result(timeout=120)
        runtime.bus.detach("demo")
        _write(WorkDone(at=runtime.env.wall(), result=result, tree=runtime.tree()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mlld_sdk.demo.service", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--engine", choices=("live", "bridge", "embedded"), default="embedded")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--pause", type=float, default=0.1)
    return parser.parse_args()


def _obey(runtime: Runtime) -> None:
    for line in sys.stdin:
        if line.strip() == "kill agent":
            ref = runtime["pipeline"].ref
            if ref is not None:
                ref.kill("the demo wanted to see it die")


def _write(event: Event) -> None:
    sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
