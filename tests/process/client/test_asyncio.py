"""The client for coroutines, and the module-level functions: same calls, same answers, no blocked loop."""

import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.client import functions
from mlld_sdk.client.aio import AsyncClient
from mlld_sdk.client.client import Client
from mlld_sdk.client.handles import ProcessHandle, RequestEnded
from mlld_sdk.transport.errors import CallCancelled, CallTimeout, EngineDied, ScriptError
from tests.support.clients import EngineUnderTest, Make, client, engine, make_client, pid_of, soon
from tests.support.eventually import eventually

__all__ = ["client", "engine", "make_client"]

LOOP = 'loop(99999, 20ms) until @state.exit [\n  continue\n]\nshow "loop-stopped"\n'


def test_the_calls_are_there_as_coroutines(engine: EngineUnderTest, tmp_path: Any) -> None:  # C-70
    script = tmp_path / "hello.mld"
    script.write_text('output "v" to "state://k"\nshow @payload.name\n')

    async def main() -> None:
        async with AsyncClient(**engine.options, timeout=30) as client:
            assert await client.process('show "Hello"') == "Hello\n"
            result = await client.execute(script, {"name": "Ada"}, state={"k": None})
            assert (result.output, [write.value for write in result.state_writes]) == ("Ada\n", ["v"])
            assert (await client.process_result('show "x"')).output == "x\n"
            assert (await client.analyze(script)).valid
            answers = await asyncio.gather(*(client.process(f'show "{number}"') for number in range(20)))
            assert answers == [f"{number}\n" for number in range(20)]
            with pytest.raises(ScriptError):
                await client.process("show @nothing_here")

    asyncio.run(main())


def test_a_run_is_watched_and_steered_from_a_coroutine(client: Client) -> None:  # C-70 C-36
    async def main() -> None:
        shared = AsyncClient(client=client)
        handle = await shared.process_async(
            'output "ping" to "state://pending"\n' + LOOP, state={"exit": False, "pending": None}
        )
        event = await handle.next_event(timeout=60)
        assert event is not None
        assert event.state_write.value == "ping"
        assert await handle.next_event(timeout=0.01) is None
        await handle.update_state("exit", True)
        kinds = [event.kind async for event in handle.events()]
        assert kinds[0] == "run.started"
        assert kinds[-1] == "run.completed"
        assert await handle == "loop-stopped\n"
        assert await handle.result() == "loop-stopped\n"
        assert (await handle.next_event()).type == "complete"
        assert (await handle.full_result()).state_writes[0].value == "ping"

    asyncio.run(main())


def test_the_loop_goes_on_while_a_script_runs_and_an_engine_starts(engine: EngineUnderTest) -> None:  # C-71
    async def main() -> int:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        heart = asyncio.create_task(beat())
        async with AsyncClient(**engine.options, timeout=30) as client:
            assert await client.process("run sh { sleep 0.5 }\n") is not None
        heart.cancel()
        return beats

    assert asyncio.run(main()) >= 10


def test_cancelling_the_task_cancels_the_run(make_client: Make) -> None:  # C-72
    client = make_client(isolation="exclusive", warm=0)

    async def main() -> None:
        handle = await AsyncClient(client=client).process_async(LOOP, state={"exit": False})
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(CallCancelled):
            await handle

    asyncio.run(main())


def test_cancelling_the_task_cancels_a_run_that_is_only_being_begun(monkeypatch: pytest.MonkeyPatch) -> None:  # C-72
    may_begin, begun = threading.Event(), []

    async def ask() -> None:
        async with AsyncClient(engine="embedded") as client:
            begin = client.sync.process_async

            def slowly(*args: Any, **options: Any) -> ProcessHandle:
                assert may_begin.wait(60)
                begun.append(begin(*args, **options))
                return begun[0]

            monkeypatch.setattr(client.sync, "process_async", slowly)
            waiting = asyncio.create_task(client.process("run sh { sleep 300 }"))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            may_begin.set()
            await asyncio.to_thread(eventually, lambda: begun and begun[0].done())

    asyncio.run(ask())
    assert begun[0].cancelled()


