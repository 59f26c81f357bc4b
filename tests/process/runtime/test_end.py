"""The end of a runtime: everybody hears of it, nobody is left waiting, and what can still be seen is true."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlld_sdk import Agent, Job, Pool, Runtime, child, dynamic, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import StartFailed
from mlld_sdk.agents.handles import AgentHandle
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.errors import AgentUnavailable, RuntimeGaveUp, RuntimeNotRunning
from mlld_sdk.journal import Journal, Outcome
from mlld_sdk.journal.errors import JournalClosed
from mlld_sdk.runtime import RuntimeEnd
from mlld_sdk.runtime.aio import AsyncRuntime
from mlld_sdk.supervision.errors import ChildUnavailable
from mlld_sdk.supervision.snapshot import walk
from mlld_sdk.transport.processes import rss_of
from tests.support.agents import engine_options, with_engines
from tests.support.command_line import command_line
from tests.support.eventually import eventually


class Brittle(Actor):
    """Breaks when it is told to; declared so that this is one failure too many."""

    def on_receive(self, message: Any) -> None:
        if message == "done":
            self.stop()
        else:
            raise RuntimeError(message)


class Slow(Agent):
    """Works until the gate is opened."""

    engine = "embedded"
    gate = threading.Event()

    def run(self, job: Job, payload: Any) -> Any:
        return payload if payload == "quick" else self.gate.wait(60)


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    Slow.gate.clear()
    yield
    Slow.gate.set()


def fragile(**options: Any) -> Any:
    nested = one_for_one(child(Slow, name="below"), name="group")
    return one_for_one(
        child(Slow, name="slow"),
        nested,
        dynamic(name="crowd"),
        child(Brittle, name="brittle"),
        max_restarts=0,
        **options,
    )


def break_it(runtime: Runtime, why: str = "as planned") -> RuntimeEnd:
    runtime.place("brittle").tell(why)
    end = runtime.wait(60)
    assert end is not None
    return end


def attempt(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:
        return error


def test_waiting_tells_when_and_why_the_root_gave_up() -> None:
    with Runtime(fragile()) as runtime, ThreadPoolExecutor(1) as thread:
        assert runtime.wait(0) is None
        waits = thread.submit(runtime.wait, None)
        before = runtime.env.wall()
        end = break_it(runtime)
        assert waits.result(60) is end
        assert end.gave_up
        assert before <= end.at <= runtime.env.wall()
        assert end.why == "gave up on `root/brittle` (limit): RuntimeError: as planned"
        assert str(end).endswith("UTC: on `root/brittle` (limit): RuntimeError: as planned")
    assert runtime.wait(0) is end  # a stop afterwards is not another end


def test_a_runtime_that_is_stopped_in_order_says_so_to_those_that_wait() -> None:
    runtime = Runtime(fragile())
    with pytest.raises(RuntimeNotRunning):
        runtime.wait(0)
    with runtime, ThreadPoolExecutor(1) as thread:
        waits = thread.submit(runtime.wait, None)
        runtime.stop()
        end = waits.result(60)
        assert (end.how, end.gave_up) == ("stopped", False)
    assert runtime.verdict().word == "ended"
    assert {node.state for node in walk(runtime.snapshot())} == {"stopped"}
    assert type(attempt(lambda: runtime["slow"])) is RuntimeNotRunning


def test_a_tree_that_has_come_to_its_own_end_has_not_given_up() -> None:
    told: list[RuntimeEnd] = []
    tree = one_for_one(
        child(Slow, name="slow"),
        child(Brittle, name="brittle", restart="transient", significant=True),
        auto_shutdown="any_significant",
    )
    with Runtime(tree, on_end=told.append) as runtime:
        agent, run = runtime.agent("slow"), runtime["slow"].run("long")
        end = break_it(runtime, "done")
        assert end.how == "ended"
        assert runtime.verdict().word == "ended"
        for ask in (lambda: run.result(None), lambda: agent.process("show 1"), lambda: agent.run(1), runtime.agents):
            assert type(attempt(ask)) is RuntimeNotRunning
        eventually(lambda: told == [end])


def test_a_root_that_is_killed_counts_as_given_up() -> None:
    with Runtime(fragile()) as runtime:
        runtime.supervisor.ref.kill("by the test")
        end = runtime.wait(60)
        assert end is not None
        assert (end.how, end.why) == ("gave_up", "killed: by the test")
        assert runtime.verdict().word == "gave_up"
        eventually(lambda: {node.state for node in walk(runtime.snapshot())} == {"stopped"})


def test_give_up_as_shutdown_is_a_give_up_all_the_same() -> None:
    with Runtime(fragile(give_up_as="shutdown")) as runtime:
        assert break_it(runtime).gave_up
        assert isinstance(attempt(runtime.agents), RuntimeGaveUp)


def test_threads_and_coroutines_that_wait_for_a_run_hear_of_it_at_once(tmp_path: Path) -> None:
    async def awaits() -> Any:
        return await run

    outcomes: list[Outcome] = []
    with Runtime(fragile(), store=tmp_path / "s.db") as runtime, ThreadPoolExecutor(4) as threads:
        agent = runtime.agent("slow")
        quick = agent.run("quick")
        assert quick.result(60) == "quick"
        run = agent.run("long")
        run.add_done_callback(outcomes.append)
        asks = (lambda: run.result(None), lambda: run.outcome(None), lambda: asyncio.run(awaits()))
        waits = [threads.submit(attempt, ask) for ask in asks]
        eventually(lambda: runtime.journal.status().waiting == 4)
        end = break_it(runtime)
        for error in [wait.result(60) for wait in waits] + [attempt(ask) for ask in asks]:
            assert isinstance(error, RuntimeGaveUp)
            assert (error.code, error.at, error.why) == ("RUNTIME_GAVE_UP", end.at, end.why)
            assert error.hint
        assert runtime.journal.status().waiting == 1
        assert quick.result(0) == "quick"
        assert runtime.run(quick.id).outcome(0).value == "quick"
        assert run.state == "pending"
        run.cancel()  # an operator still may, and then it has an outcome
        eventually(lambda: [outcome.state for outcome in outcomes] == ["cancelled"])
        assert run.outcome(0).state == "cancelled"
        left = agent_of_another(tmp_path).id
    assert isinstance(attempt(lambda: run.result(None)), RuntimeGaveUp)  # the journal is closed now
    with Runtime(one_for_one(child(Slow, name="slow")), store=tmp_path / "s.db") as runtime:
        assert runtime.run(left).result(60) == "quick"


def agent_of_another(folder: Path) -> Any:
    """Submit a run as another process would."""
    with Journal.open(folder / "s.db") as journal:
        return journal.submit("root/slow", "quick")


def test_lookups_and_submissions_are_refused_and_nothing_is_written() -> None:
    with Runtime(one_for_one(fragile(), child(Pool, name="pool", engine="embedded"), max_restarts=0)) as runtime:
        agent, pool, place = runtime.agent("slow"), runtime.pool("pool"), runtime.place("brittle")
        place.tell("as planned")
        assert runtime.wait(60)
        for ask in (
            lambda: runtime["slow"],
            lambda: runtime["nobody"],
            lambda: runtime.agent("slow"),
            lambda: runtime.pool("pool"),
            lambda: runtime.place("root"),
            lambda: runtime.place("brittle"),
            lambda: runtime.supervisor,
            lambda: runtime.pause("slow", "why"),
            lambda: runtime.resume("slow"),
            lambda: runtime.restart("slow", "why"),
            runtime.agents,
            runtime.drain,
            lambda: agent.run("more"),
            lambda: asyncio.run(agent.aio.run("more")),
            lambda: agent.process("show 1"),
            lambda: agent.process_async("show 1"),
            lambda: asyncio.run(agent.aio.process("show 1")),
            lambda: agent.status(),
            lambda: agent.drain(),
            lambda: agent.configure(timeout=1.0),
            lambda: agent.wait_until_up(60),
            lambda: pool.checkout(),
            lambda: pool.resize(2),
            lambda: pool.execute("x.mld"),
        ):
            error = attempt(ask)
            assert isinstance(error, RuntimeGaveUp), repr(error)
        assert isinstance(attempt(place.ref), ChildUnavailable)
        assert agent.ref is None
        assert runtime.journal.runs() == []


def test_who_waits_for_an_agent_to_come_back_hears_that_it_will_not() -> None:
    tree = one_for_one(child(Slow, name="slow", restart="temporary"), child(Brittle, name="brittle"), max_restarts=0)
    with Runtime(tree) as runtime, ThreadPoolExecutor(1) as thread:
        agent = runtime.agent("slow")
        agent.ref.kill("by the test")  # type: ignore[union-attr]
        eventually(lambda: agent.ref is None)
        waits = thread.submit(agent.wait_until_up, 600)
        eventually(lambda: runtime.services.tree.context._waiting)  # type: ignore[union-attr]
        break_it(runtime)
        with pytest.raises(RuntimeGaveUp):
            waits.result(60)


def test_what_was_there_at_the_end_can_be_seen_and_none_of_it_counts_as_running() -> None:
    with Runtime(fragile()) as runtime:
        runtime.place("crowd").supervisor().start_child(child(Slow, name="guest"))
        paths = [node.path for node in walk(runtime.snapshot())]
        assert "root/crowd/guest" in paths
        end = break_it(runtime)
        for _ in range(2):  # after the stop as before
            root = runtime.snapshot()
            assert [node.path for node in walk(root)] == paths
            assert {node.state for node in walk(root)} == {"stopped"}
            assert not any(node.up or node.info or node.next_in for node in walk(root))
            verdict = runtime.verdict()
            assert (verdict.word, verdict.counts) == ("gave_up", {"gave_up": 1, "ended": len(paths) - 1})
            assert (verdict.concerns[0].path, verdict.concerns[0].why) == ("root", str(end))
            first, *others = runtime.tree().splitlines()
            assert "gave up on `root/brittle`" in first
            assert all(" ok " not in line for line in others)
            assert runtime.history.crashes("root/brittle")[0].reason == "RuntimeError: as planned"
            runtime.stop()


def test_supervisors_below_that_gave_up_first_are_seen_too() -> None:
    inner = one_for_one(child(Brittle, name="brittle"), child(Slow, name="other"), name="inner", max_restarts=0)
    with Runtime(one_for_one(inner, child(Slow, name="slow"), max_restarts=0)) as runtime:
        paths = [node.path for node in walk(runtime.snapshot())]
        end = break_it(runtime)
        assert "root/inner" in end.why
        assert [node.path for node in walk(runtime.snapshot())] == paths
        assert runtime.verdict().counts == {"gave_up": 2, "ended": 3}


def test_engines_that_were_kept_for_a_successor_end_with_the_tree() -> None:
    tree = one_for_one(child(Slow, name="slow", spares=1, eager=True), max_restarts=0)
    with Runtime(tree) as runtime:
        runtime["slow"].process("show `x`")
        engines = [engine.pid for engine in eventually(runtime.history.engines)]
        runtime["slow"].ref.kill("by the test")
        assert runtime.wait(60)
        eventually(lambda: not runtime.history.engines())
        eventually(lambda: not any(rss_of(pid) for pid in engines))


def test_the_callback_is_told_once_and_may_stop_the_runtime() -> None:
    told: list[Any] = []

    def on_end(end: RuntimeEnd) -> None:
        told.append(end)
        told.append(runtime.stop())

    runtime = Runtime(fragile(), on_end=on_end).start()
    end = break_it(runtime)
    eventually(lambda: len(told) == 2)
    assert told == [end, runtime.stop()]


def test_a_callback_that_raises_or_hangs_is_not_felt() -> None:
    def fails(end: RuntimeEnd) -> None:
        raise SystemExit(str(end.how))

    gate = threading.Event()
    events: list[Any] = []
    with Runtime(fragile(), on_end=fails) as runtime, Runtime(fragile(), on_end=lambda _: gate.wait(60)) as other:
        runtime.bus.attach_inline("test", events.append)
        break_it(runtime)
        eventually(lambda: any("SystemExit: gave_up" in getattr(event, "error", "") for event in events))
        break_it(other)
        assert other.stop().clean
    gate.set()
    with pytest.raises(InvalidOption, match="on_end"):
        Runtime(fragile(), on_end="shout")  # type: ignore[arg-type]


def test_the_callback_is_not_called_for_a_stop_or_for_a_start_that_fails() -> None:
    class Broken(Actor):
        def on_start(self) -> None:
            raise RuntimeError("not today")

    told: list[RuntimeEnd] = []
    with Runtime(fragile(), on_end=told.append) as runtime:
        pass
    failing = Runtime(one_for_one(child(Slow), child(Broken)), on_end=told.append)
    with pytest.raises(StartFailed):
        failing.start()
    for one in (runtime, failing):
        end = one.wait(0)
        assert end is not None
        assert end.how == "stopped"
    assert "not today" in str(failing.wait(0))
    assert told == []


def test_a_child_that_fails_too_often_while_others_still_start_ends_what_has_just_started() -> None:
    class Early(Actor):
        def on_start(self) -> None:
            self.actor_ref.tell("die")

        def on_receive(self, message: Any) -> None:
            died.set()
            raise RuntimeError("too early")

    class Late(Actor):
        def on_start(self) -> None:
            died.wait(60)

    died = threading.Event()
    told: list[RuntimeEnd] = []
    tree = one_for_one(child(Early, name="early"), child(Late, name="late"), max_restarts=0)
    with Runtime(tree, on_end=told.append) as runtime:
        end = runtime.wait(60)
        assert end is not None
        assert "too early" in end.why
        assert isinstance(attempt(lambda: runtime["late"]), RuntimeGaveUp)
        eventually(lambda: told == [end])


def test_the_root_may_give_up_while_a_stop_lets_runs_end() -> None:
    told: list[RuntimeEnd] = []
    with Runtime(fragile(), on_end=told.append, drain_timeout=60.0) as runtime, ThreadPoolExecutor(1) as thread:
        run = runtime["slow"].run("long")
        eventually(lambda: run.state == "running")
        brittle = runtime.place("brittle")
        stops = thread.submit(runtime.stop)
        eventually(lambda: runtime["slow"].status().state == "draining")
        brittle.tell("in the middle")
        end = runtime.wait(60)
        assert end is not None
        assert end.gave_up
        assert isinstance(attempt(lambda: run.result(None)), RuntimeGaveUp)
        assert stops.result(60) is runtime.stop()
        eventually(lambda: told == [end])


def test_a_stop_tells_those_that_wait_as_soon_as_runs_have_had_their_time() -> None:
    class Lingers(Actor):
        def on_terminate(self, reason: Any) -> None:
            gate.wait(60)

    gate = threading.Event()
    tree = one_for_one(child(Lingers, name="lingers", shutdown=60.0), child(Slow, name="slow"))
    with Runtime(tree, drain_timeout=0.1, stop_timeout=60.0) as runtime, ThreadPoolExecutor(2) as threads:
        run = runtime["slow"].run("long")
        waits = threads.submit(run.result, None)
        eventually(lambda: runtime.journal.status().waiting == 1)
        stops = threads.submit(runtime.stop)
        with pytest.raises(JournalClosed, match="attach"):
            waits.result(60)
        assert not stops.done()
        gate.set()
        assert stops.result(60).reason is not None


def test_two_runtimes_in_one_process_end_for_themselves() -> None:
    with Runtime(fragile(), name="one") as one, Runtime(fragile(), name="two") as two:
        assert break_it(one).runtime == "one"
        assert two.wait(0) is None
        assert two.verdict().word == "healthy"
        assert two["slow"].run("quick").result(60) == "quick"
        with pytest.raises(RuntimeGaveUp, match="`one`"):
            one["slow"]


def test_coroutines_start_wait_and_stop_without_blocking_the_loop() -> None:
    async def main() -> None:
        async with Runtime(fragile()) as runtime:
            assert isinstance(runtime.aio, AsyncRuntime)
            assert await runtime.aio.wait(0.01) is None
            assert runtime._ending.notice._listeners == {}
            waits = asyncio.create_task(runtime.aio.wait(None))
            run = asyncio.ensure_future(result_of(await runtime.agent("slow").aio.run("long")))
            await asyncio.sleep(0)
            runtime.place("brittle").tell("as planned")
            end = await asyncio.wait_for(waits, 60)
            assert end is not None
            assert end.gave_up
            assert await runtime.aio.wait(None) is end
            with pytest.raises(RuntimeGaveUp):
                await asyncio.wait_for(run, 60)
            report = await runtime.aio.stop()
        assert await runtime.aio.stop() is report
        with pytest.raises(RuntimeNotRunning):
            await Runtime(fragile()).aio.wait(None)

    asyncio.run(main())


async def result_of(run: Any) -> Any:
    return await run


def test_an_async_block_that_raises_does_not_wait_for_runs() -> None:
    async def main() -> None:
        async with Runtime(fragile(), drain_timeout=600.0) as runtime:
            await runtime.agent("slow").aio.run("long")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_a_start_that_is_cancelled_leaves_nothing_running(begun: bool) -> None:
    class Late(Actor):
        def on_start(self) -> None:
            starting.set()
            gate.wait(60)

    gate, starting = threading.Event(), threading.Event()
    runtime = Runtime(one_for_one(child(Late, name="late")))

    async def main() -> None:
        start = asyncio.create_task(runtime.aio.start())
        await asyncio.to_thread(starting.wait, 60)
        if begun:
            gate.set()
            eventually(lambda: runtime._rounds)  # the loop cannot know yet
        start.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await start

    asyncio.run(main())
    end = runtime.wait(60)
    assert end is not None
    assert end.how == "stopped"


def test_the_command_line_says_so_as_long_as_the_program_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    with Runtime(fragile(), name="desk", control=True) as runtime:
        runtime["below"].run("quick").result(60)
        end = break_it(runtime)
        said = command_line(tmp_path, "tree")
        assert said.status == 3
        assert said.out.startswith(f"GAVE UP   1 gave up · 5 ended\ndesk: {end}\n")
        top = command_line(tmp_path, "top")
        assert (top.status, top.out.splitlines()[0]) == (0, f"the tree {end}")
        assert "none has an engine" in top.out
        assert "as planned" in command_line(tmp_path, "why", "brittle").out
        assert "gave-up-desk" in command_line(tmp_path, "crashes").out
        assert "finished" in command_line(tmp_path, "runs", "ls", "--agent", "below").out
        refused = command_line(tmp_path, "runs", "submit", "slow", "1")
        assert refused.status == 1
        assert "gave up at" in refused.err
        assert "start another one" in refused.err
    assert command_line(tmp_path, "tree").status == 1  # the socket is gone with the stop


@pytest.mark.parametrize(("kills", "engine"), with_engines(3))
def test_engines_that_are_killed_until_the_root_gives_up(kills: int, engine: str, tmp_path: Path) -> None:
    class Worker(Agent):
        def run(self, job: Job, payload: Any) -> str:
            return job.process("run sh { sleep 300 }\nshow `done`", idempotent=True)

    options = engine_options(engine)
    tree = one_for_one(
        child(Worker, name="worker", step_attempts=50, **options),
        child(Slow, name="slow"),
        max_restarts=kills - 1,
        within=600,
    )
    with Runtime(tree, store=tmp_path / "s.db") as runtime, ThreadPoolExecutor(1) as thread:
        waits = thread.submit(runtime["worker"].run("x").result, None)
        killed: set[int] = set()
        while len(killed) < kills:
            (pid,) = eventually(lambda: {one.pid for one in runtime.history.engines()} - killed)
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        with pytest.raises(RuntimeGaveUp, match="SIGKILL"):
            waits.result(60)
        assert runtime.verdict().word == "gave_up"
        assert len(runtime.history.crashes("root/worker")) == kills
        eventually(lambda: not runtime.history.engines())


def test_a_program_that_runs_for_ever_ends_with_its_tree_and_tells_the_callback_first() -> None:
    told: list[RuntimeEnd] = []
    slow = threading.Event()

    def on_end(end: RuntimeEnd) -> None:
        slow.wait(0.2)
        told.append(end)

    class Done(Actor):
        def on_start(self) -> None:
            self.send_after(0.05, "done")

        def on_receive(self, message: Any) -> None:
            self.stop()

    brief = child(Done, name="done", restart="transient", significant=True)
    runtime = Runtime(one_for_one(brief, auto_shutdown="any_significant"), on_end=on_end)
    assert runtime.run_forever() == 1
    assert [end.how for end in told] == ["ended"]


def test_without_a_thread_for_the_callback_everybody_else_hears_of_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(thread: threading.Thread) -> None:
        if thread.name.endswith("-end"):
            raise RuntimeError("can't start new thread")
        start(thread)

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuses)
    told: list[RuntimeEnd] = []
    events: list[Any] = []
    with Runtime(fragile(), on_end=told.append) as runtime:
        runtime.bus.attach_inline("test", events.append)
        run = runtime["slow"].run("long")
        assert break_it(runtime).gave_up
        assert isinstance(attempt(lambda: run.result(None)), RuntimeGaveUp)
    assert told == []
    assert any("can't start new thread" in getattr(event, "error", "") for event in events)


def test_while_the_tree_is_ending_an_agent_that_is_gone_is_not_said_to_come_back() -> None:
    class Lingers(Actor):
        def on_terminate(self, reason: Any) -> None:
            gate.wait(60)

    gate = threading.Event()
    below = one_for_one(child(Slow, name="below"), name="group")
    tree = one_for_one(child(Lingers, name="lingers", shutdown=60.0), below, child(Slow, name="slow"))
    with Runtime(tree, stop_timeout=60.0) as runtime, ThreadPoolExecutor(1) as thread:
        agents = [runtime.agent("slow"), runtime.agent("below")]
        stops = thread.submit(runtime.stop, drain=False)
        eventually(lambda: all(agent.ref is None for agent in agents))
        for agent in agents:
            error = attempt(lambda agent=agent: agent.process("show `x`"))
            assert isinstance(error, AgentUnavailable)
            assert "tree is ending" in str(error.hint)
            assert type(attempt(lambda agent=agent: runtime[agent.name])) in (RuntimeNotRunning, AgentHandle)
        assert not stops.done()
        gate.set()
        stops.result(60)


def test_an_agent_below_a_supervisor_that_is_down_is_unavailable() -> None:
    with Runtime(fragile()) as runtime:
        agent = runtime.agent("below")
        runtime.pause("group", "by the test")
        with pytest.raises(AgentUnavailable):
            agent.process("show `x`")


def test_a_run_that_waits_for_another_does_not_take_a_stop_for_an_answer(tmp_path: Path) -> None:
    class Waits(Agent):
        engine = "embedded"
        handles: ClassVar[list[Any]] = []

        def run(self, job: Job, payload: Any) -> Any:
            handle = job_of_slow(payload)
            self.handles.append(handle)
            try:
                return handle.result(None)
            except JournalClosed:
                return "made up"

    class Lingers(Actor):
        def on_terminate(self, reason: Any) -> None:
            gate.wait(60)

    def job_of_slow(run_id: str) -> Any:
        return runtime.run(run_id)

    gate = threading.Event()
    tree = one_for_one(
        child(Slow, name="slow"), child(Waits, name="waits"), child(Lingers, name="lingers", shutdown=60.0)
    )
    with (
        Runtime(tree, store=tmp_path / "s.db", drain_timeout=0.1, stop_timeout=60.0) as runtime,
        ThreadPoolExecutor(2) as threads,
    ):
        slow = runtime["slow"].run("long")
        waits = runtime["waits"].run(slow.id)
        asks = threads.submit(slow.result, None)
        eventually(lambda: runtime.journal.status().waiting == 2)
        stops = threads.submit(runtime.stop)
        with pytest.raises(JournalClosed):
            asks.result(60)
        assert waits.state == "running"  # its agent stops after the one that lingers
        gate.set()
        stops.result(60)
    with Journal.open(tmp_path / "s.db") as journal:
        for run_id in (slow.id, waits.id):
            record = journal.run(run_id)
            assert (record.state, record.deaths) == ("pending", ())


def test_who_waits_for_the_end_of_a_runtime_that_is_starting_hears_that_it_did_not() -> None:
    class Late(Actor):
        def on_start(self) -> None:
            gate.wait(60)
            raise RuntimeError("not today")

    gate = threading.Event()
    runtime = Runtime(one_for_one(child(Late, name="late")))
    with ThreadPoolExecutor(2) as threads:
        starts = threads.submit(runtime.start)
        waits = threads.submit(lambda: eventually(lambda: runtime._services) and runtime.wait(60))
        assert not waits.done()
        gate.set()
        assert isinstance(starts.exception(60), StartFailed)
        assert "not today" in str(waits.result(60))


def test_a_thousand_that_wait_are_all_told(tmp_path: Path) -> None:
    async def main() -> list[Any]:
        runs = [runtime["slow"].run("long") for _ in range(10)]
        asks = [asyncio.ensure_future(result_of(run)) for run in runs for _ in range(100)]
        await asyncio.to_thread(lambda: eventually(lambda: runtime.journal.status().waiting == 1000))
        runtime.place("brittle").tell("as planned")
        return await asyncio.wait_for(asyncio.gather(*asks, return_exceptions=True), 120)

    with Runtime(fragile(), store=tmp_path / "s.db", durability="normal") as runtime:
        errors = asyncio.run(main())
        assert {type(error) for error in errors} == {RuntimeGaveUp}


def test_a_look_at_the_runtime_while_its_journal_is_being_closed_finds_no_file_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runtime(fragile(), store=tmp_path / "s.db") as runtime:
        runtime["slow"].run("quick").result(60)
    monkeypatch.setattr(Path, "exists", lambda _: True)  # as it was the moment before
    assert runtime.verdict().word == "ended"


def test_a_stop_needs_none_of_the_threads_of_the_loop() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        async with Runtime(fragile(), drain_timeout=0.1) as runtime:
            run = await runtime.agent("slow").aio.run("long")
            asks = [asyncio.ensure_future(asyncio.to_thread(run.result, None)) for _ in range(2)]
            await asyncio.sleep(0)
            eventually(lambda: runtime.journal.status().waiting == 2)
            await asyncio.wait_for(runtime.aio.stop(), 60)
            for error in await asyncio.gather(*asks, return_exceptions=True):
                assert isinstance(error, JournalClosed)

    asyncio.run(main())


def test_a_task_that_is_cancelled_while_it_stops_does_not_call_the_stop_off() -> None:
    async def main() -> None:
        stop = asyncio.create_task(runtime.aio.stop())
        await asyncio.to_thread(lambda: eventually(lambda: runtime["slow"].status().state == "draining"))
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop

    runtime = Runtime(fragile(), drain_timeout=60.0).start()
    run = runtime["slow"].run("long")
    eventually(lambda: run.state == "running")
    asyncio.run(main())
    Slow.gate.set()
    end = runtime.wait(60)
    assert end is not None
    assert end.how == "stopped"
