"""Requests: what a call is given is checked, named as the engine names it, and refused before anything is sent."""

import math
from datetime import timedelta
from typing import Any

import pytest

from mlld_sdk.base.durations import DEFAULT, seconds
from mlld_sdk.base.errors import ConfigurationError, InvalidRequest, MlldError
from mlld_sdk.client.client import Client
from mlld_sdk.scripts.labels import labeled, split_labels, trusted, untrusted
from mlld_sdk.scripts.params import execute_params, only_given, process_params
from mlld_sdk.scripts.types import LabeledValue


def test_options_are_sent_under_the_engines_names_and_only_if_given() -> None:  # C-5
    assert process_params(
        "show 1",
        "dir/a.mld",
        {"x": 1},
        {
            "payload_labels": {"x": ["pii"]},
            "state": {"n": 0},
            "dynamic_modules": {"@m": {"a": 1}, "@t": "var @x = 1"},
            "dynamic_module_source": "svc",
            "dynamic_module_mode": "strict",
            "mode": "markdown",
            "allow_absolute_paths": True,
            "mcp_servers": {"tools": "node t.js"},
            "trace": "effects",
            "trace_memory": True,
            "trace_file": "t.jsonl",
            "trace_stderr": False,
            "checkpoint": True,
            "fresh": False,
            "resume": "@ask:1",
            "fork": "other",
            "checkpoint_name": "n",
            "checkpoint_root": "/r",
            "timeout": 3,
            "strict": True,
        },
    ) == {
        "script": "show 1",
        "recordEffects": True,
        "filePath": "dir/a.mld",
        "payload": {"x": 1},
        "payloadLabels": {"x": ["pii"]},
        "state": {"n": 0},
        "dynamicModules": {"@m": {"a": 1}, "@t": "var @x = 1"},
        "dynamicModuleSource": "svc",
        "dynamicModuleMode": "strict",
        "mode": "markdown",
        "allowAbsolutePaths": True,
        "mcpServers": {"tools": "node t.js"},
        "trace": "effects",
        "traceMemory": True,
        "traceFile": "t.jsonl",
        "traceStderr": False,
        "checkpoint": True,
        "fresh": False,
        "resume": "@ask:1",
        "fork": "other",
        "checkpointName": "n",
        "checkpointRoot": "/r",
    }
    assert execute_params("a.mld", None, {}) == {"filepath": "a.mld", "recordEffects": True}
    assert execute_params("a.mld", "text", {"mode": None}) == {
        "filepath": "a.mld",
        "recordEffects": True,
        "payload": "text",
    }
    assert only_given(a=None, b=0, c="") == {"b": 0, "c": ""}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "no-such-mode"}, "mode"),  # upstream's P20
        ({"dynamic_module_mode": 1}, "dynamic_module_mode"),
        ({"state": [1]}, "state"),
        ({"dynamic_modules": {"@m": 7}}, "dynamic_modules"),
        ({"mcp_servers": {"t": ["node", "t.js"]}}, "mcp_servers"),
        ({"trace": "loud"}, "trace"),
        ({"allow_absolute_paths": "yes"}, "allow_absolute_paths"),
        ({"resume": 3}, "resume"),
        ({"fork": True}, "fork"),
    ],
)
def test_an_option_that_the_engine_would_ignore_is_refused_by_name(options: Any, named: str) -> None:  # C-6
    with pytest.raises(InvalidRequest, match=f"^{named} must be") as refusal:
        process_params("show 1", None, None, options)
    assert refusal.value.code == "INVALID_OPTION"
    assert isinstance(refusal.value, ConfigurationError)
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize("payload", [[1, 2], 7, True, object()])
def test_a_payload_the_engine_cannot_take_is_refused(payload: Any) -> None:  # C-6
    with pytest.raises(InvalidRequest, match="payload must be text or a dict"):
        execute_params("a.mld", payload, {})


def test_an_unknown_option_is_a_type_error_as_for_any_function() -> None:  # C-6
    with pytest.raises(TypeError, match=r"no option 'tiemout'.*did you mean `timeout`"):
        process_params("show 1", None, None, {"tiemout": 3})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize("script", [None, b"show 1", 7])
def test_a_script_must_be_text(script: Any) -> None:  # C-6
    with pytest.raises(InvalidRequest, match="script must be text"):
        process_params(script, None, None, {})


def test_durations_are_seconds_or_timedeltas_and_none_means_none() -> None:  # C-8
    assert seconds(None) is None
    assert seconds(2) == 2.0
    assert seconds(timedelta(milliseconds=250)) == 0.25
    for wrong in (-1, math.nan, "3", True):
        with pytest.raises(InvalidRequest, match="timeout must be"):
            seconds(wrong)  # type: ignore[arg-type]
    assert repr(DEFAULT) == "DEFAULT"


