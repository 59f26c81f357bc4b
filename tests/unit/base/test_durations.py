"""Durations are read in one way, and deadlines counted down in one."""

import math
import threading
from datetime import timedelta
from typing import Any

import pytest

from mlld_sdk.base.durations import DEFAULT, FOREVER, LONGEST_WAIT, Deadline, now, seconds
from mlld_sdk.base.errors import ConfigurationError, InvalidOption


def test_seconds_and_timedeltas_are_durations_and_none_is_none() -> None:
    assert (seconds(2), seconds(1.5), seconds(timedelta(milliseconds=1500)), seconds(None)) == (2.0, 1.5, 1.5, None)
    assert seconds(10**400) == seconds(math.inf) == FOREVER
    assert repr(DEFAULT) == "DEFAULT"


@pytest.mark.parametrize(
    ("wrong", "limits"),
    [
        (-1, {}),
        (-(10**400), {}),
        (math.nan, {}),
        ("3", {}),
        (True, {}),
        (0, {"above": 0}),
        (math.inf, {"infinite": False}),
        (10**400, {"infinite": False}),
        (timedelta(seconds=-1), {}),
    ],
)
def test_what_is_no_duration_is_refused_by_the_name_of_its_option(wrong: Any, limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=r"^within must be seconds") as refused:
        seconds(wrong, "within", **limits)
    assert (refused.value.option, refused.value.value) == ("within", wrong) or wrong != wrong
    assert isinstance(refused.value, ConfigurationError)
    assert isinstance(refused.value, ValueError)


def test_a_deadline_counts_down_to_nothing_and_never_beyond_what_a_lock_can_wait() -> None:
    before = now()
    soon = Deadline(timedelta(seconds=60))
    assert before + 60 <= soon.at <= now() + 60
    assert 59 < soon.left <= 60
    assert not soon.is_over
    for over in (Deadline(0), Deadline(-5), Deadline(-math.inf), Deadline(-(10**400))):
        assert over.left == 0.0
        assert over.is_over
    for never in (Deadline(None), Deadline(FOREVER)):
        assert never.at == FOREVER
        assert never.left == LONGEST_WAIT
        assert threading.Lock().acquire(timeout=never.left)
