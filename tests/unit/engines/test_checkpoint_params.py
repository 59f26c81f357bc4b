"""Checkpoint parameters on engines that take them, and on the live one that does not."""

from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.engines.checkpoint_params import NoLiveCheckpoint, apply_checkpoint_options
from mlld_sdk.engines.checkpoints import CacheNotFound, Checkpoints
from mlld_sdk.transport.checkpoint_cache import DEFAULT_ROOT, CheckpointCache, Entry, args_hash, cache_key


def store(directory: Path, script: str, *calls: tuple[str, str]) -> None:
    cache = CheckpointCache(directory / DEFAULT_ROOT, script)
    for function, argument in calls:
        key = cache_key(function, [argument])
        size = cache.write_value(key, f"answer to {argument}")
        cache.append(
            Entry(
                key=key,
                fn=function,
                args_hash=args_hash([argument]),
                args_preview=argument,
                ts="2026-01-01T00:00:00.000Z",
                result_size=size,
            )
        )


def stored(directory: Path, script: str) -> list[str]:
    return [call.preview for call in Checkpoints(directory).inspect(script)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "pipe.mld"
    path.write_text('show "hi"\n')
    store(tmp_path, "pipe", ("ask", "one"), ("ask", "two"), ("tell", "three"))
    return path


def live(script: Path, **asked: Any) -> tuple[str, dict[str, Any]]:
    return apply_checkpoint_options(
        "live", "execute", {"filepath": str(script), "payload": {"a": 1}, **asked}, script.parent
    )


@pytest.mark.parametrize("kind", ["bridge", "embedded"])
def test_engines_that_take_parameters_get_them_unchanged(kind: str, script: Path) -> None:
    params = {"filepath": str(script), "checkpoint": True, "fork": "other"}
    assert apply_checkpoint_options(kind, "execute", params, script.parent) == ("execute", params)


def test_without_checkpoint_parameters_the_live_engine_gets_what_was_asked(script: Path) -> None:
    assert live(script) == ("execute", {"filepath": str(script), "payload": {"a": 1}})


def test_the_live_engine_serves_its_cache_by_the_first_line_of_the_text(script: Path) -> None:
    method, params = live(script, checkpoint=True)
    assert method == "process"
    assert params == {"script": 'resume: auto\nshow "hi"\n', "filePath": str(script), "payload": {"a": 1}}


def test_a_relative_path_belongs_to_the_engines_directory(script: Path) -> None:
    method, params = apply_checkpoint_options(
        "live", "execute", {"filepath": "pipe.mld", "checkpoint": True}, script.parent
    )
    assert (method, params) == ("process", {"script": 'resume: auto\nshow "hi"\n', "filePath": "pipe.mld"})


def test_a_script_is_sent_as_the_engine_would_have_read_it(script: Path) -> None:
    script.write_bytes(b'show "\xff"\r\n')
    assert live(script, checkpoint=True)[1]["script"] == 'resume: auto\nshow "\ufffd"\r\n'


def test_a_script_with_a_header_of_its_own_is_left_alone(script: Path) -> None:
    script.write_text('resume: never\nshow "hi"\n')
    assert live(script, checkpoint=True)[0] == "execute"


def test_a_file_without_a_suffix_keeps_the_mode_execute_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text('show "hi"\n')
    assert live(path, checkpoint=True)[1]["mode"] == "strict"


def test_a_missing_file_is_left_to_the_engine_to_explain(tmp_path: Path) -> None:
    assert live(tmp_path / "nope.mld", checkpoint=True)[0] == "execute"


@pytest.mark.parametrize(
    ("selector", "left"),
    [
        (True, ["one", "two", "three"]),
        ("@ask", ["three"]),
        ('@ask("t")', ["one", "three"]),
        ("@nobody", ["one", "two", "three"]),
    ],
)
def test_resume_forgets_what_it_names(script: Path, selector: Any, left: list[str]) -> None:
    live(script, resume=selector)
    assert stored(script.parent, "pipe") == left


def test_fresh_forgets_all(script: Path) -> None:
    method, _ = live(script, fresh=True)
    assert method == "execute"
    with pytest.raises(CacheNotFound):
        stored(script.parent, "pipe")


def test_fork_copies_what_is_missing(script: Path) -> None:
    other = script.with_name("other.mld")
    other.write_text('show "hi"\n')
    assert live(other, fork="pipe")[0] == "process"
    assert stored(script.parent, "other") == ["one", "two", "three"]


def test_a_fork_of_nothing_and_an_unknown_checkpoint_are_errors_by_name(script: Path) -> None:
    with pytest.raises(CacheNotFound, match="nobody"):
        live(script, fork="nobody")
    with pytest.raises(CacheNotFound):
        live(script, resume="no-such-checkpoint")


def test_a_torn_last_row_is_mended_first(script: Path) -> None:
    index = CheckpointCache(script.parent / DEFAULT_ROOT, "pipe").index
    with index.open("a") as file:
        file.write('{"key":"sha256:torn')
    live(script, checkpoint=True)
    assert index.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "asked", [{"checkpoint": False}, {"noCheckpoint": True}, {"checkpointRoot": "x"}, {"checkpointName": "x"}]
)
def test_what_the_live_engine_cannot_do_is_refused_by_name(script: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(NoLiveCheckpoint, match="live"):
        live(script, **asked)


def test_text_without_a_path_has_no_cache(tmp_path: Path) -> None:
    with pytest.raises(NoLiveCheckpoint, match="no cache"):
        apply_checkpoint_options("live", "process", {"script": "x", "checkpoint": True}, tmp_path)
