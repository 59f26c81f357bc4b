"""Metrics are computed from the tree and the events when they are asked for, and end with what they are about."""

import ast
import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Runtime, child, circuit_breaker, dynamic, one_for_one
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.base.errors import ConfigurationError, MlldError
from mlld_sdk.supervision.events import ChildStarted
from mlld_sdk.testing import Recorder
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]
prometheus_client = pytest.importorskip("prometheus_client")

NAMES = {
    "mlld_agent_state",
    "mlld_agent_restarts",
    "mlld_supervisor_budget_ratio",
    "mlld_give_up",
    "mlld_model_unanswered",
    "mlld_mailbox_depth",
    "mlld_breaker_state",
    "mlld_breaker_waiting",
    "mlld_inflight",
    "mlld_runs",
    "mlld_oldest_waiting_seconds",
    "mlld_request_seconds",
    "mlld_child_rss_bytes",
    "mlld_checkpoint_age_seconds",
    "mlld_checkpoint_bytes",
    "mlld_runtime_state",
}


class Plain(Actor):
    def on_receive(self, message: object) -> None:
        raise RuntimeError(message)


class Worker(Agent):
    engine = "embedded"
    checkpoint = True


@pytest.fixture
def tree(tmp_path: Path) -> Any:
    (tmp_path / "ask.mld").write_text('exe llm @ask(n) = sh { echo "answer $n" }\nshow @ask("one")\n')
    (tmp_path / "silent.mld").write_text('exe llm @ask(n) = sh { exit 1 }\nshow @ask("one")\n')
    return one_for_one(
        child(Worker, name="worker", working_dir=str(tmp_path)),
        child(Plain, name="plain", breaker=circuit_breaker(failures=3)),
        dynamic(name="crowd"),
        max_restarts=4,
        within=60.0,
    )


