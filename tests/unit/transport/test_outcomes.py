"""Which error a call ends with."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InfrastructureError, MlldError, TaskError
from mlld_sdk.base.events import discard
from mlld_sdk.transport import errors, outcomes
from mlld_sdk.transport.child import mark_of_directory
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.exits import EngineExit, decode_exit
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.memory import KillCount
from mlld_sdk.transport.processes import Mark


def call(**more: Any) -> Any:
    facts = {"method": "execute", "given_up": None, "has_engine_timeout": False, "deadline": 12.0, "submitted": 10.0}
    return SimpleNamespace(**(facts | more))


ABORTED = "StreamExecution aborted"


@pytest.mark.parametrize(
    ("said", "trusted", "limited", "kind", "code"),
    [
        ({"code": "PARSE_ERROR", "message": "x"}, False, False, errors.ScriptError, "PARSE_ERROR"),
        ({"code": "RUNTIME_ERROR", "message": ABORTED}, False, False, errors.EngineAborted, "ABORTED"),
        ({"code": "ABORTED", "message": ABORTED}, False, False, errors.EngineAborted, "ABORTED"),
        ({"code": "RUNTIME_ERROR", "message": ABORTED}, False, True, errors.CallTimeout, "TIMEOUT"),
        ({"code": "ABORTED", "message": "no @abort_me"}, False, False, errors.ScriptError, "RUNTIME_ERROR"),
        ({"code": "TIMEOUT", "message": "no @timeout_x"}, False, False, errors.ScriptError, "RUNTIME_ERROR"),
        ({"code": "ABORTED", "message": "shutting down"}, True, False, errors.EngineAborted, "ABORTED"),
        ({"code": "TIMEOUT", "message": "too slow"}, True, True, errors.CallTimeout, "TIMEOUT"),
        ({}, False, False, errors.ScriptError, "RUNTIME_ERROR"),
        ({"code": 5, "message": ["x"]}, False, False, errors.ScriptError, "5"),
    ],
)
def test_codes_are_normalised(said: Any, trusted: bool, limited: bool, kind: type, code: str) -> None:  # T-20
    error = outcomes.reported(said, call(has_engine_timeout=limited), trusted=trusted)
    assert type(error) is kind
    assert error.code == code


def test_what_the_engine_said_is_the_cause_of_what_this_side_decided() -> None:  # T-20
    error = outcomes.given_up(call(given_up="timeout"), {"code": "RUNTIME_ERROR", "message": ABORTED})
    assert isinstance(error, errors.CallTimeout)
    assert "2 s" in error.message
    assert isinstance(error.__cause__, errors.ScriptError)
    assert outcomes.given_up(call(given_up="cancelled")).code == "ABORTED"


def ended(why: str, *, how: EngineExit | None = None, lived: float = 0.5, stderr: str = "", **facts: Any) -> MlldError:
    clock = iter([100.0, 100.0 + lived])
    env = Env(now=lambda: next(clock))
    core = EngineCore(cast("Any", None), "live-1", EngineLimits(), cast("Any", None), env, discard, exclusive=False)
    core.heard, core.ending = True, why
    core.stderr.feed(stderr.encode())
    for name, value in facts.items():
        setattr(core, name, value)
    core.note_exit(how or EngineExit(1))
    return outcomes.ended(core, call())


def test_the_end_of_an_engine_is_told_by_its_cause() -> None:  # T-25
    assert type(ended("closed")) is errors.EngineClosed
    assert type(ended("cancelled")) is errors.EngineClosed
    assert type(ended("killed", fatal="a line of more than 5 bytes")) is errors.EngineBabbling
    assert type(ended("died")) is errors.EngineDied
    assert type(ended("died", heard=False)) is errors.EngineDiedAtStart
    early = ended("died", heard=False, stderr="no module\n")
    said = "live-1 exited with status 1, 0.5 s after its start, during execute and before it said anything: no module"
    assert early.message == said
    late = ended("died", heard=False, lived=3.04, how=EngineExit(None, signal.SIGKILL))
    assert type(late) is errors.EngineDied
    assert late.message == "live-1 was ended by SIGKILL during execute, 3.0 s after its start, with no answer given yet"
    memory = ended("died", how=EngineExit(None, signal.SIGKILL, out_of_memory=True), stderr="a\nlast\n")
    assert memory.message == "live-1 was ended by SIGKILL (out of memory?) during execute: last"
    assert memory.returncode == -9
    assert memory.hint is not None
    assert "memory" in memory.hint


@pytest.mark.parametrize(
    ("status", "expected", "wrapped", "tail", "exit_"),
    [
        (0, True, False, "", EngineExit(0, expected=True)),
        (0, False, True, "", EngineExit(0, doubtful=True)),
        (0, True, True, "", EngineExit(0, expected=True)),
        (-9, False, False, "", EngineExit(None, 9)),
        (-9, True, False, "", EngineExit(None, 9, expected=True)),
        (137, False, False, "", EngineExit(137)),
        (-6, False, False, "JavaScript heap out of memory", EngineExit(None, 6, out_of_memory=True)),
        (134, False, False, "Allocation failed", EngineExit(134, out_of_memory=True)),
        (-6, False, False, "assert", EngineExit(None, 6)),
        (None, False, False, "", EngineExit(None)),
    ],
)
def test_an_exit_is_decoded(status: Any, expected: bool, wrapped: bool, tail: str, exit_: EngineExit) -> None:  # T-25
    found = decode_exit(status, expected=expected, wrapped=wrapped, stderr_tail=tail, kernel_killed=lambda: False)
    assert found == exit_
    assert str(exit_)


@pytest.mark.parametrize(("status", "expected", "memory"), [(-9, False, True), (137, False, True), (-9, True, False)])
def test_a_kill_by_somebody_is_memory_only_if_the_kernel_says_that_it_killed(
    status: int, expected: bool, memory: bool
) -> None:  # T-25
    found = decode_exit(status, expected=expected, wrapped=False, stderr_tail="", kernel_killed=lambda: True)
    assert found.out_of_memory is memory
    assert ("out of memory?" in str(found)) is memory


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/service\n", "service/memory.events"),
        ("0::/\n", "memory.events"),
        ("5:cpu:/\n4:memory:/service\n0::/\n", "memory/service/memory.oom_control"),
        ("4:memory,hugetlb:/as/seen/outside\n", "memory/memory.oom_control"),
        ("0::/\n", None),
    ],
)
def test_the_kernels_count_of_kills_is_read_where_it_is_kept(tmp_path: Path, groups: str, file: str | None) -> None:
    (tmp_path / "groups").write_text(groups)  # T-25
    machine = tmp_path / "vmstat"
    machine.write_text("pgfault 7\noom_kill 3\n")
    kept = machine if file is None else tmp_path / "mounted" / file
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("oom 9\noom_kill 3\n")
    count = KillCount(tmp_path / "groups", tmp_path / "mounted", machine)
    assert not count.has_grown()  # nothing to compare with yet
    count.look()
    assert not count.has_grown()
    kept.write_text("oom 9\noom_kill 4\n")
    assert count.has_grown()
    count.look()  # a moment later: the kill still stands out
    assert count.has_grown()


def test_where_the_kernel_counts_nothing_nothing_is_said(tmp_path: Path) -> None:  # T-25
    count = KillCount(tmp_path / "none", tmp_path, tmp_path / "neither")
    count.look()
    assert not count.has_grown()


def test_every_leaf_has_a_code_and_says_whose_fault_it_is() -> None:
    leaves = [found for found in vars(errors).values() if getattr(found, "__module__", "") == errors.__name__]
    assert all(issubclass(leaf, MlldError) and leaf.code for leaf in leaves)
    assert issubclass(errors.ScriptError, TaskError)
    assert issubclass(errors.CallTimeout, InfrastructureError)
    assert not issubclass(errors.CallCancelled, (InfrastructureError, TaskError))


def test_a_directory_says_whose_it_is() -> None:  # T-37
    assert mark_of_directory("mlld-otp-4026531836-12-34-abcd") == Mark("4026531836", 12, 34, "")
    for name in ("mlld-otp-1-2", "mlld-otp-1-x-3-4", "other-1-2-3-4-5", ""):
        assert mark_of_directory(name) is None
