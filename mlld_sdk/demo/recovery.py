"""The recovery demo: kill the engine, the agent and the whole service while they work, and check what came of it.

Every kill is a real SIGKILL of a real process (the agent's is the actor system's own kill). At the end the demo proves
by the calls that were really made that no finished step was repeated, compares the result with an uninterrupted run,
and draws what happened.

Run as a program, this module is the service that is killed: one supervised agent at work on one durable run. It writes
events as JSON lines to stdout and takes one command on stdin, `kill agent`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import msgspec

from mlld_sdk import Agent, AgentHandle, Job, Runtime, child, one_for_one
from mlld_sdk.base.durations import pause
from mlld_sdk.base.events import Event
from mlld_sdk.demo.picture import Story
from mlld_sdk.demo.stage import DemoFailed, Stage
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

PATIENCE = 120.0
"""Seconds each of the two runs may take before it counts as broken."""

STEPS, PAUSE = 24, 0.1


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

_decode = msgspec.json.Decoder(Told).decode


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


def serve(folder: Path, engine: str, steps: int, pause: float) -> None:
    """Work on the run until it has ended; a second start goes on where the first was killed."""
    (folder / "think.mld").write_text(SCRIPT, encoding="utf-8")
    options: dict[str, Any] = {"engine": engine, "working_dir": folder, "environ": {"PAUSE": str(pause)}}
    tree = one_for_one(child(Pipeline, name="pipeline", **options), max_restarts=5, within=10.0)
    runtime = Runtime(tree, store=folder / "state.db")
    runtime.bus.attach("demo", _write, events=get_args(Told))
    with runtime:
        agent = runtime.agent("pipeline")
        run = agent.run({"steps": steps}, key="recovery-demo")
        threading.Thread(target=_obey, args=(agent,), daemon=True).start()
        result = run.result(timeout=PATIENCE)
        runtime.bus.detach("demo")
        _write(WorkDone(at=runtime.env.wall(), result=result, tree=runtime.tree()))


def _obey(agent: AgentHandle) -> None:
    for line in sys.stdin:
        if line.strip() == "kill agent" and (ref := agent.ref) is not None:
            ref.kill("the demo wanted to see it die")


def _write(event: Event) -> None:
    sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
    sys.stdout.flush()


def play(stage: Stage) -> str:
    """Run the pipeline undisturbed, then run it again and kill it three times."""
    stage.tell(f"A pipeline of {STEPS} steps on the {stage.engine} engine; first undisturbed, then killed three times.")
    peace = Recovery(Stage(stage.directory / "peace", stage.engine, say=str), kill=False)
    peace.play()
    stage.tell(f"Undisturbed it takes {peace.story.progress[-1]:.1f} s. Now with kills:")
    war = Recovery(Stage(stage.directory / "war", stage.engine))
    war.play()
    stage.show(war.done.tree)
    stage.story = war.story
    return war.check(peace.done.result)


class Recovery:
    """One run of the pipeline in a service process.

    Args:
        stage: Where it plays.
        steps: Steps of the pipeline.
        pause: Seconds one step takes.
        kill: Whether engine, agent and service are killed.
    """

    done: WorkDone

    def __init__(self, stage: Stage, *, steps: int = STEPS, pause: float = PAUSE, kill: bool = True) -> None:
        self.stage = stage
        self.steps = steps
        self.story = stage.story = Story(f"{steps} steps, killed three times", steps)
        self._pause = pause
        kills = (self._kill_engine, self._kill_agent, self._kill_service)
        self._kills = {steps * (n + 1) // 4: each for n, each in enumerate(kills)} if kill else {}

    def play(self) -> None:
        """Start the service, kill what there is to kill, and wait for the result."""
        self._begin()
        watchdog = threading.Timer(PATIENCE, lambda: self._service.kill())  # noqa: PLW0108 - it changes
        watchdog.start()
        try:
            while not hasattr(self, "done"):
                self._take()
        finally:
            watchdog.cancel()
            self.end_service()
        self.story.end = self.stage.now()

    def check(self, expected: str) -> str:
        """Prove the promise and return the proof in words.

        Raises:
            DemoFailed: A finished step was repeated, or the result differs from an uninterrupted run's.
        """
        prove, kills, begun = self.stage.prove, len(self.story.kills), self.stage.count("step.started")
        calls = Counter(line.split()[0] for line in self.stage.calls())
        repeated = {step: count for step, count in calls.items() if count > 1}
        restarts = sum(isinstance(event, ChildStarted) and event.cause == "restart" for event in self.stage.events)
        prove(f"the result equals an uninterrupted run's: {self.done.result!r}", self.done.result == expected)
        in_flight = len(calls) == self.steps and len(repeated) <= kills and max(calls.values()) <= 2
        prove(f"only calls in flight at a kill were repeated: {repeated}", in_flight)
        prove(f"no finished step was begun again: {begun} were begun", begun <= self.steps + kills)
        prove(f"{kills} of 3 kills and {restarts} of 2 restarts happened", (kills, restarts) == (3, 2))
        return (
            f"{self.steps} steps, {calls.total()} calls made. Finished steps repeated: none. "
            f"Steps in flight at a kill and made again: {len(repeated)} of at most 3. "
            "Result equal to an uninterrupted run's: yes."
        )

    def end_service(self) -> None:
        """Kill the service if it still runs, and wait for it; its engines see their input end and leave."""
        with contextlib.suppress(OSError), self._service:
            self._service.kill()

    def _begin(self) -> None:
        command = [sys.executable, "-m", "mlld_sdk.demo.recovery", str(self.stage.directory), self.stage.engine]
        command += [str(self.steps), str(self._pause)]
        self._service = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._turn("running", "service")
        self._turn("starting", "agent")

    def _take(self) -> None:
        """Read one event of the service and act on it."""
        assert self._service.stdout is not None
        line = self._service.stdout.readline()
        if not line:
            raise DemoFailed(f"the service ended without a result, or gave none within {PATIENCE:g} s")
        event = _decode(line)
        self.stage.take(event)
        match event:
            case WorkDone():
                self.done = event
            case StepFinished():
                self.story.progress.append(self.stage.now())
            case StepStarted():
                kill = self._kills.pop(len(self.story.progress), None)
                if kill is not None:
                    pause(self._pause / 2)  # into the middle of the step that has just begun
                    kill()
            case RunClaimed():
                self._turn("running", "agent")
            case EngineStarted():
                self._turn("running", "engine")

    def _kill_engine(self) -> None:
        self._mark("engine SIGKILL")
        os.kill(int(self.stage.calls()[-1].split()[-1]), signal.SIGKILL)
        self._turn("down", "engine")

    def _kill_agent(self) -> None:
        assert self._service.stdin is not None
        self._mark("agent killed")
        self._service.stdin.write("kill agent\n")
        self._service.stdin.flush()

    def _kill_service(self) -> None:
        self._mark("service SIGKILL")
        self._turn("down", "service", "agent", "engine")
        self.end_service()
        self._begin()
        self.stage.tell("restart  the service: a new process on the same journal")

    def _mark(self, what: str) -> None:
        self.story.kills.append((self.stage.now(), what))
        self.stage.tell(f"KILL     {what}, {len(self.story.progress)} of {self.steps} steps finished")

    def _turn(self, state: str, *lanes: str) -> None:
        for lane in lanes:
            self.story.turn(lane, state, self.stage.now())


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
