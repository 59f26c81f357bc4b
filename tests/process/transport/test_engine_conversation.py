"""Requests, answers and events on real processes that garble, forge and dribble."""

import asyncio
import concurrent.futures
import threading
from typing import Any

import pytest

from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import EngineAborted, EngineBabbling, EngineOverloaded, ScriptError, UnserialisableParams
from mlld_sdk.transport.events import EngineCallbackFailed, EnginePolluted, RequestFinished
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.reactor import Reactor
from tests.support.engines import Recorder, do, hostile, running
from tests.support.eventually import eventually


@pytest.mark.parametrize("habits", [(), ("dialect21",), ("dribble",), ("ascii",), ("dialect21", "dribble")])
def test_both_dialects_are_understood_however_they_are_cut_into_pieces(habits: tuple[str, ...]) -> None:  # T-6
    seen: list[Any] = []
    with running(*habits) as engine:
        verbs = do(("event", "effect", {"n": 1}), ("event", "effect", {"n": 2}), ("answer", {"output": "täxt ✓"}))
        call = engine.submit("process", verbs, timeout=60, on_events=seen.extend)
        assert call.result().payload == {"output": "täxt ✓"}
        assert [event.body["n"] for event in seen] == [1, 2]
        assert engine.call("process", do(("answer", [1, 2])), timeout=60).payload == [1, 2]
        own = engine.call("process", do(("answer", {"id": "note-1", "hash": "h"})), timeout=60)
        assert own.payload == {"id": "note-1", "hash": "h"}


def test_a_tool_event_without_the_requests_id_goes_to_the_only_run(tmp_path: Any) -> None:  # T-10
    seen: list[Any] = []
    with running() as engine:
        engine.call("process", do("tool"), timeout=60, on_events=seen.extend)
        assert [event.type for event in seen] == ["streaming:tool-use"]
        hanging = engine.submit("process", do("hang"), timeout=60, on_events=seen.extend)
        engine.submit("process", do("tool"), timeout=60, on_events=seen.extend).result()
        assert len(seen) == 1
        assert engine.stats.unrouted_events == 1
        hanging.cancel()


NOISE = ["42", "null", "[1]", '"x"', "true", "{}", '{"a": 1}', "{", "\x00\x01", '{"event": 1}', '{"result": {"id":']
NOISE.append("[" * 100_000)


@pytest.mark.parametrize("alone", [True, False])
def test_what_a_script_prints_is_evidence_and_costs_no_answer(alone: bool) -> None:  # T-31
    told = Recorder()
    with running(sink=told) as engine:
        verbs = do(*(("print", text + "\n") for text in NOISE), ("bytes", "ff80fe0a"), ("answer", {"output": "still"}))
        if alone:
            assert engine.call("process", verbs, timeout=60).payload == {"output": "still"}
        else:
            calls = [engine.submit("process", verbs, timeout=60) for _ in range(20)]
            assert {call.result().payload["output"] for call in calls} == {"still"}
        assert engine.stats.noise_lines % (len(NOISE) + 1) == 0
        assert engine.stats.noise_lines > 0
        assert len(engine.noise) <= EngineLimits().noise_lines
        assert all(len(line) <= 400 for line in engine.noise)
        assert len(told.of(EnginePolluted)) == 1


def test_text_glued_in_front_of_a_message_does_not_swallow_it() -> None:  # T-32
    seen: list[Any] = []
    with running() as engine:
        written = ("event", "state:write", {"write": 1})
        verbs = do(("print", "...."), written, ("print", '{"id":'), ("answer", {"output": "x"}))
        assert engine.call("process", verbs, timeout=60, on_events=seen.extend).payload == {"output": "x"}
        assert len(seen) == 1
        assert engine.stats.salvaged == 2


