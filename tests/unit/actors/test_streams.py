"""Task streams: lazy, bounded, in order or not, and clean whatever way they are left."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.exits import Crash
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.tasks.errors import TaskExited, TaskTimeout, TooManyTasks
from mlld_sdk.actors.tasks.task_actor import callers
from mlld_sdk.actors.tasks.task_supervisor import Tasks
from mlld_sdk.actors.tasks.tasks import TOO_SLOW, Exited, Ok
from mlld_sdk.base.errors import ConfigurationError, UnknownOption
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


def double(number: int, extra: int = 0) -> int:
    return number * 2 + extra


def odd_fails(number: int) -> int:
    if number % 2:
        raise ValueError(f"odd: {number}")
    return number


BOTH = pytest.mark.parametrize("kind", ["async_stream", "async_stream_nolink"])
WIDTHS = pytest.mark.parametrize("width", [1, 2, 4, 8])


@BOTH
@WIDTHS
@pytest.mark.parametrize("ordered", [True, False])
def test_every_item_gives_its_result(tasks: Tasks, kind: str, width: int, ordered: bool) -> None:
    # STR-1, STR-2, TS24, TS25, TS37, TS38, TK9, TK10
    stream = getattr(tasks, kind)(range(10), double, 1, max_concurrency=width, ordered=ordered)
    found = list(stream)
    expected = [Ok(double(number, 1)) for number in range(10)]
    assert (found if ordered else sorted(found, key=lambda ok: ok.value)) == expected
    assert list(stream) == expected or not ordered
    assert list(getattr(tasks, kind)([], double)) == []


@WIDTHS
def test_no_more_than_the_limit_run_at_once_and_the_input_is_taken_only_as_needed(
    tasks: Tasks, gates: Gates, width: int
) -> None:  # STR-1
    pulled: list[int] = []

    def source() -> Iterator[int]:
        for number in itertools.count():
            pulled.append(number)
            yield number

    stream = tasks.async_stream_nolink(source(), gates.hold, max_concurrency=width)
    assert (pulled, tasks.children()) == ([], [])
    run = iter(stream)
    gates.let(0)
    assert next(run) == Ok(0)
    assert pulled == list(range(width))
    assert len(tasks.children()) == width - 1
    run.close()


@BOTH
def test_ordered_results_wait_for_the_slowest_first_while_later_ones_run_on(
    tasks: Tasks, gates: Gates, kind: str
) -> None:  # STR-2, TS27, TS40
    stream = getattr(tasks, kind)(["slow", 1, 2], gates.hold, max_concurrency=2)
    run = iter(stream)
    gates.let(1)
    gates.let(2)
    collected: list[Any] = []
    reader = puppet_thread(lambda: collected.append(next(run)))
    gates.wait_for(2)
    assert collected == []
    gates.let("slow")
    reader.join(60)
    assert [*collected, *run] == [Ok("slow"), Ok(1), Ok(2)]


def puppet_thread(action: Any) -> Any:
    import threading

    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_unordered_results_come_as_they_are_finished(tasks: Tasks, gates: Gates) -> None:  # STR-2, TK9
    run = iter(tasks.async_stream_nolink([0, 1, 2], gates.hold, max_concurrency=3, ordered=False))
    found = []
    for number in (1, 2, 0):
        gates.let(number)
        found.append(next(run))
    assert found == [Ok(1), Ok(2), Ok(0)]


def test_the_finished_that_wait_are_bounded_too(tasks: Tasks, gates: Gates) -> None:  # STR-2
    pulled: list[int] = []
    source = (pulled.append(number) or number for number in range(100))
    for number in range(1, 100):
        gates.let(number)
    stream = tasks.async_stream_nolink(source, gates.hold, max_concurrency=2, max_waiting=5)
    run = iter(stream)
    reader = puppet_thread(lambda: next(run))
    eventually(lambda: len(pulled) == 6)
    gates.let(0)
    reader.join(60)
    assert len(list(run)) == 99


# -- failures


def test_unlinked_failures_are_results(tasks: Tasks) -> None:  # STR-4, TS41
    found = list(tasks.async_stream_nolink(range(4), odd_fails))
    assert (found[0], found[2]) == (Ok(0), Ok(2))
    assert [type(item.reason) for item in (found[1], found[3])] == [Crash, Crash]


@WIDTHS
def test_a_linked_failure_ends_the_iteration_and_a_consumer_that_does_not_catch_it(
    tasks: Tasks, one: Ref, width: int
) -> None:  # STR-4
    with pytest.raises(TaskExited, match="odd: 1"):
        list(tasks.async_stream(range(4), odd_fails, max_concurrency=width))
    one.cast(lambda _: list(tasks.async_stream(range(4), odd_fails, max_concurrency=width)))
    assert one.join(60).is_crash
    assert tasks.children() == []


def test_a_consumer_that_traps_exits_gets_linked_failures_as_results(system: ActorSystem, tasks: Tasks) -> None:
    # STR-4, TS28
    trapping = puppet(system, traps=True)
    found = within(trapping, lambda: list(tasks.async_stream(range(2), odd_fails)))
    assert found[0] == Ok(0)
    assert isinstance(found[1], Exited)
    assert seen(trapping) == []


def test_a_failure_may_say_what_it_was_working_on(tasks: Tasks) -> None:  # STR-6, TS34, TS35
    stream = tasks.async_stream_nolink(itertools.count(1, 2), odd_fails, zip_input_on_exit=True)
    assert [item.input for item in itertools.islice(stream, 4)] == [1, 3, 5, 7]


def test_an_input_that_fails_ends_everything(tasks: Tasks, gates: Gates) -> None:  # TK10
    def source() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(tasks.async_stream_nolink(source(), gates.hold, max_concurrency=2))
    assert tasks.children() == []


def test_an_input_is_closed_when_the_loop_is_left(tasks: Tasks) -> None:  # TK10
    closed: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    for _ in tasks.async_stream_nolink(source(), double):
        break
    assert closed == [True]


# -- time


def test_a_slow_task_ends_the_iteration_unless_told_otherwise(
    world: tuple[ActorSystem, Clock], tasks: Tasks, gates: Gates
) -> None:  # STR-3, TK9
    system, clock = world
    run = iter(tasks.async_stream_nolink(["slow"], gates.hold, timeout=50))
    failed: list[Any] = []

    def read() -> None:
        try:
            next(run)
        except TaskTimeout as error:
            failed.append(error)

    reader = puppet_thread(read)
    gates.wait_for("slow")
    eventually(lambda: len(system.timers) == 1)
    clock.advance(50)
    reader.join(60)
    assert len(failed) == 1
    assert (tasks.children(), len(system.timers)) == ([], 0)


def test_a_slow_task_may_be_killed_alone(world: tuple[ActorSystem, Clock], tasks: Tasks, gates: Gates) -> None:
    # STR-3, STR-6, TS34, TK9
    _, clock = world
    for name in (1, 3):
        gates.let(name)
    stream = tasks.async_stream_nolink(
        [1, "slow", 3], gates.hold, timeout=50, on_timeout="kill_task", max_concurrency=3, zip_input_on_exit=True
    )
    run = iter(stream)
    found = [next(run)]
    gates.wait_for("slow")
    eventually(lambda: len(tasks.children()) == 1)
    clock.advance(50)
    assert [*found, *run] == [Ok(1), Exited(TOO_SLOW, "slow"), Ok(3)]
    assert tasks.children() == []


def test_each_task_has_its_own_time_from_its_own_start(
    world: tuple[ActorSystem, Clock], tasks: Tasks, gates: Gates
) -> None:  # STR-3
    system, clock = world
    run = iter(tasks.async_stream_nolink([0, 1], gates.hold, timeout=50, max_concurrency=1))
    gates.let(0)
    assert next(run) == Ok(0)
    clock.advance(40)
    reader_got: list[Any] = []
    reader = puppet_thread(lambda: reader_got.append(next(run)))
    gates.wait_for(1)
    clock.advance(40)
    gates.let(1)
    reader.join(60)
    assert reader_got == [Ok(1)]
    assert len(system.timers) == 0


# -- leaving early


@BOTH
@WIDTHS
def test_leaving_the_loop_kills_what_runs_before_it_goes_on(
    system: ActorSystem, tasks: Tasks, one: Ref, gates: Gates, kind: str, width: int
) -> None:  # STR-5, TS26, TS29, TS30, TS39, TS42, TS43, TK10
    def leave(how: str) -> Any:
        try:
            for item in getattr(tasks, kind)(itertools.count(), gates.hold, max_concurrency=width, timeout=None):
                if how == "break":
                    break
                raise KeyError(item.value)
        except KeyError:
            pass
        return tasks.children()

    gates.let(0)
    for how in ("break", "raise"):
        assert within(one, lambda how=how: leave(how)) == []
    assert seen(one) == []
    assert len(system.timers) == 0


def test_a_killed_consumer_takes_its_tasks_along(tasks: Tasks, one: Ref, gates: Gates) -> None:  # STR-5
    one.cast(lambda _: list(tasks.async_stream_nolink(range(3), gates.hold, max_concurrency=3, timeout=None)))
    for number in range(3):
        gates.wait_for(number)
    one.kill()
    assert tasks.children() == []


@BOTH
def test_a_full_supervisor_ends_the_iteration_cleanly(system: ActorSystem, one: Ref, gates: Gates, kind: str) -> None:
    # STR-6, TSK-5, TS31, TS44
    tasks = Tasks.start(system, max_children=1)
    with pytest.raises(TooManyTasks):
        within(one, lambda: list(getattr(tasks, kind)(range(4), gates.hold, max_concurrency=4)))
    assert tasks.children() == []
    assert seen(one) == []
    gates.open_all()


@pytest.mark.parametrize(
    "option",
    [
        {"max_concurrency": 0},
        {"max_concurrency": 1.5},
        {"timeout": -1},
        {"on_timeout": "panic"},
        {"shutdown": "unknown"},
        {"max_waiting": 0},
    ],
    ids=lambda option: next(iter(option)),
)
@BOTH
def test_bad_options_are_refused_when_the_stream_is_built(tasks: Tasks, kind: str, option: dict[str, Any]) -> None:
    # STR-6, TS36, TK9
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        getattr(tasks, kind)([], double, **option)
    with pytest.raises(UnknownOption, match="did you mean `max_concurrency`"):
        getattr(tasks, kind)([], double, concurrency=4)


def test_a_timeout_of_zero_is_a_timeout(world: tuple[ActorSystem, Clock], tasks: Tasks, gates: Gates) -> None:  # TK9
    with pytest.raises(TaskTimeout):
        list(tasks.async_stream_nolink([1], gates.hold, timeout=0))


# -- who consumes


def test_a_stream_belongs_to_whoever_iterates_not_to_whoever_built_it(tasks: Tasks, one: Ref) -> None:
    # TS32, TS33, STR-7
    stream = tasks.async_stream([1, 2], lambda number: (number, callers()))
    assert within(one, lambda: list(stream)) == [Ok((1, (one,))), Ok((2, (one,)))]
    assert list(stream) == [Ok((1, ())), Ok((2, ()))]


def test_streams_may_be_nested(tasks: Tasks) -> None:  # TK9, TK10
    inner = (item.value for item in tasks.async_stream(range(5), double, max_concurrency=2))
    outer = tasks.async_stream(inner, double, max_concurrency=2)
    assert [item.value for item in outer] == [0, 4, 8, 12, 16]


def test_a_coroutine_iterates_without_stopping_its_loop(tasks: Tasks, gates: Gates) -> None:  # STR-7
    async def main() -> list[Any]:
        asyncio.get_running_loop().call_soon(gates.let, 0)
        found = []
        async for item in tasks.async_stream_nolink([0, 1], gates.hold, max_concurrency=2):
            found.append(item)
            gates.let(1)
        return found

    assert asyncio.run(main()) == [Ok(0), Ok(1)]


@pytest.mark.parametrize("how", ["break", "cancel"])
def test_a_coroutine_that_leaves_or_is_cancelled_kills_what_runs(tasks: Tasks, gates: Gates, how: str) -> None:
    # STR-5, STR-7
    async def main() -> None:
        gates.let(0)
        async for _ in tasks.async_stream_nolink([0, 1, 2], gates.hold, max_concurrency=3, timeout=None):
            if how == "break":
                break
            await asyncio.sleep(0)

    async def outside() -> None:
        if how == "break":
            await main()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await main()

    asyncio.run(outside())
    assert tasks.children() == []


def test_consumers_killed_at_any_instant_leave_no_task_and_no_reserved_place() -> None:  # STR-5, T-1
    chance = random.Random(7)
    with ActorSystem("chaos", switch_interval=1e-6) as system:
        tasks = Tasks.start(system)
        for number in range(150):
            consumer = puppet(system)
            options = {"max_concurrency": 3, "ordered": bool(number % 2), "timeout": None}
            consumer.cast(lambda _, options=options: list(tasks.async_stream_nolink(range(40), double, **options)))
            for _ in range(chance.randint(0, 5_000)):
                consumer.is_alive()
            consumer.kill()
        assert eventually(lambda: tasks._count == 0)
        assert (tasks.children(), tasks._children, len(system.timers)) == ([], {}, 0)


def test_a_stream_in_a_log_line_does_not_show_its_input(tasks: Tasks) -> None:
    assert len(repr(tasks.async_stream(range(10), double))) < 200
    assert "secret" not in repr(tasks.async_stream(["secret"], str))
