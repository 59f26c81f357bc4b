"""Collect once, analyse three times: each analysis starts from what the collection has paid for.

MLLD_ENGINE=embedded python examples/fork_analyses.py
"""

from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Job, Runtime, child, one_for_one

FLOWS = Path(__file__).with_name("flows")
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
    tree = one_for_one(child(Collector), *(child(Analyst, name=question) for question in QUESTIONS))
    with Runtime(tree) as runtime:
        runtime.agent("collector").run().result(timeout=60)
        runs = [runtime.agent(question).run({"question": question}) for question in QUESTIONS]
        for run in runs:
            print(run.result(timeout=60))
    found = (FLOWS / "found.log").read_text(encoding="utf-8").splitlines()
    print(f"{len(found)} expensive calls for {len(runs)} analyses")


if __name__ == "__main__":
    main()
