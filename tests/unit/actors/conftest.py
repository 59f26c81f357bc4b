"""A system for one test, and what happened in it."""

from collections.abc import Iterator

import pytest

from mlld_sdk.actors.core.system import ActorSystem
from tests.support.actors import Sink


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def system(sink: Sink) -> Iterator[ActorSystem]:
    with ActorSystem("test", sink=sink) as system:
        yield system
