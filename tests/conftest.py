"""What holds for every test: it leaves no thread and no child process behind, and a slow machine is no failure."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mlld_sdk.testing import leak_check

# How long an example takes, or making one up, depends on what else the machine does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    with leak_check(files=False):
        yield


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a short name, because control sockets lie in it and their paths may have a hundred letters."""
    return tmp_path_factory.mktemp("t")