def test_an_answer_under_a_guessed_id_is_nobodys() -> None:  # T-5
    with running() as engine:
        victim = engine.submit("process", do("hang"), timeout=60)
        guesses = [0, 1, 2, "1", None, -1, 1.5, True, [1], {"id": 1}]
        engine.submit("process", do(*(("answer-as", guess) for guess in guesses)), timeout=60).result()
        assert not victim.done()
        assert engine.stats.unknown_ids >= len(guesses) - 2  # a list or object as id is not even an envelope
        victim.cancel()


def test_lone_surrogates_travel_both_ways() -> None:  # T-11
    with running("ascii") as engine:
        reply = engine.call("process", do(("answer", {"output": "a\ud83d"})), timeout=60)
        assert reply.payload == {"output": "a\ud83d"}
        assert reply.decode(dict[str, str]) == {"output": "a\ud83d"}
        seen: list[Any] = []
        engine.call("process", do(("event", "effect", {"content": "\udc00b"})), timeout=60, on_events=seen.extend)
        assert seen[0].body["content"] == "\udc00b"


def test_what_json_cannot_say_is_refused_by_name_and_nothing_is_sent() -> None:  # T-11
    with running() as engine:
        with pytest.raises(UnserialisableParams) as caught:
            engine.submit("process", {"payload": {"rows": [1, float("nan")]}}, timeout=1)
        assert caught.value.field == "payload.rows[1]"
        with pytest.raises(UnserialisableParams):
            engine.call("process", {"payload": object()}, timeout=1)
        assert engine.stats.submitted == 0
        assert engine.call("process", {"payload": None}, timeout=60).payload == {"output": "ok"}


def test_a_script_error_keeps_what_the_engine_said_about_it() -> None:
    with running() as engine:
        more = {"name": "ExecuteError", "filePath": "a.mld", "stack": "at line 1"}
        with pytest.raises(ScriptError) as caught:
            engine.call("execute", do(("fail", "PARSE_ERROR", "no such word", more)), timeout=60)
        error = caught.value
        assert (error.code, error.message, error.name, error.file_path, error.stack) == (
            "PARSE_ERROR",
            "no such word",
            "ExecuteError",
            "a.mld",
            "at line 1",
        )
        assert engine.call("process", do(("answer", {"verified": False, "error": "modified"})), timeout=60).payload == {
            "verified": False,
            "error": "modified",
        }  # T-33


def test_codes_mean_what_they_say() -> None:  # T-20
    with running() as engine:
        with pytest.raises(ScriptError) as accident:
            engine.call("process", do(("fail", "ABORTED", "no variable @abort_me")), timeout=60)
        assert (accident.value.code, accident.value.engine_code) == ("RUNTIME_ERROR", "ABORTED")
        with pytest.raises(EngineAborted) as aborted:
            engine.call("execute", do(("fail", "RUNTIME_ERROR", "StreamExecution aborted")), timeout=60)
        assert aborted.value.code == "ABORTED"
        call = engine.submit("process", do("hang"), timeout=60)
        refused = f'{{"result":{{"id":{call.id},"error":{{"code":"REQUEST_IN_PROGRESS"}}}}}}\n'
        engine.submit("process", do(("print", refused)), timeout=60).result()
        assert not call.done()
        call.cancel()


def test_events_come_in_order_as_lists_before_the_outcome() -> None:  # T-9
    seen: list[int] = []
    outcome_at: list[int] = []
    with running() as engine:
        call = engine.submit(
            "process",
            do(("events", 20_000)),
            timeout=60,
            on_events=lambda events: seen.extend(event.body["write"]["value"] for event in events),
        )
        call.add_done_callback(lambda _: outcome_at.append(len(seen)))
        call.result()
        assert seen == list(range(20_000))
        assert outcome_at == [20_000]


def test_debug_events_are_dropped_undecoded_whatever_the_id_looks_like() -> None:  # T-9
    seen: list[Any] = []
    with running() as engine:
        verbs = do(
            ("print", '{"event":{"id":"a\\"b","type":"debug:variable:create","variable":{"broken"}}}\n'),
            ("event", "debug:directive:start", {"directive": "/show"}),
            ("event", "state:write", {"write": {"value": {"type": "debug:mine"}}}),
        )
        engine.call("process", verbs, timeout=60, on_events=seen.extend)
        assert [event.type for event in seen] == ["state:write"]
        assert engine.stats.debug_dropped == 2


