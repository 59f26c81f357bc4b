"""mlld's checkpoint format: keys as the real engine computes them, rows, values, editing, repair."""

import json
from pathlib import Path

import pytest

from mlld_sdk.transport.checkpoint_cache import (
    MISSING,
    CheckpointCache,
    CheckpointNotFound,
    Entry,
    RunCounters,
    Selector,
    SelectorError,
    args_hash,
    args_preview,
    cache_key,
    list_scripts,
    parse_selector,
    read_row,
    script_name,
)
from mlld_sdk.transport.javascript import (
    from_units,
    in_units,
    json_text,
    number_text,
    text_length,
    well_formed,
)
from tests.support.golden import GOLDEN

NOW = "2026-01-01T00:00:00.000Z"


def recorded_rows() -> list[dict[str, object]]:
    rows = []
    for path in GOLDEN.glob("checkpoint_*.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            rows += json.loads(line).get("cache", {}).get("rows", [])
    return rows


def test_keys_are_those_the_real_engine_wrote() -> None:
    rows = recorded_rows()
    assert len(rows) > 10
    for row in rows:
        args = [row["argsPreview"]]
        assert cache_key(str(row["fn"]), args) == row["key"]
        assert args_hash(args) == row["argsHash"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (1e-7, "1e-7"),
        (0.000001, "0.000001"),
        (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (1.5e-10, "1.5e-10"),
        (5e-324, "5e-324"),
        (2**53 + 1, "9007199254740992"),
        (10**400, "Infinity"),
        (-12.5, "-12.5"),
    ],
)
def test_numbers_print_as_javascript_prints_them(number: float, text: str) -> None:
    assert number_text(number) == text


def test_keys_of_objects_come_in_javascripts_order() -> None:
    assert json_text({"b": 1, "10": 2, "2": 3, "a": 4}) == '{"2":3,"10":2,"b":1,"a":4}'
    assert json_text({"b": 1, "10": 2, "2": 3, "a": 4}, sort=True) == '{"2":3,"10":2,"a":4,"b":1}'
    assert cache_key("f", [{"a": 1, "b": 2}]) == cache_key("f", [{"b": 2, "a": 1}])


def test_texts_keep_their_letters_but_lone_surrogates_are_escaped() -> None:
    assert json_text("é☃\u2028\x01") == '"é☃\u2028\\u0001"'
    assert json_text("a\ud800") == '"a\\ud800"'


def test_a_preview_is_the_first_argument_cut() -> None:
    assert args_preview([]) == ""
    assert args_preview([{"b": 1, "a": 2}]) == '{"a":2,"b":1}'
    assert args_preview(["x" * 200]) == "x" * 157 + "..."


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/pipe.mld", "pipe"),
        ("x.mld.md", "x"),
        ("doc.md", "doc.md"),
        ("noext", "noext"),
        ("/proj/Main.mld", "proj"),
        ("index.mld", "index"),
    ],
)
def test_a_cache_is_named_after_its_script(path: str, name: str) -> None:
    assert script_name(path) == name


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("@ask", Selector("ask")),
        ("@ask:2", Selector("ask", site=2)),
        ('@ask("a b")', Selector("ask", prefix="a b")),
        ("@ask( 'a b' )", Selector("ask", prefix="a b")),
        ('@ask("say \\"a\\"")', Selector("ask", prefix='say "a"')),
        ("draft done", Selector(checkpoint="draft done")),
    ],
)
def test_selectors_are_read(text: str, selector: Selector) -> None:
    assert parse_selector(text) == selector


@pytest.mark.parametrize("text", ["", "@", "@ask:", "@ask:x", "@ask:²", "@ask(", '@ask("")', '@ask("a)'])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        parse_selector(text)


def stored(root: Path, name: str = "pipe", *answers: str) -> CheckpointCache:
    cache = CheckpointCache(root, name)
    for order, answer in enumerate(answers):
        key = cache_key("ask", [answer])
        size = cache.write_value(key, f"A {answer}")
        cache.append(
            Entry(key, "ask", args_hash([answer]), answer, size, NOW, 5, f"{name}.mld#{order + 1}:1", order, 0, order)
        )
    cache.write_manifest(NOW, namedCheckpoints={"middle": 1})
    return cache


def test_rows_and_values_look_as_the_real_engine_writes_them(tmp_path: Path) -> None:
    cache = stored(tmp_path, "pipe", "one")
    row = json.loads(cache.index.read_text())
    assert list(row) == [
        *("key", "fn", "argsHash", "argsPreview", "resultSize", "ts", "durationMs"),
        *("invocationSite", "invocationIndex", "invocationOrdinal", "executionOrder"),
    ]
    assert cache.result_path(row["key"]).read_text() == '{"version":1,"value":"A one"}\n'
    assert row["resultSize"] == len('{"version":1,"value":"A one"}')
    manifest = json.loads(cache.manifest_path.read_text())
    assert (manifest["scriptName"], manifest["totalCached"], manifest["version"]) == ("pipe", 1, 1)


def test_broken_rows_are_skipped_and_the_last_row_of_a_key_wins(tmp_path: Path) -> None:
    cache = stored(tmp_path, "pipe", "one")
    (entry,) = cache.entries().values()
    with cache.index.open("a") as file:
        file.write('not json\n\n{"key": "sha256:x"}\n' + json_text(entry._replace(duration_ms=9).row()) + "\n")
    (found,) = cache.entries().values()
    assert found.duration_ms == 9
    assert read_row('{"key":1}') is None


