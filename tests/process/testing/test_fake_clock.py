"""One move of the clock wakes all that waits for a moment of it, and nothing of that takes real time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, AsyncJob, Backoff, Client, Job, Retry, Runtime, child, circuit_breaker, one_for_one
from mlld_sdk.actors import Actor
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.journal import Retention
from mlld_sdk.journal.events import StepFailedEvent, StepFinished
from mlld_sdk.runs.errors import RunFailed
from mlld_sdk.runs.events import StepHeld
from mlld_sdk.supervision.breaker import Breaker
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.supervision.events import ChildStarted
from mlld_sdk.testing import FakeClock, Recorder
from tests.support.eventually import eventually

pytestmark = pytest.mark.usefixtures("no_leaks")

TWO_DAYS = timedelta(days=2)
SOON = 60.0
"""Real seconds a test waits for what should come at once."""


@contextmanager
def standing(clock: FakeClock, *children: Any, **options: Any) -> Iterator[tuple[Runtime, Recorder]]:
    """Run agents in a time that stands still."""
    events = Recorder()
    runtime = Runtime(one_for_one(*children), env=clock.env, **options)
    runtime.bus.attach_inline("test", events)
    with runtime:
        yield runtime, events


class Sleeper(Agent):
    engine = "embedded"
    concurrency = 8

    def run(self, job: Job, payload: Any) -> float:
        job.sleep(timedelta(seconds=payload))
        return job.step("woke", lambda: "awake")  # type: ignore[return-value]


class AsyncSleeper(Agent):
    engine = "embedded"
    concurrency = 8

    async def run(self, job: AsyncJob, payload: Any) -> Any:
        await job.sleep(payload)

        async def awake() -> str:
            return "awake"

        return await job.step("woke", awake)


SLEEPERS = pytest.mark.parametrize("kind", [Sleeper, AsyncSleeper])


@SLEEPERS
@pytest.mark.parametrize("store", [None, "state.db"])
def test_a_run_that_sleeps_two_days_is_woken_at_once(kind: type[Agent], store: str | None, tmp_path: Path) -> None:
    clock = FakeClock()
    where = None if store is None else tmp_path / store
    with standing(clock, child(kind, name="a"), store=where) as (runtime, events):
        run = runtime["a"].run(TWO_DAYS.total_seconds())
        events.next(StepFinished, run_id=run.id, name="sleep")  # how long it sleeps is written down
        clock.advance(TWO_DAYS - timedelta(seconds=1))
        assert run.state == "running"
        clock.advance(1)
        assert run.result(timeout=SOON) == "awake"
        assert run.record().attempt == 1


@SLEEPERS
def test_a_run_is_woken_wherever_it_is_between_writing_down_the_moment_and_waiting_for_it(kind: type[Agent]) -> None:
    clock = FakeClock()
    with standing(clock, child(kind, name="a")) as (runtime, events):
        for pause in (0.0, 0.0, 0.0001, 0.0005, 0.001, 0.002, 0.005):
            run = runtime["a"].run(TWO_DAYS.total_seconds())
            events.next(StepFinished, run_id=run.id, name="sleep")
            threading.Event().wait(pause)  # anywhere between the step and the wait
            clock.advance(TWO_DAYS)
            assert run.result(timeout=SOON) == "awake"


@SLEEPERS
def test_many_small_moves_are_as_good_as_a_large_one(kind: type[Agent]) -> None:
    clock = FakeClock()
    with standing(clock, child(kind, name="a")) as (runtime, events):
        run = runtime["a"].run(1.0)
        events.next(StepFinished, run_id=run.id, name="sleep")
        for _ in range(10):
            clock.advance(0.1)
        assert run.result(timeout=SOON) == "awake"


def test_a_sleep_until_a_moment_goes_by_the_same_clock() -> None:
    clock = FakeClock()
    moment = datetime.now(UTC) + TWO_DAYS

    class Until(Agent):
        engine = "embedded"

        def run(self, job: Job, payload: Any) -> str:
            job.sleep_until(moment)
            return "awake"

    with standing(clock, child(Until, name="a")) as (runtime, events):
        run = runtime["a"].run()
        events.next(StepFinished, run_id=run.id, name="sleep_until")
        clock.advance(TWO_DAYS + timedelta(minutes=1))  # the true time has gone on a little
        assert run.result(timeout=SOON) == "awake"


def test_no_time_that_really_passes_wakes_a_run() -> None:
    clock = FakeClock()
    with standing(clock, child(Sleeper, name="a")) as (runtime, events):
        run = runtime["a"].run(0.05)
        events.next(StepFinished, run_id=run.id, name="sleep")
        other = runtime["a"].run(0)  # begins and ends meanwhile
        assert other.result(timeout=SOON) == "awake"
        threading.Event().wait(0.2)  # four times as long as it sleeps
        assert run.state == "running"
        clock.advance(0.05)
        assert run.result(timeout=SOON) == "awake"


def test_branches_of_one_run_sleep_side_by_side_and_wake_in_their_order() -> None:
    clock, woke = FakeClock(), []

    class Branches(Agent):
        engine = "embedded"

        def run(self, job: Job, payload: Any) -> None:
            def branch(hours: int, job: Job) -> None:
                job.sleep(timedelta(hours=hours))
                woke.append(hours)

            job.map(branch, [1, 2, 3], concurrency=3)

    with standing(clock, child(Branches, name="a")) as (runtime, events):
        run = runtime["a"].run()
        for _ in range(3):
            events.next(StepFinished, run_id=run.id, name="sleep")
        for hours in (1, 2, 3):
            clock.advance(timedelta(hours=1))
            eventually(lambda hours=hours: woke == list(range(1, hours + 1)))
        run.result(timeout=SOON)


def test_a_pause_between_attempts_is_over_when_the_clock_says_so() -> None:
    clock, tries = FakeClock(), []

    class Tries(Agent):
        engine = "embedded"

        def run(self, job: Job, payload: Any) -> Any:
            def act() -> int:
                tries.append(clock.now())
                if len(tries) < 3:
                    raise OSError("not yet")
                return len(tries)

            return job.step("act", act, retry=Retry(attempts=3, delay=3600, longest=7200, jitter=0))

    with standing(clock, child(Tries, name="a")) as (runtime, events):
        run = runtime["a"].run()
        for hours in (1, 2):
            events.next(StepFailedEvent, run_id=run.id)
            clock.advance(timedelta(hours=hours))
        assert run.result(timeout=SOON) == 3
    assert [round(after - before) for before, after in pairwise(tries)] == [3600, 7200]


@SLEEPERS
def test_the_deadline_of_a_run_passes_when_the_clock_says_so(kind: type[Agent]) -> None:
    clock = FakeClock()
    with standing(clock, child(kind, name="a")) as (runtime, events):
        run = runtime["a"].run(TWO_DAYS.total_seconds(), deadline=timedelta(days=1))
        events.next(StepFinished, run_id=run.id, name="sleep")
        clock.advance(timedelta(days=1))
        with pytest.raises(RunFailed) as late:
            run.result(timeout=SOON)
        assert late.value.code == "RUN_DEADLINE_EXCEEDED"


def test_the_deadline_of_a_run_that_waits_in_the_queue_passes_by_the_round_that_the_move_makes() -> None:
    clock = FakeClock()

    class Alone(Sleeper):
        concurrency = 1

    with standing(clock, child(Alone, name="a")) as (runtime, events):
        first = runtime["a"].run(TWO_DAYS.total_seconds())
        events.next(StepFinished, run_id=first.id, name="sleep")
        second = runtime["a"].run(0, deadline=3600)
        clock.advance(timedelta(hours=1))
        with pytest.raises(RunFailed) as late:
            second.result(timeout=SOON)
        assert late.value.code in ("RUN_DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        assert first.state == "running"
        first.cancel()


@pytest.mark.parametrize("store", [None, "state.db"])
def test_a_run_keeps_its_owner_over_any_move_of_the_clock(store: str | None, tmp_path: Path) -> None:
    """In truth leases are renewed every few seconds, so a jump is no reason to think that an owner is dead."""
    clock = FakeClock()
    where = None if store is None else tmp_path / store
    with standing(clock, child(Sleeper, name="a"), store=where) as (runtime, events):
        run = runtime["a"].run(30 * 86400)
        events.next(StepFinished, run_id=run.id, name="sleep")
        for _ in range(30):
            assert run.state == "running"
            clock.advance(timedelta(days=1))
        assert run.result(timeout=SOON) == "awake"
        assert run.record().attempt == 1


def test_two_runtimes_of_one_clock_and_one_store_leave_each_other_s_runs_alone(tmp_path: Path) -> None:
    clock = FakeClock()
    tree = child(Sleeper, name="a")
    with (
        standing(clock, tree, store=tmp_path / "state.db") as (one, events),
        standing(clock, tree, store=tmp_path / "state.db") as (other, _),
    ):
        run = one["a"].run(30 * 86400)
        events.next(StepFinished, run_id=run.id, name="sleep")
        for _ in range(30):
            clock.advance(timedelta(days=1))
        assert other.run(run.id).result(timeout=SOON) == "awake"
        assert run.record().attempt == 1


class Brittle(Actor):
    def on_receive(self, message: Any) -> None:
        raise RuntimeError(message)


def test_a_child_comes_back_from_its_backoff_when_the_clock_says_so() -> None:
    clock = FakeClock()
    brittle = child(Brittle, name="brittle", backoff=Backoff.of(3600, most=3600, jitter=0))
    with standing(clock, brittle) as (runtime, events):
        events.next(ChildStarted, path="root/brittle")
        runtime.place("brittle").ref().tell("break")
        eventually(lambda: runtime.snapshot().children[0].state == "waiting")
        clock.advance(timedelta(hours=1))
        assert events.next(ChildStarted, path="root/brittle").incarnation == 2


def test_an_open_breaker_lets_probes_through_when_the_clock_says_so() -> None:
    clock = FakeClock()
    breaker = Breaker(circuit_breaker("b", failures=1, open_for=3600.0), clock.env)
    breaker.report(RuntimeError())
    with pytest.raises(BreakerOpen):
        breaker.acquire()
    clock.advance(timedelta(hours=1))
    breaker.acquire().settle()


def test_idle_engines_are_put_to_sleep_when_the_clock_says_so() -> None:
    clock = FakeClock()
    with standing(clock, child(Agent, name="a", engine="embedded", hibernate_after=3600.0)) as (runtime, _):
        runtime["a"].process("show `x`")
        assert runtime["a"].status().engines.idle == 1
        clock.advance(timedelta(minutes=59))
        assert runtime["a"].status().engines.idle == 1
        clock.advance(timedelta(minutes=1))
        eventually(lambda: runtime["a"].status().engines.idle == 0)


@pytest.mark.parametrize("store", [None, "state.db"])
def test_ended_runs_go_by_their_age_when_the_clock_says_so(store: str | None, tmp_path: Path) -> None:
    clock = FakeClock()
    retention = Retention(keep_last=None, older_than=86400.0)
    where = None if store is None else tmp_path / store
    with standing(clock, child(Sleeper, name="a"), store=where, retention=retention) as (runtime, _):
        runtime["a"].run(0).result(timeout=SOON)
        clock.advance(timedelta(hours=23))
        assert len(runtime.journal.runs()) == 1
        clock.advance(timedelta(hours=2))
        eventually(lambda: not runtime.journal.runs())


def test_timers_of_actors_have_fired_when_the_move_returns() -> None:
    clock, rung = FakeClock(), []
    with ActorSystem(env=clock.env) as system:
        for hours in (3, 1, 2):
            system.timers.after(hours * 3600, lambda hours=hours: rung.append(hours))
        clock.advance(timedelta(hours=2))
        assert rung == [1, 2]
        clock.advance(timedelta(hours=1))
        assert rung == [1, 2, 3]


def test_engines_keep_real_time_wherever_the_clock_stands(tmp_path: Path) -> None:
    clock = FakeClock()
    with standing(clock, child(Agent, name="a", engine="embedded", working_dir=tmp_path)) as (runtime, _):
        agent = runtime["a"]
        assert agent.process("show `x`") == "x\n"
        clock.advance(TWO_DAYS)
        assert agent.process("show `x`") == "x\n"
        slow = agent.process_async("run sh { sleep 600 }", timeout=0.5)
        with pytest.raises(TimeoutError):  # of the request: half a second that really passes
            slow.result(timeout=SOON)
        eventually(lambda: agent.process("show `x`") == "x\n")


def test_a_request_that_waits_for_an_engine_gives_up_in_real_time(tmp_path: Path) -> None:
    clock = FakeClock()
    with standing(clock, child(Agent, name="a", engine="embedded", working_dir=tmp_path)) as (runtime, _):
        agent = runtime["a"]
        busy = agent.process_async("run sh { sleep 600 }")
        eventually(lambda: agent.status().engines.busy == 1)
        clock.advance(TWO_DAYS)
        with pytest.raises(TimeoutError):
            agent.process("show `x`", timeout=0.3)
        busy.cancel()


def test_a_client_in_a_time_that_stands_still_is_a_client() -> None:
    clock = FakeClock()
    with Client(engine="embedded", env=clock.env) as client:
        assert client.process("show `x`") == "x\n"
        clock.advance(TWO_DAYS)
        assert client.process("show `x`") == "x\n"


def test_nothing_watches_a_clock_any_more_when_all_is_closed() -> None:
    clock = FakeClock()
    with standing(clock, child(Sleeper, name="a"), child(AsyncSleeper, name="b")) as (runtime, events):
        for name in ("a", "b"):
            run = runtime[name].run(5)
            events.next(StepFinished, run_id=run.id, name="sleep")
            clock.advance(5)
            run.result(timeout=SOON)
    assert not clock._watchers


@pytest.mark.parametrize("wrong", [-1, "2d", float("inf"), float("nan"), None])
def test_time_is_moved_by_a_duration(wrong: Any) -> None:
    with pytest.raises((InvalidOption, TypeError)):
        FakeClock().advance(wrong)


def test_a_clock_begins_with_the_true_time_or_at_a_given_one() -> None:
    clock = FakeClock()
    assert abs(clock.wall() - datetime.now(UTC).timestamp()) < 600
    told = FakeClock(5.0)
    assert (told.now(), told.wall()) == (5.0, 1_700_000_000.0)
    told.advance(timedelta(seconds=30))
    assert (told.now(), told.wall()) == (35.0, 1_700_000_030.0)


def test_two_threads_may_move_one_clock() -> None:
    clock = FakeClock(0.0)
    threads = [threading.Thread(target=lambda: [clock.advance(1) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now() == 400.0


def test_a_wait_that_begins_and_ends_while_the_clock_is_moved_is_neither_lost_nor_called_late() -> None:
    clock, over = FakeClock(0.0), threading.Event()
    seen: list[float] = []

    def mover() -> None:
        while not over.is_set():
            clock.advance(1)

    thread = threading.Thread(target=mover)
    thread.start()
    for _ in range(50):
        woken = threading.Event()
        end = clock.env.watch(woken.set)
        assert woken.wait(SOON)
        end()
        seen.append(clock.now())
    over.set()
    thread.join()
    assert seen == sorted(seen)
    assert not clock._watchers


def test_a_step_that_waits_for_its_breaker_goes_on_when_the_clock_says_so() -> None:
    clock, up = FakeClock(), threading.Event()

    class Asks(Agent):
        engine = "embedded"

        def run(self, job: Job, payload: Any) -> Any:
            def ask() -> str:
                if not up.is_set():
                    raise ConnectionError("no route to the model")
                return "answered"

            guard = circuit_breaker("model", failures=1, open_for=3600.0, counts=lambda error: error is not None)
            return job.step("ask", ask, breaker=guard, retry=Retry(attempts=2, delay=0))

    with standing(clock, child(Asks, name="a")) as (runtime, events):
        run = runtime["a"].run()
        events.next(StepHeld, run_id=run.id)
        up.set()
        clock.advance(timedelta(hours=1))
        assert run.result(timeout=SOON) == "answered"


def test_draining_waits_for_real_processes_in_real_time(tmp_path: Path) -> None:
    clock = FakeClock()
    with standing(clock, child(Agent, name="a", engine="embedded", working_dir=tmp_path)) as (runtime, _):
        agent = runtime["a"]
        busy = agent.process_async("run sh { while [ ! -e go ]; do sleep 0.02; done }")
        eventually(lambda: agent.status().engines.busy == 1)
        drained = threading.Thread(target=agent.drain, args=(SOON,))
        drained.start()
        eventually(lambda: agent.status().state == "draining")
        (tmp_path / "go").touch()
        drained.join(SOON)
        assert agent.status().state == "drained"
        busy.result(timeout=SOON)


def test_a_clock_that_is_moved_while_runs_end_disturbs_neither() -> None:
    clock, over = FakeClock(), threading.Event()

    def mover() -> None:
        while not over.wait(0.001):
            clock.advance(1)

    thread = threading.Thread(target=mover)
    with standing(clock, child(AsyncSleeper, name="a"), child(Sleeper, name="b")) as (runtime, _):
        thread.start()
        runs = [runtime[name].run(number % 4) for number in range(20) for name in ("a", "b")]
        assert {run.result(timeout=SOON) for run in runs} == {"awake"}
        over.set()
        thread.join()
