"""Disks that are full or broken, files that are locked, deleted, cut or flipped: named errors, nothing half done."""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlld_sdk.base.events import Event, name_of
from mlld_sdk.journal import Fresh, Journal, JournalLimits, Replay, writes
from mlld_sdk.journal import errors as e
from mlld_sdk.journal.audit import audit
from mlld_sdk.journal.events import StepFinished
from mlld_sdk.journal.rows import Tx
from mlld_sdk.journal.sqlite.schema import APPLICATION_ID, CURRENT
from mlld_sdk.journal.sqlite.store import SqliteStore
from tests.support.eventually import eventually
from tests.support.journal import act, begin, python, quick

QUICK = JournalLimits(write_timeout=0.6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def filled(path: Path, steps: int = 30) -> str:
    """Make a journal with one unfinished and one finished run; returns the id of the unfinished one."""
    with quick(path) as journal:
        done = journal.claim(journal.submit("a", "done").id, "w")
        act(journal, done, "1", "x" * 50)
        done.finish_run("done")
        lease = journal.claim(journal.submit("a", {"n": 1}).id, "w")
        for n in range(1, steps + 1):
            act(journal, lease, str(n), {"n": n, "text": "y" * 200})
        lease.note("receipt", [1, 2])
        return lease.run_id


def page_limit(journal: Journal, pages: int) -> None:
    """Make the disk full for the writing connection."""

    def work(tx: object) -> None:
        tx._execute(f"PRAGMA max_page_count={pages}")  # type: ignore[attr-defined]

    journal._store.write(journal.session, work, 5)


def test_a_full_disk_refuses_by_name_keeps_what_was_there_and_recovers(path: Path) -> None:  # J-63, J-64, J-65
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        lease = journal.claim(journal.submit("a").id, "w")
        act(journal, lease, "1", "before")
        page_limit(journal, 1)  # SQLite takes the present size as the limit
        begin(journal, lease, "2")
        big = "x" * 100_000
        for _ in range(2):
            with pytest.raises(e.JournalFull, match="no room"):
                lease.finish_step("2", big)
        status = journal.status().store
        assert (status.degraded, "no room" in status.reason) == ("JOURNAL_FULL", True)
        assert [step.state for step in journal.steps(lease.run_id)] == ["finished", "started"]
        page_limit(journal, 1_000_000)
        assert journal.status().store.degraded is None
        assert lease.finish_step("2", big) == big  # the step was still open
        lease.finish_run("after")
        assert journal.verify() == []
    names = [name_of(event) for event in told]
    assert [name for name in names if name.startswith("journal.")] == ["journal.degraded", "journal.recovered"]
    assert names.count("step.finished") == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_really_fills_up_loses_nothing_and_goes_on_when_there_is_room(small_disk: Path) -> None:  # J-63
    with quick(small_disk / "journal.db") as journal:
        confirmed: list[str] = []

        def fill() -> None:
            for n in range(2000):
                run = journal.submit("a", {"n": n, "text": "x" * 3000})
                confirmed.append(run.id)

        with pytest.raises(e.JournalFull):
            fill()
        with pytest.raises(e.JournalFull):
            fill()
        assert [run.id for run in journal.runs(limit=5000)] == confirmed
        subprocess.run(["mount", "-o", "remount,size=3m", str(small_disk)], check=True)
        assert journal.submit("a", "again").state == "pending"
        assert journal.status().store.degraded is None
        assert journal.verify() == []


def test_one_write_that_does_not_fit_does_not_take_its_group_with_it(path: Path) -> None:  # J-64
    with quick(path) as journal:
        leases = [journal.claim(journal.submit("a", n).id, "w") for n in range(8)]
        for lease in leases:
            begin(journal, lease, "1")
        page_limit(journal, 1)
        gate, entered = threading.Event(), threading.Event()

        def block(tx: object) -> None:
            entered.set()
            gate.wait(60)

        blocker = threading.Thread(target=journal._store.write, args=(journal.session, block, 90))
        blocker.start()
        assert entered.wait(60)
        results: dict[int, object] = {}

        def finish(n: int) -> None:
            try:
                results[n] = leases[n].finish_step("1", "x" * (200_000 if n == 3 else 1))
            except e.JournalError as error:
                results[n] = type(error)

        threads = [threading.Thread(target=finish, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: journal.status().store.queued >= 8)  # all wait for one commit
        gate.set()
        for thread in (blocker, *threads):
            thread.join()
        assert results.pop(3) is e.JournalFull
        assert set(results.values()) == {"x"}


def test_a_file_size_limit_is_an_error_of_the_disk(path: Path) -> None:  # J-63
    filled(path)
    code = r"""
import resource, sys
from tests.support.journal import quick
from mlld_sdk.journal.errors import JournalError
with quick(sys.argv[1]) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    try:
        for n in range(1000):
            journal.submit("a", "x" * 5000)
    except JournalError as error:
        print(error.code, journal.status().store.degraded)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(journal.submit("a", "again").state, journal.status().store.degraded, len(journal.verify()))
"""
    child = python(code, str(path))
    out, err = child.communicate(timeout=60)
    assert out.splitlines() == ["JOURNAL_UNREADABLE JOURNAL_UNREADABLE", "pending None 0"], err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody without rights")
def test_a_read_only_place_is_refused_at_the_door(tmp_path: Path) -> None:  # J-63
    code = r"""
import os, sys
import mlld_sdk.journal.memory, mlld_sdk.journal.sqlite.store
from tests.support.journal import quick
from mlld_sdk.base.errors import MlldError
os.setuid(65534)
try:
    quick(sys.argv[1]).close()
except MlldError as error:
    print(error.code, error)
"""
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    filled(tmp_path / "there.db")
    for name in ("new.db", "there.db"):
        child = python(code, str(tmp_path / name))
        out, err = child.communicate(timeout=60)
        assert out.startswith("JOURNAL_READ_ONLY "), (name, out, err)
        assert name in out
    with quick(tmp_path / "there.db") as journal:
        assert journal.verify() == []


def test_a_file_held_by_another_process_is_waited_for_then_refused_by_name(path: Path) -> None:  # J-62, J-63
    filled(path)
    told: list[Event] = []
    with quick(path, limits=QUICK, sink=told.append) as journal:
        before = journal.status().runs
        hog = sqlite3.connect(path, isolation_level=None)
        hog.execute("BEGIN IMMEDIATE")
        with pytest.raises(e.JournalLocked, match="another process"):
            journal.submit("a", "refused")
        assert journal.status().runs == before  # reading goes on
        hog.execute("ROLLBACK")
        hog.close()
        assert journal.submit("a", "accepted").state == "pending"
        assert len(journal.runs()) == sum(before.values()) + 1
    assert [name_of(event) for event in told if name_of(event).startswith("journal.")] == [
        "journal.degraded",
        "journal.recovered",
    ]


@pytest.mark.parametrize("how", ["delete", "replace", "delete the log"])
def test_a_file_that_vanishes_while_open_is_noticed_and_stays_refused(path: Path, how: str) -> None:  # J-66
    filled(path)
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        journal.submit("a", "fine")
        if how == "replace":
            other = path.with_name("other")
            other.write_bytes(b"")
            other.replace(path)
        else:
            Path(f"{path}-wal" if how == "delete the log" else path).unlink()

        def refused() -> bool:
            try:
                journal.submit("a", os.urandom(8).hex())
            except e.JournalGone as error:
                return "deleted or replaced" in str(error)
            return False

        eventually(refused, within=60)
        for _ in range(2):
            assert refused()
    assert [event.code for event in told if name_of(event) == "journal.degraded"] == ["JOURNAL_GONE"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "content", [b"hello", b"#!/bin/sh\n" * 1000, b"SQLite format 3\x00"], ids=["short", "long", "head"]
)
def test_a_file_of_something_else_is_refused_and_left_alone(path: Path, content: bytes) -> None:  # J-75
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(e.NotAJournal, match=r"journal\.db"):
        quick(path)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_journal_whose_head_is_overwritten_is_a_damaged_one(path: Path) -> None:  # J-63, J-75
    filled(path)
    with path.open("r+b") as file:
        file.write(b"\0" * 100)
    with pytest.raises(e.JournalCorrupt, match="damaged"):
        quick(path)


def test_names_that_are_no_text_any_more_are_damage_wherever_they_are_met(path: Path) -> None:  # J-63, J-67
    run_id = filled(path)
    whole = path.read_bytes()
    assert whole.count(b"runs_by_turn") >= 2
    path.write_bytes(whole.replace(b"INDEX runs_by_turn", b"INDEX runs_by\xf4turn"))
    with pytest.raises(e.JournalCorrupt):
        quick(path)
    path.write_bytes(whole)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("UPDATE steps SET position=CAST(x'f4f4' AS TEXT) WHERE position='5'")
    raw.execute("UPDATE runs SET session=CAST(x'f4f4' AS TEXT), state='running' WHERE id=?", (run_id,))
    raw.close()
    with quick(path) as journal:
        for use in (lambda: journal.steps(run_id), lambda: journal.claim_unfinished("a", "w")):
            with pytest.raises(e.JournalCorrupt):
                use()
        assert journal.verify() != []


def test_a_database_of_something_else_is_refused_and_left_alone(path: Path) -> None:  # J-75
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE precious (x)")
    other.commit()
    other.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(e.NotAJournal, match="something else"):
        quick(path)
    assert path.read_bytes() == before
    for wrong, match in ((path.parent, "folder"), (path.parent / "nowhere" / "j.db", "no folder")):
        with pytest.raises(e.NotAJournal, match=match):
            quick(wrong)


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:  # J-73
    filled(path)
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version={CURRENT + 1}")
    newer.close()
    with pytest.raises(e.JournalTooNew, match=f"version {CURRENT + 1}"):
        quick(path)


VERSION_1 = """
CREATE TABLE runs (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, key TEXT, state TEXT NOT NULL,
    epoch INTEGER NOT NULL, session TEXT, until REAL, queued REAL NOT NULL, deadline REAL, updated REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX runs_by_key ON runs (kind, key) WHERE key IS NOT NULL;
CREATE INDEX runs_ended ON runs (kind, updated) WHERE state IN ('finished', 'failed', 'cancelled');
CREATE TABLE inputs (run TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE outcomes (run TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE steps (
    run TEXT NOT NULL, position TEXT NOT NULL, state TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (run, position)
) WITHOUT ROWID;
"""
"""The tables as version 1 had them, written out: this text must never change with the code."""

COLUMNS_1 = "id, kind, key, state, epoch, session, until, queued, deadline, updated, body"


def as_version_1(path: Path) -> None:
    """Rewrite a file in the form of version 1."""
    old = sqlite3.connect(path.with_name("old"), isolation_level=None)
    old.executescript(VERSION_1)
    old.execute("ATTACH ? AS now", (str(path),))
    old.execute(f"INSERT INTO main.runs ({COLUMNS_1}) SELECT {COLUMNS_1} FROM now.runs ORDER BY n")
    for table in ("inputs", "outcomes", "steps"):
        old.execute(f"INSERT INTO main.{table} SELECT * FROM now.{table}")
    old.execute("DETACH now")
    old.execute(f"PRAGMA application_id={APPLICATION_ID}")
    old.execute("PRAGMA user_version=1")
    old.execute("PRAGMA journal_mode=WAL")
    old.close()
    path.with_name("old").replace(path)
    path.chmod(0o600)


def test_a_file_of_version_1_is_brought_up_to_date_and_its_runs_go_on(path: Path) -> None:  # J-73
    run_id = filled(path)
    as_version_1(path)
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        assert journal.verify() == []
        [lease] = journal.claim_unfinished("a", "w")
        assert lease.run_id == run_id
        assert begin(journal, lease, "7") == Replay(recorded={"n": 7, "text": "y" * 200})
        lease.note("events are new")
        assert journal.submit("a", "urgent", priority=9).priority == 9
        assert [lease.run.priority for lease in journal.claim_unfinished("a", "w")] == [9]
    assert name_of(told[0]) == "journal.migrated"
    with quick(path, sink=told.append):
        pass
    assert [name_of(event) for event in told].count("journal.migrated") == 1


def test_a_migration_that_is_killed_is_done_again(path: Path) -> None:  # J-73, J-90
    run_id = filled(path)
    for point in ("migrate.before", "migrate.after"):
        as_version_1(path)
        code = "import sys; from tests.support.journal import quick; quick(sys.argv[1])"
        child = python(code, str(path), env={"MLLD_CRASH_AT": point})
        child.communicate(timeout=60)
        assert child.returncode == -9
        with quick(path) as journal:
            assert journal.verify() == []
            assert len(journal.steps(run_id)) == 30


def test_a_backup_made_while_many_write_is_whole(path: Path) -> None:  # J-72
    with quick(path) as journal:
        leases = [journal.claim(journal.submit("a", n).id, "w") for n in range(4)]
        stop = threading.Event()
        done = [0] * 4

        def write(n: int) -> None:
            while not stop.is_set() and done[n] < 5000:
                act(journal, leases[n], str(done[n] + 1), "x" * 300)
                done[n] += 1

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: min(done) > 20)
        at_least = list(done)
        journal.backup(path.with_name("copy.db"))
        stop.set()
        for thread in threads:
            thread.join()
        with pytest.raises(Exception, match="journal itself"):
            journal.backup(path)
    with quick(path.with_name("copy.db")) as copy:
        assert copy.verify() == []
        for lease, least in zip(leases, at_least, strict=True):
            kept = [step for step in copy.steps(lease.run_id) if step.state == "finished"]
            assert [step.position for step in kept] == [str(n) for n in range(1, len(kept) + 1)]
            assert len(kept) >= least
        [*again] = copy.claim_unfinished("a", "w")
        assert len(again) == 4  # a copy knows nothing of the owners' processes
    assert not path.with_name("copy.db.partial").exists()


def everything(journal: Journal) -> list[object]:
    """Read all there is."""
    runs = journal.runs(limit=1000)
    return [
        runs,
        [journal.input(run.id) for run in runs],
        [journal.outcome(run.id) for run in runs],
        [journal.steps(run.id) for run in runs],
        [[(event.n, event.name) for event in journal.events(run_id=run.id)] for run in runs],
    ]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[object]]:
    """Give the bytes of a sound file, and all that can be read from it."""
    path = tmp_path_factory.mktemp("sound") / "journal.db"
    filled(path)
    with quick(path) as journal:
        good = everything(journal)
    return path.read_bytes(), good


