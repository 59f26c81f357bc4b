"""Spans begin once and end once, and requests are spans under the names of the Elixir SDK too."""

from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Client
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.base.spans import REQUESTS
from mlld_sdk.engines.events import CheckpointHitEvent, CheckpointMissedEvent
from mlld_sdk.scripts.answers import sizes
from mlld_sdk.telemetry import Bus, HandlerDetached, SpanFailed, SpanStarted, SpanStopped
from mlld_sdk.telemetry.elixir import ElixirEvent, Translator, elixir_names
from mlld_sdk.telemetry.log import DEBUG
from mlld_sdk.transport.errors import ScriptError
from mlld_sdk.transport.events import EngineExited, EngineStarted
from mlld_sdk.transport.wire import EngineReply


def test_a_span_is_told_when_it_begins_and_when_it_ends() -> None:  # TEL-4, EV-6
    times = iter([10.0, 12.5])
    bus = Bus(Env(now=lambda: next(times), wall=lambda: 99.0))
    with bus.recording() as seen, bus.span("import", source="crm") as one:
        assert len(seen) == 1
        one.note(rows=3)
    begun, ended = seen
    assert begun == SpanStarted(at=99.0, span=one.id, name="import", fields={"source": "crm"})
    assert ended == SpanStopped(
        at=99.0, span=one.id, name="import", fields={"source": "crm"}, seconds=2.5, results={"rows": 3}
    )


def test_a_span_that_fails_says_why_and_lets_the_error_go_on() -> None:  # TEL-4
    bus = Bus()
    with bus.recording() as seen:
        with pytest.raises(ZeroDivisionError), bus.span("divide"):
            1 / 0  # noqa: B018
        with pytest.raises(MlldError), bus.span("ask"):
            raise MlldError("no", code="NO")
    broken, refused = (event for event in seen if isinstance(event, SpanFailed))
    assert (broken.kind, broken.code, broken.reason) == ("ZeroDivisionError", "ZeroDivisionError", "division by zero")
    assert "1 / 0" in broken.trace
    assert (refused.kind, refused.code, refused.reason, refused.trace) == ("MlldError", "NO", "no", "")
    assert len({event.span for event in seen}) == 2


def test_only_the_first_end_of_a_span_counts() -> None:
    bus = Bus()
    with bus.recording() as seen:
        one = bus.span("once")
        one.stop(n=1)
        one.stop(n=2)
        one.fail(ValueError("late"))
    assert [type(event) for event in seen] == [SpanStarted, SpanStopped]


def test_requests_that_go_well_are_told_only_where_somebody_wants_them(tmp_path: Path) -> None:  # EV-7
    def told(bus: Bus, kept: list[Event]) -> list[str]:
        before = len(kept)
        with Client(engine="embedded", working_dir=tmp_path, sink=bus) as client:
            client.process('show "one"')
            client.process_async('show "two"').result()
            with pytest.raises(ScriptError):
                client.execute("missing.mld")
        return sorted(name_of(event) for event in kept[before:] if name_of(event) in (*REQUESTS, "span.failed"))

    bus, kept = Bus(), []
    bus.attach_inline("keeps", kept.append, aside=True)
    assert told(bus, kept) == ["request.finished", "span.failed"]
    bus.attach("log", lambda _: None, besides=DEBUG)
    bus.attach("exits", lambda _: None, events=["engine.exited"])
    assert told(bus, kept) == ["request.finished", "span.failed"]
    bus.attach("all", lambda _: None)
    everything = [*["request.finished"] * 3, "span.failed", *["span.started"] * 3, *["span.stopped"] * 2]
    assert told(bus, kept) == everything
    bus.detach("all")
    bus.attach("spans", lambda _: None, events=[SpanStopped])
    assert told(bus, kept) == everything
    bus.close()


@pytest.fixture
def seen() -> list[Event]:
    return []


def ends(seen: list[Event]) -> list[tuple[str, str]]:
    kinds = {SpanStarted: "start", SpanStopped: "stop", SpanFailed: "exception"}
    return [(event.name, kinds[type(event)]) for event in seen if type(event) in kinds]


