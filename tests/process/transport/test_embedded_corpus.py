"""The embedded engine makes the same of a corpus of scripts as the real engine did, and does when it is here."""

import sys
from pathlib import Path

import pytest

from tests.support.corpus import Case, Engine, load, real_command, recorded, same, themes
from tests.support.script_generator import ScriptGenerator

EMBEDDED = [sys.executable, "-m", "mlld_sdk.transport.embedded", "live", "--stdio"]
FACES = {"well behaved": EMBEDDED, "like the real one": [*EMBEDDED, "--like-real", "--survive"]}
FRESH_SEEDS = range(1000, 1060)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("theme", themes())
def test_scripts_come_out_as_recorded_from_the_real_engine(theme: str, face: str, tmp_path: Path) -> None:
    answers = recorded(theme)
    with Engine(FACES[face], tmp_path) as engine:
        for case in load(theme):
            outcome, wanted = engine.outcome(case), answers[case.name]
            if engine.unanswered:  # which it does not keep, and the real engine does
                wanted["rows"] = [row for row in wanted["rows"] if row in outcome["rows"]]
            assert same(outcome, wanted), (case.script, outcome, wanted)


def test_the_corpus_is_as_large_as_it_claims() -> None:
    assert sum(len(load(theme)) for theme in themes()) >= 400
    assert all(len(load(theme)) == len(recorded(theme)) for theme in themes())


@pytest.mark.real
@pytest.mark.skipif(not real_command(), reason="MLLD_COMMAND is not set")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("theme", themes())
def test_both_engines_make_the_same_of_the_corpus_today(theme: str, tmp_path: Path) -> None:
    compare(load(theme), tmp_path)


@pytest.mark.real
@pytest.mark.skipif(not real_command(), reason="MLLD_COMMAND is not set")
@pytest.mark.timeout(240)
def test_both_engines_make_the_same_of_scripts_made_by_chance(tmp_path: Path) -> None:
    compare([Case(f"fresh_{seed}", {}, ScriptGenerator(seed).script()) for seed in FRESH_SEEDS], tmp_path)


def compare(cases: list[Case], folder: Path) -> None:
    for name in ("real", "embedded"):
        (folder / name).mkdir()
    with (
        Engine(real_command(), folder / "real") as real,
        Engine(FACES["like the real one"], folder / "embedded") as embedded,
    ):
        for case in cases:
            wanted, came = real.outcome(case), embedded.outcome(case)
            assert same(came, wanted), (case.script, came, wanted)