def flips(size: int, seed: int) -> Iterator[tuple[int, int]]:
    chance = random.Random(seed)
    for _ in range(4):
        yield chance.randrange(size), 1 << chance.randrange(8)


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bits_are_never_read_as_something_else(
    path: Path, sound: tuple[bytes, list[object]], seed: int
) -> None:  # J-67, J-74
    whole, good = sound
    data = bytearray(whole)
    for at, bit in flips(len(data), seed):
        data[at] ^= bit
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        with quick(path, limits=QUICK) as journal:
            try:
                read = everything(journal)
            except (e.JournalError, e.RunNotFound):
                assert journal.verify() != []
                return
            assert read == good or journal.verify() != [], "damage was neither refused nor found"
    except (e.JournalError, e.NotAJournal, e.JournalTooNew):
        return  # refused at the door


def test_a_damaged_name_that_is_no_text_any_more_is_named_like_other_damage(path: Path) -> None:  # J-63, J-67
    filled(path)
    whole = path.read_bytes()
    begin_of_table = whole.index(b"CREATE TABLE runs")
    refused = 0
    for at in range(begin_of_table, begin_of_table + 40):
        data = bytearray(whole)
        data[at] ^= 0x80
        path.write_bytes(data)
        try:
            with quick(path, limits=QUICK) as journal:
                everything(journal)
        except e.JournalError:
            refused += 1
    assert refused


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_an_error_not_an_empty_journal(path: Path, keep: float) -> None:  # J-67
    run_id = filled(path, steps=300)
    size = path.stat().st_size
    os.truncate(path, int(size * keep))
    try:
        journal = quick(path, limits=QUICK)
    except (e.JournalError, e.NotAJournal):
        return
    with journal:
        assert journal.verify() != []
        with contextlib.suppress(e.JournalError):
            assert len(journal.steps(run_id)) == 300, "steps are missing in silence"


