"""The fixtures of `docs/testing.md`, for every project that has mlld-otp. Imports nothing until one is used."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlld_sdk.runtime.runtime import Runtime
    from mlld_sdk.testing import Chaos, FakeClock, Recorder
    from mlld_sdk.transport.engine import Engine

    MakeRuntime = Callable[..., Runtime]


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if it leaves threads, child processes or open files behind."""
    from mlld_sdk.testing import leak_check

    with leak_check():
        yield


@pytest.fixture
def clock() -> "FakeClock":
    """Time that stands still until `clock.advance(duration)`; runtimes of the same test live in it."""
    from mlld_sdk.testing import FakeClock

    return FakeClock()


@pytest.fixture
def events() -> "Recorder":
    """Every event of the test's runtimes; `events.next(ChildExited)` waits for one."""
    from mlld_sdk.testing import Recorder

    return Recorder()


@pytest.fixture
def make_runtime(no_leaks: None, events: "Recorder", request: pytest.FixtureRequest) -> "Iterator[MakeRuntime]":
    """Make and start runtimes: `make_runtime(tree, store="state.db")`. They are stopped when the test is over."""
    from mlld_sdk.runtime.runtime import Runtime

    made: list[Runtime] = []
    fake = request.getfixturevalue("clock") if "clock" in request.fixturenames else None

    def make(tree: Any, **options: Any) -> Runtime:  # noqa: ANN401
        if fake is not None:
            options.setdefault("env", fake.env)
        runtime = Runtime(tree, **options)
        runtime.bus.attach_inline("recorder", events)
        runtime.start()
        made.append(runtime)
        return runtime

    yield make
    for runtime in reversed(made):
        runtime.stop(5.0, drain=False)


@pytest.fixture
def tree() -> Any:  # noqa: ANN401
    """What `runtime` runs: one agent named `agent` on the embedded engine. Define a fixture of this name for yours."""
    from mlld_sdk import Agent, child, one_for_one

    return one_for_one(child(Agent, name="agent", engine="embedded"))


@pytest.fixture
def runtime(make_runtime: "MakeRuntime", tree: Any) -> "Runtime":  # noqa: ANN401
    """A running runtime over the fixture `tree`."""
    return make_runtime(tree)


@pytest.fixture
def chaos(runtime: "Runtime") -> "Iterator[Chaos]":
    """Break things of `runtime` for real: `chaos.kill("agent")`, `stop`, `garble`, `slow`, `flood`."""
    from mlld_sdk.testing import Chaos

    breaker = Chaos(runtime)
    yield breaker
    breaker.close()


@pytest.fixture
def engine(no_leaks: None) -> "Iterator[Engine]":
    """An embedded engine that answers, and is gone when the test is over."""
    from mlld_sdk.transport.command import embedded_command
    from mlld_sdk.transport.engine import Engine

    one = Engine.start(embedded_command())
    one.wait_ready(30.0)
    yield one
    one.kill()
    one.wait(10.0)
