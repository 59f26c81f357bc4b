"""Actors with `async def` hooks: one message at a time for each, many actors at once."""

import asyncio
import threading
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor, current_actor
from mlld_sdk.actors.core.context import fenced
from mlld_sdk.actors.core.directives import IGNORE, Continue, Reply, Stop
from mlld_sdk.actors.core.errors import ActorCrashed, ActorError, StartFailed, StartIgnored
from mlld_sdk.actors.core.events import ZombieLeft
from mlld_sdk.actors.core.exits import NORMAL, Crash, Other
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.errors import ConfigurationError
from tests.support.actors import Puppet, Sink, seen_by
from tests.support.eventually import eventually


class Async(Actor):
    """Awaits something in every hook."""

    def __init__(self, log: list[Any] | None = None) -> None:
        self.log: list[Any] = [] if log is None else log
        self.inside = 0

    async def on_start(self) -> Any:
        await asyncio.sleep(0)
        self.log.append(("start", threading.current_thread().name))

    async def on_receive(self, message: Any) -> Any:
        self.inside += 1
        assert self.inside == 1
        await asyncio.sleep(0)
        self.inside -= 1
        return message(self) if callable(message) else message

    async def on_continue(self, value: Any) -> None:
        await asyncio.sleep(0)
        self.log.append(value)

    async def on_terminate(self, reason: Any) -> None:
        await asyncio.sleep(0)
        self.log.append(reason)


def test_async_hooks_run_on_the_loops_thread_and_are_answered(system: ActorSystem) -> None:  # T-24
    ref = system.start(Async)
    assert ref.ask(lambda me: me.log) == [("start", "test-loop")]
    assert ref.call(lambda me: current_actor()) is ref


def test_messages_are_handled_one_at_a_time_and_in_order(system: ActorSystem) -> None:  # GEN-2
    log: list[Any] = []
    ref = system.start(Async, (log,))
    log.clear()
    futures = [ref.request(lambda me, number=number: me.log.append(number)) for number in range(100)]
    for future in futures:
        future.get(timeout=10)
    assert log == list(range(100))


def test_many_async_actors_wait_at_the_same_time(system: ActorSystem) -> None:
    barrier: list[asyncio.Event] = []

    class Meeting(Actor):
        count = 0

        async def on_receive(self, message: Any) -> Any:
            if not barrier:
                barrier.append(asyncio.Event())
            Meeting.count += 1
            if Meeting.count == 50:
                barrier[0].set()
            await barrier[0].wait()
            return "met"

    futures = [system.start(Meeting).request("x") for _ in range(50)]
    assert [future.get(timeout=10) for future in futures] == ["met"] * 50
    assert system.scheduler.size < 10


def test_directives_work_from_coroutines(system: ActorSystem) -> None:
    log: list[Any] = []
    ref = system.start(Async, (log,))
    assert ref.call(lambda me: Reply("now", Continue("then"))) == "now"
    ref.call("flush")
    assert log[-1] == "then"
    assert ref.call(lambda me: Stop(Other("end"), reply="bye")) == "bye"
    assert log[-1] == Other("end")


def test_a_crash_in_a_coroutine_is_a_crash(system: ActorSystem) -> None:  # GEN-7
    log: list[Any] = []
    ref = system.start(Async, (log,))
    with pytest.raises(ActorCrashed):
        ref.call(lambda me: 1 / 0)
    assert isinstance(ref.reason, Crash)
    assert log[-1] == ref.reason


def test_an_orderly_stop_waits_for_the_message_and_runs_the_hook(system: ActorSystem) -> None:
    log: list[Any] = []
    ref = system.start(Async, (log,))
    future = ref.request("last")
    assert ref.stop()
    assert log[-1] == NORMAL
    assert future.done


def test_an_async_start_can_fail_ignore_and_be_awaited(system: ActorSystem) -> None:
    class Fails(Async):
        async def on_start(self) -> Any:
            raise ValueError("no")

    class Ignores(Async):
        async def on_start(self) -> Any:
            return IGNORE

    with pytest.raises(StartFailed) as caught:
        system.start(Fails)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(StartIgnored):
        system.start(Ignores)