@pytest.mark.parametrize("isolation", ["shared", "exclusive"])
def test_a_clients_requests_are_spans(seen: list[Event], tmp_path: Path, isolation: Any) -> None:
    (tmp_path / "ok.mld").write_text('show "four"')
    with Client(engine="embedded", working_dir=tmp_path, sink=seen.append, isolation=isolation) as client:
        client.process('show "one"')
        client.execute("ok.mld")
        client.analyze("ok.mld")
        client.execute_async("ok.mld").result()
        with pytest.raises(ScriptError):
            client.execute("missing.mld")
        with pytest.raises(ScriptError):
            client.execute_async("missing.mld").result()
    told = ends(seen)
    assert sorted(told) == sorted(
        [
            *[("process", "start"), ("process", "stop"), ("analyze", "start"), ("analyze", "stop")],
            *[("execute", "start")] * 4,
            *[("execute", "stop")] * 2,
            *[("execute", "exception")] * 2,
        ]
    )
    stopped = [event for event in seen if isinstance(event, SpanStopped) and event.name == "execute"]
    assert [event.results["output_size"] for event in stopped] == [5, 5]
    assert all(str(event.fields["filepath"]).endswith("ok.mld") for event in stopped)
    assert {event.code for event in seen if isinstance(event, SpanFailed)} == {"FILE_NOT_FOUND"}


def test_events_have_the_elixir_sdks_names() -> None:
    bus = Bus(Env(wall=lambda: 2.0))
    found: list[ElixirEvent] = []
    bus.attach("elixir", elixir_names(found.append))
    for name in ("process", "execute", "analyze"):
        with bus.span(name, agent="root/a", filepath="a.mld", mode=None) as one:
            one.note(output_size=3, state_write_count=0)
    with pytest.raises(MlldError), bus.span("execute"):
        raise MlldError("late", code="TIMEOUT")
    with bus.span("something of mine"):
        pass
    bus.emit(CheckpointHitEvent(at=0, agent="root/a", function="ask", key="k1"))
    bus.emit(CheckpointMissedEvent(at=0, agent="root/a", function="ask", key="k2"))
    bus.emit(HandlerDetached(at=0, handler="h", error="boom", during="run.failed"))
    bus.close()
    assert [str(event) for event in found] == [
        *(f"[:mlld, :{name}, :{what}]" for name in ("process", "execute", "analyze") for what in ("start", "stop")),
        "[:mlld, :execute, :start]",
        "[:mlld, :execute, :exception]",
        "[:mlld, :cache, :hit]",
        "[:mlld, :cache, :miss]",
        "[:telemetry, :handler, :failure]",
    ]
    start, stop = found[:2]
    assert start.measurements == {"system_time": 2_000_000_000}
    assert start.metadata == {"request_id": start.metadata["request_id"], "agent": "root/a", "filepath": "a.mld"}
    assert stop.metadata == {**start.metadata, "output_size": 3, "state_write_count": 0}
    assert set(stop.measurements) == {"duration"}
    assert found[7].metadata.items() >= {"code": "TIMEOUT", "reason": "late", "kind": "MlldError"}.items()
    assert [event.metadata["key"] for event in found[8:10]] == ["k1", "k2"]


def test_only_the_start_that_follows_a_death_is_a_restart() -> None:
    translate = Translator()

    def started(engine: str) -> ElixirEvent | None:
        return translate(EngineStarted(at=0, engine=engine, pid=1, command="mlld live"))

    assert started("root/a-1") is None
    translate(EngineExited(at=0, engine="root/a-1", pid=1, reason="closed", code=0))
    assert started("root/a-2") is None
    translate(EngineExited(at=0, engine="root/a-2", pid=1, reason="died", signal=9))
    assert started("root/b-3") is None
    first = started("root/a-4")
    assert first is not None
    assert (str(first), first.measurements) == ("[:mlld, :transport, :restart]", {"count": 1})
    assert first.metadata == {"command": "mlld live", "reason": "signal 9"}
    assert started("root/a-5") is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"result":{"id":1,"value":5}}',
        b'{"result":{"id":1,"output":7}}',
        b'{"result":{"id":1,"output":"x","stateWrites":5}}',
        b'{"result":{"id":1,"output":"\xff"}}',
        b'{"result":{"id":1,"output":' + b"[" * 5000 + b"]" * 5000 + b"}}",
    ],
)
def test_an_answer_that_is_none_ends_its_span_all_the_same(line: bytes) -> None:  # TEL-4
    bus = Bus()
    with bus.recording() as seen:
        bus.span("process").stop(**sizes(EngineReply(line)))
    assert [type(event) for event in seen] == [SpanStarted, SpanStopped]
