"""Looking at a whole file: is every page sound, every record readable, nothing left over or missing."""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from mlld_sdk.journal.errors import JournalCorrupt
from mlld_sdk.journal.records import EventRecord, InputRecord, OutcomeRecord, RunRecord, unpack
from mlld_sdk.journal.rows import RUN_COLUMNS, columns_of, read_row, read_step
from mlld_sdk.journal.store import Problem

_LIMIT: Final = 1000
"""Problems listed at most; a file with more needs a backup, not a list."""

_LEFTOVERS: Final = {
    "an input without a run": "SELECT run FROM inputs WHERE run NOT IN (SELECT id FROM runs)",
    "an outcome without a run": "SELECT run FROM outcomes WHERE run NOT IN (SELECT id FROM runs)",
    "steps without a run": "SELECT DISTINCT run FROM steps WHERE run NOT IN (SELECT id FROM runs)",
    "events without a run": "SELECT DISTINCT run FROM events WHERE run<>'' AND run NOT IN (SELECT id FROM runs)",
    "a run without its input": "SELECT id FROM runs WHERE id NOT IN (SELECT run FROM inputs)",
    "a run that ended without an outcome": (
        "SELECT id FROM runs WHERE state IN ('finished', 'failed', 'cancelled') "
        "AND id NOT IN (SELECT run FROM outcomes)"
    ),
}

_RECORDS: Final[dict[str, type[InputRecord | OutcomeRecord | EventRecord]]] = {
    "inputs": InputRecord,
    "outcomes": OutcomeRecord,
    "events": EventRecord,
}


def audit(connection: sqlite3.Connection) -> list[Problem]:
    """List everything that is damaged, a thousand problems at most."""
    problems: list[Problem] = []
    looks: dict[str, Callable[[sqlite3.Connection], Iterator[Problem]]] = {
        "pages": _pages,
        "runs": _runs,
        "steps": _steps,
        **{table: partial(_records, table) for table in _RECORDS},
        **{f"looking for {what}": partial(_leftovers, what) for what in _LEFTOVERS},
    }
    for where, look in looks.items():
        try:
            problems += look(connection)  # one by one: what is found before an error is kept
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            problems.append(Problem(where=where, what=str(error)))
    return problems[:_LIMIT]


def _pages(connection: sqlite3.Connection) -> Iterator[Problem]:
    for (what,) in connection.execute(f"PRAGMA integrity_check({_LIMIT})"):
        if what != "ok":
            yield Problem(where="file", what=what)


def _runs(connection: sqlite3.Connection) -> Iterator[Problem]:
    for *columns, due, body in connection.execute(f"SELECT {RUN_COLUMNS}, body FROM runs"):  # noqa: S608 - fixed names
        where = f"run {columns[0]}"
        try:
            run = unpack(RunRecord, body, where)
        except JournalCorrupt as error:
            yield Problem(where=where, what=error.message)
            continue
        if columns_of(run)[:-1] != tuple(columns) or due not in (run.due, run.queued):  # an older version had no `due`
            yield Problem(where=where, what="the record and its row disagree")
        if (run.state == "running") != (run.owner is not None):
            yield Problem(where=where, what=f"it is {run.state} {'with' if run.owner else 'without'} an owner")


def _steps(connection: sqlite3.Connection) -> Iterator[Problem]:
    for run_id, *row in connection.execute("SELECT run, position, state, body FROM steps"):
        where = f"step {row[0]} of run {run_id}"
        try:
            step = read_step(run_id, row)
        except JournalCorrupt as error:
            yield Problem(where=where, what=error.message)
            continue
        if (step.state == "finished") != (step.result is not msgspec.UNSET):
            yield Problem(where=where, what=f"it is {step.state} with or without a result against the rules")


def _records(table: str, connection: sqlite3.Connection) -> Iterator[Problem]:
    for run_id, body in connection.execute(f"SELECT run, body FROM {table}"):  # noqa: S608 - fixed names
        where = f"{table[:-1]} of run {run_id}" if run_id else "an event of the common stream"
        try:
            read_row(_RECORDS[table], body, where, run_id=run_id)
        except JournalCorrupt as error:
            yield Problem(where=where, what=error.message)


def _leftovers(what: str, connection: sqlite3.Connection) -> Iterator[Problem]:
    for (run_id,) in connection.execute(f"{_LEFTOVERS[what]} LIMIT {_LIMIT}"):
        yield Problem(where=f"run {run_id}", what=what)
