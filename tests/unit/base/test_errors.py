"""Errors, as programs catch them."""

import copy
import pickle

import pytest

from mlld_sdk import errors


@pytest.mark.parametrize(
    "name",
    [
        "AskTimeout",
        "CallTimeout",
        "EngineQuotaExhausted",
        "LockTimeout",
        "NoEngineFree",
        "StartTimeout",
        "TaskTimeout",
        "WaitTimeout",
    ],
)
def test_what_was_waited_for_in_vain_is_a_timeout_error_of_python(name: str) -> None:
    kind = getattr(errors, name)
    error = (
        kind("nothing came within 2 s", hint="wait longer") if name != "AskTimeout" else kind("nothing came within 2 s")
    )
    assert isinstance(error, TimeoutError)
    assert isinstance(error, errors.InfrastructureError)
    for same in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (same.message, same.code, same.hint) == ("nothing came within 2 s", kind.code, error.hint)
        assert str(same) == f"nothing came within 2 s ({error.hint})"
        assert same.errno is None
