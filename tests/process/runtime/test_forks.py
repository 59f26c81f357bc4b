"""A runtime belongs to the process that made it: in a fork of that process it is refused, and harms nothing there."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mlld_sdk import Agent, Client, Runtime, child, one_for_one


class Echo(Agent):
    engine = "embedded"

    def run(self, job: Any, payload: Any) -> Any:
        return payload


TREE = one_for_one(child(Echo, name="echo"), child(Client, name="scripts", engine="embedded"))


def in_a_fork(act: Callable[[], object]) -> str:
    """Run something in a forked child, and return what came of it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = repr(act())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        said = told.read()
    os.waitpid(pid, 0)
    return said


def test_a_runtime_that_was_made_before_a_fork_is_not_started_in_the_child() -> None:
    runtime = Runtime(TREE)
    said = in_a_fork(runtime.start)
    assert said.startswith("RuntimeForked: runtime 'root' was made in process")
    assert "make it after the fork" in said
    with runtime:  # it is none the worse for it
        assert runtime.agent("echo").run(1).result(timeout=60) == 1


def test_a_runtime_that_runs_is_refused_in_a_fork_and_does_not_call_itself_healthy(tmp_path: Path) -> None:
    with Runtime(TREE, store=tmp_path / "s.db") as runtime:
        for look in (runtime.verdict, runtime.tree, runtime.snapshot, runtime.agents, runtime.stop, runtime.drain):
            assert "RuntimeForked" in in_a_fork(look)
        assert "RuntimeForked" in in_a_fork(lambda: runtime["echo"])
        echo, scripts, found = runtime.agent("echo"), runtime["scripts"], runtime.agent("echo").process
        found('show "up"')
        for ask in (found, echo.run, scripts.process, lambda it: asyncio.run(scripts.aio.process(it))):
            assert "RuntimeForked" in in_a_fork(partial(ask, 'show "x"'))
        assert in_a_fork(lambda: runtime.__exit__(None, None, None)) == "None"
        assert runtime.verdict().word == "healthy"
        assert runtime.agent("echo").run(2).result(timeout=60) == 2


def test_a_runtime_made_in_the_fork_works_there(tmp_path: Path) -> None:
    def work() -> object:
        with Runtime(TREE, store=tmp_path / "s.db") as runtime:
            return runtime.agent("echo").run(3).result(timeout=60)

    with Runtime(TREE, store=tmp_path / "s.db"):
        assert in_a_fork(work) == "3"