def test_a_file_cut_while_open_refuses_further_writes(path: Path) -> None:  # J-65, J-67
    filled(path, steps=300)
    told: list[Event] = []
    with quick(path, sink=told.append, limits=QUICK) as journal:
        [lease] = journal.claim_unfinished("a", "w")
        os.truncate(path, 8192)

        def work() -> None:
            for n in range(1, 2000):
                if isinstance(begin(journal, lease, str(n)), Fresh):
                    lease.finish_step(str(n), "x" * 2000)

        with pytest.raises(e.JournalError) as caught:
            work()
        assert caught.value.code in ("JOURNAL_CORRUPT", "JOURNAL_UNREADABLE")


def test_a_record_damaged_in_place_is_refused_alone_and_the_rest_goes_on(path: Path) -> None:  # J-67
    run_id = filled(path)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("UPDATE steps SET body=substr(body, 1, 50) WHERE run=? AND position='5'", (run_id,))
    raw.execute("UPDATE runs SET state='parked' WHERE kind='a' AND state='finished'")
    raw.close()
    with quick(path) as journal:
        [lease] = journal.claim_unfinished("a", "w")
        assert isinstance(begin(journal, lease, "4"), Replay)
        for _ in range(2):  # asked again it is not taken for a step that was never begun
            with pytest.raises(e.JournalCorrupt, match=f"step 5 of run {run_id}"):
                begin(journal, lease, "5")
        assert isinstance(begin(journal, lease, "6"), Replay)
        with pytest.raises(e.JournalCorrupt, match="disagrees"):
            journal.dead_letters()
        problems = {problem.where for problem in journal.verify()}
        assert f"step 5 of run {run_id}" in problems
        assert len(problems) == 2


