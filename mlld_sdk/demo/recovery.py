"""The recovery demo: kill the engine, the agent and the whole service while they work, and check what came of it.

Every kill is a real SIGKILL of a real process (the agent's is the actor system's own kill). At the end the demo proves
by the calls that were really made that no finished step was repeated, compares the result with an uninterrupted run,
and draws what happened.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlld_sdk.base.durations import now, pause
from mlld_sdk.demo.picture import LaneSpan, Story
from mlld_sdk.demo.stage import DemoFailed, hang
from mlld_sdk.supervision.snapshot import shorten

PATIENCE = 120.0
"""Seconds the whole demo may take before it counts as broken."""


class Service:
    """The service process, and what it says."""

    def __init__(self, directory: Path, engine: str, steps: int, pause: float) -> None:
        command = [sys.executable, "-m", "mlld_sdk.demo.service"]
        command += ["--dir", str(directory), "--engine", engine, "--steps", str(steps), "--pause", str(pause)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def order(self, line: str) -> None:
        """Send it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill it if it still runs, and wait for it; its engines see their input end and leave."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.put(json.loads(line))
        self.said.put(None)


class Recovery:
    """One run of the demo."""

    def __init__(
        self,
        directory: Path,
        *,
        engine: str,
        steps: int,
        pause: float,
        kill: bool = True,
        say: Callable[[str], object] = print,
    ) -> None:
        self.directory = directory
        self.steps = steps
        self.story = Story(title=f"{steps} steps, killed three times", goal=steps)
        self.restarts = 0
        self.begun = 0
        self.result = ""
        self.tree = ""
        self._engine = engine
        self._pause = pause
        self._say = say
        self._start = now()
        self._since: dict[str, tuple[float, str]] = {}
        self._kills: dict[int, Callable[[], None]] = {}
        if kill:
            self._kills = {
                steps // 4: self._kill_engine,
                steps // 2: self._kill_agent,
                steps * 3 // 4: self._kill_service,
            }
        self._service: Service | None = None

    def play(self) -> None:
        """Start the service, kill what there is to kill, and wait for the result."""
        try:
            self._begin()
            while not self.result:
                self._take(self._next())
        finally:
            if self._service is not None:
                self._service.end()
        for lane in list(self._since):
            self._lane(lane, "ended")

    def calls(self) -> Counter[str]:
        """Count the calls that were really made, by step."""
        lines = (self.directory / "calls.log").read_text(encoding="utf-8").splitlines()
        return Counter(line.split()[0] for line in lines)

    def check(self, expected: str) -> str:
        """Prove the promise, or raise; returns the proof in words.

        Raises:
            DemoFailed: A finished step was repeated, or the result differs from an uninterrupted run's.
        """
        calls = self.calls()
        repeated = {step: count for step, count in calls.items() if count > 1}
        if self.result != expected:
            raise DemoFailed(f"the result differs from an uninterrupted run's: {self.result!r}")
        if len(calls) != self.steps or len(repeated) > len(self.story.kills) or max(calls.values()) > 2:
            raise DemoFailed(f"calls were repeated: {repeated}")
        if self.begun > self.steps + len(self.story.kills):
            raise DemoFailed(f"{self.begun} steps were begun, so finished ones were begun again")
        if len(self.story.kills) != 3 or self.restarts != 2:
            raise DemoFailed(f"{len(self.story.kills)} of 3 kills and {self.restarts} of 2 restarts happened")
        return (
            f"{self.steps} steps, {calls.total()} calls made. Finished steps repeated: none. "
            f"Steps in flight at a kill and made again: {len(repeated)} of at most 3. "
            "Result equal to an uninterrupted run's: yes."
        )

    # -- what happens -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._service = Service(self.directory, self._engine, self.steps, self._pause)
        self._lane("service", "running")
        self._lane("agent", "starting")

    def _next(self) -> dict[str, Any] | None:
        assert self._service is not None
        left = self._start + PATIENCE - now()
        try:
            return self._service.said.get(timeout=max(0.0, left))
        except queue.Empty:
            raise DemoFailed(f"no result within {PATIENCE:g} s") from None

    def _take(self, said: dict[str, Any] | None) -> None:
        if said is None:
            raise DemoFailed("the service ended without a result")
        match said["event"]:
            case "demo.result":
                self.result, self.tree = said["result"], said["tree"]
            case "step.finished":
                self.story.progress.append(self._now())
            case "step.started":
                self.begun += 1
                self._kill_if_due()
            case "run.claimed":
                self._lane("agent", "running")
            case "child.exited":
                self._lane("agent", "restarting")
                self._tell(f"crash   {said['path']}: {shorten(said['reason'], 90)}")
                self._tell(f"        decision: {said['decision']}, budget {_budget(said)}")
            case "child.started" if said.get("cause") == "restart":
                self.restarts += 1
                self._tell(f"restart {said['path']} is incarnation {said['incarnation']}")
            case "engine.started":
                self._lane("engine", "running")

    def _kill_if_due(self) -> None:
        kill = self._kills.pop(len(self.story.progress), None)
        if kill is not None:
            pause(self._pause / 2)  # into the middle of the step that has just begun
            kill()

    def _kill_engine(self) -> None:
        pid = int((self.directory / "calls.log").read_text(encoding="utf-8").split()[-1])
        self._mark("engine SIGKILL")
        os.kill(pid, signal.SIGKILL)
        self._lane("engine", "down")

    def _kill_agent(self) -> None:
        assert self._service is not None
        self._mark("agent killed")
        self._service.order("kill agent")

    def _kill_service(self) -> None:
        assert self._service is not None
        self._mark("service SIGKILL")
        for lane in ("service", "agent", "engine"):
            self._lane(lane, "down")
        self._service.end()
        self._begin()
        self._tell("restart the service: a new process on the same journal")

    # -- how it is told -----------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return now() - self._start

    def _mark(self, what: str) -> None:
        self.story.kills.append((self._now(), what))
        self._tell(f"KILL    {what}, {len(self.story.progress)} of {self.steps} steps finished")

    def _tell(self, line: str) -> None:
        self._say(f"{self._now():6.2f} s  {line}")

    def _lane(self, name: str, state: str) -> None:
        now = self._now()
        before = self._since.get(name)
        if before is not None and before[1] != state:
            self.story.lanes.setdefault(name, []).append(LaneSpan(before[0], now, before[1]))
        if before is None or before[1] != state:
            self._since[name] = (now, state)


