"""What is said to an engine, and how its answer is judged, whoever asks."""

import json
from typing import Any

import pytest

from mlld_sdk.base.errors import InfrastructureError, InvalidRequest
from mlld_sdk.engines.cache_use import CacheUse
from mlld_sdk.engines.events import CheckpointHitEvent
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.engines.requests import EngineRequests
from mlld_sdk.engines.sources import EngineHealth
from mlld_sdk.scripts.answers import TruncatedResult, TruncationWarning
from mlld_sdk.transport.errors import CallCancelled, EngineDied
from mlld_sdk.transport.truncation import find_cuts
from mlld_sdk.transport.wire import EngineEvent, EngineReply
from tests.support.supervision import Recorder

CUT = "x" * 2976 + " ... [truncated 5032 chars] ... " + "x" * 992


class FakeSource:
    """Answers everything with the same output, or error, and keeps what it was asked."""

    begins_at_once = True

    def __init__(self, output: str = "x", error: BaseException | None = None) -> None:
        self.scope = CancelScope()
        self.health = EngineHealth()
        self.asked: list[tuple[str, dict[str, Any], float | None]] = []
        self._reply = EngineReply(json.dumps({"result": {"id": 1, "output": output}}).encode())
        self._error = error

    def call(self, method: str, params: Any, timeout: float | None, on_events: Any) -> EngineReply:
        self.asked.append((method, dict(params), timeout))
        if self._error is not None:
            raise self._error
        return self._reply

    def submit(self, method: str, params: Any, timeout: float | None, on_events: Any) -> Any:
        self.asked.append((method, dict(params), timeout))
        raise self._error or CallCancelled("enough is known")

    def stop(self, why: Any) -> None:
        self.scope.end(why)

    close = stop


def requests(source: FakeSource, **options: Any) -> EngineRequests:
    return EngineRequests(source, **{"kind": "embedded", "name": "root/agent", **options})


@pytest.mark.parametrize("name", ["", "root/agent"])
def test_the_event_mode_is_said_by_clients_and_agents_alike(name: str) -> None:
    source = FakeSource()
    asking = requests(source, name=name)
    asking.process('show "x"', None, None, {})
    asking.result(*asking.text('show "x"', None, None, {}))
    asking.result(*asking.file("x.mld", None, {}))
    for asked in (asking.text("x.mld", None, None, {}), asking.file("x.mld", None, {})):
        with pytest.raises(CallCancelled):
            asking.begin(*asked)
    assert [params["eventMode"] for _, params, _ in source.asked] == ["minimal"] * 3 + ["all"] * 2


def test_what_was_cut_is_flagged_or_refused() -> None:
    assert find_cuts(CUT)
    asking = requests(FakeSource(CUT), may_cut=True)
    with pytest.warns(TruncationWarning):
        assert asking.process("x", None, None, {}) == CUT
    assert asking.result(*asking.text("x", None, None, {})).truncations == ["output"]
    for strictly in (lambda: asking.process("x", None, None, {"strict": True}),
                     lambda: asking.result(*asking.file("x", None, {"strict": True}))):  # fmt: skip
        with pytest.raises(TruncatedResult):
            strictly()
    asking.strict = True
    with pytest.raises(TruncatedResult):
        asking.process("x", None, None, {})


def test_paths_are_made_absolute_and_timeouts_are_read(tmp_path: Any) -> None:
    source = FakeSource()
    asking = requests(source, working_dir=tmp_path, timeout=7.0)
    asking.result(*asking.file("a/b.mld", None, {}))
    asking.process("x", "c.mld", None, {"timeout": 2})
    asking.process("x", "/d.mld", None, {"timeout": None})
    assert [params.get("filepath", params.get("filePath")) for _, params, _ in source.asked] == [
        str(tmp_path / "a/b.mld"), str(tmp_path / "c.mld"), "/d.mld"
    ]  # fmt: skip
    assert [timeout for _, _, timeout in source.asked] == [7.0, 2.0, None]


class FakeGate:
    """Keeps how requests went."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def acquire(self) -> "FakeGate":
        return self

    def settle(self, failure: object) -> None:
        self.told.append(failure)

    def withdraw(self) -> None:
        self.told.append("withdrawn")


@pytest.mark.parametrize(
    ("error", "ends_owner", "told"),
    [
        (None, False, None),
        (EngineDied("it died"), False, EngineDied),
        (EngineDied("it died"), True, "withdrawn"),
        (CallCancelled("taken back"), False, "withdrawn"),
        (InvalidRequest("cannot be sent"), False, "withdrawn"),
        (InfrastructureError("the owner is gone"), False, "withdrawn"),
    ],
)
def test_the_gate_learns_of_failures_that_are_the_engines(error: Any, ends_owner: bool, told: Any) -> None:
    source, gate = FakeSource(error=error), FakeGate()
    asking = requests(source)
    asking.gate, asking.health.ends_owner = gate, ends_owner
    if type(error) is InfrastructureError:
        source.scope.end(InfrastructureError("the owner is gone"))
    if error is None:
        asking.process("x", None, None, {})
    else:
        with pytest.raises(type(error)):
            asking.process("x", None, None, {})
    assert gate.told == [told] if told in (None, "withdrawn") else isinstance(gate.told[0], told)


@pytest.mark.parametrize("line", [b'{"event": {"type"', b'{"event":{"checkpoint":[1],"unanswered":"x"}}'])
def test_an_event_about_a_model_call_that_nobody_can_read_keeps_no_other_from_being_told(line: bytes) -> None:
    told, used = Recorder(), CacheUse()
    requests = EngineRequests(FakeSource(), kind="bridge", name="root/agent", sink=told)  # type: ignore[arg-type]
    sound = EngineEvent(type="checkpoint:hit", line=b'{"event":{"checkpoint":{"fn":"ask","key":"k"}}}')
    events = [*(EngineEvent(type=kind, line=line) for kind in ("llm:unanswered", "checkpoint:miss")), sound]
    requests.tell_model_calls(events)
    used.push(events)
    assert used.keys == {"k"}
    assert [event.key for event in told.events if isinstance(event, CheckpointHitEvent)] == ["k"]
