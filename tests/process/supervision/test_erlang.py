"""The recorded traces against the Erlang that is installed here."""

import pytest

from tests.oracle import erlang
from tests.oracle.scenarios import SCENARIOS
from tests.oracle.trace import comparable

RECORDED = erlang.recorded()


@pytest.mark.erlang
@pytest.mark.skipif(not erlang.available(), reason="there is no Erlang here")
def test_the_recorded_traces_are_what_erlang_does_today() -> None:
    played = erlang.play(SCENARIOS)
    for name, trace in RECORDED.items():
        assert comparable(played[name]) == comparable(trace), name