def _budget(said: dict[str, Any]) -> str:
    budget = said.get("budget") or {}
    return f"{budget.get('used', 0)} of {budget.get('limit', 0)} restarts used"


def main(engine: str, picture: Path, steps: int = 24, pause: float = 0.1) -> int:
    """Play the demo and say how it went; the exit status says so too."""
    print(f"A pipeline of {steps} steps on the {engine} engine; first left in peace, then killed three times.\n")
    with tempfile.TemporaryDirectory(prefix="mlld-demo-") as folder:
        try:
            peaceful = _play(Path(folder, "peace"), engine, steps, pause, kill=False)
            print(f"In peace it takes {peaceful.story.progress[-1]:.1f} s. Now with kills:\n")
            demo = _play(Path(folder, "war"), engine, steps, pause, kill=True)
            proof = demo.check(peaceful.result)
        except DemoFailed as failed:
            print(f"\nThe demo failed: {failed}", file=sys.stderr)
            return 1
    print(f"\n{demo.tree}\n")
    status = hang(picture, demo.story)
    print(f"Proof: {proof}")
    return status


def _play(directory: Path, engine: str, steps: int, pause: float, *, kill: bool) -> Recovery:
    directory.mkdir()
    say: Callable[[str], object] = print if kill else str
    demo = Recovery(directory, engine=engine, steps=steps, pause=pause, kill=kill, say=say)
    demo.play()
    return demo
