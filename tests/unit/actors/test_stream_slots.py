"""What enters and leaves a task stream, as plain bookkeeping."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlld_sdk.actors.tasks.stream_slots import Slots


@given(st.booleans(), st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(0, 3)))
@settings(max_examples=100, deadline=None)
def test_both_limits_hold_and_everything_leaves_once_in_the_order_promised(
    ordered: bool, width: int, waiting: int, choices: list[int]
) -> None:  # STR-1, STR-2
    slots: Slots[int] = Slots(width, ordered=ordered, waiting=waiting)
    running, finished, left = [], [], []
    for choice in [*choices, *[3] * len(choices)]:
        if choice < 2 and slots.free:
            running.append(slots.enter())
        elif choice == 2 and running:
            number = running.pop(len(finished) % len(running))
            assert slots.finish(number, number)
            assert not slots.finish(number, -1)
            finished.append(number)
        elif slots.ready:
            left.append(slots.leave())
        assert len(running) <= width
        assert len(finished) - len(left) <= waiting + width - 1
    assert left == (sorted(left) if ordered else finished[: len(left)])
    assert slots.empty == (not running and len(left) == len(finished))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_slow_first_item_holds_back_only_ordered_results(ordered: bool) -> None:  # STR-2
    slots: Slots[str] = Slots(2, ordered=ordered, waiting=10)
    slow, quick = slots.enter(), slots.enter()
    assert not slots.free
    slots.finish(quick, "quick")
    assert slots.free
    assert slots.ready is not ordered
    slots.finish(slow, "slow")
    assert [slots.leave(), slots.leave()] == (["slow", "quick"] if ordered else ["quick", "slow"])
