"""Options of the same name take values of different classes, and each is refused where it does not belong."""

from collections.abc import Callable
from typing import Any

import pytest

from mlld_sdk import Client, ConfigurationError, Runtime, one_for_one
from mlld_sdk.engines import EngineLimits
from mlld_sdk.journal import Journal, JournalLimits


def runtime(**options: Any) -> Runtime:
    return Runtime(one_for_one(), **options)


def test_limits_of_engines_and_of_journals_are_accepted_where_their_names_say() -> None:
    assert EngineLimits is not JournalLimits
    with Client(engine="embedded", limits=EngineLimits()) as client:
        assert client.process("show `x`").strip() == "x"
    with Journal.open(limits=JournalLimits()) as journal:
        assert journal.submit("agent").state == "pending"
    with runtime(limits=JournalLimits()) as running:
        assert running.verdict().word == "healthy"


@pytest.mark.parametrize("take", [Client, runtime, Journal.open])
def test_limits_of_something_else_are_refused_at_once_by_name(take: Callable[..., object]) -> None:
    wrong, right = (JournalLimits(), "EngineLimits") if take is Client else (EngineLimits(), "JournalLimits")
    with pytest.raises(ConfigurationError, match=rf"limits must be None or .*{right}"):
        take(limits=wrong)


@pytest.mark.parametrize("take", [runtime, Journal.open])
@pytest.mark.parametrize("option", ["retention", "values"])
def test_what_a_journal_is_opened_with_is_checked_at_once(take: Callable[..., object], option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be"):
        take(**{option: 10_000})
