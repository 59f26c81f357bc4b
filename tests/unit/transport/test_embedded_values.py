"""How the embedded engine prints, compares and calculates."""

import math
import os
import tomllib
from pathlib import Path

import pytest

from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.interpreter.document import tidy
from mlld_sdk.transport.embedded.interpreter.methods import call_method, read_field
from mlld_sdk.transport.embedded.interpreter.operators import calculate, compare, equal
from mlld_sdk.transport.embedded.interpreter.script_run import place_at_path
from mlld_sdk.transport.embedded.interpreter.shells import parsed_output
from mlld_sdk.transport.embedded.interpreter.values import Origin, inline_text, is_truthy, merge, page_text, pretty_json
from mlld_sdk.transport.embedded.server import wire
from mlld_sdk.transport.embedded.server.answers import VERSION
from mlld_sdk.transport.embedded.server.habits import copy_with_losses, cut, flattened_code
from mlld_sdk.transport.embedded.server.json_faults import explain


@pytest.mark.parametrize(
    ("data", "page", "inline"),
    [
        ("text", "text", "text"),
        (None, "", "null"),
        (True, "true", "true"),
        (1.0, "1", "1"),
        (0.1, "0.1", "0.1"),
        (1e21, "1e+21", "1e+21"),
        ([], "[]", "[]"),
        ([1], "[1]", "[1]"),
        ([1, 2], "[\n  1,\n  2\n]", "[1,2]"),
        ({}, "{}", "{}"),
        ({"a": 1}, '{"a": 1}', '{"a":1}'),
        ({"a": [1]}, '{\n  "a": [\n    1\n  ]\n}', '{"a":[1]}'),
    ],
)
def test_values_print_on_the_page_and_inside_texts(data: object, page: str, inline: str) -> None:
    assert page_text(data) == page
    assert inline_text(data) == inline


def test_a_long_list_of_one_item_goes_over_several_lines() -> None:
    assert pretty_json(["x" * 70]).count("\n") == 2


@pytest.mark.parametrize("data", ["", "false", "0", "NaN", 0, None, False, [], {}, math.nan])
def test_nothing_worth_is_false(data: object) -> None:
    assert not is_truthy(data)


@pytest.mark.parametrize("data", ["a", " ", "no", 1, -1, True, [0], {"a": None}])
def test_everything_else_is_true(data: object) -> None:
    assert is_truthy(data)


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        (1, "1", True),
        ("1.0", 1, True),
        ("a", "A", False),
        ("true", True, True),
        (1, True, False),
        ("", None, False),
        (None, None, True),
        ([1, 2], [1, 2], True),
        ({"a": 1}, {"a": 1}, False),
    ],
)
def test_equality_is_mllds(left: object, right: object, result: bool) -> None:
    assert equal(left, right) is result


def test_numbers_are_calculated_as_javascript_does() -> None:
    assert calculate("+", 0.1, 0.2) == 0.30000000000000004
    assert calculate("/", 10, 0) == math.inf
    assert calculate("%", -7, 3) == -1
    assert calculate("*", "5", "2") == 10
    assert math.isnan(calculate("-", "a", 1))
    assert compare("<", None, 1)
    with pytest.raises(ScriptFailure) as caught:
        calculate("+", "a", "b")
    assert caught.value.code == "STRING_CONCAT_WITH_PLUS"


def test_fields_that_are_not_there_are_nothing_and_scalars_have_none() -> None:
    assert read_field({"a": 1}, "b") is None
    assert read_field([1, 2], 1) == 2
    assert read_field([1, 2], 9) is None
    assert read_field([1, 2], -1) is None
    assert read_field(None, "x") is None
    with pytest.raises(ScriptFailure) as caught:
        read_field("text", "x")
    assert caught.value.code == "FIELD_ACCESS_ERROR"


def test_methods_work_on_texts_and_lists() -> None:
    assert call_method("a-b", "split", ["-"]) == ["a", "b"]
    assert call_method([3, 1], "join", ["+"]) == "3+1"
    assert call_method([3, 1], "includes", [1]) is True
    assert call_method("abc", "slice", [-2]) == "bc"
    with pytest.raises(ScriptFailure):
        call_method(5, "split", [])


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("12", 12),
        ('{"a":1}', {"a": 1}),
        ("true", True),
        ('"q"', "q"),
        (" {}", " {}"),
        ("plain", "plain"),
        ("NaN", "NaN"),
    ],
)
def test_output_that_is_json_becomes_data(text: str, data: object) -> None:
    assert parsed_output(text) == data


