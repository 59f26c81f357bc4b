"""Starting, dying, cancelling, expiring, closing: what is promised about the end of engines and calls."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.base.env import Env
from mlld_sdk.transport import processes as transport_processes
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.ending import Ending
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import (
    CallCancelled,
    CallTimeout,
    CommandNotExecutable,
    CommandNotFound,
    EngineBabbling,
    EngineClosed,
    EngineDied,
    EngineDiedAtStart,
    EngineSilent,
    ForkedProcess,
    SpawnRefused,
    WorkingDirectoryMissing,
)
from mlld_sdk.transport.events import EngineCallbackFailed, EngineExited, EngineStarted
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.processes import Birth, Births, process, processes
from mlld_sdk.transport.reactor import shared_reactor
from tests.support.engines import Recorder, do, hostile, is_alive, open_descriptors, running
from tests.support.eventually import eventually

# -- starting


def our_directories() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"mlld-otp-*-{os.getpid()}-*"))


def test_a_missing_program_is_a_typed_error_with_a_hint_and_leaves_nothing(tmp_path: Path) -> None:  # T-1
    shared_reactor()
    before = open_descriptors(), our_directories()
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    for argv, cwd, kind in [
        (("/no/such/program",), None, CommandNotFound),
        ((str(script),), None, CommandNotExecutable),
        ((str(tmp_path),), None, CommandNotExecutable),
        ((sys.executable,), str(tmp_path / "nowhere"), WorkingDirectoryMissing),
    ]:
        with pytest.raises(kind) as caught:
            Engine.start(EngineCommand(argv=argv, cwd=cwd))
        assert caught.value.hint
    assert before == (open_descriptors(), our_directories())


def test_an_engine_that_dies_at_start_says_how_and_with_which_words() -> None:  # T-3
    with running("dies") as engine:
        with pytest.raises(EngineDiedAtStart) as caught:
            engine.wait_ready(10)
        assert caught.value.returncode == 3
        assert "Cannot find module 'x'" in caught.value.message
        assert caught.value.stderr_tail.startswith("first line")
        with pytest.raises(EngineDiedAtStart):
            engine.submit("process", timeout=1)


def test_an_engine_that_dies_in_its_first_request_long_after_its_start_did_not_die_at_start() -> None:  # T-3
    now = [100.0]
    with running(env=Env(now=lambda: now[0])) as engine:
        call = engine.submit("process", do("hang"), timeout=None)
        now[0] += 3.0
        os.kill(engine.pid, signal.SIGKILL)
        error = call.exception(60)
    assert type(error) is EngineDied
    assert "SIGKILL" in error.message
    assert "during process, 3.0 s after its start, with no answer given yet" in error.message
    assert engine.has_worked


def test_a_silent_engine_and_a_babbling_one_are_told_apart_in_time() -> None:  # T-3
    with running("deaf") as engine, pytest.raises(EngineSilent):
        engine.wait_ready(0.2)
    with running("babbles") as engine:
        eventually(lambda: engine.stats.noise_lines)
        with pytest.raises(EngineBabbling):
            engine.wait_ready(0.2)


def test_a_ready_engine_says_how_long_its_loop_took() -> None:  # T-3
    with running() as engine:
        assert 0 < engine.wait_ready(10) < 10
        assert engine.rss() > 1_000_000


def test_start_and_exit_are_told_once() -> None:
    told = Recorder()
    with running(sink=told) as engine:
        engine.call("process", timeout=60)
        assert engine.close()
        assert engine.close()
    assert [event.pid for event in told.of(EngineStarted)] == [engine.pid]
    (exited,) = told.of(EngineExited)
    assert (exited.reason, exited.code, exited.in_flight) == ("closed", 0, 0)


def test_the_end_is_told_before_the_failures_it_causes() -> None:
    order: list[str] = []
    with running(sink=lambda event: order.append("told") if isinstance(event, EngineExited) else None) as engine:
        call = engine.submit("process", do(("exit", 7)), timeout=None)
        call.add_done_callback(lambda _: order.append("failed"))
        assert isinstance(call.exception(60), EngineDied)
    eventually(lambda: len(order) == 2)
    assert order == ["told", "failed"]


# -- dying


@pytest.mark.parametrize(
    ("verb", "code", "number"),
    [
        (("exit", 7), 7, None),
        (("exit", 137), 137, None),
        (("signal", signal.SIGSEGV), None, signal.SIGSEGV),
        (("signal", signal.SIGKILL), None, signal.SIGKILL),
    ],
)
def test_death_with_requests_in_flight_is_an_infrastructure_error_for_each(
    verb: Any, code: int | None, number: int | None
) -> None:  # T-25
    told = Recorder()
    with running(sink=told) as engine:
        others = [engine.submit("process", do("hang"), timeout=None) for _ in range(5)]
        call = engine.submit("process", do(("warn", "last words\n"), verb), timeout=None)
        for lost in [*others, call]:
            error = lost.exception(60)
            assert isinstance(error, EngineDied)
            assert not isinstance(error, EngineDiedAtStart) or not engine._core.heard
            assert error.exit is not None
            assert (error.exit.code, error.exit.signal, error.exit.out_of_memory) == (code, number, False)
            assert "last words" in error.stderr_tail
        assert engine.wait(60)
        (exited,) = told.of(EngineExited)
        assert (exited.reason, exited.in_flight) == ("died", 6)


def test_an_abort_with_nodes_heap_message_is_suspected_to_be_memory() -> None:  # T-25
    with running("heap") as engine:
        assert engine.wait(60)
        assert engine.exit is not None
        assert engine.exit.out_of_memory


def test_an_answer_written_before_the_death_is_not_lost() -> None:  # T-8
    for _ in range(10):
        with running() as engine:
            first = engine.submit("process", do(("events", 3000), ("answer", {"output": "done"})), timeout=60)
            last = engine.submit("process", do(("exit", 1)), timeout=60)
            assert first.result(60).payload == {"output": "done"}
            assert isinstance(last.exception(60), EngineDied)


def test_a_last_line_without_its_newline_still_counts() -> None:  # T-8
    with running() as engine:
        call = engine.submit("process", do("hang"), timeout=60)
        text = f'{{"result":{{"id":{call.id},"output":"last"}}}}'
        engine.submit("process", do(("print", text), ("exit", 0)), timeout=60)
        assert call.result(60).payload == {"output": "last"}


@pytest.mark.parametrize("alone", [True, False])
def test_death_is_noticed_although_a_grandchild_holds_the_output_open(alone: bool) -> None:  # T-22 T-24
    pids: list[int] = []
    with running() as engine:
        verbs = do(("spawn", "session"), ("signal", signal.SIGKILL))

        def listen(events: Any) -> None:
            pids.extend(event.body["pid"] for event in events)

        if alone:
            with pytest.raises(EngineDied):
                engine.call("process", verbs, timeout=60, on_events=listen)
        else:
            other = engine.submit("process", do("hang"), timeout=60)
            call = engine.submit("process", verbs, timeout=60, on_events=listen)
            assert isinstance(call.exception(60), EngineDied)
            assert isinstance(other.exception(60), EngineDied)
        assert engine.wait(60)
        assert len(pids) == 1
        assert not is_alive(pids[0])


def test_an_engine_that_closes_its_output_is_made_to_go() -> None:  # T-27
    with running("stubborn") as engine:
        call = engine.submit("process", do("close-output", ("block", 300)), timeout=None)
        assert isinstance(call.exception(60), EngineDied)
        assert engine.wait(60)
        assert engine.exit is not None
        assert (engine.exit.signal, engine.exit.out_of_memory) == (signal.SIGKILL, False)


def test_a_killed_process_leaves_no_descriptor_no_zombie_no_directory() -> None:  # T-28
    with running() as engine:
        engine.call("process", timeout=60)
    before = open_descriptors()
    for number in range(10):
        with running() as engine:
            directory = engine.call("process", do(("touch", "x"), ("environ", "TMPDIR")), timeout=60).payload["output"]
            assert Path(directory, "x").exists()
            if number % 2:
                os.kill(engine.pid, signal.SIGKILL)
            else:
                assert engine.close()
            assert engine.wait(60)
            assert process(engine.pid) is None
            assert not Path(directory).exists()
    assert open_descriptors() == before


def test_exit_callbacks_run_once_with_every_outcome_known() -> None:
    seen: list[tuple[Engine, bool]] = []
    with running() as engine:
        call = engine.submit("process", do("hang"), timeout=None)
        engine.add_exit_callback(lambda ended: seen.append((ended, call.done())))
        os.kill(engine.pid, signal.SIGKILL)
        assert engine.wait(60)
        engine.add_exit_callback(lambda ended: seen.append((ended, True)))
        eventually(lambda: len(seen) == 2)
        assert seen == [(engine, True), (engine, True)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is reported, as it should be
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_exit_callback_that_raises_harms_neither_others_nor_the_thread_of_all_engines(
    error: type[BaseException],
) -> None:
    told, seen = Recorder(), []

    def raising(_: Engine) -> None:
        raise error("mine")

    with running(sink=told) as engine, running() as other:
        engine.add_exit_callback(raising)
        engine.add_exit_callback(seen.append)
        os.kill(engine.pid, signal.SIGKILL)
        assert engine.wait(60)
        assert seen == [engine]
        assert [(event.where, "mine" in event.error) for event in told.of(EngineCallbackFailed)] == [
            ("exit-callback", True)
        ]
        assert other.call("process", timeout=60).payload == {"output": "ok"}
        fired = threading.Event()
        shared_reactor().call_soon(lambda: raising(engine))
        shared_reactor().call_soon(fired.set)
        assert fired.wait(60)


def test_no_place_for_temporary_files_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    before = open_descriptors()
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(SpawnRefused, match="temporary files"):
        Engine.start(hostile())
    assert open_descriptors() == before


@pytest.mark.parametrize("round_", range(5))
@pytest.mark.parametrize("in_flight", [1, 3])
def test_who_reads_for_itself_learns_of_the_end_there_and_then_and_everybody_else_once(
    in_flight: int, round_: int
) -> None:  # T-12 T-22 T-25
    told, threads, outcomes = Recorder(), [], []
    with running(sink=told) as engine:
        engine.add_exit_callback(lambda _: threads.append(threading.get_ident()))
        for _ in range(in_flight - 1):
            engine.submit("process", do("hang"), timeout=None).add_done_callback(outcomes.append)
        with pytest.raises(EngineDied) as caught:
            engine.call("process", do(("warn", "last words\n"), ("signal", signal.SIGKILL)), timeout=60)
        assert caught.value.exit is not None
        assert caught.value.exit.signal == signal.SIGKILL
        assert "last words" in caught.value.stderr_tail
        with pytest.raises(EngineDied):
            engine.call("process", timeout=60)
        assert engine.wait(60)
        assert engine.exit == caught.value.exit
    assert threads == [shared_reactor().ident]
    assert [isinstance(call.exception(0), EngineDied) for call in outcomes] == [True] * (in_flight - 1)
    (exited,) = told.of(EngineExited)
    assert (exited.reason, exited.in_flight) == ("died", in_flight)


# -- cancelling and expiring


def ended_by(call: Any, how: str) -> BaseException | None:
    if how == "cancelled":
        assert call.cancel()
    return call.exception(60)


@pytest.mark.parametrize("how", ["cancelled", "timeout"])
@pytest.mark.parametrize("habits", [(), ("fragile",), ("mute",), ("mute", "stubborn")])
def test_on_an_exclusive_engine_nothing_of_the_script_lives_when_the_call_ends(
    habits: tuple[str, ...], how: str
) -> None:  # T-17 T-20
    pids: list[int] = []
    told = Recorder()
    with running(*habits, exclusive=True, sink=told, limits=EngineLimits(cancel_grace=0.1, term_grace=0.1)) as engine:
        call = engine.submit(
            "execute",
            do(("spawn", "group"), ("spawn", "session", "quiet"), "hang"),
            timeout=1.5 if how == "timeout" else None,
            on_events=lambda events: pids.extend(event.body["pid"] for event in events),
        )
        eventually(lambda: len(pids) == 2)
        error = ended_by(call, how)
        assert [is_alive(pid) for pid in [engine.pid, *pids]] == [False] * 3
        assert isinstance(error, CallCancelled if how == "cancelled" else CallTimeout)
        assert error.code == ("ABORTED" if how == "cancelled" else "TIMEOUT")
        assert not call.cancel()
        assert engine.wait(60)
        assert [event.reason for event in told.of(EngineExited)] == [how]
        with pytest.raises(EngineClosed):
            engine.submit("process", timeout=1)


def test_a_lone_callers_deadline_ends_like_any_other() -> None:  # T-15 T-17
    with running("mute", "stubborn", exclusive=True, limits=EngineLimits(cancel_grace=0.05, term_grace=0.05)) as engine:
        with pytest.raises(CallTimeout):
            engine.call("process", do("hang"), timeout=0.3)
        assert not is_alive(engine.pid)


def test_a_blocked_engine_that_ignores_everything_is_killed() -> None:  # T-17
    with running("stubborn", exclusive=True, limits=EngineLimits(cancel_grace=0.05, term_grace=0.05)) as engine:
        call = engine.submit("process", do(("block", 300)), timeout=None)
        engine.submit("process", do("hang"), timeout=None)
        eventually(lambda: engine.stats.queued_bytes == 0)
        call.cancel()
        assert isinstance(call.exception(60), CallCancelled)


def test_a_stopped_engine_is_killed_too() -> None:  # T-17
    with running(exclusive=True, limits=EngineLimits(cancel_grace=0.05, term_grace=0.05)) as engine:
        engine.wait_ready(10)
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(CallTimeout):
            engine.call("process", timeout=0.2)
        assert not is_alive(engine.pid)


def test_an_answer_within_the_grace_wins_and_the_engine_lives() -> None:  # T-18
    with running("mute", exclusive=True, limits=EngineLimits(cancel_grace=20)) as engine:
        call = engine.submit("process", do("hang"), timeout=None)
        engine.probe().result(60)
        call.cancel()
        call.update_state("finish", 1).result(60)
        assert call.result(60).payload == {"output": "finished"}
        assert engine.call("process", timeout=60).payload == {"output": "ok"}


def test_a_request_nothing_was_written_of_is_withdrawn() -> None:  # T-16
    with running("deaf", exclusive=True) as engine:
        engine.submit("analyze", "x" * 1_000_000, timeout=None)
        calls = [engine.submit("process", "y" * 70_000, timeout=0.2 if n else None) for n in range(3)]
        calls[0].cancel()
        assert isinstance(calls[0].exception(0), CallCancelled)
        assert isinstance(calls[1].exception(60), CallTimeout)
        assert isinstance(calls[2].exception(60), CallTimeout)
        assert engine.alive


def test_a_deadline_covers_the_writing() -> None:  # T-15
    limits = EngineLimits(cancel_grace=0.05, term_grace=0.05)
    with running("deaf", exclusive=True, limits=limits) as engine, pytest.raises(CallTimeout):
        engine.call("process", "x" * 900_000, timeout=0.2)


@pytest.mark.parametrize("habits", [(), ("mute",)])
def test_on_a_shared_engine_the_neighbours_live_on(habits: tuple[str, ...]) -> None:  # T-19
    with running(*habits, limits=EngineLimits(cancel_grace=0.1)) as engine:
        neighbour = engine.submit("process", do("hang"), timeout=None)
        cancelled = engine.submit("execute", do(("event", "begun"), "hang"), timeout=None)
        eventually(lambda: cancelled.has_started)
        cancelled.cancel()
        assert isinstance(cancelled.exception(60), CallCancelled)
        assert engine.tainted  # a confirmed cancel does not stop the script
        expired = engine.submit("process", do("hang"), timeout=0.05)
        assert isinstance(expired.exception(60), CallTimeout)
        assert engine.tainted
        neighbour.update_state("finish", 1)
        assert neighbour.result(60).payload == {"output": "finished"}


def test_a_cancel_that_came_too_early_is_repeated_and_not_taken_for_the_result() -> None:  # T-20
    with running(limits=EngineLimits(cancel_grace=10)) as engine:
        call = engine.submit("process", do(("late", 0.2), "hang"), timeout=None)
        call.cancel()
        assert isinstance(call.exception(60), CallCancelled)


def test_a_retired_engine_refuses_new_requests_and_ends_when_the_last_one_is_over() -> None:  # T-19
    with running() as engine:
        last = engine.submit("process", do("hang"), timeout=None)
        engine.retire()
        assert not engine.alive
        with pytest.raises(EngineClosed):
            engine.submit("process", do(), timeout=60)
        assert last.update_state("finish", 1).result(60).payload["path"] == "finish"
        assert last.result(60).payload == {"output": "finished"}
        assert engine.wait(60)


def test_a_shared_engine_may_be_told_to_retire_when_a_script_in_it_was_given_up() -> None:  # T-19
    with running(retire_when_tainted=True) as engine:
        neighbour = engine.submit("process", do("hang"), timeout=None)
        given_up = engine.submit("process", do(("event", "begun"), "hang"), timeout=None)
        eventually(lambda: given_up.has_started)
        given_up.cancel()
        assert isinstance(given_up.exception(60), CallCancelled)
        assert not engine.alive
        assert engine.exit is None
        neighbour.update_state("finish", 1)
        assert neighbour.result(60).payload == {"output": "finished"}
        assert engine.wait(60)


def test_what_a_run_answers_after_the_group_was_signalled_is_no_result() -> None:  # T-23
    with running("stubborn") as engine:
        call = engine.submit("process", do(("event", "begun"), ("block", 1.0)), timeout=None)
        eventually(lambda: call.has_started)
        engine.close(8)
        assert isinstance(call.exception(60), EngineClosed)


def test_no_event_arrives_after_a_cancel() -> None:  # T-9
    seen: list[Any] = []
    with running(limits=EngineLimits(cancel_grace=0.2)) as engine:
        call = engine.submit("process", do("hang"), timeout=None, on_events=seen.extend)
        engine.probe().result(60)
        call.cancel()
        engine.submit(
            "analyze", do(("print", f'{{"event":{{"id":{call.id},"type":"effect"}}}}\n')), timeout=60
        ).result()
        assert isinstance(call.exception(60), CallCancelled)
        assert seen == []


def test_what_is_no_run_never_costs_the_engine_its_life() -> None:  # T-21
    with running(exclusive=True) as engine:
        engine.wait_ready(10)
        blocked = engine.submit("process", do(("block", 2.0)), timeout=60)
        assert isinstance(engine.submit("analyze", timeout=0.1).exception(60), CallTimeout)
        assert isinstance(engine.probe(0.1).exception(60), CallTimeout)
        assert blocked.result(60).payload == {"output": "ok"}
        assert engine.alive


# -- closing


@pytest.mark.parametrize("end", ["close", "kill"])
def test_the_end_wakes_everybody_who_waits(end: str) -> None:  # T-26
    errors: list[BaseException | None] = []
    with running() as engine:
        calls = [engine.submit("process", do("hang"), timeout=None) for _ in range(3)]
        threads = [threading.Thread(target=lambda call=call: errors.append(call.exception())) for call in calls]
        for thread in threads:
            thread.start()
        getattr(engine, end)()
        for thread in threads:
            thread.join(60)
        assert [type(error) for error in errors] == [EngineClosed] * 3


def test_the_end_wakes_a_lone_caller_who_reads_for_itself() -> None:  # T-26
    errors: list[BaseException] = []
    with running() as engine:

        def ask() -> None:
            try:
                engine.call("process", do("hang"), timeout=None)
            except EngineClosed as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        eventually(lambda: engine.stats.in_flight)
        engine.kill()
        thread.join(60)
        assert len(errors) == 1


def test_a_lone_caller_can_be_cancelled_by_another_thread() -> None:
    errors: list[BaseException] = []
    with running(exclusive=True) as engine:

        def ask() -> None:
            try:
                engine.call("process", do("hang"), timeout=None)
            except CallCancelled as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        eventually(lambda: engine._table.pending)
        for call in list(engine._table.pending.values()):
            call.cancel()
        thread.join(60)
        assert len(errors) == 1


@pytest.mark.parametrize("busy", [False, True])
def test_a_stubborn_engine_is_closed_by_force_in_time(busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # T-26
    steps: list[float] = []
    later = Ending.later
    monkeypatch.setattr(Ending, "later", lambda end, delay, step: (steps.append(delay), later(end, delay, step))[1])
    with running("stubborn") as engine:
        engine.wait_ready(10)
        if busy:
            engine.submit("process", do("hang"), timeout=None)
        assert not engine.close(timeout=0.4)
        due = [0.2] if busy else [0.2, 0.3]  # at the last of these comes SIGKILL
        assert steps[: len(due)] == pytest.approx(due)
        assert engine.exit is not None
        assert (engine.exit.signal, engine.exit.expected, engine.exit.out_of_memory) == (signal.SIGKILL, True, False)


@pytest.mark.parametrize("few", [0, 10_000], ids=["by the table", "by number"])
def test_what_an_engine_left_running_is_killed_between_two_runs(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # T-30
    monkeypatch.setattr(transport_processes, "_FEW", few)
    pids: list[int] = []
    with running() as engine:
        verbs = do(("spawn", "group"), ("spawn", "session"))
        engine.call("process", verbs, timeout=60, on_events=lambda e: pids.extend(x.body["pid"] for x in e))
        assert engine.reap_descendants() == 2
        eventually(lambda: not any(map(is_alive, pids)))
        assert engine.reap_descendants() == 0
        engine.call("process", verbs, timeout=60, on_events=lambda e: pids.extend(x.body["pid"] for x in e))
        engine.call("process", do(("threads", 3)), timeout=60)
        assert engine.reap_descendants() == 2
        eventually(lambda: not any(map(is_alive, pids)))
        assert engine.reap_descendants() == 0
        assert engine.call("process", timeout=60).payload == {"output": "ok"}


@pytest.mark.parametrize(
    ("few", "numbers"),
    [(10_000, 1 << 22), (0, 1 << 22), (10_000, 2), (10_000, 0)],
    ids=["by number", "too many", "came round", "unreliable"],
)
def test_no_birth_is_missed_however_many_there_were(
    few: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # T-30
    monkeypatch.setattr(transport_processes, "_FEW", few)
    monkeypatch.setattr(transport_processes, "_numbers", lambda: numbers)
    births = Births(Birth.of(os.getpid()))
    for _ in range(3):
        with subprocess.Popen(["sleep", "60"]) as child:
            assert child.pid in [entry.pid for entry in births.since()]
            with subprocess.Popen(["sleep", "60"]) as second:
                # A number that had been given out at the last look already is asked for once more.
                assert {child.pid, second.pid} <= {entry.pid for entry in births.since()}
                second.kill()
            child.kill()


@pytest.mark.parametrize("few", [10_000, 0], ids=["by number", "from the table"])
def test_what_is_older_than_an_engine_is_not_even_looked_at(few: int, monkeypatch: pytest.MonkeyPatch) -> None:  # T-30
    monkeypatch.setattr(transport_processes, "_FEW", few)
    monkeypatch.setattr(transport_processes, "_numbers", lambda: 1 << 22)
    looked_up: list[int] = []
    monkeypatch.setattr(transport_processes, "process", lambda pid: looked_up.append(pid) or process(pid))
    with subprocess.Popen(["sleep", "60"]) as engine, subprocess.Popen(["sleep", "60"]) as younger:
        born = Births(Birth.of(engine.pid)).since()
        engine.kill()
        younger.kill()
    if younger.pid < engine.pid:
        pytest.skip("process numbers came round in this moment")
    assert younger.pid in [entry.pid for entry in born]
    assert min(looked_up) == engine.pid


def test_a_status_of_zero_from_a_wrapper_proves_nothing(tmp_path: Path) -> None:  # T-2
    wrapper = tmp_path / "mlld"
    inner = hostile().argv
    # The shell gives a background job no stdin, so the wrapper hands it over.
    wrapper.write_text(
        "#!/bin/sh\nexec 3<&0\n" + " ".join(f"'{part}'" for part in inner) + " <&3 &\nexec 3<&-\nwait $!\nexit 0\n"
    )
    wrapper.chmod(0o755)
    with running(command=EngineCommand(argv=(str(wrapper),), wrapped=True)) as engine:
        call = engine.submit("process", do("hang"), timeout=None)
        engine.wait_ready(10)
        assert engine.rss() > 0
        behind = [entry.pid for entry in processes() if entry.session == engine.pid and entry.pid != engine.pid]
        assert len(behind) == 1
        os.kill(behind[0], signal.SIGKILL)
        assert isinstance(call.exception(60), EngineDied)
        assert engine.exit is not None
        assert (engine.exit.code, engine.exit.doubtful) == (0, True)


def test_killing_a_wrapper_reaches_the_engine_behind_it(tmp_path: Path) -> None:  # T-2 T-23
    wrapper = tmp_path / "mlld"
    inner = " ".join(f"'{part}'" for part in hostile("stubborn").argv)
    wrapper.write_text(f"#!/bin/sh\nexec 3<&0\n{inner} <&3 &\nwait $!\n")
    wrapper.chmod(0o755)
    with running(command=EngineCommand(argv=(str(wrapper),), wrapped=True)) as engine:
        engine.wait_ready(10)
        behind = [entry.pid for entry in processes() if entry.session == engine.pid and entry.pid != engine.pid]
        os.kill(engine.pid, signal.SIGKILL)
        assert engine.wait(60)
        assert not any(map(is_alive, behind))


# -- forking


def test_a_forked_child_gets_an_error_and_the_parent_keeps_its_engine() -> None:  # T-38
    with running() as engine:
        call = engine.submit("process", do("hang"), timeout=None)
        engine.probe().result(60)
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            status = 1
            try:
                outcomes = [isinstance(call.exception(1), ForkedProcess)]
                try:
                    engine.submit("process", timeout=1)
                except ForkedProcess:
                    outcomes.append(True)
                engine.kill()
                outcomes.append(engine.close())
                own = Engine.start(hostile())
                outcomes.append(own.call("process", timeout=60).payload == {"output": "ok"})
                outcomes.append(own.close())
                status = 0 if outcomes == [True] * 5 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        call.update_state("finish", 1).result(60)
        assert call.result(60).payload == {"output": "finished"}


def test_a_forked_child_does_not_keep_the_engine_from_seeing_the_end() -> None:  # T-38
    with running() as engine:
        engine.wait_ready(10)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        try:
            assert engine.close(timeout=8)
        finally:
            os.close(write)
            os.close(read)
            os.waitpid(pid, 0)
