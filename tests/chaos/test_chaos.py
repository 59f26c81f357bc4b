"""Each scenario of a chaos run for a few seconds, so that it cannot rot; the whole for minutes with `-m long`."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import write_into
from tests.chaos.ledger import Ledger, judge, result, steps, value
from tests.chaos.scenarios import ROOT, SCENARIOS, CannotBeTried, Trial
from tests.chaos.table import Row, complaints, table
from tests.support.engines import is_alive
from tests.support.eventually import eventually
from tests.support.victims import children, processes_in

PAGE = ROOT / "docs" / "reliability.md"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_loses_doubles_and_falsifies_nothing(name: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    trial = Trial(tmp_path, random.Random(seed), 5.0)
    try:
        SCENARIOS[name](trial)
    except CannotBeTried as error:
        pytest.skip(str(error))
    finally:
        trial.ledger.close()
    row = Row()
    row.add(trial, str(seed))
    assert complaints({name: row}) == []
    assert sum(trial.tried.values()), "nothing was tried"
    assert not processes_in(tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_chaos_run_of_ten_minutes() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--minutes", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_chaos_run_has_started_ends_with_it(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--minutes", "1", "--only", "engines killed and frozen"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL) as run:
        try:
            [folder] = eventually(lambda: list(tmp_path.glob("mlld-chaos-*")))
            [worker] = eventually(lambda: children(run.pid))
            eventually(lambda: processes_in(folder))  # engines
        finally:
            run.send_signal(number)
    eventually(lambda: not is_alive(worker))
    eventually(lambda: not processes_in(folder))
    assert folder.exists() == (number == signal.SIGKILL)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger")
    yield made
    made.close()


def all_right(ledger: Ledger) -> None:
    ledger.write("handed", "r", 1, 10.0)
    for step in steps(1):
        ledger.write("act", "r", step, 1)
        ledger.write("known", "r", step, value("r", step), 1)
    ledger.write("answer", "r", result("r", 1), 12.5)


def test_the_checker_finds_nothing_where_nothing_is_wrong(ledger: Ledger) -> None:
    all_right(ledger)
    found = judge(ledger.path)
    assert found.is_right
    assert (found.runs, found.acts, found.again, found.late, found.slowest) == (1, 5, 0, 0, 2.5)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("handed other 1 11.0", "lost"),
        ("known r never-0 r/never-0 1", "lost"),
        ("act r again-0 1", "doubled"),
        ("known r again-0 r/once-0 1", "wrong"),
        ("answer r nonsense 13.0", "wrong"),
        ("verified 1", "wrong"),
    ],
)
def test_the_checker_finds_what_is_wrong(ledger: Ledger, line: str, kind: str) -> None:
    all_right(ledger)
    ledger.write(line)
    found = judge(ledger.path)
    assert {name for name in ("lost", "doubled", "wrong") if getattr(found, name)} == {kind}


def test_the_checker_tells_a_repeated_step_from_one_that_must_not_be_repeated(ledger: Ledger) -> None:
    ledger.write("handed", "r", 1, 10.0)
    for owner in (1, 2):
        ledger.write("act", "r", "again-0", owner)
        ledger.write("act", "r", "once-0", owner)
    found = judge(ledger.path)
    assert (found.again, len(found.doubled)) == (1, 1)


def test_the_checker_excuses_only_who_was_frozen_or_killed_and_only_where_others_take_over(ledger: Ledger) -> None:
    all_right(ledger)
    ledger.write("thawed", 2)
    ledger.write("act", "r", "again-0", 2)
    assert not judge(ledger.path).is_right
    found = judge(ledger.path, may_be_late=True)
    assert (found.is_right, found.late) == (True, 1)
    ledger.write("act", "r", "again-0", 3)
    assert not judge(ledger.path, may_be_late=True).is_right


def test_the_page_shows_the_table_of_a_run_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- chaos -->\nold\n<!-- /chaos -->\nafter\n")
    rows = {"one": Row(skipped="not here")}
    for _ in range(2):
        write_into(page, table(rows))
    assert page.read_text() == f"before\n<!-- chaos -->\n\n{table(rows)}\n\n<!-- /chaos -->\nafter\n"


def test_every_scenario_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [name for name in SCENARIOS if f"| {name} |" not in text] == []