def test_the_document_gets_blank_lines_where_markdown_wants_them() -> None:
    assert tidy("a\nb\n") == "a\n\nb\n"
    assert tidy("# h\ntext  \n\n\n\nmore") == "# h\n\ntext\n\nmore\n"
    assert tidy("```\na\nb\n```\n") == "```\na\nb\n```\n"
    assert tidy("") == "\n"


def test_a_path_creates_what_is_missing() -> None:
    state = {"list": [1]}
    place_at_path(state, "a.b", 1)
    place_at_path(state, "list.2.x", True)
    assert state == {"list": [1, None, {"x": True}], "a": {"b": 1}}


def test_origins_unite_in_order_of_first_mention() -> None:
    first, second = Origin(("llm",), ("llm", "src:sh")), Origin(("x", "llm"), (), ("show",))
    assert merge(first, second) == Origin(("llm", "x"), ("llm", "src:sh"), ("show",))


def test_a_copy_with_losses_loses_what_the_real_one_loses() -> None:
    shared = {"a": 1}
    copied = copy_with_losses({"x": shared, "y": shared, "list": list(range(230)), "env": {}, "deep": deep(9)})
    assert copied["y"] == "[Circular]"
    assert copied["list"][200:] == ["[+30 more items]"]
    assert copied["env"] == "[omitted internal state]"
    assert "[Object]" in repr(copied["deep"])
    assert copy_with_losses({str(key): 1 for key in range(130)})["__truncatedKeys"] == 30


def deep(levels: int) -> object:
    return {"d": deep(levels - 1)} if levels else "leaf"


def test_texts_are_cut_at_4000_utf16_units() -> None:
    assert cut("x" * 4000) == "x" * 4000
    assert cut("x" * 4001).startswith("x" * 2976 + " ... [truncated 33 chars] ... ")
    assert cut("😀" * 2001) != "😀" * 2001


def test_codes_are_flattened_as_the_real_engine_does() -> None:
    assert flattened_code("BAIL_EXIT", "x", execute=True) == "RUNTIME_ERROR"
    assert flattened_code("PARSE_ERROR", "x", execute=True) == "PARSE_ERROR"
    assert flattened_code("RUNTIME_ERROR", "Variable not found: abort_me", execute=False) == "ABORTED"
    assert flattened_code("RUNTIME_ERROR", "Variable not found: timeout_x", execute=False) == "TIMEOUT"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{oops", "Expected property name or '}' in JSON at position 1"),
        ("not json", "Unexpected token 'o', \"not json\" is not valid JSON"),
        ('{"a":1', "Expected ',' or '}' after property value in JSON at position 6"),
        ('{"a":1}{', "Unexpected non-whitespace character after JSON at position 7"),
        ("[1 2]", "Expected ',' or ']' after array element in JSON at position 3"),
        ('"a', "Unterminated string in JSON at position 2"),
        ("", "Unexpected end of JSON input"),
        ('{"a" 1}', "Expected ':' after property name in JSON at position 5"),
        ("[1,]", "Unexpected token ']', \"[1,]\" is not valid JSON"),
        ('{"a":1,}', "Expected double-quoted property name in JSON at position 7"),
    ],
)
def test_broken_json_is_explained_as_node_20_does(text: str, message: str) -> None:
    assert explain(text) == message


def test_the_engine_has_the_packages_version() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == VERSION


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_come_out_whole_however_they_arrive(size: int, monkeypatch: pytest.MonkeyPatch) -> None:  # XP-1
    monkeypatch.setattr(wire, "READ_SIZE", size)
    requests, sent = os.pipe()
    wake, waker = os.pipe()
    os.write(sent, 'one\r\ntwo é\n\r \n"three\u2028"\rlast'.encode())
    os.close(sent)
    lines = [line for line in wire.read_lines(requests, wake, lambda: None) if line]
    for descriptor in (requests, wake, waker):
        os.close(descriptor)
    assert lines == ["one", "two é", '"three\u2028"', "last"]