def test_an_async_actor_can_await_another(system: ActorSystem) -> None:
    class Asks(Actor):
        async def on_receive(self, message: Any) -> Any:
            return [await message.request(number) for number in range(3)]

    assert system.start(Asks).ask(system.start(Puppet), timeout=10) == [0, 1, 2]


def test_an_async_actor_starts_others_without_blocking_the_loop(system: ActorSystem) -> None:  # T-24
    class Starts(Actor):
        async def on_receive(self, message: Any) -> Any:
            with pytest.raises(ActorError, match="event loop"):
                self.start_link(Async)
            return await self.system.start_soon(Async, parent=self.actor_ref)

    child = system.start(Starts).ask("x", timeout=10)
    assert child.ask("alive", timeout=10) == "alive"
    assert len(system) == 2


@pytest.mark.parametrize("option", ["threaded", "caller_runs"])
def test_async_hooks_do_not_go_with_a_thread_of_ones_own(system: ActorSystem, option: str) -> None:
    bad = type("Bad", (Async,), {option: True})
    with pytest.raises(ConfigurationError, match=option):
        system.start(bad)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("deep", [False, True], ids=["in the hook", "in a task of it"])
def test_an_exit_in_a_coroutine_is_that_actors_crash_and_no_end_of_the_loop(
    system: ActorSystem, error: type[BaseException], deep: bool
) -> None:
    class Exits(Async):
        async def on_receive(self, message: Any) -> Any:
            if message != "exit":
                return message

            async def leave() -> None:
                raise error

            return await (asyncio.create_task(leave()) if deep else leave())

    doomed, other = system.start(Exits), system.start(Async)
    with pytest.raises(ActorCrashed):
        doomed.call("exit", timeout=20)
    assert not doomed.is_alive()
    assert other.call("alive", timeout=20) == "alive"
    assert system.start(Async).call("new", timeout=20) == "new"
    other.cast("while it is stopped")
    assert system.stop(20).clean


def test_an_exit_raised_when_the_loop_ends_does_not_keep_it(system: ActorSystem) -> None:
    class Exits(Async):
        async def on_receive(self, message: Any) -> Any:
            message.set()
            try:
                await asyncio.sleep(60)
            finally:
                raise SystemExit

    began = threading.Event()
    system.start(Exits).tell(began)
    assert began.wait(20)
    system.stop(0.1)
    assert [one.name for one in threading.enumerate() if one.name == "test-loop"] == []


def test_a_killed_actor_whose_coroutine_swallows_its_cancellation_is_fenced_and_listed(system: ActorSystem) -> None:
    tried: dict[str, str] = {}
    other = system.start(Puppet)
    swallowed, finish = threading.Event(), threading.Event()

    class Careless(Async):
        async def on_receive(self, message: Any) -> Any:
            try:
                message.set()
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed.set()
            await asyncio.to_thread(finish.wait, 60)
            acts: dict[str, Any] = {
                "tell": lambda: other.tell("ghost"),
                "send_after": lambda: self.send_after(0, "ghost", other),
                "start_link": lambda: self.start_link(Puppet),
                "start": lambda: system.start(Puppet),
            }
            for name, act in acts.items():
                try:
                    act()
                    tried[name] = "took effect"
                except BaseException as error:
                    tried[name] = type(error).__name__

    busy = threading.Event()
    ref = system.start(Careless)
    ref.tell(busy)
    assert busy.wait(20)
    ref.kill()
    assert swallowed.wait(20)
    eventually(lambda: len(system.zombies) == 1)
    (zombie,) = system.zombies.list()
    assert (zombie.actor, zombie.kind) == (ref.path, "Careless")
    assert "on_receive" in zombie.stack
    finish.set()
    eventually(lambda: len(system.zombies) == 0)
    assert set(tried.values()) == {"ActorKilled"}
    assert other.call("alive") == "alive"
    assert seen_by(other) == ["alive"]
    assert fenced == set()


def test_one_that_heeds_its_cancellation_is_no_zombie(system: ActorSystem, sink: Sink) -> None:
    class Careful(Async):
        async def on_receive(self, message: Any) -> Any:
            message.set()
            await asyncio.sleep(60)

    busy = threading.Event()
    ref = system.start(Careful)
    ref.tell(busy)
    assert busy.wait(20)
    ref.kill()
    eventually(lambda: fenced == set())
    assert sink.of(ZombieLeft) == []
