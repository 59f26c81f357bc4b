"""Upstream's own Python suites, unmodified, over this library.

Set `MLLD_UPSTREAM_TESTS` to one or more directories that hold them (`sdk/python` of an mlld checkout, separated like
PATH). Their tests start the engine of the tree they stand in, which must have been built; with `MLLD_COMMAND` set to
`node .../cli.cjs`, suites that stand alone are linked to that engine instead.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ADAPTER = Path(__file__).parent
SUITES = [Path(place) for place in os.environ.get("MLLD_UPSTREAM_TESTS", "").split(os.pathsep) if place]

NOT_OURS = {
    "test_sign_verify_sign_content_and_fs_status_roundtrip": "needs a signature package that keeps metadata",
    "test_execute_handle_write_file_creates_signed_output_with_provenance": "needs the same",
    "test_client_transport_command_adds_wrapper_heap_args": "upstream's private way to build a command line",
    "test_client_transport_command_adds_node_heap_args": "the same",
}
"""Tests that may fail, and why; `docs/migration.md` says more."""

RUN = """
import json, sys, unittest
import mlld  # ours, before the directory of the suites comes first on the path

class Outcomes(unittest.TextTestResult):
    def startTest(self, test):
        super().startTest(test)
        told[test._testMethodName] = True
    def addError(self, test, error):
        super().addError(test, error)
        told[getattr(test, "_testMethodName", str(test))] = False
    def addFailure(self, test, error):
        super().addFailure(test, error)
        told[test._testMethodName] = False

told = {}
tests = unittest.defaultTestLoader.discover(sys.argv[1], "test_*.py")
unittest.TextTestRunner(resultclass=Outcomes).run(tests)
print(json.dumps(told))
"""


def beside_an_engine(suite: Path, scratch: Path) -> Path:
    """Give the directory to run the tests from: theirs, or a copy that is linked to the engine of MLLD_COMMAND."""
    if (suite.parents[1] / "dist" / "cli.cjs").exists():
        return suite
    scripts = [Path(word) for word in shlex.split(os.environ.get("MLLD_COMMAND", "")) if word.endswith(".cjs")]
    if not scripts:
        pytest.skip(f"{suite} stands in no built tree, and MLLD_COMMAND names no cli.cjs")
    copy = scratch / "sdk" / "python"
    shutil.copytree(suite, copy, ignore=lambda _, names: [name for name in names if not name.startswith("test_")])
    if (suite.parent / "fixtures").is_dir():
        shutil.copytree(suite.parent / "fixtures", copy.parent / "fixtures")
    (scratch / "dist").mkdir()
    (scratch / "dist" / "cli.cjs").symlink_to(scripts[0].resolve())
    return copy


@pytest.mark.real
@pytest.mark.skipif(not SUITES, reason="set MLLD_UPSTREAM_TESTS to a directory with upstream's Python tests")
@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_upstreams_own_suite_passes_but_for_what_is_named(suite: Path, tmp_path: Path) -> None:
    assert list(suite.glob("test_*.py")), f"{suite} holds no tests"
    where = beside_an_engine(suite.resolve(), tmp_path)
    ran = subprocess.run(
        [sys.executable, "-W", "default", "-c", RUN, str(where)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ADAPTER)},
        capture_output=True,
        text=True,
        timeout=55,
    )
    outcomes = json.loads(ran.stdout.strip().splitlines()[-1]) if ran.stdout else {}
    failed = sorted(name for name, passed in outcomes.items() if not passed)
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} passed; not: {', '.join(failed) or 'none'}")
    assert outcomes, ran.stderr
    assert set(failed) <= set(NOT_OURS), ran.stderr
