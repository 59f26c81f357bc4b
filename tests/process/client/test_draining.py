"""Closing a client in good order: calls in flight end, new ones are refused, and a second close is immediate."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import AsyncClient, Client
from mlld_sdk.client import close, process, set_default_client
from mlld_sdk.engines.draining import ClosingSource, Draining
from mlld_sdk.transport.errors import EngineClosed
from tests.support.agents import ENGINES, engine_options
from tests.support.eventually import eventually
from tests.support.trees import Later, attempt

WORK = 'run sh {{ echo >> {0}/begun; while [ ! -f {0}/go ]; do sleep 0.02; done }}\nshow "done"'


def refuses(client: Client) -> bool:
    """Return whether it drains, and a new call is refused because of that."""
    drains = isinstance(client._scripts.requests.source, ClosingSource)
    return drains and isinstance(attempt(lambda: client.process('show "new"')), Draining)


@pytest.fixture(params=["shared", "exclusive"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("engine", ENGINES)
def test_calls_in_flight_end_and_new_ones_are_refused(engine: str, isolation: Any, tmp_path: Path) -> None:  # C-18
    with Client(
        isolation=isolation, max_engines=1, timeout=60, working_dir=tmp_path, **engine_options(engine)
    ) as client:
        handles = [client.process_async(WORK.format(tmp_path)) for _ in range(2)]
        waits = Later(lambda: client.process(WORK.format(tmp_path)))
        eventually((tmp_path / "begun").exists)
        closing = Later(lambda: client.close(60))
        eventually(lambda: refuses(client))
        assert isinstance(attempt(lambda: client.process_async('show "new"')), Draining)
        assert isinstance(attempt(lambda: client.analyze("nothing.mld")), Draining)
        assert closing.running
        (tmp_path / "go").touch()
        assert [handle.result(60) for handle in handles] == ["done\n"] * 2
        assert waits.result() == "done\n"
        assert closing.result() == 0
        assert client.process('show "anew"') == "anew\n"


def test_what_has_not_ended_in_time_is_cut_off_and_counted(isolation: Any, tmp_path: Path) -> None:  # C-18
    with Client(isolation=isolation, max_engines=1, timeout=60, engine="embedded") as client:
        handles = [client.process_async(WORK.format(tmp_path)) for _ in range(3)]
        eventually((tmp_path / "begun").exists)
        assert client.close(timeout=0.05) == 3
        assert [type(handle.exception(60)) for handle in handles] == [EngineClosed] * 3


def test_a_second_close_without_a_timeout_is_immediate(isolation: Any, tmp_path: Path) -> None:  # C-18
    with Client(isolation=isolation, timeout=None, engine="embedded") as client:
        handle = client.process_async(WORK.format(tmp_path))
        eventually((tmp_path / "begun").exists)
        closing = Later(lambda: client.close(600))
        eventually(lambda: refuses(client))
        assert client.close() == 1
        assert isinstance(handle.exception(60), EngineClosed)
        assert client.process('show "anew"') == "anew\n"
        assert closing.result() == 0
        assert client.process('show "still there"') == "still there\n"


def test_an_idle_client_is_closed_at_once_whatever_the_timeout(isolation: Any) -> None:  # C-18
    with Client(isolation=isolation, engine="embedded") as client:
        assert client.close(600) == 0
        client.process('show "used"')
        assert client.close(600) == 0


def test_the_same_for_coroutines(tmp_path: Path) -> None:  # C-18
    async def main() -> tuple[str, int, bool]:
        async with AsyncClient(engine="embedded", timeout=60) as client:
            work = asyncio.create_task(client.process(WORK.format(tmp_path)))
            await asyncio.to_thread(eventually, (tmp_path / "begun").exists)
            closing = asyncio.create_task(client.close(timeout=60))
            await asyncio.to_thread(eventually, lambda: refuses(client.sync))
            with pytest.raises(Draining):
                await client.process('show "new"')
            (tmp_path / "go").touch()
            return await work, await closing, True

    assert asyncio.run(main()) == ("done\n", 0, True)


def test_the_same_for_the_default_client(tmp_path: Path) -> None:  # C-18, C-75
    set_default_client(Client(engine="embedded", timeout=60))
    try:
        work = Later(lambda: attempt(lambda: process(WORK.format(tmp_path))))
        eventually((tmp_path / "begun").exists)
        assert close(timeout=0.05) == 1
        assert isinstance(work.result(), EngineClosed)
    finally:
        set_default_client(None)