class Torn:
    """A connection on which one statement fails, after the rows that it gives."""

    def __init__(self, connection: sqlite3.Connection, statement: str, *rows: object) -> None:
        self.connection, self.statement, self.rows = connection, statement, rows

    def __getattr__(self, name: str) -> object:
        return getattr(self.connection, name)

    def execute(self, sql: str, *values: object) -> Iterator[object]:
        return self.fail(sql) if sql.startswith(self.statement) else self.connection.execute(sql, *values)

    def fail(self, sql: str) -> Iterator[object]:
        yield from self.rows or self.connection.execute(sql)
        raise sqlite3.DatabaseError("torn")


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("PRAGMA integrity_check", [("page 7 is bad",)]),
        ("SELECT id, kind", []),
        ("SELECT run, position", []),
        ("SELECT run, body FROM inputs", []),
        ("SELECT run, body FROM events", []),
        ("SELECT run FROM inputs", []),
        ("SELECT id FROM runs WHERE state IN", []),
    ],
)
def test_verifying_loses_no_finding_when_a_look_fails(path: Path, statement: str, rows: list[object]) -> None:  # J-74
    run_id = filled(path)
    raw = sqlite3.connect(path, isolation_level=None)
    for table, which in (("runs", "id"), ("steps", "position='5' AND run"), ("inputs", "run"), ("events", "run")):
        raw.execute(f"UPDATE {table} SET body=substr(body, 1, 50) WHERE {which}=?", (run_id,))
    raw.execute("INSERT INTO inputs SELECT 'ghost', body FROM inputs WHERE run=?", (run_id,))
    raw.execute("DELETE FROM outcomes")
    damage = audit(raw)
    assert len({(problem.where, problem.what) for problem in damage}) == len(damage) == 7
    found = audit(Torn(raw, statement, *rows))  # type: ignore[arg-type]
    assert set(damage) < set(found)
    assert "torn" in {problem.what for problem in found}
    assert {what for (what,) in rows} <= {problem.what for problem in found}  # type: ignore[misc]
    raw.close()


