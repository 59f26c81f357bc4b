"""Errors, as programs catch them."""

import copy
import inspect
import pickle
from typing import Any

import pytest

from mlld_sdk import errors
from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.exits import Other
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.journal import ErrorRecord


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
    error = kind("nothing came within 2 s")
    error.hint = "wait longer"
    assert isinstance(error, TimeoutError)
    assert isinstance(error, errors.InfrastructureError)
    for same in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (same.message, same.code, same.hint) == ("nothing came within 2 s", kind.code, error.hint)
        assert str(same) == f"nothing came within 2 s ({error.hint})"
        assert same.errno is None


class Sample(Actor):
    """An actor that errors are about."""


def made(kind: type[BaseException], ref: object) -> BaseException:
    """Make an error with something fitting for every argument."""
    fitting = {
        "holder": ref,
        "reason": Other(lambda: 1),
        "record": ErrorRecord(code="X", message="it failed"),
        "error": ErrorRecord(code="X", message="it failed"),
        "unanswered": {"message": "m"},
    }
    numbers = ("retry_after", "at", "deaths", "limit", "timeout")
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            given[name] = fitting.get(name, 3 if name in numbers else name)
    return kind(**given)


def test_every_error_can_be_copied_and_sent_to_another_process() -> None:
    named = (getattr(errors, name) for name in errors.__all__)
    kinds = [one for one in named if isinstance(one, type) and issubclass(one, errors.MlldError)]
    assert len(kinds) > 80
    with ActorSystem("errors") as system:
        ref = system.start(Sample)
        for kind in kinds:
            error = made(kind, ref)
            for same in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
                assert type(same) is kind
                assert (str(same), same.code, same.hint) == (str(error), error.code, error.hint)
                assert vars(same).keys() == vars(error).keys()


def test_what_cannot_be_sent_to_another_process_goes_as_its_text() -> None:
    with ActorSystem("errors") as system:
        ref = system.start(Sample)
        sent = pickle.loads(pickle.dumps(errors.AlreadyStarted("sample", ref)))
        assert sent.holder == repr(ref)
        assert copy.deepcopy(errors.AlreadyStarted("sample", ref)).holder is ref
        crashed = pickle.loads(pickle.dumps(errors.ActorDead("gone", reason=Other(system))))
        assert str(crashed.reason) == repr(system)
