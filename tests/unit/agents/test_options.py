"""What is said about wrong options: which one, what is allowed, what was given; and that the start fails, not a run."""

from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, ConfigurationError, Pool, Runtime, child, one_for_one
from mlld_sdk.actors.core.errors import StartFailed
from mlld_sdk.agents.options import AgentOptions
from mlld_sdk.agents.pool import PoolOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "embeded"}, "engine must be 'live', 'bridge', 'embedded' or None, got 'embeded'"),
        ({"checkpoint": "yes"}, "checkpoint must be True, False or 'isolated', got 'yes'"),
        ({"isolation": None}, "isolation must be 'exclusive' or 'shared', got None"),
        ({"timeout": "soon"}, "timeout must be a number or None, got 'soon'"),
        ({"concurrency": 1.5}, "concurrency must be a whole number, got 1.5"),
        ({"script": 7}, "script must be text or None, got 7"),
        ({"command_args": [1]}, "command_args must be a list of texts, got (1,)"),
        ({"environ": {"A": 1}}, "environ must be a mapping of texts to texts, got {'A': 1}"),
        ({"recycle": 3}, "recycle must be a Recycle, got 3"),
        ({"script": ["x" * 500]}, f"script must be text or None, got ('{'x' * 78}…"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        AgentOptions().having(values)
    assert told.value.message == message


def test_an_option_that_does_not_exist_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match="there is no option 'sizes'") as told:
        PoolOptions().having({"sizes": 3})
    assert told.value.hint is not None
    assert told.value.hint.startswith("did you mean `size`? there are: ")


class Embedded(Agent):
    engine = "embedded"
    run = None


@pytest.mark.parametrize("kind", [Embedded, Pool])
def test_a_missing_directory_fails_the_start_and_not_each_run(kind: Any, tmp_path: Path) -> None:
    spec = child(kind, name="a", engine="embedded", working_dir=tmp_path / "nowhere")
    with (
        pytest.raises(StartFailed, match=r"working_dir: there is no directory '.*nowhere'"),
        Runtime(one_for_one(spec)),
    ):
        pytest.fail("it started")


def test_a_class_that_forgets_its_parent_s_init_is_told_so() -> None:
    class NoSuper(Embedded):
        def __init__(self) -> None:
            self.x = 1

    with (
        pytest.raises(StartFailed, match=r"NoSuper\.__init__ does not call super\(\)\.__init__"),
        Runtime(one_for_one(child(NoSuper, name="a"))),
    ):
        pytest.fail("it started")


def test_a_cache_that_is_not_asked_for_is_not_mentioned() -> None:
    def caching(**options: Any) -> object:
        return AgentOptions(**options).caching(lambda: Path("/own"))

    for nothing in ({}, {"checkpoint": False}, {"resume": False}, {"resume": ""}, {"fresh": False}, {"fork": None}):
        assert caching(**nothing) == {}
    assert caching(resume=True, fork="", checkpoint=True) == {"resume": True, "fork": "", "checkpoint": True}
    isolated = caching(resume="@f", checkpoint="isolated")
    assert isolated == {"resume": "@f", "checkpoint": True, "checkpoint_root": "/own"}