def test_handles_of_the_synchronous_client_can_be_awaited(client: Client) -> None:  # C-44
    async def main() -> None:
        handle = client.process_async('show "a"')
        assert await handle == "a\n"
        assert await asyncio.wrap_future(client.process_async('show "b"')) == "b\n"
        with pytest.raises(CallTimeout):
            await client.process_async(LOOP, state={"exit": False}, timeout=0.3)
        survivor = client.process_async(LOOP, state={"exit": False})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.shield(survivor)
        assert not survivor.done()
        survivor.update_state("exit", True)
        assert await survivor == "loop-stopped\n"

    asyncio.run(main())


def test_the_death_of_an_engine_reaches_every_coroutine(client: Client) -> None:  # C-13 C-70
    async def main() -> None:
        shared = AsyncClient(client=client)
        await shared.process('show "warm"')
        handles = [await shared.process_async(LOOP, state={"exit": False}) for _ in range(3)]
        os.kill(pid_of(client), signal.SIGKILL)
        outcomes = await asyncio.gather(*(handle.result() for handle in handles), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EngineDied] * 3
        assert await shared.process('show "again"') == "again\n"

    asyncio.run(main())


def test_a_loop_that_is_closed_while_a_run_goes_on_disturbs_nobody(client: Client) -> None:  # C-71
    handle = client.process_async(LOOP, state={"exit": False})

    async def look() -> None:
        waiter = asyncio.ensure_future(asyncio.shield(handle))
        reader = asyncio.ensure_future(handle.events().anext(None))
        await asyncio.sleep(0)
        waiter.cancel()
        reader.cancel()

    asyncio.run(look())  # which cancels what still waits when it ends, and that cancels the run
    assert isinstance(handle.exception(60), CallCancelled)
    with pytest.raises(RequestEnded):
        handle.update_state("exit", True)
    assert client.process('show "next"') == "next\n"


@pytest.fixture
def on_the_embedded_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLLD_ENGINE", "embedded")
    functions.close()
    yield
    functions.close()


@pytest.mark.usefixtures("on_the_embedded_engine")
def test_the_calls_are_there_as_plain_functions_on_one_client(tmp_path: Any) -> None:  # C-75
    script = tmp_path / "hello.mld"
    script.write_text("show @payload.name\n")
    assert functions.process('show "a"') == "a\n"
    assert functions.process_result('show "a"').output == "a\n"
    assert functions.process_async('show "a"').result() == "a\n"
    assert functions.execute(script, {"name": "Ada"}).output == "Ada\n"
    assert functions.execute_async(script, {"name": "Ada"}).result().output == "Ada\n"
    assert functions.analyze(script).valid
    assert functions.default_client() is functions.default_client()
    first = functions.default_client()
    functions.close()
    assert functions.process('show "b"') == "b\n"
    assert functions.default_client() is not first


@pytest.mark.usefixtures("on_the_embedded_engine")
def test_signing_is_there_as_plain_functions(tmp_path: Any) -> None:  # C-75
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "a.txt").write_text("x")
    base = str(tmp_path)
    assert functions.sign("a.txt", identity="user:a", base_path=base).verified
    assert functions.verify("a.txt", base_path=base).verified
    assert [entry.relative_path for entry in functions.fs_status("*.txt", base_path=base)] == ["a.txt"]
    assert functions.sign_content("body", "user:a", base_path=base).signed_by == "user:a"


def test_the_functions_have_the_signatures_of_the_methods_and_follow_a_subclass() -> None:  # C-75
    class Loud(Client):
        def process(self, script: str, **options: Any) -> str:  # type: ignore[override]
            return script.upper()

    method = inspect.signature(Client.sign)
    assert [*inspect.signature(functions.sign).parameters] == [*method.parameters][1:]
    assert (functions.sign.__module__, functions.sign.__name__) == ("mlld_sdk.client.functions", "sign")
    functions.set_default_client(Loud(engine="embedded"))
    assert functions.process("loud") == "LOUD"
    functions.close()


def test_the_default_client_can_be_ones_own_and_threads_make_only_one(monkeypatch: pytest.MonkeyPatch) -> None:  # C-75
    mine = Client(engine="embedded")
    functions.set_default_client(mine)
    assert functions.process('show "a"') == "a\n"
    pid = pid_of(mine)
    functions.set_default_client(None)
    soon(lambda: pid_of(mine) is None)
    assert pid is not None
    made: list[Client] = []
    threads = [threading.Thread(target=lambda: made.append(functions.default_client())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    functions.close()
