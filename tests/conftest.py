"""What holds for every test: it leaves no thread and no child process behind, and a slow machine is no failure."""

from collections.abc import Iterator

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