@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError])
def test_a_listener_that_raises_is_detached_and_the_call_goes_on(error: type[BaseException]) -> None:  # T-13
    told = Recorder()
    calls = 0

    def broken(_: Any) -> None:
        nonlocal calls
        calls += 1
        raise error("mine")

    with running(sink=told) as engine:
        call = engine.submit("process", do(("event", "a"), ("event", "b")), timeout=60, on_events=broken)
        call.add_done_callback(broken)
        assert call.result(60).payload == {"output": "ok"}
        eventually(lambda: len(told.of(EngineCallbackFailed)) == 2)
        assert {event.where for event in told.of(EngineCallbackFailed)} == {"on_events", "done-callback"}
        assert engine.call("process", timeout=60).payload == {"output": "ok"}


@pytest.mark.parametrize("how", ["submit", "call"])
def test_waiting_inside_the_engines_own_callback_is_an_error_not_a_deadlock(how: str) -> None:  # T-13
    caught: list[BaseException] = []
    with running() as engine:

        def waits(_: Any) -> None:
            try:
                engine.call("process", timeout=60)
            except InfrastructureError as error:
                caught.append(error)

        getattr(engine, how)("process", do(("event", "a")), timeout=10, on_events=waits)
        eventually(lambda: caught)
        assert engine.probe().result(60) is not None


def test_a_call_is_a_future_of_the_standard_library() -> None:
    with running() as engine:
        calls = [engine.submit("process", timeout=60) for _ in range(5)]
        done, rest = concurrent.futures.wait(calls, timeout=10)
        assert (len(done), len(rest)) == (5, 0)
        assert len(list(concurrent.futures.as_completed(calls, timeout=10))) == 5

        async def both() -> list[Any]:
            return await asyncio.gather(*(asyncio.wrap_future(engine.submit("process", timeout=60)) for _ in range(2)))

        assert [reply.payload["output"] for reply in asyncio.run(both())] == ["ok", "ok"]


def test_waiting_may_end_before_the_call_does() -> None:  # T-15
    with running() as engine:
        call = engine.submit("process", do("hang"), timeout=None)
        with pytest.raises(TimeoutError):
            call.result(0.01)
        assert not call.done()
        other = engine.submit("process", do("hang"), timeout=None)
        with pytest.raises(TimeoutError):
            call.exception(0.01)
        other.update_state("finish", True).result(60)
        assert other.result(60).payload == {"output": "finished"}
        call.cancel()


def test_many_threads_share_one_engine_and_none_gets_anothers_answer() -> None:
    wrong: list[Any] = []
    with running() as engine:

        def ask(thread: int) -> None:
            for turn in range(50):
                text = f"{thread}:{turn}"
                if engine.call("process", do(("answer", {"output": text})), timeout=60).payload["output"] != text:
                    wrong.append(text)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert engine.stats.finished == 400
        assert engine.stats.in_flight == 0


def test_control_requests_are_repeated_until_the_script_has_started_and_no_longer() -> None:  # T-14
    with running() as engine:
        call = engine.submit("process", do(("late", 0.15), "hang"), timeout=60)
        assert call.update_state("phase", 2).result(60).payload["path"] == "phase"
        assert call.write_file("a.txt", "x").result(60).payload["path"] == "a.txt"
        call.update_state("finish", 1).result(60)
        call.result(60)
        with pytest.raises(ScriptError) as caught:  # before its own deadline and ours
            call.update_state("phase", 3, timeout=60).result(60)
        assert caught.value.code == "REQUEST_NOT_FOUND"