def test_labels_are_trimmed_deduplicated_and_inline_first() -> None:  # C-7
    payload, labels = split_labels(
        {"a": labeled("x", " pii ", "pii", ""), "b": trusted(1), "c": untrusted(None), "d": 2},
        {"a": ["secret", "pii"], "d": [" "]},
    )
    assert payload == {"a": "x", "b": 1, "c": None, "d": 2}
    assert labels == {"a": ["pii", "secret"], "b": ["trusted"], "c": ["untrusted"]}
    assert split_labels("text") == ("text", None)
    assert labeled(1, "a") == LabeledValue(1, ("a",))


@pytest.mark.parametrize(
    ("payload", "labels", "said"),
    [
        ("text", {"a": ["x"]}, "requires payload to be a dict"),
        ({"a": 1}, {"b": ["x"]}, "unknown field: b"),
        ({"a": 1}, {"a": [3]}, "must be strings"),
        ({"a": {"b": trusted(1)}}, None, r"payload\['a'\]\['b'\] holds a labeled value"),
        ({"a": trusted([untrusted(1)])}, None, r"payload\['a'\]\[0\] holds a labeled value"),
        (trusted({"a": 1}), None, "only fields of a payload dict"),
    ],
)
def test_labels_that_would_be_lost_are_refused(payload: Any, labels: Any, said: str) -> None:  # C-7
    with pytest.raises(InvalidRequest, match=said):
        execute_params("a.mld", payload, {"payload_labels": labels})
    with pytest.raises(InvalidRequest, match=r"state\['a'\] holds a labeled value"):
        execute_params("a.mld", None, {"state": {"a": trusted(1)}})


def test_a_value_that_holds_itself_is_no_endless_search_for_labels() -> None:  # C-7
    cycle: dict[str, Any] = {}
    cycle["me"] = cycle
    assert split_labels(cycle)[1] is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"engine": "lvie"}, "engine"),
        ({"isolation": "none"}, "isolation"),
        ({"max_engines": 0}, "max_engines"),
        ({"warm": -1}, "warm"),
        ({"max_events": True}, "max_events"),
        ({"heap": "nope"}, "heap"),
        ({"heap": 0}, "heap"),
        ({"heap_snapshot_near_limit": 0}, "heap_snapshot_near_limit"),
        ({"timeout": -3}, "timeout"),
        ({"engine": "embedded", "command": "node"}, "command"),
        ({"engine": "embedded", "heap": 512}, "heap"),
    ],
)
def test_a_wrong_option_fails_at_construction_and_is_named(options: Any, named: str) -> None:  # C-2
    with pytest.raises(InvalidRequest, match=f"^{named}"):
        Client(**options)


def test_upstreams_constructor_and_attributes_are_there() -> None:  # C-1
    client = Client("node", ["cli.cjs"], 5, "/somewhere")
    assert (client.command, client.command_args, client.timeout, client.working_dir) == (
        "node",
        ["cli.cjs"],
        5.0,
        "/somewhere",
    )
    assert (Client().command, Client().timeout, Client().working_dir) == ("mlld", 30.0, None)
    assert Client(timeout=None).timeout is None


def test_the_engine_comes_from_the_option_the_command_the_environment_in_this_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # C-3
    monkeypatch.delenv("MLLD_ENGINE", raising=False)
    assert Client().engine == "live"
    monkeypatch.setenv("MLLD_ENGINE", "embedded")
    assert Client().engine == "embedded"
    assert Client(command="node", command_args=["cli.cjs"]).engine == "live"
    assert Client(engine="bridge").engine == "bridge"
    monkeypatch.setenv("MLLD_ENGINE", "best")
    with pytest.raises(InvalidRequest, match="MLLD_ENGINE must be"):
        Client()
    assert Client(engine="live").engine == "live"


@pytest.mark.parametrize("options", [{"checkpoint": False}, {"resume": True, "checkpoint_name": "n"}])
def test_checkpoint_options_are_refused_where_the_engine_would_ignore_them(options: Any) -> None:  # C-9
    with pytest.raises(MlldError) as refusal:
        Client(command="/nowhere/mlld").process("show 1", file_path="a.mld", **options)
    assert refusal.value.code == "NO_LIVE_CHECKPOINT"
    assert "bridge" in str(refusal.value)


def test_paths_and_durations_of_every_kind_are_sent_as_what_they_are() -> None:
    assert process_params("s", b"/a/b.mld", None, {})["filePath"] == "/a/b.mld"
    assert execute_params(b"/a/b.mld", None, {})["filepath"] == "/a/b.mld"
    assert seconds(10**400) == seconds(math.inf) == math.inf
    assert seconds(timedelta(milliseconds=1500)) == 1.5
