"""What holds for every test: it leaves no thread and no child process behind."""

from collections.abc import Iterator

import pytest

from mlld_sdk.testing import leak_check


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    with leak_check(files=False):
        yield
