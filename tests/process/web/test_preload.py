"""Servers that import the application and then fork: a lifespan makes a runtime in each worker, another is refused."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlld_sdk.control.client import running
from tests.support.applications import ROOT
from tests.support.eventually import eventually

MASTER = """
import os, sys
import uvicorn
import app  # before the fork

config = uvicorn.Config(app.app, port=0)
listener = config.bind_socket()
workers = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        try:
            uvicorn.Server(config).run([listener])
        except BaseException as error:
            os._exit(getattr(error, "code", 9))
        os._exit(0)
    workers.append(pid)
print(*workers, flush=True)
if sys.stdin.read() == "stop":
    for pid in workers:
        os.kill(pid, 15)
for pid in workers:
    print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

TREE = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.web import health, lifespan

tree = one_for_one(child(Agent, name="agent", engine="embedded"))
"""

WITH_LIFESPAN = TREE + 'app = FastAPI(lifespan=lifespan(tree, store="s.db", name="web", control=True))\n'

MADE_AT_IMPORT = (
    TREE
    + """
runtime = Runtime(tree, name="web", control=True)

@asynccontextmanager
async def mine(app):
    async with runtime:
        yield

app = FastAPI(lifespan=mine)
"""
)

STARTED_AT_IMPORT = (
    TREE
    + """
runtime = Runtime(tree, name="web", control=True).start()

@asynccontextmanager
async def mine(app):
    runtime.verdict()
    yield

app = FastAPI(lifespan=mine)
"""
)


@contextmanager
def preloaded(folder: Path, app: str, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(folder / "rt"))
    (folder / "app.py").write_text(app)
    with (folder / "err").open("w") as err:
        master = subprocess.Popen(
            [sys.executable, "-c", MASTER],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    try:
        yield master
    finally:
        if master.poll() is None:
            master.send_signal(signal.SIGKILL)
            master.wait(60)
        assert master.stdin is not None
        assert master.stdout is not None
        master.stdin.close()
        master.stdout.close()


def test_a_lifespan_that_was_made_before_the_fork_starts_a_runtime_in_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with preloaded(tmp_path, WITH_LIFESPAN, monkeypatch) as master:
        assert master.stdout is not None
        workers = {int(pid) for pid in master.stdout.readline().split()}
        eventually(lambda: {one.pid for one in running("web")} == workers)
        said, _ = master.communicate("stop", timeout=60)
        assert said == "exit -15\nexit -15\n"  # as uvicorn ends, once all is stopped
        assert not running("web")


@pytest.mark.parametrize("app", [MADE_AT_IMPORT, STARTED_AT_IMPORT])
def test_a_runtime_of_the_master_is_refused_in_the_workers_and_they_do_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: str
) -> None:
    with preloaded(tmp_path, app, monkeypatch) as master:
        said, _ = master.communicate(timeout=60)
        assert said.count("exit") == 2
    why = (tmp_path / "err").read_text()
    assert "RuntimeForked: runtime 'web' was made in process" in why
    assert "make it after the fork" in why
    assert "Application startup complete" not in why