def test_a_full_house_and_an_engine_that_does_not_read_refuse_at_once() -> None:  # T-34
    with running("deaf", limits=EngineLimits(in_flight=8)) as engine:
        for _ in range(8):
            engine.submit("process", timeout=None)
        with pytest.raises(EngineOverloaded):
            engine.submit("process", timeout=None)
        assert engine.stats.in_flight == 8
    with running("deaf", limits=EngineLimits(queued_bytes=1_000_000)) as engine:
        engine.submit("process", {"payload": "x" * 5_000_000}, timeout=None)  # larger than the limit, but alone
        with pytest.raises(EngineOverloaded) as caught:
            engine.submit("process", {"payload": "x"}, timeout=None)
        assert caught.value.code == "BACKPRESSURE"


def test_a_large_request_and_a_large_answer_get_through() -> None:
    text = "ä" * 2_500_000  # three of them fit into the queue, even if the engine has not begun to read
    with running() as engine:
        calls = [engine.submit("process", do(("answer", {"output": text + str(n)})), timeout=60) for n in range(3)]
        assert [call.result().payload["output"][-1] for call in calls] == ["0", "1", "2"]
        assert len(engine.call("process", do(("answer", {"output": text})), timeout=60).payload["output"]) == 2_500_000


def test_a_line_beyond_the_limit_ends_the_engine_and_not_the_memory() -> None:  # T-34
    with running(limits=EngineLimits(line_bytes=1_000_000)) as engine:
        other = engine.submit("process", do("hang"), timeout=None)
        with pytest.raises(EngineBabbling):
            engine.submit("process", do(("flood", "x" * 1000)), timeout=60).result()
        with pytest.raises(EngineBabbling):
            other.result(60)


def test_a_flood_of_noise_is_read_counted_and_forgotten() -> None:  # T-31
    with running(exclusive=True) as engine:
        call = engine.submit("process", do(("flood", "spam spam spam\n")), timeout=None)
        eventually(lambda: engine.stats.noise_lines > 20_000)
        assert len(engine.noise) == EngineLimits().noise_lines
        call.cancel()
        assert call.exception(60) is not None


def test_private_descriptors_leave_stdout_to_the_scripts() -> None:
    with running(command=hostile("extended", private_fds=True, extended=True)) as engine:
        assert engine.probe().result(60).payload["engine"] == "hostile"
        engine.call("process", do(("warn", "words\n")), timeout=60)
        assert engine.call("process", do(("environ", "MLLD_ENGINE_REQUEST_FD")), timeout=60).payload["output"].isdigit()
        assert engine.close()


def test_the_same_holds_without_epoll_and_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:  # T-22
    monkeypatch.setattr("mlld_sdk.transport.child._HAS_PIDFD", False)
    reactor = Reactor(name="mlld-test-io", portable=True)
    try:
        with running(reactor=reactor) as engine:
            assert engine.call("process", timeout=60).payload == {"output": "ok"}
            call = engine.submit("process", do(("exit", 3)), timeout=60)
            assert isinstance(call.exception(60), InfrastructureError)
            assert engine.wait(60)
            assert engine.exit is not None
            assert engine.exit.code == 3
    finally:
        reactor.close()


def test_closing_a_reactor_ends_its_engines() -> None:
    reactor = Reactor(name="mlld-test-io")
    engines = [Engine.start(hostile(), reactor=reactor) for _ in range(3)]
    reactor.close()
    assert [engine.exit is not None for engine in engines] == [True] * 3


def test_every_request_is_told_once_with_its_outcome() -> None:
    told = Recorder()
    with running(sink=told) as engine:
        engine.call("process", timeout=60)
        with pytest.raises(ScriptError):
            engine.submit("execute", do(("fail", "PARSE_ERROR", "x")), timeout=60).result()
        eventually(lambda: len(told.of(RequestFinished)) == 2)
    assert [(event.method, event.outcome) for event in told.of(RequestFinished)] == [
        ("process", "ok"),
        ("execute", "PARSE_ERROR"),
    ]
