"""User values: what comes back the same, what is refused, and that nothing is guessed."""

import datetime as dt
import decimal
import enum
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.texts import shorten
from mlld_sdk.journal import Positions, Replay, RunRecord, StepPolicy, StepRecord, Values
from mlld_sdk.journal.errors import JournalCorrupt, LimitExceeded, RecordUnknown, ValueNotStorable
from mlld_sdk.journal.positions import checked, order
from mlld_sdk.journal.records import ErrorRecord, pack, recall, unpack

LIMIT = 10_000_000

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("$type"), inner),
)


class Note(msgspec.Struct, frozen=True):
    text: str
    at: dt.datetime
    tags: tuple[str, ...] = ()


class Review(msgspec.Struct, frozen=True):
    notes: list[Note]
    score: float = 0.0


class Unregistered(msgspec.Struct):
    x: int


class Loose(msgspec.Struct):
    anything: Any


NOTE = Note("n", dt.datetime(2026, 1, 1, tzinfo=dt.UTC), ("a", "b"))


def round_trip(values: Values, value: Any) -> Any:
    raw, back = values.encode_both(value, "value", LIMIT)
    again = values.decode(raw, "value")
    assert again == back
    return again


@settings(max_examples=60)
@given(json_values)
def test_plain_values_come_back_the_same_even_with_our_own_marker_in_them(value: Any) -> None:  # J-50
    back = round_trip(Values(), value)
    assert back == value
    assert repr(back) == repr(value)  # 1 is not 1.0 is not True


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({1, 2}, "value"),
        (b"bytes", "value"),
        pytest.param(object(), "value", id="object"),
        (len, "value"),
        ({"a": [{"when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}]}, "value.a[0].when"),
        ([decimal.Decimal(1)], "value[0]"),
        ({"n": float("nan")}, "value.n"),
        ([float("inf")], "value[0]"),
        ({1: "x"}, "the key 1 of value"),
        ({"a": {(1, 2): 0}}, "the key (1, 2) of value.a"),
        (["\ud800"], "value[0]"),
        ({"\ud800": 1}, "a key of value"),
        (Unregistered(1), "value"),
        ({"x": [Unregistered(1)]}, "value.x[0]"),
        ((1, {2}), "value[1]"),
    ],
    ids=repr,
)
def test_what_would_not_come_back_is_refused_by_its_field(value: Any, field: str) -> None:  # J-52
    with pytest.raises(ValueNotStorable) as caught:
        Values().encode(value, "value", LIMIT)
    assert caught.value.field == field


def test_an_integer_too_long_to_print_is_refused() -> None:  # J-52
    with pytest.raises(ValueNotStorable, match=r"value\.big.* too long"):
        Values().encode({"big": 10**5000}, "value", LIMIT)


def test_values_within_themselves_are_refused() -> None:  # J-52
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueNotStorable, match="contains itself"):
        Values().encode(loop, "value", LIMIT)


def test_a_tuple_comes_back_as_a_list_and_text_of_an_enum_as_text() -> None:  # J-55
    class Colour(enum.StrEnum):
        RED = "red"

    assert round_trip(Values(), {"pair": (1, (2,)), "colour": Colour.RED}) == {"pair": [1, [2]], "colour": "red"}
    assert type(round_trip(Values(), Colour.RED)) is str


def test_a_registered_struct_comes_back_as_itself_wherever_it_stands() -> None:  # J-51
    values = Values()
    values.register(Note)
    values.register(Review, "review.v1")
    review = Review([NOTE], 0.5)
    assert round_trip(values, review) == review
    assert round_trip(values, {"list": [NOTE, {"$type": "x", "deep": review}], "$type": "mine"}) == {
        "list": [NOTE, {"$type": "x", "deep": review}],
        "$type": "mine",
    }
    raw = bytes(values.encode(review, "value", LIMIT))
    assert b"review.v1" in raw
    assert __name__.encode() not in raw  # never an import path
    assert b"Review" not in raw


def test_a_type_nobody_registered_is_an_error_never_a_dict() -> None:  # J-53
    values = Values()
    values.register(Note)
    raw = values.encode([NOTE], "value", LIMIT)
    with pytest.raises(RecordUnknown, match=r"'Note'.*register"):
        Values().decode(raw, "value")


def test_data_of_an_old_type_is_upgraded_or_refused() -> None:  # J-53
    old, new = Values(), Values()
    old.register(Unregistered, "thing")
    raw = old.encode(Unregistered(3), "value", LIMIT)

    class Thing(msgspec.Struct, frozen=True):
        y: int

    new.register(Thing, "thing")
    with pytest.raises(RecordUnknown, match=r"no longer fit Thing.*upgrade"):
        new.decode(raw, "value")
    newer = Values()
    newer.register(Thing, "thing.v2")
    newer.upgrade("thing", lambda data: Thing(data["x"] + 1))
    assert newer.decode(raw, "value") == Thing(4)


def test_a_struct_that_would_come_back_changed_is_refused() -> None:  # J-52
    values = Values()
    values.register(Loose)
    assert round_trip(values, Loose([1])) == Loose([1])
    for inside in ((1, 2), {1}, object()):
        with pytest.raises(ValueNotStorable, match="Loose"):
            values.encode(Loose(inside), "value", LIMIT)


def test_tags_are_registered_once() -> None:
    values = Values()
    values.register(Note)
    values.register(Note)
    for wrong in (
        lambda: values.register(Review, "Note"),
        lambda: values.register(Review, "dict"),
        lambda: values.upgrade("Note", id),
    ):
        with pytest.raises(ConfigurationError, match="tag"):
            wrong()
    with pytest.raises(ConfigurationError, match="Struct"):
        values.register(dict)  # type: ignore[arg-type]


def test_a_value_over_the_limit_is_refused() -> None:  # J-54
    with pytest.raises(LimitExceeded, match="value_bytes is 10"):
        Values().encode("x" * 9, "value", 10)
    Values().encode("x" * 8, "value", 10)


def test_fingerprints_tell_values_apart_and_not_the_order_of_keys() -> None:  # J-13
    values = Values()
    one = values.fingerprint("ask", {"a": 1, "b": [1, 2]})
    assert one.digest == values.fingerprint("ask", {"b": [1, 2], "a": 1}).digest
    others = [
        ("ask", {"a": 1, "b": [2, 1]}),
        ("ask", {"a": 1.5, "b": [1, 2]}),
        ("ask",),
        ("as", "k"),
        (["ask"],),
        ("ask", None),
    ]
    assert len({values.fingerprint(*other).digest for other in others} | {one.digest}) == len(others) + 1
    assert values.fingerprint({"a": "x" * 1000}).asked.startswith('{"a":"xxx')
    assert len(values.fingerprint({"a": "x" * 1000}).asked) <= 220
    with pytest.raises(ValueNotStorable, match="part 2 of the fingerprint"):
        values.fingerprint("ask", {1, 2})


def step(**fields: Any) -> StepRecord:
    return StepRecord(
        **{
            "run_id": "r",
            "position": "1",
            "name": "n",
            "fingerprint": "f",
            "asked": "a",
            "policy": StepPolicy(),
            "state": "finished",
            "attempts": 1,
            "started": 1.0,
            "result": msgspec.Raw(b'{"x":1}'),
            **fields,
        }
    )


@settings(deadline=None)
@given(st.data())
def test_every_flipped_bit_in_a_record_is_noticed(data: st.DataObject) -> None:  # J-67
    packed = bytearray(pack(step()))
    at = data.draw(st.integers(0, len(packed) * 8 - 1))
    packed[at // 8] ^= 1 << at % 8
    with pytest.raises(JournalCorrupt, match="the step"):
        unpack(StepRecord, bytes(packed), "the step")
    assert recall(bytes(packed)) is None


@pytest.mark.parametrize("data", [b"", b"J", b"J\x01\0\0\0\0", None, "text", 5, bytes(100)], ids=repr)
def test_what_is_no_record_is_refused_whatever_it_is(data: Any) -> None:  # J-67
    with pytest.raises(JournalCorrupt):
        unpack(StepRecord, data, "the step")


def test_a_record_of_another_kind_is_not_mistaken() -> None:  # J-67
    with pytest.raises(RecordUnknown, match="RunRecord"):
        unpack(RunRecord, pack(step()), "the run")


def test_only_a_finished_plain_step_is_recalled_in_short() -> None:
    recalled = recall(pack(step()))
    assert recalled is not None
    assert recalled == Replay(recorded={"x": 1}) != Replay(recorded={"x": 2})
    assert repr(recalled) == "Replay({'x': 1})"
    match recalled:
        case Replay(value=value):
            assert value == {"x": 1}
    assert Replay.__match_args__ == ()  # by position it would be what is recorded, not yet decoded
    recalled.value["x"] = 2  # whoever changes what it was given does not change what is recorded
    assert recalled.value == {"x": 1}
    assert recall(pack(step(state="started", result=msgspec.UNSET))) is None
    assert recall(pack(step(result=msgspec.Raw(b'{"$type":"t"}')))) is None


def test_errors_are_kept_as_data_within_their_limit() -> None:
    try:
        raise ValueError("x" * 500) from KeyError("cause")
    except ValueError as error:
        record = ErrorRecord.of(error, limit=200)
    assert (record.code, record.type) == ("EXCEPTION", "ValueError")
    assert len(record.message) <= 200
    assert len(record.traceback) <= 200
    assert "left out" in record.message
    assert shorten("short", 10) == "short"


def test_branches_count_for_themselves() -> None:  # J-17
    run = Positions()
    assert [run.next(), run.next()] == ["1", "2"]
    left, right = run.branches(2)
    assert [right.next(), left.next(), left.next(), right.next()] == ["3.2.1", "3.1.1", "3.1.2", "3.2.2"]
    inner = left.branches(1)[0]
    assert (inner.next(), left.next(), run.next()) == ("3.1.3.1.1", "3.1.4", "4")


@pytest.mark.parametrize("wrong", ["", "0", "1.", ".1", "01", "1.0", "a", "1 ", "1\n", "1" * 10, ".".join("1" * 40)])
def test_a_malformed_position_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="position"):
        checked(wrong)


def test_positions_sort_as_the_code_runs() -> None:
    in_order = ["1", "2", "3", "3.1.1", "3.1.2", "3.1.10", "3.2.1", "4", "10"]
    assert sorted(sorted(in_order), key=order) == in_order
