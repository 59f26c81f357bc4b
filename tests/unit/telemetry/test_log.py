"""Events as log lines: how loud they are is a promise, and nothing configures logging behind the program's back."""

import io
import json

import pytest
import structlog

from mlld_sdk.base.events import Event
from mlld_sdk.journal.events import JournalDegraded, RunParkedEvent, StepStarted
from mlld_sdk.supervision.events import (
    ChildExited,
    ChildPutOff,
    ChildStarted,
    ChildStartFailedEvent,
    SupervisorGaveUp,
)
from mlld_sdk.telemetry import Bus, HandlerDetached, SpanStarted
from mlld_sdk.telemetry.log import level_of, log_events, stderr_logger
from mlld_sdk.transport.events import EngineExited
from tests.support.eventually import eventually


def exited(decision: str, kind: str = "crash") -> ChildExited:
    return ChildExited(at=1.0, path="root/a", incarnation=1, kind=kind, reason="boom", decision=decision)


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (ChildStarted(at=0.0, path="root/a", incarnation=1, cause="restart"), "info"),
        (exited("restart"), "warning"),
        (exited("wait"), "warning"),
        (exited("park"), "warning"),
        (exited("fail"), "error"),
        (exited("give_up"), "error"),
        (exited("stop", "normal"), "info"),
        (
            ChildStartFailedEvent(at=0.0, path="root/a", incarnation=1, kind="crash", reason="x", decision="wait"),
            "warning",
        ),
        (ChildPutOff(at=0.0, path="root/a", incarnation=1, decision="park", reason="x"), "warning"),
        (ChildPutOff(at=0.0, path="root/a", incarnation=1, decision="fail", reason="x"), "error"),
        (SupervisorGaveUp(at=0.0, path="root", culprit="root/a", why="limit", reason="x"), "error"),
        (EngineExited(at=0.0, engine="e", pid=1, reason="died", signal=9, in_flight=1), "warning"),
        (EngineExited(at=0.0, engine="e", pid=1, reason="closed", code=0), "info"),
        (RunParkedEvent(at=0.0, run_id="r", kind="a", code="C", reason="x"), "error"),
        (JournalDegraded(at=0.0, path="p", code="C", reason="x"), "error"),
        (StepStarted(at=0.0, run_id="r", position="1", name="ask", attempt=1), "debug"),
        (SpanStarted(at=0.0, span="1", name="execute"), "debug"),
        (HandlerDetached(at=0.0, handler="h", error="x", during="y"), "error"),
    ],
)
def test_levels_rise_the_less_happens_by_itself(event: Event, level: str) -> None:
    assert level_of(event) == level


def test_each_event_is_one_line_with_its_fields() -> None:
    out = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    bus = Bus()
    log_events(bus, logger)
    bus.emit(exited("restart"))
    bus.emit(exited("give_up"))
    bus.attach("broken", lambda event: 1 / 0)
    bus.emit(exited("restart"))
    bus.detach("broken")
    eventually(lambda: "telemetry.handler_detached" in out.getvalue())
    bus.close()
    first, second, *_ = map(json.loads, out.getvalue().splitlines())
    assert first == {
        "event": "child.exited",
        "level": "warning",
        "at": 1.0,
        "path": "root/a",
        "incarnation": 1,
        "kind": "crash",
        "reason": "boom",
        "decision": "restart",
    }
    assert second["level"] == "error"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_program_without_a_logger_gets_lines_on_stderr(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    bus = Bus()
    log_events(bus, stderr_logger(as_json=as_json))
    bus.emit(exited("restart"))
    bus.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "child.exited" in said.err
    if as_json:
        assert json.loads(said.err)["path"] == "root/a"


def test_nothing_configures_logging() -> None:
    before = structlog.get_config()
    bus = Bus()
    log_events(bus)
    stderr_logger(as_json=True)
    bus.close()
    assert structlog.get_config() == before
    assert not structlog.is_configured()
