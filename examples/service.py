"""A service for `mlld-otp run`: the command starts the tree, logs what happens, and stops in order on SIGTERM.

MLLD_ENGINE=embedded mlld-otp run examples/service.py --store state.db
mlld-otp tree
mlld-otp runs submit reviewer '{"topic": "safety"}'
mlld-otp runs ls
"""

from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Backoff, Job, Pool, budget, child, circuit_breaker, one_for_one, wedge

FLOWS = str(Path(__file__).with_name("flows"))


class Reviewer(Agent):
    """Reviews a topic."""

    checkpoint = True

    def run(self, job: Job, payload: dict[str, Any]) -> str:
        """Execute the script as one durable step."""
        return job.execute("review.mld", payload).output.strip()


tree = one_for_one(
    child(
        Reviewer,
        working_dir=FLOWS,
        backoff=Backoff.of(0.1, most=10.0),
        budget=budget(5, 60.0, then="stop"),  # a reviewer that keeps failing stops alone
        wedge=wedge(300.0, times=2, then="stop"),
    ),
    child(Pool, name="workers", working_dir=FLOWS, size=2, overflow=1, breaker=circuit_breaker(failures=5)),
    max_restarts=3,
    within=5.0,
)

runtime_options = {"drain_timeout": 30.0, "max_engines": 4}
