"""A bounded dict keeps what was set last, whichever way it was set."""

from mlld_sdk.telemetry.recent import Recent


def test_what_was_set_last_is_kept() -> None:
    kept: Recent[str, int] = Recent(2)
    kept["a"] = 1
    kept.update(b=2)
    kept.update(a=3)
    kept["c"] = 4
    assert dict(kept) == {"a": 3, "c": 4}
    assert kept.pop("a") == 3
    assert kept.get("b") is None
