"""Calls get their events and outcomes, their deadlines are watched, and none is admitted where it could not end."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Event
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.call_table import CallTable
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.errors import CallTimeout, EngineClosed, EngineOverloaded
from mlld_sdk.transport.events import EngineCallbackFailed, RequestFinished
from mlld_sdk.transport.exits import EngineExit
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.wire import decode_block


class Bench:
    """A call table without an engine: what it would do to one is noted."""

    def __init__(self, **limits: Any) -> None:
        self.time = 100.0
        self.told: list[Event] = []
        self.errors: list[tuple[Call, dict[str, Any]]] = []
        self.timers: list[Any] = []
        self.killed = 0
        self.outgoing = SimpleNamespace(backlog=0)
        env = Env(now=lambda: self.time, wall=lambda: 0.0)
        self.core = EngineCore(
            cast("Any", SimpleNamespace(pid=1)),
            "live-1",
            EngineLimits(**limits),
            cast("Any", self),
            env,
            self.told.append,
            exclusive=False,
        )
        self.core.end = cast("Any", SimpleNamespace(kill=self.kill))
        self.table = CallTable(
            self.core, cast("Any", self), cast("Any", self.outgoing), failed=lambda *it: self.errors.append(it)
        )

    def kill(self) -> None:
        self.killed += 1

    def call_at(self, when: float, function: Any) -> Any:
        timer = SimpleNamespace(when=when, function=function, cancel=lambda: self.timers.remove(timer))
        self.timers.append(timer)
        return timer

    def give_up(self, call: Call, why: str) -> bool:
        return self.table.settle(call, None, CallTimeout(why))

    def wait_inline(self, call: Call, timeout: Any) -> bool:
        return False

    def attend(self) -> None:
        """Be told that a callback waits."""

    def admit(self, timeout: float | None = None, take: Any = None) -> Call:
        return self.table.admit("process", {}, timeout, take)

    def hear(self, *lines: str) -> None:
        self.table.route(decode_block("".join(line + "\n" for line in lines).encode()))


def test_events_come_in_order_and_before_the_outcome() -> None:
    bench, seen = Bench(), []
    call = bench.admit(take=lambda events: seen.extend((event.type, call.done()) for event in events))
    other = bench.admit()
    bench.hear(
        f'{{"event":{{"id":{call.id},"type":"a"}}}}',
        f'{{"event":{{"id":{call.id},"type":"b"}}}}',
        f'{{"result":{{"id":{call.id},"value":1}}}}',
        '{"event":{"id":7,"type":"stray"}}',
        '{"result":{"id":7}}',
    )
    assert seen == [("a", False), ("b", False)]
    assert call.result(0).payload == 1
    assert not other.done()
    stats = bench.core.stats
    assert (stats.events, stats.finished, stats.unrouted_events, stats.unknown_ids) == (2, 1, 1, 1)


def test_a_listener_that_raises_is_detached_and_told() -> None:
    bench = Bench()

    def raising(_: Any) -> None:
        raise SystemExit("mine")

    call = bench.admit(take=raising)
    for _ in range(2):
        bench.hear(f'{{"event":{{"id":{call.id},"type":"a"}}}}')
    assert [event.error for event in bench.told if isinstance(event, EngineCallbackFailed)] == ["SystemExit: mine"]


def test_a_listener_whose_error_has_no_text_is_told_as_well() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise self

    def raising(_: Any) -> None:
        raise Mute

    bench = Bench()
    call = bench.admit(take=raising)
    bench.hear(f'{{"event":{{"id":{call.id},"type":"a"}}}}', f'{{"result":{{"id":{call.id}}}}}')
    assert [event.error[:5] for event in bench.told if isinstance(event, EngineCallbackFailed)] == ["Mute:"]
    assert call.done()


def test_errors_are_handed_over_and_outcomes_told() -> None:
    bench = Bench()
    good, bad = bench.admit(), bench.admit()
    bench.hear(f'{{"id":{bad.id},"error":{{"code":"X"}}}}', f'{{"result":{{"id":{good.id}}}}}')
    assert bench.errors == [(bad, {"code": "X"})]
    assert bench.table.settle(bad, None, MlldError("no", code="X"))
    assert not bench.table.settle(bad, None, MlldError("again"))
    assert [event.outcome for event in bench.told if isinstance(event, RequestFinished)] == ["ok", "X"]


def test_one_timer_serves_all_deadlines_the_nearest_first() -> None:
    bench = Bench()
    late, soon, never = bench.admit(60.0), bench.admit(5.0), bench.admit(None)
    for call in (late, soon, never):
        bench.table.watch_deadline(call.deadline)
    assert [timer.when for timer in bench.timers] == [105.0]
    bench.time = 105.0
    bench.timers.pop().function()
    assert isinstance(soon.exception(0), CallTimeout)
    assert not late.done()
    assert [timer.when for timer in bench.timers] == [160.0]
    bench.table.close()
    assert bench.timers == []


def test_what_could_not_end_is_not_admitted() -> None:
    bench = Bench(in_flight=1, queued_bytes=10)
    call = bench.admit()
    with pytest.raises(EngineOverloaded, match="1 requests in flight"):
        bench.admit()
    bench.table.settle(call, None, None)
    bench.outgoing.backlog = 11
    with pytest.raises(EngineOverloaded, match="11 bytes wait"):
        bench.admit()
    bench.core.ending = "closed"
    bench.core.note_exit(EngineExit(0))
    with pytest.raises(EngineClosed):
        bench.admit()
    assert bench.table.pending == {}


def test_a_retired_engine_is_ended_with_its_last_call_and_an_ended_ones_scripts_say_nothing_more() -> None:
    bench = Bench()
    first, last = bench.admit(), bench.admit()
    bench.core.retired = True
    bench.hear(f'{{"result":{{"id":{first.id}}}}}')
    assert bench.killed == 0
    bench.hear(f'{{"result":{{"id":{last.id}}}}}')
    assert bench.killed > 0
    run, probe = bench.admit(), bench.table.admit("hello", None, None, None)
    bench.core.ending = "closed"
    bench.hear(f'{{"result":{{"id":{run.id}}}}}', f'{{"result":{{"id":{probe.id}}}}}')
    assert (run.done(), probe.done()) == (False, True)


def test_a_call_that_is_sent_again_has_a_new_id() -> None:
    bench = Bench()
    call = bench.admit()
    call.params = {"again": True}
    old = call.id
    assert bench.table.renew(call)
    assert call.id != old
    assert b"again" in call.line
    assert bench.table.pending == {call.id: call}
    bench.table.settle(call, None, None)
    assert not bench.table.renew(call)
