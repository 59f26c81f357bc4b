"""SUP-1 to SUP-77, by number: each is held by scenarios, by tests, or by both, and the pages are right about it."""

import re
from pathlib import Path

import pytest

from tests.oracle import real
from tests.oracle.clauses import SCENARIOS_OF, TESTS_OF
from tests.oracle.erlang import recorded
from tests.oracle.scenarios import SCENARIOS
from tests.oracle.trace import comparable

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
BY_NAME = {one["name"]: one for one in SCENARIOS}
RECORDED = recorded()
FEW = 4
"""Scenarios of one clause that are played again here; all of them are played in `test_supervision_oracle`."""


def functions_of(file: str) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", (HERE / file).read_text(), re.MULTILINE))


@pytest.mark.parametrize("clause", [f"SUP-{number}" for number in range(1, 78)])
def test_every_clause_is_held(clause: str) -> None:
    scenarios, tests = SCENARIOS_OF.get(clause, ()), TESTS_OF.get(clause, ())
    assert scenarios or tests, f"nothing holds {clause}"
    for name in scenarios[:FEW]:
        assert comparable(real.play(BY_NAME[name])) == comparable(RECORDED[name]), name
    assert set(scenarios) <= set(BY_NAME)
    for test in tests:
        file, function = test.split("::")
        assert function in functions_of(file), test


def test_every_scenario_belongs_to_a_clause() -> None:
    assert set(BY_NAME) == {name for names in SCENARIOS_OF.values() for name in names}


def test_the_tests_and_scenarios_the_parity_page_cites_exist() -> None:
    text = (ROOT / "docs" / "parity-supervision.md").read_text()
    known = set(BY_NAME)
    for file in HERE.glob("test_*.py"):
        known |= functions_of(file.name)
    cited = set(re.findall(r"`((?:test_)?[a-z]+(?:_[a-z0-9]+){3,})`", text))
    assert len(cited) > 100
    assert not cited - known


def test_the_semantics_page_states_every_clause() -> None:
    text = (ROOT / "docs" / "semantics-supervision.md").read_text()
    assert [f"SUP-{number}" for number in range(1, 78)] == re.findall(r"^- \*\*(SUP-\d+)\*\*", text, re.MULTILINE)
