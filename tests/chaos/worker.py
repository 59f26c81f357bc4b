"""A service to be broken: it hands in runs, works on them, and leaves a line in the ledger for whatever happens.

    python -m tests.chaos.worker FOLDER OPTIONS

Several may share the folder, each with a name of its own. It obeys `kill agent` and `stop`, one a line: after `stop` it
hands in no more and ends when all that it has handed in is answered or parked. With `settle` it hands in nothing, takes
up what anybody handed in, and does what a person does about parked runs: it looks into the ledger whether an
interrupted step acted, and says so, or has it done again.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Job, Retry, Runtime, child, one_for_one
from mlld_sdk.base.errors import MlldError
from mlld_sdk.journal import Journal, JournalLimits, Outcome
from tests.chaos.ledger import Ledger, clock, lines, value

SCRIPT = """\
exe llm @act(run, step) = sh {
  echo "act $run $step $OWNER" >> "$LEDGER"
  sleep $PAUSE
  echo "$run/$step"
}
show @act(@payload.run, @payload.step)
"""
FOREVER = 10**6


class Work(Agent):
    """Takes each kind of step once a section, and leaves a line for each value it is given."""

    engine = "embedded"
    checkpoint = True
    concurrency = 4
    engines = 3
    step_attempts = FOREVER

    def run(self, job: Job, payload: dict[str, Any]) -> str:
        run = payload["run"]
        found: list[str] = []
        for n in range(payload["sections"]):
            found.append(self.by_engine(job, run, f"script-{n}"))
            found.append(self.by_python(job, run, f"again-{n}"))
            found.append(self.by_python(job, run, f"once-{n}", idempotent=False))
            found += job.map(
                lambda k, branch, n=n: self.by_python(branch, run, f"branch{k}-{n}"), (1, 2), concurrency=2
            )
        return "+".join(found)

    def by_engine(self, job: Job, run: str, step: str) -> str:
        retry = Retry(attempts=FOREVER, delay=0.1, longest=1.0)
        done = job.execute("act.mld", {"run": run, "step": step}, timeout=OPTIONS["timeout"], retry=retry)
        return self.known(run, step, done.output.strip())

    def by_python(self, job: Job, run: str, step: str, *, idempotent: bool = True) -> str:
        return self.known(run, step, job.step(step, self.act, run, step, idempotent=idempotent))

    def act(self, run: str, step: str) -> str:
        LEDGER.write("act", run, step, os.getpid())
        time.sleep(OPTIONS["pause"])
        return value(run, step)

    def known(self, run: str, step: str, given: str) -> str:
        LEDGER.write("known", run, step, "_".join(given.split()) or "nothing", os.getpid())
        return given


class Client:
    """Hands in runs, so many at once, and writes down what it is answered; goes on where its predecessor was killed."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.stopping = threading.Event()
        self.free = threading.Semaphore(OPTIONS["window"])
        self.parked: queue.SimpleQueue[str] = queue.SimpleQueue()
        mine = "" if OPTIONS["settle"] else f"{OPTIONS['name']}-"
        self.open = {words[1] for words in lines(LEDGER.path) if words[0] == "handed" and words[1].startswith(mine)}
        self.next = len(self.open)
        self.open -= {words[1] for words in lines(LEDGER.path) if words[0] == "answer"}
        if OPTIONS["settle"]:
            self.stopping.set()

    def work(self) -> None:
        for run in sorted(self.open):
            self.free.acquire(blocking=False)
            self.watch(run)
        while not self.stopping.wait(OPTIONS["every"]):
            if self.free.acquire(timeout=0.2) and not self.hand_in(f"{OPTIONS['name']}-{self.next}"):
                self.free.release()

    def hand_in(self, run: str) -> bool:
        sections = OPTIONS["sections"]
        try:
            self.runtime["work"].run({"run": run, "sections": sections}, run_id=run)
        except MlldError:  # the journal is full, or the agent is not there: nothing is promised then
            return False
        LEDGER.write("handed", run, sections, clock())
        self.open.add(run)
        self.next += 1
        self.watch(run)
        return True

    def watch(self, run: str) -> None:
        self.runtime.run(run).add_done_callback(lambda outcome: self.answered(run, outcome))

    def answered(self, run: str, outcome: Outcome) -> None:
        if outcome.state == "parked" and OPTIONS["settle"]:
            self.parked.put(run)
            return
        if outcome.state != "parked":
            given = outcome.value if outcome.state == "finished" else f"{outcome.state}:{outcome.error}"
            LEDGER.write("answer", run, "_".join(str(given).split()) or "nothing", clock())
        self.open.discard(run)
        self.free.release()


def settle(journal: Journal, run: str) -> None:
    """Decide about an interrupted step as a person would: whoever sees its effect says what it gave."""
    acted = {words[2] for words in lines(LEDGER.path) if words[:2] == ["act", run]}
    for step in journal.steps(run):
        if step.state == "interrupted" and step.name in acted and step.name.startswith("once"):
            journal.resolve_step(run, step.position, value(run, step.name))
    journal.retry(run, rerun_interrupted=True)


def obey(client: Client) -> None:
    for line in sys.stdin:
        ref = client.runtime["work"].ref
        if line.strip() == "stop":
            client.stopping.set()
        elif ref is not None:
            ref.kill("chaos")
    os.kill(os.getpid(), signal.SIGKILL)  # who started this is gone


def main() -> None:
    environ = {"PAUSE": str(OPTIONS["pause"]), "LEDGER": str(LEDGER.path), "OWNER": str(os.getpid())}
    tree = one_for_one(
        child(Work, name="work", working_dir=str(FOLDER), environ=environ), max_restarts=FOREVER, within=1.0
    )
    limits = JournalLimits(max_deaths=FOREVER, write_timeout=5.0)
    with Runtime(tree, store=STORE, limits=limits, durability="normal", drain_timeout=1.0) as runtime:
        client = Client(runtime)
        threading.Thread(target=obey, args=(client,), daemon=True).start()
        client.work()
        while client.open:
            time.sleep(0.02)
            if not client.parked.empty():
                run = client.parked.get()
                settle(runtime.journal, run)
                client.watch(run)
        LEDGER.write("verified", len(runtime.journal.verify()))


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    OPTIONS: dict[str, Any] = json.loads(sys.argv[2])
    STORE = Path(OPTIONS["store"])
    LEDGER = Ledger(FOLDER / "ledger")
    # Leases of agents last half a minute; here that would be most of a round.
    Journal.claim_unfinished.__kwdefaults__["ttl"] = OPTIONS["lease"]  # type: ignore[index]
    main()
