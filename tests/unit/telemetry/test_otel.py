"""Our spans become spans of OpenTelemetry, with the same begin and end."""

import sys
from typing import Any

import pytest

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, MlldError
from mlld_sdk.telemetry import Bus
from mlld_sdk.telemetry.otel import export_spans

export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")


@pytest.fixture
def exporter() -> Any:
    return export.InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: Any) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


def test_a_span_has_the_same_begin_end_and_facts(exporter: Any, tracer: Any) -> None:
    times = iter([100.0, 102.0])
    bus = Bus(Env(wall=lambda: next(times)))
    export_spans(bus, tracer)
    with bus.span("execute", agent="root/a", filepath="a.mld", mode=None) as one:
        one.note(output_size=3, sizes=[1, 2])
    bus.close()
    (found,) = exporter.get_finished_spans()
    assert (found.name, found.start_time, found.end_time) == ("execute", 100_000_000_000, 102_000_000_000)
    assert dict(found.attributes) == {
        "mlld.span": one.id,
        "mlld.agent": "root/a",
        "mlld.filepath": "a.mld",
        "mlld.output_size": 3,
        "mlld.sizes": "[1, 2]",
    }
    assert found.status.is_unset


def test_a_failed_span_is_an_error(exporter: Any, tracer: Any) -> None:
    bus = Bus()
    export_spans(bus, tracer)
    with pytest.raises(MlldError), bus.span("execute"):
        raise MlldError("too late", code="TIMEOUT")
    bus.close()
    (found,) = exporter.get_finished_spans()
    assert (found.status.is_ok, found.status.description) == (False, "too late")
    assert found.attributes["mlld.code"] == "TIMEOUT"


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"mlld-otp\[otel\]"):
        export_spans(Bus())
