"""Running supervisors, compared with what a real Erlang did in the same scenario."""

from typing import Any

import pytest

from tests.oracle import erlang, real
from tests.oracle.scenarios import SCENARIOS
from tests.oracle.trace import comparable

RECORDED = erlang.recorded()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one["name"])
def test_a_running_supervisor_does_what_a_real_erlang_did(scenario: dict[str, Any]) -> None:
    assert comparable(real.play(scenario)) == comparable(RECORDED[scenario["name"]])
