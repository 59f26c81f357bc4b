"""Tasks: one function, one handle, and who learns what of its end."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor, current_actor
from mlld_sdk.actors.core.errors import ActorDead, AskCancelled, DeadlockDetected, NoSuchActor, NotOwner
from mlld_sdk.actors.core.exits import KILLED, NOPROC, NORMAL, SHUTDOWN, Crash, Killed
from mlld_sdk.actors.core.ref import Exit
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.tasks import task_supervisor
from mlld_sdk.actors.tasks.errors import TaskExited, TaskTimeout, TooManyTasks
from mlld_sdk.actors.tasks.task_actor import ancestors, callers
from mlld_sdk.actors.tasks.task_supervisor import Tasks, TaskSupervisor, TooManyRestarts
from mlld_sdk.actors.tasks.tasks import BRUTAL_KILL, Exited, Ok, await_many, completed, yield_many
from mlld_sdk.base.errors import ConfigurationError
from tests.support.eventually import eventually
from tests.support.libraries import Clock, Gates, Ref, fresh_system, puppet, seen, within


@pytest.fixture
def world() -> Iterator[tuple[ActorSystem, Clock]]:
    with fresh_system() as (system, clock):
        yield system, clock


@pytest.fixture
def system(world: tuple[ActorSystem, Clock]) -> ActorSystem:
    return world[0]


@pytest.fixture
def tasks(system: ActorSystem) -> Tasks:
    return Tasks.start(system)


@pytest.fixture
def gates(tasks: Tasks) -> Iterator[Gates]:
    gates = Gates()
    yield gates
    gates.open_all()


@pytest.fixture
def one(system: ActorSystem) -> Ref:
    return puppet(system)


def boom() -> None:
    raise ValueError("boom")


# -- starting and waiting


def test_a_task_runs_a_function_with_its_arguments_and_gives_its_value(tasks: Tasks, one: Ref) -> None:
    # TSK-1, TS5, TS9, TS10, TS13, TK1, TK4
    assert tasks.async_(sum, [1, 2]).result() == 3
    assert tasks.async_nolink(int, "11", base=2).result() == 3
    assert within(one, lambda: tasks.async_(sum, [1, 2]).result()) == 3


def test_a_task_is_a_child_of_its_supervisor_while_it_runs(tasks: Tasks, gates: Gates) -> None:  # TSK-5, TS4, TS5
    assert tasks.children() == []
    task = tasks.async_nolink(gates.hold)
    gates.wait_for()
    assert tasks.children() == [task.ref]
    assert task.ref is not None
    assert task.ref.parent is tasks.ref
    gates.let()
    task.result()
    assert task.ref.join(10) == NORMAL
    assert tasks.children() == []


def test_a_failure_is_raised_by_whoever_waits_with_its_reason_and_cause(tasks: Tasks) -> None:
    # TSK-2, TS21, TS22, TK4
    with pytest.raises(TaskExited, match="boom") as exited:
        tasks.async_nolink(boom).result()
    assert exited.value.reason.is_crash
    assert isinstance(exited.value.__cause__, ValueError)


def test_who_does_not_catch_a_failed_task_ends_for_its_reason(tasks: Tasks, one: Ref) -> None:  # TSK-2
    one.cast(lambda _: tasks.async_nolink(boom).result())
    reason = one.join(10)
    assert isinstance(reason, Crash)
    assert reason.message == "boom"
    assert not TaskExited("ended normally", reason=NORMAL).exit_reason.is_normal_family


def test_a_task_that_was_killed_says_so(tasks: Tasks, gates: Gates) -> None:  # TSK-2, TS23, TK4
    task = tasks.async_nolink(gates.hold)
    gates.wait_for()
    task.ref.kill("on purpose")
    with pytest.raises(TaskExited) as exited:
        task.result()
    assert exited.value.reason == Killed("on purpose")


def test_waiting_too_long_raises_and_leaves_the_task_and_nothing_else(tasks: Tasks, one: Ref, gates: Gates) -> None:
    # TSK-2, TS20, TK4
    def wait() -> Any:
        task = tasks.async_nolink(gates.hold, "value")
        with pytest.raises(TaskTimeout):
            task.result(timeout=0)
        return task

    task = within(one, wait)
    gates.let("value")
    assert within(one, lambda: task.result()) == "value"
    assert seen(one) == []


def test_polling_says_what_there_is_and_may_be_repeated(tasks: Tasks, gates: Gates) -> None:  # TSK-3, TK6
    task = tasks.async_nolink(gates.hold, "v")
    assert task.poll(timeout=0) is None
    assert (task.done, task.outcome) == (False, None)
    gates.let("v")
    assert task.poll() == Ok("v")
    assert task.poll(timeout=0) == Ok("v")
    failed = tasks.async_nolink(boom).poll()
    assert isinstance(failed, Exited)
    assert failed.reason.is_crash


def test_only_the_owner_waits(tasks: Tasks, one: Ref, gates: Gates) -> None:  # TSK-2, TK4, TK5, TK6
    task = tasks.async_nolink(gates.hold)
    theirs = within(one, lambda: tasks.async_nolink(gates.hold))
    for wait in (
        task.result,
        task.poll,
        task.shutdown,
        task.ignore,
        lambda: await_many([task]),
        lambda: task.__await__(),
    ):
        with pytest.raises(NotOwner):
            within(one, wait)
    for wait in (theirs.result, lambda: yield_many([theirs])):
        with pytest.raises(NotOwner):
            wait()


def test_a_finished_task_is_made_where_an_interface_wants_one(one: Ref) -> None:  # TK2
    task = completed(42)
    assert (task.result(), task.poll(), task.shutdown(), task.ref) == (42, Ok(42), Ok(42), None)
    assert within(one, lambda: completed(1).result()) == 1


def test_a_task_that_asks_the_actor_that_waits_for_it_is_told_at_once(tasks: Tasks, one: Ref) -> None:
    def ask_back() -> Any:
        return one.call(lambda me: "never", timeout=60)

    with pytest.raises(TaskExited) as exited:
        within(one, lambda: tasks.async_nolink(ask_back).result(timeout=60))
    assert isinstance(exited.value.__cause__, DeadlockDetected)


# -- links


def test_a_linked_task_takes_its_caller_down_with_it(tasks: Tasks, one: Ref) -> None:  # TSK-1
    within(one, lambda: tasks.async_(boom))
    assert one.join(60).is_crash


def test_a_caller_that_traps_exits_is_told_and_lives(system: ActorSystem, tasks: Tasks) -> None:  # TSK-1, TS5
    trapping = puppet(system, traps=True)
    crashed = within(trapping, lambda: tasks.async_(boom))
    assert crashed.ref.join(10).is_crash
    fine = within(trapping, lambda: tasks.async_(int))
    fine.ref.join(10)
    assert eventually(lambda: len(seen(trapping)) == 2)
    first, second = seen(trapping)
    assert (first.ref, first.reason.is_crash, second) == (crashed.ref, True, Exit(fine.ref, NORMAL))
    assert within(trapping, fine.result) == 0


def test_a_linked_task_ends_with_its_caller_even_in_the_middle(tasks: Tasks, one: Ref, gates: Gates) -> None:  # TSK-1
    task = within(one, lambda: tasks.async_(gates.hold))
    gates.wait_for()
    one.kill()
    assert not task.ref.is_alive()
    assert tasks.children() == []


def test_a_task_that_kills_its_caller_ends_too_and_breaks_nothing(system: ActorSystem, tasks: Tasks, one: Ref) -> None:
    # TSK-1
    ended = threading.Event()

    def kill_caller() -> None:
        one.monitor(lambda down: ended.set())
        one.kill()

    one.cast(lambda _: tasks.async_(kill_caller))
    assert ended.wait(60)
    eventually(lambda: tasks.children() == [])
    assert tasks.children() == []


def test_without_a_link_neither_end_touches_the_other(tasks: Tasks, one: Ref, gates: Gates) -> None:  # TSK-1, TS10
    held = within(one, lambda: tasks.async_nolink(gates.hold))
    failing = within(one, lambda: tasks.async_nolink(boom))
    failing.ref.join(10)
    assert seen(one) == []
    one.kill()
    assert held.ref.is_alive()


def test_a_link_to_a_caller_that_died_meanwhile_ends_the_task(tasks: Tasks, one: Ref, gates: Gates) -> None:  # TSK-1
    def start_and_die(_: Any) -> None:
        started.append(tasks.async_(gates.hold))
        raise SystemExit

    started: list[Any] = []
    one.cast(start_and_die)
    one.join(60)
    assert eventually(lambda: not started[0].ref.is_alive())


# -- shutdown and ignore


def test_shutting_down_a_running_task_gives_nothing_and_then_noproc(tasks: Tasks, gates: Gates) -> None:  # TSK-3, TK8
    task = tasks.async_nolink(gates.hold)
    gates.wait_for()
    assert task.shutdown(BRUTAL_KILL) is None
    assert task.shutdown(BRUTAL_KILL) == Exited(NOPROC)
    assert tasks.children() == []


def test_a_task_may_finish_within_its_shutdown_time(system: ActorSystem, tasks: Tasks, one: Ref, gates: Gates) -> None:
    # TSK-3, TK8
    task = within(one, lambda: tasks.async_nolink(gates.hold, "done"))
    gates.wait_for("done")
    answer = one.request(lambda _: task.shutdown(30))
    eventually(lambda: len(system.timers) == 1)
    gates.let("done")
    assert answer.get(timeout=10) == Ok("done")


def test_a_task_that_does_not_end_in_its_shutdown_time_is_killed(
    world: tuple[ActorSystem, Clock], tasks: Tasks, gates: Gates
) -> None:  # TSK-3, TK8
    system, clock = world
    waiting = puppet(system)
    task = within(waiting, lambda: tasks.async_nolink(gates.hold))
    gates.wait_for()
    answer = waiting.request(lambda _: task.shutdown(3))
    eventually(lambda: len(system.timers) > 0)
    clock.advance(3)
    assert answer.get(timeout=10) is None
    assert task.ref.reason == Killed("did not end within 3.0 seconds")


def test_what_a_task_had_before_it_was_shut_down_counts(tasks: Tasks) -> None:  # TSK-3, TK8
    for make, kind in ((lambda: tasks.async_nolink(int), Ok), (lambda: tasks.async_nolink(boom), Exited)):
        for time in (5.0, BRUTAL_KILL):
            task = make()
            task.ref.join(10)
            assert isinstance(task.shutdown(time), kind)


def test_an_ignored_task_goes_on_and_cannot_be_waited_for(tasks: Tasks, gates: Gates) -> None:  # TSK-3, TK3
    finished = tasks.async_nolink(int)
    assert finished.poll() == Ok(0)
    assert finished.ignore() == Ok(0)
    task = tasks.async_nolink(gates.hold)
    gates.wait_for()
    assert task.ignore() is None
    assert task.ref.is_alive()
    for wait in (task.result, task.poll, task.ignore):
        with pytest.raises(NotOwner, match="ignored"):
            wait()
    gates.let()
    assert task.ref.join(10) == NORMAL


# -- several


def test_waiting_for_many_gives_values_in_the_order_given(tasks: Tasks, gates: Gates) -> None:  # TSK-3, TK5
    made = [tasks.async_nolink(gates.hold, n) for n in range(3)]
    for n in (2, 0, 1):
        gates.let(n)
    assert await_many(made) == [0, 1, 2]
    assert await_many([]) == []


def test_the_first_failure_is_raised_at_once(tasks: Tasks, gates: Gates) -> None:  # TSK-3, TK5
    with pytest.raises(TaskExited, match="boom"):
        await_many([tasks.async_nolink(gates.hold), tasks.async_nolink(boom)], timeout=30)


def test_waiting_for_many_has_a_limit_and_they_go_on(tasks: Tasks, gates: Gates) -> None:  # TSK-3, TK5
    made = [tasks.async_nolink(int), tasks.async_nolink(gates.hold)]
    with pytest.raises(TaskTimeout):
        await_many(made, timeout=0.01)
    assert made[1].ref.is_alive()
    assert made[1]._watchers == {}


def test_yielding_many_tells_each_outcome_in_the_order_given(tasks: Tasks, gates: Gates) -> None:  # TSK-3, TK7
    fine, bad, held = tasks.async_nolink(int), tasks.async_nolink(boom), tasks.async_nolink(gates.hold)
    found = yield_many([held, bad, fine], limit=2)
    assert [task for task, _ in found] == [held, bad, fine]
    assert found[0][1] is None
    assert isinstance(found[1][1], Exited)
    assert found[2][1] == Ok(0)
    assert held._watchers == {}


@pytest.mark.parametrize("on_timeout", ["nothing", "ignore", "kill_task"])
def test_what_becomes_of_the_late_is_said(tasks: Tasks, gates: Gates, on_timeout: Any) -> None:  # TSK-3, TK7
    held = tasks.async_nolink(gates.hold)
    gates.wait_for()
    assert yield_many([held], timeout=0, on_timeout=on_timeout) == [(held, None)]
    assert held.ref.is_alive() == (on_timeout != "kill_task")
    if on_timeout == "ignore":
        with pytest.raises(NotOwner):
            held.poll()


def test_bad_options_are_named(tasks: Tasks) -> None:
    for misuse, name in (
        (lambda: yield_many([], on_timeout="panic"), "on_timeout"),  # type: ignore[arg-type]
        (lambda: yield_many([], limit=0), "limit"),
        (lambda: tasks.async_(int, shutdown=-1), "shutdown"),
        (lambda: tasks.async_nolink(int, shutdown="kill"), "shutdown"),  # type: ignore[arg-type]
        (lambda: tasks.start_child(int, restart="always"), "restart"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError, match=name):
            misuse()
    assert tasks.children() == []


# -- the supervisor


def test_a_supervisor_can_be_a_named_child_and_is_found_again(system: ActorSystem, one: Ref) -> None:  # TS1, TS3
    ref = system.start(TaskSupervisor, kwargs={"max_children": 1}, name="tasks", parent=one)
    assert Tasks.of(ref).async_nolink(int).result() == 0
    found = system.whereis("tasks")
    assert found is ref
    one.kill()
    eventually(lambda: not ref.is_alive())
    with pytest.raises(ActorDead):
        Tasks.of(ref)


def test_a_full_supervisor_refuses_every_kind_of_task(system: ActorSystem, gates: Gates) -> None:
    # TSK-5, TS7, TS12
    tasks = Tasks.start(system, max_children=1)
    held = tasks.async_nolink(gates.hold)
    for start in (tasks.async_, tasks.async_nolink, tasks.start_child):
        with pytest.raises(TooManyTasks, match="limit of 1"):
            start(int)
    gates.let()
    held.ref.join(10)
    assert tasks.async_(int).result() == 0


def test_a_child_runs_for_its_effects_and_is_linked_to_the_supervisor_only(
    tasks: Tasks, one: Ref, gates: Gates
) -> None:
    # TSK-4, TS14, TS15
    ran = threading.Event()
    ref = within(one, lambda: tasks.start_child(gates.hold))
    within(one, lambda: tasks.start_child(lambda event: event.set(), ran))
    assert ran.wait(60)
    within(one, lambda: tasks.start_child(boom)).join(10)
    assert one.is_alive()
    one.kill()
    assert ref.is_alive()


def test_a_child_is_terminated_and_then_unknown(tasks: Tasks, gates: Gates) -> None:  # TS19
    ref = tasks.start_child(gates.hold, shutdown=BRUTAL_KILL)
    gates.wait_for()
    tasks.terminate_child(ref)
    assert (ref.is_alive(), tasks.children()) == (False, [])
    with pytest.raises(NoSuchActor):
        tasks.terminate_child(ref)


@pytest.mark.parametrize("kind", ["async_", "async_nolink", "start_child"])
def test_a_brutally_killed_task_gets_no_time_when_the_supervisor_ends(
    system: ActorSystem, gates: Gates, kind: str
) -> None:  # TS6, TS11, TS16
    tasks = Tasks.start(system)
    getattr(tasks, kind)(gates.hold, shutdown=BRUTAL_KILL)
    gates.wait_for()
    (ref,) = tasks.children()
    assert tasks.ref.stop(timeout=10)
    assert isinstance(ref.reason, Killed)


def test_tasks_may_finish_when_the_supervisor_ends(system: ActorSystem, gates: Gates) -> None:  # TS6, TS11, TS16, TSK-9
    tasks = Tasks.start(system)
    task = tasks.async_nolink(gates.hold, "value", shutdown=30.0)
    gates.wait_for("value")
    stopped = tasks.ref.stop(block=False)
    gates.let("value")
    assert stopped.get(timeout=10)
    assert task.result() == "value"


def test_a_killed_supervisor_leaves_no_task(system: ActorSystem, gates: Gates) -> None:  # TSK-9
    tasks = Tasks.start(system)
    held = [tasks.async_nolink(gates.hold, n) for n in range(3)]
    for n in range(3):
        gates.wait_for(n)
    tasks.ref.kill()
    for n in range(3):
        gates.let(n)
    assert eventually(lambda: not any(task.ref.is_alive() for task in held))
    with pytest.raises(Exception, match=r"ended|not found"):
        tasks.async_nolink(int)


@pytest.mark.parametrize(
    ("restart", "first", "again"),
    [
        ("temporary", boom, False),
        ("transient", boom, True),
        ("transient", int, False),
        ("permanent", int, True),
        ("permanent", boom, True),
    ],
)
def test_a_child_comes_back_as_its_restart_says(
    tasks: Tasks, gates: Gates, restart: Any, first: Any, again: bool
) -> None:  # TSK-4, TS17
    runs: list[Ref | None] = []

    def run() -> None:
        runs.append(current_actor())
        if len(runs) == 1:
            first()
        else:
            gates.hold()

    ref = tasks.start_child(run, restart=restart)
    ref.join(60)
    if again:
        gates.wait_for()
        assert tasks.children() == [runs[1]]
        assert runs[1] is not ref
    else:
        assert tasks.ref.call("barrier") is None
        assert (tasks.children(), len(runs)) == ([], 1)


def test_a_terminated_child_does_not_come_back(tasks: Tasks, gates: Gates) -> None:  # TSK-4
    ref = tasks.start_child(gates.hold, restart="permanent", shutdown=BRUTAL_KILL)
    gates.wait_for()
    tasks.terminate_child(ref)
    assert tasks.ref.call("barrier") is None
    assert tasks.children() == []


def test_children_that_end_too_often_end_the_supervisor(system: ActorSystem) -> None:  # TSK-4
    tasks = Tasks.start(system, max_restarts=3, within=5.0)
    runs: list[int] = []
    tasks.start_child(lambda: runs.append(1), restart="permanent")
    assert tasks.ref.join(10) == TooManyRestarts(3, 5.0)
    assert len(runs) == 4


# -- context


def test_a_task_knows_on_whose_behalf_it_runs_and_who_is_responsible(tasks: Tasks, one: Ref) -> None:
    # TSK-6, TS8, TS18
    def outer() -> Any:
        inner = tasks.async_nolink(lambda: (callers(), ancestors()))
        return current_actor(), inner.result()

    def start() -> Any:
        return tasks.async_(outer).result()

    outer_ref, (chain, above) = within(one, start)
    assert chain == (outer_ref, one)
    assert above == (tasks.ref,)
    assert (callers(), ancestors()) == ((), ())


def test_the_report_of_a_failed_task_names_function_and_starter(
    world: tuple[ActorSystem, Clock], tasks: Tasks, one: Ref
) -> None:  # TK11
    within(one, lambda: tasks.async_nolink(boom)).ref.join(10)
    (report,) = eventually(lambda: [event for event in world[1].named("actor.exited") if not event.normal])
    assert report.actor == f"{tasks.ref.path}/boom-1"
    assert (report.reason, report.state) == ("ValueError: boom", f"function: boom, started by: {one}")
    assert "raise ValueError" in report.trace


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


def test_a_task_sees_the_context_variables_of_its_caller(tasks: Tasks) -> None:  # T-22
    token = VARIABLE.set("mine")
    try:
        task = tasks.async_nolink(VARIABLE.get)
        later = tasks.async_nolink(give_variable)
    finally:
        VARIABLE.reset(token)
    assert (task.result(), later.result()) == ("mine", "mine")


async def give_variable() -> str:
    await asyncio.sleep(0)
    return VARIABLE.get()


# -- coroutines


def test_a_coroutine_function_is_a_task_too(tasks: Tasks, one: Ref) -> None:  # TSK-7
    async def work(value: int) -> tuple[int, Any]:
        await asyncio.sleep(0)
        return value, current_actor()

    task = within(one, lambda: tasks.async_nolink(work, 1))
    assert within(one, task.result) == (1, task.ref)

    async def fail() -> None:
        raise ValueError("async boom")

    with pytest.raises(TaskExited, match="async boom"):
        tasks.async_nolink(fail).result()


def test_killing_a_task_cancels_its_coroutine(tasks: Tasks) -> None:  # TSK-7
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = tasks.async_nolink(work)
    assert started.wait(60)
    assert task.shutdown(BRUTAL_KILL) is None
    assert cancelled.wait(60)


def test_a_coroutine_awaits_a_task_without_stopping_its_loop(tasks: Tasks, gates: Gates) -> None:  # TSK-8
    async def main() -> Any:
        task = tasks.async_nolink(gates.hold, "value")
        asyncio.get_running_loop().call_soon(gates.let, "value")
        return await task

    assert asyncio.run(main()) == "value"


def test_many_tasks_are_awaited_together(tasks: Tasks) -> None:  # TSK-8
    async def main() -> list[int]:
        return await asyncio.gather(*[tasks.async_nolink(pow, 2, number) for number in range(4)])

    assert asyncio.run(main()) == [1, 2, 4, 8]


def test_an_actor_with_coroutine_hooks_owns_awaits_and_streams_its_tasks(system: ActorSystem, tasks: Tasks) -> None:
    # TSK-2, TSK-8, STR-7
    class Asynchronous(Actor):
        async def on_receive(self, message: Any) -> Any:
            linked = await tasks.async_(pow, 2, message)
            streamed = [item.value async for item in tasks.async_stream(range(message), double)]
            return linked, streamed, await tasks.async_nolink(callers)

    ref = system.start(Asynchronous)
    assert ref.call(3) == (8, [0, 2, 4], (ref,))


def double(number: int) -> int:
    return number * 2


def test_cancelling_the_await_kills_the_task(tasks: Tasks, gates: Gates) -> None:  # TSK-8
    async def main() -> Any:
        task = tasks.async_nolink(gates.hold)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await task
        return task

    task = asyncio.run(main())
    assert not task.ref.is_alive()
    assert task.poll() == Exited(KILLED)
    with pytest.raises(AskCancelled):
        task.result()


def test_awaiting_a_failed_task_raises_its_end(tasks: Tasks) -> None:  # TSK-8
    async def main() -> None:
        await tasks.async_nolink(boom)

    with pytest.raises(TaskExited, match="boom"):
        asyncio.run(main())


def test_the_end_of_the_system_is_the_end_of_every_task(gates: Gates) -> None:  # TSK-9
    with fresh_system("ending") as (system, _):
        task = Tasks.start(system).async_nolink(gates.hold, "last", shutdown=BRUTAL_KILL)
        gates.wait_for("last")
        system.stop(0.2)
        assert isinstance(task.outcome, Exited)
        assert task.outcome.reason != SHUTDOWN
        gates.let("last")


def test_a_task_that_is_over_before_anybody_watches_still_tells_why(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:  # TSK-2, TSK-4
    def spawn_and_wait(*args: Any, **kwargs: Any) -> Ref:
        ref = spawn(*args, **kwargs)
        ref.join(60)
        return ref

    spawn = task_supervisor.spawn
    monkeypatch.setattr(task_supervisor, "spawn", spawn_and_wait)
    with pytest.raises(TaskExited, match="boom") as exited:
        tasks.async_nolink(boom).result()
    assert exited.value.reason.is_crash
    tasks.start_child(int, restart="transient")
    assert tasks.ref.call("barrier") is None
    assert tasks.children() == []
