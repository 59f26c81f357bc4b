"""Collect once, analyse three times: each analysis starts from what the collection has paid for.

MLLD_ENGINE=embedded python examples/fork_analyses.py
"""

from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Job, Runtime, child, one_for_one

FLOWS = Path(__file__).with_name("flows")
FOUND = FLOWS / ".mlld" / "found.log"  # beside the cache of finished calls
QUESTIONS = ["risk", "cost", "growth"]


class Collector(Agent):
    """Finds the facts; every call that finishes is kept."""

    checkpoint = True
    working_dir = str(FLOWS)
    script = "collect.mld"


class Analyst(Agent):
    """Answers a question from the facts: the calls that `collect.mld` has made are not made again."""

    checkpoint = True
    working_dir = str(FLOWS)
    fork = "collect"

    def run(self, job: Job, payload: dict[str, Any]) -> str:
        """Ask the question."""
        return job.execute("analyse.mld", payload).output.strip()


def main() -> None:
    """Collect, then analyse side by side."""
    FOUND.parent.mkdir(exist_ok=True)
    FOUND.unlink(missing_ok=True)
    environ = {"FOUND": str(FOUND)}  # commands run at the root of the project, so the script is told the whole path
    analysts = [child(Analyst, name=question, environ=environ) for question in QUESTIONS]
    tree = one_for_one(child(Collector, environ=environ), *analysts)
    with Runtime(tree) as runtime:
        runtime.agent("collector").run().result(timeout=60)
        runs = [runtime.agent(question).run({"question": question}) for question in QUESTIONS]
        for run in runs:
            print(run.result(timeout=60))
    found = FOUND.read_text(encoding="utf-8").splitlines() if FOUND.exists() else []  # a second start makes none
    print(f"{len(found)} expensive calls for {len(runs)} analyses")


if __name__ == "__main__":
    main()
