"""What the live engine cut is found, and what merely looks like it is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.transport.truncation import Cut, find_cuts

GOLDEN = Path(__file__).parents[2] / "golden"


def results(name: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()[1:]]
    lines = [entry["line"] for entry in entries if entry.get("dir") == "out" and "line" in entry]
    return [line["result"] for line in lines if "result" in line and "error" not in line["result"]]


EXPECTED = {
    "truncated_string": [("output", "text"), ("effects[0].content", "text")],
    "truncated_long_string": [("output", "text"), ("effects[0].content", "text")],
    "truncated_values": [
        ("exports.list.value", "list"),
        ("exports.map.value", "object"),
        ("exports.deep.value.d.d.d.d", "depth"),
    ],
    "analyze_ok": [("variables[4].labels", "reference"), ("variables[5].labels", "reference")],
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_the_real_engine_cut_is_found(name: str) -> None:  # T-36
    assert [(cut.path, cut.kind) for result in results(name) for cut in find_cuts(result)] == EXPECTED[name]


def test_the_real_engine_is_not_accused_where_it_cut_nothing() -> None:  # T-36
    for file in GOLDEN.glob("*.jsonl"):
        if file.stem not in EXPECTED and file.stem != "export_values":
            assert [cut for result in results(file.stem) for cut in find_cuts(result)] == [], file.stem


MARK = " ... [truncated 33 chars] ... "


def cut_text(length: int = 3998, filler: str = "x") -> str:
    return filler * 2976 + MARK + filler * (length - 2976 - len(MARK))


@pytest.mark.parametrize(
    "innocent",
    [
        "x" * 4000,
        "x" * 100_000,
        f"the log says {MARK}",
        cut_text(3000 + len(MARK)),
        cut_text() + "more than the engine would let pass",
        list(range(200)),
        ["[+1 more items]"],
        [*range(201)],
        {"__truncatedKeys": 1},
        {"x": "[Circular] reference"},
        {str(n): n for n in range(101)},
    ],
)
def test_what_only_looks_long_is_left_alone(innocent: Any) -> None:  # T-36
    assert find_cuts({"output": innocent}) == []


def test_text_is_measured_as_the_engine_measures_it() -> None:  # T-36
    astral = "\U0001f600" * 1488 + MARK + "\U0001f600" * 496  # 3998 UTF-16 units in 2014 characters
    halved = "x" * 2975 + "\ud83d" + MARK + "x" * 992
    for text in (cut_text(), cut_text(4000), astral, halved):
        assert find_cuts({"output": text}) == [Cut("output", "text")]


def test_bookkeeping_beside_the_values_is_skipped_but_not_inside_them() -> None:  # T-36
    payload = {
        "effects": [{"content": "x", "security": "[Circular]", "capability": {"security": "[Circular]"}}],
        "stateWrites": [{"path": "p", "security": "[Circular]", "value": {"security": "[Circular]"}}],
        "exports": {"a": {"name": "a", "metadata": "[Circular]", "value": {"metadata": "[Object]"}}},
    }
    assert find_cuts(payload) == [
        Cut("stateWrites[0].value.security", "reference"),
        Cut("exports.a.value.metadata", "depth"),
    ]
    assert find_cuts({"write": {"security": "[Circular]", "value": ["[Array]"]}}) == [Cut("write.value[0]", "depth")]


def test_the_report_is_bounded_and_so_is_the_search() -> None:
    deep: Any = "[Object]"
    for _ in range(10_000):
        deep = [deep]
    assert find_cuts(deep) == []
    assert len(find_cuts(["[Object]"] * 1000)) == 100
    assert find_cuts("[omitted internal state]") == [Cut("", "internal")]
