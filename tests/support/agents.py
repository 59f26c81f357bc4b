"""Agents for tests: a runtime over small pipelines, on every engine that is present."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, Runtime
from mlld_sdk.actors.core.exits import Other, Reason
from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.base.events import Event

THINK = """\
exe llm @think(n) = sh {
  echo "$n $PPID" >> calls.log
  sleep ${PAUSE:-0}
  echo "thought $n"
}
show @think(@payload.n)
"""
"""One expensive call, which leaves a line in calls.log when it is really made."""


def engine_options(kind: str) -> dict[str, Any]:
    """Give the options by which an agent gets this engine, or skip the test."""
    if kind == "embedded":
        return {"engine": "embedded"}
    command = shlex.split(os.environ.get("MLLD_COMMAND", ""))
    if not command:
        pytest.skip("no real mlld: set MLLD_COMMAND, for example to `node <mlld>/dist/cli.cjs`")
    return {"engine": kind, "command": command[0], "command_args": command[1:]}


ENGINES = ["embedded", pytest.param("live", marks=pytest.mark.real), pytest.param("bridge", marks=pytest.mark.real)]


def with_engines(value: Any) -> list[Any]:
    """Give parameters that are this value and each engine."""
    return [(value, "embedded"), *(pytest.param(value, kind, marks=pytest.mark.real) for kind in ("live", "bridge"))]


class AgentFails(InfrastructureError):
    """Raised in the code of a run, it ends the agent as the death of an engine under a step does."""

    @property
    def exit_reason(self) -> Reason:
        return Other(self.message)


class Thinker(Agent):
    """Thinks as often as it is told, one step a thought."""

    def run(self, job: Job, payload: dict[str, Any]) -> list[str]:
        prefix = payload.get("prefix", "")
        return [job.execute("think.mld", {"n": f"{prefix}{n}"}).output.strip() for n in range(payload["thoughts"])]


def calls(directory: Path) -> list[str]:
    """List what was really called, in order."""
    log = directory / "calls.log"
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def engine_pid(directory: Path) -> int:
    """Tell which engine made the last call."""
    return int((directory / "calls.log").read_text().split()[-1])


@contextmanager
def running(tree: Any, directory: Path, **options: Any) -> Iterator[tuple[Runtime, list[Event]]]:
    """Run a tree with its store in the directory; gives the runtime and every event."""
    (directory / "think.mld").write_text(THINK)
    runtime = Runtime(tree, store=directory / "state.db", durability="normal", **options)
    seen: list[Event] = []
    runtime.bus.attach_inline("test", seen.append)
    with runtime:
        yield runtime, seen