class Scrape:
    def __init__(self, runtime: Runtime) -> None:
        from mlld_sdk.telemetry.prometheus import export_metrics

        self.registry = prometheus_client.CollectorRegistry()
        self.metrics = export_metrics(runtime, self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def samples(self) -> list[Any]:
        return [sample for family in self.registry.collect() for sample in family.samples if sample.labels]

    def paths(self) -> set[str]:
        return {sample.labels["path"] for sample in self.samples()}


def test_metrics_tell_states_restarts_requests_engines_and_caches(runtime: Runtime, events: Recorder) -> None:
    scrape = Scrape(runtime)
    runtime["worker"].execute("ask.mld")
    with pytest.raises(MlldError):
        runtime["worker"].execute("missing.mld")
    runtime.place("plain").ref().tell("break")
    events.next(ChildStarted, path="root/plain", incarnation=2)
    eventually(lambda: scrape.value("mlld_agent_restarts_total", path="root/plain", reason="crash") == 1.0)
    assert {family.name for family in scrape.registry.collect()} == NAMES
    assert scrape.value("mlld_agent_state", path="root/worker", state="running") == 1.0
    assert scrape.value("mlld_supervisor_budget_ratio", path="root") == 0.25
    assert scrape.value("mlld_breaker_state", path="root/plain", breaker="root/plain") == 0.0
    assert scrape.value("mlld_breaker_waiting", path="root/plain", breaker="root/plain") == 0.0
    assert scrape.value("mlld_inflight", path="root/worker") == 0.0
    assert scrape.value("mlld_mailbox_depth", path="root/worker") == 0.0
    assert scrape.value("mlld_child_rss_bytes", path="root/worker") > 1e6
    eventually(lambda: scrape.value("mlld_request_seconds_count", path="root/worker", method="execute") == 2.0)
    assert scrape.value("mlld_request_seconds_bucket", path="root/worker", method="execute", le="600.0") == 2.0
    assert scrape.value("mlld_request_seconds_sum", path="root/worker", method="execute") > 0.0
    eventually(lambda: scrape.value("mlld_checkpoint_age_seconds", path="root/worker") is not None)
    assert scrape.value("mlld_checkpoint_bytes", path="root/worker") > 10
    runtime["worker"].execute("silent.mld")
    eventually(lambda: scrape.value("mlld_model_unanswered_total", path="root/worker") == 1.0)
    assert prometheus_client.generate_latest(scrape.registry)


def test_a_removed_child_takes_its_series_along(runtime: Runtime, events: Recorder) -> None:
    scrape = Scrape(runtime)
    crowd = runtime.place("crowd").supervisor()
    ref = crowd.start_child(child(Plain, name="guest", restart="permanent"))
    ref.tell("break")
    path = events.next(ChildStarted, cause="restart").path
    eventually(lambda: scrape.value("mlld_agent_restarts_total", path=path, reason="crash") == 1.0)
    crowd.terminate_child(runtime.place(path).ref())
    worker = crowd.start_child(child(Worker, name="temporary"))
    runtime["temporary"].process("show `x`")
    eventually(lambda: "root/crowd/temporary" in scrape.paths())
    worker.kill()
    eventually(lambda: {path, "root/crowd/temporary"}.isdisjoint(scrape.paths()))
    assert "root/worker" in scrape.paths()


def test_being_measured_keeps_no_runtime_that_nobody_has(tree: Any) -> None:
    from mlld_sdk.telemetry.prometheus import measure

    with Runtime(tree) as runtime:
        measured = measure(runtime)
        assert measure(runtime) is measured
        assert list(measured.families())
    kept = weakref.ref(runtime)
    del runtime
    gc.collect()
    assert kept() is None
    assert list(measured.collect()) == []
    measured.close()


def test_after_the_end_the_series_stay_and_say_that_it_gave_up(tmp_path: Path) -> None:
    below = one_for_one(child(Worker, name="worker", working_dir=str(tmp_path)), name="below")
    tree = one_for_one(below, dynamic(name="crowd"), child(Plain, name="plain"), max_restarts=0)
    with Runtime(tree) as runtime:
        scrape = Scrape(runtime)
        runtime["worker"].process("show `x`")
        runtime.place("crowd").supervisor().start_child(child(Plain, name="guest"))
        eventually(lambda: scrape.value("mlld_request_seconds_count", path="root/below/worker", method="process") == 1)
        assert scrape.value("mlld_runtime_state", path="root", state="running") == 1.0
        before = {(one.name, one.labels["path"]) for one in scrape.samples() if "rss" not in one.name}
        runtime.place("plain").tell("break")
        assert runtime.wait(60)
        eventually(lambda: scrape.value("mlld_give_up_total", path="root") == 1.0)
        for _ in range(2):  # after the stop as before
            assert before <= {(sample.name, sample.labels["path"]) for sample in scrape.samples()}
            assert scrape.value("mlld_runtime_state", path="root", state="gave_up") == 1.0
            assert scrape.value("mlld_runtime_state", path="root", state="running") is None
            states = {one.labels["state"] for one in scrape.samples() if one.name == "mlld_agent_state"}
            assert states == {"stopped"}
            assert scrape.value("mlld_inflight", path="root/below/worker") == 0.0
            runtime.stop()
            before = {one for one in before if not one[0].startswith(("mlld_runs", "mlld_oldest"))}  # with the journal


def test_runs_that_wait_for_the_next_start_are_counted_after_the_end(tmp_path: Path) -> None:
    tree = one_for_one(
        child(Worker, name="worker", working_dir=str(tmp_path)), child(Plain, name="plain"), max_restarts=0
    )
    with Runtime(tree) as runtime:
        scrape = Scrape(runtime)
        runtime.pause("worker", "the next start takes it")
        runtime["worker"].run()
        eventually(lambda: scrape.value("mlld_runs", path="root/worker", state="pending") == 1.0)
        runtime.place("plain").tell("break")
        assert runtime.wait(60)
        assert scrape.value("mlld_runs", path="root/worker", state="pending") == 1.0
        assert scrape.value("mlld_oldest_waiting_seconds", path="root/worker") is not None
        assert "runs 1 waiting" in runtime.tree()
        runtime.stop()
        assert scrape.value("mlld_runs", path="root/worker", state="pending") is None
        assert "runs" not in runtime.tree()


def test_a_stopped_runtime_has_no_metrics(make_runtime: Any, tree: Any) -> None:
    runtime = Runtime(tree)
    scrape = Scrape(runtime)
    assert list(scrape.registry.collect()) == []
    scrape.metrics.close()
    runtime.bus.close()


def test_without_the_extra_the_error_says_how_to_get_it(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlld_sdk.telemetry.prometheus import export_metrics

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"mlld-otp\[prometheus\]"):
        export_metrics(runtime)


def test_the_core_needs_three_packages_and_no_extra() -> None:
    program = """
import pkgutil, importlib, sys
before = set(sys.modules)
import mlld_sdk
for name in mlld_sdk.__all__:
    getattr(mlld_sdk, name)
import mlld_sdk.cli.main, mlld_sdk.telemetry.prometheus, mlld_sdk.telemetry.otel, mlld_sdk.testing, mlld_sdk.cli.doctor
tops = {name.split(".")[0] for name in set(sys.modules) - before}
known = set(sys.stdlib_module_names) | {"mlld_sdk", "pykka", "msgspec", "structlog"}
extra = {top for top in tops - known if not top.startswith(("_", "__editable__"))}
print(sorted(extra))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = set(ast.literal_eval(done.stdout))
    # structlog takes these by itself if they happen to be there
    assert found <= {"rich", "pygments", "better_exceptions", "colorama", "greenlet", "twisted", "typing_extensions"}, (
        found
    )
