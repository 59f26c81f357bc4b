"""The arithmetic of demand: what is asked, what may be emitted, who gets it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlld_sdk.actors.stages.demand import Window, deal_by_demand, deal_by_partition, deal_to_all, open_demand


@given(st.integers(1, 50), st.data())
@settings(max_examples=100, deadline=None)
def test_a_consumer_never_has_more_on_its_way_than_its_most_and_never_starves(most: int, data: st.DataObject) -> None:
    # DEM-2
    least = data.draw(st.integers(0, most - 1))
    window = Window(most, least)
    granted = window.first()
    for _ in range(30):
        share = data.draw(st.integers(1, granted)) if granted else 0
        granted += window.handled(share) - share
        assert 0 < granted == window.outstanding <= most


def test_a_consumer_asks_again_only_when_down_to_its_least() -> None:
    window = Window(10, 5)
    assert window.first() == 10
    assert [window.handled(3), window.handled(1), window.handled(1), window.handled(5)] == [0, 0, 5, 5]


WANTED = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9))


@given(WANTED, st.data())
@settings(max_examples=100, deadline=None)
def test_nobody_gets_more_than_asked_and_every_event_goes_to_exactly_one(
    wanted: dict[str, int], data: st.DataObject
) -> None:  # DEM-3
    events = list(range(data.draw(st.integers(0, open_demand(wanted, "demand")))))
    shares = deal_by_demand(wanted, events)
    assert sorted(event for share in shares.values() for event in share) == events
    assert all(0 < len(share) <= wanted[who] for who, share in shares.items())


@given(WANTED)
@settings(max_examples=100, deadline=None)
def test_a_broadcast_goes_as_far_as_the_least_eager(wanted: dict[str, int]) -> None:  # DEM-3
    room = open_demand(wanted, "broadcast")
    shares = deal_to_all(wanted, list(range(room)))
    assert all(wanted[who] >= len(share) == room for who, share in shares.items())
    assert (room == 0) == (not shares)


def test_partitions_get_their_own_events_in_order() -> None:  # DEM-3
    shares = deal_by_partition({"even": 0, "odd": 1}, [1, 2, 3, 4], lambda event: event % 2)
    assert shares == {"odd": [1, 3], "even": [2, 4]}
    with pytest.raises(ValueError, match="no such partition"):
        deal_by_partition({"even": 0}, [1], lambda event: event % 2)
