"""The two indexes of a registry agree with a plain list, and keys are strict."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mlld_sdk.actors.registry.registry_rows import Rows, strict

STEPS = st.lists(st.tuples(st.sampled_from(["add", "drop", "leave"]), st.sampled_from("abc"), st.sampled_from("xyz")))


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_both_indexes_say_the_same_as_a_plain_list(steps: list[tuple[str, str, str]]) -> None:
    rows: Rows[str] = Rows()
    plain: list[tuple[str, str, int]] = []
    for number, (what, key, owner) in enumerate(steps):
        if what == "add":
            rows.add(key, owner, number)
            plain.append((key, owner, number))
        else:
            gone = rows.of(owner) if what == "leave" else rows.owned(owner, key)
            for row in gone:
                rows.drop(row)
            plain = [row for row in plain if not (row[1] == owner and (what == "leave" or row[0] == key))]
        assert len(rows) == len(plain)
        assert sorted((row.key, row.owner, row.value) for row in rows) == sorted(plain)
        for one in "abc":
            assert [row.value for row in rows.under(one)] == [value for name, _, value in plain if name == one]
        for one in "xyz":
            assert rows.holds_any(one) == any(holder == one for _, holder, _ in plain)


def test_keys_that_python_holds_equal_are_different_keys() -> None:  # REG-3
    keys = [1, 1.0, True, "1", b"1", (1,), (1.0,), (True,), ((1,),), ((1.0,),)]
    assert len({strict(key) for key in keys}) == len(keys)


def test_nothing_is_left_of_rows_that_were_dropped() -> None:  # RU34
    rows: Rows[str] = Rows()
    for row in [rows.add("k", "owner", 1), rows.add("k", "owner", 2)]:
        rows.drop(row)
    assert (len(rows), list(rows), rows.of("owner"), rows.holds_any("owner")) == (0, [], [], False)
    assert (rows._by_key, rows._by_owner) == ({}, {})
