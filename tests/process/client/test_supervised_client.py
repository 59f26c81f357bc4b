"""Clients as children of a tree: declared with a client's options, called like a client, restarted within limits."""

import asyncio
import inspect
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, AsyncClient, Client, Runtime, child, one_for_one
from mlld_sdk.agents import ClientHandle, supervised_client
from mlld_sdk.agents.supervised_client import AsyncClientHandle, ClientGaveUp
from mlld_sdk.base.errors import ConfigurationError, InvalidOption, UnknownOption
from mlld_sdk.base.events import name_of
from mlld_sdk.supervision import Backoff, budget
from mlld_sdk.testing import leak_check
from mlld_sdk.transport.errors import CommandNotFound, EngineClosed, EngineDied
from tests.support.agents import ENGINES, engine_options
from tests.support.engines import is_alive
from tests.support.eventually import eventually
from tests.support.trees import Later, attempt

WHO = "run sh { echo $PPID }"
DIES = "run sh { kill -9 $PPID }"
WORK = 'run sh {{ echo >> {0}/begun; while [ ! -f {0}/go ]; do sleep 0.02; done }}\nshow "done"'

LIMITS = {"max_restarts": 1000, "within": 5.0}


@pytest.fixture(params=["shared", "exclusive"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_client_in_a_tree_has_the_calls_of_a_client(engine: str, isolation: str, tmp_path: Path) -> None:  # C-80
    (tmp_path / "hello.mld").write_text('show "Hello @payload.name"\n'.replace('"', "`"))
    options = {"working_dir": tmp_path, "timeout": 60, "isolation": isolation, **engine_options(engine)}
    with Runtime(one_for_one(child(Client, name="scripts", **options))) as runtime:
        client = runtime["scripts"]
        assert isinstance(client, ClientHandle)
        assert client.process('show "sync"') == "sync\n"
        assert client.execute("hello.mld", {"name": "Ada"}).output.strip() == "Hello Ada"
        assert client.process_async('show "begun"').result(60) == "begun\n"
        assert client.execute_async("hello.mld", {"name": "Ada"}).result(60).output.strip() == "Hello Ada"
        assert client.analyze("hello.mld").valid
        assert client.fs_status() == []

        async def ask() -> tuple[str, str, list[Any]]:
            handle = await client.aio.process_async('show "begun"')
            return await client.aio.process('show "async"'), await handle, await client.aio.fs_status()

        assert asyncio.run(ask()) == ("async\n", "begun\n", [])
        assert "scripts" in runtime.tree()
        assert [place.kind for place in runtime.snapshot().children] == ["Client"]  # as it was declared
        assert runtime.verdict().word == "healthy"


def test_its_handle_has_every_call_of_a_client_with_the_same_arguments() -> None:  # C-80
    for ours, theirs in ((ClientHandle, Client), (AsyncClientHandle, AsyncClient)):
        for name, method in inspect.getmembers(theirs, inspect.isfunction):
            if not name.startswith("_") and name != "begin_anew":
                assert list(inspect.signature(getattr(ours, name)).parameters) == list(
                    inspect.signature(method).parameters
                ), name


def test_its_options_are_those_of_a_client_and_checked_where_it_is_declared() -> None:  # C-80
    with pytest.raises(UnknownOption, match="isolation"):
        child(Client, isolatoin="shared")
    for wrong in ({"isolation": "none"}, {"max_engines": 0}, {"timeout": -1}, {"heap": "big"}, {"engine": "other"}):
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            child(Client, **wrong)
    with pytest.raises(InvalidOption, match="sink"):
        child(Client, sink=print)
    with pytest.raises(InvalidOption, match="start"):
        child(dict, name="no actor")
    assert child(Client, engine="embedded").name == "client"


def test_it_starts_no_engine_before_the_first_call_and_misses_no_program_before(tmp_path: Path) -> None:  # C-80
    tree = one_for_one(
        child(Client, name="lazy", engine="embedded"), child(Client, name="lost", command=str(tmp_path / "no-mlld"))
    )
    with leak_check(), Runtime(tree) as runtime:
        seen: list[Any] = []
        runtime.bus.attach_inline("seen", seen.append)
        assert runtime["lazy"].status().engines.started == 0
        for _ in range(3):
            with pytest.raises(CommandNotFound):
                runtime["lost"].process('show "x"')
        assert runtime.verdict().word == "healthy"
        assert runtime["lazy"].process('show "now"') == "now\n"
        assert [name_of(event) for event in seen].count("engine.started") == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_dies_is_a_restart_and_the_next_call_is_answered(engine: str, tmp_path: Path) -> None:  # C-81
    spec = child(Client, name="it", working_dir=tmp_path, timeout=60, **engine_options(engine))
    with Runtime(one_for_one(spec, **LIMITS)) as runtime:
        client = runtime["it"]
        for _ in range(5):
            with pytest.raises(EngineDied):
                client.process(DIES)
            assert client.process('show "at once"') == "at once\n"
            with pytest.raises(EngineDied):
                client.process_async(DIES).result(60)
            assert asyncio.run(client.aio.process('show "at once"')) == "at once\n"
        assert runtime.snapshot().children[0].restarts == 10
        assert runtime.verdict().word in ("recovering", "flapping")


def test_an_exclusive_client_loses_only_the_call_whose_engine_died(tmp_path: Path) -> None:  # C-81
    with Runtime(one_for_one(child(Client, name="it", engine="embedded", isolation="exclusive"))) as runtime:
        client = runtime["it"]
        works = Later(lambda: client.process(WORK.format(tmp_path)))
        eventually((tmp_path / "begun").exists)
        for _ in range(3):
            with pytest.raises(EngineDied):
                client.process(DIES)
        (tmp_path / "go").touch()
        assert works.result() == "done\n"
        assert runtime.snapshot().children[0].restarts == 0
        for _ in range(5):
            with pytest.raises(EngineDied):
                client.process(DIES)
        eventually(lambda: runtime.snapshot().children[0].restarts == 1)
        assert client.process('show "back"') == "back\n"


def test_a_client_whose_limit_is_used_up_says_so_until_it_is_resumed() -> None:  # C-82
    spec = child(Client, name="it", engine="embedded", budget=budget(2, 60, then="stop"), backoff=Backoff(0.01))
    with Runtime(one_for_one(spec)) as runtime:
        client = runtime["it"]
        for _ in range(3):
            with pytest.raises(EngineDied):
                client.process(DIES)
        eventually(lambda: runtime.verdict().word == "gave_up")
        for ask in (
            lambda: client.process('show "x"'),
            lambda: client.process_async('show "x"'),
            lambda: asyncio.run(client.aio.process('show "x"')),
            lambda: client.fs_status(),
        ):
            error = attempt(ask)
            assert isinstance(error, ClientGaveUp)
            assert error.code == "CLIENT_GAVE_UP"
            assert "SIGKILL" in error.why
        assert client.close() == 0
        runtime.resume("it")
        assert client.process('show "anew"') == "anew\n"


@pytest.mark.parametrize("how", ["thread", "coroutine"])
def test_a_call_that_waits_for_a_restart_is_told_when_none_will_come(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # C-82
    spec = child(Client, name="it", engine="embedded", budget=budget(0, 60, then="stop"))
    monkeypatch.setattr(supervised_client, "RESTART_PATIENCE", 1.0)
    with Runtime(one_for_one(spec)) as runtime:
        client = runtime["it"]
        with pytest.raises(EngineDied):
            client.process(DIES)
        eventually(lambda: runtime.verdict().word == "gave_up")
        looks, look = iter([True]), ClientHandle.comes_soon  # at the first look it was about to be restarted
        monkeypatch.setattr(ClientHandle, "comes_soon", lambda self: next(looks, None) or look(self))
        with pytest.raises(ClientGaveUp):
            client.process("show `x`") if how == "thread" else asyncio.run(client.aio.process("show `x`"))


def test_closing_it_ends_its_engines_and_leaves_it_in_the_tree(isolation: str, tmp_path: Path) -> None:  # C-83
    spec = child(Client, name="it", engine="embedded", isolation=isolation, timeout=None)
    with Runtime(one_for_one(spec)) as runtime:
        client = runtime["it"]
        pid = int(client.process(WHO))
        assert client.close(timeout=60) == 0
        eventually(lambda: not is_alive(pid))
        assert client.process('show "a new engine"') == "a new engine\n"
        handle = client.process_async(WORK.format(tmp_path))
        eventually((tmp_path / "begun").exists)
        assert client.close(timeout=0.01) == 1
        assert isinstance(handle.exception(60), EngineClosed)
        assert asyncio.run(client.aio.process('show "another"')) == "another\n"
        assert runtime.snapshot().children[0].incarnation == 1


def test_a_second_close_is_immediate_and_the_first_leaves_what_came_after_it_alone(tmp_path: Path) -> None:  # C-83
    with Runtime(one_for_one(child(Client, name="it", engine="embedded", timeout=None))) as runtime:
        client = runtime["it"]
        handle = client.process_async(WORK.format(tmp_path))
        eventually((tmp_path / "begun").exists)
        first = Later(lambda: client.close(timeout=600))
        eventually(lambda: client.status().state == "draining")
        assert client.close() == 1
        assert isinstance(handle.exception(60), EngineClosed)
        assert first.result() == 0
        pid = client.process(WHO)
        assert client.process(WHO) == pid


def test_coroutines_wait_for_a_client_that_is_restarted_and_block_no_loop() -> None:  # C-81
    async def ask() -> list[str]:
        said = []
        for _ in range(5):
            with pytest.raises(EngineDied):
                await client.aio.process(DIES)
            said += await asyncio.gather(*(client.aio.process('show "up"') for _ in range(5)))
        return said

    spec = child(Client, name="it", engine="embedded", timeout=60, backoff=Backoff(0.05))
    with Runtime(one_for_one(spec, **LIMITS)) as runtime:
        client = runtime["it"]
        assert asyncio.run(ask()) == ["up\n"] * 25


def test_it_shares_the_budget_of_engines_with_others(isolation: str) -> None:  # C-80
    spec = child(Client, name="it", engine="embedded", isolation=isolation, warm=0, timeout=60)
    with Runtime(one_for_one(spec, child(Agent, name="agent", engine="embedded")), max_engines=1) as runtime:
        for _ in range(3):
            assert runtime["it"].process('show "mine"') == "mine\n"
            assert runtime["agent"].process('show "yours"') == "yours\n"


def test_only_what_a_client_has_is_named_when_it_is_to_be_changed() -> None:
    with Runtime(one_for_one(child(Client, name="it", engine="embedded"))) as runtime:
        client = runtime["it"]
        with pytest.raises(UnknownOption, match="there are: timeout, hibernate_after"):
            client.configure(script="a.mld")
        with pytest.raises(ConfigurationError, match=r"strict cannot be changed.*these can: hibernate_after, timeout;"):
            client.configure(strict=True)  # type: ignore[call-arg]


def test_options_that_clients_alone_have_are_heeded(tmp_path: Path) -> None:  # C-80
    spec = child(Client, name="it", engine="embedded", max_events=2, environ={"GIVEN": "here"}, command_args=())
    with Runtime(one_for_one(spec)) as runtime:
        assert runtime["it"].process("run sh { echo $GIVEN }").strip() == "here"
        assert runtime["it"].reach().max_events == 2
        os.kill(int(runtime["it"].process(WHO)), signal.SIGKILL)
        assert runtime["it"].wait_until_up(60)
