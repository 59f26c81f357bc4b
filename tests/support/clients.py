"""The engines a client's behaviour is tested on: the same test runs on each that is there."""

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from mlld_sdk.client.client import Client
from mlld_sdk.engines.shared import SharedEngines
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.mlld_package import find_package
from tests.support.eventually import eventually

KINDS = ("embedded", "live", "bridge")
COMMAND = shlex.split(os.environ.get("MLLD_COMMAND", ""))

Make = Callable[..., Client]
T = TypeVar("T")


def soon(check: Callable[[], T]) -> T:
    """Wait as `eventually` does, with the patience a cold engine on a busy machine needs."""
    return eventually(check, within=60)


@dataclass(frozen=True)
class EngineUnderTest:
    """One kind of engine, and how to make a client for it.

    Attributes:
        kind: `embedded`, `live` or `bridge`.
        patience: Seconds within which whatever is waited for has happened, a cold start included.
    """

    kind: str
    patience: float = 30.0

    @property
    def options(self) -> dict[str, Any]:
        """Options of `Client` that choose this engine."""
        if self.kind == "embedded":
            return {"engine": "embedded"}
        return {"engine": self.kind, "command": COMMAND[0], "command_args": COMMAND[1:]}

    def client(self, **options: Any) -> Client:
        """Make a client; close it."""
        return Client(**{"timeout": self.patience, **self.options, **options})


def why_not(kind: str) -> str | None:
    """Say why an engine cannot be had here, or `None` if it can."""
    if kind == "embedded":
        return None
    if not COMMAND:
        return f"the {kind} engine needs the real mlld: set MLLD_COMMAND, say to 'node /path/to/mlld/dist/cli.cjs'"
    if kind == "bridge":
        if shutil.which("node") is None:
            return "the bridge engine needs node on PATH"
        find_package(COMMAND[0], COMMAND[1:])
    return None


def engine_of(client: Client) -> Engine | None:
    """Return the engine that all requests of a shared client go to, if there is one."""
    source = client._scripts.requests.source
    assert isinstance(source, SharedEngines)
    return source.engine


def pid_of(client: Client) -> int | None:
    """Return that engine's process id, if there is one."""
    engine = engine_of(client)
    return None if engine is None else engine.pid


@pytest.fixture(params=[pytest.param(kind, marks=() if kind == "embedded" else pytest.mark.real) for kind in KINDS])
def engine(request: pytest.FixtureRequest) -> EngineUnderTest:
    """Each engine in turn."""
    reason = why_not(request.param)
    if reason is not None:
        pytest.skip(reason)
    return EngineUnderTest(request.param)


@pytest.fixture
def make_client(engine: EngineUnderTest) -> Iterator[Make]:
    """Make clients of the engine under test that are closed after the test."""
    clients: list[Client] = []

    def make(**options: Any) -> Client:
        clients.append(engine.client(**options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: Make) -> Client:
    """A shared client of the engine under test, closed after the test."""
    return make_client()
