"""Runs found by their idempotency key."""

from pathlib import Path

from mlld_sdk.journal import Journal
from mlld_sdk.journal.rows import _RUNS_BY_KEY


def test_finding_a_key_searches_the_index_and_scans_nothing(tmp_path: Path) -> None:  # J-8
    with Journal.open(tmp_path / "state.db", durability="normal") as journal:
        for n in range(50):
            journal.submit(f"root/a{n}", key=f"k{n}")
            journal.submit(f"root/a{n}")

        def plans(tx: object) -> list[str]:
            execute = tx.connection.execute  # type: ignore[attr-defined]
            one = execute("EXPLAIN QUERY PLAN SELECT body FROM runs WHERE kind=? AND key=?", ("k", "x")).fetchall()
            return [row[3] for row in (*one, *execute(f"EXPLAIN QUERY PLAN {_RUNS_BY_KEY}", ("x", 10)))]

        steps = [step for step in journal._core.read(plans) if "runs" in step]
        assert all("USING INDEX runs_by_key" in step or "COVERING INDEX runs_by_key" in step for step in steps), steps
        assert all(step.startswith("SEARCH") for step in steps), steps
        assert [run.kind for run in journal.find_all("k7")] == ["root/a7"]
        assert journal.find_all("k50") == []