def test_a_missing_or_broken_value_is_a_miss_and_a_bare_one_counts(tmp_path: Path) -> None:
    cache = stored(tmp_path, "pipe", "one", "two", "three")
    one, two, three = cache.entries()
    cache.result_path(one).unlink()
    cache.result_path(two).write_text("{")
    cache.result_path(three).write_text('{"version": 2, "value": 5}')
    assert cache.value(one) is MISSING
    assert cache.value(two) is MISSING
    assert cache.value(three) == {"version": 2, "value": 5}
    assert [entry.key for entry in cache.complete_entries()] == [three]


@pytest.mark.parametrize(
    ("selector", "left"),
    [
        ("@ask", []),
        ("@ask:1", ["one", "three"]),
        ('@ask("t")', ["one"]),
        ("@other", ["one", "two", "three"]),
        ("middle", ["one"]),
        ("mid", ["one"]),
    ],
)
def test_entries_are_dropped_by_selector(tmp_path: Path, selector: str, left: list[str]) -> None:
    cache = stored(tmp_path, "pipe", "one", "two", "three")
    cache.drop(cache.select(parse_selector(selector)))
    assert [entry.args_preview for entry in cache.entries().values()] == left
    assert len(list(cache.results.iterdir())) == len(left)


def test_an_unknown_checkpoint_is_said_to_be_unknown(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="middle"):
        stored(tmp_path, "pipe", "one").select(parse_selector("end"))


def test_a_fork_copies_what_is_missing_and_replaces_nothing(tmp_path: Path) -> None:
    source, target = stored(tmp_path, "a", "one", "two"), stored(tmp_path, "b", "one")
    target.write_value(cache_key("ask", ["one"]), "mine")
    assert target.fork_from(source) == 1
    assert target.value(cache_key("ask", ["one"])) == "mine"
    assert target.value(cache_key("ask", ["two"])) == "A two"
    assert list_scripts(tmp_path) == ["a", "b"]
    with pytest.raises(CheckpointNotFound):
        target.fork_from(CheckpointCache(tmp_path, "nobody"))


def test_clear_removes_everything(tmp_path: Path) -> None:
    cache = stored(tmp_path, "pipe", "one", "two")
    assert cache.clear() == 2
    assert not cache.folder.exists()
    assert cache.clear() == 0


def test_only_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    cache = stored(tmp_path, "pipe", "one", "two")
    whole = cache.index.read_bytes()
    assert cache.repair() == 0
    cache.index.write_bytes(whole[:-7])
    assert cache.repair() > 0
    assert [entry.args_preview for entry in cache.entries().values()] == ["one"]
    assert CheckpointCache(tmp_path, "nobody").repair() == 0


def test_a_manifest_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    cache = stored(tmp_path, "pipe", "one")
    cache.manifest_path.write_text(json.dumps({**cache.manifest(), "created": "then", "extra": [1]}))
    cache.write_manifest(NOW)
    manifest = cache.manifest()
    assert (manifest["extra"], manifest["created"], manifest["namedCheckpoints"]) == ([1], "then", {"middle": 1})


def test_calls_are_numbered_by_site_by_turn_and_by_order(tmp_path: Path) -> None:
    counters = RunCounters(stored(tmp_path, "pipe", "one", "two").entries().values())
    assert counters.number("ask", "pipe.mld#2:1") == (1, 0, 0)
    assert counters.number("ask", "pipe.mld#2:1") == (1, 1, 1)
    assert counters.number("ask", "pipe.mld#9:9") == (2, 0, 2)
    assert counters.number("tell", "pipe.mld#2:1") == (0, 0, 3)


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_name_that_is_no_plain_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain folder name"):
        CheckpointCache(tmp_path, name)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-1", "0.5", "[]"])
def test_a_row_with_an_absurd_number_harms_no_other(tmp_path: Path, number: str) -> None:
    cache = stored(tmp_path, "pipe", "one", "two")
    with cache.index.open("a") as index:
        index.write(
            cache.index.read_text().splitlines()[0].replace('"resultSize":', f'"resultSize":{number},"was":') + "\n"
        )
        index.write("[" * 100_000 + "\n")
    assert [entry.args_preview for entry in cache.entries().values()] == ["one", "two"]


def test_a_bottomless_value_is_a_miss_and_a_bottomless_manifest_is_none(tmp_path: Path) -> None:
    cache = stored(tmp_path, "pipe", "one")
    cache.result_path(cache_key("ask", ["one"])).write_text("[" * 100_000)
    cache.manifest_path.write_text("[" * 100_000)
    assert cache.complete_entries() == []
    cache.write_manifest(NOW)
    assert cache.manifest()["totalCached"] == 1


def test_a_key_of_thousands_of_digits_is_a_key_like_others() -> None:
    assert json_text({"9" * 5000: 1, "2": 2}) == '{"2":2,"' + "9" * 5000 + '":1}'


def test_a_preview_cuts_through_a_pair_of_surrogates_as_javascript_does() -> None:
    assert args_preview(["x" * 156 + "\U0001f600" + "y" * 10]) == "x" * 156 + "\ud83d..."


@pytest.mark.parametrize("text", ["", "plain", "é\U0001f600\u2028", "\ud800x", "x\udc00\ud83d"])
def test_a_text_comes_back_whole_from_its_units(text: str) -> None:
    assert from_units(in_units(text)) == text
    assert len(in_units(text)) == text_length(text)
    assert well_formed(text) == "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
