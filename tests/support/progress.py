"""One line every few seconds that says how far the suite is and what it is doing, for `make test`.

Load it with `-p tests.support.progress`. It replaces pytest's dots, names every failure at once, and lists at the end
what was skipped and why.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

EVERY = 5.0
"""Seconds between two lines."""

NAMED = 40
"""Tests skipped for one reason are named one by one up to this number, beyond it by file."""


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that reports, not those that test
        config.pluginmanager.register(Progress(config), "progress")


class Progress:
    """Counts what is done, and writes about it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began = time.monotonic()
        self._told = self._began
        self._all = 0
        self._done: set[str] = set()
        self._failed = 0
        self._skipped: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._all = len(session.items)

    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._all = len(ids)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: Any) -> Iterator[Any]:
        category, letter, word = yield
        return (category, "", "") if isinstance(report, pytest.TestReport) else (category, letter, word)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed += 1
            self._write(f"FAILED {report.nodeid} ({report.when})")
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._skipped[reason.removeprefix("Skipped: ")].append(report.nodeid)
        if report.when == "teardown":
            self._done.add(report.nodeid)
        now = time.monotonic()
        if now - self._told >= EVERY or len(self._done) == self._all:
            self._told = now
            self._write(self._line(report.nodeid.partition("::")[0]))
            self._all = self._all if len(self._done) < self._all else 0

    def pytest_terminal_summary(self) -> None:
        for reason, tests in sorted(self._skipped.items()):
            self._write(f"skipped {len(tests)}: {reason}")
            for name in tests if len(tests) <= NAMED else sorted({test.partition("::")[0] for test in tests}):
                self._write(f"    {name}")

    def _line(self, where: str) -> str:
        done, took = len(self._done), time.monotonic() - self._began
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{done:5} of {self._all} tests, {took:3.0f} s{failed}: {where}"

    def _write(self, line: str) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        reporter.ensure_newline()
        reporter.write_line(line)
