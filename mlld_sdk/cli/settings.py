"""Where a service's settings come from: the command line, the environment, the code, or a default, in that order.

`mlld-otp run` uses it for the runtime it makes. A program that makes its own `Runtime` decides for itself, and may use
it too: `Runtime(tree, **configuration({"store": "state.db"}).options())`. The library alone reads nothing of this from
the environment, so that two runtimes in one process never share a store by accident.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.control.protocol import socket_path
from mlld_sdk.engines.kinds import KINDS, VARIABLE

Source = Literal["command line", "environment", "code", "default"]

LOGS: Final = ("plain", "json", "off")
LEVELS: Final = ("debug", "info")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting and where its value comes from.

    Attributes:
        name: What it is called in code.
        value: Its value.
        source: Who said so.
        variable: The environment variable that would override the code.
        meaning: What it is for.
    """

    name: str
    value: Any
    source: Source
    variable: str
    meaning: str


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The effective settings of a service."""

    settings: tuple[Setting, ...]

    def __getitem__(self, name: str) -> Any:
        """Give the value of a setting."""
        return next(setting.value for setting in self.settings if setting.name == name)

    def options(self) -> dict[str, Any]:
        """Give what a `Runtime` is to be made with; what nobody has said is left to the runtime's own defaults."""
        return {
            setting.name: setting.value
            for setting in self.settings
            if setting.name in RUNTIME and setting.source != "default"
        }

    def __str__(self) -> str:
        rows = [
            (setting.name, "-" if setting.value is None else str(setting.value), setting.source, setting.variable)
            for setting in self.settings
        ]
        widths = [max(len(row[at]) for row in rows) for at in range(3)]
        return "\n".join(
            f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source:<{widths[2]}}  {variable}"
            for name, value, source, variable in rows
        )


def configuration(
    code: Mapping[str, Any] | None = None,
    command_line: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Configuration:
    """Find out what is effective.

    Args:
        code: Options the program declares.
        command_line: Options given on the command line; `None` values are not given.
        environ: The environment, by default this process's.

    Raises:
        ConfigurationError: A variable has a value that makes no sense, or there is no variable of that name.
    """
    surroundings = os.environ if environ is None else environ
    _refuse_unknown(surroundings)
    return Configuration(
        settings=tuple(_setting(known, code or {}, command_line or {}, surroundings) for known in KNOWN)
    )


class _Known(msgspec.Struct, frozen=True):
    name: str
    variable: str
    read: Callable[[str], Any]
    default: Any
    meaning: str


def _seconds(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise ValueError
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return read


KNOWN: Final = (
    _Known("store", "MLLD_OTP_STORE", str, None, "file of the journal; without one, runs end with the process"),
    _Known("log", "MLLD_OTP_LOG", _one_of(*LOGS), "plain", f"how events are written to stderr: {', '.join(LOGS)}"),
    _Known("log_level", "MLLD_OTP_LOG_LEVEL", _one_of(*LEVELS), "info", f"from which level on: {', '.join(LEVELS)}"),
    _Known("max_engines", "MLLD_OTP_MAX_ENGINES", _at_least_one, None, "engines that may live at once, at least 1"),
    _Known("drain_timeout", "MLLD_OTP_DRAIN_TIMEOUT", _seconds, 10.0, "seconds runs get to end before a stop"),
    _Known("stop_timeout", "MLLD_OTP_STOP_TIMEOUT", _seconds, 20.0, "seconds the tree then gets to stop"),
    _Known("runtime_dir", "MLLD_OTP_RUNTIME_DIR", str, None, "folder of the control socket"),
    _Known("engine", VARIABLE, _one_of(*KINDS), "live", f"engine where a declaration names none: {', '.join(KINDS)}"),
)

RUNTIME: Final = ("store", "max_engines", "drain_timeout", "stop_timeout")
"""Settings that are options of a `Runtime`."""

PREFIX: Final = "MLLD_OTP_"

INTERNAL: Final = ("MLLD_OTP_OWNER", "MLLD_OTP_BRIDGE_PACKAGE", "MLLD_OTP_BRIDGE_VERSION")
"""Variables of this prefix that the library sets itself, for the processes below an engine."""


def _setting(known: _Known, code: Mapping[str, Any], said: Mapping[str, Any], environ: Mapping[str, str]) -> Setting:
    source: Source = "default"
    value = known.default
    if known.name == "runtime_dir":
        value = str(socket_path("any").parent.parent)
    if code.get(known.name) is not None:
        source, value = "code", code[known.name]
    if environ.get(known.variable):
        source, value = "environment", _read(known, environ[known.variable])
    if said.get(known.name) is not None:
        source, value = "command line", said[known.name]
    if known.name == "store" and value is not None:
        value = os.fspath(value)
    return Setting(name=known.name, value=value, source=source, variable=known.variable, meaning=known.meaning)


def _read(known: _Known, text: str) -> Any:
    try:
        return known.read(text)
    except ValueError:
        raise ConfigurationError(
            f"{known.variable} has a value that makes no sense: {text!r}", hint=f"it means: {known.meaning}"
        ) from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    names = {known.variable for known in KNOWN}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in names and name not in INTERNAL:
            raise ConfigurationError(
                f"there is no setting {name}",
                hint=f"there are: {', '.join(sorted(names))}; the others are options in code",
            )
