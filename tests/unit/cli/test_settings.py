"""Settings come from the command line, the environment, the code or a default, in that order, and say which."""

import pytest

from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.cli.settings import configuration


def sources(**given: object) -> dict[str, tuple[object, str]]:
    return {one.name: (one.value, one.source) for one in configuration(**given).settings}  # type: ignore[arg-type]


def test_without_a_word_everything_is_a_default_and_the_runtime_decides() -> None:
    found = configuration(environ={})
    assert {one.source for one in found.settings} == {"default"}
    assert found.options() == {}
    assert found["drain_timeout"] == 10.0


def test_the_environment_beats_the_code_and_the_command_line_beats_both() -> None:
    code = {"store": "code.db", "drain_timeout": 1.0, "stop_timeout": 2.0, "stagger": 9}
    environ = {"MLLD_OTP_STORE": "env.db", "MLLD_OTP_DRAIN_TIMEOUT": "3", "MLLD_OTP_MAX_ENGINES": "4"}
    found = sources(code=code, command_line={"store": "line.db", "log": None}, environ=environ)
    assert found["store"] == ("line.db", "command line")
    assert found["drain_timeout"] == (3.0, "environment")
    assert found["stop_timeout"] == (2.0, "code")
    assert found["max_engines"] == (4, "environment")
    assert found["log"] == ("plain", "default")
    options = configuration(code, {"store": "line.db"}, environ).options()
    assert options == {"store": "line.db", "drain_timeout": 3.0, "stop_timeout": 2.0, "max_engines": 4}


def test_an_empty_variable_says_nothing() -> None:
    assert sources(environ={"MLLD_OTP_STORE": ""})["store"] == (None, "default")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLLD_OTP_DRAIN_TIMEOUT", "soon"),
        ("MLLD_OTP_DRAIN_TIMEOUT", "-1"),
        ("MLLD_OTP_STOP_TIMEOUT", "nan"),
        ("MLLD_OTP_MAX_ENGINES", "0"),
        ("MLLD_OTP_MAX_ENGINES", "many"),
        ("MLLD_OTP_LOG", "loud"),
        ("MLLD_ENGINE", "steam"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{variable}.*{value}"):
        configuration(environ={variable: value})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("drain_timeout", ".5", 0.5), ("stop_timeout", " 7 ", 7.0), ("max_engines", "04", 4), ("max_engines", "+4 ", 4)],
)
def test_numbers_are_read_as_python_reads_them(name: str, text: str, value: float) -> None:
    assert sources(environ={f"MLLD_OTP_{name.upper()}": text})[name] == (value, "environment")


def test_a_misspelt_variable_is_refused_and_told_what_there_is() -> None:
    with pytest.raises(ConfigurationError, match=r"MLLD_OTP_STOER.*MLLD_OTP_STORE"):
        configuration(environ={"MLLD_OTP_STOER": "x.db"})


def test_what_the_library_sets_itself_is_no_setting() -> None:
    assert configuration(environ={"MLLD_OTP_OWNER": "x"})


def test_the_printout_says_where_each_value_comes_from() -> None:
    lines = str(configuration({"store": "s.db"}, environ={"MLLD_OTP_LOG": "json"})).splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [["store", "s.db", "code"], ["log", "json", "environment"]]
    assert lines[0].endswith("MLLD_OTP_STORE")
