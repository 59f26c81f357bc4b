"""Bits flip in the indices by which runs are found: none stays unclaimed while all looks well."""

import random
import sqlite3
from pathlib import Path

import pytest

from mlld_sdk.base.events import Event
from mlld_sdk.journal import Journal, JournalLimits
from mlld_sdk.journal import errors as e
from mlld_sdk.journal.events import JournalDegraded, JournalRepaired
from mlld_sdk.journal.sqlite import upkeep
from tests.support.eventually import eventually
from tests.support.journal import quick

PAGE = 4096
QUICK = JournalLimits(write_timeout=0.6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def submitted(path: Path, runs: int = 5) -> list[str]:
    with quick(path) as journal:
        return [journal.submit("agent", n, key=f"key-{n}").id for n in range(runs)]


def page_of(path: Path, index: str) -> int:
    """Return where the page of an index of a few entries begins."""
    raw = sqlite3.connect(path)
    [root] = raw.execute("SELECT rootpage FROM sqlite_master WHERE name=?", (index,)).fetchone()
    raw.close()
    return (int(root) - 1) * PAGE


def flip(path: Path, at: int, bit: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def claimed(journal: Journal, into: set[str]) -> set[str]:
    """Claim what can be claimed, and return all that ever was."""
    into |= {lease.run_id for lease in journal.claim_unfinished("agent", "w")}
    return into


def repairs(told: list[Event]) -> list[str]:
    return [event.reason for event in told if isinstance(event, JournalRepaired)]


@pytest.mark.parametrize(
    ("index", "word"),
    [
        ("runs_by_turn", b"pending"),
        ("runs_by_turn", b"agent"),
        ("runs_by_turn", b"run-"),
        ("sqlite_autoindex_runs_1", b"run-"),
        ("runs_by_key", b"key-"),
    ],
)
def test_a_run_that_is_missing_from_an_index_is_found_and_claimed(path: Path, index: str, word: bytes) -> None:  # J-78
    ids = submitted(path)
    begin = page_of(path, index)
    flip(path, begin + path.read_bytes()[begin : begin + PAGE].rindex(word) + len(word) - 1)
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        eventually(lambda: repairs(told) != [])
        assert claimed(journal, set()) == set(ids)
        assert journal.verify() == []
        assert journal.submit("agent", 0, key="key-0").id == ids[0]
    assert [reason for reason in repairs(told) if "missing from an index" not in reason] == []


def test_a_row_that_says_something_else_than_its_record_is_put_right(path: Path) -> None:  # J-78
    ids = submitted(path)
    begin = page_of(path, "runs")
    flip(path, begin + path.read_bytes()[begin : begin + PAGE].index(b"agentkey-"))
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        eventually(lambda: repairs(told) != [])
        assert claimed(journal, set()) == set(ids)
        assert journal.verify() == []


@pytest.mark.parametrize("seed", range(40))
def test_whatever_bit_flips_in_an_index_hides_no_run_for_long(path: Path, seed: int) -> None:  # J-78
    ids = submitted(path)
    chance = random.Random(seed)
    begin = page_of(path, chance.choice(["runs_by_turn", "sqlite_autoindex_runs_1", "runs_by_key"]))
    used = begin + int.from_bytes(path.read_bytes()[begin + 5 : begin + 7], "big")
    flip(path, chance.randrange(used, begin + PAGE), 1 << chance.randrange(8))
    told: list[Event] = []
    found: set[str] = set()

    def well_or_told(journal: Journal) -> bool:
        try:
            return claimed(journal, found) == set(ids) or any(isinstance(event, JournalDegraded) for event in told)
        except (e.JournalError, e.RunNotFound):
            return any(isinstance(event, JournalDegraded) for event in told)

    try:
        with quick(path, sink=told.append, limits=QUICK) as journal:
            eventually(lambda: well_or_told(journal))
    except e.JournalError:
        return  # refused at the door


def test_what_flips_while_the_journal_is_open_is_found_by_the_next_walk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # J-78
    monkeypatch.setattr(upkeep, "_BETWEEN_WALKS_S", 0.05)
    monkeypatch.setattr(upkeep, "_ROWS", 2)
    ids = submitted(path)
    told: list[Event] = []
    begin = page_of(path, "runs_by_turn")
    with quick(path, sink=told.append) as journal:
        assert journal.status().runs == {"pending": 5}
        flip(path, begin + path.read_bytes()[begin : begin + PAGE].rindex(b"pending") + 6)
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("UPDATE tally SET n=n+1")  # whoever has pages in memory reads them anew
        raw.close()
        eventually(lambda: repairs(told) != [])
        assert claimed(journal, set()) == set(ids)


def test_an_index_that_cannot_be_made_anew_degrades_the_journal(path: Path) -> None:  # J-65, J-78
    submitted(path)
    begin = page_of(path, "runs")
    flip(path, begin + path.read_bytes()[begin : begin + PAGE].index(b"agentkey-1") + 9)  # two rows have key-0 now
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        eventually(lambda: journal.status().store.degraded == "JOURNAL_CORRUPT")
        with pytest.raises(e.JournalCorrupt, match="cannot be made anew"):
            journal.submit("agent", "more")
    assert [event.code for event in told if isinstance(event, JournalDegraded)] == ["JOURNAL_CORRUPT"]


def test_runs_that_have_ended_or_are_set_aside_are_none_of_its_business(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # J-78
    monkeypatch.setattr(upkeep, "_BETWEEN_WALKS_S", 0.0)
    monkeypatch.setattr(upkeep, "_BETWEEN_LOOKS_S", 0.0)
    told: list[Event] = []
    ids = submitted(path)
    with quick(path, sink=told.append) as journal:
        leases = journal.claim_unfinished("agent", "w", limit=3)
        leases[0].finish_run(1)
        leases[1].release()
        journal.cancel(ids[4])
        for n in range(50):
            journal.submit("agent", n, priority=n % 3)
        assert journal.verify() == []
    assert repairs(told) == []
