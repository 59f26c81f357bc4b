"""The protocol's words, on recorded conversations and on lines no engine should ever write."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlld_sdk.scripts.answers import output_of, result_of
from mlld_sdk.scripts.stream import EventHistory
from mlld_sdk.transport import wire
from mlld_sdk.transport.errors import AnswerUnreadable, UnserialisableParams
from mlld_sdk.transport.wire import EngineReply, cancel_line, decode_block, encode_request, failure_of

GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("*.jsonl"))


def recorded(file: Path) -> Iterator[tuple[bytes, Any]]:
    """Give every line the engine wrote, with what it says; text that is no message says nothing."""
    for line in file.read_text().splitlines()[1:]:
        entry = json.loads(line)
        if entry.get("dir") == "out":
            if "line" in entry:
                text = json.dumps(entry["line"], ensure_ascii=True, separators=(",", ":"))
                yield text.encode(), entry["line"]
            else:
                yield entry["raw"].encode("utf-8", "surrogatepass"), None


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_every_recorded_message_is_understood_and_nothing_else_is(file: Path) -> None:  # T-6
    lines = list(recorded(file))
    decoded = decode_block(b"".join(line + b"\n" for line, _ in lines))
    messages = [said for _, said in lines if said is not None]
    wanted = [said for said in messages if not str(said.get("event", {}).get("type")).startswith("debug:")]
    # What was glued behind printed text is a message more than the recording counts.
    assert len(decoded.heads) + decoded.dropped == len(messages) + decoded.salvaged
    assert 0 <= len(decoded.heads) - len(wanted) <= decoded.salvaged
    assert len(decoded.noise) == len(lines) - len(messages)
    for head, line in zip(decoded.heads, decoded.lines, strict=True):
        said = json.loads(line)
        if head.event is not None:
            head.event.line = line
            assert (head.event.type, head.event.id) == (said["event"]["type"], said["event"]["id"])
            assert head.event.body == said["event"]
        else:
            assert head.request_id == said["result"]["id"]
            error = failure_of(head)
            assert error == (said["result"]["error"] if isinstance(said["result"].get("error"), dict) else None)
            if error is None:
                payload = EngineReply(line).payload
                own = said["result"]
                expected = (
                    own["value"] if own.keys() == {"id", "value"} else {k: v for k, v in own.items() if k != "id"}
                )
                assert payload == expected


def test_cutting_a_recording_anywhere_changes_nothing() -> None:
    whole = b"".join(line + b"\n" for file in GOLDEN[:20] for line, _ in recorded(file))
    one = decode_block(whole)
    by_line = [decode_block(line + b"\n") for line in whole.split(b"\n")[:-1]]
    assert sum(len(part.heads) for part in by_line) == len(one.heads)
    assert [line for part in by_line for line in part.lines] == one.lines
    assert sum(part.dropped for part in by_line) == one.dropped
    assert [line for part in by_line for line in part.noise] == one.noise


PAYLOADS: list[Any] = [
    {"output": "x"},
    {"error": "modified", "verified": False},
    [],
    [1],
    "text",
    7,
    1.5,
    True,
    None,
    {},
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_comes_out_the_same_in_both_dialects(payload: Any) -> None:  # T-6
    def said(message: Any) -> tuple[Any, Any]:
        (head,), (line,) = (found := decode_block(json.dumps(message).encode() + b"\n")).heads, found.lines
        assert failure_of(head) is None
        return head.request_id, EngineReply(line).payload

    if isinstance(payload, dict):
        assert said({"result": {"id": 7, **payload}}) == (7, payload)
        assert said({"id": 7, "result": {**payload, "id": 7}}) == (7, payload)
    else:
        assert said({"result": {"id": 7, "value": payload}}) == (7, payload)
    assert said({"id": 7, "result": payload}) == (7, payload)


def test_a_payload_with_an_id_of_its_own_keeps_it() -> None:
    own = {"id": "note-1", "hash": "h"}
    for message in ({"result": {"id": 7, "value": own}}, {"id": 7, "result": own}):
        assert EngineReply(json.dumps(message).encode()).payload == own


def test_a_field_called_value_beside_others_is_no_wrapping() -> None:
    class Told(msgspec.Struct):
        value: int
        output: str

    line = b'{"result":{"id":7,"value":1,"output":"x"}}'
    assert EngineReply(line).payload == {"value": 1, "output": "x"}
    assert EngineReply(line).decode(Told) == Told(1, "x")


def test_errors_are_found_in_both_dialects() -> None:
    error = {"code": "PARSE_ERROR", "message": "no"}
    messages = (
        {"result": {"id": 7, "error": error}},
        {"id": 7, "error": error, "result": {"id": 7, "error": error}},
        {"id": 7, "error": error},
        {"id": 7, "result": {"error": error}},
    )
    for message in messages:
        (head,) = decode_block(json.dumps(message).encode() + b"\n").heads
        assert (head.request_id, failure_of(head)) == (7, error)


FOREIGN = [
    b"text", b"42", b"null", b"true", b'"x"', b"[]", b"{}", b'{"a":1}', b'{"id":1}', b'{"id":1,"error":"text"}',
    b'{"event":{}}', b'{"event":{"id":1}}', b'{"event":{"id":1,"type":5}}', b'{"event":null}', b'{"result":7}',
    b'{"result":[1]}', b'{"event":{"id":1,"type":"a"},"result":{"id":1}}', b'{"result":{"id":1}',
    b'{"result":{"id":1}}}',
    b"\xff\xfe", b"[" * 100_000, b'{"result":{"id":1e400}}', b'{"a":' * 100_000, b'{"event":{"id":1,"type":"\\ud800"',
    b"\\ud800", b'["\\ud800"]', b'{"event":"\\ud800"}',
]  # fmt: skip


@pytest.mark.parametrize("line", FOREIGN, ids=lambda line: repr(line[:40]))
def test_what_is_not_exactly_an_envelope_is_noise(line: bytes) -> None:  # T-31
    answer = b'{"result":{"id":5,"output":"x"}}'
    decoded = decode_block(line + b"\n" + answer + b"\n")
    assert decoded.noise == [line]
    assert decoded.lines == [answer]


def test_blank_lines_are_neither_messages_nor_noise() -> None:
    decoded = decode_block(b'\n  \r\n{"result":{"id":5}}\r\n\t\n')
    assert [head.request_id for head in decoded.heads] == [5]
    assert decoded.noise == []


GLUED = [
    (b'NO-NEWLINE {"result":{"id":5,"output":"x"}}', b"NO-NEWLINE "),
    (b'{"result":{"id":1}}{"result":{"id":5}}', b'{"result":{"id":1}}'),
    (b'{"id":{"id":5,"result":7}', b'{"id":'),
    (b'....{"event":{"requestId":5,"id":5,"type":"a","x":{"result":{"id":3}}}}', b"...."),
    (b'42{"result":{"id":5,"output":"\\ud83d"}}', b"42"),
]


@pytest.mark.parametrize(("line", "noise"), GLUED)
def test_a_message_behind_glued_text_is_salvaged(line: bytes, noise: bytes) -> None:  # T-32
    decoded = decode_block(line + b"\n")
    (head,) = decoded.heads
    assert (head.event.id if head.event else head.request_id) == 5
    assert (decoded.noise, decoded.salvaged) == ([noise], 1)
    assert decoded.lines == [line.removeprefix(noise)]


def test_a_line_full_of_false_starts_costs_a_bounded_number_of_tries() -> None:
    decoded = decode_block(b'{"id":' * 20_000 + b"\n")
    assert len(decoded.noise) == 1


@pytest.mark.parametrize("id_", [b"7", b'"7"', b'"a\\"b,c"', b"-1.5", b"null"])
@pytest.mark.parametrize("more", [b"", b'"requestId":7,'])
def test_debug_events_are_told_by_their_first_bytes(id_: bytes, more: bytes) -> None:  # T-9
    for shape in (b'"id":%b,%b', b'%.0b%b"id":%b,'):
        fields = shape % ((id_, more) if shape.startswith(b'"id"') else (b"", more, id_))
        line = b'{"event":{' + fields + b'"type":"debug:variable:create","variable":{"no json"}}}\n'
        assert decode_block(line).dropped == 1


def test_a_value_that_only_looks_like_a_debug_event_is_kept() -> None:  # T-9
    line = b'{"event":{"id":7,"type":"state:write","write":{"path":"x","value":{"type":"debug:mine"}}}}\n'
    decoded = decode_block(line)
    assert (decoded.dropped, len(decoded.heads)) == (0, 1)


def test_an_event_is_decoded_when_its_listener_wants_it() -> None:
    for value, escaped in (("x", b"x"), ("\ud83d", b"\\ud83d")):
        line = b'{"event":{"id":7,"type":"state:write","write":{"path":"p","value":"%b"}}}' % escaped
        (head,) = decode_block(line + b"\n").heads
        assert head.event is not None
        head.event.line = line
        assert head.event.body["write"] == {"path": "p", "value": value}


# -- requests


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_a_request_says_exactly_its_params(params: Any) -> None:
    line = encode_request("process", 2**53 - 1, params)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"method": "process", "id": 2**53 - 1, "params": params}


@given(st.text(alphabet=st.characters(categories=["Cs", "L"]), max_size=20))
def test_lone_surrogates_are_sent_as_escapes(text: str) -> None:  # T-11
    # Two surrogates in a row are one character to JSON, so what arrives is compared as UTF-16.
    arrived = json.loads(encode_request("process", 1, {"payload": text}))["params"]["payload"]
    assert arrived.encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


class Opaque:
    pass


@dataclass
class Row:
    price: float


BAD: list[tuple[Any, str]] = [
    ({"payload": {"rows": [1, math.nan]}}, "payload.rows[1]"),
    ({"payload": -math.inf}, "payload"),
    (math.nan, "params"),
    ([[math.inf]], "params[0][0]"),
    ({"payload": {"who": Opaque()}}, "payload.who"),
    ({"payload": {"f": lambda: 0}}, "payload.f"),
    ({"payload": ["\ud800", Opaque()]}, "payload[1]"),
    ({"payload": ["\ud800", math.nan]}, "payload[1]"),
    ({"payload": {(1, 2): 1}}, "params"),
    ({"rows": [Row(math.nan)]}, "rows[0].price"),
]


@pytest.mark.parametrize(("params", "field"), BAD)
def test_what_json_has_no_word_for_is_refused_by_name(params: Any, field: str) -> None:  # T-11
    with pytest.raises(UnserialisableParams) as caught:
        encode_request("process", 1, params)
    assert caught.value.field == field
    assert caught.value.code == "UNSERIALISABLE"


def test_a_cycle_and_a_bottomless_list_are_refused() -> None:  # T-11
    cycle: dict[str, Any] = {}
    cycle["self"] = [cycle]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for params in (cycle, {"payload": deep}):
        with pytest.raises(UnserialisableParams):
            encode_request("process", 1, params)


def test_what_json_has_a_word_for_passes() -> None:
    params = {"row": Row(1.5), "none": None, "tuple": (1, 2), "null": "null"}
    assert json.loads(encode_request("x", 1, params))["params"] == {
        "row": {"price": 1.5},
        "none": None,
        "tuple": [1, 2],
        "null": "null",
    }
    assert json.loads(cancel_line(7)) == {"method": "cancel", "id": 7}


ANSWER = b'{"result":{"id":4503599627370503,"output":"mine"}}'
STRAY = b'{"event":{"id":0,"type":"x"}}'


@pytest.mark.parametrize(
    "block",
    [
        b"\n" + STRAY + ANSWER + b"\n",
        STRAY[:-1] + b"\n}\n" + STRAY + ANSWER + b"\n",
        STRAY + b"\n\n" + STRAY + ANSWER + b"\n",
    ],
)
def test_what_scripts_print_never_puts_an_answer_on_another_line(block: bytes) -> None:  # T-31, T-32
    decoded = decode_block(block)
    assert (decoded.heads[-1].request_id, decoded.lines[-1]) == (4503599627370503, ANSWER)
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in decoded.lines)


def test_an_answer_full_of_objects_with_ids_is_salvaged_too() -> None:  # T-32
    answer = b'{"result":{"id":7,"items":[' + b",".join(b'{"id":%d}' % number for number in range(100)) + b"]}}"
    decoded = decode_block(b"printed " + answer + b"\n")
    assert (decoded.lines, decoded.noise) == ([answer], [b"printed "])


@pytest.mark.parametrize(
    "start", [b'{"result":{"id":7,"v":', b'{"id":7,"result":{"v":', b'{"result":{"id":7,"s":"\\ud800","v":']
)
def test_an_answer_nobody_can_read_for_depth_fails_its_request(start: bytes) -> None:  # T-8
    decoded = decode_block(start + b"[" * 100_000 + b"]" * 100_000 + b"}}\n")
    assert [head.request_id for head in decoded.heads] == [7]
    assert (failure_of(decoded.heads[0]) or {})["code"] == "TOO_DEEP"


def test_a_bottomless_text_that_is_no_answer_stays_noise() -> None:  # T-31
    assert decode_block(b'{"v":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n").heads == []


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity"])
@pytest.mark.parametrize("start", [b'{"result":{"id":7,"output":"x","v":', b'{"id":7,"result":{"v":'])
def test_an_answer_with_numbers_that_are_no_json_fails_its_request(start: bytes, number: bytes) -> None:  # T-8
    decoded = decode_block(start + number + b"}}\n")
    assert [head.request_id for head in decoded.heads] == [7]
    assert (failure_of(decoded.heads[0]) or {})["code"] == "ANSWER_UNREADABLE"
    assert decode_block(b'{"v":' + number + b"}\n").heads == []


@pytest.mark.parametrize("value", [b'"\xff\xfe"', b"9" * 100_000], ids=["no UTF-8", "a number too long"])
def test_a_part_of_an_answer_that_cannot_be_read_is_an_error_of_its_own(value: bytes) -> None:  # T-8
    (line,) = decode_block(b'{"result":{"id":7,"output":' + value + b"}}\n").lines
    with pytest.raises(AnswerUnreadable):
        _ = EngineReply(line).payload
    with pytest.raises(AnswerUnreadable):
        output_of(EngineReply(line), may_be_cut=False, strict=False)
    (head,) = decode_block(b'{"event":{"id":7,"type":"effect","effect":' + value + b"}}\n").heads
    assert head.event is not None
    head.event.line = b'{"event":{"id":7,"type":"effect","effect":' + value + b"}}"
    assert head.event.body == {}


@pytest.mark.parametrize("line", [b'{"result":{"id":7}}', b'{"id":7,"result":{}}', b'{"result":{"id":7,"exports":[]}}'])
def test_the_answer_to_a_run_that_has_no_output_is_no_success(line: bytes) -> None:  # T-8
    assert len(decode_block(line + b"\n").heads) == 1
    with pytest.raises(AnswerUnreadable, match="no output"):
        output_of(EngineReply(line), may_be_cut=False, strict=False)
    with pytest.raises(AnswerUnreadable, match="no output"):
        result_of(EngineReply(line), EventHistory(10), may_be_cut=False, strict=False)


PIECES = [b'{"id":', b'{"id":1,"v":[1,2,3]},', b'{"event":{"id":1,"a":', b'{"result":{"id":1,"x":[']


@pytest.mark.parametrize("piece", PIECES)
def test_what_is_read_of_a_long_line_of_noise_has_bounds(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:  # T-32
    read: list[int] = []
    head_of = wire._head
    monkeypatch.setattr(wire, "_head", lambda line: read.append(len(line)) or head_of(line))
    line = b"noise " + piece * (10_000_000 // len(piece))
    decoded = decode_block(line + b"\n")
    assert (len(decoded.noise), decoded.heads) == (1, [])
    assert sum(read) <= 3 * len(line) + wire._SALVAGE_BYTES
    assert len(read) <= 2 * wire._SALVAGE_TRIES + 1


def test_a_message_is_salvaged_behind_and_in_front_of_much() -> None:  # T-32
    small, large = b'{"result":{"id":7,"output":"x"}}', b'{"result":{"id":7,"output":"%s"}}' % (b"y" * 3_000_000)
    for noise, message in ((b"n" * 3_000_000, small), (b"n" * 1_000, large)):
        decoded = decode_block(noise + message + b"\n")
        assert (decoded.noise, decoded.lines) == ([noise], [message])