def test_a_rollback_that_fails_hides_neither_what_was_read_nor_why_it_was_not(path: Path) -> None:  # J-63
    filled(path)

    class CannotRollBack(Torn):
        def fail(self, sql: str) -> Iterator[object]:
            raise sqlite3.OperationalError("cannot roll back")

    def lost(tx: Tx) -> int:
        raise e.RunNotFound("x")

    def broken(tx: Tx) -> int:
        raise sqlite3.OperationalError("the first error")

    def over(tx: Tx) -> int:  # SQLite ends a transaction by itself with some errors
        tx.connection.connection.execute("ROLLBACK")  # type: ignore[attr-defined]
        raise sqlite3.OperationalError("the first error")

    with quick(path, limits=QUICK) as journal:
        store = journal._store
        assert isinstance(store, SqliteStore)

        def cannot_roll_back() -> None:
            assert len(journal.runs()) == 2  # on a new connection
            [reader] = store._idle
            reader.connection = CannotRollBack(reader.connection, "ROLLBACK")  # type: ignore[assignment]

        for _ in range(5):
            for work, said in ((lost, "no run x"), (broken, "the first error"), (over, "the first error")):
                cannot_roll_back()
                with pytest.raises((e.JournalError, e.RunNotFound), match=said):
                    store.read(work)
            cannot_roll_back()
            assert store.read(lambda tx: len(tx.runs())) == 2


