"""Where a service's settings come from: the command line, the environment, the code, or a default, in that order.

`mlld-otp run` uses it for the runtime it makes. A program that makes its own `Runtime` decides for itself, and may use
it too: `Runtime(tree, **configuration({"store": "state.db"}).options())`. The library alone reads nothing of this from
the environment, so that two runtimes in one process never share a store by accident.
"""

import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.cli.render import table
from mlld_sdk.control.protocol import socket_folder
from mlld_sdk.engines.kinds import KINDS, VARIABLE, EngineKind

Source = Literal["command line", "environment", "code", "default"]

Log = Literal["plain", "json", "off"]
Level = Literal["debug", "info"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting and where its value comes from.

    Attributes:
        name: What it is called in code.
        value: Its value.
        source: Where the value comes from.
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
        """Return the value of a setting."""
        return next(setting.value for setting in self.settings if setting.name == name)

    def options(self) -> dict[str, Any]:
        """Return the options a `Runtime` is made with, without those that are left to its own defaults."""
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
        return table(rows[0], rows[1:])


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
    names = {known.variable for known in KNOWN}
    for name in sorted(surroundings):
        if name.startswith(PREFIX) and name not in names and name not in INTERNAL:
            raise ConfigurationError(
                f"there is no setting {name}",
                hint=f"there are: {', '.join(sorted(names))}; the others are options in code",
            )
    code, command_line = code or {}, command_line or {}
    return Configuration(settings=tuple(_effective(known, code, command_line, surroundings) for known in KNOWN))


READERS: Final[Mapping[str, tuple[Callable[[str], Any], Any]]] = {
    "log": (str, Log),
    "log_level": (str, Level),
    "max_engines": (int, Annotated[int, msgspec.Meta(ge=1)]),
    "drain_timeout": (float, Annotated[float, msgspec.Meta(ge=0)]),
    "stop_timeout": (float, Annotated[float, msgspec.Meta(ge=0)]),
    "engine": (str, EngineKind),
}
"""What reads variables that are no plain text, as Python reads numbers, and what may come of it, by name of setting."""

KNOWN: Final = tuple(
    Setting(name=name, variable=variable, value=default, source="default", meaning=meaning)
    for name, variable, default, meaning in (
        ("store", "MLLD_OTP_STORE", None, "file of the journal; without one, runs end with the process"),
        ("log", "MLLD_OTP_LOG", "plain", f"how events are written to stderr: {', '.join(get_args(Log))}"),
        ("log_level", "MLLD_OTP_LOG_LEVEL", "info", f"from which level on: {', '.join(get_args(Level))}"),
        ("max_engines", "MLLD_OTP_MAX_ENGINES", None, "engines that may live at once, at least 1"),
        ("drain_timeout", "MLLD_OTP_DRAIN_TIMEOUT", 10.0, "seconds runs get to end before a stop"),
        ("stop_timeout", "MLLD_OTP_STOP_TIMEOUT", 20.0, "seconds the tree then gets to stop"),
        ("runtime_dir", "MLLD_OTP_RUNTIME_DIR", None, "folder of the control socket"),
        ("engine", VARIABLE, "live", f"engine where a declaration names none: {', '.join(KINDS)}"),
    )
)

RUNTIME: Final = ("store", "max_engines", "drain_timeout", "stop_timeout")
"""Settings that are options of a `Runtime`."""

PREFIX: Final = "MLLD_OTP_"

INTERNAL: Final = ("MLLD_OTP_OWNER", "MLLD_OTP_BRIDGE_PACKAGE", "MLLD_OTP_BRIDGE_VERSION")
"""Variables of this prefix that the library sets itself, for the processes below an engine."""


def _effective(known: Setting, code: Mapping[str, Any], said: Mapping[str, Any], environ: Mapping[str, str]) -> Setting:
    source: Source = "default"
    value = str(socket_folder().parent) if known.name == "runtime_dir" else known.value
    if code.get(known.name) is not None:
        source, value = "code", code[known.name]
    if text := environ.get(known.variable):
        try:
            read, kind = READERS.get(known.name, (str, str))
            source, value = "environment", msgspec.convert(read(text), kind)
        except (ValueError, msgspec.ValidationError):
            raise ConfigurationError(
                f"{known.variable} has a value that makes no sense: {text!r}", hint=f"it means: {known.meaning}"
            ) from None
    if said.get(known.name) is not None:
        source, value = "command line", said[known.name]
    if known.name == "store" and value is not None:
        value = os.fspath(value)
    return msgspec.structs.replace(known, value=value, source=source)
