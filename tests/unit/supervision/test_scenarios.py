"""The decisions of a supervisor, compared with what a real Erlang did in the same scenario."""

from typing import Any

import pytest

from tests.oracle import simulate
from tests.oracle.erlang import recorded
from tests.oracle.scenarios import SCENARIOS
from tests.oracle.trace import comparable

RECORDED = recorded()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one["name"])
def test_the_decisions_do_what_a_real_erlang_did(scenario: dict[str, Any]) -> None:
    assert comparable(simulate.play(scenario)) == comparable(RECORDED[scenario["name"]])


def test_every_scenario_was_recorded_and_nothing_else() -> None:
    names = [one["name"] for one in SCENARIOS]
    assert len(names) == len(set(names)) >= 60
    assert set(RECORDED) == set(names)