def test_a_damaged_run_is_set_aside_and_does_not_stand_in_the_way(path: Path) -> None:  # J-68
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        ids = [journal.submit("a", n).id for n in range(3)]
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("UPDATE runs SET body=substr(body, 1, 50) WHERE id=?", (ids[0],))
        raw.close()
        assert [lease.run_id for lease in journal.claim_unfinished("a", "w", limit=3)] == ids[1:]
        assert journal.claim_unfinished("a", "w") == []
        with pytest.raises(e.JournalCorrupt, match="set aside"):
            journal.run(ids[0])
        assert journal.status().runs == {"damaged": 1, "running": 2}
        assert [problem.where for problem in journal.verify()] == [f"run {ids[0]}"]
    assert [name_of(event) for event in told].count("run.damaged") == 1


def test_the_outcome_of_a_run_that_has_ended_is_never_taken_for_one_that_is_still_to_come(path: Path) -> None:  # J-67
    filled(path)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("UPDATE outcomes SET run='somebody else'")
    raw.close()
    with quick(path) as journal:
        [ended] = [run.id for run in journal.runs() if run.state == "finished"]
        with pytest.raises(e.JournalCorrupt, match=f"outcome of run {ended}"):
            journal.outcome(ended)
        with pytest.raises(e.JournalCorrupt):
            journal.wait(ended, 60.0)
        assert journal.verify() != []


def test_a_step_of_another_run_or_position_is_never_taken_for_the_one_asked_for(path: Path) -> None:  # J-67
    filled(path)
    with quick(path) as journal:
        [lease] = journal.claim_unfinished("a", "w")
        lease.release()
        [other] = [run.id for run in journal.runs() if run.state == "finished"]
        raw = sqlite3.connect(path, isolation_level=None)
        swap = "UPDATE steps SET body=(SELECT body FROM steps WHERE run=? AND position='1') WHERE run=? AND position=?"
        raw.execute(swap, (lease.run_id, lease.run_id, "2"))
        raw.execute(swap, (other, lease.run_id, "1"))
        raw.close()
        [lease] = journal.claim_unfinished("a", "w")
        for position in ("1", "2", "1"):
            with pytest.raises(e.JournalCorrupt, match="disagrees"):
                lease.begin_step(position, "step", journal.fingerprint("step", "1"))
        assert isinstance(begin(journal, lease, "3"), Replay)


def test_a_record_of_a_newer_version_is_refused_as_unknown(path: Path) -> None:  # J-67
    from zlib import crc32

    run_id = filled(path)
    raw = sqlite3.connect(path, isolation_level=None)
    [body] = raw.execute("SELECT body FROM inputs WHERE run=?", (run_id,)).fetchone()
    newer = body[:1] + b"\x63" + body[2:-4]
    raw.execute("UPDATE inputs SET body=? WHERE run=?", (newer + crc32(newer).to_bytes(4, "little"), run_id))
    raw.close()
    with quick(path) as journal:
        with pytest.raises(e.RecordUnknown, match="version 99"):
            journal.input(run_id)
        assert len(journal.verify()) == 1


def test_writers_beyond_the_queue_wait_and_are_refused_when_their_time_is_up(path: Path) -> None:  # J-61
    limits = JournalLimits(queued_writes=4, write_timeout=0.4)
    with quick(path, limits=limits) as journal:
        gate, entered = threading.Event(), threading.Event()

        def block(tx: object) -> None:
            entered.set()
            gate.wait(60)

        blocker = threading.Thread(target=lambda: journal._store.write(journal.session, block, 90))
        blocker.start()
        assert entered.wait(60)
        outcomes: list[str] = []

        def submit(n: int) -> None:
            try:
                outcomes.append(journal.submit("a", n, key=str(n)).state)
            except e.JournalError as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=submit, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(outcomes) <= {"JOURNAL_BUSY", "JOURNAL_LOCKED"}
        gate.set()
        blocker.join()
        assert journal.runs() == []  # what was refused was not written afterwards
        assert journal.submit("a", "now").state == "pending"


