"""Looking after the engine's own cache, on files as the engine writes them."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.engines.checkpoints import CacheNotFound, CacheUnusable, Checkpoints, SelectorInvalid
from mlld_sdk.transport.checkpoint_cache import CheckpointCache, Entry, args_hash, args_preview, cache_key

ROOT = Path(".mlld") / "checkpoints"


def store(folder: Path, script: str, calls: list[tuple[str, str, int]], **manifest: object) -> CheckpointCache:
    """Write calls (function, argument, site) the way an engine does."""
    cache = CheckpointCache(folder / ROOT, script)
    for n, (function, argument, site) in enumerate(calls):
        key = cache_key(function, [argument])
        size = cache.write_value(key, f"answer to {argument}")
        cache.append(
            Entry(
                key=key,
                fn=function,
                args_hash=args_hash([argument]),
                args_preview=args_preview([argument]),
                ts=f"2026-01-01T00:00:0{n}.000Z",
                result_size=size,
                duration_ms=1500.0,
                invocation_site=f"/x/{script}.mld#{site}:1",
                invocation_index=site,
                invocation_ordinal=0,
                execution_order=n,
            )
        )
    cache.write_manifest("2026-01-01T00:01:00.000Z", **manifest)
    return cache


@pytest.fixture
def caches(tmp_path: Path) -> Checkpoints:
    calls = [("ask", "one", 0), ("ask", "two", 1), ("sum", "one", 0), ("ask", "once more", 0)]
    store(tmp_path, "pipe", calls, namedCheckpoints={"after-collect": 2})
    store(tmp_path, "other", [("ask", "three", 0)])
    return Checkpoints(tmp_path)


def functions(caches: Checkpoints, script: str) -> list[tuple[str, str]]:
    return [(call.function, call.preview) for call in caches.inspect(script)]


def test_caches_are_listed_with_what_they_hold(caches: Checkpoints) -> None:  # C-1
    other, pipe = caches.list()
    assert (other.script, other.calls, other.damaged) == ("other", 1, False)
    assert (pipe.script, pipe.calls, pipe.updated) == ("pipe", 4, "2026-01-01T00:00:03.000Z")
    assert pipe.named == {"after-collect": 2}
    assert pipe.bytes == sum(call.bytes for call in caches.inspect("pipe")) > 0
    assert caches.info("some/where/pipe.mld") == pipe  # a path names the cache of its base name
    assert Checkpoints("/nowhere").list() == []


def test_stored_calls_are_shown_with_their_values(caches: Checkpoints, tmp_path: Path) -> None:  # C-2
    calls = caches.inspect("pipe")
    assert [(call.function, call.preview, call.index, call.present) for call in calls] == [
        ("ask", "one", 0, True),
        ("ask", "two", 1, True),
        ("sum", "one", 0, True),
        ("ask", "once more", 0, True),
    ]
    assert calls[0].seconds == 1.5
    assert caches.value("pipe", calls[0].key) == "answer to one"
    CheckpointCache(tmp_path / ROOT, "pipe").result_path(calls[0].key).unlink()
    assert [call.present for call in caches.inspect("pipe")] == [False, True, True, True]
    assert caches.info("pipe").calls == 3
    for key in (calls[0].key, "sha256:unknown"):
        with pytest.raises(CacheNotFound, match="holds no value"):
            caches.value("pipe", key)


@pytest.mark.parametrize(
    ("selector", "left"),
    [
        ("@ask", [("sum", "one")]),
        ("@ask:1", [("ask", "one"), ("sum", "one"), ("ask", "once more")]),
        ('@ask("on")', [("ask", "two"), ("sum", "one")]),
        ("after-collect", [("ask", "one"), ("ask", "two")]),
        ("@nothing", [("ask", "one"), ("ask", "two"), ("sum", "one"), ("ask", "once more")]),
    ],
)
def test_invalidating_forgets_what_the_selector_names(  # C-3
    caches: Checkpoints, selector: str, left: list[tuple[str, str]]
) -> None:
    shown = caches.inspect("pipe", selector)
    assert caches.invalidate("pipe", selector) == shown
    assert functions(caches, "pipe") == left
    assert functions(caches, "other") == [("ask", "three")]


def test_a_wrong_selector_or_name_is_an_error_that_helps_and_changes_nothing(caches: Checkpoints) -> None:  # C-3
    for wrong in ("@", "@ask:", "@ask(x)", ""):
        with pytest.raises(SelectorInvalid, match="@function"):
            caches.invalidate("pipe", wrong)
    with pytest.raises(CacheNotFound, match="after-collect"):
        caches.invalidate("pipe", "unknown-name")
    for call in (caches.inspect, caches.info, lambda name: caches.fork(name, "new")):
        with pytest.raises(CacheNotFound, match=r"no cache missing .*other, pipe"):
            call("missing.mld")
    with pytest.raises(ConfigurationError, match="no script"):
        caches.inspect("..")
    assert len(functions(caches, "pipe")) == 4


def test_cleaning_removes_one_cache_or_all(caches: Checkpoints) -> None:  # C-4
    assert caches.clean("pipe.mld") == 4
    assert caches.clean("pipe.mld") == 0  # absent is clean
    assert [info.script for info in caches.list()] == ["other"]
    assert caches.clean() == 1
    assert caches.list() == []


def test_a_fork_has_the_calls_of_its_source_and_goes_its_own_way(caches: Checkpoints) -> None:  # C-5
    assert caches.fork("pipe.mld", "analysis.mld") == 4
    assert functions(caches, "analysis") == functions(caches, "pipe")
    assert caches.value("analysis", caches.inspect("analysis")[0].key) == "answer to one"
    caches.invalidate("analysis", "@ask")
    assert len(functions(caches, "pipe")) == 4
    assert caches.fork("pipe", "other") == 4  # what was there stays
    assert ("ask", "three") in functions(caches, "other")
    assert caches.fork("pipe", "other") == 0
    with pytest.raises(ConfigurationError, match="itself"):
        caches.fork("pipe", "elsewhere/pipe.mld")


def test_a_torn_last_row_is_cut_off(caches: Checkpoints, tmp_path: Path) -> None:  # C-6
    index = tmp_path / ROOT / "pipe" / "llm-cache.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[:-30])
    assert caches.info("pipe").damaged
    reports = {report.script: report for report in caches.repair()}
    assert reports["pipe"].torn_bytes > 0
    assert not reports["other"].changed
    assert index.read_bytes() == b"".join(whole.splitlines(keepends=True)[:-1])
    assert functions(caches, "pipe") == [("ask", "one"), ("ask", "two"), ("sum", "one")]
    assert not caches.info("pipe").damaged
    assert [report.changed for report in caches.repair("pipe.mld")] == [False]


def test_a_row_swallowed_by_a_torn_one_is_rescued(caches: Checkpoints, tmp_path: Path) -> None:  # C-6
    index = tmp_path / ROOT / "pipe" / "llm-cache.jsonl"
    first, second, third, fourth = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(first + second[:40] + third + b"foreign noise\n" + fourth)
    assert functions(caches, "pipe") == [("ask", "one"), ("ask", "once more")]
    [report] = caches.repair("pipe")
    assert (report.rescued, report.torn_bytes) == (1, 40 + len(b"foreign noise\n"))
    assert functions(caches, "pipe") == [("ask", "one"), ("sum", "one"), ("ask", "once more")]


def test_repair_at_every_cut_keeps_every_whole_row(caches: Checkpoints, tmp_path: Path) -> None:  # C-6
    index = tmp_path / ROOT / "pipe" / "llm-cache.jsonl"
    data = index.read_bytes()
    for cut in range(0, len(data), 7):
        index.write_bytes(data[:cut])
        caches.repair("pipe")
        assert len(functions(caches, "pipe")) == data[:cut].count(b"\n")
        assert index.read_bytes() == data[: data.rfind(b"\n", 0, cut) + 1]


def test_what_an_interrupted_write_left_is_removed(caches: Checkpoints, tmp_path: Path) -> None:  # C-6
    folder = tmp_path / ROOT / "pipe"
    gone = 2**22 + 1  # no process has this number
    (folder / f"manifest.json.tmp-{gone}-ab").write_text("{")
    (folder / "results" / f"sha256-ab.json.tmp-{gone}-cd").write_text("{")
    assert caches.info("pipe").damaged
    assert caches.repair("pipe")[0].leftovers == 2
    assert not caches.info("pipe").damaged


def test_what_a_living_process_is_writing_is_left_to_it(caches: Checkpoints, tmp_path: Path) -> None:  # C-6
    writing = tmp_path / ROOT / "pipe" / "results" / f"sha256-ab.json.tmp-{os.getpid()}-cd"
    writing.write_text("{")
    assert not caches.info("pipe").damaged
    assert caches.repair("pipe")[0].leftovers == 0
    assert writing.exists()


def test_caches_can_be_repaired_from_several_threads_at_once(caches: Checkpoints, tmp_path: Path) -> None:  # C-6
    index = tmp_path / ROOT / "pipe" / "llm-cache.jsonl"
    whole = index.read_bytes()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            index.write_bytes(whole + b'{"key":"torn')
            list(threads.map(lambda _: caches.repair("pipe"), range(8)))
            assert index.read_bytes() == whole


def test_a_cache_as_the_engine_writes_it_is_read(tmp_path: Path) -> None:  # C-2
    folder = tmp_path / ROOT / "pipe"
    (folder / "results").mkdir(parents=True)
    key = cache_key("ask", ["one"])
    row = {"key": key, "fn": "ask", "argsHash": "sha256:x", "argsPreview": "one", "ts": "2026-11-20T08:57:36.522Z"}
    (folder / "llm-cache.jsonl").write_text(json.dumps(row, separators=(",", ":")) + "\n")
    (folder / "results" / f"{key.replace(':', '-')}.json").write_text('{"version":1,"value":{"a":1,"b":[1,2]}}\n')
    caches = Checkpoints(root=tmp_path / ROOT)
    [call] = caches.inspect("pipe")
    assert (call.seconds, call.site, call.index) == (None, None, None)
    assert caches.value("pipe", call.key) == {"a": 1, "b": [1, 2]}


def test_a_folder_that_cannot_be_read_is_an_error_of_the_system(tmp_path: Path) -> None:
    folder = tmp_path / ROOT / "pipe"
    folder.mkdir(parents=True)
    (folder / "llm-cache.jsonl").touch()
    (folder / "results").write_text("not a folder")
    store(tmp_path, "source", [("ask", "one", 0)])
    caches = Checkpoints(tmp_path)
    with pytest.raises(CacheUnusable, match="results"):
        caches.fork("source", "pipe")


def test_both_places_in_which_engines_keep_caches_are_looked_after(tmp_path: Path) -> None:  # C-8
    older, newer = ".mlld/checkpoints", ".llm/checkpoints"
    store(tmp_path, "pipe", [("ask", "one", 0)])
    shutil.copytree(tmp_path / older, tmp_path / newer)
    shutil.rmtree(tmp_path / older)
    caches = Checkpoints(tmp_path)
    assert [(info.script, info.folder) for info in caches.list()] == [("pipe", str(tmp_path / newer / "pipe"))]
    assert functions(caches, "pipe") == [("ask", "one")]
    assert caches.fork("pipe", "copy") == 1
    assert (tmp_path / newer / "copy").is_dir()
    assert not (tmp_path / older).exists()

    store(tmp_path, "pipe", [("ask", "one", 0), ("ask", "two", 1)])
    os.utime(tmp_path / newer / "pipe" / "llm-cache.jsonl", (1, 1))
    assert functions(caches, "pipe") == [("ask", "one"), ("ask", "two")]  # the one that was written last
    assert [call.preview for call in caches.invalidate("pipe", '@ask("one")')] == ["one", "one"]
    assert Checkpoints(root=tmp_path / newer).inspect("pipe") == []
    assert caches.clean("pipe") == 1
    assert Checkpoints(tmp_path, place=older).fork("copy", "back") == 1
    assert (tmp_path / older / "back").is_dir()


def test_calls_are_forgotten_while_requests_run(caches: Checkpoints, tmp_path: Path) -> None:  # C-9
    index = tmp_path / ROOT / "pipe" / "llm-cache.jsonl"
    before = index.read_bytes()
    one, two, *_ = caches.inspect("pipe")
    assert caches.forget("pipe", [one.key, "sha256:unknown"]) == 1
    assert index.read_bytes() == before  # what a running engine appends to stays as it is
    assert [call.present for call in caches.inspect("pipe")] == [False, True, True, True]
    CheckpointCache(tmp_path / ROOT, "pipe").write_value(two.key, " \n")
    assert caches.forget_nothing("pipe") == 1
    assert caches.forget("pipe") == 2
    assert caches.forget("unknown") == 0
