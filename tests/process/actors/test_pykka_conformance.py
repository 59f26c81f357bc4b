"""Pykka's own test-suite, with `PykkaActor` and our `Future` as the runtime.

Set `PYKKA_TESTS` to the folder `tests` of Pykka's source distribution (4.5):
`pip download --no-binary :all: --no-deps pykka==4.5.0`, then unpack it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

OUR_RUNTIME = """

from mlld_sdk.actors.core.actor import PykkaActor as _OurActor
from mlld_sdk.actors.core.future import Future as _OurFuture

_ours = Runtime(
    name="mlld", actor_class=_OurActor, event_class=threading.Event, future_class=_OurFuture, sleep_func=time.sleep
)


@pytest.fixture(scope="session", params=[_ours], ids=["mlld"])
def runtime(request):
    return request.param
"""

OUR_MOCKER = '''

class _Mocker:
    """As much of pytest-mock as Pykka's tests use, for environments without it."""

    from unittest.mock import MagicMock, Mock, NonCallableMock

    def __init__(self):
        from types import SimpleNamespace

        self._undo = []
        self.patch = SimpleNamespace(object=self._patch_object)

    def _patch_object(self, *args, **kwargs):
        from unittest import mock

        patcher = mock.patch.object(*args, **kwargs)
        self._undo.append(patcher.stop)
        return patcher.start()


@pytest.fixture
def mocker():
    mocker = _Mocker()
    yield mocker
    for undo in mocker._undo:
        undo()
'''


def test_pykkas_own_suite_passes_with_our_actors(tmp_path: Path) -> None:
    where = os.environ.get("PYKKA_TESTS")
    if not where:
        pytest.skip("set PYKKA_TESTS to the folder `tests` of Pykka's source distribution")
    shutil.copytree(where, tmp_path / "tests")
    conftest = tmp_path / "tests" / "conftest.py"
    conftest.write_text(conftest.read_text() + OUR_RUNTIME + OUR_MOCKER)
    stub = tmp_path / "pytest_mock"
    stub.mkdir()
    (stub / "__init__.py").write_text("class MockerFixture: ...\n")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "tests", "-q", "-p", "no:cacheprovider", "--timeout", "50"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4_000:] + result.stderr[-2_000:]
    assert " passed" in result.stdout