def test_writes_that_wait_together_are_committed_together(path: Path) -> None:  # J-61
    with quick(path) as journal:
        gate, entered = threading.Event(), threading.Event()

        def block(tx: object) -> None:
            entered.set()
            gate.wait(60)

        works = [lambda: journal._store.write(journal.session, block, 90)]
        works += [lambda n=n: journal.submit("a", n) for n in range(50)]
        threads = [threading.Thread(target=work) for work in works]
        threads[0].start()
        assert entered.wait(60)
        before = journal.status().store.commits
        for thread in threads[1:]:
            thread.start()
        eventually(lambda: journal.status().store.queued == 50)
        gate.set()
        for thread in threads:
            thread.join()
        assert len(journal.runs()) == 50
        assert journal.status().store.commits - before == 1  # what was asked for before a commit came along with it


def test_a_step_of_a_lost_lease_does_not_take_the_steps_beside_it_along(path: Path) -> None:  # J-32, J-64
    told: list[Event] = []
    with quick(path, sink=told.append) as journal:
        leases = [journal.claim(journal.submit("a", n).id, "w") for n in range(8)]
        for lease in leases:
            begin(journal, lease, "1")
        gate, entered = threading.Event(), threading.Event()

        def cancel(tx: Tx) -> None:
            writes.cancel(tx, leases[3].run_id, "from elsewhere", 0.0)  # its lease is not told
            entered.set()
            gate.wait(60)

        blocker = threading.Thread(target=journal._store.write, args=(journal.session, cancel, 90))
        blocker.start()
        assert entered.wait(60)
        results: dict[int, object] = {}

        def finish(n: int) -> None:
            try:
                results[n] = leases[n].finish_step("1", n)
            except e.JournalError as error:
                results[n] = type(error)

        threads = [threading.Thread(target=finish, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: journal.status().store.queued >= 8)  # all are written in one go
        before = journal.status().store.commits
        gate.set()
        for thread in (blocker, *threads):
            thread.join()
        assert journal.status().store.commits - before == 1
        assert results == {n: e.LeaseLost if n == 3 else n for n in range(8)}
        states = [journal.steps(lease.run_id)[0].state for lease in leases]
        assert states == ["interrupted" if n == 3 else "finished" for n in range(8)]
    finished = [event.run_id for event in told if isinstance(event, StepFinished)]
    assert sorted(finished) == sorted(lease.run_id for lease in leases if lease is not leases[3])


def test_a_commit_that_does_not_come_back_in_time_is_uncertain(path: Path) -> None:  # J-61
    with quick(path) as journal:
        gate = threading.Event()
        entered = threading.Event()

        def slow(tx: object) -> None:
            entered.set()
            gate.wait(60)

        with pytest.raises(e.JournalUncertain, match="may be written or not"):
            journal._store.write(journal.session, slow, 1.0)
        assert entered.is_set()
        gate.set()
        assert eventually(lambda: journal.submit("a").state) == "pending"


def test_a_mistake_in_one_write_is_its_callers_alone(path: Path) -> None:  # J-64
    with quick(path) as journal:

        def broken(tx: object) -> None:
            raise ZeroDivisionError("a bug")

        def half_done(tx: object) -> None:
            tx.drop_run("x")  # type: ignore[attr-defined]
            tx._execute("INSERT INTO inputs VALUES ('orphan', x'00')")  # type: ignore[attr-defined]
            raise ZeroDivisionError("a bug after a write")

        for bug in (broken, half_done):
            with pytest.raises(ZeroDivisionError):
                journal._store.write(journal.session, bug, 5)  # type: ignore[arg-type]
        assert journal.submit("a").state == "pending"
        assert journal.verify() == []
        assert journal.status().store.degraded is None


def test_old_runs_go_by_themselves(path: Path) -> None:  # J-70
    from mlld_sdk.journal import Retention

    with quick(path) as journal:
        for n in range(8):
            journal.claim(journal.submit("a", n).id, "w").finish_run()
    with quick(path, retention=Retention(keep_last=3)) as journal:
        eventually(lambda: len(journal.runs()) == 3)
    with quick(path, retention=Retention(keep_last=3)) as journal:
        assert len(journal.runs()) == 3


def test_only_its_owner_may_read_the_file(path: Path) -> None:  # J-76
    filled(path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.with_name("journal.db-sessions").stat().st_mode & 0o077 == 0
